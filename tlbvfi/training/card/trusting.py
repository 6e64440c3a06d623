"""The network that says where the flow is not to be trusted (`../../modules/trust.py`), on all others as they end.

What it sees and what the flow makes of it are made once and looked at many times, mirrored, turned and reversed. It
learns which is nearer to the truth at each place, the frame along the flow or the mean of both, and the more the more
that matters there; and by the loss of the frame that comes of it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model import TLBVFI
from ...modules.coarse_maps import above
from ...modules.trust import CHANCES, CHANNELS
from ...rows.tuning import tuned
from .. import pipeline
from ..metrics import LPIPS
from .codec import available, sometimes_coded
from .draws import Chance
from .losses import charbonnier_map, course, perceptual
from .step import LEARNING
from .triplets import Source, Triplets

_RATE, _BATCH = 2e-3, 12
#: Share of the time after which the frame counts as well.
_FRAME_FROM = 0.6
#: Pixels along a square whose errors say what is nearer there, and an error, of 1, that matters little.
_AROUND, _LITTLE = 5, 0.004
#: How much more a pixel counts where an overlay is, or beside it.
_OVERLAY = 3.0
_COLOURS = sum(CHANNELS[:4])


@dataclass
class Looked:
    """What there is to learn from.

    Attributes:
        seen: by the network, (B, channels, S / 2, S / 2).
        frames: (4, B, 3, S, S) in [0, 1]: first and last, the middle one, and what the flow makes of it.
        overlay: (B, 1, S, S), 1 where an overlay is.
    """

    seen: Tensor
    frames: Tensor
    overlay: Tensor

    @staticmethod
    def joined(parts: list[Looked]) -> Looked:
        return Looked(
            torch.cat([part.seen for part in parts]),
            torch.cat([part.frames for part in parts], dim=1),
            torch.cat([part.overlay for part in parts]),
        )

    def packed(self) -> Looked:
        """Half as large, as it is kept."""
        return Looked(self.seen.half(), (self.frames * 255.0).round().byte(), self.overlay.byte())

    def some(self, which: Tensor) -> Looked:
        """Of what was kept."""
        return Looked(self.seen[which].float(), self.frames[:, which].float() / 255.0, self.overlay[which].float())

    def turned(self, chance: Chance) -> Looked:
        """Mirrored, transposed or reversed in time, all alike."""
        first, last, along0, along1, flow, rest = self.seen.split([*CHANNELS[:5], sum(CHANNELS[5:])], dim=1)
        frames, overlay = self.frames, self.overlay
        if chance.once(0.5):
            first, last, along0, along1, flow = last, first, along1, along0, flow.roll(2, 1)
            frames = frames[[1, 0, 2, 3]]
        for axis, signs in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
            if chance.once(0.5):
                first, last, along0, along1, flow, rest, frames, overlay = (
                    x.flip(axis) for x in (first, last, along0, along1, flow, rest, frames, overlay)
                )
                flow = flow * flow.new_tensor([*signs, *signs])[:, None, None]
        seen = torch.cat([first, last, along0, along1, flow, rest], dim=1)
        if chance.once(0.5):
            seen, frames, overlay = (x.transpose(-1, -2) for x in (seen, frames, overlay))
            seen[:, _COLOURS : _COLOURS + 4] = seen[:, [_COLOURS + 1, _COLOURS, _COLOURS + 3, _COLOURS + 2]]
        return Looked(seen, frames, overlay)


@torch.no_grad()
def looked(model: TLBVFI, triplets: Triplets, scale: float) -> Looked:
    """What a model makes of triplets at a flow scale without that network, and what the network sees."""
    x0, xm, x1 = triplets.frames
    with tuned(LEARNING):
        ends = [model.encode_frame(frame * 2 - 1, scale) for frame in (x0, x1)]
        empty = pipeline.empty_deepest(model, ends[0].deepest, x0.shape[-2], x0.shape[-1])
        codes = pipeline.codes_of(model, (ends[0].deepest, empty, ends[1].deepest), (x0, x1))
        flow = model.flows(ends[0], ends[1]).full
        made, seen = pipeline.decode_trusting(model, codes, (x0, x1), (ends[0].pyramid, ends[1].pyramid), flow)
    return Looked(seen, torch.stack([x0, x1, xm, made.float().clamp(0.0, 1.0)]), triplets.overlay)


def captioned(source: Source, batch: int, chance: Chance, overlays: float) -> Triplets | None:
    """Parts of real video, overlays on a share of them, most of them through a codec; None where there is no video."""
    parts = _parts(source, batch, chance, (1, 2, 3), 1, (-1.0, 0.0, 1.0, 2.0, 3.0))  # a codec looks before and after
    if parts is None:
        return None
    coding = partial(sometimes_coded, chance=chance) if available() else None
    return source.with_overlays(parts, chance, overlays, (-0.5, 0.0, 0.5, 1.0, 1.5), coding)


def far(source: Source, batch: int, chance: Chance, overlays: float, quarter: bool = False) -> Triplets | None:
    """Parts of real video whose frames are 4 to 8 apart, as the first of a bisection are; None where there is none."""
    steps = (0.0, 1.0, 2.0, 0.5) if quarter else (0.0, 1.0, 2.0)
    parts = _parts(source, batch, chance, (4, 6, 8), 4, steps)
    return None if parts is None else source.with_overlays(parts, chance, overlays)


@torch.no_grad()
def looks(model: TLBVFI, source: Source, batch: int, chances: Iterator[Chance], until: float) -> Looked:
    """What there is to learn from, made until a moment of the monotonic clock: captions on real video most, real video
    and scenes, frames far apart, and the second frames of a bisection."""
    made: list[Looked] = []
    while not made or time.monotonic() < until:
        chance, kind = next(chances), len(made) % 8
        triplets: Triplets | None = None
        if kind in (0, 2, 5):
            triplets = captioned(source, batch, chance, 1.0)
        elif kind == 1:
            triplets = captioned(source, batch, chance, 0.0)
        elif kind in (4, 6):
            triplets = far(source, batch, chance, 0.3)
        elif kind == 7:
            triplets = far(source, batch, chance, 0.0, quarter=True)
        if triplets is None:
            triplets = source.rendered(batch, chance, 0.5)
        scale = 1.0 if chance.once(0.4) else 0.5
        look = looked(model, triplets, scale)
        if triplets.quarter is not None:
            first, between = triplets.frames[0], look.frames[3]
            halved = replace(triplets, frames=torch.stack([first, triplets.quarter, between]), quarter=None)
            look = looked(model, halved, scale)
        made.append(look.packed())
    return Looked.joined(made)


def _parts(
    source: Source, batch: int, chance: Chance, gaps: Sequence[int], listed: int, steps: Sequence[float]
) -> Tensor | None:
    """Parts of video (n, B, 3, S, S), at so many steps of a gap from where motion at the listed distance begins."""
    usable = [(video, starts) for video in source.videos if (starts := video.starting(listed, source.kept))]
    taken: list[Tensor] = []
    for _ in range(50 * batch if usable else 0):
        video, starts = usable[int(chance.number(len(usable)))]
        start, gap = starts[int(chance.number(len(starts)))], gaps[int(chance.number(len(gaps)))]
        moments = [start + round(step * gap) for step in steps]
        low, high = (video.learnt, len(video.frames)) if source.kept else (0, video.learnt)
        if low <= min(moments) and max(moments) < high:
            taken.append(source.part(video, moments, chance))
        if len(taken) == batch:
            return torch.stack(taken, dim=1)
    return None


def nearer_loss(logits: Tensor, looked: Looked) -> Tensor:
    """Cross entropy of which is nearer, by how much that matters at a place beside the others of its frame."""
    first, last, truth, made = looked.frames
    errors = [
        F.avg_pool2d((x - truth).abs().mean(dim=1, keepdim=True), _AROUND, 1, _AROUND // 2)
        for x in ((first + last) / 2, made)
    ]
    weight = (errors[0] - errors[1]).abs()
    weight = weight / (weight.mean(dim=(1, 2, 3), keepdim=True) + _LITTLE)
    weight = weight * (1.0 + (_OVERLAY - 1.0) * F.max_pool2d(looked.overlay, 7, 1, 3))
    error = F.binary_cross_entropy_with_logits(logits, (errors[0] < errors[1]).float(), reduction="none")
    return (error * weight).sum() / weight.sum().clamp_min(1e-6)


def frame_loss(logits: Tensor, looked: Looked, lpips: LPIPS | None) -> Tensor:
    """Of the frame that comes of it."""
    first, last, truth, made = looked.frames
    frame = torch.lerp(made, (first + last) / 2, above(torch.sigmoid(logits), CHANCES))
    weight = 1.0 + (_OVERLAY - 1.0) * F.max_pool2d(looked.overlay, 7, 1, 3)
    weight = weight / weight.mean()
    square = ((frame - truth).square() * weight).mean(dim=(1, 2, 3))
    # The logarithm, too: a caption on a calm picture counts as much as far motion does.
    loss = (charbonnier_map(frame - truth) * weight).mean() + 4.0 * square.mean() + 0.003 * (square + 1e-5).log().mean()
    return loss if lpips is None else loss + perceptual(lpips, frame, truth)


def train_trust(
    model: TLBVFI, kept: Looked, lpips: LPIPS | None, chances: Iterator[Chance], until: float
) -> dict[str, float]:
    """Train it alone until a moment of the monotonic clock; its cross entropy at first and at last."""
    model.requires_grad_(False)
    parameters = pipeline.trust_parameters(model)
    for parameter in parameters:
        parameter.requires_grad_(True)
    average = copy.deepcopy([parameter.detach() for parameter in parameters])
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    began, errors = time.monotonic(), list[Tensor]()
    while (now := time.monotonic()) < until:
        spent, steps, chance = (now - began) / (until - began), len(errors), next(chances)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (steps + 1) / 50) * (0.03 + 0.97 * 0.5 * (1.0 + math.cos(math.pi * spent)))
        which = chance.number(len(kept.overlay), _BATCH).to(kept.overlay.device)
        batch = kept.some(which).turned(chance)
        with tuned(LEARNING), torch.autocast(batch.seen.device.type, torch.bfloat16):
            logits = pipeline.mean_is_nearer(model, batch.seen)
            logits = F.interpolate(logits, batch.overlay.shape[-2:], mode="bilinear")
            error = nearer_loss(logits, batch)
            loss = error if spent < _FRAME_FROM else 0.02 * error + frame_loss(logits, batch, lpips)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                average, [p.detach() for p in parameters], 1.0 - min(0.998, (steps + 2) / (steps + 21))
            )
        errors.append(error.detach())
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    model.requires_grad_(False)
    return course(errors)

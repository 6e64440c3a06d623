"""Batches to learn from: rendered scenes and real video, with overlays, on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Chance, SceneMaker
from .motion import frame_places
from .overlays import put_on
from .parcel import Parcel, Pictures, Video
from .scenes import Rendered, render


@dataclass
class Triplets:
    """Three frames, and what is known of them.

    Attributes:
        frames: (3, B, 3, S, S) in [0, 1]: first, middle, last.
        quarter: (B, 3, S, S), the frame half-way from the first to the middle, where it was asked for.
        flow: (B, 4, S, S) pixels, from the middle to the first and to the last; NaN where nobody knows.
        seen: (B, 2, S, S) bool, where the first and the last show the same.
        overlay: (B, 1, S, S) bool, where an overlay is.
    """

    frames: Tensor
    flow: Tensor
    seen: Tensor
    overlay: Tensor
    quarter: Tensor | None = None

    def __len__(self) -> int:
        return len(self.flow)

    def chosen(self, which: Tensor | slice) -> Triplets:
        quarter = None if self.quarter is None else self.quarter[which]
        return Triplets(self.frames[:, which], self.flow[which], self.seen[which], self.overlay[which], quarter)

    @staticmethod
    def joined(parts: list[Triplets]) -> Triplets:
        frames = torch.cat([part.frames for part in parts], dim=1)
        flow, seen = torch.cat([part.flow for part in parts]), torch.cat([part.seen for part in parts])
        quarters = [part.quarter for part in parts if part.quarter is not None]
        quarter = torch.cat(quarters) if len(quarters) == len(parts) else None
        return Triplets(frames, flow, seen, torch.cat([part.overlay for part in parts]), quarter)

    def to(self, dtype: torch.dtype) -> Triplets:
        """With frames and flows in another dtype, as they are kept."""
        quarter = None if self.quarter is None else self.quarter.to(dtype)
        return Triplets(self.frames.to(dtype), self.flow.to(dtype), self.seen, self.overlay, quarter)

    def turned(self, chance: Chance) -> Triplets:
        """Mirrored, transposed or reversed in time, all of them alike."""
        frames, flow, seen, overlay = self.frames, self.flow, self.seen, self.overlay
        quarter = self.quarter
        if chance.once(0.5) and quarter is None:
            frames, flow, seen = frames.flip(0), flow.roll(2, 1), seen.flip(1)
        for axis, signs in ((-1, (-1.0, 1.0)), (-2, (1.0, -1.0))):
            if chance.once(0.5):
                frames, flow, seen, overlay = (x.flip(axis) for x in (frames, flow, seen, overlay))
                flow = flow * flow.new_tensor([*signs, *signs])[:, None, None]
                quarter = None if quarter is None else quarter.flip(axis)
        if chance.once(0.5):
            frames, flow, seen, overlay = (x.transpose(-1, -2) for x in (frames, flow, seen, overlay))
            flow = flow[:, [1, 0, 3, 2]]
            quarter = None if quarter is None else quarter.transpose(-1, -2)
        return Triplets(frames, flow, seen, overlay, quarter)


def finished(rendered: Rendered, overlay: Tensor) -> Triplets:
    """Triplets of the frames at 0, 1/2 and 1, rounded as 8 bits are, and at 1/4 if there is one."""
    frames = [(frame.clamp(0.0, 1.0) * 255.0).round() / 255.0 for frame in rendered.frames]
    at = {t: i for i, t in enumerate(rendered.times)}
    flow = torch.cat([rendered.flow(at[0.0]), rendered.flow(at[1.0])], dim=1)
    seen = torch.cat([rendered.visible(at[0.0]), rendered.visible(at[1.0])], dim=1)
    quarter = frames[at[0.25]] if 0.25 in at else None
    return Triplets(torch.stack([frames[at[t]] for t in (0.0, 0.5, 1.0)]), flow, seen, overlay, quarter)


def lit(rendered: Rendered, chance: Chance, share: float) -> None:
    """Brightness and gamma that drift, for a share of the scenes."""
    batch, device = len(rendered.labels[0]), rendered.frames[0].device
    drifts = chance.happens(share, batch)
    gain, gamma = chance.normal(0.06, batch) * drifts, chance.normal(0.05, batch) * drifts
    numbers = torch.stack([gain, gamma], dim=1).float().to(device)[..., None, None, None]
    for i, t in enumerate(rendered.times):
        gain_then, gamma_then = numbers[:, 0] * (t - 0.5), numbers[:, 1] * (t - 0.5)
        rendered.frames[i] = rendered.frames[i].clamp(1e-4, 1.0) ** gamma_then.exp() * gain_then.exp()


def noisy(rendered: Rendered, chance: Chance, share: float, most: float = 0.016) -> None:
    """Noise on all frames of a share of the scenes, as cameras and codecs leave it on what stands still too."""
    batch, device = len(rendered.labels[0]), rendered.frames[0].device
    deviation = chance.uniform(0.0, most, batch) * chance.happens(share, batch)
    deviation = deviation.float().to(device)[:, None, None, None]
    for i, frame in enumerate(rendered.frames):
        rendered.frames[i] = frame.clamp(0.0, 1.0) + deviation * torch.randn_like(frame)


class Source:
    """Makes triplets of what is trained on, or of what is kept for the measures."""

    def __init__(self, pictures: Pictures, videos: list[Video], size: int, kept: bool = False) -> None:
        self.maker, self.size, self.kept = SceneMaker(pictures, size), size, kept
        self.overlays = pictures.overlays
        self.videos = [v for v in videos if any(v.starting(gap, kept) for gap in v.starts)]

    @staticmethod
    def of(parcel: Parcel, size: int) -> tuple[Source, Source]:
        """To train on, and kept."""
        learnt, kept = parcel.pictures.split()
        return Source(learnt, parcel.videos, size), Source(kept, parcel.videos, size, kept=True)

    @torch.no_grad()
    def rendered(self, batch: int, chance: Chance, overlays: float, quarter: bool = False) -> Triplets:
        """Rendered scenes, an overlay on this share of them."""
        times = (0.0, 0.25, 0.5, 1.0) if quarter else (0.0, 0.5, 1.0)
        made = render(self.maker.drawn(batch, chance), times, self.maker.device)
        lit(made, chance, 0.3)
        there = put_on(made, self.overlays, chance, overlays)
        noisy(made, chance, 0.3)
        return finished(made, there)

    @torch.no_grad()
    def real(self, batch: int, chance: Chance, overlays: float, quarter: bool = False) -> Triplets | None:
        """Parts of real video, an overlay on this share of them; None where there is no video."""
        gaps = (2, 4) if quarter else (1, 2, 4)
        taken: list[Tensor] = []
        count = batch if self.kept else 2 * batch
        usable = [(v, [g for g in gaps if v.starting(g, self.kept)]) for v in self.videos]
        usable = [(video, fitting) for video, fitting in usable if fitting]
        if not usable:
            return None
        for _ in range(count):
            video, fitting = usable[int(chance.number(len(usable)))]
            gap = fitting[int(chance.number(len(fitting)))]
            starts = video.starting(gap, self.kept)
            start = starts[int(chance.number(len(starts)))]
            moments = [start, start + gap, start + 2 * gap]
            if quarter:
                moments.append(start + gap // 2)
            taken.append(self.part(video, moments, chance))
        parts = torch.stack(taken, dim=1)  # (3 or 4, count, 3, S, S)
        if count > batch:  # of two the livelier
            moved = (parts[0] - parts[2]).abs().mean(dim=(1, 2, 3)).view(2, batch)
            livelier = moved.argmax(dim=0) * batch + torch.arange(batch, device=moved.device)
            parts = parts[:, livelier]
        return self.with_overlays(parts, chance, overlays)

    def part(self, video: Video, moments: list[int], chance: Chance) -> Tensor:
        """A part of some frames of a video, at a random size: (n, 3, S, S) in [0, 1]."""
        height, width = video.frames.shape[-2:]
        least = self.size / min(height, width)
        share = least if least >= 1.0 else float(chance.uniform(max(least, 0.6), 1.0)) if chance.once(0.6) else 1.0
        side = min(round(self.size / share), height, width)
        top, left = int(chance.number(height - side + 1)), int(chance.number(width - side + 1))
        part = video.frames[moments, :, top : top + side, left : left + side].float() / 255.0
        if side == self.size:
            return part
        return F.interpolate(part, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)

    def with_overlays(
        self,
        parts: Tensor,
        chance: Chance,
        share: float,
        times: Sequence[float] = (0.0, 0.5, 1.0, 0.25),
        coding: Callable[[Tensor], Tensor] | None = None,
    ) -> Triplets:
        """Of parts (n, B, 3, S, S) at the first n of some times, 0, 1/2 and 1 among them, an overlay on this share, and
        all of it through a codec."""
        if not self.kept:
            brightness = chance.normal(0.1, parts.shape[1]).exp().float().to(parts.device)
            parts = parts * brightness[:, None, None, None]
        batch, size = parts.shape[1], self.size
        labels = torch.zeros(batch, 1, size, size, device=parts.device)
        unknown = torch.full((batch, 2, size, size), float("nan"), device=parts.device)
        here = frame_places(size, parts.device).expand(batch, -1, -1, -1)
        times = list(times[: len(parts)])
        places = [here.clone() if t == 0.5 else unknown.clone() for t in times]
        made = Rendered(times, list(parts.unbind(0)), [labels.clone() for _ in times], places)
        there = put_on(made, self.overlays, chance, share)
        if not self.kept:
            noisy(made, chance, 0.15)
        if coding is not None:
            made.frames = list(coding(torch.stack(made.frames)).unbind(0))
        triplets = finished(made, there)
        # Nothing is known of what no overlay covers.
        triplets.seen = triplets.seen & triplets.flow.isfinite().view(batch, 2, 2, size, size).all(dim=2)
        return triplets


class Replay:
    """The last rendered triplets, kept in half precision, to be seen again from another side."""

    def __init__(self, most: int) -> None:
        self.most, self._kept = most, list[Triplets]()

    def add(self, triplets: Triplets) -> None:
        self._kept.append(triplets.to(torch.float16))
        if len(self._kept) > self.most:
            self._kept.pop(0)

    def drawn(self, batch: int, chance: Chance) -> Triplets | None:
        """Some of one of the batches kept, or None while there are few."""
        if len(self._kept) < 4:
            return None
        older = self._kept[int(chance.number(len(self._kept) - 1))]
        which = torch.tensor(chance.order(len(older))[:batch]).to(older.flow.device)
        found = older.chosen(which)
        return Triplets(found.frames.float(), found.flow.float(), found.seen, found.overlay)

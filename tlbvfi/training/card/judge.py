"""How near a model's frames are to the truth, on scenes and video that nothing was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model import TLBVFI
from ...rows.tuning import Tuning, tuned
from ..metrics import LPIPS
from .draws import Chance
from .triplets import Source, Triplets

#: Pairs that a model is given at a time.
_AT_A_TIME = 8
SCALES = (0.5, 1.0)
Figures = dict[str, float]


@torch.no_grad()
def interpolated(model: TLBVFI, first: Tensor, last: Tensor, scale: float) -> Tensor:
    """The middle frames of pairs (B, 3, S, S) in [0, 1], by all of the model and without kernels of our own."""
    made = []
    with tuned(Tuning()):
        for a, b in zip(first.split(_AT_A_TIME), last.split(_AT_A_TIME), strict=True):
            frames = model.sample(a * 2 - 1, b * 2 - 1, scale, noise=torch.Generator().manual_seed(0))
            made.append((frames.float() * 0.5 + 0.5).clamp(0.0, 1.0))
    return torch.cat(made)


@dataclass
class Judge:
    """The sets that models are measured on.

    Attributes:
        sets: by name; "far" ones have a frame at 1/4, which the model makes by bisection.
        shown: what each model made of some pairs, by its name.
    """

    sets: dict[str, Triplets]
    lpips: LPIPS | None
    shown: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(kept: Source, lpips: LPIPS | None, count: int, seed: int = 1) -> Judge:
        """Sets of what is kept, always the same ones."""
        sets: dict[str, Triplets] = {}

        def chance(number: int) -> Chance:
            torch.manual_seed(number)  # noise of frames
            return Chance(torch.Generator().manual_seed(1000 * seed + number))

        for number, (name, overlays, quarter) in enumerate(
            (("video", 0.0, False), ("video, text", 1.0, False), ("video, far", 0.0, True))
        ):
            real = kept.real(count, chance(number), overlays, quarter)
            if real is not None:
                sets[name] = real
        sets["scenes, far"] = kept.rendered(count, chance(3), 0.0, quarter=True)
        sets["scenes, text"] = kept.rendered(count, chance(4), 1.0)
        return Judge(sets, lpips)

    def measured(self, name: str, model: TLBVFI) -> dict[str, Figures]:
        """Figures of a model by set and flow scale, under a name for the sheet of pictures."""
        found: dict[str, Figures] = {}
        pictures = []
        for title, triplets in self.sets.items():
            first, middle, last = triplets.frames
            for scale in SCALES:
                made = interpolated(model, first, last, scale)
                figures = self._score(made, middle, triplets.overlay)
                if triplets.quarter is not None:
                    deeper = interpolated(model, first, made, scale)
                    figures |= {f"{key} 1/4": v for key, v in self._score(deeper, triplets.quarter).items()}
                found[f"{title} @{scale:g}"] = figures
                pictures.append(made[:3])
        self.shown[name] = torch.cat(pictures)
        return found

    def average(self) -> dict[str, Figures]:
        """Figures of the mean of the two frames."""
        found: dict[str, Figures] = {}
        for title, triplets in self.sets.items():
            first, middle, last = triplets.frames
            found[title] = self._score((first + last) / 2, middle, triplets.overlay)
        return found

    @torch.no_grad()
    def _score(self, made: Tensor, truth: Tensor, overlay: Tensor | None = None) -> Figures:
        """Means over the frames: PSNR, detail as a share of the truth's, LPIPS, and PSNR where an overlay is."""
        square = (made - truth).square()
        figures = {"psnr": _psnr(square.mean(dim=(1, 2, 3))), "detail": float((_detail(made) / _detail(truth)).mean())}
        if self.lpips is not None:
            parts = zip(made.split(_AT_A_TIME), truth.split(_AT_A_TIME), strict=True)
            figures["lpips"] = float(torch.cat([self.lpips(a, b) for a, b in parts]).mean())
        if overlay is not None and overlay.any():
            near = F.max_pool2d(overlay.float(), 5, 1, 2)
            area = near.sum(dim=(1, 2, 3))
            there = area > 0
            inside = (square.mean(dim=1, keepdim=True) * near).sum(dim=(1, 2, 3))[there] / area[there]
            figures["psnr of overlays"] = _psnr(inside)
        return figures

    def sheet(self) -> Tensor:
        """Pictures side by side: first, last, truth, then what each model made at both flow scales."""
        rows = []
        number = 0
        for triplets in self.sets.values():
            count = len(triplets.frames[0][:3])
            views = [triplets.frames[i][:count] for i in (0, 2, 1)]
            for made in self.shown.values():
                views += [made[number : number + count], made[number + count : number + 2 * count]]
            rows.append(torch.cat(views, dim=3))
            number += 2 * count
        return torch.cat([row for group in rows for row in group], dim=1)


def _psnr(square: Tensor) -> float:
    return float((-10.0 * square.clamp_min(1e-6).log10()).mean())


def _detail(frames: Tensor) -> Tensor:
    """Mean gradient of each frame."""
    return frames.diff(dim=3).abs().mean(dim=(1, 2, 3)) + frames.diff(dim=2).abs().mean(dim=(1, 2, 3)) + 1e-6

"""A cross-fade where no motion was found, instead of what a wrong flow bends. Where a configuration asks; no weights.

A flow that is right makes the frames alike along it. Where they differ along it nearly as much as they do in place, far
motion was missed, or a thing came or went: the new frame would be torn, and everything that bisection makes of it.
The mean of the frames shows both instead, one through the other.

That is so of larger parts of a frame alone: beside what moves some of each frame is hidden in the other, and differs
whatever the flow.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .coarse_maps import Enlarged, above, differences_around, shrunk_by, towards_mean

#: Every how many-th place of the frames that are looked at counts, along a side; and places along a side whose
#: differences are added up: a fifth of the shorter side.
_STEP, _AROUND = 4, 21
#: Difference, of 1, that there is anyway.
_NOISE = 0.005
#: Differences along the flow, of 1, from which that matters: what is left of grain and of small leaves is no tear.
_MATTERS = (0.08, 0.12)
#: From the share at which it begins to the one from which on there is nothing but the mean.
_SOFT = 0.1


class CrossFade:
    """The mean of two frames where the flow between them explains too little."""

    def __init__(self, frames: tuple[Tensor, Tensor], flow: Tensor, share: float) -> None:
        """Find where.

        Args:
            frames: (B, 3, H, W) in [0, 1].
            flow: (B, 4, H, W) at their size.
            share: of the difference between the frames, from which on, where the flow leaves as much, they are faded.
        """
        self._frames = frames
        height, width = flow.shape[2:]
        shrunk = shrunk_by(height, width)
        self._places = Enlarged(_missed(frames, flow, share, shrunk), shrunk * _STEP, height, width)

    def blended(self, frame: Tensor, a: int, b: int) -> Tensor:
        """Rows a..b - 1 of the new frame (B, 3, ., W) in [0, 1], from those made along the flow."""
        return towards_mean(frame, self._frames, self._places.read(a, b), a, b)


def _missed(frames: tuple[Tensor, Tensor], flow: Tensor, share: float, shrunk: int) -> Tensor:
    """How far the motion around a place was missed: (B, 1, h, w) in [0, 1], a place every `shrunk` * _STEP pixels."""
    first, last = (F.avg_pool2d(frame, shrunk, ceil_mode=True) if shrunk > 1 else frame for frame in frames)
    step = shrunk * _STEP
    ways = flow[:, :, ::step, ::step] / shrunk
    along, in_place = differences_around((first, last), ways, _STEP, _AROUND, _mean_difference)
    return above(along / (in_place + _NOISE), (share, share + _SOFT)) * above(along, _MATTERS)


def _mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """Of all channels: (B, 1, h, w)."""
    return (a - b).abs_().mean(dim=1, keepdim=True)

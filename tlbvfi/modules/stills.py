"""What stands still before something that moves: captions, logos, bars. Without weights; where a configuration asks.

A flow that follows the background drags a caption along, and what is warped from beside it shows it a second time. A
place t of the frames is taken to stand still, before what moves, where

* the two frames are equal there, and what the motion at t would bring there from the other frame is not,
* around t what changes is unlike t in both frames. Where a thing moves before a background at rest, one of the frames
  shows the background beside t as well, so that a ball does not vanish whose place is empty in both.

None of it is certain at a place alone, so neighbouring places vote.

Around it the flow is drawn along as well. So where places near what stands still are not much more alike along the flow
than they are where they are, the mean of the frames is taken there, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rows.cuts import Cut
from ..rows.lazy import Rows, materialise
from .coarse_maps import Enlarged, above, below, differences_around, sampled, towards_mean
from .squares import mean_around
from .warp import warp_all

#: Shares of the difference that stands for stillness: below the first a place stands still, from the second on not;
#: and those where nothing moves, which noise must not reach.
_STILL, _AT_REST = (0.36, 1.0), (0.15, 0.6)
#: Differences from which the edge of a caption still counts, beside what stands still.
_EDGE = (0.08, 0.3)
#: Differences, of 1, from which something is unlike something else.
_UNLIKE = (0.06, 0.15)
#: Pixels between the frames from which a flow leads somewhere.
_MOVES = (0.5, 1.0)
#: How far what stands still beside a place spreads, of 1, from which its mean tells nothing of what was uncovered: of
#: letters with an outline it is a grey that many things are like.
_SPREADS = (0.15, 0.3)
#: Votes, as a share of the places around, from which they count, and those against, as a share of what changes.
_FOR, _AGAINST = (0.008, 0.03), (0.6, 0.8)
#: What a vote for counts among what changes: few votes against do not outvote many.
_OUTVOTED = 0.01
#: Every how many-th place votes, along a side; places along a square whose votes are counted together; and squares,
#: along a side, that decide: of votes for, of votes against, and then for their neighbours too.
_STEP, _SQUARE = 2, 4
_NEAR, _AROUND, _SPREAD = 3, 7, 3
#: Beside what stands still: places along a square whose differences are added up, of every _STEP-th place; shares of
#: the difference between the frames that the flow leaves, up to which it is followed, and from which on not; and the
#: difference, of 1, that there is anyway.
_BESIDE, _LEFT, _NOISE = 9, (0.5, 0.8), 0.01
#: What a warped frame that is hidden counts for, against one that is not.
_LEAST = 1e-4


class Stills:
    """What stands still in a new frame."""

    def __init__(
        self, frames: tuple[Tensor, Tensor], flow: Tensor, within: float, cuts: list[Cut], cubic: float = 0.0
    ) -> None:
        """Find it.

        Args:
            frames: (B, 3, H, W) in [0, 1].
            flow: (B, 4, H, W) at their size.
            within: how much, of 1, frames may differ where they stand still.
            cuts: rows to be worked on at a time.
            cubic: how the frames are sampled for the new one (:func:`.warp.warp_all`).
        """
        self._frames, self._flow, self._cubic = frames, flow, cubic
        #: (B, 2, H, W) in [0, 1]: what stands still before something that moves; that, what is at rest, and what is
        #: beside either and not found.
        self.places = _places(frames, flow, within, cuts)

    def blended(self, mask: Tensor, residual: Tensor, a: int, b: int) -> Tensor:
        """Rows a..b - 1 of the new frame, (B, 3, ., W) in [0, 1], by blend (B, 1, ., W) and residual (B, 3, ., W).

        The warped frame in which what stands still lies before a place is left out; where something stands still, or
        both are hidden, goes the mean of the frames.
        """
        before, after = self._flow[:, :, a:b].chunk(2, dim=1)
        warped0, hidden0 = warp_all((self._frames[0], self.places[:, :1]), before, a, self._cubic)
        warped1, hidden1 = warp_all((self._frames[1], self.places[:, :1]), after, a, self._cubic)
        share0, share1 = mask * (1.0 + _LEAST - hidden0), (1.0 - mask) * (1.0 + _LEAST - hidden1)
        frame = torch.lerp(warped1, warped0, share0 / (share0 + share1))
        frame = (frame + residual * (1.0 - torch.maximum(hidden0, hidden1))).clamp(0.0, 1.0)
        share = torch.maximum(self.places[:, 1:, a:b], torch.minimum(hidden0, hidden1))
        return towards_mean(frame, self._frames, share, a, b)


def _places(frames: tuple[Tensor, Tensor], flow: Tensor, within: float, cuts: list[Cut]) -> Tensor:
    """See :class:`Stills`; (B, 2, H, W)."""
    votes = _votes(frames, flow, within)
    height, width = flow.shape[2:]
    beside = F.max_pool2d(votes, _SPREAD, 1, _SPREAD // 2)
    chosen_rows = Enlarged(torch.cat([votes, beside], dim=1), _STEP * _SQUARE, height, width)
    missed_rows = Enlarged(_missed(frames, flow), _STEP, height, width)

    def read(a: int, b: int) -> Tensor:
        top, bottom = max(a - 1, 0), min(b + 1, height)
        chosen, near = chosen_rows.read(top, bottom).split(1, dim=1)
        apart = _difference(*(frame[:, :, top:bottom] for frame in frames))
        before = below(apart, within, _STILL).mul_(chosen)
        edge = _widened(before).mul_(chosen).mul_(below(apart, 1.0, _EDGE))
        own = slice(a - top, b - top)
        before = torch.maximum(before[:, :, own], edge[:, :, own])
        rest = below(apart[:, :, own], within, _AT_REST).mul_(below(_speed(flow[:, :, a:b]), 1.0, _MOVES))
        missed = missed_rows.read(a, b).mul_(near[:, :, own])
        return torch.cat([before, torch.maximum(torch.maximum(before, rest), missed)], dim=1)

    return materialise(Rows((flow.shape[0], 2, height, width), read), cuts).tensor()


def _votes(frames: tuple[Tensor, Tensor], flow: Tensor, within: float) -> Tensor:
    """How far places around stand still before something that moves: (B, 1, h, w) in [0, 1], a place a square."""
    first, last, ways = (x[:, :, ::_STEP, ::_STEP] for x in (*frames, flow))
    apart = _difference(first, last)
    still = below(apart, within, _STILL)
    motion = ways[:, 2:] - ways[:, :2]
    to_last, to_first = sampled(frames[1], motion, _STEP), sampled(frames[0], -motion, _STEP)
    errors = _difference(first, to_last), _difference(last, to_first)
    unlike = torch.lerp(torch.minimum(*errors), torch.maximum(*errors), 0.3)
    pro = still * above(unlike - 2.0 * apart, _UNLIKE)
    uncovered = _uncovered(frames, within)
    squares = F.avg_pool2d(torch.cat([pro, *uncovered], dim=1), _SQUARE, ceil_mode=True)
    pro = mean_around(squares[:, :1], _NEAR)
    many, near, far, contra_near, contra_far = mean_around(squares, _AROUND).split(1, dim=1)
    changes, contra = torch.cat([near, far], dim=1), torch.cat([contra_near, contra_far], dim=1)
    against = above((contra / (changes + _OUTVOTED * many + 1e-3)).amax(dim=1, keepdim=True), _AGAINST)
    return F.max_pool2d(above(pro, _FOR) * (1.0 - against), _SPREAD, 1, _SPREAD // 2)


def _missed(frames: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """How little the flow explains of the difference between frames: (B, 1, h, w) in [0, 1], every _STEP-th place."""
    along, in_place = differences_around(frames, flow[:, :, ::_STEP, ::_STEP], _STEP, _BESIDE, _difference)
    return above(along / (in_place + _NOISE), _LEFT)


def _uncovered(frames: tuple[Tensor, Tensor], within: float) -> tuple[Tensor, Tensor]:
    """Where something changes beside what stands still, and how far one of the frames shows the latter there; each for
    neighbours at one pixel and at two, (B, 2, h, w)."""
    first, last = (frame[:, :, ::_STEP, ::_STEP] for frame in frames)
    height, width = first.shape[2:]
    apart = above(_difference(first, last), (0.08, 0.2))
    at_one = torch.zeros(first.shape[0], 5, height, width, device=first.device)
    for dy, dx in ((0, 1), (1, 0)):  # the place to the right and that to the left, below and above
        before, after = (frame[:, :, dy::_STEP, dx::_STEP] for frame in frames)
        beside = _weighted(before, after, within)
        beside = F.pad(beside, (dx, width - beside.shape[3], dy, height - beside.shape[2]))
        at_one += beside[:, :, :height, :width] + beside[:, :, dy : dy + height, dx : dx + width]
    at_two = F.avg_pool2d(_weighted(first, last, within), 3, 1, 1)
    found = []
    for summed in (at_one / 4, at_two):
        near = summed[:, 3:4]
        mean, square = (summed[:, own] / (near + 1e-3) for own in (slice(3), slice(4, 5)))
        spread = (square - mean.square().mean(dim=1, keepdim=True)).clamp_min_(0.0).sqrt_()
        errors = _difference(first, mean), _difference(last, mean)
        least, most = torch.minimum(*errors), torch.maximum(*errors)
        changes = apart * above(near, (0.1, 0.3)) * above(most, (0.1, 0.2))
        found.append((changes, changes * above(-least / (most + 1e-3), (-0.5, -0.3)) * below(spread, 1.0, _SPREADS)))
    changes, contra = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return changes, contra


def _weighted(first: Tensor, last: Tensor, within: float) -> Tensor:
    """Of places that stand still, times how far they do: their mean, 1, and their square, (B, 5, h, w)."""
    still = below(_difference(first, last), within, _STILL)
    mean = (first + last) / 2
    return torch.cat([mean * still, still, mean.square().mean(dim=1, keepdim=True) * still], dim=1)


def _widened(x: Tensor) -> Tensor:
    """The largest of 3 x 3 places of a map (B, 1, H, W)."""
    for side in (2, 3):
        length = x.shape[side] - 1
        wider = x.clone()
        for here, there in ((0, 1), (1, 0)):
            part = wider.narrow(side, here, length)
            part.copy_(torch.maximum(part, x.narrow(side, there, length)))
        x = wider
    return x


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """The largest of all channels: (B, 1, H, W)."""
    first, *others = (a - b).abs_().split(1, dim=1)
    for other in others:
        first = torch.maximum(first, other)
    return first


def _speed(flow: Tensor) -> Tensor:
    """Pixels from frame to frame along x or y, (B, 1, H, W)."""
    return _difference(*flow.chunk(2, dim=1))

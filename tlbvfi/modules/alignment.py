"""Steps of Lucas and Kanade: both flows moved by parts of a pixel, so that the frames meet. Without weights; where a
configuration asks.

What the networks leave, the images themselves tell: along the flow each frame is brought to the new one, and where the
two differ by what a small motion would make, that motion is solved for by least squares over a square (An iterative
image registration technique with an application to stereo vision, 1981). The new frame lies half-way, so both flows
move by the same, in opposite directions. Pixels where they differ by more count less: one of them
hides something there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rows.cuts import WHOLE, Cut, Strips, wide_cuts
from .warp import warp

#: Pixels along the square that moves as one.
_SQUARE = 7
#: Rows on either side that a place depends on: half of the square, and one more for gradients.
REACH = _SQUARE // 2 + 1
#: Positions of a piece of a whole map, at least, and pieces at most, where kernels of our own leave a card's memory
#: empty: a step is a hundred operations a piece.
_PIECE_POSITIONS, _MOST_PIECES = 1 << 20, 4
#: Squared gradient below which the images tell little, difference from which on a pixel counts less, both of frames in
#: [0, 1]; and how far a step leads at most, in pixels.
_FLAT, _DIFFERENT, _FARTHEST = 3e-5, 0.05, 1.0


def aligned(flow: Tensor, frames: tuple[Tensor, Tensor], steps: int, strips: Strips = WHOLE) -> Tensor:
    """A flow (B, 4, H, W) after some steps. Gradients pass as if these were given.

    Args:
        flow: in pixels; changed in place where it is worked on in strips.
        frames: (B, 3, H, W) in [0, 1].
        steps: how many.
        strips: how wide maps are cut.
    """
    if steps:
        first, last = (frame.mean(dim=1, keepdim=True) for frame in frames)
        for _ in range(steps):
            flow = _stepped(flow, (first, last), strips)
    return flow


def _stepped(flow: Tensor, greys: tuple[Tensor, Tensor], strips: Strips) -> Tensor:
    height, cuts = flow.shape[2], _cuts(flow, strips)
    if len(cuts) == 1:
        return flow + _step(flow, greys, 0)
    above = flow[:, :, :0]
    for a, b in cuts:
        # The rows above have moved already: those before that are kept.
        first = a - above.shape[2]
        part = torch.cat([above, flow[:, :, a : min(b + REACH, height)]], dim=2)
        above = part[:, :, max(b - first - REACH, 0) : b - first]
        flow[:, :, a:b] += _step(part, greys, first)[:, :, a - first : b - first]
    return flow


def _cuts(flow: Tensor, strips: Strips) -> list[Cut]:
    tuning = strips.tuning_on(flow.device)
    if tuning.kernels:
        tuning = replace(tuning, piece_positions=_PIECE_POSITIONS, most_pieces=_MOST_PIECES)
        strips = replace(strips, tuning=tuning)
    batch, channels, height, width = flow.shape
    return wide_cuts((batch, channels, height, width), strips, flow.device)


@torch.no_grad()
def _step(flow: Tensor, greys: tuple[Tensor, Tensor], top: int) -> Tensor:
    """What is added to rows `top`.. of a flow, by frames of one channel."""
    first, last = (warp(grey, own, top) for grey, own in zip(greys, flow.chunk(2, dim=1), strict=True))
    apart, between = first - last, (first + last) / 2
    dx = F.pad(between[..., 2:] - between[..., :-2], (1, 1, 0, 0)) / 2
    dy = F.pad(between[..., 2:, :] - between[..., :-2, :], (0, 0, 1, 1)) / 2
    # Along both flows moved by d and -d, the frames differ by apart + 2 gradient . d.
    weight = 1.0 / (1.0 + (apart / _DIFFERENT).square())
    products = torch.cat([dx * dx, dy * dy, dx * dy, dx * apart, dy * apart], dim=1) * weight
    xx, yy, xy, xa, ya = _means(products).split(1, dim=1)
    xx, yy = xx + _FLAT, yy + _FLAT
    scale = -0.5 / (xx * yy - xy * xy)
    step = torch.cat([(yy * xa - xy * ya) * scale, (xx * ya - xy * xa) * scale], dim=1)
    step = step.clamp(-_FARTHEST, _FARTHEST)
    return torch.cat([step, -step], dim=1)


def _means(x: Tensor) -> Tensor:
    """Over a square around each place, of what lies within the map."""
    for square, around in (((1, _SQUARE), (0, _SQUARE // 2)), ((_SQUARE, 1), (_SQUARE // 2, 0))):
        x = F.avg_pool2d(x, square, 1, around, count_include_pad=False)
    return x

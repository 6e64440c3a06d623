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
from torch import Tensor

from ..rows.cuts import WHOLE, Cut, Strips, wide_cuts
from .coarse_maps import sampled
from .squares import mean_around

#: Pixels along the square that moves as one.
_SQUARE = 7
#: Rows on either side that a place depends on: half of the square, and one more for gradients.
REACH = _SQUARE // 2 + 1
#: Positions of a piece of a whole map, at least, and pieces at most, where kernels of our own leave a card's memory
#: empty: a step is some fifty operations a piece.
_PIECE_POSITIONS, _MOST_PIECES = 1 << 20, 4
#: Squared gradient below which the images tell little, difference from which on a pixel counts less, both of frames in
#: [0, 1]; and how far a step leads at most, in pixels.
_FLAT, _DIFFERENT, _FARTHEST = 1.2e-4, 0.05, 1.0


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
        step = _step(flow, greys, 0)
        return flow + torch.cat([step, -step], dim=1)
    above = flow[:, :, :0]
    for a, b in cuts:
        # The rows above have moved already: those before that are kept.
        first = a - above.shape[2]
        part = torch.cat([above, flow[:, :, a : min(b + REACH, height)]], dim=2)
        above = part[:, :, max(b - first - REACH, 0) : b - first]
        step = _step(part, greys, first)[:, :, a - first : b - first]
        flow[:, :2, a:b].add_(step)
        flow[:, 2:, a:b].sub_(step)
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
    """What is added to rows `top`.. of the flow to frame 0, (B, 2, ., W), and taken from that to frame 1, by frames of
    one channel."""
    first, last = (sampled(grey, own, 1, top) for grey, own in zip(greys, flow.chunk(2, dim=1), strict=True))
    apart, twice = first - last, first.add_(last)
    weight = (apart * (1.0 / _DIFFERENT)).square_().add_(1.0).reciprocal_()
    dx, dy = torch.zeros_like(apart), torch.zeros_like(apart)
    torch.sub(twice[..., 2:], twice[..., :-2], out=dx[..., 1:-1])
    torch.sub(twice[..., 2:, :], twice[..., :-2, :], out=dy[..., 1:-1, :])
    # Along both flows moved by d and -d, the frames differ by apart + gradient . d / 2.
    products = flow.new_empty(flow.shape[0], 5, *flow.shape[2:])
    weighted = dx * weight, weight.mul_(dy)
    for number, (one, other) in enumerate(
        ((weighted[0], dx), (weighted[1], dy), (weighted[0], dy), (weighted[0], apart), (weighted[1], apart))
    ):
        torch.mul(one, other, out=products[:, number : number + 1])
    xx, yy, xy, xa, ya = mean_around(products, _SQUARE).split(1, dim=1)
    xx, yy = xx + 16.0 * _FLAT, yy + 16.0 * _FLAT
    scale = torch.addcmul(xy * xy, xx, yy, value=-1.0).reciprocal_().mul_(2.0)
    step = torch.cat([torch.addcmul(yy * xa, xy, ya, value=-1.0), torch.addcmul(xx * ya, xy, xa, value=-1.0)], dim=1)
    return step.mul_(scale).clamp_(-_FARTHEST, _FARTHEST)

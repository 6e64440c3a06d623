"""Maps with a place every so many pixels: made of frames and flows, and read at the frames' size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .squares import mean_around

#: Rows or columns, of the shorter side, of frames that are looked at as they are.
_ROWS = 384


def shrunk_by(height: int, width: int) -> int:
    """The whole factor by which larger frames are shrunk to be looked at."""
    return max(round(min(height, width) / _ROWS), 1)


@torch.no_grad()
def sampled(x: Tensor, flow: Tensor, step: int, top: int = 0) -> Tensor:
    """An image where a flow of every step-th place leads.

    Args:
        x: (B, C, H, W).
        flow: in its pixels, (B, 2, h, w).
        step: pixels from place to place.
        top: the row of the image that the flow's first one lies on.

    Returns:
        (B, C, h, w).
    """
    batch, _, *size = flow.shape
    grid = flow.new_empty(batch, *size, 2)
    for side, axis, first in ((0, 1, 0), (1, 0, top)):
        unit = 2.0 / max(x.shape[2 + axis] - 1, 1)
        place = torch.arange(first, first + step * size[axis], step, device=flow.device) * unit - 1.0
        torch.add(place if axis else place[:, None], flow[:, side], alpha=unit, out=grid[..., side])
    return F.grid_sample(x, grid, "bilinear", "border", align_corners=True)


def differences_around(
    pair: tuple[Tensor, Tensor],
    flow: Tensor,
    step: int,
    side: int,
    difference: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """How two images differ along a flow, and how they do in place: what of that the flow explains.

    Args:
        pair: (B, C, H, W) each.
        flow: (B, 4, h, w) in their pixels, of every step-th place.
        step: pixels from place to place.
        side: places along the square around each whose differences are averaged.
        difference: of two images (B, C, h, w), (B, 1, h, w).

    Returns:
        both of them, (B, 1, h, w).
    """
    along = difference(*(sampled(x, way, step) for x, way in zip(pair, flow.chunk(2, dim=1), strict=True)))
    in_place = difference(*(x[:, :, ::step, ::step] for x in pair))
    return mean_around(along, side), mean_around(in_place, side)


def towards_mean(frame: Tensor, frames: tuple[Tensor, Tensor], share: Tensor, a: int, b: int) -> Tensor:
    """Rows a..b - 1 of a new frame (B, 3, ., W), with a share (B, 1, ., W) of the mean of two frames (B, 3, H, W)."""
    return torch.lerp(frame, (frames[0][:, :, a:b] + frames[1][:, :, a:b]) / 2, share)


def above(x: Tensor, edges: tuple[float, float]) -> Tensor:
    """From 0 at the first edge to 1 at the second."""
    return (x - edges[0]).mul_(1.0 / (edges[1] - edges[0])).clamp_(0.0, 1.0)


def below(x: Tensor, unit: float, edges: tuple[float, float]) -> Tensor:
    """From 1 at the first edge to 0 at the second, edges in units."""
    return (x - edges[1] * unit).mul_(1.0 / (unit * (edges[0] - edges[1]))).clamp_(0.0, 1.0)


class Enlarged:
    """A map (B, C, h, w), a place a square of `side` pixels, at the frames' size (B, C, H, W).

    As `interpolate` has it with align_corners off; by hand, so that some rows are what they are in the whole map.
    """

    def __init__(self, values: Tensor, side: int, height: int, width: int) -> None:
        low, high, share = _between(width, values.shape[3], side, values.device)
        self._columns = torch.lerp(values[..., low], values[..., high], share)
        self._rows = _between(height, values.shape[2], side, values.device)

    def read(self, a: int, b: int) -> Tensor:
        """Rows a..b - 1."""
        low, high, share = (part[a:b] for part in self._rows)
        return torch.lerp(self._columns[:, :, low], self._columns[:, :, high], share[:, None])


def _between(size: int, count: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` places the two of `count` squares whose centres are around it, and the second one's share."""
    place = ((torch.arange(size, device=device) + 0.5) / side - 0.5).clamp_(0.0, count - 1.0)
    low = place.long()
    return low, (low + 1).clamp_(max=count - 1), place - low

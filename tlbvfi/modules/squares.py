"""Means over a square around each place of a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rows.tuning import Tuning


def mean_around(x: Tensor, side: int) -> Tensor:
    """Of the places of a map (B, C, H, W) that lie in a square around each, along one axis after the other.

    Args:
        x: float32; of what is beyond the map nothing counts.
        side: places along the square, odd.
    """
    reach = side // 2
    if Tuning.of(x.device).few_operations:
        x = F.avg_pool2d(x, (1, side), 1, (0, reach), count_include_pad=False)
        return F.avg_pool2d(x, (side, 1), 1, (reach, 0), count_include_pad=False)
    for axis, padding in ((3, (reach, reach)), (2, (0, 0, reach, reach))):
        x = _sums(F.pad(x, padding), side, axis).mul_(_shares(x.shape[axis], reach, axis, x.device))
    return x


def _sums(x: Tensor, side: int, axis: int) -> Tensor:
    """Of `side` values in a row from each one on. Sums of 2, 4, 8, ... in a row are made of each other, so that the
    order in which a sum is made does not depend on where it is."""
    size, width, offset = x.shape[axis] - side + 1, 1, 0
    total: Tensor | None = None
    while True:
        if side & width:
            part = x.narrow(axis, offset, size)
            total = part.clone() if total is None else total.add_(part)
            offset += width
        if 2 * width > side:
            assert total is not None
            return total
        wider = x.shape[axis] - width
        x = x.narrow(axis, 0, wider) + x.narrow(axis, width, wider)
        width *= 2


def _shares(size: int, reach: int, axis: int, device: torch.device) -> Tensor:
    """One by how many places of a row lie within `reach` of each, itself among them, along an axis of a map."""
    place = torch.arange(size, device=device)
    count = (place + reach).clamp_(max=size - 1) - (place - reach).clamp_(min=0) + 1
    return count.reciprocal().view(-1, *[1] * (3 - axis))

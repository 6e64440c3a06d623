"""Positions along the sides of a map, as the kernels that warp take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def places(size: int, device: torch.device) -> Tensor:
    """Places along a side, from -1 to 1."""
    return torch.linspace(-1.0, 1.0, size, device=device, dtype=torch.float32)


class Bases(NamedTuple):
    """Places along the two sides of a map, from -1 to 1: (W,) and (H,) float32. Made once for all warps of a size."""

    x: Tensor
    y: Tensor

    @staticmethod
    def of(x: Tensor) -> Bases:
        """Those of a map (B, C, H, W), on its device."""
        return Bases(places(x.shape[3], x.device), places(x.shape[2], x.device))


def last_inside(size: int) -> float:
    """The last float before the far border of a side.

    What is sampled there is sampled at the border: sums in another order (threads, processors) differ by that.
    """
    return float(np.nextafter(np.float32(size - 1), np.float32(0)))


def ends(height: int, width: int) -> tuple[float, float, float, float]:
    """Where a map ends, as :mod:`.device.sampling` takes it: the last place, and the last float before it, along x and
    along y."""
    return width - 1.0, last_inside(width), height - 1.0, last_inside(height)

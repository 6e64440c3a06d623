"""The one place that knows which sizes the model takes, and how a frame gets there and back.

A frame is padded right and below by reflection, and the result is cropped again. Frames smaller than their pad
are reflected as often as it takes; a side of one pixel is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from .ranges import PaddingMode, check_flow_scale, check_padding_mode

#: Sides of the flow size are multiples of this: what the coarse flow and pyramid level 3 need.
FLOW_MULTIPLE = 16


@dataclass(frozen=True)
class Padding:
    """A frame's size and the size it is padded to, (height, width) each."""

    size: tuple[int, int]
    padded: tuple[int, int]

    def pad(self, x: Tensor) -> Tensor:
        """(..., height, width) -> (..., padded height, padded width), by reflection right and below."""
        if tuple(x.shape[-2:]) != self.size:
            raise ValueError(f"Expected a frame of {self.size[1]}x{self.size[0]}, got {x.shape[-1]}x{x.shape[-2]}.")
        below, right = self.padded[0] - self.size[0], self.padded[1] - self.size[1]
        if below < self.size[0] and right < self.size[1]:
            lead = x.shape[:-2]
            x = F.pad(x.reshape(-1, 1, *self.size), (0, right, 0, below), mode="reflect") if below or right else x
            return x.reshape(*lead, *self.padded)
        rows = _reflected(self.size[0], self.padded[0], x.device)
        columns = _reflected(self.size[1], self.padded[1], x.device)
        return x.index_select(-2, rows).index_select(-1, columns)

    def crop(self, x: Tensor) -> Tensor:
        """(..., padded height, padded width) -> (..., height, width), a view."""
        return x[..., : self.size[0], : self.size[1]]


def _reflected(side: int, padded: int, device: torch.device) -> Tensor:
    """Source index of each of `padded` positions: 0 1 2 1 0 1 2 ... for a side of 3, all 0 for a side of 1."""
    period = max(1, 2 * (side - 1))
    position = torch.arange(padded, device=device) % period
    return torch.minimum(position, period - position) if side > 1 else torch.zeros_like(position)


def padding_for(height: int, width: int, mode: PaddingMode = "tight", multiple: int = 256) -> Padding:
    """How a frame of height x width is padded for a model whose sides are multiples of `multiple`.

    ``"tight"`` goes to the next multiple. ``"published"`` does as the published code: to the next multiple of
    twice that, but not at all along an axis where the pad would be as long as the side (256 stays 256).

    Raises:
        ValueError: a side below 1, or an unknown mode.
    """
    if not isinstance(height, Integral) or not isinstance(width, Integral):
        raise ValueError(f"A frame's sides must be whole numbers, not {width!r} wide and {height!r} high.")
    if height < 1 or width < 1:
        raise ValueError(f"A frame needs at least 1x1 pixels, not {width}x{height}.")
    check_padding_mode(mode)

    def side(length: int) -> int:
        if mode == "tight":
            return -(-length // multiple) * multiple
        pad = -length % (2 * multiple)
        return length if pad == length else length + pad

    return Padding((height, width), (side(height), side(width)))


def flow_size(height: int, width: int, flow_scale: float) -> tuple[int, int]:
    """The size at which a padded frame's flow is computed: `flow_scale` times its own, rounded to what the flow needs.

    Raises:
        ValueError: flow_scale outside [0.1, 1].
    """
    check_flow_scale(flow_scale)
    if flow_scale == 1.0:
        return height, width
    rows, columns = (max(1, round(side * flow_scale / FLOW_MULTIPLE)) * FLOW_MULTIPLE for side in (height, width))
    return rows, columns

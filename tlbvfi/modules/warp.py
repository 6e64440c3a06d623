"""Backward warping and local correlation along a flow.

Convention: a flow is (B, 2, H, W) float32 in pixels of its own map, order (dx, dy); warping samples the map at
p + flow(p), bilinearly, positions clamped to the map.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

#: Positions handled at a time where features are gathered. On the CPU a chunk stays in the processor's cache; other
#: devices want long kernels.
_CHUNK = {"cpu": 1 << 12}
_LONG_CHUNK = 1 << 18
#: Devices whose `embedding_bag` sums weighted rows in one pass.
_FUSED = ("cpu", "cuda")


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, H, W), align_corners off, no antialiasing (paper code's convention)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a flow (B, 2n, H, W) and scale its values with each axis, so that it is in pixels of the new size."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    scale = flow.new_tensor([size[1] / width, size[0] / height]).repeat(flow.shape[1] // 2)
    return resize(flow, size) * scale[:, None, None]


def _positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Clamped sampling positions (x, y), each (B, H, W) float32, of a flow.

    They go through normalised coordinates, as in the published model: a neighbourhood's correlation jumps where a
    position reaches the border, so positions must round alike.
    """
    height, width = flow.shape[-2:]
    dx, dy = flow.float().unbind(dim=1)
    return _position(dx, width, 1), _position(dy, height, 0)


def _position(offset: Tensor, size: int, axis: int) -> Tensor:
    half = (size - 1) / 2
    if half == 0:
        return torch.zeros_like(offset)
    base = torch.linspace(-1.0, 1.0, size, device=offset.device)
    normalised = (base if axis else base[:, None]) + offset / half
    position = ((normalised + 1.0) * half).clamp(0.0, size - 1.0)
    # The last float before the far border is the border: sums in another order (threads, processors) differ by that.
    last = float(np.nextafter(np.float32(size - 1), np.float32(0)))
    return torch.where(position >= last, size - 1.0, position)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample an image x (B, C, H, W) at p + flow(p), in float32. For features see :class:`Neighbourhood`.

    The grid is clamped, which equals border padding on every device.
    """
    sides = (x.shape[-1], x.shape[-2])
    grid = [_normalised(position, side) for position, side in zip(_positions(flow), sides, strict=True)]
    return F.grid_sample(
        x.float(), torch.stack(grid, dim=-1), mode="bilinear", padding_mode="zeros", align_corners=True
    )


def _normalised(position: Tensor, size: int) -> Tensor:
    """Pixel positions to grid_sample's [-1, 1]; a side of one pixel has the one position 0."""
    return position / ((size - 1) / 2) - 1.0 if size > 1 else torch.zeros_like(position)


def warp_features(x: Tensor, flow: Tensor) -> Tensor:
    """Sample a feature map x (B, C, H, W) at p + flow(p): as :func:`warp`, in the dtype of x, channels last."""
    return Neighbourhood(x, flow).centre()


class Neighbourhood:
    """A feature map seen along a flow: its warp, and the cosine of a vector with each of its 3 x 3 neighbours.

    The neighbours of a sampling position c (clamped to the map) are the map sampled at c + (-1..1, -1..1), where what
    lies outside reads zero: the nine copies of an unfolded map, warped. One copy at a time, of a chunk of positions,
    is ever made. Positions are float32; weights and sums over features have the map's dtype.
    """

    def __init__(self, x: Tensor, flow: Tensor) -> None:
        """x: (B, C, H, W); flow: (B, 2, H, W)."""
        b, _, height, width = x.shape
        px, py = _positions(flow)
        left, top = px.floor(), py.floor()
        wx, wy = px - left, py - top
        weights = torch.stack([(1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy], dim=-1)
        self.weights = rearrange(weights, "b h w taps -> (b h w) taps").to(x.dtype)
        # One zero column and row before the map, two after: every tap of every neighbour exists.
        padded = F.pad(rearrange(x, "b c h w -> b h w c"), (0, 0, 1, 2, 1, 2))
        self.table = rearrange(padded, "b h w c -> (b h w) c")
        self.stride = width + 3
        index = torch.int32 if self.table.shape[0] < 2**31 else torch.int64
        first = torch.arange(b, device=x.device, dtype=index).view(-1, 1, 1) * ((height + 3) * self.stride)
        corner = first + top.to(index) * self.stride + left.to(index)  # upper left tap of the neighbour (-1, -1)
        taps = torch.tensor([0, 1, self.stride, self.stride + 1], device=x.device, dtype=index)
        self.taps = rearrange(corner, "b h w -> (b h w) 1") + taps
        self.shape = (b, height, width)

    def _chunks(self) -> list[slice]:
        size = _CHUNK.get(self.table.device.type, _LONG_CHUNK)
        return [slice(i, i + size) for i in range(0, self.taps.shape[0], size)]

    def _sample(self, rows: slice, dy: int, dx: int) -> Tensor:
        """The neighbour (dy, dx) of 0..2 at some positions: (P, C)."""
        taps, weights = self.taps[rows] + (dy * self.stride + dx), self.weights[rows]
        if self.table.device.type in _FUSED:
            return F.embedding_bag(taps, self.table, mode="sum", per_sample_weights=weights)
        return torch.einsum("ptc,pt->pc", self.table[taps.long()], weights)

    def centre(self) -> Tensor:
        """The warped map (B, C, H, W), channels last."""
        b, h, w = self.shape
        warped = torch.cat([self._sample(rows, 1, 1) for rows in self._chunks()])
        return rearrange(warped, "(b h w) c -> b c h w", b=b, h=h, w=w)

    def cosine(self, m: Tensor) -> Tensor:
        """Cosine of m (B, C, H, W) with each of the nine neighbours: (B, 9, H, W) float32, row by row."""
        vectors = rearrange(m, "b c h w -> (b h w) c")
        parts = []
        for rows in self._chunks():
            target = vectors[rows]
            own = _length(target)
            copies = (self._sample(rows, dy, dx) for dy in range(3) for dx in range(3))
            parts.append(
                torch.stack([(c * target).sum(dim=1, dtype=torch.float32) / (_length(c) * own) for c in copies], dim=1)
            )
        b, h, w = self.shape
        return rearrange(torch.cat(parts), "(b h w) k -> b k h w", b=b, h=h, w=w)


def _length(vectors: Tensor) -> Tensor:
    """Lengths of rows (P, C), never zero: (P,) float32."""
    return ((vectors * vectors).sum(dim=1, dtype=torch.float32) + 1e-12).sqrt()

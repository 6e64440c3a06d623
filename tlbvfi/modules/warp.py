"""Backward warping and local correlation along a flow.

Convention: a flow is (B, 2, H, W) float32 in pixels of its own map, order (dx, dy); warping samples the map at
p + flow(p), bilinearly, positions clamped to the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

#: Positions handled at a time where rows are gathered: a chunk's rows stay in the processor's cache.
_CHUNK = 4096


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
    return ((normalised + 1.0) * half).clamp(0.0, size - 1.0)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample x (B, C, H, W) at p + flow(p). The grid is clamped, which equals border padding on every device.

    Positions and weights are float32 whatever the dtype of x; the result has the dtype of x.
    """
    grid = torch.stack(
        [_normalised(position, size) for position, size in zip(_positions(flow), (x.shape[-1], x.shape[-2]), strict=True)],
        dim=-1,
    )
    return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True).to(x.dtype)


def _normalised(position: Tensor, size: int) -> Tensor:
    """Pixel positions to grid_sample's [-1, 1]; a side of one pixel has the one position 0."""
    return position / ((size - 1) / 2) - 1.0 if size > 1 else torch.zeros_like(position)


class Neighbourhood:
    """A map seen along a flow: its warp, and its 3 x 3 neighbourhoods warped with it.

    The neighbourhood of a sampling position c (clamped to the map) is the map sampled at c + (-1..1, -1..1), where
    what lies outside reads zero. All nine samples share the same bilinear weights, so their dot products with a
    vector need 16 dot products, and their norms a quadratic form of products between adjacent pixels: the nine
    warped copies are never made.
    """

    def __init__(self, x: Tensor, flow: Tensor) -> None:
        """x: (B, C, H, W); flow: (B, 2, H, W)."""
        b, self.channels, self.height, self.width = x.shape
        px, py = _positions(flow)
        left, top = px.floor(), py.floor()
        self.wx = (px - left).reshape(-1, 1)  # (B H W, 1)
        self.wy = (py - top).reshape(-1, 1)
        stride = self.width + 3
        # One zero column and row before the map, two after: every tap of every neighbourhood exists.
        padded = F.pad(rearrange(x, "b c h w -> b h w c"), (0, 0, 1, 2, 1, 2))
        self.table = rearrange(padded, "b h w c -> (b h w) c")
        first = torch.arange(b, device=x.device).reshape(-1, 1, 1) * ((self.height + 3) * stride)
        self.index = (first + top.long() * stride + left.long()).reshape(-1)  # the tap at (-1, -1)
        self.stride = stride
        self.shape = (b, self.height, self.width)

    def _tap(self, rows: slice, dy: int, dx: int) -> Tensor:
        return self.table.index_select(0, self.index[rows] + (dy * self.stride + dx))

    def _chunks(self) -> list[slice]:
        return [slice(i, i + _CHUNK) for i in range(0, self.index.shape[0], _CHUNK)]

    def centre(self) -> Tensor:
        """The warped map (B, C, H, W)."""
        parts = []
        for rows in self._chunks():
            wx, wy = self.wx[rows].to(self.table.dtype), self.wy[rows].to(self.table.dtype)
            upper = torch.lerp(self._tap(rows, 1, 1), self._tap(rows, 1, 2), wx)
            lower = torch.lerp(self._tap(rows, 2, 1), self._tap(rows, 2, 2), wx)
            parts.append(torch.lerp(upper, lower, wy))
        b, h, w = self.shape
        return rearrange(torch.cat(parts), "(b h w) c -> b c h w", b=b, h=h, w=w)

    def cosine(self, m: Tensor) -> Tensor:
        """Cosine of m (B, C, H, W) with each of the nine warped copies: (B, 9, H, W) float32, row by row."""
        vectors = rearrange(m, "b c h w -> (b h w) c")
        products = self._adjacent_products()
        parts = []
        for rows in self._chunks():
            target = vectors[rows]
            dots = [
                [(self._tap(rows, dy, dx) * target).sum(dim=1, dtype=torch.float32) for dx in range(4)]
                for dy in range(4)
            ]
            dot = _blend(torch.stack([torch.stack(row, dim=-1) for row in dots], dim=1), self.wx[rows], self.wy[rows])
            norm2 = self._squared_norms(products, rows)
            own = (target.float().square().sum(dim=1) + 1e-12).sqrt()
            parts.append(dot / (own[:, None, None] * (norm2 + 1e-12).sqrt()))
        b, h, w = self.shape
        return rearrange(torch.cat(parts), "(b h w) y x -> b (y x) h w", b=b, h=h, w=w)

    def _adjacent_products(self) -> Tensor:
        """(B (H+3) (W+3), 5) float32: each pixel times itself, right, below, below-right; and right times below."""
        b, h, w = self.shape
        padded = rearrange(self.table, "(b h w) c -> b h w c", b=b, h=h + 3, w=w + 3)

        def product(first: Tensor, second: Tensor) -> Tensor:
            dot = (first * second).sum(dim=-1, dtype=torch.float32)
            return F.pad(dot, (0, w + 3 - dot.shape[2], 0, h + 3 - dot.shape[1]))

        maps = (
            product(padded, padded),
            product(padded[:, :, :-1], padded[:, :, 1:]),
            product(padded[:, :-1], padded[:, 1:]),
            product(padded[:, :-1, :-1], padded[:, 1:, 1:]),
            product(padded[:, :-1, 1:], padded[:, 1:, :-1]),
        )
        return rearrange(torch.stack(maps, dim=-1), "b h w k -> (b h w) k")

    def _squared_norms(self, products: Tensor, rows: slice) -> Tensor:
        """(P, 3, 3) squared norms of the nine copies at the positions `rows`."""
        index = self.index[rows]
        taps = [[products.index_select(0, index + (dy * self.stride + dx)) for dx in range(4)] for dy in range(4)]
        grid = torch.stack([torch.stack(row, dim=1) for row in taps], dim=1)  # (P, 4, 4, 5)
        own, right, below, diagonal, cross = grid.unbind(dim=-1)
        wx, wy = self.wx[rows][..., None], self.wy[rows][..., None]
        ux, uy = 1 - wx, 1 - wy
        squares = uy * uy * _along_x(own[:, :3], ux * ux, wx * wx) + wy * wy * _along_x(own[:, 1:], ux * ux, wx * wx)
        horizontal = uy * uy * right[:, :3, :3] + wy * wy * right[:, 1:, :3]
        vertical = _along_x(below[:, :3], ux * ux, wx * wx)
        diagonals = diagonal[:, :3, :3] + cross[:, :3, :3]
        mixed = ux * wx * horizontal + uy * wy * vertical + ux * wx * uy * wy * diagonals
        return (squares + 2 * mixed).clamp_min(0)


def _along_x(rows: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(P, R, 4) -> (P, R, 3): left * value + right * its neighbour."""
    return left * rows[..., :3] + right * rows[..., 1:]


def _blend(grid: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """Bilinear blend of (P, 4, 4) taps into the (P, 3, 3) neighbourhood."""
    wx, wy = wx[..., None], wy[..., None]
    across = _along_x(grid, 1 - wx, wx)
    return (1 - wy) * across[:, :3] + wy * across[:, 1:]

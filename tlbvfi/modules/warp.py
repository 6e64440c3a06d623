"""Backward warping and local correlation along a flow.

Convention: a flow is (B, 2, H, W) float32 in pixels of its own map, order (dx, dy); warping samples the map at
p + flow(p), bilinearly, positions clamped to the map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..kernels.images import resized
from ..kernels.positions import Bases, last_inside, places
from ..kernels.refinement import centre
from ..rows.tuning import Tuning
from . import whole_pixels

#: With gradients: how near a position comes to a tap outside of the map, in pixels, before that tap counts.
_SLACK = 1e-4


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, H, W), align_corners off, no antialiasing (paper code's convention)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_times(flow: Tensor, size: tuple[int, int], factor: float) -> Tensor:
    """A flow (B, 4, H, W) float32, resized, times a factor."""
    if Tuning.of(flow.device).kernels:
        return resized(flow, size, (factor, factor))
    return resize(flow, size) * factor


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a flow (B, 2n, H, W) and scale its values with each axis, so that it is in pixels of the new size."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    scale = (size[1] / width, size[0] / height)
    if Tuning.of(flow.device).kernels:
        return resized(flow, size, scale)
    flow = resize(flow, size)
    flow[:, 0::2] *= scale[0]
    flow[:, 1::2] *= scale[1]
    return flow


def _positions(flow: Tensor, size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
    """Clamped sampling positions (x, y), each (B, H, W) float32, of rows `top`.. of a flow over a map of `size`.

    They go through normalised coordinates, as in the published model: a neighbourhood's correlation jumps where a
    position reaches the border, so positions must round alike.
    """
    dx, dy = flow.float().unbind(dim=1)
    return _position(dx, size[1], 0), _position(dy[..., None], size[0], top)[..., 0]


def _position(offset: Tensor, size: int, first: int) -> Tensor:
    """Positions along one side for offsets (B, rows, n, ...) whose places are first.. along the last or row axis."""
    half = (size - 1) / 2
    if half == 0:
        return torch.zeros_like(offset)
    base = places(size, offset.device)
    if offset.ndim == 4:
        base = base[first : first + offset.shape[1], None, None]
    position = ((base + offset / half + 1.0) * half).clamp(0.0, size - 1.0)
    return position.masked_fill_(position >= last_inside(size), size - 1.0)


def warp(x: Tensor, flow: Tensor, top: int = 0) -> Tensor:
    """Sample an image x (B, C, H, W) at p + flow(p), in float32. For features see :class:`Neighbourhood`.

    `flow` may be some rows of the whole one, from row `top`; the result has these rows.
    The grid is clamped, which equals border padding on every device.
    """
    return warp_all((x,), flow, top)[0]


def warp_all(images: Sequence[Tensor], flow: Tensor, top: int = 0, cubic: float = 0.0) -> list[Tensor]:
    """:func:`warp` of images of one size (H, W) along one flow, the first of them by cubic convolution, to that share.

    It keeps what bilinear sampling between pixels blurs. Keys' kernel with a = -1/2 (Cubic convolution interpolation
    for digital image processing, 1981) is linear interpolation of the pixels, less t (1 - t) / 2 times that of their
    second differences, where t is how far a position lies between two pixels. That is done along each axis; the two are
    not mixed. So it takes four bilinear samples more, and works on every device.
    """
    height, width = images[0].shape[-2:]
    px, py = _positions(flow, (height, width), top)
    grid = _grid(px, py, height, width)
    results = [_sampled(x, grid) for x in images]
    if cubic == 0.0:
        return results
    middle, corrections = results[0], []
    for position, last in ((px, width - 1.0), (py, height - 1.0)):
        share = position - position.floor()
        weight = (share * (share - 1.0) * (cubic / 2))[:, None]
        before, after = ((position + step).clamp_(0.0, last) for step in (-1.0, 1.0))
        first, second = ((x, py) if position is px else (px, x) for x in (before, after))
        beside = _sampled(images[0], _grid(*first, height, width))
        beside += _sampled(images[0], _grid(*second, height, width))
        corrections.append(beside.sub_(middle, alpha=2.0).mul_(weight))
        del beside
    results[0] = corrections[0].add_(corrections.pop()).add_(middle)
    return results


def _grid(px: Tensor, py: Tensor, height: int, width: int) -> Tensor:
    """Positions (B, h, w) over a map as grid_sample takes them: (B, h, w, 2)."""
    return torch.stack([_normalised(px, width), _normalised(py, height)], dim=-1)


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    """An image (B, C, H, W), bilinearly: (B, C, h, w) float32."""
    return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _normalised(position: Tensor, size: int) -> Tensor:
    """Pixel positions to grid_sample's [-1, 1]; a side of one pixel has the one position 0."""
    return position / ((size - 1) / 2) - 1.0 if size > 1 else torch.zeros_like(position)


def join_channels(shape: tuple[int, int, int], parts: Sequence[Tensor | Neighbourhood]) -> Tensor:
    """Maps, and the centres of neighbourhoods, side by side: (B, C1 + C2 + .., H, W), channels last.

    Args:
        shape: (B, H, W).
        parts: maps (B, C, H, W), or neighbourhoods, whose centres are sampled into place.
    """
    if torch.is_grad_enabled():
        return torch.cat([part.centre() if isinstance(part, Neighbourhood) else part for part in parts], dim=1)
    like = parts[0].table if isinstance(parts[0], Neighbourhood) else parts[0]
    widths = [part.table.shape[1] if isinstance(part, Neighbourhood) else part.shape[1] for part in parts]
    joined = like.new_empty(*shape, sum(widths))
    for part, place in zip(parts, joined.split(widths, dim=3), strict=True):
        if isinstance(part, Neighbourhood):
            part.centre(place)
        else:
            place.copy_(part.permute(0, 2, 3, 1))
    return joined.permute(0, 3, 1, 2)


class Neighbourhood:
    """A feature map seen along a flow: its warp, and the cosine of a vector with each of its 3 x 3 neighbours.

    The neighbours of a sampling position c (clamped to the map) are the map sampled at c + (-1..1, -1..1), where what
    lies outside reads zero: the nine copies of an unfolded map, warped. One copy at a time, of a chunk of positions,
    is ever made. Positions are float32; weights and sums over features have the map's dtype.
    """

    def __init__(self, x: Tensor, flow: Tensor, top: int = 0, tuning: Tuning | None = None) -> None:
        """Take a map along a flow.

        Args:
            x: (B, C, H, W).
            flow: (B, 2, rows, W), rows `top`.. of the flow over x.
            tuning: None for the device's own.
        """
        b, _, self.height, self.width = x.shape
        self.shape = (b, *flow.shape[2:])
        self._x = x
        self.table = rearrange(x, "b c h w -> (b h w) c")
        self.image = flow.shape[2:].numel()
        self._flow, self._top = flow, top
        self._map = x if torch.is_grad_enabled() else None
        self._tuning = tuning or Tuning.of(x.device)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Positions (x, y) along the map, each (P,) float32."""
        px, py = _positions(self._flow, (self.height, self.width), self._top)
        return px.flatten(), py.flatten()

    def _chunks(self) -> list[slice]:
        size = self._tuning.gathered_bytes // (self.table.shape[1] * self.table.element_size())
        size = max(size, self._tuning.gathered_positions)
        return [slice(i, i + size) for i in range(0, self.shape[0] * self.image, size)]

    def _taps(self, chunk: slice, reach: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices and weights (P, 4) of the taps of each neighbour within `reach` of some positions, row by row.

        A tap outside of the map has weight zero; what its index meets does not matter.
        """
        count = self.table.shape[0]
        index = torch.int32 if count < 2**31 - 2 * self.width else torch.int64
        px, py = self._places
        left, across = _axis(px[chunk], self.width, reach)
        top, down = _axis(py[chunk], self.height, reach)
        first = top.to(index) * self.width + left.to(index)
        if self.shape[0] > 1:
            which = torch.arange(chunk.start, chunk.start + first.shape[0], device=first.device) // self.image
            first += which.to(index) * (self.height * self.width)
        corner = torch.stack([first, first + 1, first + self.width, first + self.width + 1], dim=1)
        beside = [torch.stack([a, b, a, b], dim=1) for a, b in across]
        above = [torch.stack([a, a, b, b], dim=1) for a, b in down]
        for dy, vertical in enumerate(above, -reach):
            for dx, horizontal in enumerate(beside, -reach):
                taps = (corner + (dy * self.width + dx)).clamp_(0, count - 1)
                yield taps, (vertical * horizontal).to(self.table.dtype)

    @staticmethod
    def pair(
        features: tuple[Tensor, Tensor], flow: Tensor, top: int = 0, tuning: Tuning | None = None
    ) -> tuple[Neighbourhood, Neighbourhood]:
        """Two maps, each along its own of two flows (B, 4, H, W)."""
        first, second = (
            Neighbourhood(x, own, top, tuning) for x, own in zip(features, flow.chunk(2, dim=1), strict=True)
        )
        if first._in_few and not first._tuning.kernels:
            flows = rearrange(flow, "b (f d) h w -> (f b) d h w", f=2)
            both = _Weighted.of(*_positions(flows, (first.height, first.width), top), first.table.dtype)
            first._weighted, second._weighted = both.halves()
        return first, second

    def rows(self, start: int, stop: int) -> Neighbourhood:
        """The same of some rows of the flow alone."""
        part = Neighbourhood(self._x, self._flow[:, :, start:stop], self._top + start, self._tuning)
        if self._in_few and not self._tuning.kernels:
            part._gather = self._gather.of_rows(start, stop)
        return part

    @property
    def _in_few(self) -> bool:
        """Whether all positions are placed at once, and their neighbours share what can be shared."""
        return self._tuning.few_operations and self._tuning.fused_gather and self._map is None

    @property
    def _in_whole_pixels(self) -> bool:
        return (
            self._tuning.whole_pixels and self.table.dtype != torch.float32 and whole_pixels.usable(self.table.device)
        )

    @cached_property
    def _weighted(self) -> _Weighted:
        positions = _positions(self._flow, (self.height, self.width), self._top)
        return _Weighted.of(*positions, self.table.dtype)

    @cached_property
    def _gather(self) -> _Gather:
        return _Gather(self.table, self._weighted, (self.height, self.width))

    def _sampled(self, taps: Tensor, weights: Tensor) -> Tensor:
        """Sums of weighted taps: (P, C)."""
        if self._tuning.fused_gather:
            return F.embedding_bag(taps, self.table, mode="sum", per_sample_weights=weights)
        return torch.einsum("ptc,pt->pc", self.table[taps.long()], weights)

    def _copy(self, dx: int, dy: int) -> Tensor:
        """The map sampled at (dx, dy) from each position, (B, C, H, W) float32: whole, with a cheap gradient.

        Along the positions there is a gradient for the centre alone; lookups of correlation have none, as elsewhere
        in the field (RAFT).
        """
        assert self._map is not None
        px, py = (places.view(self.shape) for places in self._places)
        if (dx, dy) != (0, 0):
            px, py = px.detach(), py.detach()
        grid = [_normalised(px + dx, self.width), _normalised(py + dy, self.height)]
        x = self._map.float()
        found = F.grid_sample(x, torch.stack(grid, dim=-1), mode="bilinear", padding_mode="zeros", align_corners=True)
        # Rounding of the grid must not let in what lies outside: a cosine does not care how little it is.
        outside = [
            (p <= -1 + _SLACK) | (p >= side - _SLACK) for p, side in ((px + dx, self.width), (py + dy, self.height))
        ]
        return found.masked_fill((outside[0] | outside[1])[:, None], 0.0)

    def centre(self, out: Tensor | None = None) -> Tensor:
        """The warped map (B, C, H, W), channels last; into `out`, (B, H, W, C), where given."""
        b, h, w = self.shape
        if self._map is not None:
            return self._copy(0, 0).to(self.table.dtype)
        if out is None:
            out = self.table.new_empty(b, h, w, self.table.shape[1])
        if self._tuning.kernels:
            x = rearrange(self.table, "(b h w) c -> b c h w", b=b, h=self.height)
            centre(x, self._flow, Bases.of(x), self._top, out.permute(0, 3, 1, 2))
            return out.permute(0, 3, 1, 2)
        positions = out.view(b * h * w, -1)
        if self._in_few:
            for chunk in self._chunks():
                positions[chunk] = self._gather.sampled(chunk)[0]
            return out.permute(0, 3, 1, 2)
        for chunk in self._chunks():
            for taps in self._taps(chunk, 0):
                positions[chunk] = self._sampled(*taps)
        return out.permute(0, 3, 1, 2)

    def cosine(self, m: Tensor) -> Tensor:
        """Cosine of m (B, C, H, W) with each of the nine neighbours: (B, 9, H, W) float32, row by row."""
        if self._map is not None:
            target = m.float()
            own = _length(target)
            copies = (self._copy(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
            return torch.stack([(c * target).sum(dim=1) / (_length(c) * own) for c in copies], dim=1)
        vectors = rearrange(m, "b c h w -> (b h w) c")
        if self._in_few and self.shape[1:] == (self.height, self.width):
            return self._cosine_in_few(vectors)
        parts = []
        for chunk in self._chunks():
            target = vectors[chunk]
            own = _length(target)
            copies = (self._sampled(*taps) for taps in self._taps(chunk, 1))
            parts.append(torch.stack([_product(c, target) / (_length(c) * own) for c in copies], dim=1))
        b, h, w = self.shape
        return rearrange(torch.cat(parts), "(b h w) k -> b k h w", b=b, h=h, w=w)

    def _cosine_in_few(self, vectors: Tensor) -> Tensor:
        """:meth:`cosine` where the flow is whole: several neighbours at a time, of small maps all nine.

        A copy of the map has zeros around, so that all neighbours have the same weights.
        """
        size = self.height + _AROUND, self.width + _AROUND
        padded = F.pad(self._x, (1, _AROUND - 1, 1, _AROUND - 1))
        gather = _Gather(rearrange(padded, "b c h w -> (b h w) c"), self._weighted, size, neighbours=3)
        if neighbours_together(len(vectors), self._tuning) < 9 and self._in_whole_pixels:
            cosines = gather.cosines(vectors)
            return rearrange(cosines, "(b h w) k -> b k h w", b=self.shape[0], h=self.height, w=self.width)
        cosines = vectors.new_empty(len(vectors), 9, dtype=torch.float32)
        for chunk in self._chunks():
            target = vectors[chunk]
            at_a_time = neighbours_together(len(target), self._tuning)
            lengths = cosines.new_empty(9, len(target))
            products = torch.empty_like(lengths)
            for first in range(0, 9, at_a_time):
                which = slice(first, first + at_a_time)
                copies = gather.sampled(chunk, which)
                torch.linalg.vector_norm(copies, dim=2, dtype=torch.float32, out=lengths[which])
                torch.sum(_exact_products(copies, target), dim=2, dtype=torch.float32, out=products[which])
                del copies
            # See _length.
            lengths.square_().add_(1e-12).sqrt_().mul_(_length(target))
            torch.div(products.t(), lengths.t(), out=cosines[chunk])
        b, h, w = self.shape
        return rearrange(cosines, "(b h w) k -> b k h w", b=b, h=h, w=w)


def neighbours_together(positions: int, tuning: Tuning) -> int:
    """Of how many of the nine neighbours of so many positions there are copies at a time."""
    bags = tuning.gathered_positions
    if 9 * positions <= bags // 4:
        return 9
    return 3 if 3 * positions <= bags // 2 else 1


#: Rows, and columns, of zeros around a map of which all neighbours of its positions are read: one before, two after.
_AROUND = 3


@dataclass
class _Weighted:
    """Positions as :class:`_Gather` takes them.

    Attributes:
        low: the places (x, y) at or before each, (2, B, H, W) int32 or int64.
        share: how far each lies from there to the next, (2, B, H, W) float32.
        weights: of the four taps that lie around it, (B, H, W, 4).
    """

    low: Tensor
    share: Tensor
    weights: Tensor

    @staticmethod
    def of(px: Tensor, py: Tensor, dtype: torch.dtype) -> _Weighted:
        """px, py: (B, H, W) float32. Where a position is at the far end of a side, the tap past it weighs nothing."""
        position = torch.stack([px, py])
        low = position.floor()
        share = position.sub_(low)
        across, down = torch.stack([1 - share, share], dim=-1)
        weights = px.new_empty(*px.shape, 2, 2, dtype=dtype)
        torch.mul(down[..., :, None], across[..., None, :], out=weights)
        return _Weighted(low.to(torch.int32), share, weights.flatten(3))

    def halves(self) -> tuple[_Weighted, _Weighted]:
        """Those of the first and of the second half of the batch."""
        shares = self.share.chunk(2, dim=1)
        first, second = zip(self.low.chunk(2, dim=1), shares, self.weights.chunk(2), strict=True)
        return _Weighted(*first), _Weighted(*second)


class _Gather:
    """Samples of a map (B, H, W) given as a table of features, at places and at their neighbours."""

    def __init__(self, table: Tensor, at: _Weighted, size: tuple[int, int], neighbours: int = 1) -> None:
        """Take a map.

        Args:
            table: (B H W, C).
            at: where.
            size: (H, W).
            neighbours: 3 for the 3 x 3 that begin at each place, so of a map that has a row and a column before it
                and two after; 1 for the place alone.
        """
        self._table, self._neighbours = table, neighbours
        height, self._width = size
        width, self._weights, self._share = self._width, at.weights, at.share
        low = at.low if len(table) < 2**31 - 2 * width else at.low.long()
        first = torch.add(low[0], low[1], alpha=width)
        if len(first) > 1:
            first += torch.arange(len(first), device=first.device, dtype=first.dtype)[:, None, None] * (height * width)
        if neighbours > 1:
            first.clamp_(0, len(table) - (width + 1) * neighbours - 1)  # NaN is a position too, and must make no index
        self._first = first
        # From a place to all taps of its neighbours, (neighbours^2, 4).
        steps = torch.arange(neighbours + 1, device=first.device, dtype=first.dtype)
        grid = steps[:, None] * width + steps
        self._taps = grid.unfold(0, 2, 1).unfold(1, 2, 1).reshape(-1, 1, 4)
        self._bags: Tensor | None = None

    def of_rows(self, start: int, stop: int) -> _Gather:
        """The same for some rows of the places."""
        part = copy(self)
        part._first, part._weights = self._first[:, start:stop], self._weights[:, start:stop]
        return part

    def cosines(self, vectors: Tensor) -> Tensor:
        """Of each vector (P, C) with the nine neighbours of its place, (P, 9) float32."""
        x, y = self._share.flatten(1)
        return whole_pixels.cosines(self._table, self._width, self._first.flatten(), (x, y), vectors)

    def sampled(self, chunk: slice, which: slice = slice(None)) -> Tensor:
        """Of a chunk of P positions n of the neighbours, row by row: (n, P, C)."""
        taps = self._first.flatten()[chunk, None] + self._taps[which]
        if self._neighbours == 1:
            taps.clamp_(0, len(self._table) - 1)  # taps past the end, which weigh nothing; and NaN, see above
        count, positions = taps.shape[:2]
        weights = self._weights.flatten(0, 2)[chunk].expand(count, -1, -1).reshape(-1)
        if self._bags is None:
            self._bags = torch.arange(0, taps.numel(), 4, device=taps.device, dtype=taps.dtype)
        bags = self._bags[: count * positions]
        found = F.embedding_bag(taps.view(-1), self._table, bags, mode="sum", per_sample_weights=weights)
        return found.view(count, positions, -1)


def _axis(position: Tensor, size: int, reach: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The places (P,) at or before positions along a side, and for each neighbour -reach..reach the weights (P,) of its
    two taps, zero where a tap lies outside."""
    low = position.floor()
    share = position - low
    inside = [((low >= -offset) & (low < size - offset)).to(share.dtype) for offset in range(-reach, reach + 2)]
    pairs = [((1 - share) * inside[i], share * inside[i + 1]) for i in range(2 * reach + 1)]
    return low, pairs


def _length(vectors: Tensor) -> Tensor:
    """Lengths of vectors (P, C, ...), never zero: (P, ...) float32."""
    if vectors.dtype == torch.float16:
        # Squares of what is small vanish in float16, and what is plain would be like everything.
        return (torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float32).square() + 1e-12).sqrt()
    return ((vectors * vectors).sum(dim=1, dtype=torch.float32) + 1e-12).sqrt()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of vectors (P, C): (P,) float32. See :func:`_length`."""
    return _exact_products(a, b).sum(dim=1, dtype=torch.float32)


def _exact_products(a: Tensor, b: Tensor) -> Tensor:
    """a * b, in float32 where what is small would vanish."""
    return a.float().mul_(b) if a.dtype == torch.float16 else a * b

"""Exact evaluation of wide maps in strips of rows.

A :class:`Rows` is a map of which any rows can be asked for: stored, or computed from the rows of another. A layer makes
a Rows of a Rows; reading rows of the last layer reads what each layer before needs for them, neighbours (the halo) with
it, and pads with zeros at the borders of the map only. Nothing wide exists but what :func:`collect` stores.

Norms need statistics of the whole map first: they are taken strip by strip while a map is stored (or in a pass of its
own), and merged with the between-strip term (Chan, Golub and LeVeque 1983), so that every strip is normed by the
statistics of the whole map. Strips change rounding, nothing else; there are no seams.

Where a map is narrow enough to go whole there is one strip, and every layer is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Cut = tuple[int, int]
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Strips:
    """How maps are cut.

    Attributes:
        pixels: positions (rows x columns x batch) evaluated at a time; None for whole maps.
        frugal: compute again what is wide and cheap rather than keep it, and keep on the device only what the next
            step needs.
    """

    pixels: int | None = None
    frugal: bool = False

    def cuts(self, shape: Shape | torch.Size, multiple: int = 2, least: int = 1) -> list[Cut]:
        """Rows (start, stop) of a map (B, C, H, W), in strips of a multiple of rows, at least `least`."""
        batch, _, height, width = shape
        if self.pixels is None:
            return [(0, height)]
        rows = max(self.pixels // (batch * width), least, 1)
        rows = max(rows // multiple, 1) * multiple
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]


def halved(cuts: list[Cut]) -> list[Cut]:
    """The cuts of a map of half the height."""
    return [(a // 2, (b + 1) // 2) for a, b in cuts]


def pieces(strips: Strips, device: torch.device) -> Strips:
    """The cuts for layers that are several times wider than their map: of whole maps as well, as what is wide then
    never exists whole, at no cost in time."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return strips
    most = _CACHED if device.type == "cpu" else _LONG
    return Strips(min(strips.pixels or most, most), strips.frugal)


def wide_cuts(shape: Shape, strips: Strips, device: torch.device) -> list[Cut]:
    """The cuts by :func:`pieces` where rows around each are computed twice."""
    smaller = pieces(strips, device)
    return strips.cuts(shape) if smaller.pixels == strips.pixels else smaller.cuts(shape, least=_WIDE_ROWS)


#: Positions of a piece: on the CPU, where it stays in the cache, and on devices that want long kernels.
_CACHED, _LONG = 1 << 14, 1 << 16
#: Rows of a piece, at least, where rows around it are computed twice.
_WIDE_ROWS = 16
#: Everything in one piece.
WHOLE = Strips()


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the positions: float32 (B, C) each, for x (B, C, ...)."""
    if torch.compiler.is_compiling() or x.ndim != 4 or x.stride(1) != 1:
        variance, mean = torch.var_mean(x.flatten(2).float(), dim=2, correction=0)
        return mean, variance
    # One pass over differences from a mean of some rows, which is near enough that nothing cancels.
    near = x[:, :, :: max(1, x.shape[2] // 8)].mean(dim=(2, 3), dtype=torch.float32)
    sums, squares = torch.zeros_like(near), torch.zeros_like(near)
    for i, part in _parts(x):
        centred = part - near[i]  # float32
        sums[i] += _column_sums(centred)
        squares[i] += _column_sums(centred.mul_(centred))
    offset = sums / (x.shape[2] * x.shape[3])
    return near + offset, (squares / (x.shape[2] * x.shape[3]) - offset.square()).clamp_min_(0.0)


def channel_sums(x: Tensor) -> Tensor:
    """Sum of each channel over the positions: float32 (B, C), for x (B, C, H, W).

    On the CPU PyTorch would first make a float32 copy of a whole map in half precision.
    """
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or x.stride(1) != 1
    if plain or x.device.type != "cpu" or x.dtype == torch.float32:
        return x.sum(dim=(2, 3), dtype=torch.float32)
    sums = torch.zeros(x.shape[:2], dtype=torch.float32)
    for i, part in _parts(x):
        sums[i] += _column_sums(part.float())
    return sums


def _parts(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """A channels-last map some positions at a time, as long sums lose digits: index in the batch, positions (N, C)."""
    for i, positions in enumerate(rearrange(x, "b c h w -> b (h w) c")):
        for part in positions.split(max(1, _CHUNK // max(x.shape[1], 64))):
            yield i, part


def _column_sums(x: Tensor) -> Tensor:
    """Sums (C,) of the columns of a contiguous x (N, C) float32.

    On the CPU most of it is a product with a few ones, which is faster than a sum: of long rows, each of many
    positions. A product with N ones would be one long sum on some processors, and lose digits.
    """
    if x.device.type != "cpu" or len(x) < _ONES:
        return x.sum(dim=0)
    whole = len(x) // _ONES * _ONES
    rows = x[:whole].view(_ONES, -1)
    sums = torch.mv(rows.T, x.new_ones(_ONES)).view(-1, x.shape[1]).sum(dim=0)
    return sums if whole == len(x) else sums + x[whole:].sum(dim=0)


#: Positions that a product with ones adds.
_ONES = 32
#: Elements of a channels-last map that are reduced at a time.
_CHUNK = 1 << 19


@dataclass
class Moments:
    """Mean and variance of each channel of a map, taken from its strips."""

    counts: list[int] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)

    def add(self, strip: Tensor) -> None:
        mean, variance = channel_moments(strip)
        self.counts.append(strip.shape[2:].numel())
        self.means.append(mean)
        self.variances.append(variance)

    def channels(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over the whole map: float32 (B, C) each."""
        if len(self.counts) == 1:
            return self.means[0], self.variances[0]
        means, variances = torch.stack(self.means), torch.stack(self.variances)  # (strips, B, C)
        total = sum(self.counts)
        # Filled in on the device, as a list of numbers would have to be copied there, which waits for it.
        runs = [means.new_full((len(list(run)), 1, 1), count / total) for count, run in groupby(self.counts)]
        share = torch.cat(runs)
        mean = (means * share).sum(dim=0)
        return mean, ((variances + (means - mean).square()) * share).sum(dim=0)

    def groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group of channels: float32 (B, groups) each."""
        return grouped(*self.channels(), groups)


def grouped(mean: Tensor, variance: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Moments (B, C) of channels -> moments (B, groups) of their groups, with the between-channel term."""
    between, group_mean = torch.var_mean(rearrange(mean, "b (g c) -> b g c", g=groups), dim=2, correction=0)
    return group_mean, rearrange(variance, "b (g c) -> b g c", g=groups).mean(dim=2) + between


class Rows:
    """A map (B, C, H, W) of which any rows can be read.

    Attributes:
        shape: (B, C, H, W).
        read: rows start..stop - 1 of the map, (B, C, stop - start, W).
        moments: of the whole map, where they were taken while it was stored.
        fresh: what is read serves nobody else and may be overwritten.
    """

    def __init__(
        self, shape: Shape, read: Callable[[int, int], Tensor], moments: Moments | None = None, fresh: bool = True
    ) -> None:
        self.shape, self.read, self.moments, self.fresh = shape, read, moments, fresh

    @property
    def height(self) -> int:
        return self.shape[2]


def stored(x: Tensor, moments: Moments | None = None) -> Rows:
    """A map that is there."""
    height = x.shape[2]
    b, c, h, w = x.shape
    return Rows((b, c, h, w), lambda a, b: x if (a, b) == (0, height) else x[:, :, a:b], moments, fresh=False)


def read_once(rows: Rows, cuts: list[Cut]) -> Rows:
    """A stored map that its reader may have, where it is read whole. The caller lets go of it."""
    if len(cuts) > 1 or torch.is_grad_enabled():
        return rows
    held = [rows.read(0, rows.height)]
    return Rows(rows.shape, lambda a, b: held.pop(), rows.moments)


def pointwise(rows: Rows, layer: Callable[[Tensor], Tensor]) -> Rows:
    """A layer that sees one position at a time and keeps the number of channels."""
    return Rows(rows.shape, lambda a, b: layer(rows.read(a, b)))


def positionwise(x: Tensor, conv: nn.Conv2d, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution, with another bias where one is given.

    With one thread PyTorch copies what it convolves with 1x1; the linear map of positions that it is does not.
    """
    bias = conv.bias if bias is None else bias
    if x.device.type == "cpu" and torch.get_num_threads() == 1:
        return F.linear(x.permute(0, 2, 3, 1), conv.weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, conv.weight, bias)


def convolved(rows: Rows, conv: nn.Conv2d, below: int | None = None) -> Rows:
    """A convolution with zero padding; `below`, where given, is the padding past the last row and column, with none
    before the first."""
    batch, _, height, width = rows.shape
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    if kernel == 1:
        return Rows((batch, conv.out_channels, height, width), lambda a, b: positionwise(rows.read(a, b), conv))
    before, after = (int(conv.padding[0]), int(conv.padding[0])) if below is None else (0, below)
    out_height, out_width = ((side + before + after - kernel) // stride + 1 for side in (height, width))

    def read(a: int, b: int) -> Tensor:
        first, last = stride * a - before, stride * (b - 1) - before + kernel
        top, bottom = max(0, -first), max(0, last - height)
        x = rows.read(max(first, 0), min(last, height))
        if below is not None:
            return conv(F.pad(x, (0, below, 0, bottom)) if below else x)
        if top == before and stride == 1 and bottom == after:
            return conv(x)
        if top or bottom:
            x = F.pad(x, (0, 0, top, bottom))
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, (0, before), 1, conv.groups)

    return Rows((batch, conv.out_channels, out_height, out_width), read)


def remembering(rows: Rows, reach: int) -> Rows:
    """The same rows, read from top to bottom in overlapping strips, each computed once.

    The last 2 * `reach` rows of a strip are kept for the next one, so that what they were computed from may be
    overwritten meanwhile.
    """
    tail: list[tuple[int, Tensor]] = []  # its first row, and the rows

    def read(a: int, b: int) -> Tensor:
        x = rows.read(a, b) if not tail or a == 0 else None
        if x is None:
            start, old = tail.pop()
            x = torch.cat([old[:, :, a - start :], rows.read(start + old.shape[2], b)], dim=2)
        kept = min(2 * reach, x.shape[2])
        tail[:] = [(b - kept, x[:, :, x.shape[2] - kept :].clone())]
        return x

    return Rows(rows.shape, read)


def added(rows: Rows, other: Rows) -> Rows:
    """The sum of two maps; the first one's rows are overwritten where no gradient needs them."""

    def read(a: int, b: int) -> Tensor:
        x, y = rows.read(a, b), other.read(a, b)
        return x + y if torch.is_grad_enabled() else x.add_(y)

    return Rows(rows.shape, read)


def normed(rows: Rows, norm: nn.GroupNorm, strips: Strips, activation: Callable[[Tensor], Tensor]) -> Rows:
    """GroupNorm by the statistics of the whole map, then an activation."""
    cuts = strips.cuts(rows.shape)
    if len(cuts) == 1 and rows.moments is None:
        return pointwise(rows, lambda x: activation(norm(x, rows.fresh)))
    moments = rows.moments or _measured(rows, cuts)
    scale, shift = affine(*moments.groups(norm.num_groups), norm)
    return pointwise(rows, lambda x: activation(scaled(x, scale, shift, rows.fresh)))


def scaled(x: Tensor, scale: Tensor, shift: Tensor, overwrite: bool = False) -> Tensor:
    """x * scale + shift in the dtype of x; with `overwrite` into x, where no gradient needs it."""
    out = x if overwrite and not torch.is_grad_enabled() else None
    return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype), out=out)


def affine(mean: Tensor, variance: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """The norm by group moments (B, groups) as x * scale + shift: float32 (B, C, 1, 1) each."""
    per_group = norm.num_channels // norm.num_groups
    inverse = torch.rsqrt(variance + norm.eps)
    weight = rearrange(norm.weight.float(), "(g c) -> g c", c=per_group)
    scale = inverse[:, :, None] * weight
    shift = rearrange(norm.bias.float(), "(g c) -> g c", c=per_group) - mean[:, :, None] * scale
    return rearrange(scale, "b g c -> b (g c) 1 1"), rearrange(shift, "b g c -> b (g c) 1 1")


def _measured(rows: Rows, cuts: list[Cut]) -> Moments:
    """The moments of a map, in a pass that stores nothing."""
    moments = Moments()
    for a, b in cuts:
        moments.add(rows.read(a, b))
    return moments


def collect(rows: Rows, cuts: list[Cut], measure: bool = False, out: Tensor | None = None) -> Rows:
    """Compute a map strip by strip and store it; with `measure`, its moments are taken on the way.

    `out` (B, C, H, W) is where it goes; it may be what `rows` is read from only where no strip reads what an earlier
    one wrote.
    """
    if len(cuts) == 1 and out is None:
        return stored(rows.read(0, rows.height))
    moments = Moments() if measure else None
    for a, b in cuts:
        strip = rows.read(a, b)
        if moments is not None:
            moments.add(strip)
        if out is None:
            out = torch.empty(rows.shape, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last)
        out[:, :, a:b] = strip
        del strip
    assert out is not None
    return stored(out, moments)

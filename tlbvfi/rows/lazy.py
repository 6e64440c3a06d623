"""Maps of which any rows can be asked for, and the layers over them.

A :class:`Rows` is stored, or computed from the rows of another. A layer makes a Rows of a Rows; reading rows of the
last layer reads what each layer before needs for them, with the halo of its convolution, and pads with zeros at the
borders of the map only. Nothing wide exists but what :func:`materialise` stores.

Norms need statistics of the whole map first: they are taken strip by strip while a map is stored, or in a pass of its
own. Strips change rounding, nothing else; there are no seams. Where a map is narrow enough to go whole there is one
strip, and every layer is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import Activation
from .cpu import positionwise
from .cuts import Cut, Shape, Strips
from .moments import Moments, affine, group_normed, scaled
from .owned import Owned

#: A map, and the bias (C,) that is still to be added to it, or None.
Apart = tuple[Tensor, Tensor | None]


class Rows:
    """A map (B, C, H, W) of which any rows can be read.

    Attributes:
        shape: (B, C, H, W).
        read: rows start..stop - 1 of the map, (B, C, stop - start, W).
        moments: of the whole map, where they were taken while it was stored.
        writable: what is read serves nobody else and may be overwritten: it was computed for the reader, or is its own.
        apart: all rows, without a bias (C,), and this bias or None: for readers that add it at no cost.
    """

    def __init__(
        self,
        shape: Shape,
        read: Callable[[int, int], Tensor],
        moments: Moments | None = None,
        writable: bool = True,
        apart: Callable[[], Apart] | None = None,
    ) -> None:
        self.shape, self.read, self.moments, self.writable = shape, read, moments, writable
        self.apart = apart or (lambda: (read(0, shape[2]), None))

    @property
    def height(self) -> int:
        return self.shape[2]

    def tensor(self) -> Tensor:
        """All rows."""
        return self.read(0, self.height)


def stored(x: Tensor, moments: Moments | None = None) -> Rows:
    """A map that is there, and is lent."""
    b, c, h, w = x.shape
    return Rows((b, c, h, w), lambda start, stop: x if stop - start == h else x[:, :, start:stop], moments, False)


def lacking(shape: Shape, apart: Callable[[], Apart], writable: bool = True) -> Rows:
    """A map that may lack a bias (:attr:`Rows.apart`); with `writable`, what `apart` gives is the reader's."""

    def read(a: int, b: int) -> Tensor:
        x, bias = apart()
        part = x[:, :, a:b]
        if bias is None:
            return part
        return part.add_(bias[:, None, None]) if writable else part + bias[:, None, None]

    return Rows(shape, read, None, writable, apart)


def read_once(rows: Rows, cuts: list[Cut]) -> Rows:
    """A stored map that is read once, by these cuts. Read whole it is handed over (see :class:`.owned.Owned`), and
    freed when its reader drops it; the caller must not keep `rows`. In strips it is lent, as their halos overlap, and
    with gradients too, which may need it."""
    if len(cuts) > 1 or torch.is_grad_enabled():
        return rows
    held = Owned(rows.tensor())
    return Rows(rows.shape, lambda start, stop: held.take(), rows.moments)


def pointwise(rows: Rows, layer: Callable[[Tensor], Tensor]) -> Rows:
    """A layer that sees one position at a time and keeps the number of channels."""
    return Rows(rows.shape, lambda start, stop: layer(rows.read(start, stop)))


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


def added(rows: Rows, other: Rows) -> Rows:
    """The sum of two maps; the first one's rows are overwritten where no gradient needs them."""

    def read(a: int, b: int) -> Tensor:
        x, y = rows.read(a, b), other.read(a, b)
        return x + y if torch.is_grad_enabled() else x.add_(y)

    return Rows(rows.shape, read)


def normed(rows: Rows, norm: nn.GroupNorm, strips: Strips, activation: Activation) -> Rows:
    """GroupNorm by the statistics of the whole map, then an activation."""
    cuts = strips.cuts(rows.shape)
    if len(cuts) == 1 and rows.moments is None:
        return pointwise(rows, lambda x: group_normed(x, norm, activation, rows.writable, strips.tuning))
    moments = rows.moments or _measured(rows, cuts)
    scale, shift = affine(*moments.groups(norm.num_groups), norm)
    reuse = rows.writable and not torch.is_grad_enabled()
    return pointwise(rows, lambda x: scaled(x, scale, shift, activation, reuse, strips.tuning))


def _measured(rows: Rows, cuts: list[Cut]) -> Moments:
    """The moments of a map, in a pass that stores nothing."""
    moments = Moments()
    for a, b in cuts:
        moments.add(rows.read(a, b))
    return moments


def materialise(rows: Rows, cuts: list[Cut], measure: bool = False, out: Tensor | None = None) -> Rows:
    """Compute a map strip by strip and store it; with `measure`, its moments are taken on the way.

    `out` (B, C, H, W) is where it goes. For what `rows` itself is computed from see :func:`materialise_over`.
    """
    if len(cuts) == 1 and out is None:
        return stored(rows.tensor())
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


def computed(rows: Rows, strips: Strips) -> Tensor:
    """The whole of a map, computed strip by strip."""
    return materialise(rows, strips.cuts(rows.shape)).tensor()


def materialise_over(place: Tensor, rows: Rows, convs: Sequence[nn.Conv2d], cuts: list[Cut]) -> Rows:
    """Store convolutions of a map over the memory that the map is computed from; moments are taken on the way.

    Args:
        place: (B, C, H, W); its first channels are overwritten.
        rows: a map computed from `place`, position by position.
        convs: convolutions of stride 1 that keep the size, one after the other; the last has C channels at most.
        cuts: strips from top to bottom, each of at least as many rows as the halo above and below it together.

    A strip's halo reaches into the strip before, which is overwritten by then: of `rows` what the next strip needs is
    kept.
    """
    result = remembering(rows, sum(conv.kernel_size[0] // 2 for conv in convs))
    for conv in convs:
        result = convolved(result, conv)
    return materialise(result, cuts, measure=True, out=place[:, : result.shape[1]])


def remembering(rows: Rows, reach: int) -> Rows:
    """The same rows, read from top to bottom in strips that overlap by a halo of `reach` rows on either side; each row
    is computed once, and the last 2 * `reach` of a strip are kept for the next."""
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

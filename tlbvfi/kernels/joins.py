"""Maps added up: the bias of a convolution, a residual and an activation in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import ceil_div, operator, power_of_two

#: Elements that a program of the kernel takes.
_BLOCK = 4096


def position_stride(x: Tensor) -> int:
    """Elements from one position of a map (B, C, H, W) to the next, where its channels lie side by side and its
    positions follow each other: a channels-last map, or some of the channels of one.

    Raises:
        ValueError: the map lies in memory otherwise.
    """
    batch, channels, height, width = x.shape
    stride = x.stride(3) if width > 1 else x.stride(2) if height > 1 else x.stride(0) if batch > 1 else channels
    expected = (height * width * stride, 1, width * stride, stride)
    sides = zip(x.shape, x.stride(), expected, strict=True)
    if any(size > 1 and have != want for size, have, want in sides) or stride < channels:
        raise ValueError(f"A map of channels last is wanted, not strides {x.stride()} for {tuple(x.shape)}.")
    return stride


def channels_last(x: Tensor) -> Tensor:
    """A map as kernels take it. On a card it mostly is so already: what convolutions make there has the layout of their
    weights. The ``meta`` device does not know that, where a copy would be counted that no card makes."""
    return x if x.is_meta else x.contiguous(memory_format=torch.channels_last)


def join(
    x: Tensor,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    other_bias: Tensor | None = None,
    slope: Tensor | None = None,
    after: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """act(x + bias + other + other_bias) + after, in one pass.

    Args:
        x: (B, C, H, W), channels last, or some channels of such a map (:func:`position_stride`); so are the maps below.
        bias, other_bias: (C,).
        other: a map of x's shape; or of fewer rows and columns, past which the result is zero.
        slope: of a PReLU, (C,); without one there is no activation.
        after: a map of x's shape, added last.
        out: where the result goes; x itself by default, which is overwritten.

    Returns:
        `out`.
    """
    out = x if out is None else out
    _join(x, bias, other, other_bias, slope, after, out)
    return out


def _launch(
    x: Tensor, bias: Tensor | None, other: Tensor | None, other_bias: Tensor | None, slope: Tensor | None,
    after: Tensor | None, out: Tensor,
) -> None:  # fmt: skip
    from .device.joins import join_kernel

    channels, positions = x.shape[1], x.numel() // x.shape[1]
    block_c = power_of_two(channels)
    block_p = max(1, _BLOCK // block_c)
    join_kernel[(ceil_div(positions, block_p),)](
        x, bias, other, other_bias, slope, after, out, positions, channels,
        position_stride(x), 0 if other is None else position_stride(other),
        0 if after is None else position_stride(after), position_stride(out),
        *x.shape[2:], *(x if other is None else other).shape[2:],
        PADDED=other is not None and other.shape != x.shape, BLOCK_P=block_p, BLOCK_C=block_c,
    )  # fmt: skip


_join = operator(
    "join(Tensor x, Tensor? bias, Tensor? other, Tensor? other_bias, Tensor? slope, Tensor? after, Tensor(a!) out) "
    "-> ()",
    lambda *_: None,
    _launch,
)

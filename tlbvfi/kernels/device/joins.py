"""See :mod:`..joins`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started


@Started
@triton.jit(do_not_specialize=["height", "width", "other_height", "other_width"])
def join_kernel(
    x, bias, other, other_bias, slope, after, out, positions, channels,
    x_stride, other_stride, after_stride, out_stride, height, width, other_height, other_width,
    PADDED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    there = channel < channels
    mask = (place < positions)[:, None] & there[None, :]
    other_place, seen = place, mask
    if PADDED:
        line, column = place.to(tl.int32) // width, place.to(tl.int32) % width
        row = line % height
        other_place = ((line // height * other_height + row) * other_width + column).to(tl.int64)
        seen = mask & ((row < other_height) & (column < other_width))[:, None]
    value = tl.load(x + place[:, None] * x_stride + channel[None, :], mask=mask).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)[None, :]
    if other is not None:
        value += tl.load(other + other_place[:, None] * other_stride + channel[None, :], mask=seen).to(tl.float32)
    if other_bias is not None:
        value += tl.load(other_bias + channel, mask=there, other=0.0).to(tl.float32)[None, :]
    if slope is not None:
        factor = tl.load(slope + channel, mask=there, other=0.0).to(tl.float32)[None, :]
        value = tl.where(value > 0, value, value * factor)
    if after is not None:
        value += tl.load(after + place[:, None] * after_stride + channel[None, :], mask=mask).to(tl.float32)
    if PADDED:
        value = tl.where(seen, value, 0.0)
    tl.store(out + place[:, None] * out_stride + channel[None, :], value.to(out.dtype.element_ty), mask=mask)

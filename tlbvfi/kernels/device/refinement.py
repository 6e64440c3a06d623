"""See :mod:`..refinement`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started
from .sampling import looked_at, sample, tap

#: Numbers that come in many values and make no kernel faster when they are known.
_GEOMETRY = [
    "image_stride", "axis_stride", "row_stride", "column_stride", "positions", "rows", "top", "height", "width",
]  # fmt: skip


@triton.jit
def bias_prelu(x, bias, slope, channel, CHANNELS: tl.constexpr):
    """PReLU of values (places, channels) with a bias."""
    there = channel < CHANNELS
    x += tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)[None, :]
    return tl.where(x > 0, x, x * tl.load(slope + channel, mask=there, other=0.0).to(tl.float32)[None, :])


@triton.jit
def transposed(weight, inputs, outputs, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, STRIDE: tl.constexpr):
    """The part (inputs, outputs) of a matrix that is stored (OUTPUTS, STRIDE), of whose columns INPUTS are read."""
    mask = (inputs < INPUTS)[:, None] & (outputs < OUTPUTS)[None, :]
    return tl.load(weight + outputs[None, :] * STRIDE + inputs[:, None], mask=mask, other=0.0)


@Started
@triton.jit(do_not_specialize=_GEOMETRY)
def centre_kernel(
    x, flow, base_x, base_y, out, image_stride, axis_stride, row_stride, column_stride,
    far_x, last_x, far_y, last_y, positions, rows, top, height, width, out_stride,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    image, dx, dy, left, above, across, down = looked_at(
        flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
        place, there, rows, top, width,
    )  # fmt: skip
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    value = sample(x, image, left, above, across, down, there, channel, height, width, CHANNELS)
    mask = there[:, None] & (channel < CHANNELS)[None, :]
    to = out + place.to(tl.int64)[:, None] * out_stride + channel[None, :]
    tl.store(to, value.to(out.dtype.element_ty), mask=mask)


@Started
@triton.jit(do_not_specialize=_GEOMETRY)
def middle_kernel(
    x0, x1, flow, base_x, base_y, weight1, bias1, slope1, weight2, bias2, slope2, weight3, bias3, out,
    image_stride, axis_stride, row_stride, column_stride,
    far_x, last_x, far_y, last_y, positions, rows, top, height, width,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    image, dx, dy, left0, above0, across0, down0 = looked_at(
        flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
        place, there, rows, top, width,
    )  # fmt: skip
    image, dx, dy, left1, above1, across1, down1 = looked_at(
        flow + 2 * axis_stride, image_stride, axis_stride, row_stride, column_stride, base_x, base_y,
        far_x, last_x, far_y, last_y, place, there, rows, top, width,
    )  # fmt: skip
    dtype: tl.constexpr = x0.dtype.element_ty
    every = tl.arange(0, BLOCK_C)
    h = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for first in range(0, CHANNELS, PART):
        channel = first + tl.arange(0, PART)
        centre0 = sample(x0, image, left0, above0, across0, down0, there, channel, height, width, CHANNELS)
        centre1 = sample(x1, image, left1, above1, across1, down1, there, channel, height, width, CHANNELS)
        own = transposed(weight1, channel, every, CHANNELS, CHANNELS, 2 * CHANNELS)
        h = tl.dot(centre0.to(dtype), own, h, input_precision=PRECISION)
        own = transposed(weight1 + CHANNELS, channel, every, CHANNELS, CHANNELS, 2 * CHANNELS)
        h = tl.dot(centre1.to(dtype), own, h, input_precision=PRECISION)
    hidden = bias_prelu(h, bias1, slope1, every, CHANNELS).to(dtype)
    weight = tl.zeros((BLOCK_P,), tl.float32) + tl.load(bias3).to(tl.float32)
    for first in range(0, CHANNELS, PART):
        channel = first + tl.arange(0, PART)
        own = transposed(weight2, every, channel, CHANNELS, CHANNELS, CHANNELS)
        g = bias_prelu(tl.dot(hidden, own, input_precision=PRECISION), bias2, slope2, channel, CHANNELS)
        g *= tl.load(weight3 + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)[None, :]
        weight += tl.sum(g, axis=1)
    weight = 1.0 / (1.0 + tl.exp(-weight))
    for first in range(0, CHANNELS, PART):
        channel = first + tl.arange(0, PART)
        centre0 = sample(x0, image, left0, above0, across0, down0, there, channel, height, width, CHANNELS)
        centre1 = sample(x1, image, left1, above1, across1, down1, there, channel, height, width, CHANNELS)
        mask = there[:, None] & (channel < CHANNELS)[None, :]
        to = out + place.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        tl.store(to, (centre1 + weight[:, None] * (centre0 - centre1)).to(dtype), mask=mask)


@triton.jit
def between_taps(
    x, image, left, line, to_left, to_right, there, channel, height, width, CHANNELS: tl.constexpr
):  # fmt: skip
    """The three samples between the four taps of a line of the map from `left - 1`, each (places, channels)."""
    a = tap(x, image, left - 1, line, there, channel, height, width, CHANNELS)
    b = tap(x, image, left, line, there, channel, height, width, CHANNELS)
    c = tap(x, image, left + 1, line, there, channel, height, width, CHANNELS)
    d = tap(x, image, left + 2, line, there, channel, height, width, CHANNELS)
    return a * to_left + b * to_right, b * to_left + c * to_right, c * to_left + d * to_right


@triton.jit
def counted(products, squares, here, value, m):
    """The sums (places, 16) with those of a neighbour (places, channels) added in its column."""
    products += tl.where(here, tl.sum(value * m, axis=1)[:, None], 0.0)
    squares += tl.where(here, tl.sum(value * value, axis=1)[:, None], 0.0)
    return products, squares


@Started
@triton.jit(do_not_specialize=_GEOMETRY)
def cosines_kernel(
    x, flow, middle, base_x, base_y, out, image_stride, axis_stride, row_stride, column_stride,
    far_x, last_x, far_y, last_y, positions, rows, top, height, width,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    image, dx, dy, left, above, across, down = looked_at(
        flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
        place, there, rows, top, width,
    )  # fmt: skip
    to_left, to_right = (1.0 - across)[:, None], across[:, None]
    to_upper, to_lower = (1.0 - down)[:, None], down[:, None]
    column = tl.arange(0, 16)[None, :]
    products = tl.zeros((BLOCK_P, 16), tl.float32)
    squares = tl.zeros((BLOCK_P, 16), tl.float32)
    own = tl.zeros((BLOCK_P,), tl.float32)
    for first in range(0, CHANNELS, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        mask = there[:, None] & (channel < CHANNELS)[None, :]
        m = tl.load(middle + place.to(tl.int64)[:, None] * CHANNELS + channel[None, :], mask=mask, other=0.0)
        m = m.to(tl.float32)
        own += tl.sum(m * m, axis=1)
        upper0, upper1, upper2 = between_taps(
            x, image, left, above - 1, to_left, to_right, there, channel, height, width, CHANNELS
        )
        for row in tl.static_range(3):
            lower0, lower1, lower2 = between_taps(
                x, image, left, above + row, to_left, to_right, there, channel, height, width, CHANNELS
            )
            value = upper0 * to_upper + lower0 * to_lower
            products, squares = counted(products, squares, column == 3 * row, value, m)
            value = upper1 * to_upper + lower1 * to_lower
            products, squares = counted(products, squares, column == 3 * row + 1, value, m)
            value = upper2 * to_upper + lower2 * to_lower
            products, squares = counted(products, squares, column == 3 * row + 2, value, m)
            upper0, upper1, upper2 = lower0, lower1, lower2
    lacking = products / (tl.sqrt(squares + 1e-12) * tl.sqrt(own + 1e-12)[:, None]) - 1.0
    lacking = tl.where(column < 9, lacking, 0.0)
    lacking = tl.where(column == 9, dx[:, None], lacking)
    lacking = tl.where(column == 10, dy[:, None], lacking)
    to = out + place.to(tl.int64)[:, None] * 16 + column
    tl.store(to, lacking.to(out.dtype.element_ty), mask=there[:, None])


@Started
@triton.jit(do_not_specialize=["positions"])
def correlation_kernel(
    x, weight1, bias1, slope1, weight2, bias2, slope2, out, positions, out_stride,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    every, cosine = tl.arange(0, BLOCK_C), tl.arange(0, 16)
    values = tl.load(x + place[:, None] * 16 + cosine[None, :], mask=there[:, None], other=0.0)
    h = tl.dot(values, transposed(weight1, cosine, every, 16, CHANNELS, 16), input_precision=PRECISION)
    hidden = bias_prelu(h, bias1, slope1, every, CHANNELS).to(x.dtype.element_ty)
    for first in range(0, CHANNELS, PART):
        channel = first + tl.arange(0, PART)
        own = transposed(weight2, every, channel, CHANNELS, CHANNELS, CHANNELS)
        g = bias_prelu(tl.dot(hidden, own, input_precision=PRECISION), bias2, slope2, channel, CHANNELS)
        mask = there[:, None] & (channel < CHANNELS)[None, :]
        tl.store(out + place[:, None] * out_stride + channel[None, :], g.to(out.dtype.element_ty), mask=mask)


@Started
@triton.jit(do_not_specialize=_GEOMETRY)
def gru_input_kernel(
    x, flow, base_x, base_y, motion, bias, slope, out, image_stride, axis_stride, row_stride, column_stride,
    far_x, last_x, far_y, last_y, positions, rows, top, height, width,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    image, dx, dy, left, above, across, down = looked_at(
        flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
        place, there, rows, top, width,
    )  # fmt: skip
    dtype: tl.constexpr = out.dtype.element_ty
    channel = tl.arange(0, BLOCK_C)
    mask = there[:, None] & (channel < CHANNELS)[None, :]
    place = place.to(tl.int64)[:, None]
    to = out + place * (2 * CHANNELS + 8)
    value = sample(x, image, left, above, across, down, there, channel, height, width, CHANNELS)
    tl.store(to + channel[None, :], value.to(dtype), mask=mask)
    value = tl.load(motion + place * CHANNELS + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(to + CHANNELS + channel[None, :], bias_prelu(value, bias, slope, channel, CHANNELS).to(dtype), mask=mask)
    column = tl.arange(0, 8)[None, :]
    value = tl.where(column == 0, dx[:, None], tl.where(column == 1, dy[:, None], 0.0))
    tl.store(to + 2 * CHANNELS + column, value.to(dtype), mask=there[:, None])


@Started
@triton.jit(do_not_specialize=[*_GEOMETRY, "area"])
def moved_kernel(
    flow, delta0, delta1, bias, out, image_stride, axis_stride, row_stride, column_stride, positions, area, width,
    BLOCK_P: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < positions
    image, within = place // area, place % area
    source = flow + image * image_stride + (within // width) * row_stride + (within % width) * column_stride
    to = out + image * 4 * area + within
    for axis in tl.static_range(2):
        own = tl.load(bias + axis).to(tl.float32)
        first = tl.load(delta0 + place * 8 + axis, mask=there, other=0.0).to(tl.float32) + own
        tl.store(to + axis * area, tl.load(source + axis * axis_stride, mask=there, other=0.0) + first, mask=there)
        last = tl.load(delta1 + place * 8 + axis, mask=there, other=0.0).to(tl.float32) + own
        before = tl.load(source + (2 + axis) * axis_stride, mask=there, other=0.0)
        tl.store(to + (2 + axis) * area, before + last, mask=there)

"""See :mod:`..context`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started
from .attention import columns, gelu
from .sampling import looked_at


@triton.jit
def _expanded(
    total, x, stride, place, there, weight, skipped, leaving, channels, inputs, hidden,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums so far, and the share of a map that has `skipped` channels before it."""
    for start in range(0, channels, BLOCK_K):
        channel = start + tl.arange(0, BLOCK_K)
        mask = there[:, None] & (channel < channels)[None, :]
        found = tl.load(x + place[:, None] * stride + channel[None, :], mask=mask, other=0.0)
        block = columns(weight, skipped + channel, leaving, inputs, hidden)
        total = tl.dot(found, block, total, input_precision=PRECISION)
    return total


@triton.jit
def _expanded_along(
    total, x, stride, flow, image_stride, axis_stride, row_stride, column_stride,
    base_x, base_y, far_x, last_x, far_y, last_y, place, there, height, width,
    weight, skipped, leaving, channels, inputs, hidden, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The same of a map sampled along a flow."""
    image, _, _, left, above, across, down = looked_at(
        flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
        place, there, height, 0, width,
    )  # fmt: skip
    first = image * height * width
    # At the far border the share of what would lie outside is zero.
    right = tl.minimum(left + 1, width - 1)
    below = tl.minimum(above + 1, height - 1) * width
    above *= width
    a, b = x + ((first + above + left) * stride)[:, None], x + ((first + above + right) * stride)[:, None]
    c, d = x + ((first + below + left) * stride)[:, None], x + ((first + below + right) * stride)[:, None]
    share_a, share_b = ((1.0 - across) * (1.0 - down))[:, None], (across * (1.0 - down))[:, None]
    share_c, share_d = ((1.0 - across) * down)[:, None], (across * down)[:, None]
    for start in range(0, channels, BLOCK_K):
        channel = start + tl.arange(0, BLOCK_K)
        mask = there[:, None] & (channel < channels)[None, :]
        found = tl.load(a + channel[None, :], mask=mask, other=0.0).to(tl.float32) * share_a
        found += tl.load(b + channel[None, :], mask=mask, other=0.0).to(tl.float32) * share_b
        found += tl.load(c + channel[None, :], mask=mask, other=0.0).to(tl.float32) * share_c
        found += tl.load(d + channel[None, :], mask=mask, other=0.0).to(tl.float32) * share_d
        block = columns(weight, skipped + channel, leaving, inputs, hidden)
        total = tl.dot(found.to(x.dtype.element_ty), block, total, input_precision=PRECISION)
    return total


@Started
@triton.jit(
    do_not_specialize=["positions", "height", "width", "image_stride", "axis_stride", "row_stride", "column_stride"]
)
def context_expand_kernel(
    before, after, flow, base_x, base_y, weight, bias, out, positions, height, width, channels, inputs, hidden,
    before_stride, after_stride, image_stride, axis_stride, row_stride, column_stride, far_x, last_x, far_y, last_y,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(hidden, BLOCK_N)
    place = tl.program_id(0) // across * BLOCK_P + tl.arange(0, BLOCK_P)
    leaving = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    there = place < positions
    spot = place.to(tl.int64)
    total = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    total = _expanded(
        total, before, before_stride, spot, there, weight, 0, leaving, channels, inputs, hidden, BLOCK_K, PRECISION
    )
    total = _expanded(
        total, after, after_stride, spot, there, weight, channels, leaving, channels, inputs, hidden,
        BLOCK_K, PRECISION,
    )  # fmt: skip
    if flow is not None:
        total = _expanded_along(
            total, before, before_stride, flow, image_stride, axis_stride, row_stride, column_stride,
            base_x, base_y, far_x, last_x, far_y, last_y, place, there, height, width,
            weight, 2 * channels, leaving, channels, inputs, hidden, BLOCK_K, PRECISION,
        )  # fmt: skip
        total = _expanded_along(
            total, after, after_stride, flow + 2 * axis_stride, image_stride, axis_stride, row_stride, column_stride,
            base_x, base_y, far_x, last_x, far_y, last_y, place, there, height, width,
            weight, 3 * channels, leaving, channels, inputs, hidden, BLOCK_K, PRECISION,
        )  # fmt: skip
    total += tl.load(bias + leaving, mask=leaving < hidden, other=0.0).to(tl.float32)[None, :]
    mask = there[:, None] & (leaving < hidden)[None, :]
    tl.store(out + spot[:, None] * hidden + leaving[None, :], gelu(total).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _beside(x, image, row, column, channel, height, width, channels, stride):
    """Of a row the columns to the left of some, these, and those to the right; what lies outside of the map is zero."""
    source = x + (image + row * width + column)[:, None] * stride + channel[None, :]
    there = (channel < channels)[None, :]
    end = tl.where((row >= 0) & (row < height), width, 0)  # outside of the map rows have no columns
    left = tl.load(source - stride, mask=there & ((column > 0) & (column <= end))[:, None], other=0.0)
    centre = tl.load(source, mask=there & (column < end)[:, None], other=0.0)
    right = tl.load(source + stride, mask=there & (column < end - 1)[:, None], other=0.0)
    return left, centre, right


@Started
@triton.jit(do_not_specialize=["height", "width", "rows"])
def depthwise_gelu_kernel(
    x, taps, bias, out, sums, height, width, channels, stride, rows,
    BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks, across, down = tl.cdiv(channels, BLOCK_C), tl.cdiv(width, BLOCK_W), tl.cdiv(height, rows)
    tile = tl.program_id(0) // blocks
    channel = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    column = tile % across * BLOCK_W + tl.arange(0, BLOCK_W)
    top = tile // across % down * rows
    image = (tile // (across * down)).to(tl.int64) * height * width
    there = channel < channels
    taps += channel
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = (
        tl.load(taps, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 2 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 3 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 4 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 5 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 6 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 7 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
        tl.load(taps + 8 * channels, mask=there, other=0.0).to(tl.float32)[None, :],
    )
    shift = tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)[None, :]
    # Sums of the row above the one that is read, and of that one, as far as they go.
    upper = tl.zeros((BLOCK_W, BLOCK_C), tl.float32) + shift
    here = tl.zeros((BLOCK_W, BLOCK_C), tl.float32) + shift
    total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    # A row is on its way while the one before is computed with.
    next_left, next_centre, next_right = _beside(x, image, top - 1, column, channel, height, width, channels, stride)
    for step in range(rows + 2):
        row = top - 1 + step
        left, centre, right = next_left.to(tl.float32), next_centre.to(tl.float32), next_right.to(tl.float32)
        next_left, next_centre, next_right = _beside(
            x, image, row + 1, column, channel, height, width, channels, stride
        )
        value = gelu(upper + left * a6 + centre * a7 + right * a8).to(out.dtype.element_ty)
        wanted = there[None, :] & (column < tl.where((row > top) & (row <= height), width, 0))[:, None]
        place = image + (row - 1) * width + column
        tl.store(out + place[:, None] * channels + channel[None, :], value, mask=wanted)
        total += tl.where(wanted, value.to(tl.float32), 0.0)
        upper = here + left * a3 + centre * a4 + right * a5
        here = shift + left * a0 + centre * a1 + right * a2
    tl.store(sums + tile.to(tl.int64) * channels + channel, tl.sum(total, axis=0), mask=there)


@Started
@triton.jit(do_not_specialize=["tiles"])
def mean_kernel(sums, means, tiles, channels, share, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    image = tl.program_id(1)
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.arange(0, BLOCK_T)
    there = (channel < channels)[None, :]
    total = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for start in range(0, tiles, BLOCK_T):
        source = sums + (image * tiles + start + tile)[:, None] * channels + channel[None, :]
        total += tl.load(source, mask=there & (start + tile < tiles)[:, None], other=0.0)
    mean = tl.sum(total, axis=0) * share
    tl.store(means + image * channels + channel, mean, mask=channel < channels)


@Started
@triton.jit
def gated_weight_kernel(
    means, squeeze, excite, weight, out, hidden, squeezed, outputs,
    BLOCK_H: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    mine = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    gates = tl.zeros((BLOCK_H,), tl.float32)
    for start in range(0, squeezed, BLOCK_Q):
        narrow = start + tl.arange(0, BLOCK_Q)
        products = tl.zeros((BLOCK_Q, BLOCK_K), tl.float32)
        for first in range(0, hidden, BLOCK_K):
            wide = first + tl.arange(0, BLOCK_K)
            mean = tl.load(means + image * hidden + wide, mask=wide < hidden, other=0.0)
            mask = (narrow < squeezed)[:, None] & (wide < hidden)[None, :]
            block = tl.load(squeeze + narrow[:, None] * hidden + wide[None, :], mask=mask, other=0.0)
            products += block.to(tl.float32) * mean[None, :]
        value = tl.sum(products, axis=1)
        value *= tl.sigmoid(value)
        mask = (mine < hidden)[:, None] & (narrow < squeezed)[None, :]
        block = tl.load(excite + mine[:, None] * squeezed + narrow[None, :], mask=mask, other=0.0)
        gates += tl.sum(block.to(tl.float32) * value[None, :], axis=1)
    gates = tl.sigmoid(gates)
    for start in range(0, outputs, BLOCK_Q):
        leaving = start + tl.arange(0, BLOCK_Q)
        place = leaving[:, None] * hidden + mine[None, :]
        mask = (leaving < outputs)[:, None] & (mine < hidden)[None, :]
        value = tl.load(weight + place, mask=mask, other=0.0).to(tl.float32) * gates[None, :]
        tl.store(out + image * outputs * hidden + place, value.to(out.dtype.element_ty), mask=mask)

"""See :mod:`..norms`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started


@Started
@triton.jit(do_not_specialize=["positions", "chunk"])
def partials_kernel(
    x, partials, positions, channels, x_batch, x_stride, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Of each channel over a chunk of positions: the mean, and the sum of the squares of the differences from it."""
    index, batch = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < channels
    start = index * chunk
    stop = tl.minimum(start + chunk, positions)
    count = (stop - start).to(tl.float32)
    source = x + batch.to(tl.int64) * x_batch
    place = start + tl.arange(0, BLOCK_P)
    mask = (place < stop)[:, None] & there[None, :]
    first = tl.load(source + place.to(tl.int64)[:, None] * x_stride + channel[None, :], mask=mask, other=0.0)
    # Differences from the mean of the first positions, which is near enough that nothing cancels.
    near = tl.sum(first.to(tl.float32), axis=0) / tl.minimum(count, BLOCK_P)
    sums = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], dtype=tl.float32)
    for begin in range(start, stop, BLOCK_P):
        place = begin + tl.arange(0, BLOCK_P)
        mask = (place < stop)[:, None] & there[None, :]
        value = tl.load(source + place.to(tl.int64)[:, None] * x_stride + channel[None, :], mask=mask, other=0.0)
        centred = tl.where(mask, value.to(tl.float32) - near[None, :], 0.0)
        sums += centred
        squares += centred * centred
    total = tl.sum(sums, axis=0)
    offset = total / count
    spread = tl.maximum(tl.sum(squares, axis=0) - total * offset, 0.0)
    batches, parts = tl.num_programs(1), tl.num_programs(0)
    target = partials + (batch * parts + index) * channels + channel
    tl.store(target, near + offset, mask=there)
    tl.store(target + batches * parts * channels, spread, mask=there)


@Started
@triton.jit(do_not_specialize=["parts", "positions", "per_group", "chunk"])
def merge_kernel(
    partials, bias, weight, beta, first, second, parts, positions, channels, per_group, chunk, eps,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The moments of a group of channels from those of its chunks (Chan, Golub and LeVeque 1983). With weights the norm
    by them as a scale and a shift of each channel, else mean and variance, where the groups are single channels."""
    group, batch = tl.program_id(0), tl.program_id(1)
    inner = tl.arange(0, BLOCK_C)
    there = inner < per_group
    channel = group * per_group + inner
    mean = tl.zeros([BLOCK_N, BLOCK_C], dtype=tl.float32)
    spread = tl.zeros([BLOCK_N, BLOCK_C], dtype=tl.float32)
    count = tl.zeros([BLOCK_N], dtype=tl.float32)
    for begin in range(0, parts, BLOCK_N):
        index = begin + tl.arange(0, BLOCK_N)
        mask = (index < parts)[:, None] & there[None, :]
        source = partials + (batch * parts + index)[:, None] * channels + channel[None, :]
        their_mean = tl.load(source, mask=mask, other=0.0)
        their_spread = tl.load(source + tl.num_programs(1) * parts * channels, mask=mask, other=0.0)
        their_count = tl.minimum(tl.maximum(positions - index * chunk, 0), chunk).to(tl.float32)
        together = count + their_count
        share = tl.where(their_count > 0, their_count / tl.maximum(together, 1.0), 0.0)
        difference = their_mean - mean
        mean += difference * share[:, None]
        spread += their_spread + difference * difference * (count * share)[:, None]
        count = together
    if bias is not None:
        mean += tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)[None, :]
    mask = (count > 0)[:, None] & there[None, :]
    mean = tl.where(mask, mean, 0.0)
    group_mean = tl.sum(mean * (count / positions)[:, None]) / per_group
    between = tl.where(mask, mean - group_mean, 0.0)
    spread += between * between * count[:, None]
    variance = tl.sum(spread / positions) / per_group
    target = batch * channels + channel
    if weight is None:
        tl.store(first + target, tl.where(there, group_mean, 0.0), mask=there)
        tl.store(second + target, tl.where(there, variance, 0.0), mask=there)
    else:
        scale = tl.load(weight + channel, mask=there, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
        shift = tl.load(beta + channel, mask=there, other=0.0).to(tl.float32) - group_mean * scale
        if bias is not None:
            shift += tl.load(bias + channel, mask=there, other=0.0).to(tl.float32) * scale
        tl.store(first + target, scale, mask=there)
        tl.store(second + target, shift, mask=there)


@triton.jit
def activated(value, ACTIVATION: tl.constexpr):
    if ACTIVATION == 1:
        value = value / (1.0 + tl.exp(-value))
    elif ACTIVATION == 2:
        value = tl.where(value < 0.0, 0.0, value)
    return value


@Started
@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "per_row"])
def scale_kernel(
    x, scale, shift, out, height, width, out_height, out_width, channels, x_batch, x_stride, out_batch, out_stride,
    per_row,
    ACTIVATION: tl.constexpr, PADDED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Positions of the result; those past the map are zero."""
    frame = tl.program_id(1)
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    there = channel < channels
    written = (place < out_height * out_width)[:, None] & there[None, :]
    source = place
    mask = written
    if PADDED:
        row, column = place // out_width, place % out_width
        source = row * width + column
        mask = written & ((row < height) & (column < width))[:, None]
    begin = x + frame.to(tl.int64) * x_batch
    value = tl.load(begin + source.to(tl.int64)[:, None] * x_stride + channel[None, :], mask=mask, other=0.0)
    factor = tl.load(scale + (frame // per_row) * channels + channel, mask=there, other=0.0)
    offset = tl.load(shift + (frame // per_row) * channels + channel, mask=there, other=0.0)
    value = activated(value.to(tl.float32) * factor[None, :] + offset[None, :], ACTIVATION)
    if PADDED:
        value = tl.where(mask, value, 0.0)
    target = out + frame.to(tl.int64) * out_batch
    target += place.to(tl.int64)[:, None] * out_stride + channel[None, :]
    tl.store(target, value.to(out.dtype.element_ty), mask=written)


@Started
@triton.jit(do_not_specialize=["positions", "frames", "per_row"])
def stack_kernel(
    x, scale, shift, out, positions, channels, frames, x_stride, per_row,
    ACTIVATION: tl.constexpr, MERGED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A frame's own channels and its neighbours', or those of a clip's three frames, side by side."""
    frame, tap = tl.program_id(1), tl.program_id(2)
    place = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int64)
    channel = tl.arange(0, BLOCK_C)
    there = channel < channels
    mask = (place < positions)[:, None] & there[None, :]
    if MERGED:
        source, end = frame * frames + tap, positions
    else:
        own = frame % frames + tap - 1
        end = tl.where(own < 0, 0, tl.where(own < frames, positions, 0))
        source = tl.where(end > 0, frame + tap - 1, frame)
    seen = (place < end)[:, None] & there[None, :]
    begin = x + source.to(tl.int64) * positions * x_stride
    value = tl.load(begin + place[:, None] * x_stride + channel[None, :], mask=seen, other=0.0).to(tl.float32)
    if scale is not None:
        factor = tl.load(scale + (source // per_row) * channels + channel, mask=there, other=0.0)
        offset = tl.load(shift + (source // per_row) * channels + channel, mask=there, other=0.0)
        value = activated(value * factor[None, :] + offset[None, :], ACTIVATION)
        value = tl.where(seen, value, 0.0)
    target = out + frame.to(tl.int64) * positions * 3 * channels
    target += place[:, None] * 3 * channels + tap * channels + channel[None, :]
    tl.store(target, value.to(out.dtype.element_ty), mask=mask)

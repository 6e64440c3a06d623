"""See :mod:`..images`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started
from .sampling import sampled_by_grid


@triton.jit
def _side_by_side(c0, c1, c2, c3, c4, c5, c6, c7):
    """Eight channels (P,) -> (P, 8)."""
    even = tl.join(tl.join(c0, c4), tl.join(c2, c6))
    odd = tl.join(tl.join(c1, c5), tl.join(c3, c7))
    return tl.reshape(tl.join(even, odd), (c0.shape[0], 8))


@triton.jit
def _grey(image, pixel, area, there, red, green, blue):
    r = tl.load(image + pixel, mask=there, other=0.0)
    g = tl.load(image + area + pixel, mask=there, other=0.0)
    b = tl.load(image + 2 * area + pixel, mask=there, other=0.0)
    return red * r + green * g + blue * b


@triton.jit
def _along_time(image0, image1, row, column, height, width, red, green, blue, middle, tap):
    """Low and high bands of the two times at a pixel of the clip; past its ends they are zero."""
    there = (row >= 0) & (row < height) & (column < width)
    pixel, area = row * width + column, height * width
    grey0 = _grey(image0, pixel, area, there, red, green, blue)
    grey1 = _grey(image1, pixel, area, there, red, green, blue)
    low0 = tl.where(there, (grey0 + middle) * tap, 0.0)
    low1 = tl.where(there, (middle + grey1) * tap, 0.0)
    high0 = tl.where(there, (middle - grey0) * tap, 0.0)
    high1 = tl.where(there, (grey1 - middle) * tap, 0.0)
    return low0, low1, high0, high1


@triton.jit
def _in_space(here, right, below, diagonal, tap):
    """The bands LL, LH, HL, HH of a pixel and its next neighbours."""
    low, low_right = (here + below) * tap, (right + diagonal) * tap
    high, high_right = (below - here) * tap, (diagonal - right) * tap
    return (low + low_right) * tap, (low_right - low) * tap, (high + high_right) * tap, (high_right - high) * tap


@triton.jit
def _lowest(here, right, below, diagonal, tap):
    """The band LL alone."""
    return ((here + below) * tap + (right + diagonal) * tap) * tap


@Started
@triton.jit
def bands_kernel(
    image0, image1, out, first, rows, height, width, red, green, blue, middle, tap, BLOCK: tl.constexpr
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, x = first + place // width, place % width
    there = (row >= 0) & (row < height)
    image0 += batch * 3 * height * width
    image1 += batch * 3 * height * width
    # Low and high bands along time at 3 x 3 pixels: row and column in the names.
    a00, b00, h00, i00 = _along_time(image0, image1, row, x, height, width, red, green, blue, middle, tap)
    a01, b01, h01, i01 = _along_time(image0, image1, row, x + 1, height, width, red, green, blue, middle, tap)
    a02, b02, _, _ = _along_time(image0, image1, row, x + 2, height, width, red, green, blue, middle, tap)
    a10, b10, h10, i10 = _along_time(image0, image1, row + 1, x, height, width, red, green, blue, middle, tap)
    a11, b11, h11, i11 = _along_time(image0, image1, row + 1, x + 1, height, width, red, green, blue, middle, tap)
    a12, b12, _, _ = _along_time(image0, image1, row + 1, x + 2, height, width, red, green, blue, middle, tap)
    a20, b20, _, _ = _along_time(image0, image1, row + 2, x, height, width, red, green, blue, middle, tap)
    a21, b21, _, _ = _along_time(image0, image1, row + 2, x + 1, height, width, red, green, blue, middle, tap)
    a22, b22, _, _ = _along_time(image0, image1, row + 2, x + 2, height, width, red, green, blue, middle, tap)
    # The first pass, at both times.
    p00, c0, c2, c4 = _in_space(a00, a01, a10, a11, tap)
    q00, c1, c3, c5 = _in_space(b00, b01, b10, b11, tap)
    c6, c8, c10, c12 = _in_space(h00, h01, h10, h11, tap)
    c7, c9, c11, c13 = _in_space(i00, i01, i10, i11, tap)
    # The second, of the lowest band.
    p01, q01 = _lowest(a01, a02, a11, a12, tap), _lowest(b01, b02, b11, b12, tap)
    p10, q10 = _lowest(a10, a11, a20, a21, tap), _lowest(b10, b11, b20, b21, tap)
    p11, q11 = _lowest(a11, a12, a21, a22, tap), _lowest(b11, b12, b21, b22, tap)
    _, c14, c15, c16 = _in_space((p00 + q00) * tap, (p01 + q01) * tap, (p10 + q10) * tap, (p11 + q11) * tap, tap)
    c17, c18, c19, c20 = _in_space((q00 - p00) * tap, (q01 - p01) * tap, (q10 - p10) * tap, (q11 - p11) * tap, tap)
    one, nothing = tl.where(there, 1.0, 0.0), tl.zeros_like(c0)
    dtype = out.dtype.element_ty
    spot = (batch * rows * width + place)[:, None] * 24 + tl.arange(0, 8)[None, :]
    mask = (place < rows * width)[:, None]
    kept = there[:, None]
    chunk = tl.where(kept, _side_by_side(c0, c1, c2, c3, c4, c5, c6, c7), 0.0)
    tl.store(out + spot, chunk.to(dtype), mask=mask)
    chunk = tl.where(kept, _side_by_side(c8, c9, c10, c11, c12, c13, c14, c15), 0.0)
    tl.store(out + spot + 8, chunk.to(dtype), mask=mask)
    chunk = tl.where(kept, _side_by_side(c16, c17, c18, c19, c20, one, nothing, nothing), 0.0)
    tl.store(out + spot + 16, chunk.to(dtype), mask=mask)


@triton.jit
def _warped(image, x, y, height, width, mask):
    """Three channels of an image sampled bilinearly at pixels."""
    left, top = tl.floor(x), tl.floor(y)
    # By what is left to the next pixel, as the sampler takes the weights.
    east, south = x - left, y - top
    west, north = left + 1.0 - x, top + 1.0 - y
    column, row = left.to(tl.int32), top.to(tl.int32)
    west_there, east_there = (column >= 0) & (column < width) & mask, (column + 1 < width) & (column >= -1) & mask
    north_there, south_there = (row >= 0) & (row < height), (row + 1 < height) & (row >= -1)
    pixel, area = row * width + column, height * width
    nw, ne, sw, se = west * north, east * north, west * south, east * south
    nw_there, ne_there = west_there & north_there, east_there & north_there
    sw_there, se_there = west_there & south_there, east_there & south_there
    value0 = tl.load(image + pixel, mask=nw_there, other=0.0) * nw
    value1 = tl.load(image + area + pixel, mask=nw_there, other=0.0) * nw
    value2 = tl.load(image + 2 * area + pixel, mask=nw_there, other=0.0) * nw
    value0 += tl.load(image + pixel + 1, mask=ne_there, other=0.0) * ne
    value1 += tl.load(image + area + pixel + 1, mask=ne_there, other=0.0) * ne
    value2 += tl.load(image + 2 * area + pixel + 1, mask=ne_there, other=0.0) * ne
    value0 += tl.load(image + pixel + width, mask=sw_there, other=0.0) * sw
    value1 += tl.load(image + area + pixel + width, mask=sw_there, other=0.0) * sw
    value2 += tl.load(image + 2 * area + pixel + width, mask=sw_there, other=0.0) * sw
    value0 += tl.load(image + pixel + width + 1, mask=se_there, other=0.0) * se
    value1 += tl.load(image + area + pixel + width + 1, mask=se_there, other=0.0) * se
    value2 += tl.load(image + 2 * area + pixel + width + 1, mask=se_there, other=0.0) * se
    return value0, value1, value2


@triton.jit
def _blended(first, last, share, gate, scale, shift):
    """Of one channel: the blend, the residual, and the range."""
    difference = first - last
    value = tl.where(share < 0.5, last + share * difference, first - difference * (1.0 - share))
    value += 2.0 * gate - 1.0
    # Not by `minimum` and `maximum`, which make a number of NaN.
    return tl.where(value < 0.0, 0.0, tl.where(value > 1.0, 1.0, value)) * scale + shift


@Started
@triton.jit
def new_frame_kernel(
    head, bias, image0, image1, flow, base_x, base_y, out, top, rows, height, width, head_batch, head_stride,
    far_x, last_x, far_y, last_y, scale, shift, BLOCK: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < rows * width
    row, column = top + place // width, place % width
    pixel, area = row * width + column, height * width
    flow += batch * 4 * area
    image0 += batch * 3 * area
    image1 += batch * 3 * area
    at_x, at_y = tl.load(base_x + column), tl.load(base_y + row, mask=mask, other=0.0)
    dx = tl.load(flow + pixel, mask=mask, other=0.0)
    dy = tl.load(flow + area + pixel, mask=mask, other=0.0)
    x, y = sampled_by_grid(dx, at_x, far_x, last_x), sampled_by_grid(dy, at_y, far_y, last_y)
    r0, g0, b0 = _warped(image0, x, y, height, width, mask)
    dx = tl.load(flow + 2 * area + pixel, mask=mask, other=0.0)
    dy = tl.load(flow + 3 * area + pixel, mask=mask, other=0.0)
    x, y = sampled_by_grid(dx, at_x, far_x, last_x), sampled_by_grid(dy, at_y, far_y, last_y)
    r1, g1, b1 = _warped(image1, x, y, height, width, mask)
    head += batch * head_batch + place.to(tl.int64) * head_stride
    red = tl.sigmoid(tl.load(head, mask=mask, other=0.0).to(tl.float32) + tl.load(bias).to(tl.float32))
    green = tl.sigmoid(tl.load(head + 1, mask=mask, other=0.0).to(tl.float32) + tl.load(bias + 1).to(tl.float32))
    blue = tl.sigmoid(tl.load(head + 2, mask=mask, other=0.0).to(tl.float32) + tl.load(bias + 2).to(tl.float32))
    share = tl.sigmoid(tl.load(head + 3, mask=mask, other=0.0).to(tl.float32) + tl.load(bias + 3).to(tl.float32))
    out += batch * 3 * rows * width + place
    tl.store(out, _blended(r0, r1, share, red, scale, shift), mask=mask)
    tl.store(out + rows * width, _blended(g0, g1, share, green, scale, shift), mask=mask)
    tl.store(out + 2 * rows * width, _blended(b0, b1, share, blue, scale, shift), mask=mask)


@triton.jit
def _between(x, first, here, right, below, diagonal, across, down, mask):
    """Bilinear interpolation between four pixels of a plane."""
    upper = (1.0 - across) * tl.load(x + first + here, mask=mask, other=0.0).to(tl.float32)
    upper += across * tl.load(x + first + right, mask=mask, other=0.0).to(tl.float32)
    lower = (1.0 - across) * tl.load(x + first + below, mask=mask, other=0.0).to(tl.float32)
    lower += across * tl.load(x + first + diagonal, mask=mask, other=0.0).to(tl.float32)
    return (1.0 - down) * upper + down * lower


@triton.jit
def _source(place, scale, size):
    """Where a resized side reads: the pixel at or before, the one after, and the share of the latter."""
    source = tl.maximum(scale * (place.to(tl.float32) + 0.5) - 0.5, 0.0)
    low = tl.minimum(source.to(tl.int32), size - 1)
    return low, tl.minimum(low + 1, size - 1), source - low.to(tl.float32)


@Started
@triton.jit
def resized_kernel(
    x, bias, other, out, channels, height, width, out_height, out_width, x_batch, x_channel, x_row, x_column,
    step_y, step_x, even, odd, shift, BLOCK: tl.constexpr,
):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    channel = plane % channels
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < out_height * out_width
    top, bottom, down = _source(place // out_width, step_y, height)
    left, right, across = _source(place % out_width, step_x, width)
    x += plane // channels * x_batch + channel * x_channel
    top, bottom = top.to(tl.int64) * x_row, bottom.to(tl.int64) * x_row
    left, right = left * x_column, right * x_column
    value = _between(x, 0, top + left, top + right, bottom + left, bottom + right, across, down, mask)
    if bias is not None:
        value += tl.load(bias + channel).to(tl.float32)
    value = value * tl.where(channel % 2 == 0, even, odd) + shift
    spot = plane * out_height * out_width + place
    if other is not None:
        value += tl.load(other + spot, mask=mask, other=0.0)
    tl.store(out + spot, value, mask=mask)


@triton.jit
def _seen(
    image0, image1, flow, base_x, base_y, row, column, height, width, far_x, last_x, far_y, last_y,
    mask,
):  # fmt: skip
    """The ten channels of the coarse flow's input at a pixel of the frames."""
    area = height * width
    if flow is None:
        pixel = row * width + column
        r0 = tl.load(image0 + pixel, mask=mask, other=0.0)
        g0 = tl.load(image0 + area + pixel, mask=mask, other=0.0)
        b0 = tl.load(image0 + 2 * area + pixel, mask=mask, other=0.0)
        r1 = tl.load(image1 + pixel, mask=mask, other=0.0)
        g1 = tl.load(image1 + area + pixel, mask=mask, other=0.0)
        b1 = tl.load(image1 + 2 * area + pixel, mask=mask, other=0.0)
        dx0, dy0, dx1, dy1 = tl.zeros_like(r0), tl.zeros_like(r0), tl.zeros_like(r0), tl.zeros_like(r0)
    else:
        small = width // 2
        plane = height // 2 * small
        top, bottom, down = _source(row, 0.5, height // 2)
        left, right, across = _source(column, 0.5, small)
        a, b, c, d = top * small + left, top * small + right, bottom * small + left, bottom * small + right
        dx0 = _between(flow, 0, a, b, c, d, across, down, mask) * 2.0
        dy0 = _between(flow, plane, a, b, c, d, across, down, mask) * 2.0
        dx1 = _between(flow, 2 * plane, a, b, c, d, across, down, mask) * 2.0
        dy1 = _between(flow, 3 * plane, a, b, c, d, across, down, mask) * 2.0
        at_x, at_y = tl.load(base_x + column, mask=mask, other=0.0), tl.load(base_y + row, mask=mask, other=0.0)
        x = sampled_by_grid(dx0, at_x, far_x, last_x)
        y = sampled_by_grid(dy0, at_y, far_y, last_y)
        r0, g0, b0 = _warped(image0, x, y, height, width, mask)
        x = sampled_by_grid(dx1, at_x, far_x, last_x)
        y = sampled_by_grid(dy1, at_y, far_y, last_y)
        r1, g1, b1 = _warped(image1, x, y, height, width, mask)
    return r0, g0, b0, r1, g1, b1, dx0, dy0, dx1, dy1


@triton.jit
def _mean(values):
    """Of each row of four."""
    return tl.sum(values, axis=1) * 0.25


@Started
@triton.jit
def coarse_input_kernel(
    image0, image1, flow, base_x, base_y, out, height, width, out_height, out_width,
    far_x, last_x, far_y, last_y, SHRINK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < out_height * out_width
    row, column, seen = place // out_width * SHRINK, place % out_width * SHRINK, mask
    if SHRINK > 1:
        # A pixel is the mean of the four in the middle of those that it stands for.
        corner = tl.arange(0, 4)[None, :]
        row = row[:, None] + (SHRINK // 2 - 1 + corner // 2)
        column = column[:, None] + (SHRINK // 2 - 1 + corner % 2)
        seen = mask[:, None] & (corner < 4)
    image0 += batch * 3 * height * width
    image1 += batch * 3 * height * width
    if flow is not None:
        flow += batch * height * width
    r0, g0, b0, r1, g1, b1, dx0, dy0, dx1, dy1 = _seen(
        image0, image1, flow, base_x, base_y, row, column, height, width,
        far_x, last_x, far_y, last_y, seen,
    )  # fmt: skip
    if SHRINK > 1:
        r0, g0, b0, r1, g1, b1 = _mean(r0), _mean(g0), _mean(b0), _mean(r1), _mean(g1), _mean(b1)
        if flow is not None:
            dx0, dy0, dx1, dy1 = _mean(dx0), _mean(dy0), _mean(dx1), _mean(dy1)
    nothing = tl.zeros_like(r0)
    dtype = out.dtype.element_ty
    stored = mask[:, None]
    spot = batch * out_height * out_width + place
    if flow is None:
        out += spot[:, None] * 8 + tl.arange(0, 8)[None, :]
        tl.store(out, _side_by_side(r0, g0, b0, r1, g1, b1, nothing, nothing).to(dtype), mask=stored)
    else:
        out += spot[:, None] * 16 + tl.arange(0, 8)[None, :]
        tl.store(out, _side_by_side(r0, g0, b0, r1, g1, b1, dx0, dy0).to(dtype), mask=stored)
        rest = _side_by_side(dx1, dy1, nothing, nothing, nothing, nothing, nothing, nothing)
        tl.store(out + 8, rest.to(dtype), mask=stored)

"""Where a flow leads, and what lies there: positions along a flow, and bilinear samples of a channels-last map.

Launch what calls these with ``enable_fp_fusion=False``: positions must round as :mod:`....modules.warp` rounds them,
and a product and a sum are two roundings. Of a side, `far` is the last place and `last` the greatest float below it
(:func:`..positions.ends`).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def position_along(offset, base, far, last):
    """The position along one side that an offset leads to from a place, whose base is in [-1, 1]."""
    half = tl.maximum(far * 0.5, 0.25)  # where there is one place, nothing but the clamping counts
    position = (base + tl.div_rn(offset, half) + 1.0) * half
    position = tl.minimum(tl.maximum(position, 0.0), far)
    return tl.where(position >= last, far, position)


@triton.jit
def sampled_by_grid(offset, base, far, last):
    """:func:`position_along` as `grid_sample` reads it: from pixels to the sampler's coordinates, and back by it. The
    side has two places at least."""
    normalised = tl.div_rn(position_along(offset, base, far, last), far * 0.5) - 1.0
    return (normalised + 1.0) * 0.5 * far


@triton.jit
def along(offset, base, far, last):
    """The place at or before a position along one side, and the share of the way to the next."""
    position = position_along(offset, base, far, last)
    low = tl.floor(position)
    return low.to(tl.int32), position - low


@triton.jit
def looked_at(
    flow, image_stride, axis_stride, row_stride, column_stride, base_x, base_y, far_x, last_x, far_y, last_y,
    place, there, rows, top, width,
):  # fmt: skip
    """For places of a flow (B, 2, rows, width), from its row `top`, counted row by row: which image of the batch each
    is in, its offset, and place and share along both sides (:func:`along`)."""
    column, line = place % width, place // width
    row, image = line % rows, (line // rows).to(tl.int64)
    own = flow + image * image_stride + row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
    dx = tl.load(own, mask=there, other=0.0)
    dy = tl.load(own + axis_stride, mask=there, other=0.0)
    left, across = along(dx, tl.load(base_x + column, mask=there, other=0.0), far_x, last_x)
    above, down = along(dy, tl.load(base_y + top + row, mask=there, other=0.0), far_y, last_y)
    return image, dx, dy, left, above, across, down


@triton.jit
def tap(x, image, left, above, there, channel, height, width, CHANNELS: tl.constexpr):
    """Values (places, channels) in float32 of a map (B, height, width, CHANNELS); what lies outside reads zero."""
    inside = there & (left >= 0) & (left < width) & (above >= 0) & (above < height)
    place = (image * height + above) * width + left
    mask = inside[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(x + place[:, None] * CHANNELS + channel[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def sample(x, image, left, above, across, down, there, channel, height, width, CHANNELS: tl.constexpr):
    """Bilinear samples (places, channels), float32."""
    a = tap(x, image, left, above, there, channel, height, width, CHANNELS)
    b = tap(x, image, left + 1, above, there, channel, height, width, CHANNELS)
    c = tap(x, image, left, above + 1, there, channel, height, width, CHANNELS)
    d = tap(x, image, left + 1, above + 1, there, channel, height, width, CHANNELS)
    upper = a * (1.0 - across)[:, None] + b * across[:, None]
    lower = c * (1.0 - across)[:, None] + d * across[:, None]
    return upper * (1.0 - down)[:, None] + lower * down[:, None]

"""See :mod:`..denoiser`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started


@triton.jit
def _over_groups(values, BLOCK_C: tl.constexpr, MEMBERS: tl.constexpr):
    """The sums of values (BLOCK_C,) over each group, for each of its members."""
    if MEMBERS == 1:
        return values
    sums = tl.sum(tl.reshape(values, (BLOCK_C // MEMBERS, MEMBERS)), axis=1)
    return tl.reshape(tl.broadcast_to(sums[:, None], (BLOCK_C // MEMBERS, MEMBERS)), (BLOCK_C,))


@triton.jit
def _affine(
    moments, weight, bias, embedding, channel, there, parts, frame_parts, part_positions, positions, offset, eps,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, MEMBERS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """What a norm multiplies a map's channels by and adds to them. Moments: (parts, 2, CHANNELS) of one clip."""
    elements = (FRAMES * positions * MEMBERS).to(tl.float32)
    mean = tl.zeros((BLOCK_C,), tl.float32)
    for begin in range(0, parts, PARTS):
        part = begin + tl.arange(0, PARTS)
        count = tl.minimum(part_positions, positions - part % frame_parts * part_positions).to(tl.float32)
        place = moments + part[:, None] * (2 * CHANNELS) + channel[None, :]
        means = tl.load(place, mask=(part < parts)[:, None] & there[None, :], other=0.0)
        mean += tl.sum(count[:, None] * means, axis=0)
    mean = _over_groups(mean, BLOCK_C, MEMBERS) / elements
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for begin in range(0, parts, PARTS):
        part = begin + tl.arange(0, PARTS)
        count = tl.minimum(part_positions, positions - part % frame_parts * part_positions).to(tl.float32)
        place = moments + part[:, None] * (2 * CHANNELS) + channel[None, :]
        mask = (part < parts)[:, None] & there[None, :]
        apart = tl.load(place, mask=mask, other=0.0) - mean[None, :]
        inner = tl.load(place + CHANNELS, mask=mask, other=0.0)
        squares += tl.sum(tl.where(mask, inner + count[:, None] * apart * apart, 0.0), axis=0)
    squares = _over_groups(squares, BLOCK_C, MEMBERS)
    scale = tl.load(weight + offset + channel, mask=there, other=0.0) / tl.sqrt(squares / elements + eps)
    shift = tl.load(bias + offset + channel, mask=there, other=0.0) - mean * scale
    if embedding is not None:  # scales, then shifts
        factor = 1.0 + tl.load(embedding + channel, mask=there, other=0.0)
        scale = scale * factor
        shift = shift * factor + tl.load(embedding + CHANNELS + channel, mask=there, other=0.0)
    return scale, shift


@triton.jit
def _active(value, scale, shift, NORM: tl.constexpr, SILU: tl.constexpr):
    if NORM:
        value = value * scale[None, :] + shift[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    return value


@triton.jit
def _products(
    accumulated, source, other, weight, scale, shift, batch, frame, y, x, here, n, wanted,
    height, width, up, begin, end, weight_out, weight_in, weight_t, weight_y, weight_x, offset,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, TAPS: tl.constexpr,
    NORM: tl.constexpr, SILU: tl.constexpr, POOL: tl.constexpr, PLANES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds to (positions, n) what the taps from `begin` to `end` of a 3x3x3 kernel give, TAPS at a time.

    The source's channels are the weight's from `offset` on. The source is twice as wide and high where POOL, and half
    where `up` is 1. PLANES: half of the channels are those of `other`, and maps are (B, C, T, h, w).
    """
    column = tl.arange(0, TAPS * BLOCK_C)
    channel = column % BLOCK_C
    for first in range(begin, end, TAPS):
        tap = first + column // BLOCK_C
        there = (tap < end) & (channel < CHANNELS)
        tap_t, tap_y, tap_x = tap // 9, tap // 3 % 3, tap % 3
        row = y[:, None] + (tap_y - 1)[None, :]
        place = x[:, None] + (tap_x - 1)[None, :]
        inside = here[:, None] & there[None, :] & (row >= 0) & (row < height) & (place >= 0) & (place < width)
        moment = frame + tap_t - 1
        if PLANES:
            half = CHANNELS // 2
            plane = (batch * half + channel % half) * FRAMES + moment
            index = (plane[None, :] * height + row) * width + place
            value = tl.load(source + index, mask=inside & (channel < half)[None, :], other=0.0)
            value += tl.load(other + index, mask=inside & (channel >= half)[None, :], other=0.0)
        elif POOL:
            start = (batch * FRAMES + moment) * (4 * height * width)
            value = tl.zeros_like(row).to(tl.float32)
            for corner in tl.static_range(4):
                index = (2 * row + corner // 2) * (2 * width) + 2 * place + corner % 2
                address = source + (start[None, :] + index) * CHANNELS + channel[None, :]
                value += _active(tl.load(address, mask=inside, other=0.0), scale, shift, NORM, SILU)
            value = value * 0.25
        else:
            start = (batch * FRAMES + moment) * (height >> up)
            index = (start[None, :] + (row >> up)) * (width >> up) + (place >> up)
            value = tl.load(source + index * CHANNELS + channel[None, :], mask=inside, other=0.0)
            value = _active(value, scale, shift, NORM, SILU)
        value = tl.where(inside, value, 0.0)
        line = (offset + channel) * weight_in + tap_t * weight_t + tap_y * weight_y + tap_x * weight_x
        factors = tl.load(
            weight + line[:, None] + n[None, :] * weight_out, mask=there[:, None] & wanted[None, :], other=0.0
        )
        accumulated = tl.dot(value, factors, accumulated, input_precision=PRECISION)
    return accumulated


@triton.jit
def _resampled(
    source, batch, frame, y, x, n, mask, height, width, up,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """A map at some positions, its 2x2 means where POOL, or each of its positions four times where `up` is 1."""
    if POOL:
        start = (batch * FRAMES + frame) * (4 * height * width)
        value = tl.zeros_like(mask).to(tl.float32)
        for corner in tl.static_range(4):
            index = start + (2 * y + corner // 2) * (2 * width) + 2 * x + corner % 2
            value += tl.load(source + index[:, None] * CHANNELS + n[None, :], mask=mask, other=0.0)
        value = value * 0.25
    else:
        index = ((batch * FRAMES + frame) * (height >> up) + (y >> up)) * (width >> up) + (x >> up)
        value = tl.load(source + index[:, None] * CHANNELS + n[None, :], mask=mask, other=0.0)
    return value


@triton.jit
def _keep_moments(moments, value, here, n, wanted, CHANNELS: tl.constexpr):
    """Mean and sum of squared distances from it, of each channel at a program's positions: (2, CHANNELS)."""
    count = tl.sum(here.to(tl.float32), axis=0)
    mean = tl.sum(tl.where(here[:, None], value, 0.0), axis=0) / count
    apart = tl.where(here[:, None], value - mean[None, :], 0.0)
    tl.store(moments + n, mean, mask=wanted)
    tl.store(moments + CHANNELS + n, tl.sum(apart * apart, axis=0), mask=wanted)


@Started
@triton.jit(
    do_not_specialize=[
        "height", "width", "up", "residual_up", "first_parts", "first_part_positions", "first_frame_parts",
        "second_parts", "second_part_positions", "second_frame_parts", "source_positions",
        "a", "b", "c", "d", "m", "e",
    ]
)  # fmt: skip
def conv_kernel(
    first, first_moments, second, second_moments, weight, bias, norm_weight, norm_bias, embedding,
    residual, residual_second, skip_weight, skip_bias, out, moments, state, condition, noise,
    height, width, up, residual_up,
    first_parts, first_frame_parts, first_part_positions, second_parts, second_frame_parts, second_part_positions,
    source_positions, eps, weight_out, weight_in, weight_t, weight_y, weight_x, skip_out, skip_in,
    a, b, c, d, m, e,
    FRAMES: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, OUT: tl.constexpr,
    RESIDUAL: tl.constexpr, RESIDUAL_SECOND: tl.constexpr, MEMBERS: tl.constexpr,
    SILU: tl.constexpr, POOL: tl.constexpr, RESIDUAL_POOL: tl.constexpr, PLANES: tl.constexpr, POINTWISE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_FIRST: tl.constexpr, BLOCK_SECOND: tl.constexpr,
    BLOCK_RESIDUAL: tl.constexpr, BLOCK_RESIDUAL_SECOND: tl.constexpr, TAPS: tl.constexpr, PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    positions = height * width
    blocks = (positions + BLOCK_P - 1) // BLOCK_P  # of a frame
    part = tl.program_id(0)
    batch = tl.program_id(1)
    frame = part // blocks
    place = part % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    here = place < positions
    y, x = place // width, place % width
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = n < OUT
    mask = here[:, None] & wanted[None, :]

    NORM: tl.constexpr = norm_weight is not None
    if POINTWISE:
        begin, end = 13, 14
    else:
        begin = tl.where(frame == 0, 9, 0)
        end = tl.where(frame == FRAMES - 1, 18, 27)
    value = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    channel = tl.arange(0, BLOCK_FIRST)
    scale = channel
    shift = channel
    if NORM:
        scale, shift = _affine(
            first_moments + batch * first_parts * (2 * FIRST), norm_weight, norm_bias, embedding,
            channel, channel < FIRST, first_parts, first_frame_parts, first_part_positions, source_positions, 0, eps,
            FRAMES, FIRST, BLOCK_FIRST, MEMBERS, PARTS,
        )  # fmt: skip
        scale = tl.reshape(tl.broadcast_to(scale[None, :], (TAPS, BLOCK_FIRST)), (TAPS * BLOCK_FIRST,))
        shift = tl.reshape(tl.broadcast_to(shift[None, :], (TAPS, BLOCK_FIRST)), (TAPS * BLOCK_FIRST,))
    value = _products(
        value, first, second, weight, scale, shift, batch, frame, y, x, here, n, wanted, height, width, up, begin, end,
        weight_out, weight_in, weight_t, weight_y, weight_x, 0,
        FRAMES, FIRST, BLOCK_FIRST, TAPS, NORM, SILU, POOL, PLANES, PRECISION,
    )  # fmt: skip
    if SECOND > 0:
        channel2 = tl.arange(0, BLOCK_SECOND)
        scale2 = channel2
        shift2 = channel2
        if NORM:
            scale2, shift2 = _affine(
                second_moments + batch * second_parts * (2 * SECOND), norm_weight, norm_bias, None,
                channel2, channel2 < SECOND, second_parts, second_frame_parts, second_part_positions,
                source_positions, FIRST, eps, FRAMES, SECOND, BLOCK_SECOND, MEMBERS, PARTS,
            )  # fmt: skip
            scale2 = tl.reshape(tl.broadcast_to(scale2[None, :], (TAPS, BLOCK_SECOND)), (TAPS * BLOCK_SECOND,))
            shift2 = tl.reshape(tl.broadcast_to(shift2[None, :], (TAPS, BLOCK_SECOND)), (TAPS * BLOCK_SECOND,))
        value = _products(
            value, second, None, weight, scale2, shift2, batch, frame, y, x, here, n, wanted,
            height, width, up, begin, end, weight_out, weight_in, weight_t, weight_y, weight_x, FIRST,
            FRAMES, SECOND, BLOCK_SECOND, TAPS, NORM, SILU, POOL, PLANES, PRECISION,
        )  # fmt: skip
    value += tl.load(bias + n, mask=wanted, other=0.0)[None, :]

    if skip_weight is not None:
        value = _products(
            value, residual, None, skip_weight, n, n, batch, frame, y, x, here, n, wanted,
            height, width, 0, 13, 14, skip_out, skip_in, 0, 0, 0, 0,
            FRAMES, RESIDUAL, BLOCK_RESIDUAL, 1, False, False, False, False, PRECISION,
        )  # fmt: skip
        if residual_second is not None:
            value = _products(
                value, residual_second, None, skip_weight, n, n, batch, frame, y, x, here, n, wanted,
                height, width, 0, 13, 14, skip_out, skip_in, 0, 0, 0, RESIDUAL,
                FRAMES, RESIDUAL_SECOND, BLOCK_RESIDUAL_SECOND, 1, False, False, False, False, PRECISION,
            )  # fmt: skip
        value += tl.load(skip_bias + n, mask=wanted, other=0.0)[None, :]
    elif residual is not None:
        value += _resampled(
            residual, batch, frame, y, x, n, mask, height, width, residual_up, FRAMES, OUT, RESIDUAL_POOL
        )

    if state is not None:
        # One step of the bridge: what was computed is x_t - x_0.
        plane = (batch * OUT + n) * FRAMES + frame
        index = plane[None, :] * positions + place[:, None]
        x_t = tl.load(state + index, mask=mask, other=0.0)
        latent = tl.load(condition + index, mask=mask, other=0.0)
        x_0 = x_t - value
        value = a * x_0 + b * latent + c * (x_t - d * x_0 - m * latent)
        value += e * tl.load(noise + index, mask=mask, other=0.0)
        tl.store(out + index, value, mask=mask)
    else:
        index = (batch * FRAMES + frame) * positions + place
        tl.store(out + index[:, None] * OUT + n[None, :], value, mask=mask)
    if moments is not None:
        kept = moments + (batch * FRAMES * blocks + part) * (2 * OUT)
        _keep_moments(kept, value, here, n, wanted, OUT)


@Started
@triton.jit(do_not_specialize=["positions"])
def attention_kernel(
    qkv, x, weight, bias, out, moments, positions, scale,
    FRAMES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    blocks = (positions + BLOCK_P - 1) // BLOCK_P  # of a frame
    part = tl.program_id(0)
    batch = tl.program_id(1)
    place = part % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    here = place < positions
    tokens = FRAMES * positions
    channel = tl.arange(0, BLOCK_C)
    there = channel < CHANNELS
    mask = here[:, None] & there[None, :]
    query = batch * tokens + part // blocks * positions + place
    start = qkv + batch * tokens * (3 * CHANNELS)

    q = tl.load(qkv + query[:, None] * (3 * CHANNELS) + channel[None, :], mask=mask, other=0.0) * scale
    top = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    value = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for begin in range(0, tokens, BLOCK_K):
        key = begin + tl.arange(0, BLOCK_K)
        known = key < tokens
        keys = start + CHANNELS + key[None, :] * (3 * CHANNELS) + channel[:, None]
        k = tl.load(keys, mask=there[:, None] & known[None, :], other=0.0)
        values = start + 2 * CHANNELS + key[:, None] * (3 * CHANNELS) + channel[None, :]
        v = tl.load(values, mask=known[:, None] & there[None, :], other=0.0)
        logits = tl.where(known[None, :], tl.dot(q, k, input_precision=PRECISION), float("-inf"))
        higher = tl.maximum(top, tl.max(logits, axis=1))
        weights = tl.exp(logits - higher[:, None])
        fall = tl.exp(top - higher)
        total = total * fall + tl.sum(weights, axis=1)
        value = tl.dot(weights, v, value * fall[:, None], input_precision=PRECISION)
        top = higher
    value = value / total[:, None]

    square = there[:, None] & there[None, :]
    factors = tl.load(weight + channel[None, :] * CHANNELS + channel[:, None], mask=square, other=0.0)
    value = tl.dot(value, factors, input_precision=PRECISION)
    value += tl.load(bias + channel, mask=there, other=0.0)[None, :]
    index = query[:, None] * CHANNELS + channel[None, :]
    value += tl.load(x + index, mask=mask, other=0.0)
    tl.store(out + index, value, mask=mask)
    kept = moments + (batch * FRAMES * blocks + part) * (2 * CHANNELS)
    _keep_moments(kept, value, here, channel, there, CHANNELS)

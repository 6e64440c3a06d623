"""See :mod:`..denoiser`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _over_groups(values, BLOCK_C: tl.constexpr, MEMBERS: tl.constexpr):
    """The sums of values (BLOCK_C,) over each group, for each of its members."""
    if MEMBERS == 1:
        return values
    sums = tl.sum(tl.reshape(values, (BLOCK_C // MEMBERS, MEMBERS)), axis=1)
    return tl.reshape(tl.broadcast_to(sums[:, None], (BLOCK_C // MEMBERS, MEMBERS)), (BLOCK_C,))


@triton.jit
def _affine(
    moments, weight, bias, embedding, channel, there, channels, embedded, positions, part_positions, eps,
    FRAMES: tl.constexpr, BLOCK_C: tl.constexpr, MEMBERS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """What a norm multiplies a map's channels by and adds to them. Moments: (parts, 2, channels) of one clip."""
    in_frame = tl.cdiv(positions, part_positions)
    # In one pass: distances are from the mean of the first part, which is near enough that nothing cancels.
    near = tl.load(moments + channel, mask=there, other=0.0)
    sums = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for begin in range(0, FRAMES * in_frame, PARTS):
        part = begin + tl.arange(0, PARTS)
        count = tl.minimum(part_positions, positions - part % in_frame * part_positions).to(tl.float32)
        place = moments + part[:, None] * (2 * channels) + channel[None, :]
        mask = (part < FRAMES * in_frame)[:, None] & there[None, :]
        apart = tl.where(mask, tl.load(place, mask=mask, other=0.0) - near[None, :], 0.0)
        inner = tl.load(place + channels, mask=mask, other=0.0)
        weighted = count[:, None] * apart
        sums += tl.sum(weighted, axis=0)
        squares += tl.sum(inner + weighted * apart, axis=0)
    elements = (FRAMES * positions).to(tl.float32)
    own = near + sums / elements
    mean = _over_groups(own, BLOCK_C, MEMBERS) / MEMBERS
    between = own - mean
    squares = squares - sums * (sums / elements) + elements * between * between
    variance = _over_groups(squares, BLOCK_C, MEMBERS) / (elements * MEMBERS)
    scale = tl.load(weight + channel, mask=there, other=0.0) / tl.sqrt(variance + eps)
    shift = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    # Scales, then shifts; without an embedding they are zero.
    mask = channel < tl.where(embedded != 0, channels, 0)
    factor = 1.0 + tl.load(embedding + channel, mask=mask, other=0.0)
    return scale * factor, shift * factor + tl.load(embedding + channels + channel, mask=mask, other=0.0)


@triton.jit
def _repeated(values, SLOTS: tl.constexpr, BLOCK_C: tl.constexpr):
    return tl.reshape(tl.broadcast_to(values[None, :], (SLOTS, BLOCK_C)), (SLOTS * BLOCK_C,))


@triton.jit
def _resampled(
    source, batch, frame, y, x, n, mask, height, width, channels, up, down, corners, FRAMES: tl.constexpr
):  # fmt: skip
    """A map at some positions: the mean of its `corners`, 4 where `down` is 1, of its positions that stand there, each
    of which stands at four where `up` is 1; zero where `corners` is 0."""
    across = (width << down) >> up
    start = (batch * FRAMES + frame) * ((height << down) >> up) * across
    value = tl.zeros_like(mask).to(tl.float32)
    for corner in tl.static_range(4):
        row, column = ((y << down) + corner // 2) >> up, ((x << down) + corner % 2) >> up
        address = source + (start + row * across + column)[:, None] * channels + n[None, :]
        value += tl.load(address, mask=mask & (n < tl.where(corners > corner, channels, 0))[None, :], other=0.0)
    return value / tl.maximum(corners, 1).to(tl.float32)


@triton.jit
def _keep_moments(moments, value, here, n, wanted, channels):
    """Mean and sum of squared distances from it, of each channel at a program's positions: (2, CHANNELS)."""
    count = tl.sum(here.to(tl.float32), axis=0)
    mean = tl.sum(tl.where(here[:, None], value, 0.0), axis=0) / count
    apart = tl.where(here[:, None], value - mean[None, :], 0.0)
    tl.store(moments + n, mean, mask=wanted)
    tl.store(moments + channels + n, tl.sum(apart * apart, axis=0), mask=wanted)


@triton.jit(
    do_not_specialize=[
        "normed", "sources", "reach", "silu", "up", "embedded", "kept", "height", "width", "source_positions",
        "part_positions", "residual_up", "residual_down", "corners", "a", "b", "c", "d", "m", "e",
    ]
)  # fmt: skip
def conv_kernel(
    first, second, raw, raw_second, first_moments, second_moments, weight, bias, skip_weight, skip_bias,
    norm_weight, norm_bias, embedding, residual, out, moments, state, condition, noise,
    first_channels, second_channels, raw_channels, raw_second_channels, outputs,
    normed, sources, reach, silu, up, embedded, kept, height, width, source_positions, part_positions,
    residual_up, residual_down, corners, eps, a, b, c, d, m, e,
    FRAMES: tl.constexpr, MEMBERS: tl.constexpr, POOL: tl.constexpr, PLANES: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, SLOTS: tl.constexpr, PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over sources: `normed` maps through the norm and `weight`, and then raw ones through `skip_weight`.

    A product multiplies positions by the channels of SLOTS neighbouring frames, at one place of the kernel's height and
    width. Source maps are twice as wide and high where POOL, and half where `up` is 1. PLANES: they are (B, C, T, h, w)
    and pass no norm. Weights: (taps, channels, outputs).
    """
    positions = height * width
    blocks = (positions + BLOCK_P - 1) // BLOCK_P  # of a frame
    part = tl.program_id(0)
    batch = tl.program_id(1)
    frame = part // blocks
    place = part % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    here = place < positions
    y, x = place // width, place % width
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    wanted = n < outputs
    mask = here[:, None] & wanted[None, :]
    one, slot = tl.arange(0, BLOCK_C), tl.arange(0, SLOTS * BLOCK_C) // BLOCK_C
    channel = tl.arange(0, SLOTS * BLOCK_C) % BLOCK_C

    value = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    for index in range(sources):
        through_norm = index < normed
        earlier = tl.where(through_norm, first_channels, raw_channels)
        later = tl.where(through_norm, second_channels, raw_second_channels)
        last = (index == 1) & through_norm | (index == normed + 1)
        source = tl.where(through_norm, tl.where(last, second, first), tl.where(last, raw_second, raw))
        channels, skipped, inputs = tl.where(last, later, earlier), tl.where(last, earlier, 0), earlier + later
        own_weight = tl.where(through_norm, weight, skip_weight) + skipped * outputs
        around = tl.where(through_norm, reach, 0)
        own_up = tl.where(through_norm, up, 0)
        own_positions = tl.where(through_norm, source_positions, positions)
        active = through_norm & (silu != 0)
        scale, shift = tl.full((BLOCK_C,), 1.0, tl.float32), tl.zeros((BLOCK_C,), tl.float32)
        if through_norm and not PLANES:
            own_moments = tl.where(last, second_moments, first_moments)
            scale, shift = _affine(
                own_moments + batch * FRAMES * tl.cdiv(own_positions, part_positions) * (2 * channels),
                norm_weight + skipped, norm_bias + skipped, embedding, one, one < channels, channels, embedded,
                own_positions, part_positions, eps, FRAMES, BLOCK_C, MEMBERS, PARTS,
            )  # fmt: skip
        scale, shift = _repeated(scale, SLOTS, BLOCK_C)[None, :], _repeated(shift, SLOTS, BLOCK_C)[None, :]

        # Frames from `around` before to `around` after, as far as there are such, and places around this one.
        side = 2 * around + 1
        begin = tl.maximum(around - frame, 0) // SLOTS
        end = tl.cdiv(tl.minimum(side, FRAMES - frame + around), SLOTS)
        for step in range(begin * side * side, end * side * side):
            group = tl.where(around == 0, step, step // 9)
            spot = step - group * side * side
            down = spot // 3
            tap = group * SLOTS + slot
            moment = frame + tap - around
            there = (tap < side) & (moment >= 0) & (moment < FRAMES) & (channel < channels)
            row, column = y + (down - around), x + (spot - 3 * down - around)
            inside = here & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            both = inside[:, None] & there[None, :]
            if PLANES:
                plane = ((batch * channels + channel) * FRAMES + moment) * positions
                found = tl.load(source + plane[None, :] + (row * width + column)[:, None], mask=both, other=0.0)
            elif POOL:
                pixel = batch * FRAMES * own_positions + 4 * row * width + 2 * column
                address = source + (pixel * channels)[:, None] + (moment * own_positions * channels + channel)[None, :]
                found = tl.zeros((BLOCK_P, SLOTS * BLOCK_C), tl.float32)
                for corner in tl.static_range(4):
                    beside = (corner // 2 * 2 * width + corner % 2) * channels
                    seen = tl.load(address + beside, mask=both, other=0.0) * scale + shift
                    found += seen * tl.sigmoid(seen)
                found = tl.where(both, found * 0.25, 0.0)
            else:
                pixel = batch * FRAMES * own_positions + (row >> own_up) * (width >> own_up) + (column >> own_up)
                address = source + (pixel * channels)[:, None] + (moment * own_positions * channels + channel)[None, :]
                found = tl.load(address, mask=both, other=0.0) * scale + shift
                found = tl.where(both, tl.where(active, found * tl.sigmoid(found), found), 0.0)
            line = ((tap * side * side + spot) * inputs + channel) * outputs
            factors = tl.load(own_weight + line[:, None] + n[None, :], mask=there[:, None] & wanted[None, :], other=0.0)
            value = tl.dot(found, factors, value, input_precision=PRECISION)

    value += tl.load(bias + n, mask=wanted, other=0.0)[None, :]
    value += tl.load(skip_bias + n, mask=n < tl.where(sources > normed, outputs, 0), other=0.0)[None, :]
    if state is not None:
        # One step of the bridge: what was computed is x_t - x_0.
        plane = (batch * outputs + n) * FRAMES + frame
        index = plane[None, :] * positions + place[:, None]
        x_t = tl.load(state + index, mask=mask, other=0.0)
        latent = tl.load(condition + index, mask=mask, other=0.0)
        x_0 = x_t - value
        value = a * x_0 + b * latent + c * (x_t - d * x_0 - m * latent)
        value += e * tl.load(noise + index, mask=mask, other=0.0)
        tl.store(out + index, value, mask=mask)
    else:
        value += _resampled(
            residual, batch, frame, y, x, n, mask, height, width, outputs, residual_up, residual_down, corners, FRAMES
        )
        index = (batch * FRAMES + frame) * positions + place
        tl.store(out + index[:, None] * outputs + n[None, :], value, mask=mask)
        if kept != 0:
            _keep_moments(moments + (batch * FRAMES * blocks + part) * (2 * outputs), value, here, n, wanted, outputs)


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

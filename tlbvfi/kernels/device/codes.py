"""See :mod:`..codes`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started


@Started
@triton.jit
def nearest_kernel(
    z, codes, norms, found, distances, positions, area, channels, count, CODES: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The nearest of CODES codes, for some positions."""
    part = tl.program_id(1)
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = place < positions
    z += place // area * channels * area + place % area
    lane = tl.arange(0, BLOCK_N)
    length = tl.zeros((BLOCK_P,), tl.float32)
    for channel in range(channels):
        value = tl.load(z + channel * area, mask=mask, other=0.0)
        length += value * value
    nearest = tl.full((BLOCK_P, BLOCK_N), float("inf"), tl.float32)
    index = tl.zeros((BLOCK_P, BLOCK_N), tl.int32) + part * CODES
    for first in range(0, CODES, BLOCK_N):
        code = part * CODES + first + lane
        there = code < count
        distance = length[:, None] + tl.load(norms + code, mask=there, other=float("inf"))[None, :]
        for channel in range(channels):
            value = tl.load(z + channel * area, mask=mask, other=0.0)
            weight = tl.load(codes + code * channels + channel, mask=there, other=0.0)
            distance -= 2.0 * (value[:, None] * weight[None, :])
        nearer = distance < nearest
        nearest = tl.where(nearer, distance, nearest)
        index = tl.where(nearer, code[None, :], index)
    best = tl.min(nearest, axis=1)
    # The lowest index on a tie; where all is NaN, any that there is.
    index = tl.min(tl.where(nearest == best[:, None], index, count - 1), axis=1)
    tl.store(found + part * positions + place, index, mask=mask)
    tl.store(distances + part * positions + place, best, mask=mask)


@Started
@triton.jit
def merge_kernel(found, distances, out, positions, parts, BLOCK: tl.constexpr):
    """The nearest of what the parts found."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < positions
    index = tl.load(found + place, mask=mask, other=0)
    nearest = tl.load(distances + place, mask=mask, other=0.0)
    for part in range(1, parts):
        distance = tl.load(distances + part * positions + place, mask=mask, other=0.0)
        other = tl.load(found + part * positions + place, mask=mask, other=0)
        nearer = distance < nearest
        nearest = tl.where(nearer, distance, nearest)
        index = tl.where(nearer, other, index)
    tl.store(out + place, index.to(tl.int64), mask=mask)

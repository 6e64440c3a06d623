"""See :mod:`..attention`."""

from __future__ import annotations

import triton
import triton.language as tl

from . import Started


@triton.jit
def _normed(x, weight, bias, channel, channels, eps):
    """LayerNorm of tokens (T, BLOCK_C) float32 whose channels past the last are zero, and stay so."""
    there = channel < channels
    mean = tl.sum(x, axis=1) / channels
    centred = tl.where(there[None, :], x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / channels + eps)
    weight = tl.load(weight + channel, mask=there, other=0.0).to(tl.float32)
    bias = tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@triton.jit
def gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def columns(weight, entering, leaving, inputs, outputs):
    """Part of a linear layer's weight (outputs, inputs), turned: (BLOCK inputs, BLOCK outputs)."""
    there = (entering < inputs)[:, None] & (leaving < outputs)[None, :]
    return tl.load(weight + entering[:, None] + leaving[None, :] * inputs, mask=there, other=0.0)


@Started
@triton.jit(do_not_specialize=["height", "width", "down_window", "down_token", "across_window", "across_token"])
def window_block_kernel(
    x, context, norm_weight, norm_bias, to_q, to_k, to_v, to_out, position_bias,
    feed_weight, feed_bias, widen, widen_bias, narrow, narrow_bias,
    height, width, channels, x_stride, context_stride,
    down_window, down_token, across_window, across_token, scale, norm_eps, feed_eps,
    WINDOW: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    TOKENS: tl.constexpr = WINDOW * WINDOW
    dtype = x.dtype.element_ty
    windows_across = width // WINDOW
    windows = windows_across * (height // WINDOW)
    window = tl.program_id(0) % windows
    token = tl.arange(0, TOKENS)
    row = window // windows_across * down_window + token // WINDOW * down_token
    column = window % windows_across * across_window + token % WINDOW * across_token
    place = (tl.program_id(0) // windows).to(tl.int64) * height * width + row * width + column
    channel = tl.arange(0, BLOCK_C)
    part = tl.arange(0, BLOCK_N)
    there = (channel < channels)[None, :]
    mine = x + place[:, None] * x_stride + channel[None, :]

    tokens = tl.load(mine, mask=there, other=0.0).to(tl.float32)
    normed = _normed(tokens, norm_weight, norm_bias, channel, channels, norm_eps).to(dtype)
    seen = normed
    if context is not None:
        theirs = context + place[:, None] * context_stride + channel[None, :]
        seen = tl.load(theirs, mask=there, other=0.0).to(tl.float32)
        seen = _normed(seen, norm_weight, norm_bias, channel, channels, norm_eps).to(dtype)
    logits = tl.zeros((TOKENS, TOKENS), tl.float32)
    for start in range(0, channels, BLOCK_N):
        query = tl.dot(normed, columns(to_q, channel, start + part, channels, channels), input_precision=PRECISION)
        key = tl.dot(seen, columns(to_k, channel, start + part, channels, channels), input_precision=PRECISION)
        logits = tl.dot(query.to(dtype), tl.trans(key.to(dtype)), logits, input_precision=PRECISION)
    logits = logits * scale + tl.load(position_bias + token[:, None] * TOKENS + token[None, :])
    shares = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    shares = (shares / tl.sum(shares, axis=1)[:, None]).to(dtype)
    total = tl.load(mine, mask=there, other=0.0).to(tl.float32)
    for start in range(0, channels, BLOCK_N):
        value = tl.dot(seen, columns(to_v, channel, start + part, channels, channels), input_precision=PRECISION)
        found = tl.dot(shares, value.to(dtype), input_precision=PRECISION).to(dtype)
        block = columns(to_out, start + part, channel, channels, channels)
        total = tl.dot(found, block, total, input_precision=PRECISION)

    normed = _normed(total, feed_weight, feed_bias, channel, channels, feed_eps).to(dtype)
    total += tl.load(narrow_bias + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    hidden = 4 * channels
    for start in range(0, hidden, BLOCK_N):
        wide = tl.dot(normed, columns(widen, channel, start + part, channels, hidden), input_precision=PRECISION)
        wide += tl.load(widen_bias + start + part, mask=start + part < hidden, other=0.0).to(tl.float32)[None, :]
        block = columns(narrow, start + part, channel, hidden, channels)
        total = tl.dot(gelu(wide).to(dtype), block, total, input_precision=PRECISION)
    tl.store(mine, total.to(dtype), mask=there)

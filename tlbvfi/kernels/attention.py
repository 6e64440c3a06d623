"""Half of a MaxViT layer, attention in windows and the feed-forward after it, in one pass over the map."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .joins import position_stride
from .registry import operator, power_of_two, products

#: Sides of windows whose logits a program holds, and which its products can take.
_WINDOWS = (4, 8)
#: Bytes of the channels of a token, at most: a program holds the 64 tokens of a window, of the context too.
_TOKEN_BYTES = 256


class WindowWeights(NamedTuple):
    """Weights of the layers, as PyTorch has them.

    Attributes:
        norm_weight, norm_bias: of the LayerNorm before attention, (C,).
        to_q, to_k, to_v, to_out: (C, C).
        position_bias: (window^2, window^2) float32, queries first.
        feed_weight, feed_bias: of the LayerNorm before the feed-forward, (C,).
        widen, widen_bias: (4 C, C), (4 C,).
        narrow, narrow_bias: (C, 4 C), (C,).
    """

    norm_weight: Tensor
    norm_bias: Tensor
    to_q: Tensor
    to_k: Tensor
    to_v: Tensor
    to_out: Tensor
    position_bias: Tensor
    feed_weight: Tensor
    feed_bias: Tensor
    widen: Tensor
    widen_bias: Tensor
    narrow: Tensor
    narrow_bias: Tensor


def fits(x: Tensor, window: int) -> bool:
    """Whether :func:`window_block` takes such a map and window: it holds a window's tokens on the chip.

    Of channels that are no power of two, products on an H100 came out wrong (Triton 3.6, in half precision).
    """
    channels = x.shape[1]
    return window in _WINDOWS and channels == power_of_two(channels) and channels * x.element_size() <= _TOKEN_BYTES


def window_block(
    x: Tensor, context: Tensor | None, weights: WindowWeights, window: int, grid: bool, norm_eps: float, feed_eps: float
) -> Tensor:
    """x + attention(LayerNorm(x), LayerNorm(context)), and of that y: y + feed_forward(LayerNorm(y)), in one pass.

    Args:
        x: (B, C, H, W), channels last, H and W multiples of the window; overwritten with the result.
        context: a map of x's shape, where keys and values come from; None for x itself.
        weights: the layers'.
        window: side of a window; see :func:`fits`.
        grid: windows of every (H / window)-th row and (W / window)-th column, not of neighbours.
        norm_eps, feed_eps: of the two LayerNorms.

    Returns:
        `x`.
    """
    _window_block(x, context, list(weights), window, grid, norm_eps, feed_eps)
    return x


def _launch(
    x: Tensor,
    context: Tensor | None,
    weights: list[Tensor],
    window: int,
    grid: bool,
    norm_eps: float,
    feed_eps: float,
) -> None:
    from .device.attention import window_block_kernel

    batch, channels, height, width = x.shape
    down, across = height // window, width // window
    block_c = power_of_two(channels, 16)
    token_bytes = block_c * x.element_size()
    # Shared memory, for cards with 99 KiB: 40 to 57 KiB with tokens of 128 bytes, 53 to 73 with 256.
    window_block_kernel[(batch * down * across,)](
        x, context, *weights, height, width, channels,
        position_stride(x), 0 if context is None else position_stride(context),
        *((1, down, 1, across) if grid else (window, 1, window, 1)), channels**-0.5, norm_eps, feed_eps,
        WINDOW=window, BLOCK_C=block_c, BLOCK_N=min(block_c, 64 if token_bytes <= 128 else 32), PRECISION=products(x),
        num_warps=4, num_stages=2,
    )  # fmt: skip


_window_block = operator(
    "window_block(Tensor(a!) x, Tensor? context, Tensor[] weights, int window, bool grid, float norm_eps, "
    "float feed_eps) -> ()",
    lambda *_: None,
    _launch,
)

"""What a decoder level attends to, brought to its width: the layers of an inverted bottleneck, its context never made.

The projection after them is a matrix product of PyTorch's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .joins import position_stride
from .positions import Bases, ends
from .registry import ceil_div, operator, power_of_two, products

#: A program of the expansion takes this many positions, and as many of the channels that it makes as registers hold:
#: positions along a flow are looked up anew for each such block.
_POSITIONS, _WIDE = 64, 256
#: Columns and channels of a tile of the depthwise convolution; its rows follow from the number of tiles wanted.
_COLUMNS, _CHANNELS, _TILES = 32, 64, 2048
_ROWS = (4, 16)


def context_expand(
    before: Tensor, after: Tensor, flow: Tensor | None, bases: Bases | None, weight: Tensor, bias: Tensor
) -> Tensor:
    """gelu(1x1 convolution of the context), where the context is the features of both frames, and where there is a flow
    also these warped along it, side by side.

    Args:
        before, after: features (B, C, H, W), channels last.
        flow: (B, 4, H, W) float32: to the one frame and to the other, see :mod:`..modules.warp`.
        bases: of the maps' size, where there is a flow.
        weight: (hidden, 2 C), or (hidden, 4 C) with a flow.
        bias: (hidden,).

    Returns:
        (B, hidden, H, W), channels last.
    """
    return _context_expand(before, after, flow, *(bases or (None, None)), weight, bias)


def _hidden_map(x: Tensor, hidden: int) -> Tensor:
    batch, _, height, width = x.shape
    return x.new_empty(batch, height, width, hidden).permute(0, 3, 1, 2)


def _launch_expand(
    before: Tensor, after: Tensor, flow: Tensor | None, base_x: Tensor | None, base_y: Tensor | None, weight: Tensor,
    bias: Tensor,
) -> Tensor:  # fmt: skip
    from .device.context import context_expand_kernel

    (batch, channels, height, width), (hidden, inputs) = before.shape, weight.shape
    positions = batch * height * width
    out = _hidden_map(before, hidden)
    block_n = min(power_of_two(hidden, 16), _WIDE)
    block_k = min(power_of_two(channels, 16), 128 // before.element_size())
    context_expand_kernel[(ceil_div(positions, _POSITIONS) * ceil_div(hidden, block_n),)](
        before, after, flow, base_x, base_y, weight, bias, out,
        positions, height, width, channels, inputs, hidden,
        position_stride(before), position_stride(after), *((0,) * 4 if flow is None else flow.stride()),
        *ends(height, width),
        BLOCK_P=_POSITIONS, BLOCK_K=block_k, BLOCK_N=block_n, PRECISION=products(before),
        num_warps=8, num_stages=2, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_context_expand = operator(
    "context_expand(Tensor before, Tensor after, Tensor? flow, Tensor? base_x, Tensor? base_y, Tensor weight, "
    "Tensor bias) -> Tensor",
    lambda before, after, flow, base_x, base_y, weight, bias: _hidden_map(before, weight.shape[0]),
    _launch_expand,
)


def depthwise_gelu(x: Tensor, taps: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """gelu(depthwise 3x3 convolution with zero padding), and the mean of each channel of that.

    Args:
        x: (B, C, H, W), channels last.
        taps: the weights, (9, C), row by row.
        bias: (C,).

    Returns:
        The map, channels last, and the means (B, C) float32.
    """
    return _depthwise_gelu(x, taps, bias)


def _launch_depthwise(x: Tensor, taps: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    from .device.context import depthwise_gelu_kernel, mean_kernel

    batch, channels, height, width = x.shape
    block_c, block_w = min(power_of_two(channels, 16), _CHANNELS), min(power_of_two(width, 4), _COLUMNS)
    blocks, across = ceil_div(channels, block_c), ceil_div(width, block_w)
    rows = min(max(height * across * blocks // _TILES, _ROWS[0]), _ROWS[1])
    tiles = ceil_div(height, rows) * across
    out, means = _hidden_map(x, channels), x.new_empty(batch, channels, dtype=torch.float32)
    sums = x.new_empty(batch, tiles, channels, dtype=torch.float32)
    depthwise_gelu_kernel[(batch * tiles * blocks,)](
        x, taps, bias, out, sums, height, width, channels, position_stride(x), rows, BLOCK_W=block_w, BLOCK_C=block_c
    )
    mean_kernel[(ceil_div(channels, 16), batch)](
        sums, means, tiles, channels, 1.0 / (height * width), BLOCK_T=128, BLOCK_C=16
    )
    return out, means


_depthwise_gelu = operator(
    "depthwise_gelu(Tensor x, Tensor taps, Tensor bias) -> (Tensor, Tensor)",
    lambda x, taps, bias: (_hidden_map(x, x.shape[1]), x.new_empty(x.shape[:2], dtype=torch.float32)),
    _launch_depthwise,
)


def gated_weight(means: Tensor, squeeze: Tensor, excite: Tensor, weight: Tensor) -> Tensor:
    """The weight of a 1x1 convolution of a map that is multiplied by sigmoid(excite silu(squeeze means)) before.

    Args:
        means: of the map's channels, (B, C) float32.
        squeeze, excite: weights of linear layers, (Q, C) and (C, Q).
        weight: the convolution's, (out, C).

    Returns:
        (B, out, C).
    """
    return _gated_weight(means, squeeze, excite, weight)


def _launch_weight(means: Tensor, squeeze: Tensor, excite: Tensor, weight: Tensor) -> Tensor:
    from .device.context import gated_weight_kernel

    (batch, hidden), squeezed, outputs = means.shape, len(squeeze), len(weight)
    out = weight.new_empty(batch, outputs, hidden)
    gated_weight_kernel[(ceil_div(hidden, 32), batch)](
        means, squeeze, excite, weight, out, hidden, squeezed, outputs,
        BLOCK_H=32, BLOCK_Q=32, BLOCK_K=min(power_of_two(hidden), 256), num_warps=8,
    )  # fmt: skip
    return out


_gated_weight = operator(
    "gated_weight(Tensor means, Tensor squeeze, Tensor excite, Tensor weight) -> Tensor",
    lambda means, squeeze, excite, weight: weight.new_empty(len(means), *weight.shape),
    _launch_weight,
)

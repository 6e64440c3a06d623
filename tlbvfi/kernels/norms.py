"""GroupNorm of maps: exact statistics in one pass over a map, and the norm with its activation in another.

Maps are (B, C, H, W), channels last, or some channels or rows of such a map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .joins import position_stride
from .registry import ceil_div, operator, power_of_two

#: Activations, by the numbers that the kernels know them by.
_ACTIVATIONS = {"none": 0, "silu": 1, "relu": 2}
#: Elements that a program takes at a time: of large maps, and of maps of fewer elements than `_LARGE`, of which there
#: would be too few programs otherwise.
_BLOCK, _SMALL_BLOCK, _LARGE = 4096, 1024, 1 << 20
#: Channels that a program of the statistics takes, at most.
_CHANNELS = 64
#: Chunks of positions of a map: so many, and beyond that only of eight blocks or more each, up to the last number.
_FEW_PARTS, _MOST_PARTS = 256, 1024
#: Frames of a clip.
_FRAMES = 3


def group_norm_affine(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, conv_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """GroupNorm of x + conv_bias, as x * scale + shift: float32 (B, C) each.

    Args:
        x: (B, C, H, W).
        weight, bias: of the norm, (C,).
        groups, eps: of the norm.
        conv_bias: (C,), of the convolution that made x without it.
    """
    scale, shift = _affine(x, weight, bias, groups, eps, conv_bias)
    return scale, shift


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the positions: float32 (B, C) each."""
    mean, variance = _moments(x)
    return mean, variance


def scale_act(
    x: Tensor, scale: Tensor, shift: Tensor, activation: str = "none", out: Tensor | None = None, below: int = 0
) -> Tensor:
    """activation(x * scale + shift).

    Args:
        x: (B, C, H, W).
        scale, shift: float32 (R, C); R divides B, and each row serves B / R neighbours.
        activation: "none", "silu" or "relu".
        out: where the result goes, x itself for one that is overwritten; None for a new map.
        below: rows of zeros below, and columns of zeros to the right of the result, where it is a new map.
    """
    if out is None:
        b, c, h, w = x.shape
        shape = (b, c, h + below, w + below)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _scale_act(x, scale, shift, _ACTIVATIONS[activation], out)
    return out


def stack_frames(
    clip: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    merge: bool = False,
) -> Tensor:
    """What a convolution over time sees of a clip's frames, activation(clip * scale + shift) or these as they are.

    Args:
        clip: (B 3, C, h, w), each clip's frames together.
        scale, shift, activation: as for :func:`scale_act`.
        merge: all frames together rather than each with its neighbours.

    Returns:
        (B 3, 3 C, h, w): the channels of the frame before, of each frame and of the one after; zeros where there is
        none. With `merge` (B, 3 C, h, w): the channels of all frames.
    """
    return _stack_frames(clip, scale, shift, _ACTIVATIONS[activation], merge)


def _partials(x: Tensor) -> tuple[Tensor, int]:
    """Moments of each channel by chunks of positions, float32 (2, B, chunks, C), and the positions of a chunk."""
    from .device.norms import partials_kernel

    batch, channels, height, width = x.shape
    positions = height * width
    block_c = min(power_of_two(channels), _CHANNELS)
    block_p = max((_BLOCK if positions * channels >= _LARGE else _SMALL_BLOCK) // block_c, 1)
    blocks = ceil_div(positions, block_p)
    parts = min(blocks, max(_FEW_PARTS, min(_MOST_PARTS, blocks // 8)))
    chunk = ceil_div(blocks, parts) * block_p
    parts = ceil_div(positions, chunk)
    partials = torch.empty(2, batch, parts, channels, dtype=torch.float32, device=x.device)
    partials_kernel[(parts, batch, ceil_div(channels, block_c))](
        x, partials, positions, channels, *_strides(x), chunk, BLOCK_P=block_p, BLOCK_C=block_c
    )
    return partials, chunk


def _launch_merge(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float, conv_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    from .device.norms import merge_kernel

    batch, channels, height, width = x.shape
    partials, chunk = _partials(x)
    first, second = _pair(x)
    per_group = channels // groups
    block_c = power_of_two(per_group)
    merge_kernel[(groups, batch)](
        partials, conv_bias, weight, bias, first, second,
        partials.shape[2], height * width, channels, per_group, chunk, eps,
        BLOCK_N=max(_BLOCK // block_c, 1), BLOCK_C=block_c, num_warps=8,
    )  # fmt: skip
    return first, second


def _strides(x: Tensor) -> tuple[int, int]:
    """Elements from one map of a batch to the next, and from one position to the next."""
    return x.stride(0), position_stride(x[:1])


def _pair(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = (torch.empty(x.shape[:2], dtype=torch.float32, device=x.device) for _ in range(2))
    return first, second


def _launch_affine(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, conv_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _launch_merge(x, groups, weight, bias, eps, conv_bias)


def _launch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return _launch_merge(x, x.shape[1], None, None, 0.0, None)


def _launch_scale_act(x: Tensor, scale: Tensor, shift: Tensor, activation: int, out: Tensor) -> None:
    from .device.norms import scale_kernel

    (batch, channels, height, width), (out_height, out_width) = x.shape, out.shape[2:]
    block_c = power_of_two(channels)
    block_p = max(_BLOCK // block_c, 1)
    scale_kernel[(ceil_div(out_height * out_width, block_p), batch)](
        x, scale, shift, out, height, width, out_height, out_width, channels,
        *_strides(x), *_strides(out), batch // scale.shape[0],
        ACTIVATION=activation, PADDED=x.shape != out.shape, BLOCK_P=block_p, BLOCK_C=block_c,
    )  # fmt: skip


def _stacked_empty(clip: Tensor, scale: Tensor | None, shift: Tensor | None, activation: int, merge: bool) -> Tensor:
    frames, channels, height, width = clip.shape
    shape = (frames // _FRAMES if merge else frames, _FRAMES * channels, height, width)
    return torch.empty(shape, dtype=clip.dtype, device=clip.device, memory_format=torch.channels_last)


def _launch_stack(clip: Tensor, scale: Tensor | None, shift: Tensor | None, activation: int, merge: bool) -> Tensor:
    from .device.norms import stack_kernel

    out = _stacked_empty(clip, scale, shift, activation, merge)
    frames, channels, height, width = clip.shape
    block_c = power_of_two(channels)
    block_p = max(_SMALL_BLOCK // block_c, 1)
    stack_kernel[(ceil_div(height * width, block_p), len(out), _FRAMES)](
        clip, scale, shift, out, height * width, channels, _FRAMES, position_stride(clip),
        1 if scale is None else frames // len(scale),
        ACTIVATION=activation, MERGED=merge, BLOCK_P=block_p, BLOCK_C=block_c,
    )  # fmt: skip
    return out


_affine = operator(
    "group_norm_affine(Tensor x, Tensor weight, Tensor bias, int groups, float eps, Tensor? conv_bias)"
    " -> (Tensor, Tensor)",
    lambda x, *_: _pair(x),
    _launch_affine,
)
_moments = operator("channel_moments(Tensor x) -> (Tensor, Tensor)", _pair, _launch_moments)
_scale_act = operator(
    "scale_act(Tensor x, Tensor scale, Tensor shift, int activation, Tensor(a!) out) -> ()",
    lambda *_: None,
    _launch_scale_act,
)
_stack_frames = operator(
    "stack_frames(Tensor clip, Tensor? scale, Tensor? shift, int activation, bool merge) -> Tensor",
    _stacked_empty,
    _launch_stack,
)

"""Features seen along a flow, and the passes of the flow's refinement around its 3x3 convolutions.

Maps are channels last and contiguous but where said, `x`, `x0` and `x1` (B, C, H, W) features. A `flow` is float32, of
any strides, and may be some rows of the whole one, from row `top`: (B, 2, rows, W), or (B, 4, rows, W) where it leads
to both frames. Positions and what lies outside of a map are as in :mod:`..modules.warp`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .joins import position_stride
from .positions import Bases, ends
from .registry import ceil_div, operator, power_of_two, products

#: Channels of the map that :func:`cosines` makes: nine cosines, the flow, zeros.
SEEN = 16
#: Channels that the flow takes in :func:`gru_input`, of which the last are zero.
FLOW = 8
#: The widest maps that are taken: a program of :func:`middle` holds all channels of its positions.
WIDEST = 256
#: Elements of a map that a program takes where it is elementwise.
_BLOCK = 2048


def centre(x: Tensor, flow: Tensor, bases: Bases, top: int, out: Tensor) -> None:
    """The features at the end of the flow, into `out` (B, C, rows, W): a map, or some channels of a wider one."""
    _centre(x, flow, *bases, top, out)


def middle(x0: Tensor, x1: Tensor, flow: Tensor, bases: Bases, top: int, weights: list[Tensor]) -> Tensor:
    """Both frames' features at the ends of the flows, blended by an occlusion weight: (B, C, rows, W).

    Args:
        weights: of three 1x1 convolutions over both features side by side, to C, C and 1 channels: weight, bias and
            slope of the PReLU after it, for each; the last is followed by a sigmoid and has no slope.
    """
    result: Tensor = _middle(x0, x1, flow, *bases, top, weights)
    return result


def cosines(x: Tensor, flow: Tensor, middle: Tensor, bases: Bases, top: int, out: Tensor) -> None:
    """What a correction depends on at each position, into `out` (B, 16, rows, W): what the cosine of `middle` with each
    of the nine neighbours of the flow's end lacks of 1, the flow, zeros."""
    _cosines(x, flow, middle, *bases, top, out)


def correlation_features(seen: Tensor, weights: list[Tensor], out: Tensor) -> None:
    """Two 1x1 convolutions of 16 channels to C and C, into `out` (B, C, H, W): a map, or some channels of a wider one.

    Args:
        seen: (B, 16, H, W).
        weights: weight, bias and slope of the PReLU after it, for each.
    """
    _correlation_features(seen, weights, out)


def gru_input(
    x: Tensor, flow: Tensor, bases: Bases, top: int, motion: Tensor, bias: Tensor, slope: Tensor, out: Tensor
) -> None:
    """Side by side: the features at the end of the flow, PReLU(motion + bias), the flow and zeros, into `out`
    (B, 2 C + 8, rows, W)."""
    _gru_input(x, flow, *bases, top, motion, bias, slope, out)


def moved(flow: Tensor, delta0: Tensor, delta1: Tensor, bias: Tensor) -> Tensor:
    """Both flows (B, 4, H, W), each with its correction (B, 8, H, W), of which two channels count, and a bias (2,)."""
    result: Tensor = _moved(flow, delta0, delta1, bias)
    return result


def _contiguous(*maps: Tensor) -> None:
    for x in maps:
        if position_stride(x) != x.shape[1]:
            raise ValueError(
                f"A whole map is wanted, not some channels of one: strides {x.stride()}, {tuple(x.shape)}."
            )


def _along(x: Tensor, flow: Tensor, top: int) -> tuple[int | float, ...]:
    """What says where positions lie, as the kernels take it after their tensors."""
    height, width = x.shape[-2:]
    rows = flow.shape[2]
    return *flow.stride(), *ends(height, width), flow.shape[0] * rows * width, rows, top, height, width


def _positions(flow: Tensor) -> int:
    return flow.shape[0] * flow.shape[2] * flow.shape[3]


def _products(x: Tensor) -> tuple[int, dict[str, int | str]]:
    """Positions of a program where matrices are multiplied, and how."""
    width = power_of_two(x.shape[1], 16)
    held = width * x.element_size()
    places = 64 if held <= 256 else 32 if held <= 512 else 16
    part = min(width, 64 if x.element_size() == 2 else 32)
    return places, {
        "CHANNELS": x.shape[1], "BLOCK_P": places, "BLOCK_C": width, "PART": part, "PRECISION": products(x),
        "num_warps": 8, "num_stages": 1,
    }  # fmt: skip


def _launch_centre(x: Tensor, flow: Tensor, base_x: Tensor, base_y: Tensor, top: int, out: Tensor) -> None:
    from .device.refinement import centre_kernel

    _contiguous(x)
    channels = x.shape[1]
    block_c = min(power_of_two(channels), 128)
    block_p = _BLOCK // block_c
    centre_kernel[(ceil_div(_positions(flow), block_p), ceil_div(channels, block_c))](
        x, flow, base_x, base_y, out, *_along(x, flow, top), position_stride(out),
        CHANNELS=channels, BLOCK_P=block_p, BLOCK_C=block_c, enable_fp_fusion=False,
    )  # fmt: skip


def _launch_middle(
    x0: Tensor, x1: Tensor, flow: Tensor, base_x: Tensor, base_y: Tensor, top: int, weights: list[Tensor]
) -> Tensor:
    from .device.refinement import middle_kernel

    _contiguous(x0, x1)
    result = _empty_middle(x0, x1, flow)
    places, options = _products(x0)
    middle_kernel[(ceil_div(_positions(flow), places),)](
        x0, x1, flow, base_x, base_y, *weights, result, *_along(x0, flow, top), enable_fp_fusion=False, **options
    )
    return result


def _empty_middle(x0: Tensor, _: Tensor, flow: Tensor, *__: object) -> Tensor:
    return _empty(x0, flow, x0.shape[1])


def _empty(like: Tensor, flow: Tensor, channels: int) -> Tensor:
    """A map at the flow's positions, channels last."""
    batch, _, rows, width = flow.shape
    return like.new_empty(batch, rows, width, channels).permute(0, 3, 1, 2)


def _launch_cosines(
    x: Tensor, flow: Tensor, middle: Tensor, base_x: Tensor, base_y: Tensor, top: int, out: Tensor
) -> None:
    from .device.refinement import cosines_kernel

    _contiguous(x, middle, out)
    channels = x.shape[1]
    # A thread holds a vector of channels of twelve samples and four taps: more channels or places are too many.
    block_c = min(power_of_two(channels), 64)
    block_p = 1024 // block_c
    cosines_kernel[(ceil_div(_positions(flow), block_p),)](
        x, flow, middle, base_x, base_y, out, *_along(x, flow, top),
        CHANNELS=channels, BLOCK_P=block_p, BLOCK_C=block_c, enable_fp_fusion=False, num_stages=1,
    )  # fmt: skip


def _launch_correlation_features(seen: Tensor, weights: list[Tensor], out: Tensor) -> None:
    from .device.refinement import correlation_kernel

    _contiguous(seen)
    positions = seen.numel() // SEEN
    places, options = _products(out)
    correlation_kernel[(ceil_div(positions, places),)](
        seen, *weights, out, positions, position_stride(out), **options
    )  # fmt: skip


def _launch_gru_input(
    x: Tensor, flow: Tensor, base_x: Tensor, base_y: Tensor, top: int,
    motion: Tensor, bias: Tensor, slope: Tensor, out: Tensor,
) -> None:  # fmt: skip
    from .device.refinement import gru_input_kernel

    _contiguous(x, motion, out)
    channels = x.shape[1]
    block_c = power_of_two(channels)
    block_p = max(1, _BLOCK // block_c)
    gru_input_kernel[(ceil_div(_positions(flow), block_p),)](
        x, flow, base_x, base_y, motion, bias, slope, out, *_along(x, flow, top),
        CHANNELS=channels, BLOCK_P=block_p, BLOCK_C=block_c, enable_fp_fusion=False,
    )  # fmt: skip


def _launch_moved(flow: Tensor, delta0: Tensor, delta1: Tensor, bias: Tensor) -> Tensor:
    from .device.refinement import moved_kernel

    _contiguous(delta0, delta1)
    result = _empty_moved(flow)
    positions, (height, width) = _positions(flow), flow.shape[2:]
    moved_kernel[(ceil_div(positions, 256),)](
        flow, delta0, delta1, bias, result, *flow.stride(), positions, height * width, width, BLOCK_P=256
    )
    return result


def _empty_moved(flow: Tensor, *_: object) -> Tensor:
    return torch.empty_like(flow, memory_format=torch.contiguous_format)


def _nothing(*_: object) -> None:
    """On the ``meta`` device, of what writes into a map it is given."""


_SEEN_ALONG = "Tensor base_x, Tensor base_y, int top"
_centre = operator(f"centre(Tensor x, Tensor flow, {_SEEN_ALONG}, Tensor(a!) out) -> ()", _nothing, _launch_centre)
_middle = operator(
    f"refinement_middle(Tensor x0, Tensor x1, Tensor flow, {_SEEN_ALONG}, Tensor[] weights) -> Tensor",
    _empty_middle,
    _launch_middle,
)
_cosines = operator(
    f"cosines(Tensor x, Tensor flow, Tensor middle, {_SEEN_ALONG}, Tensor(a!) out) -> ()", _nothing, _launch_cosines
)
_correlation_features = operator(
    "correlation_features(Tensor seen, Tensor[] weights, Tensor(a!) out) -> ()", _nothing, _launch_correlation_features
)
_gru_input = operator(
    f"gru_input(Tensor x, Tensor flow, {_SEEN_ALONG}, Tensor motion, Tensor bias, Tensor slope, Tensor(a!) out) -> ()",
    _nothing,
    _launch_gru_input,
)
_moved = operator(
    "moved_flows(Tensor flow, Tensor delta0, Tensor delta1, Tensor bias) -> Tensor", _empty_moved, _launch_moved
)

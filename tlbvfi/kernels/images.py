"""Pictures and flows: float32 at the frames' size, planes one after the other, each read and written once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .joins import position_stride
from .positions import Bases, ends
from .registry import ceil_div, operator

#: Channels of :func:`bands`, of which the first are the 21 of the transform and the next is one.
BAND_CHANNELS = 24
#: Channels of :func:`coarse_input`, without and with a flow.
FRAMES_CHANNELS, WARPED_CHANNELS = 8, 16

#: Positions that a program takes.
_BLOCK = 256


def _map(x: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """An empty map (B, C, H, W) of channels last, beside x."""
    return x.new_empty(x.shape[0], height, width, channels, dtype=dtype).permute(0, 3, 1, 2)


def bands(
    image0: Tensor, image1: Tensor, first: int, rows: int, dtype: torch.dtype, grey: Sequence[float], tap: float
) -> Tensor:
    """The wavelet channels of a clip whose middle frame is mid-grey (:func:`...modules.wavelet.wavelet_channels`).

    Args:
        image0, image1: (B, 3, H, W) float32 in [0, 1].
        first, rows: which rows; those past the ends of the images are zero throughout.
        dtype: of the result.
        grey: weights of red, green and blue in grey.
        tap: of the Haar filters.

    Returns:
        (B, 24, rows, W), channels last: the 21 channels, one of ones, by which a convolution may add its bias, and two
        of zeros.
    """
    image0, image1 = image0.contiguous(), image1.contiguous()
    result: Tensor = _bands(image0, image1, first, rows, dtype, list(grey), tap)
    return result


def _bands_shape(image0: Tensor, image1: Tensor, first: int, rows: int, dtype: torch.dtype, *_: object) -> Tensor:
    return _map(image0, BAND_CHANNELS, rows, image0.shape[3], dtype)


def _launch_bands(
    image0: Tensor, image1: Tensor, first: int, rows: int, dtype: torch.dtype, grey: list[float], tap: float
) -> Tensor:
    from .device.images import bands_kernel

    out = _bands_shape(image0, image1, first, rows, dtype)
    batch, _, height, width = image0.shape
    block = _BLOCK // 2
    bands_kernel[(ceil_div(rows * width, block), batch)](
        image0, image1, out, first, rows, height, width, *grey, 0.5 * sum(grey), tap,
        BLOCK=block, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_bands = operator(
    "bands(Tensor image0, Tensor image1, int first, int rows, ScalarType dtype, float[] grey, float tap) -> Tensor",
    _bands_shape,
    _launch_bands,
)


def new_frame(
    head: Tensor,
    bias: Tensor,
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    bases: Bases,
    top: int = 0,
    signed: bool = False,
) -> Tensor:
    """The new frame: both images warped (:func:`...modules.warp.warp`), blended by a mask, and a residual.

    Args:
        head: (B, 4 or more, rows, W), channels last, before the sigmoid: three channels of the residual and the share
            of image0; rows `top`.. of the frame.
        bias: what is added to these, (4,).
        image0, image1: (B, 3, H, W) float32 in [0, 1].
        flow: (B, 4, H, W) float32.
        bases: of the images' size; a side has two pixels at least.
        top: the first row.
        signed: in [-1, 1] instead of [0, 1].

    Returns:
        (B, 3, rows, W) float32.
    """
    image0, image1, flow = image0.contiguous(), image1.contiguous(), flow.contiguous()
    result: Tensor = _new_frame(head, bias, image0, image1, flow, bases.x, bases.y, top, signed)
    return result


def _new_frame_shape(head: Tensor, bias: Tensor, image0: Tensor, *_: object) -> Tensor:
    return image0.new_empty(image0.shape[0], 3, *head.shape[2:])


def _launch_new_frame(
    head: Tensor,
    bias: Tensor,
    image0: Tensor,
    image1: Tensor,
    flow: Tensor,
    x: Tensor,
    y: Tensor,
    top: int,
    signed: bool,
) -> Tensor:
    from .device.images import new_frame_kernel

    out = _new_frame_shape(head, bias, image0)
    (batch, _, height, width), rows = image0.shape, head.shape[2]
    scale, shift = (2.0, -1.0) if signed else (1.0, 0.0)
    new_frame_kernel[(ceil_div(rows * width, _BLOCK), batch)](
        head, bias, image0, image1, flow, x, y, out, top, rows, height, width,
        head.stride(0), position_stride(head[:1]), *ends(height, width), scale, shift,
        BLOCK=_BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_new_frame = operator(
    "new_frame(Tensor head, Tensor bias, Tensor image0, Tensor image1, Tensor flow, Tensor x, Tensor y, int top, "
    "bool signed) -> Tensor",
    _new_frame_shape,
    _launch_new_frame,
)


def coarse_input(
    frame0: Tensor, frame1: Tensor, flow: Tensor | None, bases: Bases, shrink: int, dtype: torch.dtype
) -> Tensor:
    """What a scale of the coarse flow reads (:class:`...modules.flow.CoarseFlow`): both frames, warped where there is a
    flow, and the flow, shrunk bilinearly.

    Args:
        frame0, frame1: (B, 3, H, W) float32; sides are multiples of 2 and of `shrink`.
        flow: (B, 4, H / 2, W / 2) float32; it is enlarged and doubled.
        bases: of the frames' size.
        shrink: 1, 2 or 4.
        dtype: of the result.

    Returns:
        (B, 8, H / shrink, W / shrink), channels last: 6 channels and zeros; with a flow (B, 16, ..): 10 and zeros.
    """
    frame0, frame1 = frame0.contiguous(), frame1.contiguous()
    result: Tensor = _coarse_input(frame0, frame1, flow, bases.x, bases.y, shrink, dtype)
    return result


def _coarse_input_shape(
    frame0: Tensor, frame1: Tensor, flow: Tensor | None, x: Tensor, y: Tensor, shrink: int, dtype: torch.dtype
) -> Tensor:
    channels = FRAMES_CHANNELS if flow is None else WARPED_CHANNELS
    return _map(frame0, channels, frame0.shape[2] // shrink, frame0.shape[3] // shrink, dtype)


def _launch_coarse_input(
    frame0: Tensor, frame1: Tensor, flow: Tensor | None, x: Tensor, y: Tensor, shrink: int, dtype: torch.dtype
) -> Tensor:
    from .device.images import coarse_input_kernel

    out = _coarse_input_shape(frame0, frame1, flow, x, y, shrink, dtype)
    (batch, _, height, width), (_, _, out_height, out_width) = frame0.shape, out.shape
    block = _BLOCK // 2
    coarse_input_kernel[(ceil_div(out_height * out_width, block), batch)](
        frame0, frame1, flow, x, y, out, height, width, out_height, out_width, *ends(height, width),
        SHRINK=shrink, BLOCK=block, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_coarse_input = operator(
    "coarse_input(Tensor frame0, Tensor frame1, Tensor? flow, Tensor x, Tensor y, int shrink, ScalarType dtype) "
    "-> Tensor",
    _coarse_input_shape,
    _launch_coarse_input,
)


def resized(
    x: Tensor,
    size: tuple[int, int],
    scale: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
    bias: Tensor | None = None,
    other: Tensor | None = None,
    channels: int | None = None,
) -> Tensor:
    """(resize(x) + bias) * scale + shift + other, bilinear (:func:`...modules.warp.resize`).

    Args:
        x: (B, C, h, w), however it lies in memory.
        size: (H, W); the map's own leaves it as it is.
        scale: of the channels 0, 2, .., and of 1, 3, ..
        bias: (channels,).
        other: (B, channels, H, W) float32.
        channels: how many of x's are taken; all by default.

    Returns:
        (B, channels, H, W) float32, plane by plane.
    """
    other = None if other is None else other.contiguous()
    result: Tensor = _resized(x, *size, channels or x.shape[1], *scale, shift, bias, other)
    return result


def _resized_shape(x: Tensor, height: int, width: int, channels: int, *_: object) -> Tensor:
    return x.new_empty(x.shape[0], channels, height, width, dtype=torch.float32)


def _launch_resized(
    x: Tensor, height: int, width: int, channels: int, even: float, odd: float, shift: float,
    bias: Tensor | None, other: Tensor | None,
) -> Tensor:  # fmt: skip
    from .device.images import resized_kernel

    out = _resized_shape(x, height, width, channels)
    own_height, own_width = x.shape[2:]
    resized_kernel[(ceil_div(height * width, 2 * _BLOCK), x.shape[0] * channels)](
        x, bias, other, out, channels, own_height, own_width, height, width, *x.stride(),
        own_height / height, own_width / width, even, odd, shift, BLOCK=2 * _BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_resized = operator(
    "resized(Tensor x, int height, int width, int channels, float even, float odd, float shift, Tensor? bias, "
    "Tensor? other) -> Tensor",
    _resized_shape,
    _launch_resized,
)

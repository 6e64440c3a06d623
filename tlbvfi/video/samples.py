"""Between PyAV's frames and tensors: planes, chroma resolution, and upright pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .colour import BT709, DERIVED, FULL, LIMITED, LUMA, OF_PRIMARIES, UNKNOWN, YCGCO, Colour
from .pyav import import_av

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

# Chroma is resampled exactly the same on every machine; luma is not touched.
_BICUBIC, _FULL_CHROMA, _ACCURATE, _BITEXACT = 0x4, 0x2000 | 0x4000, 0x40000, 0x80000
#: Read as they are; FFmpeg's way to 16 bits is not exact.
_PLANAR_RGB = ("gbrp", "gbrp9le", "gbrp10le", "gbrp12le", "gbrp14le", "gbrp16le")
_RESAMPLING = _BICUBIC | _FULL_CHROMA | _ACCURATE | _BITEXACT


def to_tensor(frame: VideoFrame) -> Tensor:
    """The upright picture of a decoded frame, (H, W, 3) float32 in [0, 1]."""
    if is_yuv(frame):
        colour = colour_of(frame)
        name = f"yuv444p{colour.bits}le" if colour.bits > 8 else "yuvj444p" if colour.full_range else "yuv444p"
        rgb = colour.to_rgb(_samples(resampled(frame, name, colour.full_range)))
    elif frame.format.name in _PLANAR_RGB:
        green, blue, red = _samples(frame).float() / (2 ** frame.format.components[0].bits - 1)
        rgb = torch.stack((red, green, blue), dim=-1)
    else:
        deep = frame.format.components[0].bits > 8
        array = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        rgb = torch.from_numpy(array.astype(np.float32)) / (65535.0 if deep else 255.0)
    turns = quarter_turns(frame)
    return torch.rot90(rgb, turns, (0, 1)).contiguous() if turns else rgb


def to_frame(picture: Tensor, colour: Colour, name: str) -> VideoFrame:
    """A picture (H, W, 3) in [0, 1] as a frame of the 4:4:4 format of that name."""
    height, width, _ = picture.shape
    frame = import_av().VideoFrame(width, height, name)
    for index, samples in enumerate(colour.from_rgb(picture.cpu()).numpy()):
        plane_of(frame, index)[:] = samples
    return frame


def to_rgb_frame(picture: Tensor, name: str) -> VideoFrame:
    """A picture (H, W, 3) in [0, 1] as a frame of the RGB format of that name: rgb24, bgr0, or a planar one."""
    height, width, _ = picture.shape
    bits = import_av().VideoFormat(name).components[0].bits
    samples = (picture.cpu().float().clamp(0.0, 1.0) * (2**bits - 1)).round().to(torch.int32).numpy()
    if not name.startswith("gbrp"):
        packed = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(samples.astype(np.uint8)), format="rgb24")
        return packed if name == "rgb24" else packed.reformat(format=name)
    frame = import_av().VideoFrame(width, height, name)
    for index, channel in enumerate((1, 2, 0)):  # green, blue, red
        plane_of(frame, index)[:] = samples[..., channel]
    return frame


def resampled(frame: VideoFrame, name: str, full_range: bool) -> VideoFrame:
    """The same samples with another chroma resolution."""
    span = FULL if full_range else LIMITED
    return frame.reformat(
        format=name,
        src_colorspace=BT709,
        dst_colorspace=BT709,
        src_color_range=span,
        dst_color_range=span,
        interpolation=_RESAMPLING,
    )


def quarter_turns(frame: VideoFrame) -> int:
    """By how many quarters the stored picture is turned anticlockwise to be upright."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(H, W) of the upright picture."""
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


def noting_alpha(frames: Iterable[VideoFrame], name: str) -> Iterator[VideoFrame]:
    """The frames of a file called `name`; that their alpha is left out is said once, where it matters."""
    noted = False
    for frame in frames:
        if not noted and any(part.is_alpha for part in frame.format.components):
            noted = bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)
            if noted:
                log.warning("%s is partly transparent, which is left out.", name)
        yield frame


def is_yuv(frame: VideoFrame) -> bool:
    """Whether it is stored as Y'CbCr of a known matrix, or of one that is not stated."""
    parts = frame.format
    return len(parts.components) >= 3 and not parts.is_rgb and not parts.has_palette and _matrix_of(frame) is not None


def colour_of(frame: VideoFrame) -> Colour:
    """Matrix, range and depth as the frame states them."""
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    known = _matrix_of(frame) or Colour.usual(frame.height).matrix
    return Colour(known, full_range=full, bits=frame.format.components[0].bits)


def _matrix_of(frame: VideoFrame) -> int | None:
    """The matrix that a frame states, or the usual one where it states none; None for one that is not known here."""
    stated = int(frame.colorspace)
    if stated == UNKNOWN:
        return Colour.usual(frame.height).matrix
    if stated == DERIVED:
        return OF_PRIMARIES.get(int(frame.color_primaries))
    return stated if stated in LUMA or stated == YCGCO else None


def plane_of(frame: VideoFrame, index: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A view of one plane, (H, W)."""
    plane = frame.planes[index]
    depth = np.dtype("<u2") if frame.format.components[index].bits > 8 else np.dtype(np.uint8)
    rows = np.frombuffer(memoryview(plane), dtype=depth).reshape(plane.height, plane.line_size // depth.itemsize)
    return rows[:, : plane.width]


def _samples(frame: VideoFrame) -> Tensor:
    """(3, H, W) of a frame in a 4:4:4 format."""
    return torch.from_numpy(np.stack([plane_of(frame, i) for i in range(3)]).astype(np.int32))

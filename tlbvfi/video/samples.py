"""Between PyAV's frames and tensors: planes, chroma resolution, and upright pictures."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .colour import BT709, DERIVED, FULL, LIMITED, LUMA, OF_PRIMARIES, UNKNOWN, YCGCO, Colour
from .orientation import UPRIGHT, Orientation, of_matrix
from .pyav import import_av
from .side_data import side_data

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

# Chroma is resampled exactly the same on every machine; luma is not touched.
_BICUBIC, _FULL_CHROMA, _ACCURATE, _BITEXACT = 0x4, 0x2000 | 0x4000, 0x40000, 0x80000
_RESAMPLING = _BICUBIC | _FULL_CHROMA | _ACCURATE | _BITEXACT
#: Formats read as they are: FFmpeg's way from 16 bits, and to them, is not exact.
_EXACT = re.compile(r"(gray|ya|gbra?p|rgb48|bgr48|rgba64|bgra64)\d*(le|be)?")


def to_tensor(frame: VideoFrame, orientation: Orientation | None = None, *, alpha: bool = False) -> Tensor:
    """The upright picture of a decoded frame, (H, W, 3) float32 in [0, 1].

    Args:
        orientation: how it lies; by default as the frame itself states.
        alpha: (H, W, 4), with its opacity.
    """
    if is_yuv(frame):
        colour = colour_of(frame)
        name = f"yuv444p{colour.bits}le" if colour.bits > 8 else "yuvj444p" if colour.full_range else "yuv444p"
        rgb = colour.to_rgb(_samples(resampled(frame, name, colour.full_range)))
    elif _EXACT.fullmatch(frame.format.name):
        rgb = _rgb(frame)
    else:
        deep = frame.format.components[0].bits > 8
        array = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        rgb = torch.from_numpy(array.astype(np.float32)) / (65535.0 if deep else 255.0)
    if alpha:
        rgb = torch.cat([rgb, _opacity(frame)], dim=-1)
    return (orientation or orientation_of(frame)).upright(rgb)


def to_frame(picture: Tensor, colour: Colour, name: str) -> VideoFrame:
    """A picture (H, W, 3) in [0, 1] as a frame of the 4:4:4 format of that name; (H, W, 4) as one of opacity too."""
    height, width, channels = picture.shape
    frame = import_av().VideoFrame(width, height, name)
    for index, samples in enumerate(colour.from_rgb(picture[..., :3].cpu()).numpy()):
        plane_of(frame, index)[:] = samples
    if channels == 4:
        plane_of(frame, 3)[:] = _integers(picture[..., 3], colour.bits)
    return frame


def to_rgb_frame(picture: Tensor, name: str) -> VideoFrame:
    """A picture (H, W, 3) in [0, 1] as a frame of the RGB format `name`: rgb24, bgr0, rgb48be, or a planar one.

    One of (H, W, 4) becomes a frame of rgba, bgra, rgba64be, or a planar format with opacity.
    """
    height, width, channels = picture.shape
    bits = import_av().VideoFormat(name).components[0].bits
    samples = _integers(picture, bits)
    if bits == 8 and not name.startswith("gbr"):
        plain = "rgb24" if channels == 3 else "rgba"
        packed = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(samples.astype(np.uint8)), format=plain)
        return packed if name == plain else packed.reformat(format=name)
    frame = import_av().VideoFrame(width, height, name)
    if name.startswith("rgb"):
        _rows(frame, 0, bits)[:, : channels * width] = samples.reshape(height, channels * width)
        return frame
    for index, channel in enumerate((1, 2, 0, 3)[:channels]):  # green, blue, red
        plane_of(frame, index)[:] = samples[..., channel]
    return frame


def _integers(values: Tensor, bits: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Values in [0, 1] as samples from 0 to the greatest."""
    return (values.cpu().float().clamp(0.0, 1.0) * (2**bits - 1)).round().to(torch.int32).numpy()


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


def orientation_of(frame: VideoFrame) -> Orientation:
    """How the stored picture lies, as the frame states it."""
    matrix = side_data(frame).get("DISPLAYMATRIX")
    return UPRIGHT if matrix is None else of_matrix(bytes(matrix))


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(H, W) of the upright picture."""
    width, height = orientation_of(frame).size(frame.width, frame.height)
    return height, width


def noting_alpha(frames: Iterable[VideoFrame], name: str) -> Iterator[VideoFrame]:
    """The frames of a file called `name`; that their alpha is left out is said once, where it matters."""
    noted = False
    for frame in frames:
        if not noted and is_transparent(frame):
            log.warning("%s is partly transparent, which is left out.", name)
            noted = True
        yield frame


def is_transparent(frame: VideoFrame) -> bool:
    """Whether any of it is, be it a little."""
    if not (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
        return False
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


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
        return OF_PRIMARIES.get(int(getattr(frame, "color_primaries", UNKNOWN)))  # not in older PyAV
    return stated if stated in LUMA or stated == YCGCO else None


def plane_of(frame: VideoFrame, index: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A view of one plane, (H, W)."""
    plane = frame.planes[index]
    rows = _rows(frame, index, frame.format.components[index].bits)
    return rows[:, : plane.width]


def _rows(frame: VideoFrame, index: int, bits: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A view of one plane with what fills its rows, (H, samples)."""
    plane = frame.planes[index]
    depth = np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if frame.format.is_big_endian else "<u2")
    return np.frombuffer(memoryview(plane), dtype=depth).reshape(plane.height, plane.line_size // depth.itemsize)


def _samples(frame: VideoFrame) -> Tensor:
    """(3, H, W) of a frame in a 4:4:4 format."""
    return torch.from_numpy(np.stack([plane_of(frame, i) for i in range(3)]).astype(np.int32))


def _rgb(frame: VideoFrame) -> Tensor:
    """(H, W, 3) in [0, 1] of a frame in one of the formats that are read as they are."""
    name, bits, channels = frame.format.name, frame.format.components[0].bits, len(frame.format.components)
    if name.startswith("gbr"):
        samples = np.stack([plane_of(frame, index) for index in (2, 0, 1)], axis=-1)
    else:
        samples = _rows(frame, 0, bits)[:, : frame.width * channels].reshape(frame.height, frame.width, channels)
        samples = samples[..., :3] if channels > 2 else samples[..., [0, 0, 0]]
        samples = samples[..., ::-1] if name.startswith("bgr") else samples
    values = torch.from_numpy(samples.astype(np.float32))
    if channels < 3 and frame.color_range == LIMITED:
        unit = 2.0 ** (bits - 8)
        return ((values - 16 * unit) / (219 * unit)).clamp_(0.0, 1.0)
    return values / float(2**bits - 1)


def _opacity(frame: VideoFrame) -> Tensor:
    """(H, W, 1) in [0, 1]; 1 everywhere in a format without any."""
    parts, height, width = frame.format.components, frame.height, frame.width
    if not (frame.format.has_palette or any(part.is_alpha for part in parts)):
        return torch.ones(height, width, 1)
    bits = parts[-1].bits
    if len(frame.planes) == 4:
        samples = plane_of(frame, 3)
    elif _EXACT.fullmatch(frame.format.name):
        samples = _rows(frame, 0, bits)[:, len(parts) - 1 : width * len(parts) : len(parts)]
    else:
        samples, bits = frame.to_ndarray(format="rgba")[..., 3], 8
    return torch.from_numpy(samples.astype(np.float32))[..., None] / float(2**bits - 1)

"""Raw frames through pipes: YUV4MPEG2, as FFmpeg, mpv and VapourSynth speak it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from torch import Tensor

from .colour import FULL, LIMITED, Colour
from .interlaced import AS_FRAMES_SAY, BOTTOM_FIRST, TOP_FIRST, deinterlaced
from .pyav import VideoError, import_av
from .reading import VideoInfo
from .samples import plane_of, resampled, to_frame, to_tensor

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

_MAGIC, _FRAME = b"YUV4MPEG2", b"FRAME"
_LONGEST_LINE = 1024
_LARGEST_SIDE = 1 << 16
#: FFmpeg's formats of the chroma formats, as they are named after "C" and without the bits of a sample.
_FORMATS = {
    "420": "yuv420p", "420jpeg": "yuv420p", "420mpeg2": "yuv420p", "420paldv": "yuv420p",
    "422": "yuv422p", "444": "yuv444p", "411": "yuv411p", "mono": "gray",
}  # fmt: skip
_ORDERS = {"t": TOP_FIRST, "b": BOTTOM_FIRST}
_DEPTHS = ("9", "10", "12", "14", "16")


@dataclass(frozen=True)
class Header:
    """What a stream of raw frames states.

    Attributes:
        pixels: FFmpeg's name of the pixel format.
        interlaced: whether a frame is two fields.
        order: which of these comes first, as :mod:`.interlaced` names it, where that is the same in all frames.
    """

    width: int
    height: int
    fps: Fraction | None
    pixels: str = "yuv420p"
    pixel_aspect: Fraction = Fraction(1)
    full_range: bool = False
    interlaced: bool = False
    order: str = AS_FRAMES_SAY

    @property
    def bits(self) -> int:
        """Of a sample."""
        return int(import_av().VideoFormat(self.pixels).components[0].bits)

    @property
    def info(self) -> VideoInfo:
        """What the video is."""
        colour = replace(Colour.usual(self.height), bits=10 if self.bits > 8 else 8)
        return VideoInfo(self.width, self.height, self.fps, None, pixel_aspect=self.pixel_aspect, colour=colour)


def read_header(stream: BinaryIO) -> Header:
    """The first line of a stream.

    Raises:
        VideoError: it is none of raw frames, or of frames that cannot be read here.
    """
    line = _line(stream)
    magic, *words = line.split(b" ")
    if magic != _MAGIC:
        raise VideoError("The input is no stream of raw frames (it does not start with YUV4MPEG2).")
    values = {word[:1].decode("latin-1"): word[1:].decode("latin-1") for word in words if word[:1] != b"X"}
    extra = [word[1:].decode("latin-1") for word in words if word[:1] == b"X"]
    try:
        header = Header(
            int(values["W"]),
            int(values["H"]),
            _ratio(values.get("F", "0:0")),
            _pixels(values.get("C", "420")),
            _ratio(values.get("A", "0:0")) or Fraction(1),
            "COLORRANGE=FULL" in extra,
            values.get("I", "p") not in ("p", "?"),
            _ORDERS.get(values.get("I", "p"), AS_FRAMES_SAY),
        )
    except (KeyError, ValueError):
        stated = line[:80].decode("latin-1")
        raise VideoError(f"The input's raw frames are of a kind that cannot be read here ({stated}).") from None
    if not (0 < header.width <= _LARGEST_SIDE and 0 < header.height <= _LARGEST_SIDE):
        raise VideoError(f"The input's raw frames cannot be {header.width}x{header.height}.")
    return header


def read_y4m(stream: BinaryIO, header: Header, *, deinterlace: bool = True) -> Iterator[Tensor]:
    """The frames after a header, (H, W, 3) in [0, 1], as they are asked for.

    A stream that ends within a frame gives the frames before it, and one line in the log.

    Args:
        deinterlace: frames that are interlaced, where all are so alike; else they come as they are.

    Raises:
        VideoError: what follows is no frame.
    """
    frames = _frames(stream, header)
    if deinterlace and header.order != AS_FRAMES_SAY:
        frames = deinterlaced(frames, "The input", header.order)
    elif header.interlaced:
        log.warning("The input's raw frames are interlaced, and are taken as they are.")
    yield from map(to_tensor, frames)


def _frames(stream: BinaryIO, header: Header) -> Iterator[VideoFrame]:
    """The frames after a header as they are stored."""
    count = 0
    while line := _line(stream):
        if not line.startswith(_FRAME):
            if _FRAME.startswith(line):
                log.warning("The input ends in the middle of frame %d, which is left out.", count)
                return
            raise VideoError(f"The input has something else than a frame after frame {count}.")
        frame = _frame(stream, header)
        if frame is None:
            log.warning("The input ends in the middle of frame %d, which is left out.", count)
            return
        yield frame
        count += 1


def write_y4m(stream: BinaryIO, frames: Iterable[Tensor], fps: Fraction, like: VideoInfo | None) -> int:
    """Write frames (H, W, 3) in [0, 1] as they come: 4:2:0, or 4:4:4 where a side is odd.

    Their matrix is the usual one of their size, because the stream does not state it.

    Args:
        like: the video they come from; its depth and pixel aspect are kept.

    Returns:
        The number of frames written.

    Raises:
        VideoError: there are no frames, or they are of several sizes.
    """
    count, shape, colour, pixels = 0, None, Colour.usual(1), ""
    for picture in frames:
        if shape is None:
            shape = picture.shape
            height, width, _ = shape
            colour = replace(Colour.usual(height), bits=like.colour.bits if like is not None else 8)
            chroma = "420" if height % 2 == 0 and width % 2 == 0 else "444"
            depth = "" if colour.bits == 8 else f"{colour.bits}le"
            pixels = f"yuv{chroma}p{depth}"
            _write(stream, _head(height, width, fps, chroma, colour.bits, like))
        elif picture.shape != shape:
            height, width, *_ = picture.shape
            raise VideoError(f"A frame is {width}x{height}, and the first {shape[1]}x{shape[0]}.")
        full = f"yuv444p{'' if colour.bits == 8 else f'{colour.bits}le'}"
        frame = resampled(to_frame(picture, colour, full), pixels, False)
        _write(stream, _FRAME + b"\n")
        for index in range(3):
            _write(stream, plane_of(frame, index).tobytes())
        count += 1
    if not count:
        raise VideoError("Nothing was written, because there are no frames.")
    stream.flush()
    return count


def _head(height: int, width: int, fps: Fraction, chroma: str, bits: int, like: VideoInfo | None) -> bytes:
    aspect = like.pixel_aspect if like is not None else Fraction(1)
    name = chroma + (f"p{bits}" if bits > 8 else "jpeg" if chroma == "420" else "")
    deep = f" XYSCSS={chroma}P{bits}" if bits > 8 else ""
    return (
        f"YUV4MPEG2 W{width} H{height} F{fps.numerator}:{fps.denominator} Ip A{aspect.numerator}:{aspect.denominator} "
        f"C{name}{deep} XCOLORRANGE=LIMITED\n"
    ).encode()


def _line(stream: BinaryIO) -> bytes:
    """The next line without its end; empty at the end of the stream."""
    line = bytearray()
    while len(line) < _LONGEST_LINE and (byte := stream.read(1)) and byte != b"\n":
        line += byte
    return bytes(line)


def _ratio(text: str) -> Fraction | None:
    numerator, denominator = text.split(":")
    return Fraction(int(numerator), int(denominator)) if int(numerator) and int(denominator) else None


def _pixels(name: str) -> str:
    base, _, depth = name.partition("p") if name not in _FORMATS else (name, "", "")
    if name.startswith("mono"):
        base, depth = "mono", name[4:]
    if depth and depth not in _DEPTHS:
        raise ValueError(name)
    if base not in _FORMATS:
        raise ValueError(name)
    return _FORMATS[base] + (f"{depth}le" if depth else "")


def _frame(stream: BinaryIO, header: Header) -> VideoFrame | None:
    """The next frame; None where the stream ends within it."""
    full = header.full_range and header.bits == 8  # older FFmpeg goes by the name of the format
    pixels = header.pixels.replace("yuv", "yuvj") if full else header.pixels
    frame = import_av().VideoFrame(header.width, header.height, pixels)
    grey = header.pixels.startswith("gray")  # written by FFmpeg from black to white, whatever it states
    frame.color_range = FULL if header.full_range or grey else LIMITED
    for index in range(len(frame.planes)):
        plane = plane_of(frame, index)
        data = bytearray(plane.nbytes)
        view, filled = memoryview(data), 0
        while filled < len(data):  # a pipe gives what it has
            part = stream.read(len(data) - filled)
            if not part:
                return None
            view[filled : filled + len(part)] = part
            filled += len(part)
        plane[:] = np.frombuffer(data, plane.dtype).reshape(plane.shape)
    return frame


def _write(stream: BinaryIO, data: bytes) -> None:
    """All of it; a pipe may take less at once."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]

"""GIF files: a palette for each frame, and times that add up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from ..files import atomic
from .blame import made, writing
from .pyav import File, VideoError, import_av, name_of
from .samples import to_rgb_frame

log = logging.getLogger(__name__)

_SECOND = 100  # in the units of a GIF
_SHORTEST = 2  # of them; players show what is shorter for ten
_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_CONTROL = b"\x21\xf9\x04"  # begins a block that says how long the next picture is shown
_END = b"\x3b"


def write_gif(file: File, frames: Iterable[Tensor], fps: Fraction) -> int:
    """Encode frames (H, W, 3) in [0, 1], all of one size, as they come; those are left out for which there is no time.

    Of frames with opacity, (H, W, 4), what is less than half opaque is transparent.

    Returns:
        The number of frames written.

    Raises:
        VideoError: the file cannot be written, or there are no frames. No file is left then.
    """
    if fps > Fraction(_SECOND, _SHORTEST):
        log.warning("A GIF shows at most 50 frames a second: of the %s in %s others are left out.", fps, name_of(file))
    elif _SECOND % fps:
        log.warning("A GIF's times are hundredths of a second: frames of %s last %s.", name_of(file), _lasts(fps))
    with writing(name_of(file)):
        if not isinstance(file, Path):
            return _written(file, made(frames), fps, name_of(file))
        with atomic(file) as partial, partial.open("wb") as stream:
            return _written(stream, made(frames), fps, name_of(file))


def _lasts(fps: Fraction) -> str:
    short = int(_SECOND / fps)
    return f"{short} or {short + 1}, so that on average there are {float(fps):.6g} a second"


def _written(stream: BinaryIO, frames: Iterable[Tensor], fps: Fraction, name: str) -> int:
    encoder: _Encoder | None = None
    count = total = 0
    shown = -_SHORTEST
    for frame in frames:
        time = round(total * _SECOND / fps)
        total += 1
        if encoder is None:
            encoder = _Encoder(stream, frame)
        if time - shown >= _SHORTEST:
            encoder.add(frame, time)
            shown, count = time, count + 1
    if encoder is None:
        raise VideoError(f"{name} was not written, because there are no frames.")
    encoder.finish(max(round(total * _SECOND / fps), shown + _SHORTEST))
    return count


class _Encoder:
    """A GIF being written; a picture's time is known when the next one comes."""

    def __init__(self, stream: BinaryIO, first: Tensor) -> None:
        av = import_av()
        height, width, channels = first.shape
        self._stream, self._size, self._waiting = stream, (height, width, channels), b""
        self._format = "rgb24" if channels == 3 else "rgba"
        self._time, self._delay_at = 0, 0
        context = av.CodecContext.create("gif", "w")
        context.width, context.height, context.pix_fmt, context.time_base = width, height, "pal8", Fraction(1, _SECOND)
        self._context = context
        graph = av.filter.Graph()
        self._entry = graph.add_buffer(width=width, height=height, format=self._format, time_base=Fraction(1, _SECOND))
        copies = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single")
        mapped = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        self._exit = graph.add("buffersink")
        self._entry.link_to(copies)
        copies.link_to(palette, 0, 0)
        copies.link_to(mapped, 1, 0)
        palette.link_to(mapped, 0, 1)
        mapped.link_to(self._exit)
        graph.configure()
        self._graph = graph

    def add(self, picture: Tensor, time: int) -> None:
        """Encode a picture that is shown from `time` on."""
        if tuple(picture.shape) != self._size:
            height, width, *_ = picture.shape
            raise VideoError(f"A frame is {width}x{height}, and the first {self._size[1]}x{self._size[0]}.")
        frame = to_rgb_frame(picture, self._format)
        frame.pts, frame.time_base = time, Fraction(1, _SECOND)
        self._entry.push(frame)
        for mapped in self._pulled():
            for packet in self._context.encode(mapped):
                self._put(bytes(packet), packet.pts)

    def finish(self, end: int) -> None:
        """Write the rest; the last picture is shown until `end`."""
        for packet in self._context.encode(None):
            self._put(bytes(packet), packet.pts)
        self._flush(end)
        self._stream.write(_END)

    def _pulled(self) -> Iterator[Any]:
        av = import_av()
        while True:
            try:
                yield self._exit.pull()
            except (BlockingIOError, av.error.EOFError):
                return

    def _put(self, data: bytes, time: int) -> None:
        """Take an encoded picture, the first with the file's head, and write the one before."""
        begin = 0
        if data.startswith(b"GIF"):
            flags = data[10]
            begin = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)  # a palette for all
            self._stream.write(data[:begin] + _FOR_EVER)
        else:
            self._flush(time)
        self._waiting = data[begin:]
        if not self._waiting.startswith(_CONTROL):
            self._waiting = _CONTROL + bytes(5) + self._waiting
        self._time = time

    def _flush(self, until: int) -> None:
        """Write the picture that waits; it is shown until then."""
        at = len(_CONTROL) + 1
        delay = min(until - self._time, 0xFFFF).to_bytes(2, "little")
        self._stream.write(self._waiting[:at] + delay + self._waiting[at + 2 :])

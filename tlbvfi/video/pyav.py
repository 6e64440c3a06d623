"""PyAV, imported where it is used: opening and decoding, with errors that are one sentence."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: FFmpeg's formats that only name other files, or make a picture of any text.
_NO_VIDEO = ("concat", "dash", "hls", "imf", "tty")
#: Decoders that know of opacity, by the names of those that do not.
_OPACITY_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


#: A file by its path, or an open, seekable one.
File = Path | BinaryIO


class VideoError(ValueError):
    """A file that cannot be read or written as video. One sentence, naming the file."""


def import_av() -> Any:
    """The package ``av``.

    Raises:
        VideoError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise VideoError("Reading and writing video needs PyAV, which is not installed: pip install av.") from None
    return av


def reason(error: BaseException) -> str:
    """An error of FFmpeg or of the system in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def name_of(file: File) -> str:
    """What a sentence calls the file."""
    return str(file) if isinstance(file, Path) else "The open file"


class _View(io.RawIOBase):
    """An open file with a position of its own, so that several can read it by turns."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._position = file, 0
        self._size = file.seek(0, io.SEEK_END)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def open_input(file: File) -> InputContainer:
    """A file opened for reading from its begin. A playlist in the disguise of a video must not reach out."""
    source = str(file.resolve()) if isinstance(file, Path) else _View(file)
    return import_av().open(source, options={"protocol_whitelist": "file"})


@contextmanager
def opened(file: File) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its main video stream.

    Raises:
        VideoError: it is missing, or is no video.
    """
    av, name = import_av(), name_of(file)
    if isinstance(file, Path) and not file.exists():
        raise VideoError(f"{name} does not exist.")
    if isinstance(file, Path) and file.is_dir():
        raise VideoError(f"{name} is a folder, not a video.")
    try:
        container = open_input(file)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name} is not a readable video ({reason(error)}).") from None
    with container:
        if container.format.name in _NO_VIDEO:
            raise VideoError(f"{name} is not a readable video (it is text or a list of files).")
        stream = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{name} has no pictures in it.")
        yield container, cast("VideoStream", stream)


def first_time(file: File) -> Fraction:
    """When the first frame that can be decoded is shown, in seconds of the file's clock: there its video begins.

    Raises:
        VideoError: there is none.
    """
    with opened(file) as (container, stream):
        for frame in decoded(container, stream, file):
            return time_of(frame) or Fraction(0)
    raise VideoError(f"{name_of(file)} has no frame that can be decoded.")


def time_of(frame: VideoFrame) -> Fraction | None:
    """When a frame is shown, in seconds of its file's clock; None where the file does not say."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


def decoded(
    container: InputContainer, stream: VideoStream, file: File, packets: Iterable[Packet[VideoStream]] | None = None
) -> Iterator[VideoFrame]:
    """The stream's frames as they are stored, decoded as they are asked for; from `packets`, or from its begin.

    Raises:
        VideoError: it cannot be decoded further.
    """
    av = import_av()
    stream.thread_type = "AUTO"
    decode = _decoding(stream)
    count = 0
    try:
        for packet in container.demux(stream) if packets is None else packets:
            for frame in decode(packet):
                yield frame
                count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name_of(file)} cannot be decoded after frame {count} ({reason(error)}).") from None


def _decoding(stream: VideoStream) -> Callable[[Packet[VideoStream]], list[VideoFrame]]:
    """What makes frames of a stream's packets: libvpx where there is opacity, which FFmpeg's own decoder leaves out."""
    av = import_av()
    decoder = _OPACITY_DECODERS.get(stream.codec_context.name)
    if decoder is None or stream.metadata.get("alpha_mode") != "1":
        return lambda packet: packet.decode()
    try:
        context = av.CodecContext.create(decoder, "r")
    except av.codec.codec.UnknownCodecError:
        return lambda packet: packet.decode()
    return lambda packet: cast("list[VideoFrame]", context.decode(packet if packet.size else None))

"""PyAV, imported where it is used: opening and decoding, with errors that are one sentence."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..files import resolved
from ..quoting import escaped

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: FFmpeg's formats that only name other files, or make a picture of any text.
_NO_VIDEO = ("concat", "dash", "hls", "imf", "tty")


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
    """What a sentence calls the file: its name, on one line."""
    return escaped(str(file), 300) if isinstance(file, Path) else "The open file"


class _View(io.RawIOBase):
    """An open file with a position of its own, so that several can read it by turns."""

    def __init__(self, file: BinaryIO, owned: bool = False) -> None:
        """owned: the file is closed with this."""
        self._file, self._position, self._owned = file, 0, owned
        self._size = file.seek(0, io.SEEK_END)

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()

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
    source: str | _View
    if not isinstance(file, Path):
        source = _View(file)
    elif "%" in str(file := resolved(file)):  # to FFmpeg a pattern for the names of several pictures
        source = _View(file.open("rb"), owned=True)
    else:
        source = str(file)
    return import_av().open(source, options={"protocol_whitelist": "file"})


def check_file(file: Path) -> None:
    """Raise VideoError where `file` is none that can be read, again and again and from wherever."""
    name = name_of(file)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"{name} does not exist.") from None
    except (OSError, ValueError) as error:
        raise VideoError(f"{name} cannot be read ({reason(error)}).") from None
    if stat.S_ISDIR(mode):
        raise VideoError(f"{name} is a folder, not a video.")
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise VideoError(f"{name} is {kind}, not a file; raw frames can be piped in with - as IN.")


@contextmanager
def opened(file: File) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its main video stream.

    Raises:
        VideoError: it is missing, or is no video.
    """
    av, name = import_av(), name_of(file)
    if isinstance(file, Path):
        check_file(file)
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
    count = 0
    try:
        for packet in container.demux(stream) if packets is None else packets:
            for frame in packet.decode():
                yield frame
                count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name_of(file)} cannot be decoded after frame {count} ({reason(error)}).") from None

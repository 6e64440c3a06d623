"""PyAV, imported where it is used: opening and decoding, with errors that are one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: FFmpeg's formats that only name other files, or make a picture of any text.
_NO_VIDEO = ("concat", "dash", "hls", "imf", "tty")


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


def open_input(path: Path) -> InputContainer:
    """A file opened for reading. A playlist in the disguise of a video must not reach out."""
    return import_av().open(str(path.resolve()), options={"protocol_whitelist": "file"})


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its main video stream.

    Raises:
        VideoError: it is missing, or is no video.
    """
    av = import_av()
    if not path.exists():
        raise VideoError(f"{path} does not exist.")
    if path.is_dir():
        raise VideoError(f"{path} is a folder, not a video.")
    try:
        container = open_input(path)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} is not a readable video ({reason(error)}).") from None
    with container:
        if container.format.name in _NO_VIDEO:
            raise VideoError(f"{path} is not a readable video (it is text or a list of files).")
        stream = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{path} has no pictures in it.")
        yield container, cast("VideoStream", stream)


def decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    """The stream's frames as they are stored, decoded as they are asked for.

    Raises:
        VideoError: it cannot be decoded further.
    """
    av = import_av()
    stream.thread_type = "AUTO"
    count = 0
    try:
        for frame in container.decode(stream):
            yield frame
            count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be decoded after frame {count} ({reason(error)}).") from None

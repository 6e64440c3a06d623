"""PyAV, imported where it is used: opening and decoding, with errors that are one sentence."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..files import resolved
from ..quoting import escaped
from .damage import Account
from .fields import SecondFields

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: FFmpeg's formats that only name other files, or make a picture of any text.
_NO_VIDEO = ("concat", "dash", "hls", "imf", "tty")
#: Codecs whose packets in AVI have times in the order in which they are decoded.
REORDERED = ("h264", "hevc", "vvc")
#: Files and codecs whose frames' times are those of decoding, or guessed.
_MISTIMED = {("avi", codec) for codec in REORDERED} | {("avi", "mpeg4"), ("mpeg", "mpeg2video")}
ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
#: FFmpeg's own limit of the threads that it takes by itself.
_MOST_THREADS = 16
#: Packets in a row that are tried in vain before a video counts as ended, and attempts to read any.
_MOST_ERRORS, _MOST_FAILURES = 10_000, 100
#: Seconds.
_LONGEST_REORDERING = 600
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
    return import_av().open(source, container_options={"protocol_whitelist": "file"}, metadata_errors="replace")


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
        stream = main_stream(container)
        if stream is None:
            covers = [is_cover(each) for each in container.streams.video]
            why = "no pictures" if not covers else "no pictures but a cover" if all(covers) else "none of a known codec"
            raise VideoError(f"{name} has no video in it ({why}).")
        yield container, stream


def main_stream(container: InputContainer) -> VideoStream | None:
    """A file's video; None where it has none, or nothing but a cover, or of an unknown codec."""
    known = [stream for stream in container.streams.video if cast("Any", stream).codec_context is not None]
    streams = [stream for stream in known if not is_cover(stream)]
    best = container.streams.best("video")
    return next((stream for stream in streams if stream is best), streams[0] if streams else None)


def is_cover(stream: Any) -> bool:
    """Whether a stream is a single picture that belongs to a file, such as the cover of a song."""
    return bool(getattr(stream.disposition, "value", stream.disposition) & ATTACHED_PICTURE)


def time_of(frame: VideoFrame) -> Fraction | None:
    """When a frame is shown, in seconds of its file's clock; None where the file does not say."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


def decoded(
    container: InputContainer,
    stream: VideoStream,
    file: File,
    packets: Iterable[Packet[VideoStream]] | None = None,
    account: Account | None = None,
) -> Iterator[VideoFrame]:
    """The stream's frames as they are stored, decoded as they are asked for; from `packets`, whose last one is empty,
    or from its begin.

    Packets that are damaged are passed over; `account` says then what is missing.
    Raises:
        VideoError: nothing can be decoded.
    """
    account = account or Account()
    _prepare(stream.codec_context, account, SecondFields(stream).is_second)
    source = readable(container, [stream], on_stop=account.stop) if packets is None else packets
    frames = _frames(_decoding(stream), source, account)
    has_no_order = (container.format.name, stream.codec_context.name) in _MISTIMED
    for frame in frames if has_no_order else _in_order(frames):
        account.take(frame)
        yield frame
    if account.lacks_its_end():
        with opened(file) as (_, again):
            for frame in _frames(_decoding(again), [*account.again(), import_av().Packet()], account):
                if account.is_new(frame):
                    account.take(frame)
                    yield frame
    account.is_done = True
    if not account.frames and account.why is not None:
        raise VideoError(f"{name_of(file)} has no frame that can be decoded ({account.why}).")


def _in_order(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames; of a damaged video one may come too early, and waits then for those that are shown before it, and one
    that comes too late is left out.
    """
    last: Fraction | None = None
    waiting: VideoFrame | None = None
    for frame in frames:
        if waiting is not None:
            if _rise(last, time_of(frame), time_of(waiting)):
                frame, waiting = waiting, frame
            if not _rise(time_of(waiting), last, time_of(frame)):  # times that start again stay behind
                last = time_of(waiting)
                yield waiting
        waiting = frame
    if waiting is not None and not _rise(time_of(waiting), last):
        yield waiting


def _rise(*times: Fraction | None) -> bool:
    """Whether all of some times are known, and each is later than the one before."""
    return all(a is not None and b is not None and a < b for a, b in pairwise(times))


def decoded_with(context: VideoCodecContext, packets: Iterable[Packet[Any]], account: Account) -> Iterator[VideoFrame]:
    """The frames of packets by a decoder that belongs to no file; the last packet is empty."""
    _prepare(context, account)

    def given(packet: Packet[Any]) -> list[VideoFrame]:
        return context.decode(packet)

    for frame in _in_order(_frames(_past_damage(context, given), packets, account)):
        account.take(frame)
        yield frame


def _prepare(
    context: VideoCodecContext, account: Account, is_second: Callable[[Packet[Any]], bool] | None = None
) -> None:
    context.thread_type = "AUTO"
    if context.name == "libdav1d":  # which gives up good frames together with bad ones otherwise
        context.options = {"max_frame_delay": "1"}
    account.start(context.name, min((os.cpu_count() or 1) + 1, _MOST_THREADS), is_second)


def _frames(
    decode: Callable[[Packet[Any]], list[VideoFrame]], packets: Iterable[Packet[Any]], account: Account
) -> Iterator[VideoFrame]:
    """The frames of packets, as far as they can be decoded; the last packet is empty."""
    errors = import_av().error
    in_a_row = 0
    for packet in packets:
        account.send(packet)
        try:
            frames = decode(packet)
        except errors.FFmpegError as error:
            account.fail(reason(error))
            in_a_row += 1
            if in_a_row == _MOST_ERRORS:
                account.stop(reason(error))
                return
            continue
        if frames:
            in_a_row = 0
        yield from frames


def has_opacity_beside(stream: VideoStream) -> bool:
    """Whether a stream of VP8 or VP9 has its opacity beside its packets. What is copied states it in capitals."""
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())


def _decoding(stream: VideoStream) -> Callable[[Packet[Any]], list[VideoFrame]]:
    """What makes frames of a stream's packets: libvpx where there is opacity, which FFmpeg's own decoder leaves out."""
    context: Any = stream.codec_context
    if (name := decoder_of(stream)) != context.name:
        context = import_av().CodecContext.create(name, "r")

    def given(packet: Packet[Any]) -> list[VideoFrame]:
        if context is stream.codec_context:
            return stream.decode(packet)
        return cast("list[VideoFrame]", context.decode(packet if packet.size else None))

    return _past_damage(context, given)


def decoder_of(stream: VideoStream) -> str:
    """The name of what decodes a stream's packets."""
    name = stream.codec_context.name
    other = _OPACITY_DECODERS.get(name)
    if other is not None and has_opacity_beside(stream):
        with suppress(import_av().codec.codec.UnknownCodecError):
            import_av().Codec(other, "r")
            return other
    return name


def _past_damage(
    context: Any, given: Callable[[Packet[Any]], list[VideoFrame]]
) -> Callable[[Packet[Any]], list[VideoFrame]]:
    def decode(packet: Packet[Any]) -> list[VideoFrame]:
        try:
            return given(packet)
        except BlockingIOError:  # what is left of a damaged packet is in the way
            context.flush_buffers()
            return given(packet)

    return decode


def _is_misdated(packet: Packet[Any]) -> bool:
    """Whether a packet is shown so long before or after it is decoded as no video has it."""
    if packet.pts is None or packet.dts is None or packet.time_base is None:
        return False
    return abs(packet.pts - packet.dts) * packet.time_base > _LONGEST_REORDERING


def readable(
    container: InputContainer,
    streams: Sequence[Any],
    on_stop: Callable[[str], object] | None = None,
) -> Iterator[Packet[Any]]:
    """Packets of a file from where it stands, past what cannot be read; at the end an empty one for each stream. What
    would be shown ages before or after it is decoded has a damaged time, and is shown when it is decoded.

    Args:
        on_stop: told why nothing more can be read, where that is not the end of the file.
    """
    failures, errors = 0, import_av().error
    packets = container.demux(*streams)
    while True:
        try:
            for packet in packets:
                if _is_misdated(packet):
                    packet.pts = packet.dts
                yield packet
                failures = 0
            return
        except (errors.FFmpegError, OSError) as error:
            failures += 1
            if failures == _MOST_FAILURES:
                if on_stop is not None:
                    on_stop(reason(error))
                break
        packets = container.demux(*streams)
    for stream in streams:
        last = import_av().Packet()
        last.stream, last.time_base = stream, stream.time_base
        yield last

"""One video of several that were encoded alike, without decoding them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .containers import container_of
from .passing import PassedOn, Passing, passing
from .pyav import File, VideoError, has_opacity_beside, import_av, name_of, opened, reason
from .slots import writable
from .times import frame_rate
from .writing import new_file

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


def join_videos(
    parts: Sequence[Path],
    target: File,
    *,
    fps: Fraction | None = None,
    passed_on: PassedOn | None = None,
    suffix: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write the frames of several videos one after another into a new file, at a constant rate and as they are encoded.

    With PyAV before 18, Matroska and WebM do not state the rate.

    Args:
        parts: videos of one size and encoding, as :func:`.writing.write_video` makes them.
        target, passed_on, suffix, metadata: as for it.
        fps: frames per second; by default those of the first part.

    Returns:
        The number of frames written.

    Raises:
        VideoError: there are no parts, or they differ; one cannot be read, or the file not be written. No file is left
            then.
    """
    if not parts:
        raise VideoError(f"{name_of(target)} was not written, because there are no parts to join.")
    with opened(parts[0]) as (_, first):
        rate = fps or frame_rate(first)
        if rate is None:
            raise VideoError(f"{parts[0]} states no frame rate; give one.")
        rate = writable(rate)
        with (
            new_file(target, suffix, rate, metadata, passed_on) as container,
        ):
            track = _Track(container, first, rate, max(_delay(part, rate) for part in parts))
            with passing(passed_on, container, container_of(target, suffix), name_of(target)) as along:
                container.metadata.update(metadata or {})
                for part in parts:
                    track.add(part, along)
                along.mux_until(None)
            return track.count


class _Track:
    """The video track of the new file."""

    def __init__(self, container: OutputContainer, first: VideoStream, fps: Fraction, delay: int) -> None:
        """delay: by how many frames decoding is ahead of showing."""
        try:
            self._stream: Any = container.add_stream_from_template(first, opaque=True)
        except ValueError as error:
            raise VideoError(f"The parts cannot be joined into such a file: {error}.") from None
        with suppress(RuntimeError):  # not in PyAV before 16, whose times are then nearly exact
            self._stream.codec_context.framerate = fps
            self._stream.time_base = 1 / fps
        if first.codec_context.name == "hevc" and container.format.name in ("mp4", "mov"):
            self._stream.codec_context.codec_tag = "hvc1"
        if has_opacity_beside(first):
            self._stream.metadata["alpha_mode"] = "1"
        self._container, self._fps = container, fps
        self._kind = _kind(first)
        self._delay, self.count = delay, 0

    def add(self, part: Path, along: Passing) -> None:
        """Copy a part's packets, and pass on what belongs before the end of each."""
        before = self.count
        with opened(part) as (container, stream):
            if _kind(stream) != self._kind:
                raise VideoError(f"{part} is encoded otherwise than the first part, so that they cannot be joined.")
            for packet in _packets(container.demux(stream), part):
                packet.pts = before + _place(packet, self._fps)
                packet.dts = self.count - self._delay
                packet.duration, packet.time_base = 1, 1 / self._fps
                packet.stream = self._stream
                self._container.mux(packet)
                self.count += 1
                along.mux_until(self.count / self._fps)


def _packets(packets: Iterator[Packet[Any]], part: Path) -> Iterator[Packet[Any]]:
    """Those that hold a frame."""
    try:
        for packet in packets:
            if packet.size:
                if packet.pts is None:
                    raise VideoError(f"{part} does not say when its frames are shown, so that it cannot be joined.")
                yield packet
    except (import_av().error.FFmpegError, OSError) as error:
        raise VideoError(f"{part} cannot be read to its end ({reason(error)}).") from None


def _place(packet: Packet[Any], fps: Fraction) -> int:
    """Which frame of its part a packet holds, in the order in which they are shown."""
    return round((packet.pts or 0) * packet.time_base * fps)


def _delay(part: Path, fps: Fraction) -> int:
    """By how many frames the decoding of a part must be ahead of showing it."""
    with opened(part) as (container, stream):
        packets = _packets(container.demux(stream), part)
        return max((index - _place(packet, fps) for index, packet in enumerate(packets)), default=0)


def _kind(stream: VideoStream) -> tuple[object, ...]:
    """What must be the same for packets to follow each other."""
    context = stream.codec_context
    return context.name, context.width, context.height, context.pix_fmt, context.extradata

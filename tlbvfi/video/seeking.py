"""The frames of an excerpt, decoded from the key frame before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from .excerpt import Excerpt
from .pyav import File, VideoError, decoded, first_time, import_av, name_of, opened, time_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: Excerpts that start earlier are decoded from the begin.
_NEAR = Fraction(2)


def frames_within(file: File, excerpt: Excerpt, fps: Fraction | None = None) -> Iterator[VideoFrame]:
    """The decoded frames of a video that lie in an excerpt.

    Args:
        fps: their rate, where the file states no times.

    Raises:
        VideoError: the file cannot be read, or not further.
    """
    if excerpt.is_whole:
        with opened(file) as (container, stream):
            yield from decoded(container, stream, file)
        return
    zero = first_time(file)
    frames = _from_key_frame(file, zero, excerpt) if excerpt.first >= _NEAR else None
    with opened(file) as (container, stream):
        if frames is None:
            frames = decoded(container, stream, file)
        unit, rate = Fraction(stream.time_base or 0), fps or stream.average_rate
        for index, frame in enumerate(frames):
            shown = time_of(frame)
            if shown is not None:
                time = shown - zero
            elif rate:
                time = index / rate
            else:
                raise VideoError(f"{name_of(file)} has no times, so that no excerpt can be taken; give a frame rate.")
            if excerpt.is_after(time, unit):
                return
            if not excerpt.is_before(time, unit):
                yield frame


def _from_key_frame(file: File, zero: Fraction, excerpt: Excerpt) -> Iterator[VideoFrame] | None:
    """The frames from some key frame on that is shown before the excerpt; None where none can be found.

    A file's index may be of the times at which frames are decoded, so what was found is looked at: the key frame must
    be shown before the excerpt starts, and so must the first frame that the decoder then gives, because frames that
    need earlier ones are missing or damaged up to the key frame.
    """
    back = Fraction(0)
    while back < excerpt.first:
        frames = _attempt(file, zero + excerpt.first - back, zero + excerpt.first)
        if (first := next(frames, None)) is not None:
            return chain([first], frames)
        back = 2 * back + 1
    return None


def _attempt(file: File, target: Fraction, start: Fraction) -> Iterator[VideoFrame]:
    """The frames from the key frame on that a seek to `target` finds; none where it, or they, come after `start`."""
    with opened(file) as (container, stream):
        packets = _sought(container, stream, target)
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or key.pts is None or key.pts * key.time_base > start:
            return
        frames = decoded(container, stream, file, chain([key], packets))
        first = next(frames, None)
        time = None if first is None else time_of(first)
        if first is None or time is None or time > start:
            return
        yield first
        yield from frames


def _sought(container: InputContainer, stream: VideoStream, target: Fraction) -> Iterator[Packet[VideoStream]]:
    """The packets after a seek; none where the file does not allow it."""
    try:
        container.seek(int(target / (stream.time_base or 1)), stream=stream, backward=True)
        yield from container.demux(stream)
    except (import_av().error.FFmpegError, OSError) as error:
        log.debug("Seeking failed: %s", error)

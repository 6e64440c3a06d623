"""The frames of an excerpt, decoded from the key frame before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from .excerpt import ROUNDING, Excerpt
from .interlaced import deinterlaced, order_of
from .pyav import File, VideoError, decoded, first_time, import_av, name_of, opened, time_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: FFmpeg's numbers of the kinds of pictures that need no other; 0 is that of decoders that do not say.
_INTRA = (0, 1, 5)
#: Kinds of files in which times may belong to other frames after a seek.
_UNCERTAIN = ("mpeg", "mpegvideo", "h264", "hevc")
#: Excerpts that start earlier are decoded from the begin.
_NEAR = Fraction(2)


def frames_within(
    file: File, excerpt: Excerpt, fps: Fraction | None = None, *, deinterlace: bool = False
) -> Iterator[VideoFrame]:
    """The decoded frames of a video that lie in an excerpt.

    Args:
        fps: their rate, where the file states no times.
        deinterlace: those that are interlaced.

    Raises:
        VideoError: the file cannot be read, or not further.
    """
    if excerpt.is_whole:
        with opened(file) as (container, stream):
            frames = decoded(container, stream, file)
            yield from _whole_pictures(frames, stream, file) if deinterlace else frames
        return
    zero = first_time(file)
    sought = _from_key_frame(file, zero, excerpt) if excerpt.first >= _NEAR else None
    with opened(file) as (container, stream):
        frames = decoded(container, stream, file) if sought is None else sought
        if deinterlace:
            frames = _whole_pictures(frames, stream, file)
        rate = fps or stream.average_rate
        for index, frame in enumerate(frames):
            shown = time_of(frame)
            if shown is not None:
                time = shown - zero
            elif rate:
                time = index / rate
            else:
                raise VideoError(f"{name_of(file)} has no times, so that no excerpt can be taken; give a frame rate.")
            if excerpt.is_after(time):
                return
            if not excerpt.is_before(time):
                yield frame


def _whole_pictures(frames: Iterator[VideoFrame], stream: VideoStream, file: File) -> Iterator[VideoFrame]:
    """The frames of a stream, deinterlaced where they are interlaced."""
    return deinterlaced(frames, name_of(file), order_of(stream), stream.codec_context.name)


def _from_key_frame(file: File, zero: Fraction, excerpt: Excerpt) -> Iterator[VideoFrame] | None:
    """The frames from some key frame on that is shown before the excerpt; None where none can be found."""
    back = Fraction(0)
    while back < excerpt.first:
        frames = _attempt(file, zero + excerpt.first - back, zero + excerpt.first)
        if (first := next(frames, None)) is not None:
            return chain([first], frames)
        back = 2 * back + 1
    return None


def _attempt(file: File, target: Fraction, start: Fraction) -> Iterator[VideoFrame]:
    """The frames from the key frame on that a seek to `target` finds; none where that comes after `start`.

    A file's index may be of the times at which frames are decoded, so that the key frame may be shown too late. Frames
    that are shown before it are damaged, and so are those after it where it is no intra picture, but the first of
    several that build one up.
    """
    with opened(file) as (container, stream):
        packets = _sought(container, stream, target)
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is None or key.pts is None or key.pts * key.time_base > start:
            return
        frames = decoded(container, stream, file, chain([key], packets))
        shown = (frame for frame in frames if frame.pts is not None and frame.pts >= key.pts)
        first = next(shown, None)
        if first is None or first.pts != key.pts or first.pict_type not in _INTRA:
            return
        if first.interlaced_frame and (time_of(first) or start) + ROUNDING >= start:
            return  # deinterlacing looks at the frame before the first one that is wanted
        yield first
        yield from frames


def _sought(container: InputContainer, stream: VideoStream, target: Fraction) -> Iterator[Packet[VideoStream]]:
    """The packets after a seek; none where the file does not allow it."""
    if container.format.name in _UNCERTAIN:
        return
    try:
        container.seek(int(target / (stream.time_base or 1)), stream=stream, backward=True)
        yield from container.demux(stream)
    except (import_av().error.FFmpegError, OSError) as error:
        log.debug("Seeking failed: %s", error)

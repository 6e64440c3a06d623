"""The frames of an excerpt, decoded from the key frame before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from .damage import Account
from .excerpt import ROUNDING, Excerpt
from .interlaced import deinterlaced, order_of
from .pyav import File, VideoError, decoded, import_av, name_of, opened, readable, time_of
from .times import Times, times_of

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
#: By how many seconds at most a frame stands elsewhere than it is shown.
_APART = Fraction(1, 5)


def frames_within(
    file: File,
    excerpt: Excerpt,
    fps: Fraction | None = None,
    account: Account | None = None,
    *,
    deinterlace: bool = False,
) -> Iterator[VideoFrame]:
    """The decoded frames of a video that lie in an excerpt, at a constant rate: one that lasts longer comes several
    times, as the same object.

    Args:
        fps: their rate in place of the file's: every frame comes once.
        account: says then which frames of the excerpt are missing.
        deinterlace: those that are interlaced.

    Raises:
        VideoError: the file cannot be read.
    """
    account = account or Account()
    if excerpt.is_whole and fps is not None:
        with opened(file) as (container, stream):
            frames = decoded(container, stream, file, account=account)
            yield from _whole_pictures(frames, stream, file) if deinterlace else frames
        return
    times = times_of(file)
    if not excerpt.is_whole:
        account.look_at(times.zero, excerpt.first, excerpt.end)
    seekable = not (times.clock.jumps or times.by_order)
    sought = _from_key_frame(file, times, excerpt, account) if excerpt.first >= _NEAR and seekable else None
    with opened(file) as (container, stream):
        if sought is None:
            packets = times.clock.retimed(readable(container, [stream])) if times.clock.jumps else None
            frames = decoded(container, stream, file, packets, account)
        else:
            frames = sought
        if deinterlace:
            frames = _whole_pictures(frames, stream, file)
        for time, frame in _at(frames, times, fps):
            if not excerpt.is_whole:
                if time is None:
                    raise VideoError(f"{name_of(file)} has no times, so that no excerpt can be taken; give a rate.")
                if excerpt.is_after(time):
                    return
                if excerpt.is_before(time):
                    continue
            yield frame


def _at(
    frames: Iterator[VideoFrame], times: Times, fps: Fraction | None
) -> Iterator[tuple[Fraction | None, VideoFrame]]:
    """Each frame with its time from the video's begin."""
    if fps is None:
        yield from times.in_slots(frames)
        return
    for index, frame in enumerate(frames):
        shown = time_of(frame)
        yield (index / fps if shown is None else shown - times.zero), frame


def _whole_pictures(frames: Iterator[VideoFrame], stream: VideoStream, file: File) -> Iterator[VideoFrame]:
    """The frames of a stream, deinterlaced where they are interlaced."""
    return deinterlaced(frames, name_of(file), order_of(stream), stream.codec_context.name)


def _from_key_frame(file: File, times: Times, excerpt: Excerpt, account: Account) -> Iterator[VideoFrame] | None:
    """The frames from some key frame on that is shown before the excerpt; None where none can be found."""
    start = excerpt.first if times.is_even else excerpt.first - _APART
    back = Fraction(0)
    while back < start:
        frames = _attempt(file, times.zero + start - back, times.zero + start, account)
        if (first := next(frames, None)) is not None:
            return chain([first], frames)
        back = 2 * back + 1
    return None


def _attempt(file: File, target: Fraction, start: Fraction, account: Account) -> Iterator[VideoFrame]:
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
        frames = decoded(container, stream, file, chain([key], packets), account)
        shown = (frame for frame in frames if frame.pts is not None and frame.pts >= key.pts)
        try:
            first = next(shown, None)
        except VideoError:  # damaged from there on
            return
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
    except (import_av().error.FFmpegError, OSError) as error:
        log.debug("Seeking failed: %s", error)
        return
    yield from readable(container, [stream])

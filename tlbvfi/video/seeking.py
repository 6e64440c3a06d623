"""The frames of a video from some of them on, decoded from an access point before it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from .damage import Account
from .excerpt import Excerpt
from .interlaced import deinterlaced, order_of
from .pyav import File, VideoError, decoded, import_av, name_of, opened, readable, time_of
from .scan import FEWEST, Layout, Scan, Unexpected, layout_of, mark_of
from .times import Times, times_of

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

Item = TypeVar("Item")

log = logging.getLogger(__name__)

#: FFmpeg's numbers of the kinds of pictures that need no other; 0 is that of decoders that do not say.
_INTRA = (0, 1, 5)
#: By how many seconds at most a frame stands elsewhere than it is shown.
_APART = Fraction(1, 5)
#: What comes earlier, in bytes, is read rather than sought.
_NEAR_BYTES = 1 << 20
#: By how many seconds before what is wanted is sought, and among how many packets it has to be then.
_BACK, _MOST_PACKETS = (0, 2, 10), 1000


@dataclass(frozen=True)
class Start:
    """Where decoding begins.

    Attributes:
        layout: of the video.
        packet: the access point.
        frame: the index of its frame; of those from there on each has to come.
        place: the first one that is wanted, in the whole video; None where that follows from the frames' times.
    """

    layout: Layout
    packet: int
    frame: int
    place: int | None


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
    yield from map(itemgetter(0), marked_within(file, excerpt, fps, account, deinterlace=deinterlace))


def marked_within(
    file: File,
    excerpt: Excerpt,
    fps: Fraction | None = None,
    account: Account | None = None,
    first: int = 0,
    *,
    deinterlace: bool = False,
) -> Iterator[tuple[VideoFrame, bool]]:
    """The same frames, from the one with the index `first` on, each with whether it is the one before once more.

    They are the same as if all before them had been decoded, too. Where that is not certain, they are.
    """
    account = account or Account()
    given = 0
    start = start_of(file, excerpt, fps, first)
    if start is not None:
        try:
            for frame, again in _from_start(file, excerpt, fps, account, first, start, deinterlace=deinterlace):
                yield frame, again and first + given > 0
                given += 1
            return
        except Unexpected as error:
            log.debug("%s is decoded from its begin: %s", name_of(file), error)
    with opened(file) as (container, stream):
        times = None if excerpt.is_whole and fps is not None else times_of(file)
        packets = None
        if times is not None:
            _look_at(account, times, excerpt, fps, first)
            packets = times.clock.retimed(readable(container, [stream])) if times.clock.jumps else None
        frames: Iterator[VideoFrame] = decoded(container, stream, file, packets, account)
        if deinterlace:
            frames = _whole_pictures(frames, stream, file)
        if times is not None:
            frames = _within(_at(frames, times, fps), excerpt, file)
        yield from islice(marked(frames), first + given, None)


def start_of(file: File, excerpt: Excerpt, fps: Fraction | None, first: int) -> Start | None:
    """Where decoding may begin for the frames of an excerpt from the index `first` on; None for the file's begin.

    Raises:
        VideoError: the file cannot be read.
    """
    if (excerpt.is_whole and fps is not None) or not (first or excerpt.first):
        return None
    times = times_of(file)
    if times.rate is None or first + excerpt.first * times.rate < FEWEST:
        return None
    layout = layout_of(file, times)
    if layout is None:
        return None
    bounds = layout.within(excerpt)
    if fps is not None or bounds is None:  # how many frames come before is known only when they have been decoded
        place, wanted = None, int((excerpt.first - _APART) * times.rate)
    else:
        place = wanted = bounds[0] + first
    access = layout.access_before(layout.frame_at(wanted))
    return None if access is None else Start(layout, *access, place)


def layout_within(file: File, excerpt: Excerpt) -> tuple[Layout, tuple[int, int]] | None:
    """Where the frames of a video stand, and the places [begin, end) that are in an excerpt; None where that is not
    certain.

    Raises:
        VideoError: the file cannot be read.
    """
    layout = layout_of(file, times_of(file))
    bounds = None if layout is None else layout.within(excerpt)
    return None if layout is None or bounds is None else (layout, bounds)


def _from_start(
    file: File,
    excerpt: Excerpt,
    fps: Fraction | None,
    account: Account,
    first: int,
    start: Start,
    *,
    deinterlace: bool,
) -> Iterator[tuple[VideoFrame, bool]]:
    """The frames of an excerpt from an access point on.

    Raises:
        Unexpected: another frame comes than has to, or none.
    """
    layout, times = start.layout, start.layout.times
    _look_at(account, times, excerpt, fps, first)
    frames = decoded_from(file, layout, start.packet, start.frame, account)
    if deinterlace:
        with opened(file) as (_, stream):
            frames = _whole_pictures(frames, stream, file)
    skipped = first
    if start.place is not None:
        skipped, excerpt = start.place - layout.place_from(start.frame), Excerpt(None, excerpt.end)
    yield from islice(marked(_within(_at(frames, times, fps), excerpt, file)), skipped, None)


def decoded_from(file: File, layout: Layout, packet: int, frame: int, account: Account) -> Iterator[VideoFrame]:
    """The frames of a video as they are stored, from the one with the index `frame` on, that of the access point
    `packet`.

    Raises:
        Unexpected: another frame comes than has to, or none.
    """
    with ExitStack() as stack:
        container, stream, packets = sought_packets(stack, file, layout.scan, packet)
        frames = _decoded(container, stream, file, packets, account)
        yield from expected_frames(frames, layout.ticks[frame:], layout.tick, account, from_begin=packet == 0)


def _decoded(
    container: InputContainer, stream: VideoStream, file: File, packets: Iterable[Packet[Any]], account: Account
) -> Iterator[VideoFrame]:
    try:
        yield from decoded(container, stream, file, packets, account)
    except VideoError as error:
        raise Unexpected(str(error)) from error


def expected_frames(
    frames: Iterable[VideoFrame],
    ticks: NDArray[np.int64],
    tick: Fraction,
    account: Account,
    *,
    from_begin: bool = False,
    is_part: bool = False,
) -> Iterator[VideoFrame]:
    """The frames from that of an access point on, which is shown at the first of `ticks`; those before it may be
    damaged.

    Args:
        from_begin: they are from the video's begin.
        is_part: others may follow, which are left out.

    Raises:
        Unexpected: they are not one for each of the ticks, in their order and whole.
    """
    index = 0
    for frame in frames:
        if frame.pts is None or frame.time_base != tick:
            raise Unexpected("a frame has no time")
        if index == 0 and frame.pts < ticks[0]:
            continue
        if account.has_failed or getattr(frame, "is_corrupt", False):
            raise Unexpected("a packet is damaged")
        if index == len(ticks) or frame.pts != ticks[index]:
            raise Unexpected(f"a frame is shown at {frame.pts * tick} s")
        if index == 0 and not from_begin and frame.pict_type not in _INTRA:
            raise Unexpected("the first frame is no key frame")
        index += 1
        yield frame
        if is_part and index == len(ticks):
            return
    if index != len(ticks):
        raise Unexpected("frames are missing")


def sought_packets(
    stack: ExitStack, file: File, scan: Scan, number: int
) -> tuple[InputContainer, VideoStream, Iterator[Packet[Any]]]:
    """A file, opened until `stack` ends, its main stream, and its packets from the one of that number on, with the
    times that the scan found.

    The packets raise Unexpected where they are not those of the scan.
    """
    place = scan.marks[number][1]
    if place is None or place > _NEAR_BYTES:
        with ExitStack() as trial:
            container, stream = trial.enter_context(opened(file))
            for back in _BACK:
                if (found := _sought(container, stream, scan, number, back)) is not None:
                    stack.push(trial.pop_all())
                    return container, stream, _as_scanned(found, scan, number)
    container, stream = stack.enter_context(opened(file))
    return container, stream, _as_scanned(_after(readable(container, [stream]), number), scan, number)


def _after(packets: Iterator[Packet[Any]], number: int) -> Iterator[Packet[Any]]:
    """What comes after so many packets."""
    count = 0
    for packet in packets:
        if count >= number or not packet.size:
            yield packet
        count += bool(packet.size)


def _as_scanned(packets: Iterable[Packet[Any]], scan: Scan, number: int) -> Iterator[Packet[Any]]:
    """Packets that are known to be those from a number on, with the times of the scan."""
    for packet in packets:
        if packet.size:
            if number >= len(scan.marks) or mark_of(packet) != scan.marks[number]:
                raise Unexpected(f"another packet comes than number {number}")
            packet.pts, packet.dts = scan.shown[number], scan.decoded[number]
            number += 1
        yield packet
    if number != len(scan.marks):
        raise Unexpected("packets are missing")


def _sought(
    container: InputContainer, stream: VideoStream, scan: Scan, number: int, back: int
) -> Iterator[Packet[Any]] | None:
    """The packets from the one of that number on, found by a seek to `back` seconds before it; None where the file
    does not allow it."""
    shown, place, _ = scan.marks[number]
    if shown is None or place is None:
        return None
    try:
        container.seek(shown - round(back / (stream.time_base or 1)), stream=stream, backward=True)
    except (import_av().error.FFmpegError, OSError) as error:
        log.debug("Seeking failed: %s", error)
        return None
    packets = readable(container, [stream])
    for packet in islice(packets, _MOST_PACKETS):
        if mark_of(packet) == scan.marks[number]:
            return chain([packet], packets)
        if packet.pos is not None and packet.pos > place:
            return None
    return None


def _look_at(account: Account, times: Times, excerpt: Excerpt, fps: Fraction | None, first: int) -> None:
    """Have damage counted in what is wanted alone, as far as it is known when that begins."""
    begin = excerpt.first
    if first and fps is None and times.rate is not None:
        begin += first / times.rate
    if begin or not excerpt.is_whole:
        account.look_at(times.zero, begin, excerpt.end)


def marked(frames: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Each frame with whether it is the one before once more, the same object."""
    before: object = None
    for frame in frames:
        yield frame, frame is before
        before = frame


def _within(timed: Iterator[tuple[Fraction | None, VideoFrame]], excerpt: Excerpt, file: File) -> Iterator[VideoFrame]:
    """The frames that lie in an excerpt, of some with their times."""
    for time, frame in timed:
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

"""When the frames of a video are shown: its rate, its first frame, jumps of its clock, frames that last longer."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .fields import SecondFields
from .jumps import Shifts, shifts_of
from .packets import Packets, all_packets, is_known
from .pyav import REORDERED, File, VideoError, decoded, name_of, opened, readable, time_of
from .slots import Slots, simplified, slots_of
from .telecine import FILM, NTSC, Pulldown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: Flags of FFmpeg's kinds of files: without times, and with times that may start again.
_NO_TIMES, _RESTARTS = 0x80, 0x200
#: Of the former, those of which FFmpeg guesses times, with gaps.
_GUESSED = ("mpegvideo",)
#: Frames that are looked at.
_FIRST = 8


@dataclass(frozen=True)
class Clock:
    """A file's clock where it does not jump.

    Attributes:
        shifts: by streams, from which packet on it is behind what the file states.
    """

    shifts: Mapping[int, Shifts] = field(default_factory=dict)

    @property
    def jumps(self) -> bool:
        """Whether the file's own does."""
        return bool(self.shifts)

    def retimed(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """A file's packets from its begin, with times of this clock."""
        if not self.shifts:
            yield from packets
            return
        counts: defaultdict[int, int] = defaultdict(int)
        waiting = {index: list(reversed(shifts)) for index, shifts in self.shifts.items()}
        current: defaultdict[int, Fraction] = defaultdict(Fraction)
        for packet in packets:
            index = packet.stream.index
            if packet.size:
                coming = waiting.get(index)
                while coming and coming[-1][0] <= counts[index]:
                    current[index] = coming.pop()[1]
                counts[index] += 1
                ticks = round(current[index] / packet.time_base) if current[index] else 0
                if ticks and packet.pts is not None:
                    packet.pts -= ticks
                if ticks and packet.dts is not None:
                    packet.dts -= ticks
            yield packet


@dataclass(frozen=True)
class Times:
    """When the frames of a video are shown.

    Attributes:
        rate: frames per second, such that the frames take as long as they do in the file; None where nobody says.
        zero: when the first frame that can be decoded is shown, in seconds of the clock: there the video begins.
        clock: the file's, without its jumps.
        count: of the frames at the rate; None where it is not known better than the file states it.
        slots: where frames stand that come at other times; None where each stands after the one before.
        ticks: the times of the frames of the slots, in order.
        tick: of these, in seconds.
        by_order: which of these, or which place, a frame has is known by its order alone.
        frames: how many there are, where that is known.
        lasts: seconds to the end of the last of picture, sound and subtitles, from the first or the clock's zero.
    """

    rate: Fraction | None
    zero: Fraction
    clock: Clock = Clock()
    count: int | None = None
    slots: Slots | None = None
    ticks: NDArray[np.int64] | None = None
    tick: Fraction = Fraction(1)
    by_order: bool = False
    frames: int | None = None
    lasts: Fraction | None = None

    @property
    def is_even(self) -> bool:
        """Whether the frames have the rate anyway."""
        return self.slots is None or self.slots.is_even

    def end_before(self, duration: Fraction | None) -> bool:
        """Whether there is much less in the file than it states: it may have been cut short."""
        if duration is None or self.lasts is None or self.rate is None or self.clock.jumps:
            return False
        return self.lasts < Fraction(9, 10) * duration - 2 / self.rate

    def tell(self, name: str) -> None:
        """Say, where it is so, that frames are not read as they are."""
        if self.clock.jumps:
            log.warning("The clock of %s jumps: what follows is joined to what comes before.", name)
        if self.slots is None or self.slots.is_even or self.rate is None:
            return
        fps = f"{float(self.rate):.3f}".rstrip("0").rstrip(".")
        log.warning("%s has frames of varying length: it is read at %s fps, held where they last longer.", name, fps)
        if dropped := self.slots.dropped:
            log.warning("%d frames of %s come faster than that and are left out.", dropped, name)

    def in_slots(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[Fraction | None, VideoFrame]]:
        """One frame for every place, each with its time from the video's begin: where none comes, the one before is
        given again, the same object.

        Args:
            frames: decoded ones, from the first frame on or a later one.
        """
        finder, place, before = _Finder(self), None, None
        for frame in frames:
            found = finder.place(frame, place)
            if found is None:
                continue
            if before is not None and place is not None:
                yield from ((self._time(each), before) for each in range(place + 1, found))
            shown = time_of(frame) if self.is_even and not self.by_order else None
            yield (self._time(found) if shown is None else max(Fraction(0), shown - self.zero)), frame
            place, before = found, frame
        if before is not None and place is not None and self.count is not None:
            yield from ((self._time(each), before) for each in range(place + 1, self.count))

    def _time(self, place: int) -> Fraction | None:
        return None if self.rate is None else place / self.rate


class _Finder:
    """Places of frames as they come."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._index = -1
        self._shown: Fraction | None = None

    def place(self, frame: VideoFrame, before: int | None) -> int | None:
        """Where the next frame stands, after the one `before`; None where it has no place."""
        times = self._times
        following = 0 if before is None else before + 1
        shown = time_of(frame)
        last, self._shown = self._shown, shown if shown is not None else self._shown
        if times.slots is not None and times.ticks is not None:
            index = self._found(shown)
            if index is None:
                return following
            place = int(times.slots.places[index])
            return None if place < 0 else max(place, following)
        if times.rate is None or shown is None or times.by_order:
            return following
        if before is None:
            return max(0, round((shown - times.zero) * times.rate))
        return following if last is None else before + max(1, round((shown - last) * times.rate))

    def _found(self, shown: Fraction | None) -> int | None:
        """Which of the frames that are known of is shown then."""
        ticks = self._times.ticks
        assert ticks is not None
        if self._times.by_order or shown is None:
            self._index += 1
        else:
            wanted = round(shown / self._times.tick)
            index = int(np.searchsorted(ticks, wanted))
            if index == len(ticks) or (index and wanted - ticks[index - 1] < ticks[index] - wanted):
                index -= 1
            following = self._index + 1
            if index <= self._index and following < len(ticks):  # several at one time
                index = following if abs(int(ticks[following]) - wanted) <= 1 else index
            self._index = index
        return self._index if self._index < len(ticks) else None


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second such that the frames take as long as they do in the file, as that states it."""
    average, nominal = stream.average_rate, stream.guessed_rate
    if average and nominal and abs(average / nominal - 1) < Fraction(1, 1000):
        average = nominal  # 30000/1001 rather than 359/12, for a cut piece of such a video
    rate = Fraction(average or nominal or 0)
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    if stream.time_base == Fraction(1, 1000) and abs(rate - ntsc) < rate * Fraction(8, 10_000_000):
        return ntsc  # Matroska states whole nanoseconds
    return rate or None


def times_of(file: File) -> Times:
    """When the frames of a video are shown; its packets are read for it where they may come at any times.

    Raises:
        VideoError: it is missing, is no video, or has no frame that can be decoded.
    """
    if isinstance(file, Path) and file.is_file():
        state = file.stat()
        return _remembered(file, state.st_size, state.st_mtime_ns)
    return _times_of(file)


@lru_cache(maxsize=2)
def _remembered(file: Path, size: int, changed: int) -> Times:
    """The same, as long as the file does not change."""
    return _times_of(file)


def _times_of(file: File) -> Times:
    with opened(file) as (container, stream):
        if container.format.flags & _NO_TIMES:
            zero = _first_times(file, Clock())[0] or Fraction(0)
            return Times(_stated_by_stream(file), zero, by_order=container.format.name in _GUESSED)
        rate = frame_rate(stream)
        entries = _even_entries(stream)
        if entries is not None and rate is not None:
            shown = _first_times(file, Clock())
            first = next((packet for packet in readable(container, [stream]) if packet.size), None)
            is_first = first is not None and first.pts is not None and first.pts * first.time_base == shown[0]
            if is_first and not (first is not None and first.is_discard):
                return Times(simplified(rate, entries), shown[0] or Fraction(0), count=entries, frames=entries)
    with opened(file) as (container, stream):
        packets = all_packets(container, stream)
        return _from_packets(file, container, stream, packets)


def _even_entries(stream: VideoStream) -> int | None:
    """How many frames the index of an MP4 has, where all are decoded at even times; None for any other file."""
    entries = getattr(stream, "index_entries", None)
    if stream.container.format.name.split(",")[0] != "mov" or not entries or len(entries) != stream.frames:
        return None
    if SecondFields(stream).possible:  # two entries for one frame
        return None
    if len(entries) > 1:
        steps = np.diff(np.array([entry.timestamp for entry in entries], np.int64))
        usual = int(np.median(steps))
        even = usual > 0 and np.ptp(steps) <= 1 and (stream.duration or 0) < (len(entries) + 0.5) * usual + len(entries)
        if not even or any(entry.is_discard for entry in entries):
            return None
    size = cast(Any, stream.container).size
    if max(entry.pos + entry.size for entry in entries) > size:  # cut short
        return None
    return len(entries)


def _stated_by_stream(file: File) -> Fraction | None:
    """The rate of a bare stream of pictures, which the stream itself states: its container can only guess."""
    with opened(file) as (container, stream):
        own = stream.codec_context.framerate
        if next(decoded(container, stream, file), None) is None:
            raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
        own = stream.codec_context.framerate or own
    if own and 1 <= own <= 1000:
        return Fraction(own) * _film_in(file)
    with opened(file) as (container, stream):
        lasts = [p.duration * p.time_base for p in islice(readable(container, [stream]), _FIRST) if p.duration]
        return 1 / sorted(lasts)[len(lasts) // 2] if lasts else frame_rate(stream)


def _film_in(file: File) -> Fraction:
    """Frames of a bare stream for one of its rate."""
    with opened(file) as (container, stream):
        pulldown = Pulldown(stream)
        if stream.codec_context.name == "mpeg2video":
            for packet in readable(container, [stream]):
                if packet.size:
                    pulldown.look(packet)
        return pulldown.part


def _first_times(file: File, clock: Clock) -> list[Fraction | None]:
    """When the first frames that can be decoded are shown.

    Raises:
        VideoError: there is none.
    """
    result: list[Fraction | None] = []
    with opened(file) as (container, stream):
        packets = clock.retimed(readable(container, [stream])) if clock.jumps else None
        try:
            for frame in islice(decoded(container, stream, file, packets), _FIRST):
                result.append(time_of(frame))
        except VideoError:
            if not result:
                raise
    if not result:
        raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
    return result


def _from_packets(file: File, container: InputContainer, stream: VideoStream, packets: Mapping[int, Packets]) -> Times:
    video = packets[stream.index]
    others = {index: each for index, each in packets.items() if index != stream.index}
    restarts = bool(container.format.flags & _RESTARTS)
    clock = Clock() if video.edited else Clock(shifts_of(video, others, stream.index, restarts))
    shown = _first_times(file, clock)
    rate, tick = frame_rate(stream), video.time_base
    ticks, last = _shown(video, clock.shifts.get(stream.index, ()))
    is_avi = container.format.name == "avi"
    by_order = (
        video.by_order
        or None in shown
        or any(b <= a for a, b in pairwise(shown) if a is not None and b is not None)
        or (is_avi and stream.codec_context.name in REORDERED)
    )
    zero = shown[0]
    if by_order or zero is None:
        zero = int(ticks[0]) * tick if len(ticks) else Fraction(0)
    else:
        ticks = ticks[ticks >= round(zero / tick)]
    spans = [_span(each, clock.shifts.get(index, ())) for index, each in packets.items() if each.places]
    begin = min((begin for begin, _ in spans), default=Fraction(0))
    lasts = max((end for _, end in spans), default=begin) - min(Fraction(0), begin)
    rate = None if rate is None else simplified(rate, len(ticks))
    result = Times(rate, zero, clock, frames=len(ticks), lasts=lasts)
    if not len(ticks) or not _are_frames(ticks, tick, shown, by_order):
        return replace(result, frames=None)
    if is_avi and rate is not None and len(ticks) > 2:
        zero = _without_rounding(ticks, tick, rate)
    first = round(zero / tick)
    stated = [Fraction(each) for each in (rate, stream.guessed_rate, stream.average_rate, stream.base_rate) if each]
    stated += [each / 2 for each in stated] if video.fields else []
    stated += [FILM] if NTSC in stated else []
    slots = slots_of(ticks - first, tick, last, list(dict.fromkeys(stated)))
    if slots is None:
        return result
    return replace(
        result,
        rate=simplified(slots.rate, slots.count), zero=zero, count=slots.count, slots=slots, ticks=ticks, tick=tick,
        by_order=by_order,
    )  # fmt: skip


def _shown(video: Packets, shifts: Shifts) -> tuple[NDArray[np.int64], int]:
    """When frames are shown, in order, on a clock without jumps; and for how long the last one is."""
    times = video.times()
    usable = is_known(times) & ~np.array(video.hidden, bool)
    for first, shift in shifts:
        following = min((each for each, _ in shifts if each > first), default=len(times))
        times[first:following] -= round(shift / video.time_base)
    order = np.argsort(times[usable], kind="stable")
    ticks = times[usable][order]
    last = int(np.array(video.lasts, np.int64)[usable][order][-1]) if len(ticks) else 0
    return ticks, last


def _span(packets: Packets, shifts: Shifts) -> tuple[Fraction, Fraction]:
    """When the first packet begins and the last one ends, in seconds."""
    ticks, last = _shown(packets, shifts)
    return (
        (int(ticks[0]) * packets.time_base, (int(ticks[-1]) + last) * packets.time_base)
        if len(ticks)
        else (Fraction(0),) * 2
    )


def _are_frames(ticks: NDArray[np.int64], tick: Fraction, shown: list[Fraction | None], by_order: bool) -> bool:
    """Whether there is about one packet for each frame, rather than for each field of one."""
    known = [each for each in shown if each is not None]
    if by_order or len(known) < 3:
        return True
    first, last = (round(each / tick) for each in (known[0], known[-1]))
    return int(((ticks >= first) & (ticks <= last)).sum()) < 1.5 * len(known)


def _without_rounding(ticks: NDArray[np.int64], tick: Fraction, rate: Fraction) -> Fraction:
    """Changes the first time to one frame before the second, where a writer of AVI rounded it away; returns it."""
    step = round(1 / (rate * tick))
    if ticks[1] - ticks[0] == 2 * step and (np.diff(ticks[1:]) == step).all():
        ticks[0] = ticks[1] - step
    return int(ticks[0]) * tick

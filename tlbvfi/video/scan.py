"""All packets of a video, read once without decoding them: where decoding may begin, and which frames will come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .access_points import AccessPoints
from .excerpt import Excerpt
from .packets import Packets, Pictures
from .pyav import File, opened, readable
from .times import Times

if TYPE_CHECKING:
    from av.packet import Packet

#: What comes with a packet and holds for those after it, too.
_LASTING = ("palette", "new_extradata", "param_change")
#: Frames that are decoded before the first one that is wanted, at least; a decoder delays fewer.
RUN_UP = 16
#: Frames of which so many or fewer would be saved are decoded.
_NEAR = 32
#: Before so many frames no access point is of use.
FEWEST = RUN_UP + _NEAR
#: By so many places at most a frame that has one of its own stands away from its time.
_AROUND = 3


class Unexpected(Exception):
    """What is read from an access point on may not be what reading from the begin gives."""


@dataclass
class Scan:
    """The packets of a video's main stream, in order, without empty ones.

    Attributes:
        marks: by which each is known again: when it is shown, as the file states it, its place there, and its size.
        shown, decoded: when they are, on a clock without jumps.
        hidden: whether no frame is shown.
        access: those that are access points.
        is_plain: whether all have times, and nothing comes with a packet that holds for later ones.
        conceals: a decoder that does not say it where parts of a frame are damaged: what it needs then may be older
            than the last access point, hardly than the last two.
    """

    marks: list[tuple[int | None, int | None, int]] = field(default_factory=list)
    shown: list[int | None] = field(default_factory=list)
    decoded: list[int | None] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    access: list[int] = field(default_factory=list)
    is_plain: bool = True
    conceals: bool = False


def mark_of(packet: Packet[Any]) -> tuple[int | None, int | None, int]:
    """By what a packet of a file is known again."""
    return packet.pts, packet.pos, packet.size


def _scan(file: File, times: Times) -> Scan:
    """Reads a file's packets."""
    scan = Scan()
    with opened(file) as (container, stream):
        points, found = AccessPoints(stream.codec_context), Packets(stream.time_base or Fraction(1))
        pictures = Pictures(container, stream, found)
        scan.is_plain = stream.codec_context.pix_fmt != "pal8"
        scan.conceals = stream.codec_context.name == "ffv1"

        def marked() -> Iterator[Packet[Any]]:
            for packet in readable(container, [stream], on_stop=stopped):
                if packet.size:
                    scan.marks.append(mark_of(packet))
                yield packet

        def stopped(_: str) -> None:
            scan.is_plain = False

        for number, packet in enumerate(each for each in times.clock.retimed(marked()) if each.size):
            scan.shown.append(packet.pts)
            scan.decoded.append(packet.dts)
            found.shown.append(packet.pts)
            found.lasts.append(packet.duration or 0)
            scan.hidden.append(pictures.hides(packet))
            if points.look(bytes(packet)) and packet.is_keyframe and not scan.hidden[-1] and packet.pts is not None:
                scan.access.append(number)
            if (packet.pts is None and not scan.hidden[-1]) or has_lasting(packet):
                scan.is_plain = False
    return scan


def has_lasting(packet: Packet[Any]) -> bool:
    """Whether anything comes with a packet that holds for later ones, too."""
    has = getattr(packet, "has_sidedata", None)  # not in older PyAV
    return has is not None and any(map(has, _LASTING))


@dataclass(frozen=True)
class Layout:
    """Which frames a video has that is not damaged, and where they stand.

    Attributes:
        times: of the video.
        scan: its packets.
        tick: the stream's unit, in seconds.
        ticks: when the frames are shown, in order.
        places: of each, -1 for one that has none.
        count: of all places.
    """

    times: Times
    scan: Scan
    tick: Fraction
    ticks: NDArray[np.int64]
    places: NDArray[np.int64]
    count: int

    def frame_at(self, place: int) -> int:
        """The index of the frame that is shown at a place; of the last one before it, where that is past the end."""
        found = np.flatnonzero((self.places >= 0) & (self.places <= place))
        return int(found[-1]) if len(found) else 0

    def place_from(self, frame: int) -> int:
        """The first place of the frames from one on."""
        return int(next(place for place in self.places[frame:] if place >= 0))

    def within(self, excerpt: Excerpt) -> tuple[int, int] | None:
        """[begin, end): the places in an excerpt; None where missing frames could change them."""
        if excerpt.is_whole:
            return 0, self.count
        rate = self.times.rate
        assert rate is not None
        found = {_places_within(excerpt, lambda place: place / rate, rate, self.count)}
        if self.times.is_even:  # then every place has a frame
            tick, zero = self.tick, self.times.zero
            found.add(_places_within(excerpt, lambda place: int(self.ticks[place]) * tick - zero, rate, self.count))
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _access(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The access points, and the indices of their frames."""
        shown = np.array([self.scan.shown[packet] or 0 for packet in self.scan.access], np.int64)
        return np.array(self.scan.access, np.int64), np.searchsorted(self.ticks, shown)

    def access_before(self, frame: int) -> tuple[int, int] | None:
        """The last access point that comes early enough before a frame: its packet, and its own frame's index.

        Returns:
            None where decoding from the begin is hardly more work, or nothing can be said.
        """
        packets, indices = self._access
        passed = not self.scan.conceals
        for each in np.flatnonzero((indices <= frame - RUN_UP) & (indices >= _NEAR))[::-1]:
            packet, index = int(packets[each]), int(indices[each])
            if self._is_barrier(packet, index):
                if passed:
                    return packet, index
                passed = True
        return None

    def _is_barrier(self, packet: int, index: int) -> bool:
        """Whether nothing that is shown after an access point comes before it in the file."""
        if index >= len(self.ticks) or int(self.ticks[index]) != self.scan.shown[packet]:
            return False
        shown, hidden = self.scan.shown, self.scan.hidden
        # By so many packets decoding is ahead of showing at most; more cannot be between them in any codec.
        before = range(max(0, packet - 64), packet)
        return all(hidden[each] or (shown[each] or 0) < int(self.ticks[index]) for each in before)

    def packets_until(self, packet: int, begin: int, end: int) -> int:
        """After how many packets, counted from the begin, all are there that the frames [begin, end) need, if decoding
        starts with `packet`."""
        waited = {int(tick) for tick in self.ticks[begin:end]}
        for number in range(packet, len(self.scan.shown)):
            shown = self.scan.shown[number]
            if shown is not None and not self.scan.hidden[number]:
                waited.discard(shown)
            if not waited:
                return number + 1
        return len(self.scan.shown)


def _places_within(excerpt: Excerpt, time: Callable[[int], Fraction], rate: Fraction, count: int) -> tuple[int, int]:
    """The places [begin, end) in an excerpt, if each is shown at a time that is not far from its own."""

    def first(about: Fraction, is_there: Callable[[Fraction], bool]) -> int:
        places = range(min(count, max(0, int(about * rate) - _AROUND)), count)
        return next((place for place in places if is_there(time(place))), count)

    begin = first(excerpt.first, lambda shown: not excerpt.is_before(shown))
    end = count if excerpt.end is None else first(excerpt.end, excerpt.is_after)
    return begin, max(begin, end)


def layout_of(file: File, times: Times) -> Layout | None:
    """Where a video's frames stand, if that is certain from its packets; they are read for it.

    Raises:
        VideoError: the file is missing, or no video.
    """
    if isinstance(file, Path):
        state = file.stat()
        return _remembered(file, state.st_size, state.st_mtime_ns, _Key(times))
    return _layout(file, times)


@dataclass(frozen=True, eq=False)
class _Key:
    """Times of a file, which are the same as long as the file is."""

    times: Times

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=2)
def _remembered(file: Path, size: int, changed: int, key: _Key) -> Layout | None:
    return _layout(file, key.times)


def _layout(file: File, times: Times) -> Layout | None:
    if times.by_order or times.rate is None or times.count is None:
        return None
    scan = _scan(file, times)
    if not scan.is_plain or not scan.access:
        return None
    with opened(file) as (_, stream):
        tick = stream.time_base
    if tick is None or (times.slots is not None and times.tick != tick):
        return None
    known = [shown for shown, hidden in zip(scan.shown, scan.hidden, strict=True) if not hidden and shown is not None]
    ticks = np.sort(np.array(known, np.int64))
    ticks = ticks[ticks >= round(times.zero / tick)] if times.slots is None else ticks[-len(times.slots.places) :]
    if not len(ticks) or (np.diff(ticks) <= 0).any():
        return None
    if times.slots is not None:
        assert times.ticks is not None
        # Of an AVI the first one may be stated otherwise.
        same = len(ticks) == len(times.ticks) and np.array_equal(ticks[1:], times.ticks[1:])
        places = times.slots.places
        return Layout(times, scan, tick, ticks, places, times.count) if same and places[0] == 0 else None
    away = (ticks * float(tick) - float(times.zero)) * float(times.rate) - np.arange(len(ticks))
    if len(ticks) != times.count or (np.abs(away) > 0.2).any():
        return None
    return Layout(times, scan, tick, ticks, np.arange(len(ticks)), times.count)

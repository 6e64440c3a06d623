"""Where a file's clock jumps, as in recordings that were joined, and by how much.

A clock jumps where the times of the pictures go back, or go on by more than :data:`LONGEST_PAUSE`, and the sound's do
so too. Picture and sound of what follows are moved by the same amount, such that its first picture comes as long after
the last one as pictures usually do. Where the sound goes on meanwhile it is the picture alone that pauses, and stays;
where it neither goes on nor jumps, the picture's clock alone is wrong, and the picture alone is moved. Without sound a
long pause stays but in files whose clock may start again at any time (MPEG's), and where it is over an hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .packets import FARTHEST_APART, Packets, is_known

#: Seconds without a picture that are no jump of the clock.
LONGEST_PAUSE = 10.0
_LONGEST_SILENT_PAUSE = 3600.0
#: The picture alone goes back by less where single times are wrong.
_SMALL = 0.5
#: So many packets in a row may have times that are far from those around.
_MOST_STRAYS = 4
#: Sound that is as many seconds away from where it would go on still goes on.
_SOUND_GOES_ON = (-0.04, 0.5)
#: Sound is heard for so many seconds after the begin of a packet at most.
_LONGEST_PACKET = 2.0
#: Sound that goes on for more seconds than its picture is waited for at a jump.
_TAIL = 0.1
#: In seconds of picture, how far from its jump that of the sound may be in the file.
_NEAR = 15.0

#: From which packet of a stream on times are earlier by how many seconds than stated.
Shifts = tuple[tuple[int, Fraction], ...]


@dataclass(frozen=True)
class _Part:
    """Neighbouring packets of pictures within which the clock goes on.

    Attributes:
        first: its first packet.
        begin, end: their times, in seconds of the file's clock.
        shown_until: when the last of them is shown.
        shift: by how many seconds they are moved towards the begin.
        is_stray: they have wrong times, in the midst of right ones.
    """

    first: int
    begin: float
    end: float
    shown_until: float
    shift: Fraction
    is_stray: bool = False


def shifts_of(video: Packets, others: Mapping[int, Packets], index: int, restarts: bool) -> dict[int, Shifts]:
    """By which amounts the packets of all streams are moved; nothing where the clock does not jump.

    Args:
        others: the streams of sound and subtitles by their indices; the first ones are those of sound.
        index: that of the pictures' stream.
        restarts: in such a file the clock may start again at any time.
    """
    order = video.order()
    known = np.flatnonzero(~np.isnan(order))
    steps = np.diff(order[known])
    if not (steps > 0).any():
        return {}
    usual = float(np.median(steps[steps > 0]))
    if not ((steps - usual > LONGEST_PAUSE) | (steps < -usual / 2)).any():
        return {}
    sound = next((each for each in others.values() if each.shown), None)
    starts = _Search(video, order, known, usual, _Sound(sound, video) if sound else None, restarts).starts()
    if not starts:
        return {}
    parts, member = _parts(video, order, starts, usual)
    if sound is not None:
        parts = _with_tails(parts, sound, _along(sound, video, order, parts), usual, video)
    shifts = {index: _runs(member, parts)}
    for number, other in others.items():
        shifts[number] = tuple((packet, parts[part].shift) for packet, part in _along(other, video, order, parts))
    return shifts


def _with_tails(
    parts: Sequence[_Part], sound: Packets, along: Sequence[tuple[int, int]], usual: float, video: Packets
) -> list[_Part]:
    """The same parts, each begun later where the sound of the one before goes on for longer than its pictures."""
    ends: dict[int, float] = {}
    times = sound.times()
    for (first, index), following in zip(along, [*(each for each, _ in along[1:]), len(times)], strict=True):
        own = times[first:following]
        own = own[is_known(own)]
        if len(own):
            last = float(own.max()) * float(sound.time_base) + _usual_step(own) * float(sound.time_base)
            ends[index] = max(last, ends.get(index, last))
    result: list[_Part] = []
    later = Fraction(0)
    for number, part in enumerate(parts):
        before = parts[number - 1] if number else None
        if before is not None and not before.is_stray and {number - 1, number} <= ends.keys():
            tail = ends[number - 1] - (before.shown_until + usual)
            if _TAIL < tail < LONGEST_PAUSE:
                later += Fraction(round(tail / usual) * round(usual / float(video.time_base))) * video.time_base
        result.append(replace(part, shift=part.shift - later))
    return result


def _usual_step(ticks: NDArray[np.int64]) -> float:
    """How many ticks there usually are between two packets."""
    return float(np.median(np.diff(ticks))) if len(ticks) > 1 else 0.0


class _Sound:
    """What the sound does while the pictures' times jump."""

    def __init__(self, packets: Packets, video: Packets) -> None:
        times = packets.times()
        known = is_known(times)
        scale = float(packets.time_base)
        self.begins = times[known] * scale
        self.lasts = packets.usual_lasts()[known] * scale
        self.places = np.array(packets.places, np.int64)[known]
        self._pictures = np.searchsorted(np.array(video.places, np.int64), self.places)
        gaps = self.begins[1:] - (self.begins[:-1] + self.lasts[:-1])
        jumps = np.flatnonzero((gaps < _SOUND_GOES_ON[0]) | (gaps > _SOUND_GOES_ON[1]))
        self._jumps = [(float(gaps[each]), int(self._pictures[each + 1])) for each in jumps]

    def jumps(self, by: float, picture: int, usual: float) -> bool:
        """Whether it jumps, near a picture, by as much as the pictures do."""
        within = min(2.0, max(0.15, abs(by) / 2))
        near = _NEAR / usual
        return any(abs(own - by) <= within and abs(place - picture) <= near for own, place in self._jumps)

    def covers(self, begin: float, end: float) -> bool:
        """Whether most of the time between is heard."""
        inside = (self.begins > begin) & (self.begins < end)
        until_next = np.diff(self.begins, append=self.begins[-1:])
        heard = np.clip(until_next[inside], 0, _LONGEST_PACKET).sum()
        return bool(heard > (end - begin) / 2)

    def is_there(self, place: int) -> bool:
        """Whether it is on both sides of a place in the file."""
        return bool(len(self.places)) and bool(self.places[0] < place < self.places[-1])


@dataclass
class _Search:
    """The packets of pictures with which the clock is another."""

    video: Packets
    order: NDArray[np.float64]
    known: NDArray[np.intp]
    usual: float
    sound: _Sound | None
    restarts: bool

    def starts(self) -> list[tuple[int, bool | None]]:
        """Each first packet with whether stray ones begin there, or None where those end."""
        found: list[tuple[int, bool | None]] = []
        values = self.order[self.known]
        last, number = float(values[0]), 1
        while number < len(values):
            value = float(values[number])
            by = value - last - self.usual
            if by > LONGEST_PAUSE or value < last - self.usual / 2:
                back = self._return(values, number, last) if abs(by) > _SMALL else None
                if back is not None:
                    found += [(int(self.known[number]), True), (int(self.known[back]), None)]
                    last, number = float(values[back]), back + 1
                    continue
                if self._is_jump(int(self.known[number]), by, last, value):
                    found.append((int(self.known[number]), False))
                    last = value
            last = max(last, value)
            number += 1
        return found

    def _return(self, values: NDArray[np.float64], number: int, last: float) -> int | None:
        """The packet that goes on after `last`, where it follows soon."""
        for place in range(number + 1, min(number + 1 + _MOST_STRAYS, len(values))):
            if 0 < values[place] - last <= (place - number + 2) * self.usual + 0.01:
                return place
        return None

    def _is_jump(self, packet: int, by: float, last: float, value: float) -> bool:
        sound, forward = self.sound, by > 0
        if sound is not None and sound.is_there(self.video.places[packet]):
            if forward and sound.covers(last + self.usual, value):
                return False
            return forward or sound.jumps(by, packet, self.usual) or -by > _SMALL
        if forward:
            return self.restarts or by > _LONGEST_SILENT_PAUSE
        return -by > 1.5 * self.usual


def _parts(
    video: Packets, order: NDArray[np.float64], starts: Sequence[tuple[int, bool | None]], usual: float
) -> tuple[list[_Part], NDArray[np.int64]]:
    """The parts with their shifts, each begun where the one before ends; and to which each packet belongs."""
    times = video.times()
    bounds = [(0, False), *((first, stray) for first, stray in starts)]
    member = _members(times.astype(np.float64) * float(video.time_base), order, bounds)
    lasts = round(usual / float(video.time_base))
    end: int | None = None
    shift = normal = 0
    parts: list[_Part] = []
    for number, (first, stray) in enumerate(bounds):
        following = bounds[number + 1][0] if number + 1 < len(bounds) else len(times)
        own = times[(member == number) & is_known(times)]
        if stray is None:
            shift = normal
        elif end is not None and len(own):
            shift = int(own.min()) - (end + lasts)
        if not stray:
            normal = shift
        if len(own):
            shown = int(own.max()) - shift
            end = shown if end is None else max(end, shown)
        clock = order[first:following]
        clock = clock[~np.isnan(clock)]
        begin, last = (float(clock[0]), float(clock.max())) if len(clock) else (np.nan, np.nan)
        if stray is None:  # the part before goes on
            before = next(part for part in reversed(parts) if not part.is_stray)
            begin = before.begin
        until = float(own.max() * video.time_base) if len(own) else np.nan
        parts.append(_Part(first, begin, last, until, shift * video.time_base, bool(stray)))
    return parts, member


def _members(
    times: NDArray[np.float64], order: NDArray[np.float64], bounds: Sequence[tuple[int, bool | None]]
) -> NDArray[np.int64]:
    """To which part each packet belongs: before a jump forward there may be some of what is shown after it."""
    firsts = [first for first, _ in bounds]
    member = np.searchsorted(firsts, np.arange(len(times)), "right") - 1
    for number, (first, stray) in enumerate(bounds[1:], 1):
        if stray is not False:
            continue
        begin = max(firsts[number - 1], first - FARTHEST_APART)
        last, following = np.nanmax(order[begin:first], initial=-np.inf), order[first]
        if following - last > LONGEST_PAUSE:
            early = (times[begin:first] > (last + following) / 2) & (times[begin:first] <= following + LONGEST_PAUSE)
            member[begin:first][early] = number
    return member


def _runs(member: NDArray[np.int64], parts: Sequence[_Part]) -> Shifts:
    """From which packet of pictures on they are moved by how much."""
    changes = [0, *(int(each) + 1 for each in np.flatnonzero(np.diff(member)))]
    return tuple((each, parts[member[each]].shift) for each in changes)


def _away(time: float, now: float, parts: Sequence[_Part], part: int, here: int) -> float:
    """How far a time is from the pictures of a part, and these from `now`, a time in the part `here`."""
    if part == here:
        return abs(time - now)
    if part < here:
        return abs(time - parts[part].end) + abs(now - parts[here].begin)
    return abs(time - parts[part].begin) + abs(parts[here].end - now)


def _along(other: Packets, video: Packets, order: NDArray[np.float64], parts: Sequence[_Part]) -> list[tuple[int, int]]:
    """From which packet of another stream on they belong to which part, and are moved as its pictures are.

    While its own times go on, it stays with its part. Where they do not, it belongs to the part whose pictures, as near
    as they are in the file, have the nearest times.
    """
    scale = float(other.time_base)
    lasts = other.usual_lasts()
    places = np.array(video.places, np.int64)
    firsts = [part.first for part in parts]
    times = other.times()
    current: int | None = None
    goes_on = 0.0
    found: list[tuple[int, int]] = []
    for number in np.flatnonzero(is_known(times)):
        begins = float(times[number]) * scale
        if current is None or not _SOUND_GOES_ON[0] <= begins - goes_on <= _SOUND_GOES_ON[1]:
            picture = max(0, int(np.searchsorted(places, other.places[number])) - 1)
            here = max(0, int(np.searchsorted(firsts, picture, "right")) - 1)
            now = float(order[: picture + 1][~np.isnan(order[: picture + 1])][-1:].sum())
            latest = max(current or 0, min(here + 1, len(parts) - 1))
            candidates = [part for part in range(current or 0, latest + 1) if not parts[part].is_stray]
            away = [_away(begins, now, parts, part, here) for part in candidates]
            chosen = candidates[away.index(min(away))]
            if chosen != current:
                current = chosen
                found.append((int(number), chosen))
        goes_on = begins + float(lasts[number]) * scale
    return found

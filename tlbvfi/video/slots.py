"""A constant rate for frames that come at any times, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

#: Rates that a video with rounded times most likely has: those of NTSC last, so that whole ones go first.
_LIKELY = [Fraction(n) for n in range(1, 241)] + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
#: A frame is shown so many seconds away from its time at most.
_FARTHEST = 0.05
#: And is late by so many where there are several at once.
_LATE = 0.03
#: What a frame that has no place costs, in places.
_COST_OF_DROP = 400
#: What it costs, in parts of a place, that frames are a place away from their times: a rate that suits them is taken
#: rather than a lower one.
_COST_OF_DISTANCE = 4.0
#: Rates that are found in the times are not higher.
_HIGHEST = 240.0
#: By this part a likelier rate may be higher than the intervals suggest.
_HIGHER = 0.04
#: From such a rate on every frame comes near enough to its time.
_FINE = 10.0
#: A numerator from which a rate is simplified: what is made of it, at most 1024 times as fast, has to be a number of
#: 31 bits for FFmpeg.
_LARGEST = 2**31 // 1024


@dataclass(frozen=True)
class Slots:
    """Frames at a constant rate.

    Attributes:
        rate: frames per second.
        places: of each frame in order, -1 for one that has none.
        count: of all places; where no frame comes, the one before is shown.
        is_even: the frames have that rate anyway, each has its place.
    """

    rate: Fraction
    places: NDArray[np.int64]
    count: int
    is_even: bool

    @property
    def dropped(self) -> int:
        """Frames that have no place."""
        return int((self.places < 0).sum())


def slots_of(ticks: NDArray[np.int64], tick: Fraction, last: int, stated: Sequence[Fraction]) -> Slots | None:
    """Where frames stand.

    Args:
        ticks: when they are shown, from 0 on, in order.
        tick: in seconds.
        last: how many ticks the last one is shown, 0 where nobody says.
        stated: rates that the file states, the most likely first.

    Returns:
        None where nothing can be said.
    """
    count = len(ticks)
    ends = not last or not count
    for rate in stated:
        if count and _is_even(ticks, tick, rate, 0.5) and (ends or last * tick * rate < 1.5):
            return _even(rate, count)
    if count < 2 or ticks[-1] <= 0:
        return None
    fitted = (count - 1) / (int(ticks[-1]) * tick)
    likely = (rate for rate in (*stated, *_LIKELY) if abs(rate / fitted - 1) * count < Fraction(2, 5))
    for rate in (*likely, _simple(fitted, count)):
        if _is_even(ticks, tick, rate, 0.46) and (ends or last * tick * rate < 1.5):
            return _even(rate, count)
    return _uneven(ticks, tick, last, stated)


def simplified(rate: Fraction, count: int | None) -> Fraction:
    """A rate that FFmpeg can hold, and its multiples too: as stated, or by less than a tenth of a frame off after
    `count` frames."""
    return rate if rate.numerator < _LARGEST else _simple(rate, count or 10_000_000)


def writable(rate: Fraction) -> Fraction:
    """The rate, or the nearest one that FFmpeg can hold."""
    return rate if max(rate.numerator, rate.denominator) < 2**31 else _simple(rate, 10_000_000, 2**31)


def _simple(rate: Fraction, count: int, largest: int = _LARGEST) -> Fraction:
    """The rate in small numbers, off by less than a tenth of a frame at the end where numbers suffice."""
    near = rate.limit_denominator(1)
    for power in range(1, 31):
        finer = rate.limit_denominator(2**power)
        if finer.numerator >= largest:
            break
        near = finer
        if near and abs(near / rate - 1) * count < Fraction(1, 20):
            break
    return near


def _is_even(ticks: NDArray[np.int64], tick: Fraction, rate: Fraction, within: float) -> bool:
    """Whether every frame is nearest to its own place, and near it."""
    away = ticks * float(tick * rate) - np.arange(len(ticks))
    return bool((np.abs(away) < min(within, _FARTHEST * float(rate)) - 1e-6).all())


def _even(rate: Fraction, count: int) -> Slots:
    return Slots(rate, np.arange(count), count, True)


def _uneven(ticks: NDArray[np.int64], tick: Fraction, last: int, stated: Sequence[Fraction]) -> Slots:
    """At the rate that takes few places, and as few frames as possible have none."""
    best: tuple[float, Fraction, list[int]] | None = None
    for rate in _candidates(ticks, tick, stated):
        positions = ticks * float(tick * rate)
        places, farthest = _places(positions.tolist(), float(rate))
        dropped, slots = places.count(-1), max(places) + 1
        away = np.abs(positions - np.array(places))[np.array(places) >= 0].mean()
        cost = slots * (1 + _COST_OF_DISTANCE * away) + _COST_OF_DROP * dropped
        if farthest / float(rate) > _FARTHEST + 1e-6:
            cost *= 1 + 100 * farthest / float(rate)
        if best is None or cost < best[0]:
            best = cost, rate, places
    assert best is not None
    _, rate, places = best
    end = floor((int(ticks[-1]) + last) * tick * rate + Fraction(1, 2))
    return Slots(rate, np.array(places, np.int64), max(max(places) + 1, end), False)


def _candidates(ticks: NDArray[np.int64], tick: Fraction, stated: Sequence[Fraction]) -> Iterator[Fraction]:
    """Rates that the intervals between frames suggest."""
    intervals = np.sort(np.diff(ticks))
    intervals = intervals[intervals > 0]
    usual = _interval(intervals, 0.5)
    found: list[Fraction] = [
        rate for rate in stated if rate in _LIKELY and rate * Fraction(usual) * tick > Fraction(9, 10)
    ]
    for part in (0.5, 0.25, 0.1, 0.02):
        interval = max(_interval(intervals, part) * float(tick), 1 / _HIGHEST)
        near = intervals[np.abs(intervals * float(tick) / interval - 1) < 0.3]
        unsure = 2 * float(tick) / (interval * max(1, len(near)) ** 0.5) + 2e-4
        likely = [rate for rate in (*stated, *_LIKELY) if abs(float(rate) * interval - 1) <= unsure]
        rate = min(
            likely,
            key=lambda each: (each not in _LIKELY, each not in stated, abs(float(each) * interval - 1)),
            default=None,
        )
        found.append(rate or Fraction(1 / interval).limit_denominator(1001))
        found += [rate for rate in _LIKELY if 0 <= float(rate) * interval - 1 < _HIGHER][:1]
    for rate in list(found):
        if rate < _FINE:
            found += [rate * factor for factor in {2, 3, 4, ceil(_FINE / rate), 2 * ceil(_FINE / rate)}]
    return iter(dict.fromkeys(rate for rate in found if rate > 0))


def _interval(intervals: NDArray[np.int64], part: float) -> float:
    """One that is as usual as any, of those around the one that `part` of all are shorter than; in ticks."""
    interval = float(intervals[min(int(part * len(intervals)), len(intervals) - 1)])
    for _ in range(2):
        around = intervals[(intervals > interval / 1.15 - 1) & (intervals < interval * 1.3 + 1)]
        interval = float(around.mean())
    return interval


def _places(positions: Sequence[float], rate: float) -> tuple[list[int], float]:
    """The nearest place of each frame that is still free, or a later one that is near enough; and the farthest that any
    is from it."""
    late = max(0.5, min(max(1.0, _LATE * rate), _FARTHEST * rate))
    places: list[int] = []
    before, farthest = -1, 0.0
    for position in positions:
        place = floor(position + 0.5)
        if place <= before:
            place = before + 1
            if place - position > late + 1e-6:
                places.append(-1)
                continue
        places.append(place)
        before = place
        farthest = max(farthest, abs(place - position))
    return places, farthest

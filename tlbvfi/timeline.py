"""Which frames are wanted, apart from how they are made.

Positions are counted in source frames: 3 is source frame 3, and 3 + 1/4 a quarter of the way to the next one. A new
frame stands at a place k / 2**depth of its gap, as the bisection can make no others. A :class:`Timeline` says for every
gap which places it wants; what it does not want is computed only where a frame that it wants is half-way to it.

:class:`Multiplier` and :class:`TargetRate` say how many frames come and where they stand; :mod:`.holds` is about gaps
in which nothing new is made; a :class:`Piece` is a part of a video that comes in several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil, floor
from typing import TYPE_CHECKING

from .numbers import whole_number

if TYPE_CHECKING:
    from torch import Tensor

#: Places of a gap that are its ends: the source frame before it and the one after it.
BEFORE, AFTER = Fraction(0), Fraction(1)
#: How often a gap may be halved.
MAX_DEPTH = 10
#: How often a gap is halved, at most, to come near a place that is no k / 2**depth: it is missed by 1/32 at most.
NEAR_DEPTH = 4


def depth_of(place: Fraction) -> int:
    """How often a gap has to be halved to come to a place k / 2**depth in lowest terms."""
    return place.denominator.bit_length() - 1


def nearest_place(place: Fraction, depth: int = NEAR_DEPTH) -> Fraction:
    """The place k / 2**depth nearest to one in [0, 1]; of two equally near ones the later."""
    parts = 2**depth
    return Fraction((2 * place.numerator * parts + place.denominator) // (2 * place.denominator), parts)


def halvings(parts: Fraction) -> int:
    """How often a gap is halved for frames that cut it in so many parts, such that no two come to one place."""
    return min(max(NEAR_DEPTH, (ceil(parts) - 1).bit_length()), MAX_DEPTH)


@dataclass(frozen=True)
class Gap:
    """What is wanted after one source frame, up to and with the next one.

    Attributes:
        index: the gap's place in the video; the noise of its new frames depends on it.
        places: of its frames in display order, in [0, 1]: :data:`BEFORE` repeats the source frame before the gap (a
            hold), :data:`AFTER` is the one after it, and what lies between is a new frame at k / 2**depth.

    Raises:
        ValueError: places that fall, or that no bisection comes to.
    """

    index: int
    places: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        for place in self.places:
            possible = BEFORE <= place <= AFTER and place.denominator.bit_count() == 1
            if not possible or depth_of(place) > MAX_DEPTH:
                raise ValueError(f"A place in a gap must be k / 2^depth in [0, 1], depth at most {MAX_DEPTH}: {place}.")
        if list(self.places) != sorted(self.places):
            raise ValueError(f"The places in a gap must not fall: {', '.join(map(str, self.places))}.")

    @property
    def new(self) -> tuple[Fraction, ...]:
        """The places of its new frames, each once; none for a gap that is held or cut."""
        return tuple(dict.fromkeys(place for place in self.places if BEFORE < place < AFTER))


class Timeline(ABC):
    """The frames wanted of a video.

    Attributes:
        loop: after the last source frame comes the gap from it to the first one, which is not shown again.
    """

    loop: bool = False

    def opening(self) -> Sequence[Fraction]:
        """What comes before the first gap: :data:`BEFORE` for each time that the first source frame is shown."""
        return (BEFORE,)

    @abstractmethod
    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        """What is wanted between two source frames (H, W, 3) in [0, 1]; `index` counts gaps from the video's begin.

        Called once for every gap, in order.
        """

    def closing(self, index: int) -> Sequence[Fraction]:
        """What comes after the last gap, of that index: :data:`AFTER` for each time that its end is shown again."""
        return ()

    def shows(self, index: int) -> bool:
        """Whether a frame is wanted at the very time of a source frame, wherever there are no cuts."""
        return True

    @abstractmethod
    def count(self, frames: int) -> int:
        """How many frames come of so many source frames, which cuts do not change."""

    def until(self, index: int) -> int:
        """How many of these stand up to a source frame of that index, and with it; what follows the last source frame
        does not count."""
        return self.count(index + 1)

    @abstractmethod
    def rate(self, fps: Fraction) -> Fraction:
        """Frames per second that come of a source's, such that the motion is as fast as it was."""


@dataclass(frozen=True)
class Multiplier(Timeline):
    """Every source frame, and so many frames for one that the gaps between them are `factor` times as short.

    Factors that are powers of two are exact bisection. For others the new frames are those nearest to where they should
    stand (see :func:`nearest_place`).

    Attributes:
        factor: frames for one, from 1 (nothing new).
        loop: with the gap from the last frame to the first: N source frames become N * factor.
        hold_last: the last frame is shown as long as the others: N source frames become N * factor.
        factors: those of the first gaps, where they have others; their length changes the number of frames, and so how
            fast the motion is.
    """

    factor: int = 2
    loop: bool = False
    hold_last: bool = False
    factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole_number("multiplier", self.factor, 1, 2**MAX_DEPTH))
        factors = tuple(whole_number("a multiplier of the list", each, 1, 2**MAX_DEPTH) for each in self.factors)
        object.__setattr__(self, "factors", factors)

    def _factor(self, index: int) -> int:
        return self.factors[index] if index < len(self.factors) else self.factor

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        return Gap(index, _parts(self._factor(index)))

    def closing(self, index: int) -> Sequence[Fraction]:
        held = self.hold_last and not self.loop
        return (AFTER,) * (self._factor(index + 1) - 1) if held else ()

    def count(self, frames: int) -> int:
        if frames < 1:
            return 0
        return self._new(frames) if self.loop or self.hold_last else self.until(frames - 1)

    def until(self, index: int) -> int:
        return self._new(index) + 1

    def _new(self, gaps: int) -> int:
        """Frames of the first gaps, each with that which ends it."""
        listed = self.factors[:gaps]
        return sum(listed) + (gaps - len(listed)) * self.factor

    def rate(self, fps: Fraction) -> Fraction:
        return fps * self.factor


@cache
def _parts(factor: int) -> tuple[Fraction, ...]:
    """The places that divide a gap, its end among them."""
    depth = depth_of(Fraction(1, factor)) if factor.bit_count() == 1 else halvings(Fraction(factor))
    return (*(nearest_place(Fraction(k, factor), depth) for k in range(1, factor)), AFTER)


@dataclass(frozen=True)
class TargetRate(Timeline):
    """Frames at a constant rate: frame k stands at k / target seconds from the first source frame, in exact arithmetic.

    One that stands where a source frame does is that frame; the others are those nearest to where they should stand
    (see :func:`nearest_place`), which may be a source frame too.

    Attributes:
        source: frames per second of the source.
        target: frames per second that are wanted, at most 2**:data:`MAX_DEPTH` times as many.
        loop, hold_last: the video ends where its last frame would have been shown as long as the others, rather than
            with its begin: all k / target before N / source. With `loop` new frames lead back to the first one.

    Raises:
        ValueError: rates that cannot be, in one sentence.
    """

    source: Fraction
    target: Fraction
    loop: bool = False
    hold_last: bool = False

    def __post_init__(self) -> None:
        if not (self.source > 0 and self.target > 0 and self.target <= self.source * 2**MAX_DEPTH):
            raise ValueError(
                f"The frame rate can become {2**MAX_DEPTH} times as high at most: not {float(self.target):g} "
                f"of {float(self.source):g} frames per second."
            )

    @property
    def _ratio(self) -> Fraction:
        """Frames for one."""
        return Fraction(self.target) / self.source

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        ratio = self._ratio
        depth = halvings(ratio)
        inside = range(floor(index * ratio) + 1, floor((index + 1) * ratio) + 1)
        return Gap(index, tuple(nearest_place(k / ratio - index, depth) for k in inside))

    def shows(self, index: int) -> bool:
        return (index * self._ratio).denominator == 1

    def closing(self, index: int) -> Sequence[Fraction]:
        if self.loop or not self.hold_last:
            return ()
        last = index + 1
        return (AFTER,) * (ceil((last + 1) * self._ratio) - floor(last * self._ratio) - 1)

    def count(self, frames: int) -> int:
        if frames < 1:
            return 0
        return ceil(frames * self._ratio) if self.loop or self.hold_last else self.until(frames - 1)

    def until(self, index: int) -> int:
        return floor(index * self._ratio) + 1

    def rate(self, fps: Fraction) -> Fraction:
        return self.target


@dataclass(frozen=True)
class Piece(Timeline):
    """A part of a video that comes in several: what a timeline wants of it, so that all pieces together are the whole.

    The first frame of every piece but the first is the last one of the piece before. Where the timeline loops, the last
    piece ends with the video's first frame once more.

    Attributes:
        whole: the timeline of all of the video.
        begins: this is the first piece.
        ends: this is the last one.
        loop_gap: the index of the gap from the last frame to the first, where that is in this piece.
    """

    whole: Timeline
    begins: bool
    ends: bool
    loop_gap: int | None = None

    def opening(self) -> Sequence[Fraction]:
        return self.whole.opening() if self.begins else ()

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        if index == self.loop_gap:
            return loop_gap(self.whole, index, before, after)
        return self.whole.gap(index, before, after)

    def closing(self, index: int) -> Sequence[Fraction]:
        return self.whole.closing(index) if self.ends else ()

    def shows(self, index: int) -> bool:
        return self.whole.shows(index)

    def count(self, frames: int) -> int:
        return self.whole.count(frames)

    def until(self, index: int) -> int:
        return self.whole.until(index)

    def rate(self, fps: Fraction) -> Fraction:
        return self.whole.rate(fps)


def loop_gap(timeline: Timeline, index: int, before: Tensor, after: Tensor) -> Gap:
    """What is wanted between the last source frame and the first one, which is not shown again."""
    places = timeline.gap(index, before, after).places
    ends = places[-1:] == (AFTER,) and timeline.shows(index + 1)
    return Gap(index, places[:-1] if ends else places)

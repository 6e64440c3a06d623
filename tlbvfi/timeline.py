"""Which frames are wanted, apart from how they are made.

Positions are counted in source frames: 3 is source frame 3, and 3 + 1/4 a quarter of the way to the next one. A new
frame stands at a place k / 2**depth of its gap, as the bisection can make no others. A :class:`Timeline` says for every
gap which places it wants; what it does not want is computed only where a frame that it wants is half-way to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .numbers import whole_number

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
        loop: the first source frame comes once more after the last one, and there is a gap between them.
    """

    loop: bool = False

    def opening(self) -> Sequence[Fraction]:
        """What comes before the first gap: :data:`BEFORE` for each time that the first source frame is shown."""
        return (BEFORE,)

    @abstractmethod
    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        """What is wanted between two source frames (H, W, 3) in [0, 1]; `index` counts gaps from the video's begin."""

    def closing(self, index: int) -> Sequence[Fraction]:
        """What comes after the last gap, of that index: :data:`AFTER` for each time that its end is shown again."""
        return ()

    @abstractmethod
    def count(self, frames: int) -> int:
        """How many frames come of so many source frames, where cuts do not change it."""

    @abstractmethod
    def rate(self, fps: Fraction) -> Fraction:
        """Frames per second that come of a source's, such that the motion is as fast as it was."""


@dataclass(frozen=True)
class Multiplier(Timeline):
    """Every source frame, and so many frames for one that the gaps between them are `factor` times as short.

    Factors that are powers of two are exact bisection. For others the new frames are those nearest to where they should
    stand (see :func:`nearest_place`).
    """

    factor: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole_number("multiplier", self.factor, 1, 2**MAX_DEPTH))
        exact = self.factor.bit_count() == 1
        depth = depth_of(Fraction(1, self.factor)) if exact else max(NEAR_DEPTH, self.factor.bit_length())
        places = tuple(nearest_place(Fraction(k, self.factor), depth) for k in range(1, self.factor))
        object.__setattr__(self, "_places", (*places, AFTER))

    _places = (AFTER,)

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        return Gap(index, self._places)

    def count(self, frames: int) -> int:
        return max(frames - 1, 0) * self.factor + min(frames, 1)

    def rate(self, fps: Fraction) -> Fraction:
        return fps * self.factor

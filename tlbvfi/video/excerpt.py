"""A part of a video by its times."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from .pyav import VideoError

#: Times in a file are rounded, in Matroska to milliseconds, and guessed in between; what is closer is the same.
ROUNDING = Fraction(1, 2000)


@dataclass(frozen=True)
class Excerpt:
    """What lies in [start, end), in seconds from a video's first frame; None is its begin or end.

    Raises:
        VideoError: from the constructor, where nothing can lie in it.
    """

    start: Fraction | None = None
    end: Fraction | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.start < 0:
            raise VideoError(f"An excerpt cannot start at {seconds(self.start)}, before the video; 0 is its begin.")
        if self.end is not None and self.end <= self.first:
            raise VideoError(
                f"An excerpt that starts at {seconds(self.first)} cannot end at {seconds(self.end)}; give a later end."
            )

    @property
    def first(self) -> Fraction:
        """Its start as a number."""
        return self.start or Fraction(0)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.start and self.end is None

    def is_before(self, time: Fraction) -> bool:
        """Whether what begins at `time` comes before the excerpt."""
        return time + ROUNDING < self.first

    def is_after(self, time: Fraction) -> bool:
        """Whether what begins at `time` comes after the excerpt."""
        return self.end is not None and time + ROUNDING >= self.end

    def count(self, fps: Fraction, count: int | None) -> int | None:
        """How many frames lie in it, of `count`, at a constant rate."""
        last = None if self.end is None else ceil(self.end * fps)
        if count is not None:
            last = count if last is None else min(last, count)
        return None if last is None else max(0, last - ceil(self.first * fps))


def seconds(time: Fraction) -> str:
    """A time for a sentence."""
    return f"{float(time):.6g} s"

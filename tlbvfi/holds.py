"""Gaps in which nothing new is made: the frame before them is shown until the one after them, so that no count changes.

Each kind goes around a timeline, and may go around another: ``Cuts(Stills(Multiplier(2), 0.0005), detector)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from torch import Tensor

from .scenes import SceneDetector, is_still
from .timeline import AFTER, BEFORE, Gap, Timeline


class Holds(Timeline):
    """A timeline whose gaps are held where there is a reason."""

    def __init__(self, inner: Timeline) -> None:
        self.inner = inner

    @property
    def loop(self) -> bool:  # type: ignore[override]
        return self.inner.loop

    @abstractmethod
    def holds(self, index: int, before: Tensor, after: Tensor) -> bool:
        """Whether a gap is held. Called once for every gap, in order."""

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        gap = self.inner.gap(index, before, after)
        if not self.holds(index, before, after):
            return gap
        return Gap(index, tuple(AFTER if place == AFTER else BEFORE for place in gap.places))

    def opening(self) -> Sequence[Fraction]:
        return self.inner.opening()

    def closing(self, index: int) -> Sequence[Fraction]:
        return self.inner.closing(index)

    def shows(self, index: int) -> bool:
        return self.inner.shows(index)

    def count(self, frames: int) -> int:
        return self.inner.count(frames)

    def until(self, index: int) -> int:
        return self.inner.until(index)

    def rate(self, fps: Fraction) -> Fraction:
        return self.inner.rate(fps)


class Cuts(Holds):
    """Held where one scene ends and another begins.

    Attributes:
        found: the indices of the source frames with which a scene begins, the first one not among them.
    """

    def __init__(
        self,
        inner: Timeline,
        detector: SceneDetector,
        on_cut: Callable[[int, Tensor, Tensor], object] | None = None,
    ) -> None:
        """on_cut: called with the index of the frame after each cut, the frame before it and that frame."""
        super().__init__(inner)
        self.found: list[int] = []
        self._detector, self._on_cut = detector, on_cut
        self._last: int | None = None

    def holds(self, index: int, before: Tensor, after: Tensor) -> bool:
        if self._last != index:
            self._detector.start(before)
        self._last = index + 1
        cut = self._detector.cut_before(after)
        if cut:
            self.found.append(index + 1)
            if self._on_cut is not None:
                self._on_cut(index + 1, before, after)
        return cut


class Stills(Holds):
    """Held where two neighbours show the same (see :func:`.scenes.is_still`): a copy rather than a computation."""

    def __init__(self, inner: Timeline, threshold: float) -> None:
        super().__init__(inner)
        self.threshold = threshold

    def holds(self, index: int, before: Tensor, after: Tensor) -> bool:
        return is_still(before, after, self.threshold)


class Skipped(Holds):
    """Held where a list says so."""

    def __init__(self, inner: Timeline, skipped: Callable[[int], bool]) -> None:
        """skipped: whether the gap after a source frame is held, by the frame's index."""
        super().__init__(inner)
        self._skipped = skipped

    def holds(self, index: int, before: Tensor, after: Tensor) -> bool:
        return bool(self._skipped(index))


def at_cuts(inner: Timeline, cuts: Iterable[int]) -> Timeline:
    """A timeline, held where scenes begin with these frames, as it is where :class:`Cuts` finds them."""
    return Skipped(inner, frozenset(cut - 1 for cut in cuts).__contains__)

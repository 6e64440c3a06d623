"""Partly transparent videos: colours and opacity are two pictures, which go through the model one beside the other.

The colours of a pixel that cannot be seen are whatever a program left there; in a frame halfway to another, in which
the pixel can be seen, they would bleed into it. So they are taken for the mean of those that can be seen in the frame,
and those of a frame in which nothing can be seen for those of its neighbour. All others stay as they are: multiplied by
their opacity, they would darken towards every edge, and new frames would have to be divided by an opacity that is not
exact. Which frames are wanted, such as where a cut is, is decided by what is seen over a chessboard, which shows
a picture that fades and does not move as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import tee

import torch
from torch import Tensor

from .frames import check_frame
from .interpolate import interpolate_timeline
from .model import TLBVFI
from .outputs import Output
from .planning import Plan
from .settings import Settings
from .timeline import AFTER, BEFORE, Gap, Timeline

#: Pixels of a side of the chessboard's squares.
_SQUARE = 8
#: What is nearer to opaque or to invisible than this is that; the model misses it by as much.
_NEAR = 1.5 / 255


def interpolate_with_opacity(
    model: TLBVFI,
    frames: Iterable[Tensor],
    timeline: Timeline,
    settings: Settings | None = None,
    *,
    first_gap: int = 0,
    batch_size: int | None = None,
    plan: Plan | None = None,
    on_step: Callable[[int], object] | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> Iterator[Output]:
    """The same as :func:`.interpolate.interpolate_timeline` for frames (H, W, 4), red, green, blue and opacity.

    Source frames come out as they went in. Where one of the two pictures is the same before and after a gap, it is not
    computed anew. `on_step` and `on_progress` hear of the calls for both.
    """
    if plan is not None:  # two runs at once would keep the memory of two sets of CUDA graphs
        plan = replace(plan, graphs=False)
    decisions = _Decisions(timeline, first_gap)
    colours, opacities = tee(decisions.pictures(iter(frames)))
    runs = [
        interpolate_timeline(
            model,
            pictures,
            decided,
            settings,
            first_gap=first_gap,
            batch_size=batch_size,
            plan=plan,
            on_step=on_step,
            on_progress=on_progress,
        )
        for pictures, decided in (
            ((colour for colour, _ in colours), decisions.first),
            ((opacity for _, opacity in opacities), decisions.second),
        )
    ]
    for colour, opacity in zip(*runs, strict=True):
        yield decisions.joined(colour, opacity)


class _Decisions:
    """What is wanted of a video, decided once for the run of its colours and that of its opacity.

    Attributes:
        first, second: the timelines of the two runs.
    """

    def __init__(self, timeline: Timeline, index: int) -> None:
        self._timeline = timeline
        self._index = index  # of the next frame
        self._sources: dict[int, Tensor] = {}
        self._begin: Tensor | None = None
        self._last: Tensor | None = None
        self.first, self.second = (_Decided(timeline, self._decide_loop) for _ in range(2))

    def pictures(self, frames: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The colours and the opacity of each frame, both (H, W, 3)."""
        size: tuple[int, int] | None = None
        colours: Tensor | None = None
        ahead = next(frames, None)
        while ahead is not None:
            frame = ahead
            check_frame(frame[..., :3], self._index, size)
            size = (frame.shape[0], frame.shape[1])
            ahead = next(frames, None)
            near = (_filled(frame), None if ahead is None else _filled(ahead), colours)
            colours = next((each for each in near if each is not None), frame[..., :3].contiguous())
            self._decide(frame)
            yield colours, frame[..., 3:].expand(-1, -1, 3).contiguous()

    def _decide(self, frame: Tensor) -> None:
        seen = _over_chessboard(frame)
        if self._last is not None:
            self._put(self._timeline.gap(self._index - 1, self._last, seen))
        self._begin = seen if self._begin is None else self._begin
        self._last = seen
        self._sources[self._index] = frame
        self._index += 1

    def _decide_loop(self) -> None:
        """The gap from the last frame to the first one."""
        assert self._last is not None and self._begin is not None
        self._put(self._timeline.gap(self._index - 1, self._last, self._begin))

    def _put(self, gap: Gap) -> None:
        self.first.waiting.append(gap)
        self.second.waiting.append(gap)

    def joined(self, colour: Output, opacity: Output) -> Output:
        """A frame of both; a source frame as it was."""
        position = max(colour.position, opacity.position)  # where one is held, the other tells
        for index in [index for index in self._sources if index < int(position)]:
            del self._sources[index]
        if position.denominator == 1 and int(position) in self._sources:
            return Output(position, self._sources[int(position)].to("cpu", torch.float32).clone())
        values = opacity.frame.mean(-1, keepdim=True)
        values = torch.where(values < _NEAR, 0.0, torch.where(values > 1 - _NEAR, 1.0, values))
        return Output(position, torch.cat([colour.frame, values], dim=-1))


class _Decided(Timeline):
    """A timeline for one of the two runs, whose gaps were decided for both."""

    def __init__(self, inner: Timeline, decide_loop: Callable[[], None]) -> None:
        self.inner, self.waiting = inner, deque[Gap]()
        self._decide_loop = decide_loop

    @property
    def loop(self) -> bool:  # type: ignore[override]
        return self.inner.loop

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        if not self.waiting:
            self._decide_loop()
        gap = self.waiting.popleft()
        if gap.new and torch.equal(before, after):
            return Gap(gap.index, tuple(AFTER if place == AFTER else BEFORE for place in gap.places))
        return gap

    def opening(self) -> tuple[Fraction, ...]:
        return tuple(self.inner.opening())

    def closing(self, index: int) -> tuple[Fraction, ...]:
        return tuple(self.inner.closing(index))

    def shows(self, index: int) -> bool:
        return self.inner.shows(index)

    def count(self, frames: int) -> int:
        return self.inner.count(frames)

    def rate(self, fps: Fraction) -> Fraction:
        return self.inner.rate(fps)


def _filled(frame: Tensor) -> Tensor | None:
    """The colours of a frame, the mean of those that are seen where nothing is; None where nothing is at all."""
    seen, colours = frame[..., 3] > 0, frame[..., :3]
    if bool(seen.all()):
        return colours.contiguous()
    if not bool(seen.any()):
        return None
    return torch.where(seen[..., None], colours, colours[seen].mean(0))


def _over_chessboard(frame: Tensor) -> Tensor:
    """What is seen of a frame over black and white squares."""
    rows, columns = (torch.arange(side, device=frame.device) // _SQUARE for side in frame.shape[:2])
    board = ((rows[:, None] + columns) % 2).to(frame.dtype)[..., None]
    return torch.lerp(board.expand(-1, -1, 3), frame[..., :3], frame[..., 3:])

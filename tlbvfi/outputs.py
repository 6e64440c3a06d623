"""Frames on their way out of a run: each with its position, in display order, waited for as late as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from .finite import check_new_frame
from .timeline import AFTER, BEFORE, Gap
from .transfer import HostCopy


@dataclass(frozen=True)
class Output:
    """A frame that a timeline wants.

    Attributes:
        position: where it stands, in source frames from the begin of the video.
        frame: (H, W, 3) float32 in [0, 1] on the CPU.
    """

    position: Fraction
    frame: Tensor


@dataclass(frozen=True)
class Coming:
    """A new frame on its way to the host: one of a copy's."""

    position: Fraction
    copy: HostCopy
    which: int = 0


def source_outputs(position: Fraction, frame: Tensor, count: int = 1) -> Iterator[Output]:
    """A source frame, shown so many times; the first one is the frame itself, so the caller may change the others."""
    own = frame.clone() if count > 1 else frame
    for number in range(count):
        shown = own.clone() if number else frame
        yield Output(position, shown.to(device="cpu", dtype=torch.float32))


@dataclass(frozen=True)
class Part:
    """Neighbouring gaps of a video that want the same new frames, and so can go through the model together.

    Attributes:
        before: a copy of the source frame before the first gap. The caller, or a source that uses its memory again, may
            change what was given out, and a part may have to be begun again.
        ends: the source frame at the end of each gap.
    """

    before: Tensor
    gaps: tuple[Gap, ...]
    ends: tuple[Tensor, ...]

    @cached_property
    def after(self) -> Tensor:
        """A copy of the source frame after the last gap, to be asked for before that is given out."""
        return self.ends[-1].clone()

    @property
    def new(self) -> tuple[Fraction, ...]:
        return self.gaps[0].new

    def split(self, count: int) -> Iterator[Part]:
        """Parts of at most so many gaps."""
        before = self.before
        for start in range(0, len(self.gaps), count):
            place = slice(start, start + count)
            part = Part(before, self.gaps[place], self.ends[place])
            before = part.after
            yield part

    def shown(self, number: int, copies: Iterable[tuple[Fraction, HostCopy]]) -> Iterator[Output | Coming]:
        """The frames of one of the gaps in display order, given the new frames of all by their places."""
        gap, before = self.gaps[number], self.ends[number - 1] if number else self.before
        if held := gap.places.count(BEFORE):
            yield from source_outputs(gap.index + BEFORE, before.clone(), held)
        for place, copy in copies:
            for _ in range(gap.places.count(place)):
                yield Coming(gap.index + place, copy, number)
            del copy
        yield from source_outputs(gap.index + AFTER, self.ends[number], gap.places.count(AFTER))


def delivered(coming: Iterator[Output | Coming], dtype: torch.dtype) -> Iterator[Output]:
    """Frames in their order. One on its way is waited for once the device has been given work after it, so that it
    works while the frame is used.

    Args:
        dtype: that the model computes in.

    Raises:
        NonFiniteFrameError: a new frame is not finite; one sentence.
    """
    held: deque[Output | Coming] = deque()
    for item in coming:
        held.append(item)
        del item
        while held and (isinstance(held[0], Output) or held[0].copy.timely):
            yield _here(held.popleft(), dtype)
    while held:
        yield _here(held.popleft(), dtype)


def _here(item: Output | Coming, dtype: torch.dtype) -> Output:
    if isinstance(item, Output):
        return item
    frame = item.copy.wait(item.which)
    check_new_frame(frame, item.position, dtype)
    return Output(item.position, frame)

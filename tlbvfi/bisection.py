"""The new frames of a gap by bisection: a frame half-way between two, then half-way between these, as far as wanted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from einops import rearrange
from torch import Tensor

from .bridge import generator_at
from .calls import Calls
from .features import FrameFeatures
from .precision import tf32
from .rows.owned import Owned
from .slots import Ends, Handle, Held, lent
from .timeline import AFTER, BEFORE, depth_of
from .transfer import HostCopies, HostCopy


@dataclass(frozen=True)
class Interval:
    """A part of a gap, between two frames that are there."""

    begin: Fraction
    end: Fraction

    @property
    def middle(self) -> Fraction:
        return (self.begin + self.end) / 2

    def halves(self) -> tuple[Interval, Interval]:
        return Interval(self.begin, self.middle), Interval(self.middle, self.end)

    def within(self, places: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """Those of the places that lie inside, the ends not among them."""
        return tuple(place for place in places if self.begin < place < self.end)


WHOLE_GAP = Interval(BEFORE, AFTER)


def midpoints(wanted: Sequence[Fraction], interval: Interval = WHOLE_GAP) -> int:
    """How many frames are computed for those at the places wanted, which are within the interval."""
    inside = interval.within(wanted)
    return 1 + sum(midpoints(inside, half) for half in interval.halves()) if inside else 0


#: New frames by their places, in order: (B, H, W, 3) on their way to the host or, without offloading, on the device.
#: Returns the features of the frame that ends the gap.
NewFrames = Generator[tuple[Fraction, HostCopy | Tensor], None, Handle]


@dataclass
class Halves:
    """What is known of an interval once the frame in its middle is there.

    Attributes:
        begin, middle, end: features of the three frames; of the first one only where something is wanted after it.
        frame: the middle frame itself, on its way out.
    """

    begin: Handle | None
    middle: Handle
    end: Handle
    frame: Owned[HostCopy | Tensor]


class Bisection:
    """How a run evaluates gaps. Neighbours that want the same places may go through the model as a batch, each as if it
    were alone.

    Attributes:
        new_frames: how many frames were computed.
        empty: features of the empty frame, where they are there already.
        on_progress: where given, called before every model call and within the longer ones with the frames of one gap
            that are computed, and how much of the next one is; what it raises ends the run.
    """

    def __init__(self, calls: Calls, copies: HostCopies, before_call: Callable[[int], object]) -> None:
        """before_call: called before every model call with :attr:`new_frames`; what it raises ends the run."""
        self.calls, self.settings, self.copies = calls, calls.settings, copies
        self._before_call = before_call
        self.new_frames = 0
        self.empty: Tensor | None = None
        self.on_progress: Callable[[float], object] | None = None
        self._computed = 0

    @torch.no_grad()
    def encode_empty(self) -> Tensor:
        """Features of the empty frame between any two of this size."""
        with tf32(self.settings.tf32):
            return self.calls.model.encode_empty(*self.calls.padding.padded, self.calls.strips)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Owned[FrameFeatures] | Held:
        """Features of frames (B, H, W, 3) in [0, 1], on any device."""
        with tf32(self.settings.tf32):
            self._calling()
            on_device = rearrange(self.copies.to_device(frames), "b h w c -> b c h w").to(torch.float32)
            frame = self.calls.padding.pad(on_device.clamp(0.0, 1.0)) * 2.0 - 1.0
            del on_device
            encoded = self.calls.encode(frame, self.empty)
            if self.calls.strips.frugal:
                encoded.borrow().relocate(self.copies.apart)
            return encoded

    @torch.no_grad()
    def seated(
        self, left: Handle, right: Handle, gaps: Sequence[int]
    ) -> tuple[Owned[FrameFeatures] | Held, Owned[FrameFeatures] | Held]:
        """Features of both ends, taken from their handles, on the device for the next :meth:`midpoint` of the gaps."""
        with tf32(self.settings.tf32):
            return self.calls.seated(left, right, len(gaps))

    @torch.no_grad()
    def midpoint(self, left: Ends, right: Ends, gaps: Sequence[int], place: Fraction) -> Tensor:
        """The frames half-way, (B, H, W, 3) float32 in [0, 1] on the device.

        Args:
            left, right: from :meth:`seated`, lent or handed over.
        """
        with tf32(self.settings.tf32):
            self._calling()
            listener = None if self.on_progress is None else self._progress
            frame = self.calls.midpoint(left, right, self._noise(gaps, place), listener)
            self.new_frames += len(gaps)
            self._computed += 1
            return frame

    def _calling(self) -> None:
        """What happens before every model call."""
        self._before_call(self.new_frames)
        self._progress(0.0)

    def _progress(self, part: float) -> None:
        if self.on_progress is not None:
            self.on_progress(self._computed + part)

    def _noise(self, gaps: Sequence[int], place: Fraction) -> Tensor | None:
        """Each gap's own draws, which depend on the seed and the place alone: (step, gap, C, T, h, w); None for none.

        The place is in lowest terms, so that a frame is the same at every depth of the bisection.
        """
        model = self.calls.model
        shape = model.latent_shape(*self.calls.padding.padded)
        generators = [generator_at(self.settings.seed, gap, place.numerator, depth_of(place)) for gap in gaps]
        draws = [
            torch.randn(shape, generator=generator, dtype=torch.float32)
            for _ in self.settings.timesteps(model.schedule)[1:]
            for generator in generators
        ]
        if not draws:
            return None
        on_device = self.copies.to_device(torch.stack(draws))
        return rearrange(on_device, "(step gap) c t h w -> step gap c t h w", gap=len(gaps))

    def between(
        self,
        left: Handle,
        right: Handle,
        gaps: Sequence[int],
        wanted: Sequence[Fraction],
        interval: Interval = WHOLE_GAP,
    ) -> NewFrames:
        """The gaps' frames at the places wanted, which are within the interval. Nothing else is computed but the frames
        that these are half-way to.

        Features of an end that has to wait for its turn are offloaded, so that the model's device holds one batch of
        pairs at any depth; where memory is short, also those of the last frame, which are the next gap's first.

        Args:
            left, right: features of the frames at the ends, which are taken.
            gaps: the index of each gap of the batch.
        """
        middle, (first, second) = interval.middle, interval.halves()
        before, after = first.within(wanted), second.within(wanted)
        if not before and not after:
            left, right = self.seated(left, right, gaps)
            if middle in wanted and self.calls.strips.frugal:
                waiting = lent(right).offload(self.copies, apart=True)
                waiting.release()
                frame = self.midpoint(left, right, gaps, middle)
                del left, right
                yield middle, self._leaving(frame)
                return waiting
            if middle in wanted:
                yield middle, self._leaving(self.midpoint(left, lent(right), gaps, middle))
            return right
        halves = self._halved(left, right, gaps, middle, begin_is_needed=bool(before))
        features = halves.middle
        if halves.begin is not None:
            features = yield from self.between(halves.begin, features, gaps, before, first)
        if middle in wanted:
            yield middle, halves.frame.take()
        if not after:
            return halves.end
        return (yield from self.between(features, halves.end, gaps, after, second))

    def _halved(
        self, left: Handle, right: Handle, gaps: Sequence[int], middle: Fraction, begin_is_needed: bool
    ) -> Halves:
        """Compute the frame in the middle, with the right end offloaded meanwhile; where memory is short the left one
        too, and neither stays on the device."""
        begin, end = self.seated(left, right, gaps)
        frugal = self.calls.strips.frugal
        waiting_end = lent(end).offload(self.copies, apart=frugal)
        if not frugal:
            try:
                frame = self.midpoint(lent(begin), lent(end), gaps, middle)
            finally:
                waiting_end.release()
            del end
            kept = begin if begin_is_needed else None
            del begin
            return Halves(kept, self.encode(frame), waiting_end, Owned(self._leaving(frame)))
        waiting_begin = lent(begin).offload(self.copies, apart=True) if begin_is_needed else None
        for waiting in (waiting_begin, waiting_end):
            if waiting is not None:
                waiting.release()
        frame = self.midpoint(begin, end, gaps, middle)
        return Halves(waiting_begin, self.encode(frame), waiting_end, Owned(self._leaving(frame)))

    def _leaving(self, frames: Tensor) -> HostCopy | Tensor:
        return self.copies.to_host(frames) if self.settings.offload else frames

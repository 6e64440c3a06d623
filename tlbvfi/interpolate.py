"""From frames to more frames: the gaps of a timeline in order, one frame on the host at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import groupby, islice, pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor

from .bisection import Bisection, NewFrames, midpoints
from .calls import Calls
from .device_memory import DeviceMemoryError, empty_cache, is_out_of_memory
from .features import FrameFeatures
from .frames import check_frame
from .graphs import GraphCalls, graph_calls
from .kernel_compilation import compile_kernels
from .kernels.availability import give_up
from .kernels.registry import KernelError
from .model import TLBVFI
from .numbers import whole_number
from .outputs import Coming, Output, Part, delivered, source_outputs
from .padding import padding_for
from .planning import Plan, candidates
from .ranges import PaddingMode
from .rows.cuts import WHOLE
from .rows.owned import Owned
from .settings import Settings
from .slots import Handle, Held
from .timeline import BEFORE, MAX_DEPTH, Gap, Multiplier, Timeline, loop_gap
from .transfer import HostCopies, HostCopy

log = logging.getLogger(__name__)

#: New frames of a gap up to which gaps are batched: a batch holds all of them before the first can be given out.
_MOST_NEW_IN_BATCH = 15
#: New frames of which all are on their way to the host.
_Copies = Generator[tuple[Fraction, HostCopy], None, Handle]
T = TypeVar("T")


def interpolate_frames(
    model: TLBVFI,
    frames: Iterable[Tensor],
    times: int = 1,
    flow_scale: float = 0.5,
    sample_steps: int | Sequence[int] = 10,
    seed: int = 0,
    *,
    padding: PaddingMode = "tight",
    offload: bool = True,
    first_gap: int = 0,
    batch_size: int | None = None,
    plan: Plan | None = None,
    on_step: Callable[[int], object] | None = None,
) -> Iterator[Tensor]:
    """Put 2**times - 1 new frames into each gap between the frames of a video.

    The same as :func:`interpolate_timeline` with a :class:`~.timeline.Multiplier` of 2**times.

    Args:
        model: from :func:`tlbvfi.load_model`; decides device and dtype.
        frames: (H, W, 3) float tensors in [0, 1], all of one size, any size down to 1x1, on any device (best the CPU:
            to look at the values of a frame on another is to wait for all of that device's work).
        times: how often each gap is halved, from 0 (nothing new).
        flow_scale, sample_steps, seed, padding, offload: as in :class:`~.settings.Settings`.
        first_gap, batch_size, plan, on_step: as for :func:`interpolate_timeline`.

    Yields:
        (H, W, 3) float32 tensors in [0, 1] on the CPU, in display order; source frames unchanged to the bit, what is a
        little outside of [0, 1] too (the very tensors, where they are float32 on the CPU).

    Raises:
        ValueError: a setting or a frame that cannot be used, named in one sentence (settings at the call, frames when
            they come up).
        NonFiniteFrameError: a ValueError too: a new frame holds NaN or infinity, because a weight is damaged or does
            not fit the model's dtype.
        DeviceMemoryError: the device's memory does not suffice even for the smallest plan. Where it is short, a gap is
            begun again by the next smaller one.
    """
    timeline = Multiplier(2 ** whole_number("times", times, 0, MAX_DEPTH))
    settings = Settings(flow_scale, sample_steps, seed, padding, offload)
    outputs = interpolate_timeline(
        model, frames, timeline, settings, first_gap=first_gap, batch_size=batch_size, plan=plan, on_step=on_step
    )
    return (output.frame for output in outputs)


def interpolate_timeline(
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
    """The frames that a timeline wants of a video.

    Frames are taken one by one, and each is encoded once at most; the memory of the model's device depends on the size
    alone, not on the length or the depth.

    Args:
        model, frames: as for :func:`interpolate_frames`.
        timeline: which frames are wanted.
        settings: how they are made; the defaults of :class:`~.settings.Settings` by default.
        first_gap: the place in the video of the first gap, where `frames` is a later part of one.
        batch_size: gaps that go through the model together, where they want the same places; as many frames are taken
            ahead, so that a source may not use their memory again. The frames are the same. By default as the plan
            says, or one.
        plan: from :func:`tlbvfi.plan` for these frames: how wide maps are cut, so that the run fits a budget. The
            frames are the same to rounding.
        on_step: called before every model call (encoding a frame or computing a new one) with the number of new frames
            computed so far; what it raises ends the run.
        on_progress: called before every model call, and several times within the longer ones, with the position in
            source frames up to which the work is done (on a graphics card: given to it); what it raises ends the run.

    Yields:
        Each frame with its position, in display order (see :func:`interpolate_frames`, for the errors too).
    """
    settings = settings or Settings()
    settings.check_model(model)
    first_gap = whole_number("first_gap", first_gap)
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, 1)
    run = TimelineRun(model, settings, timeline, plan, batch_size, on_step, on_progress)
    return delivered(_released(run, run.outputs(_checked(frames), first_gap)), model.dtype)


def _released(run: TimelineRun, outputs: Iterator[Output | Coming]) -> Iterator[Output | Coming]:
    """The same outputs; however they end, nothing is left of the run on the device."""
    try:
        yield from outputs
    finally:
        run.release()


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    size: tuple[int, int] | None = None
    for index, frame in enumerate(frames):
        check_frame(frame, index, size)
        size = (frame.shape[0], frame.shape[1])
        yield frame.detach()


class TimelineRun:
    """A video through the model, some gaps at a time, each by the largest plan that the device's memory takes.

    Attributes:
        timeline: which frames are wanted.
        size: (height, width) of the frames, once :meth:`outputs` has begun.
        left: features of the frame before the next gap, where they are there. A run that is not looped may be given the
            next part of its video by another call of :meth:`outputs`, whose first frame is the last one of this part.
    """

    def __init__(
        self,
        model: TLBVFI,
        settings: Settings,
        timeline: Timeline,
        plan: Plan | None,
        batch_size: int | None,
        on_step: Callable[[int], object] | None,
        on_progress: Callable[[float], object] | None,
    ) -> None:
        self.model, self.settings, self.timeline, self.plan = model, settings, timeline, plan
        self.on_step, self.on_progress = on_step, on_progress
        self.read_ahead = batch_size or (plan.batch_size if plan else 1)
        self.batch_size = 1 if plan and plan.strips.frugal else self.read_ahead
        self.most_new = _MOST_NEW_IN_BATCH if batch_size is None else 2**MAX_DEPTH
        self.copies = HostCopies(model.device)
        self.new_frames = 0
        self.ended = False  # by the caller's on_step or on_progress
        self.looping = False  # the next gap leads from the last frame to the first one
        self.before: Tensor  # a copy of the source frame before the next gap
        self.empty: Tensor | None = None  # features of the empty frame, the same for every pair
        self.left: Handle | None = None  # features of the frame before the next gap, where they are there
        self._graphs: GraphCalls | None = None
        self._may_capture = True  # not decided yet

    def release(self) -> None:
        """Give back what the run has of the device's memory."""
        self.left = None
        self._release_graphs()

    def _release_graphs(self) -> bool:
        """Go on without captured calls; whether there were any."""
        held = self._graphs is not None and self._graphs.holding
        if self._graphs is not None and held:
            self._graphs.release()
            empty_cache(self.model.device)
        self._graphs, self._may_capture = None, False
        return held

    def outputs(self, sources: Iterator[Tensor], index: int) -> Iterator[Output | Coming]:
        """The whole video, in display order; `index` is that of the first gap."""
        first = next(sources, None)
        if first is None:
            return
        self.size = (first.shape[0], first.shape[1])
        self.before = first.clone()
        if self.timeline.loop:
            sources = self._with_loop(sources, self.before)
        yield from source_outputs(Fraction(index), first, len(self.timeline.opening()))
        del first
        while ends := list(islice(sources, self.read_ahead)):
            for part in self._parts(ends, index):
                yield from self._completed(part)
            index += len(ends)
        yield from source_outputs(Fraction(index), self.before, len(self.timeline.closing(index - 1)))

    def _with_loop(self, sources: Iterator[Tensor], first: Tensor) -> Iterator[Tensor]:
        yield from sources
        self.looping = True
        yield first

    def _parts(self, ends: list[Tensor], index: int) -> Iterator[Part]:
        """The gaps before some source frames, as the timeline wants them, in parts."""
        gaps: list[Gap] = []
        for number, (first, second) in enumerate(pairwise([self.before, *ends]), 1):
            last = self.looping and number == len(ends)
            wanted = partial(loop_gap, self.timeline) if last else self.timeline.gap
            gaps.append(wanted(index + number - 1, first, second))
        for new, run in groupby(zip(gaps, ends, strict=True), key=lambda pair: pair[0].new):
            some, their_ends = zip(*run, strict=True)
            fits = len(new) <= self.most_new and not any(BEFORE in gap.places for gap in some)
            for part in Part(self.before, some, their_ends).split(self.batch_size if fits else 1):
                self.before = part.after
                yield part

    def _completed(self, part: Part) -> Iterator[Output | Coming]:
        """The frames of a part; begun again where the device's memory is short, without captured calls or by a smaller
        plan, and where a kernel of our own fails, without these; and without the frames that were given out."""
        given, computed = 0, self.new_frames
        while True:
            frames = self._frames(part)
            try:
                for number, frame in enumerate(frames):
                    if number >= given:
                        given = number + 1
                        yield frame
                    del frame
                return
            except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                failed = str(error) if isinstance(error, KernelError) else None
                if self.ended or not (failed or is_out_of_memory(error)):
                    raise
            # Outside of the handler, so that the failed call's tensors are gone with its traceback.
            del frames
            self.left, self.new_frames = None, computed
            if failed:
                self._release_graphs()
                give_up(self.model.device, failed)
                self._may_capture = True
                continue
            if self._release_graphs():
                log.warning("The memory of %s is short: going on without CUDA graphs.", self.model.device)
                continue
            self._shrink()
            if len(part.gaps) > 1:  # of which nothing was given out yet
                for single in part.split(1):
                    yield from self._completed(single)
                return

    def _shrink(self) -> None:
        """Go on by the next smaller plan, with the device's cache emptied."""
        device, (height, width) = self.model.device, self.size
        empty_cache(device)
        ways = candidates(
            height, width, self.model.dtype, self.settings.flow_scale, self.model.params, self.settings.padding
        )
        rows = self.plan.strip_rows if self.plan else ways[0].padded_size[0]
        following = next((way for way in ways if way.strip_rows < rows or self.batch_size > 1), None)
        if following is None:
            raise DeviceMemoryError(
                f"{width}x{height} does not fit the memory of {device}, not even in the smallest strips "
                f"({ways[-1].peak_bytes / 2**30:.2f} GiB); use a smaller flow_scale, float16 or smaller frames, or "
                "end what else uses the device."
            )
        how = f"in strips of {following.strip_rows} rows" if following.strip_rows < rows else "with one gap at a time"
        log.warning("The memory of %s is short: going on %s.", device, how)
        self.plan, self.batch_size = following, 1

    def _step(self, new_frames: int) -> None:
        self._tell(self.on_step, self.new_frames + new_frames)

    def _tell(self, listener: Callable[[T], object] | None, what: T) -> None:
        if listener is None:
            return
        try:
            listener(what)
        except BaseException:
            self.ended = True
            raise

    def _frames(self, part: Part) -> Iterator[Output | Coming]:
        """All frames of a part in display order."""
        copies: Iterable[tuple[Fraction, HostCopy]] = self._copies(part)
        if len(part.gaps) > 1:
            # A place's frames of all gaps come together: all have to be there before the first gap can be shown whole.
            copies = list(copies)
        for number in range(len(part.gaps)):
            yield from part.shown(number, copies)

    def _copies(self, part: Part) -> Iterator[tuple[Fraction, HostCopy]]:
        """The new frames of a part by their places, in order, on their way to the host."""
        self.left, left = None, self.left
        if not part.new:
            return
        bisection = self._bisection()
        if self.on_progress is not None:
            begin, share = part.gaps[0].index, len(part.gaps) / midpoints(part.new)
            bisection.on_progress = lambda done: self._tell(self.on_progress, begin + done * share)
        new = bisection.between(*self._ends(bisection, part, left), [gap.index for gap in part.gaps], part.new)
        last = yield from cast("_Copies", new) if self.settings.offload else self._copied_at_end(new)
        self.left = _last(last) if len(part.gaps) > 1 else last
        self.new_frames += bisection.new_frames

    def _bisection(self) -> Bisection:
        bisection = Bisection(self._calls(), self.copies, self._step)
        if self.empty is None:  # while nothing else is there
            compile_kernels(self.model, bisection.calls.padding.padded, self.batch_size, self.settings)
            self.empty = bisection.encode_empty()
        bisection.empty = self.empty
        return bisection

    def _calls(self) -> Calls:
        padding = padding_for(*self.size, self.settings.padding, self.model.multiple)
        if self._may_capture:
            self._may_capture = False
            self._graphs = graph_calls(self.model, self.settings, padding, self.plan)
        strips = self.plan.strips if self.plan else WHOLE
        return self._graphs or Calls(self.model, self.settings, padding, strips)

    @staticmethod
    def _ends(bisection: Bisection, part: Part, left: Handle | None) -> tuple[Handle, Handle]:
        """Features of the frames before and after each of the gaps; `left` has those before the first, if any."""
        before = left or bisection.encode(part.before[None])
        right = bisection.encode(torch.stack(part.ends) if len(part.ends) > 1 else part.ends[0][None])
        if len(part.ends) > 1:
            before = Owned(FrameFeatures.cat([before.take(), right.borrow()[:-1]]))
        return before, right

    def _copied_at_end(self, new: NewFrames) -> _Copies:
        """The same new frames, on their way to the host once all of them are there."""
        done: list[tuple[Fraction, HostCopy | Tensor]] = []
        while True:
            try:
                done.append(next(new))
            except StopIteration as end:
                last: Handle = end.value
                break
        copies = [(place, self.copies.to_host(frame)) for place, frame in done if isinstance(frame, Tensor)]
        del done
        yield from copies
        return last


def _last(features: Handle) -> Owned[FrameFeatures]:
    """Those of the last frame of a batch, taken from its handle."""
    if isinstance(features, Held):
        return Owned(features.borrow()[-1:].each(torch.clone))
    return Owned(features.take()[-1:])

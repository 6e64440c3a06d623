"""From frames to more frames: pairs in order, bisection between them, one frame on the host at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral

import torch
from einops import rearrange
from torch import Tensor

from .bridge import generator_at
from .features import FrameFeatures
from .memory import Plan, candidates
from .model import TLBVFI
from .padding import Padding, PaddingMode, check_flow_scale, padding_for
from .rows.cuts import WHOLE, Strips
from .rows.owned import Owned
from .transfer import HostCopies, HostCopy

log = logging.getLogger(__name__)

#: How far outside [0, 1] a frame may be (it is clamped) before it counts as a frame in another range.
RANGE_TOLERANCE = 0.5
#: How often a gap may be halved.
MAX_TIMES = 10
#: Gaps go together up to here: their new frames are all there before the first gap's can be given out.
_MOST_TIMES_TOGETHER = 4


@dataclass(frozen=True)
class _Place:
    """Where in its gap a new frame stands: at `numerator` / 2**`depth` of the way.

    The fraction is in lowest terms, so that a frame is the same at every depth of the bisection.
    """

    numerator: int = 1
    depth: int = 1

    @property
    def before(self) -> _Place:
        return _Place(2 * self.numerator - 1, self.depth + 1)

    @property
    def after(self) -> _Place:
        return _Place(2 * self.numerator + 1, self.depth + 1)


_MIDDLE = _Place()


class _Bisection:
    """The settings of a run, and what they make of gaps: several neighbouring ones at a time go through the model
    as a batch, each as if it were alone."""

    def __init__(
        self,
        model: TLBVFI,
        padding: Padding,
        flow_scale: float,
        sample_steps: int | Sequence[int],
        seed: int,
        offload: bool,
        strips: Strips,
        on_step: Callable[[int], object] | None,
        copies: HostCopies,
        empty: Tensor,
    ) -> None:
        self.model, self.padding, self.strips, self.empty = model, padding, strips, empty
        self.flow_scale, self.sample_steps, self.seed = flow_scale, sample_steps, seed
        self.offload, self.copies = offload, copies
        self.on_step, self.new_frames = on_step, 0

    def _before_model_call(self) -> None:
        if self.on_step is not None:
            self.on_step(self.new_frames)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> FrameFeatures:
        """frames: (B, H, W, 3) in [0, 1], on any device."""
        self._before_model_call()
        on_device = rearrange(self.copies.to_device(frames), "b h w c -> b c h w").to(torch.float32)
        frame = self.padding.pad(on_device.clamp(0.0, 1.0)) * 2.0 - 1.0
        del on_device
        return self.model.encode_frame(frame, self.flow_scale, self.strips, self.empty)

    @torch.no_grad()
    def _midpoints(
        self,
        left: FrameFeatures | Owned[FrameFeatures],
        right: FrameFeatures | Owned[FrameFeatures],
        gaps: range,
        place: _Place,
    ) -> Tensor:
        """The frames half-way, (B, H, W, 3) float32 in [0, 1] on the device."""
        self._before_model_call()
        noise = self._noise(gaps, place)
        frame = self.model.midpoint(left, right, self.sample_steps, noise, strips=self.strips)
        self.new_frames += len(gaps)
        return rearrange(self.padding.crop(frame) * 0.5 + 0.5, "b c h w -> b h w c").clamp(0.0, 1.0)

    def _noise(self, gaps: range, place: _Place) -> list[Tensor]:
        """Each gap's own draws, which depend on the seed and the place alone, stacked for the batch."""
        shape = self.model.latent_shape(*self.padding.padded)
        generators = [generator_at(self.seed, gap, place.numerator, place.depth) for gap in gaps]
        draws = [
            torch.randn(shape, generator=generator, dtype=torch.float32)
            for _ in self.model.schedule.timesteps(self.sample_steps)[1:]
            for generator in generators
        ]
        if not draws:
            return []
        on_device = self.copies.to_device(torch.stack(draws))
        return list(rearrange(on_device, "(step gap) c t h w -> step gap c t h w", gap=len(gaps)))

    def between(
        self, left: FrameFeatures, right: FrameFeatures, gaps: range, times: int, place: _Place = _MIDDLE
    ) -> _Places:
        """For each of the 2**times - 1 places between the ends of the gaps, in order, the gaps' frames
        (B, H, W, 3) on their way to the host, or still on the device. Returns `right`.

        Features of an end that has to wait for its turn are offloaded, so that the model's device holds one batch of
        pairs at any depth. For that the caller must not keep the features it passes.
        """
        frugal = self.strips.frugal
        if times == 1:
            end = Owned(left) if frugal else left
            del left
            middle = self._midpoints(end, right, gaps, place)
            del end
            yield self._leaving(middle)
            return right
        waiting = right.offload(self.copies)
        if frugal:
            begin = left.offload(self.copies)
            begin.release()
            waiting.release()
            ends = Owned(left), Owned(right)
            del left, right
            middle = self._midpoints(*ends, gaps, place)
            features, leaving = self.encode(middle), self._leaving(middle)
            del middle
            first_half = self.between(begin.restore(), features, gaps, times - 1, place.before)
            del begin, features
        else:
            try:
                middle = self._midpoints(left, right, gaps, place)
                features, leaving = self.encode(middle), self._leaving(middle)
            finally:
                waiting.release()
            del middle, right
            first_half = self.between(left, features, gaps, times - 1, place.before)
            del left, features
        features = yield from first_half
        yield leaving
        del leaving
        second_half = self.between(features, waiting.restore(), gaps, times - 1, place.after)
        del features, waiting
        return (yield from second_half)

    def _leaving(self, frames: Tensor) -> HostCopy | Tensor:
        return self.copies.to_host(frames) if self.offload else frames


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

    Frames are taken one by one, and each is encoded once; the memory of the model's device depends on the size alone,
    not on the length or the depth.

    Args:
        model: from :func:`tlbvfi.load_model`; decides device and dtype.
        frames: (H, W, 3) float tensors in [0, 1], all of one size, any size down to 1x1, on any device (best the CPU:
            to look at the values of a frame on another is to wait for all of that device's work).
        times: how often each gap is halved, from 0 (nothing new).
        flow_scale: the flow is computed at this fraction of the size, within [0.1, 1]; smaller for larger motion.
        sample_steps: steps of the bridge (at least 3), or their list.
        seed: the same seed gives the same frames.
        padding: ``"tight"``, or ``"published"`` for the published code's larger pad.
        offload: move each new frame to the host at once; otherwise those of a gap stay on the device until the gap
            is finished.
        first_gap: the place in the video of the first gap, where `frames` is a later part of one.
        batch_size: gaps that go through the model together; as many frames are taken ahead, so that a source may not
            use their memory again. The frames are the same. By default as the plan says, or one.
        plan: from :func:`tlbvfi.plan` for these frames: how wide maps are cut, so that the run fits a budget. The
            frames are the same to rounding.
        on_step: called before every model call (encoding a frame or computing a new one) with the number of new frames
            computed so far; what it raises ends the run.

    Yields:
        (H, W, 3) float32 tensors in [0, 1] on the CPU, in display order; source frames unchanged to the bit, what is a
        little outside of [0, 1] too (the very tensors, where they are float32 on the CPU).

    Raises:
        ValueError: a setting or a frame that cannot be used, named in one sentence (settings at the call, frames when
            they come up).
        DeviceMemoryError: the device's memory does not suffice even for the smallest plan. Where it is short, a gap is
            begun again by the next smaller one.
    """
    if isinstance(times, bool) or not isinstance(times, Integral) or not 0 <= times <= MAX_TIMES:
        raise ValueError(f"times must be a whole number between 0 and {MAX_TIMES}, not {times!r}.")
    if batch_size is None:
        batch_size = plan.batch_size if plan and times <= _MOST_TIMES_TOGETHER else 1
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}.")
    for name, value in (("seed", seed), ("first_gap", first_gap)):
        if not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number, not {value!r}.")
    check_flow_scale(flow_scale)
    if isinstance(sample_steps, Iterable) and not isinstance(sample_steps, str):
        sample_steps = list(sample_steps)
    model.schedule.timesteps(sample_steps)
    padding_for(1, 1, padding)
    checked = _checked(frames)
    if times == 0:
        return (_source(frame) for frame in checked)

    run = _Run(model, flow_scale, sample_steps, seed, padding, offload, on_step, times, plan)
    return _given_out(run.frames(checked, first_gap, batch_size))


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    size: tuple[int, int] | None = None
    for index, frame in enumerate(frames):
        check_frame(frame, index, size)
        size = (frame.shape[0], frame.shape[1])
        yield frame.detach()


def _source(frame: Tensor) -> Tensor:
    return frame.to(device="cpu", dtype=torch.float32)


@dataclass(frozen=True)
class _Coming:
    """A new frame on its way to the host: one of a copy's."""

    copy: HostCopy
    which: int


def _given_out(coming: Iterator[Tensor | _Coming]) -> Iterator[Tensor]:
    """Frames in their order. One on its way is waited for once the device has been given work after it, so that it
    works while the frame is used."""
    held: deque[Tensor | _Coming] = deque()
    for item in coming:
        held.append(item)
        del item
        while held and (isinstance(held[0], Tensor) or held[0].copy.timely):
            yield _here(held.popleft())
    while held:
        yield _here(held.popleft())


def _here(item: Tensor | _Coming) -> Tensor:
    return item if isinstance(item, Tensor) else item.copy.wait(item.which)


class _Run:
    """A video through the model, a batch of gaps at a time, each by the largest plan that the device's memory takes."""

    def __init__(
        self,
        model: TLBVFI,
        flow_scale: float,
        sample_steps: int | Sequence[int],
        seed: int,
        mode: PaddingMode,
        offload: bool,
        on_step: Callable[[int], object] | None,
        times: int,
        plan: Plan | None,
    ) -> None:
        self.model, self.flow_scale, self.sample_steps, self.seed = model, flow_scale, sample_steps, seed
        self.mode, self.offload, self.on_step, self.times, self.plan = mode, offload, on_step, times, plan
        self.copies = HostCopies(model.device)
        self.new_frames = 0
        self.ended = False  # by the caller's on_step
        self.empty: Tensor | None = None  # what the empty frame gives at the size of the run
        self.ends: list[FrameFeatures] = []  # of the last frame so far, for the gap after it

    def frames(self, sources: Iterator[Tensor], first_gap: int, batch_size: int) -> Iterator[Tensor | _Coming]:
        """The whole video, in display order."""
        first = next(sources, None)
        if first is None:
            return
        self.size = (first.shape[0], first.shape[1])
        # It is encoded once the second frame has come: the caller, or a source that uses its memory again, may have
        # changed it by then.
        own = first.clone()
        yield _source(first)
        first = own
        gap = first_gap
        self.together = 1 if self.plan and self.plan.strips.frugal else batch_size
        while batch := list(islice(sources, batch_size)):
            yield from self._persistently(first, batch, gap)
            gap += len(batch)
            first = batch[-1]

    def _persistently(self, first: Tensor, batch: list[Tensor], gap: int) -> Iterator[Tensor | _Coming]:
        """The frames of a batch of gaps and the sources that end them; begun again by a smaller plan where the device's
        memory is short, without those that were given out."""
        given = 0
        while True:
            gaps = self._gaps(first, batch, gap)
            try:
                for number, frame in enumerate(gaps):
                    if number >= given:
                        given = number + 1
                        yield frame
                    del frame
                return
            except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                if self.ended or not is_out_of_memory(error):
                    raise
            # Outside of the handler, so that the failed call's tensors are gone with its traceback.
            del gaps
            self.ends.clear()
            self._shrink()

    def _shrink(self) -> None:
        """Go on by the next smaller plan, with the device's cache emptied."""
        device = self.model.device
        empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
        if device.type != "cpu" and empty_cache is not None:
            empty_cache()
        ways = candidates(*self.size, self.model.dtype, self.flow_scale, self.model.params, self.mode)
        rows = self.plan.strip_rows if self.plan else ways[0].padded_size[0]
        following = next((way for way in ways if way.strip_rows < rows or self.together > 1), None)
        if following is None:
            raise DeviceMemoryError(
                f"{self.size[0]}x{self.size[1]} does not fit the memory of {device}, not even in the smallest strips "
                f"({ways[-1].peak_bytes / 2**30:.2f} GiB); use a smaller flow_scale, float16 or smaller frames, or "
                "end what else uses the device."
            )
        log.warning("The memory of %s is short: going on in strips of %d rows.", device, following.strip_rows)
        self.plan, self.together = following, 1

    def _gaps(self, first: Tensor, batch: list[Tensor], gap: int) -> Iterator[Tensor | _Coming]:
        padding = padding_for(*self.size, self.mode, self.model.multiple)
        strips = self.plan.strips if self.plan else WHOLE
        if self.empty is None:  # once, while nothing else is there
            with torch.no_grad():
                self.empty = self.model.encode_empty(*padding.padded, strips)
        bisection = _Bisection(
            self.model, padding, self.flow_scale, self.sample_steps, self.seed, self.offload, strips, self._step,
            self.copies, self.empty,
        )  # fmt: skip
        if not self.ends:
            self.ends.append(bisection.encode(first[None]))
        for begin in range(0, len(batch), self.together):
            yield from self._as_one(bisection, batch[begin : begin + self.together], gap + begin)
        self.new_frames += bisection.new_frames

    def _step(self, new_frames: int) -> None:
        if self.on_step is None:
            return
        try:
            self.on_step(self.new_frames + new_frames)
        except BaseException:
            self.ended = True
            raise

    def _as_one(self, bisection: _Bisection, batch: list[Tensor], gap: int) -> Iterator[Tensor | _Coming]:
        """Gaps that go through the model as one batch."""
        gaps = range(gap, gap + len(batch))
        right = bisection.encode(torch.stack(batch) if len(batch) > 1 else batch[0][None])
        left = self.ends.pop()
        if len(batch) > 1:
            left = FrameFeatures.cat([left, right[:-1]])
        new = bisection.between(left, right, gaps, self.times)
        del left, right
        if len(batch) == 1 and bisection.offload:
            last = yield from _one_by_one(new)
            yield _source(batch[0])
        else:
            # All places of all gaps come before the first gap can be shown whole.
            done, last = _exhausted(new)
            places = [self.copies.to_host(place) if isinstance(place, Tensor) else place for place in done]
            del done
            for number, source in enumerate(batch):
                yield from (_Coming(place, number) for place in places)
                yield _source(source)
        self.ends.append(last[-1:])


class DeviceMemoryError(RuntimeError):
    """A device's memory does not suffice, whatever the plan; the message is one sentence."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device refused memory (the CPU, MPS and others say so in a plain RuntimeError)."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in said for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


_Places = Generator[HostCopy | Tensor, None, FrameFeatures]


def _one_by_one(places: _Places) -> Generator[_Coming, None, FrameFeatures]:
    """The single frames of copies to the host, as they are begun."""
    while True:
        try:
            copy = next(places)
        except StopIteration as end:
            features: FrameFeatures = end.value
            return features
        assert isinstance(copy, HostCopy)
        yield _Coming(copy, 0)
        del copy


def _exhausted(places: _Places) -> tuple[list[HostCopy | Tensor], FrameFeatures]:
    done = []
    while True:
        try:
            done.append(next(places))
        except StopIteration as end:
            return done, end.value


def check_frame(frame: Tensor, index: int = 0, size: tuple[int, int] | None = None) -> None:
    """Raise ValueError, one sentence, for a frame that cannot be interpolated.

    Args:
        frame: should be (H, W, 3), floating point, finite, in [0, 1].
        index: its number, for the sentence.
        size: (H, W) of the frames before it.
    """
    what = f"Frame {index}"
    if not isinstance(frame, Tensor):
        raise ValueError(f"{what} must be a tensor, not {type(frame).__name__}.")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"{what} must be (height, width, 3), not {tuple(frame.shape)}.")
    if not frame.is_floating_point():
        remedy = "; divide 8-bit values by 255" if frame.dtype == torch.uint8 else ""
        raise ValueError(f"{what} must be floating point in [0, 1], not {frame.dtype}{remedy}.")
    if frame.layout != torch.strided or frame.device.type == "meta":
        raise ValueError(f"{what} must be a dense tensor with values, not {frame.layout} on {frame.device}.")
    if size is not None and tuple(frame.shape[:2]) != size:
        raise ValueError(f"{what} is {frame.shape[0]}x{frame.shape[1]}, but those before it are {size[0]}x{size[1]}.")
    if frame.shape[0] < 1 or frame.shape[1] < 1:
        raise ValueError(f"{what} is empty ({frame.shape[0]}x{frame.shape[1]}).")
    low, high = torch.aminmax(frame.float())
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError(f"{what} holds NaN or infinity; repair the node or file it comes from.")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{what} has values from {low:.3g} to {high:.3g}; frames must be in [0, 1].")

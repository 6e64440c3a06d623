"""From frames to more frames: pairs in order, bisection between them, one frame on the host at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .bridge import generator_at
from .model import TLBVFI, FrameFeatures
from .padding import Padding, PaddingMode, check_flow_scale, padding_for

#: How far outside [0, 1] a frame may be (it is clamped) before it counts as a frame in another range.
RANGE_TOLERANCE = 0.5
_MAX_TIMES = 10


@dataclass(frozen=True)
class _Place:
    """Where a new frame stands: between source frames `gap` and `gap + 1`, at `numerator` / 2**`depth` of the way.

    The fraction is in lowest terms, so that a frame is the same at every depth of the bisection.
    """

    gap: int
    numerator: int = 1
    depth: int = 1

    @property
    def before(self) -> _Place:
        return _Place(self.gap, 2 * self.numerator - 1, self.depth + 1)

    @property
    def after(self) -> _Place:
        return _Place(self.gap, 2 * self.numerator + 1, self.depth + 1)


class _Bisection:
    """The settings of a run, and what they make of a pair."""

    def __init__(
        self,
        model: TLBVFI,
        padding: Padding,
        flow_scale: float,
        timesteps: Sequence[int],
        seed: int,
        offload: bool,
        on_step: Callable[[int], object] | None,
    ) -> None:
        self.model, self.padding = model, padding
        self.flow_scale, self.timesteps, self.seed = flow_scale, timesteps, seed
        self.storage = torch.device("cpu") if offload else model.device
        self.on_step, self.new_frames = on_step, 0

    def _before_model_call(self) -> None:
        if self.on_step is not None:
            self.on_step(self.new_frames)

    @torch.no_grad()
    def encode(self, frame: Tensor) -> FrameFeatures:
        """frame: (H, W, 3) in [0, 1]."""
        self._before_model_call()
        on_device = rearrange(frame, "h w c -> 1 c h w").to(device=self.model.device, dtype=torch.float32)
        padded = self.padding.pad(on_device.clamp(0.0, 1.0))
        return self.model.encode_frame(padded * 2.0 - 1.0, self.flow_scale)

    @torch.no_grad()
    def _midpoint(self, left: FrameFeatures, right: FrameFeatures, place: _Place) -> Tensor:
        """The frame half-way, (H, W, 3) float32 in [0, 1] on the device."""
        self._before_model_call()
        generator = generator_at(self.seed, place.gap, place.numerator, place.depth)
        frame = self.model.midpoint(left, right, self.timesteps, generator)
        self.new_frames += 1
        return rearrange(self.padding.crop(frame) * 0.5 + 0.5, "1 c h w -> h w c").clamp(0.0, 1.0)

    def between(
        self, left: FrameFeatures, right: FrameFeatures, times: int, place: _Place
    ) -> Generator[Tensor, None, FrameFeatures]:
        """The 2**times - 1 frames between two encoded frames, in order, on the storage device; returns `right`.

        Features of an end that has to wait for its turn wait on the storage device, so that the model's device holds
        one pair at any depth. For that the caller must not keep the features it passes.
        """
        middle = self._midpoint(left, right, place)
        if times == 1:
            del left
            yield middle.to(self.storage)
            return right
        features = self.encode(middle)
        middle, waiting = middle.to(self.storage), right.to(self.storage)
        del right
        first_half = self.between(left, features, times - 1, place.before)
        del left, features
        features = yield from first_half
        yield middle
        del middle
        second_half = self.between(features, waiting.to(self.model.device), times - 1, place.after)
        del features, waiting
        return (yield from second_half)


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
    on_step: Callable[[int], object] | None = None,
) -> Iterator[Tensor]:
    """Put 2**times - 1 new frames into each gap between the frames of a video.

    Frames are taken one by one, and each is encoded once; the memory of the model's device depends on the size alone,
    not on the length or the depth.

    Args:
        model: from :func:`tlbvfi.load_model`; decides device and dtype.
        frames: (H, W, 3) float tensors in [0, 1], all of one size, any size down to 1x1, on any device.
        times: how often each gap is halved, from 0 (nothing new).
        flow_scale: the flow is computed at this fraction of the size, within [0.1, 1]; smaller for larger motion.
        sample_steps: steps of the bridge (at least 3), or their list.
        seed: the same seed gives the same frames.
        padding: ``"tight"``, or ``"published"`` for the published code's larger pad.
        offload: move each new frame to the host at once; otherwise those of a gap stay on the device until the gap
            is finished.
        first_gap: the place in the video of the first gap, where `frames` is a later part of one.
        on_step: called before every model call (encoding a frame or computing a new one) with the number of new frames
            computed so far; what it raises ends the run.

    Yields:
        (H, W, 3) float32 tensors in [0, 1] on the CPU, in display order; source frames unchanged to the bit.

    Raises:
        ValueError: a setting or a frame that cannot be used, named in one sentence (settings at the call, frames when
            they come up).
    """
    if isinstance(times, bool) or not isinstance(times, int) or not 0 <= times <= _MAX_TIMES:
        raise ValueError(f"times must be a whole number between 0 and {_MAX_TIMES}, not {times!r}.")
    check_flow_scale(flow_scale)
    timesteps = model.schedule.timesteps(sample_steps)
    padding_for(1, 1, padding)
    return _interpolated(model, frames, times, flow_scale, timesteps, seed, padding, offload, first_gap, on_step)


def _interpolated(
    model: TLBVFI,
    frames: Iterable[Tensor],
    times: int,
    flow_scale: float,
    timesteps: Sequence[int],
    seed: int,
    padding: PaddingMode,
    offload: bool,
    first_gap: int,
    on_step: Callable[[int], object] | None,
) -> Iterator[Tensor]:
    size: tuple[int, int] | None = None
    bisection: _Bisection | None = None
    left: FrameFeatures | None = None
    for index, frame in enumerate(frames):
        check_frame(frame, index, size)
        size = (frame.shape[0], frame.shape[1])
        source = frame.detach().to(device="cpu", dtype=torch.float32)
        if times == 0:
            yield source
            continue
        if bisection is None:
            pad = padding_for(*size, padding, model.multiple)
            bisection = _Bisection(model, pad, flow_scale, timesteps, seed, offload, on_step)
        right = bisection.encode(frame)
        if left is not None:
            new = bisection.between(left, right, times, _Place(first_gap + index - 1))
            del left, right
            right = yield from (new if offload else _together(new))
        yield source
        left = right
        del right


def _together(frames: Generator[Tensor, None, FrameFeatures]) -> Generator[Tensor, None, FrameFeatures]:
    """The same frames, but none leaves the device before all are done."""
    done = []
    while True:
        try:
            done.append(next(frames))
        except StopIteration as end:
            yield from (frame.cpu() for frame in done)
            return end.value


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
        raise ValueError(f"{what} must be floating point in [0, 1], not {frame.dtype}; divide 8-bit values by 255.")
    if size is not None and tuple(frame.shape[:2]) != size:
        raise ValueError(f"{what} is {frame.shape[0]}x{frame.shape[1]}, but those before it are {size[0]}x{size[1]}.")
    if frame.shape[0] < 1 or frame.shape[1] < 1:
        raise ValueError(f"{what} is empty ({frame.shape[0]}x{frame.shape[1]}).")
    low, high = torch.aminmax(frame.float())
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError(f"{what} holds NaN or infinity; repair the node or file it comes from.")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{what} has values from {low:.3g} to {high:.3g}; frames must be in [0, 1].")

"""The model pair by pair, as ComfyUI's own node `FrameInterpolate` calls an interpolation model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from .frames import check_dense
from .interpolate import TimelineRun
from .model import TLBVFI
from .outputs import delivered
from .planning import Plan
from .quoting import quoted
from .settings import Settings
from .timeline import AFTER, BEFORE, Gap, Timeline, nearest_place

#: Frames that the caller holds on the device while a pair is computed.
_CALLERS_FRAMES = 2


class Weights(Protocol):
    """A model whose weights are on its device for a while."""

    @property
    def ready(self) -> bool:
        """Whether all of them are there."""
        ...

    def plan(self, size: tuple[int, int]) -> Plan:
        """How a run at a size (height, width) goes in the memory that there is.

        Raises:
            ValueError: not even the smallest run fits, in one sentence.
        """
        ...

    def load(self, plan: Plan) -> TLBVFI:
        """The model with its weights on its device, and room for the run."""
        ...


class FrameState:
    """What is kept of a frame between two pairs, as its features: the run that has come to it, if one has."""

    def __init__(self) -> None:
        self._run: TimelineRun | None = None

    def put(self, run: TimelineRun) -> None:
        self._run = run

    def take(self) -> TimelineRun | None:
        """The run, for one who goes on with it."""
        run, self._run = self._run, None
        return run


class PairwiseModel(nn.Module):
    """New frames between two frames at any timesteps, as ComfyUI's node `FrameInterpolate` asks for them.

    Frames are (B, 3, H, W) in [0, 1], of any size. The model makes frames half-way between two others, so a timestep
    means the nearest k / 16; for multipliers of 2, 4, 8 and 16 that is exact. What several timesteps of one call have
    in common is computed once.

    The caller names no place in a video: every pair counts as the first of one. So a new frame depends on its two
    frames, the weights, the settings and its timestep, and pairs have the same noise at the same timestep.

    A frame is encoded when a pair needs it, and once as long as pair follows pair. Where the device runs short of
    memory, a pair is begun again in smaller pieces.

    The module has no weights of its own: where they are is for `weights` to know, and they may serve several settings.

    Attributes:
        pad_align: frames need no padding by the caller.
    """

    pad_align = 1

    def __init__(self, weights: Weights, settings: Settings, before_call: Callable[[], object]) -> None:
        """before_call: called before every call of the model; what it raises ends the run."""
        super().__init__()
        self._weights, self._settings, self._before_call = weights, settings, before_call

    def get_dtype(self) -> torch.dtype:
        """The dtype in which frames should come, so that none of their bits is lost; not the one of the weights."""
        return torch.float32

    def memory_used_forward(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes that a pair of frames takes on the device, besides the weights.

        Args:
            shape: of the video, (N, H, W, C).
            dtype: of the frames.

        Raises:
            ValueError: not even the smallest run fits, in one sentence.
        """
        height, width = shape[1:3]
        plan = self._weights.plan((height, width))
        return plan.peak_bytes - plan.weight_bytes + _CALLERS_FRAMES * 3 * height * width * dtype.itemsize

    def extract_features(self, frame: Tensor) -> FrameState:
        """A place for the features of a frame. It is filled once a pair ends with the frame."""
        return FrameState()

    def forward_multi_timestep(
        self, img0: Tensor, img1: Tensor, timesteps: Sequence[float], cache: Mapping[str, FrameState] | None = None
    ) -> Tensor:
        """The frames between two.

        Args:
            img0, img1: (1, 3, H, W) each.
            timesteps: of the frames, in [0, 1].
            cache: what :meth:`extract_features` gave for the two, as `img0` and `img1`. The features of `img0` are used
                up, those of `img1` are there afterwards.

        Returns:
            (len(timesteps), 3, H, W) in the frames' dtype, on the host, so that the device holds one frame however many
            are asked for.

        Raises:
            ValueError: frames or timesteps that cannot be used, in one sentence; :class:`.finite.NonFiniteFrameError`,
                one of them, for a new frame with NaN or infinity.
            tlbvfi.DeviceMemoryError: the device's memory does not suffice even for the smallest pieces.
        """
        _check_pair(img0, img1)
        places = [_place(timestep) for timestep in timesteps]
        states = [(cache or {}).get(name, FrameState()) for name in ("img0", "img1")]
        ends = [rearrange(image, "1 c h w -> h w c").cpu() for image in (img0, img1)]
        for end, name in zip(ends, ("before", "after"), strict=True):
            if not end.isfinite().all():
                raise ValueError(f"The frame {name} holds NaN or infinity; repair the node or file it comes from.")
        run = self._run(states[0].take(), (ends[0].shape[0], ends[0].shape[1]))
        run.timeline = _OneGap(tuple(sorted(set(places))))
        frames = img0.new_empty((len(places), *ends[0].shape), device="cpu")
        for output in delivered(run.outputs(iter(ends), 0), run.model.dtype):
            for frame, place in zip(frames, places, strict=True):
                if place == output.position:
                    frame.copy_(output.frame)
        states[1].put(run)
        return rearrange(frames, "n h w c -> n c h w")

    def forward(
        self,
        img0: Tensor,
        img1: Tensor,
        timestep: Tensor | float = 0.5,
        cache: Mapping[str, FrameState] | None = None,
    ) -> Tensor:
        """One frame between each two.

        Args:
            img0, img1: (B, 3, H, W) each.
            timestep: a number, or one for each of the B as (B, 1, H, W), the same at every pixel.
            cache: as for :meth:`forward_multi_timestep`; with it, the B pairs are one and the same.

        Returns:
            (B, 3, H, W) as `img0`, on its device.
        """
        times = _per_pair(timestep, len(img0))
        if cache:
            frames = self.forward_multi_timestep(img0[:1], img1[:1], times, cache)
        else:
            pairs = zip(img0.split(1), img1.split(1), times, strict=True)
            frames = torch.cat([self.forward_multi_timestep(one, other, [time]) for one, other, time in pairs])
        return frames.to(img0.device)

    def _run(self, run: TimelineRun | None, size: tuple[int, int]) -> TimelineRun:
        """The run to go on with: this one, where it is for the size and the weights are still there, or a new one."""
        if run is not None and run.size == size and self._weights.ready:
            return run
        del run  # with its features, before the weights come
        plan = self._weights.plan(size)
        model = self._weights.load(plan)
        before_call = self._before_call
        return TimelineRun(model, self._settings, _OneGap(()), plan, 1, lambda _: before_call(), None)


@dataclass(frozen=True)
class _OneGap(Timeline):
    """The frames of a gap alone, which is the first one of its video whenever it comes."""

    places: tuple[Fraction, ...]

    def opening(self) -> Sequence[Fraction]:
        return ()

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        return Gap(0, self.places)

    def count(self, frames: int) -> int:
        return len(self.places)

    def rate(self, fps: Fraction) -> Fraction:
        return fps


def _check_pair(img0: Tensor, img1: Tensor) -> None:
    for image in (img0, img1):
        if not isinstance(image, Tensor):
            raise ValueError(f"A frame must be a tensor, not {type(image).__name__}.")
        check_dense(image, "A frame")
    shape = tuple(img0.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape or tuple(img1.shape) != shape:
        raise ValueError(
            f"Both frames must be RGB, (1, 3, height, width) of one size, not {shape} and {tuple(img1.shape)}."
        )
    if not (img0.is_floating_point() and img1.is_floating_point()):
        raise ValueError(f"Frames must be floating point in [0, 1], not {img0.dtype} and {img1.dtype}.")


def _place(timestep: float) -> Fraction:
    """Where in the gap the frame of a timestep stands."""
    if not isinstance(timestep, Real) or not BEFORE <= timestep <= AFTER:
        raise ValueError(f"A timestep must be between 0 and 1, not {quoted(timestep)}.")
    return nearest_place(Fraction(float(timestep)))


def _per_pair(timestep: Tensor | float, count: int) -> list[float]:
    """The timestep of each of the pairs."""
    if not isinstance(timestep, Tensor):
        return [timestep] * count
    for _ in timestep.shape[1:]:
        timestep = timestep[:, 0]
    times: list[float] = timestep.expand(count).tolist()
    return times

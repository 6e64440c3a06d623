"""What every node does around its work: find model and device, plan, load, report, and leave nothing behind."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from ..tlbvfi.engine import Source, Target, interpolate_video
from ..tlbvfi.numbers import switch, whole_number
from ..tlbvfi.outputs import Output
from ..tlbvfi.planning import Plan, batched, plan, plan_for, usable
from ..tlbvfi.precision import tf32
from ..tlbvfi.settings import Settings
from ..tlbvfi.targets import BatchTarget
from ..tlbvfi.timeline import Timeline
from ..tlbvfi.video import VideoInfo
from ..utils.memory import too_little_for
from . import host, models

log = logging.getLogger(__name__)
Result = TypeVar("Result")


#: Seconds between two lines of the log.
_LOG_PAUSE = 10.0


@dataclass(frozen=True)
class Work:
    """What there is to do in a run.

    Attributes:
        steps: of the progress bar.
        gaps: between the source frames.
        first_gap: the place in the video of the first of them.
        frames: of the result, where that is known.
    """

    steps: int
    gaps: int
    first_gap: int = 0
    frames: int | None = None


@dataclass(frozen=True)
class Run:
    """A node's settings, as its inputs have them.

    Attributes:
        model_name: an input, not looked at yet.
        gpu_id: an input; whether there is such a device is not known yet.
        use_fp16: the wish; :func:`host.precision` decides.
        compile: the model by `torch.compile`.
        settings: how frames are made; the dtype is decided here.

    Raises:
        ValueError: an input that cannot be, in one sentence.
    """

    model_name: str
    gpu_id: int
    use_fp16: bool
    compile: bool
    settings: Settings

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpu_id", whole_number("gpu_id", self.gpu_id, floats=True))
        object.__setattr__(self, "use_fp16", switch("use_fp16", self.use_fp16))
        object.__setattr__(self, "compile", switch("compile", self.compile))

    def interpolate(
        self,
        source: Source,
        target: Target[Result],
        timeline: Timeline,
        work: Work,
        *,
        batch_size: int = 0,
        frames_per_cleanup: int | None = None,
        pictures: bool = True,
        last_picture: Callable[[], Tensor | None] = lambda: None,
    ) -> Result:
        """Interpolate a source into a target under ComfyUI's eyes: its models make room, its bar moves, its cancel
        button works.

        Args:
            work: what there is to do.
            batch_size: gaps that go through the model together, fewer where so many do not fit; 0: as planned.
            frames_per_cleanup: unused memory is given back after so many frames of the result, and at the end.
            pictures: show the newest frame. The last one stays in front of what the node shows as its result.
            last_picture: gives what is shown at the end instead, if anything.

        Raises:
            ValueError: an input that cannot be used, in one sentence before any work; `tlbvfi.CheckpointError`, one of
                them, for a file that is no TLB-VFI model.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        device = host.device(self.gpu_id)
        host.check_interrupted()
        dtype = host.precision(device, self.use_fp16)
        settings = replace(self.settings, dtype=dtype)
        path = models.find_or_fetch(self.model_name)
        try:
            with tf32(settings.tf32):  # a model that is compiled runs once here
                managed = models.managed(path, device, dtype, self.compile)
            chosen = plan_run(managed, (source.info.height, source.info.width), settings, batch_size)
            model = managed.load(chosen.peak_bytes - chosen.weight_bytes)
            watch = _Watch(work, frames_per_cleanup, pictures)
            result = interpolate_video(
                model,
                source,
                target,
                settings,
                timeline,
                watch.frame,
                plan=chosen,
                first_gap=work.first_gap,
                batch_size=chosen.batch_size if batch_size else None,
                on_progress=watch.position,
            )
            watch.done(last_picture())
            return result
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # their variables hold memory of the device
            raise
        finally:
            host.free_unused_memory()


class _Watch:
    """What a run shows on its way: the bar, the newest frame, a line in the log now and then."""

    def __init__(self, work: Work, frames_per_cleanup: int | None, pictures: bool) -> None:
        self._work, self._every, self._pictures = work, frames_per_cleanup, pictures
        self._progress = host.Progress(work.steps)
        self._share, self._frames = 0.0, 0
        self._began = self._logged = time.monotonic()

    def position(self, position: float) -> None:
        """So far the work is done, in source frames of the video."""
        self._share = min((position - self._work.first_gap) / max(self._work.gaps, 1), 1.0)
        self._progress.at(self._share * self._work.steps)

    def frame(self, output: Output) -> None:
        """A frame of the result is there."""
        self._frames += 1
        if self._pictures:
            self._progress.show(output.frame)
        else:
            host.check_interrupted()
        if self._every is not None and self._frames % self._every == 0:
            host.free_unused_memory()
        now = time.monotonic()
        if now - self._logged >= _LOG_PAUSE and 0 < self._share < 1:
            self._logged = now
            log.info("TLB-VFI: %s", self._state(now))

    def done(self, picture: Tensor | None) -> None:
        """All of it is done; a picture stays."""
        self._progress.at(self._work.steps)
        if picture is not None:
            self._progress.show_at_once(picture)
        now = time.monotonic()
        if now - self._began >= _LOG_PAUSE:
            rate = self._frames / (now - self._began)
            log.info("TLB-VFI: %d frames in %s, %.2f frames per second.", self._frames, _span(now - self._began), rate)

    def _state(self, now: float) -> str:
        past = now - self._began
        of_all = "" if self._work.frames is None else f" of {self._work.frames}"
        left = _span(past / self._share - past)
        return f"{self._frames}{of_all} frames, {self._frames / past:.2f} frames per second, {left} left."


def _span(seconds: float) -> str:
    """A time as a person reads it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def plan_run(managed: host.ManagedModel, size: tuple[int, int], settings: Settings, batch_size: int = 0) -> Plan:
    """How a run goes in the memory that ComfyUI can give; whole where it cannot tell how much that is.

    Raises:
        ValueError: not even the smallest run fits, in one sentence.
    """
    model, device = managed.model, managed.device
    whole = plan(*size, model.dtype, settings.flow_scale, params=model.params, padding=settings.padding, device=device)
    room, reserved = managed.make_room(batched(whole, max(batch_size, 1)).peak_bytes), host.reserved_memory(device)
    chosen = plan_for(model, size, settings, room, device=device, reserved=reserved) or whole
    budget = None if room is None else usable(room, device, reserved)
    return batched(chosen, batch_size, budget) if batch_size else chosen


def image_target(count: int, info: VideoInfo, must_fit: bool = False) -> BatchTarget:
    """A target for a node's IMAGE result of `count` frames, whose memory is there from the begin.

    Where it takes more than is free the log says so; with `must_fit`, where it takes more than is free and the swap
    space has, it is refused.

    Raises:
        ValueError: the computer does not have so much, or does not give it, in one sentence.
    """
    size = count * info.height * info.width * 3 * torch.float32.itemsize
    free = host.free_memory(torch.device("cpu"))
    if (sentence := too_little_for(size, free)) is not None:
        if must_fit and free is not None and size > free + host.swap_memory():
            raise ValueError(sentence)
        log.warning("TLB-VFI: %s", sentence)
    try:
        return BatchTarget(torch.empty(count, info.height, info.width, 3, dtype=torch.float32, device="cpu"))
    except RuntimeError:
        raise ValueError(too_little_for(size, free, refused=True)) from None

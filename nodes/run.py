"""What every node does around its work: find model and device, plan, load, report, and leave nothing behind."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from ..tlbvfi.engine import Source, Target, interpolate_video
from ..tlbvfi.numbers import whole_number
from ..tlbvfi.outputs import Output
from ..tlbvfi.planning import Plan, plan, plan_for
from ..tlbvfi.precision import tf32
from ..tlbvfi.settings import Settings
from ..tlbvfi.targets import BatchTarget
from ..tlbvfi.timeline import Timeline
from ..tlbvfi.video import VideoInfo
from ..utils.memory import too_little_for
from . import host, models

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Run:
    """A node's settings, as its inputs have them.

    Attributes:
        model_name, gpu_id: inputs, not looked at yet.
        use_fp16: the wish; :func:`host.precision` decides.
        compile: the model by `torch.compile`.
        settings: how frames are made; the dtype is decided here.
    """

    model_name: str
    gpu_id: int
    use_fp16: bool
    compile: bool
    settings: Settings

    def interpolate(
        self,
        source: Source,
        target: Target[Result],
        timeline: Timeline,
        *,
        new_frames: int,
        frames_per_cleanup: int | None = None,
    ) -> Result:
        """Interpolate a source into a target under ComfyUI's eyes: its models make room, its bar moves, its cancel
        button works.

        Args:
            new_frames: how many frames will be computed, for the progress bar.
            frames_per_cleanup: unused memory is given back after so many frames of the result, and at the end.

        Raises:
            ValueError: an input that cannot be used, in one sentence before any work; `tlbvfi.CheckpointError`, one of
                them, for a file that is no TLB-VFI model.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        path = models.find(self.model_name)
        device = host.device(whole_number("gpu_id", self.gpu_id, floats=True))
        host.check_interrupted()
        dtype = host.precision(device, self.use_fp16)
        settings = replace(self.settings, dtype=dtype)
        try:
            with tf32(settings.tf32):  # a model that is compiled runs once here
                managed = models.managed(path, device, dtype, self.compile)
            chosen = plan_run(managed, (source.info.height, source.info.width), settings)
            model = managed.load(chosen.peak_bytes - chosen.weight_bytes)
            progress = host.Progress(new_frames)
            cleanup = _Cleanup(frames_per_cleanup)
            result = interpolate_video(
                model, source, target, settings, timeline, cleanup, plan=chosen, on_step=progress.at
            )
            progress.at(new_frames)
            return result
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # their variables hold memory of the device
            raise
        finally:
            host.free_unused_memory()


class _Cleanup:
    """Gives unused memory back after every so many frames."""

    def __init__(self, every: int | None) -> None:
        self._every, self._frames = every, 0

    def __call__(self, output: Output) -> None:
        self._frames += 1
        if self._every is not None and self._frames % self._every == 0:
            host.free_unused_memory()


def plan_run(managed: host.ManagedModel, size: tuple[int, int], settings: Settings) -> Plan:
    """How a run goes in the memory that ComfyUI can give; whole where it cannot tell how much that is.

    Raises:
        ValueError: not even the smallest run fits, in one sentence.
    """
    model = managed.model
    whole = plan(*size, model.dtype, settings.flow_scale, params=model.params, padding=settings.padding)
    room = managed.make_room(whole.peak_bytes)
    return plan_for(model, size, settings, room, device=managed.device) or whole


def image_target(count: int, info: VideoInfo) -> BatchTarget:
    """A target for a node's IMAGE result of `count` frames, whose memory is there from the begin.

    Where the computer has less than that free, the log says so.

    Raises:
        ValueError: the computer does not give so much, in one sentence.
    """
    size = count * info.height * info.width * 3 * torch.float32.itemsize
    free = host.free_memory(torch.device("cpu"))
    if (warning := too_little_for(size, free)) is not None:
        log.warning("TLB-VFI: %s", warning)
    try:
        return BatchTarget(torch.empty(count, info.height, info.width, 3, dtype=torch.float32, device="cpu"))
    except RuntimeError:
        raise ValueError(too_little_for(size, free, refused=True)) from None

"""The one way from a source to a target: what the command line, the nodes and the demo have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from .holds import Skipped
from .interpolate import interpolate_timeline
from .model import TLBVFI
from .opacity import interpolate_with_opacity
from .outputs import Output
from .planning import Plan, available, plan_for
from .settings import Settings
from .timeline import Multiplier, Timeline
from .video import VideoInfo

Result_co = TypeVar("Result_co", covariant=True)


class Source(Protocol):
    """Where frames come from: a video file, a file object, a folder of pictures, a batch (see :mod:`.sources`)."""

    @property
    def info(self) -> VideoInfo:
        """What the source is; size and rate are exact, the number of frames may be off or unknown."""
        ...

    def frames(self) -> Iterator[Tensor]:
        """Its frames in order, made as they are asked for: (H, W, 3) in [0, 1], with `info.alpha` (H, W, 4)."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A source of which frames may last longer than others, and then come several times."""

    def holds_after(self, index: int) -> bool:
        """Whether the frame after that index, which has been read, is the same once more."""
        ...


class Target(Protocol[Result_co]):
    """Where frames go (see :mod:`.targets`)."""

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> Result_co:
        """Take all frames, (H, W, 3 or 4) float32 in [0, 1] on the CPU, as they come.

        What the frames' iterator raises passes through, and nothing half-written stays behind then.

        Args:
            fps: frames per second, exact; None where the source has no rate.
        """
        ...


def interpolate_video(
    model: TLBVFI,
    source: Source,
    target: Target[Result_co],
    settings: Settings | None = None,
    timeline: Timeline | None = None,
    on_frame: Callable[[Output], object] | None = None,
    *,
    plan: Plan | None = None,
    first_gap: int = 0,
    batch_size: int | None = None,
    on_step: Callable[[int], object] | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> Result_co:
    """Interpolate a source into a target, one frame at a time.

    Args:
        model: from :func:`tlbvfi.load_model`; decides device and dtype.
        settings: how new frames are made; the defaults of :class:`~.settings.Settings` by default.
        timeline: which frames are wanted; by default one new frame in every gap.
        on_frame: called with every frame before it goes to the target; what it raises ends the run.
        plan: how the device's memory is used; by default planned for what is free on it.
        first_gap, batch_size, on_step, on_progress: as for :func:`~.interpolate.interpolate_timeline`.

    Returns:
        What the target gives.

    Raises:
        ValueError: settings, or a size, that cannot be; frames that cannot be used; a source or a target that fails.
        DeviceMemoryError: the device's memory does not suffice even for the smallest plan.
    """
    settings, timeline = settings or Settings(), timeline or Multiplier()
    if isinstance(source, Holding):
        timeline = Skipped(timeline, source.holds_after)
    info = source.info
    if plan is None:
        plan = plan_for(model, (info.height, info.width), settings, available(model))
    interpolated = interpolate_with_opacity if info.alpha else interpolate_timeline
    outputs = interpolated(
        model,
        source.frames(),
        timeline,
        settings,
        first_gap=first_gap,
        batch_size=batch_size,
        plan=plan,
        on_step=on_step,
        on_progress=on_progress,
    )
    fps = None if info.fps is None else timeline.rate(info.fps)
    return target.write(_watched(outputs, on_frame), fps)


def _watched(outputs: Iterator[Output], on_frame: Callable[[Output], object] | None) -> Iterator[Tensor]:
    for output in outputs:
        if on_frame is not None:
            on_frame(output)
        yield output.frame

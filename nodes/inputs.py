"""Inputs that several nodes have, as ComfyUI wants them declared: (kind, options)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from ..tlbvfi.config import BridgeParams
from ..tlbvfi.frames import check_storage, check_values
from ..tlbvfi.known_models import PUBLISHED_FILE
from ..tlbvfi.numbers import switch, whole_number
from ..tlbvfi.quoting import quoted
from ..tlbvfi.ranges import MIN_STEPS
from ..tlbvfi.schedules import check_falling, most_steps
from ..tlbvfi.settings import Settings, presets
from ..utils.images import check_pictures
from . import host, models

Declaration = tuple[Any, dict[str, Any]]

MAX_SEED = 2**64 - 1
#: The kind of input and output that is a list of timesteps.
SCHEDULE = "TLBVFI_SCHEDULE"
#: Of a schedule: more than any model has.
MOST_TIMESTEPS = 10_000
_DEFAULTS = Settings()
#: The quality of which the other inputs decide.
CUSTOM = "custom"
DEFAULT_QUALITY = "fast"


@cache
def step_choices() -> list[int]:
    """The numbers of steps to choose from: those of the presets."""
    return sorted({steps for each in presets().values() if isinstance(steps := each.sample_steps, int)})


class StepChoices(list[int]):
    """The numbers of steps to choose from, of a node that prompts of before give any number: ComfyUI, which runs what
    is in the list, runs those too."""

    def __contains__(self, value: object) -> bool:
        try:
            any_steps(value)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:  # what ComfyUI says that a value is not in
        return f"{list(self)} or the whole numbers from {MIN_STEPS} to {_most_steps()}"


def model_name() -> Declaration:
    return (
        models.choices(),
        {
            "tooltip": f"The weights: a file in models/{host.MODEL_FOLDER}, such as the published {PUBLISHED_FILE} "
            f"from {models.PUBLISHED_AT}, which the last entry downloads when the node runs, if it is not there."
        },
    )


def use_fp16() -> Declaration:
    return _switch(
        True,
        "Half precision where the device is good at it: half the memory, and faster. The log says what was chosen.",
    )


def enable_tf32() -> Declaration:
    return _switch(
        True,
        "Faster float32 on NVIDIA cards from the RTX 30 series on, with a 10-bit mantissa. For this node's run only.",
    )


def quality(default: str = DEFAULT_QUALITY) -> Declaration:
    each = [f"{name}: {set.step_count} steps, flow scale {set.flow_scale:g}" for name, set in presets().items()]
    return (
        [*presets(), CUSTOM],
        {"default": default, "tooltip": f"{'; '.join(each)}; {CUSTOM}: as sample_steps and flow_scale say."},
    )


def sample_steps(of_before: bool = False) -> Declaration:
    """of_before: older graphs have the node, with other numbers."""
    return (
        StepChoices(step_choices()) if of_before else step_choices(),
        {
            "default": _DEFAULTS.sample_steps,
            "tooltip": f"Steps of the diffusion with quality {CUSTOM}; {_DEFAULTS.sample_steps} is the published "
            "setting.",
        },
    )


def schedule() -> Declaration:
    return (
        SCHEDULE,
        {
            "tooltip": "The timesteps of the diffusion, from Schedule (TLB-VFI). Where it is connected, it wins over "
            "the steps of every quality and over sample_steps; the flow scale stays as quality says."
        },
    )


def batch_size() -> Declaration:
    return _number(
        0, 0, 64, "Gaps that go through the model together. 0: as many as save time and fit; the frames are the same."
    )


def flow_scale() -> Declaration:
    return (
        "FLOAT",
        {
            "default": _DEFAULTS.flow_scale,
            "min": 0.0,
            "max": 1.0,
            "step": 0.05,
            "tooltip": f"With quality {CUSTOM}: motion is estimated at this fraction of the size. 0.5 suits most "
            "video; lower for larger motion and less memory, 1.0 for small motion at small sizes. From 0.1.",
        },
    )


def cpu_offload() -> Declaration:
    return _switch(True, "Move each finished frame off the device at once; otherwise when its pair is done.")


def gpu_id() -> Declaration:
    return _number(0, 0, 7, "0: the device that ComfyUI uses. 1 to 7: another one, by its number.")


def seed() -> Declaration:
    kind, options = _number(0, 0, MAX_SEED, "The same seed gives the same frames.")
    del options["step"]
    return kind, {**options, "control_after_generate": True}


def compile_model() -> Declaration:
    return _switch(
        False,
        "torch.compile, with a warm-up pass: the first run takes minutes longer, those after it less time. Where it "
        "does not work, the log says so and the run goes on without.",
    )


def _number(default: int, lowest: int, highest: int, tooltip: str) -> Declaration:
    return "INT", {"default": default, "min": lowest, "max": highest, "step": 1, "tooltip": tooltip}


def _switch(default: bool, tooltip: str) -> Declaration:
    return "BOOLEAN", {"default": default, "tooltip": tooltip}


def settings(
    quality: Any,
    sample_steps: Any,
    flow_scale: Any,
    schedule: Any,
    *,
    seed: Any,
    enable_tf32: Any,
    cpu_offload: Any = True,
    of_before: bool = False,
    **others: Any,
) -> Settings:
    """The settings that a node's inputs mean; others: of :class:`~..tlbvfi.settings.Settings`, as they are.

    Args:
        of_before: as that of :func:`sample_steps`.

    Raises:
        ValueError: an input that cannot be used, in one sentence.
    """
    known = presets()
    if not isinstance(quality, str) or quality not in (*known, CUSTOM):
        raise ValueError(f"quality must be {', '.join(known)} or {CUSTOM}, not {quoted(quality)}.")
    if quality == CUSTOM:
        chosen = Settings(flow_scale=flow_scale, sample_steps=(any_steps if of_before else known_steps)(sample_steps))
    else:
        chosen = known[quality]
    if schedule is not None:
        others["sample_steps"] = listed_schedule(schedule)
    tf32, offload = switch("enable_tf32", enable_tf32), switch("cpu_offload", cpu_offload)
    return replace(chosen, seed=known_seed(seed), tf32=tf32, offload=offload, **others)


def listed_schedule(schedule: Any) -> list[int]:
    """The timesteps of an input `schedule`, of which only the model knows how high they may begin.

    Raises:
        ValueError: they are no whole numbers that fall to 0, in one sentence.
    """
    if isinstance(schedule, (str, bytes)) or not isinstance(schedule, Sequence):
        raise ValueError(f"schedule must be a list of timesteps, not {quoted(schedule)}.")
    if len(schedule) > MOST_TIMESTEPS:
        raise ValueError(f"schedule must hold {MOST_TIMESTEPS} timesteps at most, not {len(schedule)}.")
    steps = [whole_number("each timestep of schedule", step, floats=True) for step in schedule]
    if not steps:
        raise ValueError("schedule holds no timesteps; take them from Schedule (TLB-VFI).")
    check_falling("schedule", steps, min(max(BridgeParams().num_timesteps, steps[0] + 1), MOST_TIMESTEPS) - 1)
    return steps


def check_images(images: Any, name: str) -> None:
    """Raises ValueError, one sentence, where `images` is not a batch of one or more usable pictures (B, H, W, C): grey,
    RGB or RGB and alpha, floating point, finite, in [0, 1]. They are all looked at, before any work."""
    if isinstance(images, Tensor):
        check_storage(images, name)
    check_pictures(images, name)
    check_values(images, name)


def known_steps(value: Any) -> int:
    """A number of steps that can be chosen; ValueError, one sentence, for others."""
    steps, known = whole_number("sample_steps", value, floats=True), step_choices()
    if steps not in known:
        listed = f"{', '.join(map(str, known[:-1]))} or {known[-1]}"
        raise ValueError(f"sample_steps must be {listed}, not {quoted(steps)}.")
    return steps


def any_steps(value: Any) -> int:
    """A number of steps that every schedule has; ValueError, one sentence, for others."""
    return whole_number("sample_steps", value, MIN_STEPS, _most_steps(), floats=True)


def _most_steps() -> int:
    return most_steps(BridgeParams().num_timesteps)


def known_seed(value: Any) -> int:
    """A seed that the widget can hold; ValueError, one sentence, for others."""
    return whole_number("seed", value, 0, MAX_SEED, floats=True)

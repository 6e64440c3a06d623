"""The timesteps of the diffusion: chosen, and shown."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..tlbvfi import schedules
from ..tlbvfi.bridge import Schedule
from ..tlbvfi.config import BridgeParams
from ..tlbvfi.quoting import quoted
from ..tlbvfi.ranges import MIN_STEPS
from . import inputs
from .schedule_plot import plot

CATEGORY = "frame_interpolation/TLBVFI-TF32"
SEARCH_ALIASES = ["schedule", "timesteps", "steps", "sigmas", "sampler", "vfi", "tlb-vfi"]


class ScheduleChooser:
    """ComfyUI node: a list of timesteps, by a schedule's name or written down."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Chooses the timesteps that the diffusion of TLB-VFI visits: as published, spaced otherwise, or one by one. "
        "Connect it to schedule of an interpolator."
    )
    SEARCH_ALIASES: ClassVar = SEARCH_ALIASES
    FUNCTION = "choose"
    RETURN_TYPES = (inputs.SCHEDULE,)
    RETURN_NAMES = ("schedule",)
    OUTPUT_TOOLTIPS = ("The timesteps, for the schedule input of an interpolator or of the preview.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        count = BridgeParams().num_timesteps
        return {
            "required": {
                "kind": (
                    [*schedules.SCHEDULES, schedules.CUSTOM],
                    {
                        "default": next(iter(schedules.SCHEDULES)),
                        "tooltip": "linear: as published. cosine: short steps at both ends, long ones in the middle. "
                        "uniform: all steps alike in m_t, without the short last step of linear. custom: as timesteps "
                        "says.",
                    },
                ),
                "steps": (
                    "INT",
                    {
                        "default": 10,
                        "min": MIN_STEPS,
                        "max": schedules.most_steps(count),
                        "step": 1,
                        "tooltip": "How many timesteps; 10 is the published setting. Not used by kind custom.",
                    },
                ),
                "timesteps": (
                    "STRING",
                    {
                        "default": "999, 749, 500, 1, 0",
                        "tooltip": f"With kind custom: whole numbers that fall from at most {count - 1} to 0, apart by "
                        "commas or blanks.",
                    },
                ),
            }
        }

    def choose(self, kind: str, steps: int, timesteps: str) -> tuple[list[int]]:
        """The timesteps of a kind, falling to 0.

        Raises:
            ValueError: an input that cannot be used, in one sentence; what the kind does not use is not looked at.
        """
        known = Schedule(BridgeParams())
        if not isinstance(kind, str) or kind not in (*schedules.SCHEDULES, schedules.CUSTOM):
            raise ValueError(
                f"kind must be {', '.join(schedules.SCHEDULES)} or {schedules.CUSTOM}, not {quoted(kind)}."
            )
        if kind == schedules.CUSTOM:
            return (schedules.listed("timesteps", timesteps, known.num_timesteps - 1),)
        return (schedules.timesteps(kind, steps, known.m.tolist()),)


class SchedulePreview:
    """ComfyUI node: a picture of timesteps, and of what the bridge is at them."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Draws a schedule: its timesteps step by step, and the bridge's m_t and variance where it visits them. "
        "Connect it to Preview Image."
    )
    SEARCH_ALIASES: ClassVar = [*SEARCH_ALIASES, "plot", "graph"]
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("plot",)
    OUTPUT_TOOLTIPS = ("The plot as one picture.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "schedule": (inputs.SCHEDULE, {"tooltip": "The timesteps to draw, from Schedule (TLB-VFI)."}),
            }
        }

    def draw(self, schedule: Any) -> tuple[Tensor]:
        """A plot (1, H, W, 3), float32 in [0, 1].

        Raises:
            ValueError: what is linked is no schedule, or not one of this bridge; one sentence.
        """
        known, steps = Schedule(BridgeParams()), inputs.listed_schedule(schedule)
        schedules.check_falling("schedule", steps, known.num_timesteps - 1)
        return (plot(steps, known.m.tolist(), known.variance.tolist()).unsqueeze(0),)

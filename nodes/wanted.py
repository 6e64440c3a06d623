"""The inputs that say which frames a video becomes, and the timeline that they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..tlbvfi.holds import Cuts, Skipped, Stills
from ..tlbvfi.numbers import frame_rate, share, switch, whole_number
from ..tlbvfi.quoting import quoted, sentence
from ..tlbvfi.ranges import STILL_THRESHOLD
from ..tlbvfi.scenes import DEFAULT_THRESHOLD, CutStrip, SceneDetector
from ..tlbvfi.timeline import MAX_DEPTH, Multiplier, TargetRate, Timeline
from . import inputs
from .inputs import Declaration

MODES = MULTIPLIER, TARGET_FPS = ("multiplier", "target fps")
#: Widest of the multiplier's widget; a prompt may ask for more.
MAX_MULTIPLIER = 16


def mode() -> Declaration:
    return (
        list(MODES),
        {
            "default": MULTIPLIER,
            "tooltip": "multiplier: so many frames for one. target fps: the frames that a video of that rate has, each "
            "at its exact time.",
        },
    )


def multiplier() -> Declaration:
    return (
        "INT",
        {
            "default": 2,
            "min": 1,
            "max": MAX_MULTIPLIER,
            "step": 1,
            "tooltip": "Frames for one in mode multiplier: 2 doubles the rate. 2, 4, 8 and 16 are the model's own "
            "steps and take the least work per frame; in between the frames stand within 1/32 of their place.",
        },
    )


def fps(default: str, tooltip: str) -> Declaration:
    """A rate as a number or as text such as 24000/1001, typed in or linked."""
    return "STRING,FLOAT,INT", {"default": default, "widgetType": "STRING", "tooltip": tooltip}


def source_fps() -> Declaration:
    return fps(
        "24",
        "Frames per second of images: a number such as 16 or 29.97, or exactly, such as 30000/1001. Link the fps of "
        "the node that loads the video.",
    )


def target_fps() -> Declaration:
    return fps("60", "Frames per second of the result in mode target fps: a number, or exactly, such as 60000/1001.")


def scene_cut() -> Declaration:
    return (
        "FLOAT",
        {
            "default": DEFAULT_THRESHOLD,
            "min": 0.0,
            "max": 1.0,
            "step": 0.01,
            "tooltip": "Where a scene ends and another begins the frame is held rather than melted into the next; the "
            "number of frames stays. How different two frames have to be for that; lower finds more cuts. 0: off.",
        },
    )


def still_threshold() -> Declaration:
    return (
        "FLOAT",
        {
            "default": STILL_THRESHOLD,
            "min": 0.0,
            "max": 0.1,
            "step": 0.0001,
            "round": 0.0001,
            "tooltip": "Where two neighbours differ by less in every small block, the frame is copied rather than "
            "computed. The default finds doubled frames that are exactly equal. In H.264, 0.02 finds them at crf 17 to "
            "23, 0.03 nearly all at crf 28. 0: off, for film grain.",
        },
    )


def loop() -> Declaration:
    return (
        "BOOLEAN",
        {
            "default": False,
            "tooltip": "New frames from the last frame to the first one too, so that the video loops without a jump.",
        },
    )


def hold_last(default: bool) -> Declaration:
    return (
        "BOOLEAN",
        {
            "default": default,
            "tooltip": "Show the last frame as long as the others, so that the video is as long as its sound: N frames "
            "times 2 become 2 N instead of 2 N - 1.",
        },
    )


def multipliers() -> Declaration:
    return (
        "STRING,INT,FLOAT",
        {
            "default": "",
            "widgetType": "STRING",
            "tooltip": "In mode multiplier: the multipliers of the first gaps one by one, such as 4, 4, 1, 2; the "
            "others have the multiplier. The rate stays, so where there are more frames the motion is slower. A list "
            "may be linked.",
        },
    )


def interpolation_states() -> Declaration:
    return (
        "INTERPOLATION_STATES",
        {
            "tooltip": "Of ComfyUI-Frame-Interpolation: after which frames nothing new is made. The frame is held "
            "there; the number of frames stays."
        },
    )


def main_inputs(hold_last_default: bool) -> dict[str, Declaration]:
    """The inputs after those of the rate, which every node for videos has in this order."""
    return {
        "quality": inputs.quality(),
        "use_fp16": inputs.use_fp16(),
        "enable_tf32": inputs.enable_tf32(),
        "seed": inputs.seed(),
        "scene_cut": scene_cut(),
        "loop": loop(),
        "hold_last": hold_last(hold_last_default),
        "batch_size": inputs.batch_size(),
    }


def finer_inputs() -> dict[str, Declaration]:
    """Those for who wants to decide more."""
    return {
        "sample_steps": inputs.sample_steps(),
        "flow_scale": inputs.flow_scale(),
        "still_threshold": still_threshold(),
        "multipliers": multipliers(),
        "interpolation_states": interpolation_states(),
        "schedule": inputs.schedule(),
    }


def device_inputs() -> dict[str, Declaration]:
    """Those about the device."""
    return {"cpu_offload": inputs.cpu_offload(), "gpu_id": inputs.gpu_id(), "compile": inputs.compile_model()}


@dataclass(frozen=True)
class Wanted:
    """Which frames a video becomes.

    Attributes:
        timeline: what that means, gap by gap.
        fps: of the result.
        frames_for_one: of the source.
        cuts: where scene cuts are held: they are listed here as they come by.
        strip: and shown in this picture.
    """

    timeline: Timeline
    fps: Fraction
    frames_for_one: Fraction
    cuts: Cuts | None
    strip: CutStrip | None

    @staticmethod
    def of(
        source_fps: Fraction,
        mode: Any,
        multiplier: Any,
        target_fps: Any,
        scene_cut: Any,
        still_threshold: Any,
        loop: Any,
        hold_last: Any,
        multipliers: Any = "",
        interpolation_states: Any = None,
    ) -> Wanted:
        """What the inputs mean.

        Raises:
            ValueError: one that cannot be used, in one sentence.
        """
        ends = {"loop": switch("loop", loop), "hold_last": switch("hold_last", hold_last)}
        timeline: Timeline
        if not isinstance(mode, str) or mode not in MODES:
            raise ValueError(f"mode must be {' or '.join(MODES)}, not {quoted(mode)}.")
        if mode == MULTIPLIER:
            factor = whole_number("multiplier", multiplier, 1, 2**MAX_DEPTH, floats=True)
            timeline = Multiplier(factor, factors=_listed(multipliers), **ends)
        else:
            timeline = TargetRate(source_fps, frame_rate("target_fps", target_fps), **ends)
        rate = timeline.rate(source_fps)
        if interpolation_states is not None:
            timeline = Skipped(timeline, _skips(interpolation_states))
        if still := share("still_threshold", still_threshold):
            timeline = Stills(timeline, still)
        if not (threshold := share("scene_cut", scene_cut)):
            return Wanted(timeline, rate, rate / source_fps, None, None)
        strip = CutStrip()
        cuts = Cuts(timeline, SceneDetector(threshold), strip.add)
        return Wanted(cuts, rate, rate / source_fps, cuts, strip)

    def cut_indices(self, frames: int) -> str:
        """The frames of the source with which scenes begin, as a list of a text; the source has so many."""
        return ", ".join(map(str, self._found(frames)))

    def cut_picture(self, frames: int) -> Tensor | None:
        """A picture (H, W, 3) of these cuts; None where there are none."""
        return self.strip.picture() if self.strip is not None and self._found(frames) else None

    def _found(self, frames: int) -> list[int]:
        # From the last frame to the first one, where the video loops, there may be one more.
        return [index for index in self.cuts.found if index < frames] if self.cuts is not None else []


def _listed(multipliers: Any) -> tuple[int, ...]:
    """The numbers of a text or a list."""
    entries: Sequence[Any]
    if isinstance(multipliers, str):
        entries = [entry for entry in re.split(r"[\s,;]+", multipliers.strip()) if entry]
        if not all(entry.isascii() and entry.isdigit() and len(entry) < 6 for entry in entries):
            raise ValueError(f"multipliers must be whole numbers such as 4, 4, 1, 2, not {quoted(multipliers)}.")
        entries = [int(entry) for entry in entries]
    else:
        entries = list(multipliers) if isinstance(multipliers, (list, tuple)) else [multipliers]
    return tuple(whole_number("each of multipliers", entry, 1, 2**MAX_DEPTH, floats=True) for entry in entries)


def _skips(states: Any) -> Callable[[int], bool]:
    """Whether the gap after a frame is skipped, as ComfyUI-Frame-Interpolation says it."""
    skips = None if isinstance(states, type) else getattr(states, "is_frame_skipped", None)
    if not callable(skips):
        raise ValueError(
            "interpolation_states must come from a node of ComfyUI-Frame-Interpolation, "
            f"not {quoted(type(states).__name__)}."
        )

    def skipped(index: int) -> bool:
        try:
            return switch(f"What interpolation_states says of frame {index}", skips(index))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            said = sentence(error, 200)
            raise ValueError(f"interpolation_states does not say whether frame {index} is skipped: {said}.") from error

    return skipped

"""Nodes that graphs of before use, over the same engine: docs/MIGRATION.md says what stands for each today."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from torch import Tensor

from ..tlbvfi.frames import check_dense
from ..tlbvfi.numbers import switch, whole_number
from ..tlbvfi.quoting import quoted
from ..tlbvfi.settings import Settings
from ..tlbvfi.sources import BatchSource
from ..tlbvfi.timeline import AFTER, Gap, Multiplier, Timeline
from ..utils.images import check_pictures, to_rgb
from . import inputs
from .inputs import Declaration
from .models import ModelNode
from .run import Run, Work, image_target

log = logging.getLogger(__name__)

MAX_TIMES = 4
#: Of the widget; a link may give a larger one.
MAX_INDEX = 4096
#: Unused memory is given back after so many frames of the result.
FRAMES_PER_CLEANUP = 100


def _times(lowest: int) -> Declaration:
    zero = " 0: as 1." if lowest == 0 else ""
    return (
        "INT",
        {
            "default": 1,
            "min": lowest,
            "max": MAX_TIMES,
            "step": 1,
            "tooltip": f"How often each gap is halved: 1 to 4 make 1, 3, 7 or 15 new frames in it.{zero}",
        },
    )


def _switch(default: bool, tooltip: str) -> Declaration:
    return "BOOLEAN", {"default": default, "tooltip": tooltip}


class LegacyNode(ModelNode):
    """What the old nodes with a model have in common."""

    DEPRECATED = True
    SEARCH_ALIASES: ClassVar = ["tlb-vfi old"]
    FUNCTION = "interpolate"


class LegacyInterpolator(LegacyNode):
    """ComfyUI node: a pair of frames as a piece of a video, which the next pair goes on with."""

    DESCRIPTION = (
        "For older graphs: the first frame of a pair and the new ones up to the second, which is added where the pair "
        "is the last. In new graphs use the Frame Interpolator or the Video Interpolator."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("interpolated_frames",)
    OUTPUT_TOOLTIPS = ("The first frame and the new ones, and the second one where is_last_pair is on.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "frame_pair": ("IMAGE", {"tooltip": "Two frames, such as frame_pair of the Frame Pair Slicer."}),
                "model_name": inputs.model_name(),
                "times_to_interpolate": _times(1),
                "gpu_id": inputs.gpu_id(),
            },
            "optional": {
                "is_last_pair": _switch(False, "Give the second frame too; link is_last_pair of the pair slicer."),
                "save_images": _switch(False, "Without effect: link the result to Save Image instead."),
            },
        }

    def interpolate(
        self,
        frame_pair: Tensor,
        model_name: str,
        times_to_interpolate: int,
        gpu_id: int,
        is_last_pair: bool = False,
        save_images: bool = False,
    ) -> tuple[Tensor]:
        """Interpolate a pair (2, H, W, C).

        Returns:
            (2**times, H, W, 3) frames, one more with `is_last_pair`; as those of the Frame Interpolator.

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        inputs.check_images(frame_pair, "frame_pair")
        if len(frame_pair) != 2:
            raise ValueError(f"frame_pair must hold two frames, not {len(frame_pair)}.")
        last = switch("is_last_pair", is_last_pair)
        if switch("save_images", save_images):
            log.warning("TLB-VFI: save_images has no effect any more; link the result to Save Image.")
        wish = Wish(frame_pair, "frame_pair", times_to_interpolate, 1, ends=last)
        return (wish.made(model_name, gpu_id, _default_settings()),)


class LegacyVideoInterpolator(LegacyNode):
    """ComfyUI node: a video with each gap halved so often."""

    DESCRIPTION = (
        "For older graphs: a whole video with each gap halved once or more. In new graphs use the Video Interpolator, "
        "which holds scene cuts too."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("IMAGE",)
    OUTPUT_TOOLTIPS = ("All frames in order; those of the video unchanged.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of a video in order."}),
                "model_name": inputs.model_name(),
                "times_to_interpolate": _times(1),
                "gpu_id": inputs.gpu_id(),
            }
        }

    def interpolate(self, images: Tensor, model_name: str, times_to_interpolate: int, gpu_id: int) -> tuple[Tensor]:
        """Interpolate a video (N, H, W, C).

        Returns:
            ((N - 1) 2**times + 1, H, W, 3) frames, as those of the Video Interpolator without scene cuts.

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        inputs.check_images(images, "images")
        return (Wish(images, "images", times_to_interpolate, 1).made(model_name, gpu_id, _default_settings()),)


class LegacyBatchInterpolator(LegacyNode):
    """ComfyUI node: as :class:`LegacyVideoInterpolator`, with settings, and the new frames alone if they are wanted."""

    DESCRIPTION = (
        "For older graphs: a whole video with each gap halved once or more, or its new frames alone. In new graphs use "
        "the Video Interpolator, which holds scene cuts too."
    )
    RETURN_TYPES = ("IMAGE", "INT")
    RETURN_NAMES = ("interpolated_sequence", "frame_count")
    OUTPUT_TOOLTIPS = ("The frames in order; those of the video, where they are wanted, unchanged.", "How many.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of a video in order."}),
                "model_name": inputs.model_name(),
            },
            "optional": {
                "times_to_interpolate": _times(0),
                "enable_tf32": inputs.enable_tf32(),
                "sample_steps": inputs.sample_steps(of_before=True),
                "flow_scale": inputs.flow_scale(),
                "cpu_offload": inputs.cpu_offload(),
                "gpu_id": inputs.gpu_id(),
                "include_source_frames": _switch(True, "Give the frames of the video too, not the new ones alone."),
            },
        }

    def interpolate(
        self,
        images: Tensor,
        model_name: str,
        times_to_interpolate: int = 1,
        enable_tf32: bool = True,
        sample_steps: int = 10,
        flow_scale: float = 0.5,
        cpu_offload: bool = True,
        gpu_id: int = 0,
        include_source_frames: bool = True,
    ) -> tuple[Tensor, int]:
        """Interpolate a video (N, H, W, C).

        Returns:
            With m = 2**max(times, 1): ((N - 1) m + 1, H, W, 3) frames, as those of the Video Interpolator without scene
            cuts, or the (N - 1) (m - 1) new ones among them; and how many there are.

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        inputs.check_images(images, "images")
        settings = inputs.settings(
            inputs.CUSTOM, sample_steps, flow_scale, None, seed=0, enable_tf32=enable_tf32, cpu_offload=cpu_offload,
            of_before=True,
        )  # fmt: skip
        sources = switch("include_source_frames", include_source_frames)
        if not sources and len(images) < 2:
            raise ValueError("images holds one frame; new frames alone need at least two to stand between.")
        frames = Wish(images, "images", times_to_interpolate, 0, sources=sources).made(model_name, gpu_id, settings)
        return frames, len(frames)


class LegacyFrameFromBatch:
    """ComfyUI node: one frame of a batch."""

    DEPRECATED = True
    CATEGORY = LegacyNode.CATEGORY
    DESCRIPTION = "For older graphs: one frame of a batch, by its number. In new graphs use ComfyUI's ImageFromBatch."
    SEARCH_ALIASES: ClassVar = ["tlb-vfi old"]
    FUNCTION = "pick"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frame",)
    OUTPUT_TOOLTIPS = ("The frame as a batch of one.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {"tooltip": "The frames to take one from."})},
            "optional": {
                "index": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": MAX_INDEX,
                        "step": 1,
                        "tooltip": "Which frame: 0 is the first one.",
                    },
                ),
                "clamp_index": _switch(True, "Take the last frame where there are not so many; otherwise an error."),
            },
        }

    def pick(self, images: Tensor, index: int = 0, clamp_index: bool = True) -> tuple[Tensor]:
        """A frame of `images` (N, H, W, C), as a view (1, H, W, C).

        Raises:
            ValueError: no images, or no such frame; one sentence.
        """
        if isinstance(images, Tensor):
            check_dense(images, "images")
        check_pictures(images, "images")
        count, wanted = len(images), whole_number("index", index, floats=True)
        if switch("clamp_index", clamp_index):
            wanted = min(max(wanted, 0), count - 1)
        if not 0 <= wanted < count:
            raise ValueError(
                f"index {quoted(wanted)} is out of range: images holds {count} frame{'s' * (count > 1)}, so it must be "
                f"{f'between 0 and {count - 1}' if count > 1 else '0'}, or clamp_index on."
            )
        return (images[wanted : wanted + 1],)


def _default_settings() -> Settings:
    return inputs.settings(inputs.DEFAULT_QUALITY, None, None, None, seed=0, enable_tf32=True)


@dataclass(frozen=True)
class Wish:
    """What an old node wants of a batch.

    Attributes:
        images, name: the batch, checked, and the input that it is.
        times: an input: how often each gap is halved, from `lowest` on; 0 stands for 1.
        sources: whether the frames of the batch are wanted too.
        ends: whether the last of them is.
    """

    images: Tensor
    name: str
    times: Any
    lowest: int
    sources: bool = True
    ends: bool = True

    def made(self, model_name: str, gpu_id: int, settings: Settings) -> Tensor:
        """The frames (F, H, W, 3)."""
        times = whole_number("times_to_interpolate", self.times, self.lowest, MAX_TIMES, floats=True)
        timeline: Timeline = Multiplier(2 ** max(times, 1))
        if not (self.sources and self.ends):
            timeline = Without(timeline, self.sources, len(self.images) - 2)
        if self.images.shape[-1] == 4:
            log.info("TLB-VFI: the alpha channel is dropped.")
        source = BatchSource(self.images, Fraction(1), to_rgb)
        count = timeline.count(len(self.images))
        return Run(model_name, gpu_id, True, False, settings).interpolate(
            source,
            image_target(count, source.info, must_fit=True),
            timeline,
            Work(count, len(self.images) - 1, frames=count),
            frames_per_cleanup=FRAMES_PER_CLEANUP,
        )


@dataclass(frozen=True)
class Without(Timeline):
    """A timeline without some source frames.

    Attributes:
        whole: with all of them.
        sources: they are wanted, all but the last one; else none is.
        last_gap: the index of the last gap.
    """

    whole: Timeline
    sources: bool
    last_gap: int

    def opening(self) -> Sequence[Fraction]:
        return self.whole.opening() if self.sources else ()

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        gap = self.whole.gap(index, before, after)
        wanted = self.sources and index < self.last_gap
        return gap if wanted else Gap(index, tuple(place for place in gap.places if place != AFTER))

    def count(self, frames: int) -> int:
        return self.whole.count(frames) - (1 if self.sources else frames)

    def rate(self, fps: Fraction) -> Fraction:
        return self.whole.rate(fps)

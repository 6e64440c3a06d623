"""New frames between two frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, ClassVar

from torch import Tensor

from ..tlbvfi.numbers import whole_number
from ..tlbvfi.timeline import AFTER, BEFORE, Gap, Timeline
from ..tlbvfi.video import VideoInfo
from ..utils.images import check_same_size, same_picture, to_rgb
from . import inputs
from .models import ModelNode
from .run import Run, Work, image_target

log = logging.getLogger(__name__)

MAX_TIMES = 4
#: Unused memory is given back after so many pairs.
PAIRS_PER_CLEANUP = 10


class Interpolator(ModelNode):
    """ComfyUI node: the frames between `prev_frame` and `next_frame`, by a TLB-VFI model."""

    DESCRIPTION = (
        "Makes new frames between two frames with TLB-VFI, a latent diffusion model for video. "
        "Gives the middle frame alone, or both frames and 1, 3, 7 or 15 new ones between them."
    )
    SEARCH_ALIASES: ClassVar = ["frame interpolation", "vfi", "tlb-vfi", "slow motion", "smooth video", "tween"]
    FUNCTION = "interpolate"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("interpolated_frames",)
    OUTPUT_TOOLTIPS = (
        "The frames in order: one middle frame with times_to_interpolate 0, else both ends and what is between. "
        "Several pairs follow one another.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "prev_frame": ("IMAGE", {"tooltip": "The frame before; a batch of B frames makes B pairs."}),
                "next_frame": ("IMAGE", {"tooltip": "The frame after, of the same size; as many as in prev_frame."}),
                "model_name": inputs.model_name(),
            },
            # Optional, so that prompts from before there were such inputs stay valid.
            "optional": {
                "times_to_interpolate": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": MAX_TIMES,
                        "step": 1,
                        "tooltip": "0: the one middle frame. 1 to 4: how often the gap is halved; both frames with 1, "
                        "3, 7 or 15 new ones between them.",
                    },
                ),
                "use_fp16": inputs.use_fp16(),
                "enable_tf32": inputs.enable_tf32(),
                "sample_steps": inputs.sample_steps(of_before=True),
                "flow_scale": inputs.flow_scale(),
                "cpu_offload": inputs.cpu_offload(),
                "gpu_id": inputs.gpu_id(),
                "seed": inputs.seed(),
                "compile": inputs.compile_model(),
                "quality": inputs.quality(inputs.CUSTOM),
                "schedule": inputs.schedule(),
            },
        }

    def interpolate(
        self,
        prev_frame: Tensor,
        next_frame: Tensor,
        model_name: str,
        times_to_interpolate: int = 0,
        use_fp16: bool = True,
        enable_tf32: bool = True,
        sample_steps: int = 10,
        flow_scale: float = 0.5,
        cpu_offload: bool = True,
        gpu_id: int = 0,
        seed: int = 0,
        compile: bool = False,
        quality: str = inputs.CUSTOM,
        schedule: Any = None,
    ) -> tuple[Tensor]:
        """Interpolate each pair `prev_frame[i]`, `next_frame[i]`.

        Returns:
            (B, H, W, 3) middle frames with `times_to_interpolate` 0, else (B (2**times + 1), H, W, 3): float32 in
            [0, 1] on the CPU, the given frames unchanged to the bit (where they are RGB in [0, 1]).

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work; `tlbvfi.CheckpointError`,
                one of them, for a file that is no TLB-VFI model.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        inputs.check_images(prev_frame, "prev_frame")
        inputs.check_images(next_frame, "next_frame")
        check_same_size(prev_frame, next_frame, ("prev_frame", "next_frame"))
        times = whole_number("times_to_interpolate", times_to_interpolate, 0, MAX_TIMES, floats=True)
        settings = inputs.settings(
            quality, sample_steps, flow_scale, schedule, seed=seed, cpu_offload=cpu_offload, enable_tf32=enable_tf32,
            of_before=True,
        )  # fmt: skip
        if 4 in (prev_frame.shape[-1], next_frame.shape[-1]):
            log.info("TLB-VFI: the alpha channel is dropped.")
        pairs = Pairs(prev_frame, next_frame, times)
        frames = Run(model_name, gpu_id, use_fp16, compile, settings).interpolate(
            pairs,
            image_target(pairs.frame_count, pairs.info),
            pairs,
            Work(len(prev_frame) * pairs.new_per_pair, len(prev_frame), frames=pairs.frame_count),
            frames_per_cleanup=PAIRS_PER_CLEANUP * pairs.shown_per_pair,
        )
        return (frames,)


class Pairs(Timeline):
    """Pairs of frames as one video, and what is wanted of it: each pair's middle frame alone, or both its ends and what
    is between them.

    A frame that ends one pair and begins the next is in the video once, and so is encoded once.

    Attributes:
        new_per_pair, shown_per_pair: frames that are computed, and that are wanted, of each pair.
        frame_count: all frames that are wanted.
    """

    def __init__(self, first: Tensor, second: Tensor, times: int) -> None:
        """first, second: (B, H, W, C) each; times: how often each gap is halved, or 0 for the middle frames."""
        parts = 2 ** max(times, 1)
        new = tuple(Fraction(k, parts) for k in range(1, parts))
        self._begins = times > 0
        self._frames, self._gaps = [first[0]], []
        for pair in range(len(first)):
            last = pair == len(first) - 1
            shared = not last and same_picture(second[pair], first[pair + 1])
            ends = (AFTER,) * (1 + shared) if times else ()
            self._frames.append(second[pair])
            self._gaps.append(Gap(pair, (*new, *ends)))
            if not shared and not last:  # nothing is computed between this pair and the next one
                self._frames.append(first[pair + 1])
                self._gaps.append(Gap(pair, (AFTER,) if times else ()))
        self.new_per_pair, self.shown_per_pair = len(new), len(new) + 2 * (times > 0)
        self.frame_count = len(first) * self.shown_per_pair
        height, width = first.shape[1:3]
        self.info = VideoInfo(width, height, None, len(self._frames))

    def frames(self) -> Iterator[Tensor]:
        return map(to_rgb, self._frames)

    def opening(self) -> Sequence[Fraction]:
        return (BEFORE,) if self._begins else ()

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        return self._gaps[index]

    def count(self, frames: int) -> int:
        return self.frame_count

    def rate(self, fps: Fraction) -> Fraction:
        return fps

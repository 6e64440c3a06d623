"""New frames for a whole video in memory."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ..tlbvfi.numbers import frame_rate, switch, whole_number
from ..tlbvfi.ranges import STILL_THRESHOLD
from ..tlbvfi.scenes import DEFAULT_THRESHOLD
from ..tlbvfi.sources import BatchSource
from ..tlbvfi.targets import BatchTarget
from ..utils.images import check_same_size, to_rgb
from . import host, inputs, wanted
from .meta_batch import Batch, number_of, warn_of_unlinked_manager
from .meta_batch import memory as _memory
from .models import ModelNode
from .run import Run, Work, image_target
from .wanted import Wanted

#: Unused memory is given back after so many frames of the result.
FRAMES_PER_CLEANUP = 100
MAX_BATCH = 64
#: Of a batch.
MOST_FRAMES = 2**31 - 1


class VideoInterpolator(ModelNode):
    """ComfyUI node: more frames for the frames of a video, by a TLB-VFI model."""

    DESCRIPTION = (
        "Smooths or slows a whole video with TLB-VFI, a latent diffusion model for video: so many frames for one, or "
        "exactly those of another frame rate. Holds scene cuts, copies still frames, can loop, and takes long videos "
        "in batches. The frames of the video come out unchanged."
    )
    SEARCH_ALIASES: ClassVar = [
        "frame interpolation", "video interpolation", "vfi", "tlb-vfi", "smooth video", "fps", "60 fps", "slow motion",
        "rife", "film",
    ]  # fmt: skip
    FUNCTION = "interpolate"
    RETURN_TYPES = ("IMAGE", "FLOAT", "INT", "STRING")
    RETURN_NAMES = ("frames", "fps", "frame_count", "cut_indices")
    OUTPUT_TOOLTIPS = (
        "All frames of the result in order; those of the video unchanged.",
        "Frames per second of the result, for the node that saves the video.",
        "How many frames there are.",
        "The frames of the source with which a new scene begins, such as 48, 131; empty where there are none.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of a video in order."}),
                "model_name": inputs.model_name(),
                "mode": wanted.mode(),
                "multiplier": wanted.multiplier(),
                "source_fps": wanted.source_fps(),
                "target_fps": wanted.target_fps(),
                **wanted.main_inputs(hold_last_default=False),
            },
            "optional": {
                **wanted.finer_inputs(),
                "meta_batch": (
                    "VHS_BatchManager",
                    {
                        "tooltip": "VideoHelperSuite's Meta Batch Manager, which the node that loads the video has "
                        "too: long videos then come in batches, and nothing is lost between two."
                    },
                ),
                **wanted.device_inputs(),
            },
            "hidden": {"prompt": "PROMPT", "unique_id": "UNIQUE_ID"},
        }

    def interpolate(
        self,
        images: Tensor,
        model_name: str,
        mode: str = wanted.MULTIPLIER,
        multiplier: int = 2,
        source_fps: Any = "24",
        target_fps: Any = "60",
        quality: str = inputs.DEFAULT_QUALITY,
        use_fp16: bool = True,
        enable_tf32: bool = True,
        seed: int = 0,
        scene_cut: float = DEFAULT_THRESHOLD,
        loop: bool = False,
        hold_last: bool = False,
        batch_size: int = 0,
        sample_steps: int = 10,
        flow_scale: float = 0.5,
        still_threshold: float = STILL_THRESHOLD,
        multipliers: Any = "",
        interpolation_states: Any = None,
        schedule: Any = None,
        meta_batch: Any = None,
        cpu_offload: bool = True,
        gpu_id: int = 0,
        compile: bool = False,
        prompt: Any = None,
        unique_id: Any = None,
    ) -> dict[str, Any]:
        """Interpolate a video, or the next batch of one.

        Returns:
            As `result` the frames (F, H, W, 3) float32 in [0, 1] on the CPU, those of `images` unchanged to the bit
            (where they are RGB in [0, 1]), frames per second, F, and the indices of cuts; as `ui` a picture of the
            cuts, where there are any.

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work; `tlbvfi.CheckpointError`,
                one of them, for a file that is no TLB-VFI model.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        inputs.check_images(images, "images")
        settings = inputs.settings(
            quality, sample_steps, flow_scale, schedule, seed=seed, cpu_offload=cpu_offload, enable_tf32=enable_tf32
        )
        pairs_at_once = whole_number("batch_size", batch_size, 0, MAX_BATCH, floats=True)
        source = frame_rate("source_fps", source_fps)
        wish = Wanted.of(
            source, mode, multiplier, target_fps, scene_cut, still_threshold, loop, hold_last, multipliers,
            interpolation_states,
        )  # fmt: skip
        batch = self._batch(images, wish, meta_batch, prompt, str(unique_id))
        frames = BatchSource(batch.frames, source, to_rgb)
        held = len(batch.held)
        made = image_target(held + batch.new, frames.info, must_fit=True).result
        made[:held] = batch.held
        Run(model_name, gpu_id, use_fp16, compile, settings).interpolate(
            frames,
            BatchTarget(made[held:]),
            batch.piece,
            Work(batch.new, batch.gaps, batch.first, batch.new),
            batch_size=pairs_at_once,
            frames_per_cleanup=FRAMES_PER_CLEANUP,
            last_picture=lambda: batch.wanted.cut_picture(batch.last + 1),
        )
        result, carried = batch.dealt(made)
        if meta_batch is not None:
            _memory.keep(meta_batch, str(unique_id), carried)
        cuts = batch.wanted.cut_indices(batch.last + 1)
        picture = batch.wanted.cut_picture(batch.last + 1)
        shown = {} if picture is None else {"ui": {"images": [host.temporary_picture(picture, "tlbvfi_cuts")]}}
        return {**shown, "result": (result, float(wish.fps), len(result), cuts)}

    @staticmethod
    def _batch(images: Tensor, wish: Wanted, manager: Any, prompt: Any, node: str) -> Batch:
        """The images as a batch of their video, which they are all of where there is no manager."""
        if manager is None:
            warn_of_unlinked_manager(prompt, node)
            return Batch.of(images, 0, True, wish, None)
        number = number_of(manager, prompt)
        ends = switch("has_closed_inputs of the Meta Batch Manager", manager.has_closed_inputs)
        carried = _memory.take(manager, node, number)
        if carried is not None:
            check_same_size(carried.tail, images[:1], ("the batch before", "images"))
        batch = Batch.of(images, number, ends, wish, carried)
        per_batch = getattr(manager, "frames_per_batch", len(images))
        batch.check(whole_number("frames_per_batch of the Meta Batch Manager", per_batch, 1, MOST_FRAMES, floats=True))
        return batch

"""New frames between two frames."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from functools import partial
from itertools import chain
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..tlbvfi import TLBVFI, Plan, interpolate_frames, plan
from ..tlbvfi.checkpoint import PUBLISHED_FILE
from ..tlbvfi.interpolate import RANGE_TOLERANCE
from ..tlbvfi.padding import check_flow_scale
from ..tlbvfi.planning import usable
from ..utils.images import check_images, check_same_size, to_rgb
from ..utils.memory import too_little_for
from ..utils.numbers import whole_number
from ..utils.precision import tf32
from . import host, models

log = logging.getLogger(__name__)

SAMPLE_STEPS = (10, 20, 50)
MAX_TIMES = 4
MAX_SEED = 2**64 - 1
#: Unused memory is given back after so many pairs.
PAIRS_PER_CLEANUP = 10


class Interpolator:
    """ComfyUI node: the frames between `prev_frame` and `next_frame`, by a TLB-VFI model."""

    CATEGORY = "frame_interpolation/TLBVFI-TF32"
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
                "model_name": (
                    models.choices(),
                    {
                        "tooltip": f"The weights: a file in models/{host.MODEL_FOLDER}, such as the published "
                        f"{PUBLISHED_FILE} from {models.PUBLISHED_AT}."
                    },
                ),
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
                "use_fp16": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Half precision where the device is good at it: half the memory, and faster. "
                        "The log says what was chosen.",
                    },
                ),
                "enable_tf32": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Faster float32 on NVIDIA cards from the RTX 30 series on, with a 10-bit mantissa. "
                        "For this node's run only.",
                    },
                ),
                "sample_steps": (
                    list(SAMPLE_STEPS),
                    {"default": 10, "tooltip": "Steps of the diffusion; 10 is the published setting."},
                ),
                "flow_scale": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "Motion is estimated at this fraction of the size. 0.5 suits most video; lower for "
                        "larger motion and less memory, 1.0 for small motion at small sizes. From 0.1.",
                    },
                ),
                "cpu_offload": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Move each finished frame off the device at once; otherwise when its pair is done.",
                    },
                ),
                "gpu_id": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 7,
                        "step": 1,
                        "tooltip": "0: the device that ComfyUI uses. 1 to 7: another one, by its number.",
                    },
                ),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": MAX_SEED,
                        "control_after_generate": True,
                        "tooltip": "The same seed gives the same frames.",
                    },
                ),
            },
            # Optional, so that prompts from before there was such an input stay valid.
            "optional": {
                "compile": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "torch.compile, with a warm-up pass: the first run takes minutes longer, those "
                        "after it less time. Where it does not work, the log says so and the run goes on without.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model_name: str | None = None) -> bool | str:
        """Refuse a prompt whose model is not there, before anything runs. (A linked name arrives as None.)"""
        if model_name is None:
            return True
        try:
            models.find(str(model_name))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, model_name: str | None = None, **_: Any) -> str:
        """Run again after the model file was replaced."""
        return models.fingerprint(model_name)

    def interpolate(
        self,
        prev_frame: Tensor,
        next_frame: Tensor,
        model_name: str,
        times_to_interpolate: int,
        use_fp16: bool,
        enable_tf32: bool,
        sample_steps: int,
        flow_scale: float,
        cpu_offload: bool,
        gpu_id: int,
        seed: int,
        compile: bool = False,
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
        check_images(prev_frame, "prev_frame", RANGE_TOLERANCE)
        check_images(next_frame, "next_frame", RANGE_TOLERANCE)
        check_same_size(prev_frame, next_frame, ("prev_frame", "next_frame"))
        times = whole_number("times_to_interpolate", times_to_interpolate, 0, MAX_TIMES)
        seed = whole_number("seed", seed, 0, MAX_SEED)
        sample_steps = whole_number("sample_steps", sample_steps)
        if sample_steps not in SAMPLE_STEPS:
            raise ValueError(f"sample_steps must be 10, 20 or 50, not {sample_steps}.")
        check_flow_scale(flow_scale)
        path = models.find(model_name)
        device = host.device(whole_number("gpu_id", gpu_id))
        host.check_interrupted()

        if 4 in (prev_frame.shape[-1], next_frame.shape[-1]):
            log.info("TLB-VFI: the alpha channel is dropped.")
        _warn_of_large_result(prev_frame, times)
        dtype = host.precision(device, use_fp16)
        try:
            with tf32(enable_tf32):
                managed = models.managed(path, device, dtype, compile)
                plan = _plan_for(managed, prev_frame, flow_scale)
                frames = _interpolate_pairs(
                    managed.load(plan.peak_bytes - plan.weight_bytes if plan else 0),
                    prev_frame,
                    next_frame,
                    times=times,
                    flow_scale=flow_scale,
                    sample_steps=sample_steps,
                    seed=seed,
                    offload=cpu_offload,
                    plan=plan,
                )
            return (frames,)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # their variables hold memory of the device
            raise
        finally:
            host.free_unused_memory()


def _result_shape(first: Tensor, times: int) -> tuple[int, int, int, int]:
    pairs, height, width = first.shape[:3]
    return pairs * (2**times + 1 if times else 1), height, width, 3


def _empty_result(first: Tensor, times: int) -> Tensor:
    """Memory for the result; ValueError, one sentence, where the computer does not give so much."""
    shape = _result_shape(first, times)
    try:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    except RuntimeError:
        size = prod(shape) * torch.float32.itemsize
        raise ValueError(too_little_for(size, host.free_memory(torch.device("cpu")), refused=True)) from None


def _warn_of_large_result(first: Tensor, times: int) -> None:
    size = prod(_result_shape(first, times)) * torch.float32.itemsize
    warning = too_little_for(size, host.free_memory(torch.device("cpu")))
    if warning is not None:
        log.warning("TLB-VFI: %s", warning)


def _plan_for(managed: host.ManagedModel, images: Tensor, flow_scale: float) -> Plan | None:
    """How a run goes in the memory that ComfyUI can give on the device; None on the CPU, where there is no limit.

    Raises:
        ValueError: not even the smallest run fits, in one sentence.
    """
    if managed.device.type == "cpu":
        return None
    model, (height, width) = managed.model, images.shape[1:3]
    plan_within = partial(plan, height, width, model.dtype, flow_scale, params=model.params)
    room = managed.make_room(plan_within().peak_bytes)
    return plan_within(budget=None if room is None else usable(room))


def _interpolate_pairs(
    model: TLBVFI,
    first: Tensor,
    second: Tensor,
    *,
    times: int,
    flow_scale: float,
    sample_steps: int,
    seed: int,
    offload: bool,
    plan: Plan | None,
) -> Tensor:
    """Fill the node's result, allocated once, pair by pair; see :meth:`Interpolator.interpolate`."""
    result = _empty_result(first, times)
    pairs = len(first)
    per_pair = len(result) // pairs
    steps = 2 ** max(times, 1)  # from one source frame to the next
    progress = host.Progress(pairs * (steps - 1))
    for run in _runs(first, second):
        frames = interpolate_frames(
            model,
            (to_rgb(frame) for frame in chain([first[run.start]], (second[pair] for pair in run))),
            max(times, 1),
            flow_scale,
            sample_steps,
            seed,
            offload=offload,
            first_gap=run.start,
            plan=plan,
            on_step=partial(progress.at, run.start * (steps - 1)),
        )
        for index, frame in enumerate(frames):
            pair, step = run.start + index // steps, index % steps
            pair_is_done = step == 0 and pair > run.start
            if times and pair_is_done:  # its end, which may begin the next pair too
                result[pair * per_pair - 1] = frame
            if times and pair < run.stop:
                result[pair * per_pair + step] = frame
            if not times and step:  # the ends are not wanted
                result[pair] = frame
            if pair_is_done and pair % PAIRS_PER_CLEANUP == 0:
                host.free_unused_memory()
        progress.at(run.stop * (steps - 1))
    return result


def _runs(first: Tensor, second: Tensor) -> Iterator[range]:
    """The pairs in runs of neighbours in a video: where a pair's second frame is the first of the next, it is encoded
    once for both."""
    start, pairs = 0, first.shape[0]
    for pair in range(1, pairs + 1):
        if pair == pairs or not torch.equal(second[pair - 1], first[pair]):
            yield range(start, pair)
            start = pair

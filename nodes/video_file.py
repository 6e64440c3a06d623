"""New frames for a whole video, from file to file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..tlbvfi.engine import Source
from ..tlbvfi.numbers import whole_number
from ..tlbvfi.quoting import quoted
from ..tlbvfi.ranges import STILL_THRESHOLD
from ..tlbvfi.scenes import DEFAULT_THRESHOLD
from ..tlbvfi.sources import BatchSource, FileSource
from ..tlbvfi.targets import VideoTarget
from ..tlbvfi.video import CODECS, Encoding, File, PassedOn, VideoError, Waveform, check_target
from ..tlbvfi.video.containers import CONTAINERS
from ..utils.images import to_rgb
from . import host, inputs, wanted
from .models import ModelNode
from .run import Run, Work
from .video_interpolator import FRAMES_PER_CLEANUP, MAX_BATCH
from .wanted import Wanted

AUTO = "auto"
FORMATS = [AUTO, *(suffix.removeprefix(".") for suffix in CONTAINERS)]
#: crf of the codec's own choice.
AUTO_CRF = -1
MAX_CRF = 63
#: Samples per second of a sound, at most.
HIGHEST_SAMPLE_RATE = 768_000
#: Steps of the progress bar where nobody knows how many frames will come: it stands still then.
_UNKNOWN = 10**9


class VideoFileInterpolator(ModelNode):
    """ComfyUI node: a VIDEO interpolated into a new file, frame by frame, by a TLB-VFI model."""

    DESCRIPTION = (
        "Smooths or slows a video of any length with TLB-VFI: reads, interpolates and writes it frame by frame into "
        "the output folder, so that memory does not grow with its length. Sound, subtitles, chapters and metadata go "
        "along, and the workflow is saved in the file."
    )
    SEARCH_ALIASES: ClassVar = [
        "frame interpolation", "video interpolation", "save video", "vfi", "tlb-vfi", "smooth video", "60 fps",
        "slow motion", "long video",
    ]  # fmt: skip
    FUNCTION = "interpolate"
    OUTPUT_NODE = True
    RETURN_TYPES = ("VIDEO", "FLOAT", "INT", "STRING")
    RETURN_NAMES = ("video", "fps", "frame_count", "cut_indices")
    OUTPUT_TOOLTIPS = (
        "The new file; nothing of it is in memory.",
        "Its frames per second.",
        "How many frames it has.",
        "The frames of the source with which a new scene begins, such as 48, 131; empty where there are none.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "video": ("VIDEO", {"tooltip": "The video, such as from Load Video."}),
                "model_name": inputs.model_name(),
                "mode": wanted.mode(),
                "multiplier": wanted.multiplier(),
                "target_fps": wanted.target_fps(),
                **wanted.main_inputs(hold_last_default=True),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "video/TLB-VFI",
                        "tooltip": "Folder and name of the file below the output folder, as for Save Video; a number "
                        "is added, so nothing is overwritten.",
                    },
                ),
                "format": (
                    FORMATS,
                    {"default": AUTO, "tooltip": "The kind of file; auto: mp4, or what the codec goes into."},
                ),
                "codec": (
                    [AUTO, *CODECS],
                    {
                        "default": AUTO,
                        "tooltip": "auto: H.264 (VP9 in webm). ffv1 is lossless; names with an underscore are encoders "
                        "of graphics cards.",
                    },
                ),
                "crf": (
                    "INT",
                    {
                        "default": AUTO_CRF,
                        "min": AUTO_CRF,
                        "max": MAX_CRF,
                        "step": 1,
                        "tooltip": "Constant quality of the encoder: lower is better and larger. -1: the codec's own, "
                        "hard to tell from the frames.",
                    },
                ),
            },
            "optional": {
                **wanted.finer_inputs(),
                **wanted.device_inputs(),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def interpolate(
        self,
        video: Any,
        model_name: str,
        mode: str = wanted.MULTIPLIER,
        multiplier: int = 2,
        target_fps: Any = "60",
        quality: str = inputs.DEFAULT_QUALITY,
        use_fp16: bool = True,
        enable_tf32: bool = True,
        seed: int = 0,
        scene_cut: float = DEFAULT_THRESHOLD,
        loop: bool = False,
        hold_last: bool = True,
        batch_size: int = 0,
        filename_prefix: str = "video/TLB-VFI",
        format: str = AUTO,
        codec: str = AUTO,
        crf: int = AUTO_CRF,
        sample_steps: int = 10,
        flow_scale: float = 0.5,
        still_threshold: float = STILL_THRESHOLD,
        multipliers: Any = "",
        interpolation_states: Any = None,
        schedule: Any = None,
        cpu_offload: bool = True,
        gpu_id: int = 0,
        compile: bool = False,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Interpolate a video into a new file of the output folder, which appears there whole or not at all.

        Returns:
            As `result` the file as a VIDEO, frames per second, the number of frames, and the indices of cuts; as `ui`
            the file, to be played.

        Raises:
            ValueError: an input that cannot be used, named in one sentence before any work; `tlbvfi.CheckpointError`
                and `tlbvfi.video.VideoError`, two of them, for a file that is no TLB-VFI model, or no video.
            RuntimeError: the device has too little memory however small the pieces, in one sentence.
        """
        settings = inputs.settings(
            quality, sample_steps, flow_scale, schedule, seed=seed, cpu_offload=cpu_offload, enable_tf32=enable_tf32
        )
        pairs_at_once = whole_number("batch_size", batch_size, 0, MAX_BATCH, floats=True)
        encoding, suffix = chosen_encoding(format, codec, crf)
        source, passed_on = opened_video(video, encoding.holds_alpha(suffix))
        info = source.info
        if info.fps is None:
            raise VideoError("The video states no frame rate; give it one, such as with Get Video Components.")
        wish = Wanted.of(
            info.fps, mode, multiplier, target_fps, scene_cut, still_threshold, loop, hold_last, multipliers,
            interpolation_states,
        )  # fmt: skip
        saved = host.output_file(filename_prefix, suffix, info.width, info.height)
        check_target(saved.path, None, encoding)
        encoding.chosen(suffix).check_size(info.height, info.width)
        count = info.frame_count
        work = Work(wish.timeline.count(count), max(count - 1, 1), 0) if count else Work(1, _UNKNOWN)
        target = VideoTarget(
            saved.path,
            like=info if isinstance(source, FileSource) else None,
            passed_on=passed_on,
            encoding=encoding,
            metadata=host.workflow_metadata(prompt, extra_pnginfo),
        )
        frames = Run(model_name, gpu_id, use_fp16, compile, settings).interpolate(
            source,
            target,
            wish.timeline,
            work,
            batch_size=pairs_at_once,
            frames_per_cleanup=FRAMES_PER_CLEANUP,
            pictures=False,  # the video itself is shown at the end
        )
        taken = source.taken if isinstance(source, FileSource) else count or 0
        return {
            "ui": {"images": [saved.shown], "animated": (True,)},
            "result": (host.video_file(saved.path), float(wish.fps), frames, wish.cut_indices(taken)),
        }


def chosen_encoding(format: Any, codec: Any, crf: Any) -> tuple[Encoding, str]:
    """The encoding that a node's inputs mean, and the suffix of the file.

    Raises:
        ValueError: one that cannot be, or codec and format do not go together; one sentence.
    """
    for name, value, known in (("format", format, FORMATS), ("codec", codec, [AUTO, *CODECS])):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be {', '.join(known)}, not {quoted(value)}.")
    quality = whole_number("crf", crf, AUTO_CRF, MAX_CRF, floats=True)
    encoding = Encoding(codec, None if quality == AUTO_CRF else quality)
    suffix = f".{format}"
    if format == AUTO:
        family = CODECS[encoding.codec].family if encoding.codec in CODECS else None
        suffix = next((kind for kind, each in CONTAINERS.items() if family in (None, *each.codecs)), ".mp4")
    encoding.chosen(suffix)
    return encoding, suffix


def opened_video(video: Any, alpha: bool = False) -> tuple[Source, PassedOn]:
    """A VIDEO as a source, and what goes along: from its file, or from memory where it is there.

    Args:
        alpha: what is transparent in the file is read as that.

    Raises:
        ValueError: it is none; one sentence.
    """
    parts = host.video_parts(video)
    if parts.file is not None:
        file: File = Path(parts.file) if isinstance(parts.file, (str, os.PathLike)) else parts.file
        start, end = parts.start or None, parts.end
        source = FileSource(file, start, end, alpha=alpha)
        if parts.size is None or parts.size == stored_size(source):
            return source, PassedOn(file, start, end)
    images, sound, fps = parts.components()
    inputs.check_images(images, "video")
    waveform = _waveform(sound, len(images) / fps) if sound is not None else None
    return BatchSource(images, fps, to_rgb), PassedOn(waveform=waveform)


def stored_size(source: FileSource) -> tuple[int, int]:
    """(width, height) as the file states them, before the picture is turned upright."""
    info = source.info
    return (info.height, info.width) if info.quarter_turns % 2 else (info.width, info.height)


def _waveform(sound: Any, seconds: Fraction) -> Waveform | None:
    """The sound of a VIDEO in memory, as long as the video is at most; None where it has no samples.

    Raises:
        ValueError: it is no sound, in one sentence.
    """
    samples = sound.get("waveform") if isinstance(sound, Mapping) else None
    if not isinstance(samples, torch.Tensor) or samples.is_nested or samples.ndim != 3 or samples.is_complex():
        raise ValueError(
            f"The sound of video must be AUDIO, with a waveform (1, channels, samples), not {quoted(sound)}."
        )
    if not samples.numel():
        return None
    rate = whole_number(
        "The sample_rate of video's sound", sound.get("sample_rate"), 1, HIGHEST_SAMPLE_RATE, floats=True
    )
    if samples.layout != torch.strided or samples.is_quantized or samples.device.type == "meta":
        raise ValueError(
            f"The sound of video must be a dense tensor, not {samples.layout} of {samples.dtype} on {samples.device}."
        )
    samples = samples[0, :, : ceil(seconds * rate)].float().cpu()
    if not samples.isfinite().all():
        raise ValueError("The sound of video holds NaN or infinity; repair the node or file it comes from.")
    return Waveform(samples, rate)

"""The main job on a short clip: a slower video, and a new frame beside its neighbours and beside their average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import video
from .interpolate import interpolate_frames
from .model import TLBVFI

CLIP = Path(__file__).resolve().parent.parent / "docs" / "demo.mp4"
_GAP = 4  # pixels between the pictures


@dataclass(frozen=True)
class Plan:
    """How much of the clip: `count` frames from frame `first` on, no wider than `width`."""

    first: int
    count: int | None
    width: int | None

    @staticmethod
    def for_model(model: TLBVFI, built_in: bool) -> Plan:
        """All of it for the built-in model or on a graphics card; four small frames for a larger one on the CPU."""
        return Plan(0, None, None) if built_in or model.device.type != "cpu" else Plan(5, 4, 256)


@dataclass(frozen=True)
class Result:
    video: Path
    picture: Path
    frames: int
    new: int
    fps: Fraction


def find_clip() -> Path:
    """The clip of a checkout.

    Raises:
        VideoError: this is no checkout.
    """
    if not CLIP.is_file():
        raise video.VideoError("the demo's clip, docs/demo.mp4, is only in a clone of the repository; run it there.")
    return CLIP


def run(
    model: TLBVFI,
    clip: Path,
    folder: Path,
    plan: Plan,
    watch: Callable[[Iterable[Tensor], int], Iterator[Tensor]],
) -> Result:
    """Interpolate (part of) the clip once and write ``demo.mp4`` and ``demo.png`` into `folder`.

    Args:
        watch: passes the frames on, told how many will come.
    """
    info = video.probe(clip)
    assert info.fps is not None
    stop = None if plan.count is None else plan.first + plan.count
    source = [_fitted(frame, plan.width) for frame in islice(video.read_frames(clip), plan.first, stop)]
    pair = min(plan.count or len(source), len(source)) // 2 - 1
    kept: list[Tensor] = []

    def keeping() -> Iterator[Tensor]:
        frames = interpolate_frames(model, source)
        for index, frame in enumerate(watch(frames, 2 * len(source) - 1)):
            if 2 * pair <= index <= 2 * pair + 2:
                kept.append(frame)
            yield frame

    fps = info.fps * 2
    target, picture = folder / "demo.mp4", folder / "demo.png"
    sound = clip if info.sound and plan.count is None else None
    frames = video.write_video(target, keeping(), fps, like=info, sound_from=sound)
    before, new, after = kept
    video.write_picture(picture, beside(before, new, after, (before + after) / 2))
    return Result(target, picture, frames, frames - len(source), fps)


def _fitted(frame: Tensor, width: int | None) -> Tensor:
    """frame (H, W, 3), scaled down to `width` (sides even)."""
    if width is None or frame.shape[1] <= width:
        return frame
    height = round(frame.shape[0] * width / frame.shape[1] / 2) * 2
    planes = rearrange(frame, "h w c -> 1 c h w")
    planes = F.interpolate(planes, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return rearrange(planes, "1 c h w -> h w c").clamp(0.0, 1.0)


def beside(*pictures: Tensor) -> Tensor:
    """Pictures of one size in a row, a white gap between them."""
    gap = pictures[0].new_ones(pictures[0].shape[0], _GAP, 3)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    return torch.cat(row, dim=1)

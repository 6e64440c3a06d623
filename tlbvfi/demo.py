"""The main job on a short clip: a slower video, and a new frame beside its neighbours and beside their average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import video
from .engine import interpolate_video
from .model import TLBVFI
from .outputs import Output
from .sources import BatchSource
from .targets import VideoTarget
from .timeline import Multiplier

CLIP = Path(__file__).resolve().parent.parent / "docs" / "demo.mp4"
_GAP = 4  # pixels between the pictures
#: One new frame in every gap.
TIMELINE = Multiplier(2)


@dataclass(frozen=True)
class Excerpt:
    """How much of the clip: `count` frames from frame `first` on, no wider than `width`."""

    first: int
    count: int | None
    width: int | None

    @staticmethod
    def for_model(model: TLBVFI, built_in: bool) -> Excerpt:
        """All of it for the built-in model or on a graphics card; four small frames for a larger one on the CPU."""
        whole, part = Excerpt(0, None, None), Excerpt(5, 4, 256)
        return whole if built_in or model.device.type != "cpu" else part


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


def read(clip: Path, excerpt: Excerpt) -> BatchSource:
    """The part of the clip to interpolate."""
    stop = None if excerpt.count is None else excerpt.first + excerpt.count
    frames = islice(video.read_frames(clip), excerpt.first, stop)
    return BatchSource([fitted(frame, excerpt.width) for frame in frames], video.probe(clip).fps)


def run(
    model: TLBVFI, clip: Path, folder: Path, excerpt: Excerpt, source: BatchSource, on_frame: Callable[[Output], object]
) -> Result:
    """Interpolate an excerpt of the clip once and write ``demo.mp4`` and ``demo.png`` into `folder`.

    Args:
        source: the excerpt, from :func:`read`.
        on_frame: called with every frame of the result.
    """
    info = video.probe(clip)
    count = source.info.frame_count or 0
    middle = count // 2 - 1
    kept: dict[Fraction, Tensor] = {}

    def keep(output: Output) -> None:
        if middle <= output.position <= middle + 1:
            kept[output.position] = output.frame
        on_frame(output)

    passed_on = video.PassedOn(clip) if excerpt.count is None else None
    target = VideoTarget(folder / "demo.mp4", like=info, passed_on=passed_on)
    frames = interpolate_video(model, source, target, timeline=TIMELINE, on_frame=keep)
    before, new, after = kept.values()
    picture = folder / "demo.png"
    video.write_picture(picture, beside(before, new, after, (before + after) / 2))
    assert source.info.fps is not None
    return Result(folder / "demo.mp4", picture, frames, frames - count, TIMELINE.rate(source.info.fps))


def fitted(frame: Tensor, width: int | None) -> Tensor:
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

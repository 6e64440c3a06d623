"""What a run on a card reads: pictures to make scenes of, videos, and the weights of LPIPS, on its device."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..metrics import LPIPS
from .packed import read_packed

log = logging.getLogger(__name__)

#: The file of the pictures; sides of a texture, and of a sprite or mask.
PICTURES, TEXTURE, MASK = "pictures.safetensors", 512, 192
#: Height and width of the canvas of an overlay, whose content is in the upper left corner.
CANVAS = (128, 384)
#: Distances of frames that a video's index has starts for.
GAPS = (1, 2, 4)
#: Of the pictures of every kind, the share that is never trained on: the last ones.
KEPT = 0.12


@dataclass
class Pictures:
    """Pictures on the device, uint8: textures (N, 3, 512, 512), sprites (N, 4, 192, 192) and overlays (N, 4, 128, 384)
    with premultiplied colour, masks (N, 1, 192, 192)."""

    textures: Tensor
    sprites: Tensor
    masks: Tensor
    overlays: Tensor

    def split(self) -> tuple[Pictures, Pictures]:
        """What is trained on, and what is kept for the measures."""
        parts = [[], []]  # type: list[list[Tensor]]
        for group in (self.textures, self.sprites, self.masks, self.overlays):
            kept = max(1, round(len(group) * KEPT))
            for part, chosen in zip(parts, (group[:-kept], group[-kept:]), strict=True):
                part.append(chosen)
        return Pictures(*parts[0]), Pictures(*parts[1])


@dataclass
class Video:
    """Frames (N, 3, H, W) uint8 on the device, the first `learnt` of them to train on; for each distance where three
    frames show motion that goes on."""

    name: str
    frames: Tensor
    learnt: int
    starts: dict[int, list[int]] = field(default_factory=dict)

    def starting(self, gap: int, kept: bool) -> list[int]:
        """Starts of three frames at a distance, among those to train on or those that are kept."""
        starts = self.starts.get(gap, [])
        if kept:
            return [i for i in starts if i >= self.learnt]
        return [i for i in starts if i + 2 * gap < self.learnt]


@dataclass
class Parcel:
    pictures: Pictures
    videos: list[Video]
    lpips: LPIPS | None


def _frames(path: Path) -> np.ndarray:
    """(N, H, W, 3) uint8, as OpenCV decodes them; empty where it cannot."""
    import cv2

    reader = cv2.VideoCapture(str(path))
    frames = []
    while True:
        got, frame = reader.read()
        if not got:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    reader.release()
    return np.stack(frames) if frames else np.zeros((0, 2, 2, 3), dtype=np.uint8)


def read_parcel(folder: Path, device: torch.device) -> Parcel:
    """Read a parcel onto a device. Videos that cannot be decoded are left out, with a warning."""
    index = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(_frames, folder / entry["file"]) for entry in index]
        content = read_packed(folder / PICTURES)
        decoded = [frames.result() for frames in coming]
    videos = []
    for entry, frames in zip(index, decoded, strict=True):
        if len(frames) != entry["frames"]:
            log.warning("%s: %d frames decoded of %d; left out", entry["file"], len(frames), entry["frames"])
            continue
        starts = {int(gap): places for gap, places in entry["starts"].items()}
        planes = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).contiguous()
        videos.append(Video(entry["file"], planes, entry["learnt"], starts))
    weights = {name.removeprefix("lpips."): value for name, value in content.items() if name.startswith("lpips.")}
    lpips = None
    if weights:
        lpips = LPIPS()
        lpips.load_state_dict({name: value.float() for name, value in weights.items()})
        lpips.to(device)
    groups = {name: content[name].to(device) for name in ("textures", "sprites", "masks", "overlays")}
    return Parcel(Pictures(**groups), videos, lpips)

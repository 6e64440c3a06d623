"""A compact, memory-mapped store of textures: photographs, sprites and masks at half-octave sizes.

A store is a folder with `texels.bin` (uint8, planar C x H x W, one block per level) and
`manifest.json`. Level k of an entry is the entry shrunk by 2 ** (-k / 2) with an antialiasing filter,
so that a renderer always finds a level within a factor 1.41 of the resolution it samples at.
Sprites are RGBA with premultiplied alpha; masks are alpha alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEVELS_PER_OCTAVE = 2
SMALLEST_SIDE = 24

CHANNELS = {"photo": 3, "texture": 3, "graphic": 3, "sprite": 4, "text": 1, "mask": 1}


@dataclass
class Entry:
    """One texture. `levels`: (offset in bytes, height, width) for each half octave."""

    group: str
    source: str
    name: str
    levels: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return CHANNELS[self.group]

    @property
    def height(self) -> int:
        return self.levels[0][1]

    @property
    def width(self) -> int:
        return self.levels[0][2]


def premultiply(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with straight alpha -> the same with colour times alpha."""
    alpha = rgba[..., 3:].astype(np.uint16)
    rgb = (rgba[..., :3].astype(np.uint16) * alpha + 127) // 255
    return np.concatenate([rgb.astype(np.uint8), rgba[..., 3:]], axis=-1)


def shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) uint8 -> (height, width, C), each channel on its own, with an antialiasing filter."""
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[-1])]
    small = [np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes]
    return np.stack(small, axis=-1)


def mip_levels(pixels: np.ndarray) -> list[np.ndarray]:
    """(H, W, C) uint8 -> the levels of the entry, largest first, each from the full-size pixels."""
    height, width = pixels.shape[:2]
    levels = [pixels]
    k = 0
    while True:
        k += 1
        factor = 2.0 ** (-k / LEVELS_PER_OCTAVE)
        h, w = round(height * factor), round(width * factor)
        if min(h, w) < SMALLEST_SIDE:
            return levels
        levels.append(shrink(pixels, h, w))


class StoreWriter:
    """Appends textures to a folder; `close` writes the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.entries: list[Entry] = []
        self._partial = self.folder / "texels.partial"
        self._file = self._partial.open("wb")

    def add(self, pixels: np.ndarray, group: str, source: str, name: str) -> None:
        """`pixels`: (H, W, C) uint8, C as the group wants (sprites premultiplied)."""
        if pixels.ndim != 3 or pixels.shape[-1] != CHANNELS[group]:
            raise ValueError(f"{name}: a {group} needs {CHANNELS[group]} channels, got shape {pixels.shape}")
        entry = Entry(group, source, name)
        for level in mip_levels(pixels):
            entry.levels.append((self._file.tell(), level.shape[0], level.shape[1]))
            self._file.write(np.ascontiguousarray(level.transpose(2, 0, 1)).tobytes())
        self.entries.append(entry)

    def close(self) -> None:
        self._file.close()
        self._partial.replace(self.folder / "texels.bin")
        manifest = {"entries": [asdict(entry) for entry in self.entries]}
        (self.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


class TextureStore:
    """Reads a store. `group(name)` lists indices; `level` gives one level as a uint8 tensor."""

    def __init__(self, entries: list[Entry], texels: np.ndarray) -> None:
        self.entries = entries
        self.texels = texels
        self._groups: dict[str, list[int]] = {name: [] for name in CHANNELS}
        for index, entry in enumerate(entries):
            self._groups[entry.group].append(index)

    @classmethod
    def open(cls, folder: Path | str) -> TextureStore:
        """Maps the store in `folder`; nothing is read before it is used."""
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        entries = [
            Entry(e["group"], e["source"], e["name"], [tuple(level) for level in e["levels"]])
            for e in manifest["entries"]
        ]
        return cls(entries, np.memmap(folder / "texels.bin", dtype=np.uint8, mode="r"))

    @classmethod
    def from_arrays(cls, textures: Iterable[tuple[str, np.ndarray]]) -> TextureStore:
        """A store in memory from (group, (H, W, C) uint8) pairs."""
        entries, blocks, offset = [], [], 0
        for number, (group, pixels) in enumerate(textures):
            entry = Entry(group, "memory", str(number))
            for level in mip_levels(pixels):
                blocks.append(level.transpose(2, 0, 1).reshape(-1))
                entry.levels.append((offset, level.shape[0], level.shape[1]))
                offset += blocks[-1].size
            entries.append(entry)
        return cls(entries, np.concatenate(blocks))

    def group(self, name: str) -> list[int]:
        """Indices of the entries of a group, possibly none."""
        return self._groups[name]

    def level(self, index: int, level: int) -> np.ndarray:
        """Level `level` (clipped to what exists) of entry `index`: (C, H, W) uint8, not copied."""
        entry = self.entries[index]
        offset, height, width = entry.levels[min(max(level, 0), len(entry.levels) - 1)]
        size = entry.channels * height * width
        return self.texels[offset : offset + size].reshape(entry.channels, height, width)

    def crop(self, index: int, level: int, top: int, left: int, bottom: int, right: int) -> Tensor:
        """A window of a level as float32 (C, h, w) in [0, 1]; the window must lie inside the level."""
        window = np.array(self.level(index, level)[:, top:bottom, left:right])
        return torch.from_numpy(window).to(torch.float32).mul_(1.0 / 255.0)


def level_for(texels_per_sample: float) -> int:
    """The finest level that has no more than about 1.2 texels per sample."""
    return max(0, math.ceil(LEVELS_PER_OCTAVE * math.log2(max(texels_per_sample, 1e-6) / 1.2)))

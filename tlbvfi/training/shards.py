"""Triplets on disk: shards of frames, flows and visibility, and the dataset that reads and augments them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset


def half_resolution(flow: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Flow (2, H, W) and mask (1, H, W) at half the size; values stay in pixels of the full size.

    A 2 x 2 block has the mean flow, or at a motion boundary that of its first pixel, and is valid if all of it is.
    """
    blocks = rearrange(flow, "c (h a) (w b) -> c h w (a b)", a=2, b=2)
    spread = (blocks.amax(-1) - blocks.amin(-1)).amax(0)
    small = torch.where(spread < 1.0, blocks.mean(-1), blocks[..., 0])
    return small, rearrange(valid, "c (h a) (w b) -> c h w (a b)", a=2, b=2).all(-1)


def write_shard(target: Path, frames: np.ndarray, flows: np.ndarray, valids: np.ndarray) -> None:
    """Triplets uint8 (N, 3, 3, S, S), flows float16 (N, 2, 2, S/2, S/2), visibility uint8 (N, 2, S/2, S/2)."""
    for name, array in (("valid", valids), ("flows", flows), ("frames", frames)):  # frames last: it marks the end
        path = target.with_suffix(f".{name}.npy")
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(path)


class ShardDataset(Dataset[dict[str, Tensor]]):
    """Prerendered triplets with cheap augmentation.

    Items: x0, xm, x1 float32 (3, crop, crop) in [0, 1]; flow0, flow1 float32 (2, crop/2, crop/2), backward flows from
    the middle frame in pixels of the full size; valid0, valid1 bool (1, crop/2, crop/2). Augmentation: crop at even
    pixels, flips, quarter turns, order of the colour channels, brightness and gamma, sensor noise, time reversal.
    An item depends on (seed, epoch, index) alone.
    """

    def __init__(
        self,
        folder: Path | str,
        crop: int | None = None,
        *,
        augment: bool = True,
        noise: float = 0.15,
        seed: int = 0,
    ) -> None:
        """`noise`: probability of sensor noise, the same strength on all three frames."""
        names = sorted(Path(folder).glob("shard-*.frames.npy"))
        if not names:
            raise FileNotFoundError(f"no shards in {folder}")
        self._frames = [np.load(name, mmap_mode="r") for name in names]
        self._flows = [np.load(str(name).replace(".frames.", ".flows."), mmap_mode="r") for name in names]
        self._valid = [np.load(str(name).replace(".frames.", ".valid."), mmap_mode="r") for name in names]
        self._starts = np.cumsum([0] + [len(frames) for frames in self._frames])
        self.size = self._frames[0].shape[-1]
        self.crop = crop or self.size
        if self.crop > self.size or self.crop % 2:
            raise ValueError(f"crop must be even and at most {self.size}, got {self.crop}")
        self.augment = augment
        self.noise = noise
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def set_epoch(self, epoch: int) -> None:
        """Changes what the augmentation draws."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self.sample(index, np.random.default_rng([self.seed, self.epoch, index]))
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in item.items()}

    def batches(self, batch: int, *, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Endless stacked batches from number `start` on; see :meth:`batch`."""
        return (self.batch(number, batch) for number in itertools.count(start))

    def batch(self, number: int, size: int, crop: int | None = None, *, halved: bool = False) -> dict[str, Tensor]:
        """Batch number n of `size` items in a shuffled order that depends on the seed; see :meth:`sample`."""
        epoch, place = divmod(number, len(self) // size)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self))
        chosen = [int(i) for i in order[place * size : (place + 1) * size]]
        items = [self.sample(i, np.random.default_rng([self.seed, epoch, i]), crop, halved=halved) for i in chosen]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def sample(
        self, index: int, rng: np.random.Generator, crop: int | None = None, *, halved: bool = False
    ) -> dict[str, np.ndarray]:
        """One item, augmented with draws from `rng`, of another crop where given; `halved`: shrunk to half of it, with
        flows in its pixels. In NumPy, so that a loading thread leaves PyTorch's alone."""
        crop = crop or self.crop
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        i = index - int(self._starts[shard])
        room = (self.size - crop) // 2
        top, left = (int(v) for v in rng.integers(0, room + 1, 2)) if self.augment else (room // 2, room // 2)
        half = crop // 2
        pixels = self._frames[shard][i, :, :, 2 * top : 2 * top + crop, 2 * left : 2 * left + crop]
        flows = self._flows[shard][i, :, :, top : top + half, left : left + half].astype(np.float32)
        valid = self._valid[shard][i, :, top : top + half, left : left + half]
        if halved:
            frames = _pooled(pixels.astype(np.uint16)) * np.float32(1 / 255)
            flows, valid = _pooled(flows) / 2, _pooled(valid.astype(np.uint8)) == 1
        else:
            frames = pixels * np.float32(1 / 255)
        if self.augment:
            frames, flows, valid = self._turn(frames, flows, valid, rng)
            frames = self._expose(frames, rng)
        valid = valid.astype(bool)
        return {
            "x0": frames[0], "xm": frames[1], "x1": frames[2],
            "flow0": flows[0], "flow1": flows[1], "valid0": valid[:1], "valid1": valid[1:],
        }  # fmt: skip

    @staticmethod
    def _turn(
        frames: np.ndarray, flows: np.ndarray, valid: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mirror, upside, transpose, reverse = rng.random(4) < (0.5, 0.5, 0.5, 0.5)
        if rng.random() < 0.5:
            frames = frames[:, rng.permutation(3)]
        sign = np.array([-1.0 if mirror else 1.0, -1.0 if upside else 1.0], np.float32).reshape(1, 2, 1, 1)
        axes = tuple(axis for axis, flip in ((-1, mirror), (-2, upside)) if flip)
        if axes:
            frames, flows, valid = np.flip(frames, axes), np.flip(flows, axes) * sign, np.flip(valid, axes)
        if transpose:
            frames, flows, valid = frames.swapaxes(-1, -2), flows.swapaxes(-1, -2)[:, ::-1], valid.swapaxes(-1, -2)
        if reverse:
            frames, flows, valid = frames[::-1], flows[::-1], valid[::-1]
        return frames, flows, valid

    def _expose(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Brightness, gamma and noise, the same for the three frames: (3, 3, H, W)."""
        if rng.random() < 0.3:
            x = x ** np.float32(math.exp(rng.normal(0, 0.2)))
        if rng.random() < 0.4:
            low, high = rng.uniform(0, 0.15), rng.uniform(0.75, 1.0)
            x = x * np.float32(high - low) + np.float32(low)
        if rng.random() < self.noise:
            x = x + rng.standard_normal(x.shape, np.float32) * np.float32(rng.uniform(0.002, 0.02))
            x = x.clip(0.0, 1.0)
        return x


def _pooled(maps: np.ndarray) -> np.ndarray:
    """Means over 2 x 2 places: (..., H, W) -> (..., H/2, W/2) float32."""
    rows = maps[..., ::2, :] + maps[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)

"""Pictures of a texture store, laid at random over the material of a layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .layers import Picture
from .motion import Matrix, affine, invert, transform
from .store import TextureStore, level_for


class PictureMaker:
    """Lays pictures of a store over material. All chance comes from the generators given to the methods.

    Raises:
        ValueError: the store has nothing that covers a whole frame.
    """

    def __init__(self, store: TextureStore) -> None:
        self.store = store
        self._opaque = [name for name in ("photo", "texture", "graphic") if store.group(name)]
        if not self._opaque:
            raise ValueError("the store has no photographs or textures")

    def cover(self, rng: np.random.Generator, points: np.ndarray, subsamples: int) -> Picture:
        """A photograph laid over the material `points` (n, 2), at a random scale, turn and place."""
        index = self._opaque_index(rng)
        entry = self.store.entries[index]
        span = float((points.max(0) - points.min(0)).max())
        most = max(min(entry.width, entry.height) / max(span, 1.0), 0.75)
        scale = math.exp(rng.uniform(math.log(0.75), math.log(max(most, 0.76)))) if rng.random() < 0.7 else most
        scale = max(scale, 0.5)  # texels of the largest level per pixel
        level = min(level_for(scale / subsamples), len(entry.levels) - 1)
        _, height, width = entry.levels[level]
        scale *= height / entry.height
        upright = entry.group == "photo" or rng.random() < 0.5
        angle = rng.normal(0, math.radians(6)) if upright else rng.uniform(0, 2 * math.pi)
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        flip = rng.choice([-1.0, 1.0])
        linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
        middle = (points.max(0) + points.min(0)) / 2
        reached = (points - middle) @ linear.T
        low, high = -reached.min(0), np.array([width, height]) - reached.max(0)
        centre = np.where(high > low, rng.uniform(0, 1, 2) * (high - low) + low, np.array([width, height]) / 2)
        return self._window(index, level, affine(linear, middle, centre - middle), points, "reflection")

    def colour(self, rng: np.random.Generator, corners: np.ndarray, subsamples: int) -> Picture | Tensor:
        """What fills a shape: a photograph over its `corners` (n, 2), or now and then a constant (3,)."""
        if rng.random() < 0.1:
            return torch.from_numpy(rng.uniform(0, 1, 3)).to(torch.float32)
        return self.cover(rng, corners, subsamples)

    def whole(
        self, index: int, centre: np.ndarray, extent: float, angle: float, flip: float, subsamples: int
    ) -> tuple[Picture, np.ndarray]:
        """A whole sprite or mask, its longer side `extent` pixels; returns it and its corners (4, 2)."""
        entry = self.store.entries[index]
        scale = max(entry.width, entry.height) / extent
        level = min(level_for(scale / subsamples), len(entry.levels) - 1)
        _, height, width = entry.levels[level]
        scale *= height / entry.height
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        linear = np.array([[cos * flip, -sin * flip], [sin, cos]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        place = affine(linear, centre, middle - centre)
        corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]], dtype=np.float64)
        corners = transform(invert(place), corners)
        texels = self.store.crop(index, level, 0, 0, height, width)
        return Picture(texels, place, "zeros"), corners

    def grade(self, rng: np.random.Generator, strength: float) -> Tensor | None:
        """A random colour matrix (3, 4): saturation, gains and brightness."""
        if rng.random() < 0.45:
            return None
        saturation = float(np.clip(rng.normal(1.0, 0.3 * strength), 0.0, 1.8))
        luma = np.array([0.299, 0.587, 0.114])
        matrix = saturation * np.eye(3) + (1 - saturation) * np.broadcast_to(luma, (3, 3))
        gains = np.exp(rng.normal(0, 0.07 * strength, (3, 1)) + rng.normal(0, 0.2 * strength))
        offset = rng.normal(0, 0.05 * strength, (3, 1))
        return torch.from_numpy(np.concatenate([gains * matrix, offset], 1)).to(torch.float32)

    def _opaque_index(self, rng: np.random.Generator) -> int:
        """A photograph, texture or graphic of the store."""
        weights = np.array([{"photo": 0.62, "texture": 0.28, "graphic": 0.10}[name] for name in self._opaque])
        group = self._opaque[int(rng.choice(len(weights), p=weights / weights.sum()))]
        members = self.store.group(group)
        return members[int(rng.integers(len(members)))]

    def _window(self, index: int, level: int, place: Matrix, points: np.ndarray, padding: str) -> Picture:
        """Cuts the part of a level that material `points` reach; `place` is in texels of that level."""
        _, height, width = self.store.entries[index].levels[level]
        reached = transform(place, points)
        low, high = np.floor(reached.min(0)) - 2, np.ceil(reached.max(0)) + 3
        limit = np.array([width, height])
        if padding == "reflection":  # also what mirrors into view
            low, high = np.minimum(low, 2 * limit - high), np.maximum(high, -low)
        low = np.clip(low, 0, limit - 2).astype(int)
        high = np.clip(high, low + 2, limit).astype(int)
        texels = self.store.crop(index, level, low[1], low[0], high[1], high[0])
        place = place.copy()
        place[:, 2] -= low
        return Picture(texels, place, padding)

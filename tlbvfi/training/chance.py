"""What scenes contain, and how their parts move: all that is drawn at random but pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .motion import AffinePath, SmoothField


@dataclass(frozen=True)
class RenderConfig:
    """What scenes contain: probabilities, and scales of the motion. The defaults are the training set."""

    layers: tuple[float, ...] = (0.12, 0.18, 0.22, 0.18, 0.13, 0.10, 0.07)  # of 0, 1, 2, ... layers
    motion: float = 1.0  # factor on every translation
    affine: float = 1.0  # factor on rotation, zoom and shear
    nonrigid: float = 0.5  # a layer deforms
    accelerate: float = 0.25
    motion_blur: float = 0.25
    defocus: float = 0.3
    drift: float = 0.3
    shadows: float = 0.15
    overlay: float = 0.08  # a layer that stays while the scene moves: captions, logos
    letterbox: float = 0.02
    still: float = 0.03  # nothing moves
    pan: float = 0.08  # one motion for everything
    compression: float = 0.15
    noise_scene: float = 0.006
    noise_cut: float = 0.003
    oversample: int = 2

    @classmethod
    def clean(cls, **changes: Any) -> RenderConfig:
        """Motion and occlusion alone: no blur, drift, compression or oddities."""
        plain = cls(
            motion_blur=0, defocus=0, drift=0, shadows=0, overlay=0, letterbox=0, still=0, pan=0,
            compression=0, noise_scene=0, noise_cut=0,
        )  # fmt: skip
        return replace(plain, **changes)


class MotionMaker:
    """Draws motions for frames of `size` x `size`. All chance comes from the generators given to the methods."""

    def __init__(self, size: int, config: RenderConfig) -> None:
        self.config = config
        self.unit = size / 256  # motion is stated for 256 pixels

    def magnitude(self, rng: np.random.Generator) -> float:
        """Length of a translation from frame 0 to frame 1, pixels."""
        choice = rng.random()
        if choice < 0.06:
            length = 0.0
        elif choice < 0.46:
            length = rng.exponential(3.5)
        elif choice < 0.74:
            length = rng.uniform(2, 14)
        elif choice < 0.90:
            length = rng.uniform(10, 32)
        else:
            length = rng.uniform(30, 80)
        return length * self.unit * self.config.motion

    def path(self, rng: np.random.Generator, pivot: np.ndarray, calm: float = 1.0) -> AffinePath:
        """A random affine path; `calm` < 1 makes rotation, zoom and shear smaller."""
        direction = rng.uniform(0, 2 * math.pi)
        if rng.random() < 0.35:  # mostly sideways, as cameras and walkers move
            direction = rng.choice([0.0, math.pi]) + rng.normal(0, 0.12)
        shift = self.magnitude(rng) * np.array([math.cos(direction), math.sin(direction)])
        path = AffinePath(shift, pivot)
        amount = self.config.affine * calm
        if rng.random() < 0.6:
            path.turn = amount * math.radians(rng.normal(0, 4) if rng.random() < 0.9 else rng.uniform(-40, 40))
        if rng.random() < 0.6:
            path.zoom = amount * (rng.normal(0, 0.03) if rng.random() < 0.9 else rng.uniform(-0.25, 0.25))
        if rng.random() < 0.3:
            path.shear = amount * rng.normal(0, 0.04)
        if rng.random() < self.config.accelerate:
            path.acceleration = float(np.clip(rng.normal(0, 0.03), -0.08, 0.08))
        return path

    def field(self, rng: np.random.Generator, centre: np.ndarray, radius: float, scale: float) -> SmoothField:
        """A smooth field over the square; `scale`: the motion it accompanies, pixels."""
        grid = int(rng.choice([3, 4, 5, 7]))
        amplitude = rng.uniform(0.1, 0.6) * scale + rng.exponential(1.2) * self.unit * min(1.0, self.config.motion)
        control = rng.normal(0, 1, (2, grid, grid))
        if rng.random() < 0.5:  # slow waves rather than independent control points
            control *= 0.35
            yy, xx = np.mgrid[-1 : 1 : grid * 1j, -1 : 1 : grid * 1j]
            for axis in range(2):  # planes in perspective: linear and quadratic ramps
                a = rng.normal(0, 0.6, 5)
                control[axis] += a[0] * xx + a[1] * yy + a[2] * xx * yy + 0.5 * (a[3] * xx**2 + a[4] * yy**2)
        control *= amplitude
        pitch = 2 * radius / (grid - 1)
        steepest = max(np.abs(np.diff(control, axis=1)).max(), np.abs(np.diff(control, axis=2)).max()) / pitch
        control *= min(1.0, 0.35 / max(steepest, 1e-9))  # keeps the map one to one
        return SmoothField(torch.from_numpy(control).to(torch.float32), centre, radius)

"""The layers of a scene: what they are cut from, and how one is sampled at a moment.

Frames are sampled backwards from textures: the affine part is inverted exactly and the smooth field by fixed-point
iteration. Two samples per pixel and axis over half-octave textures keep the frames sharp and free of aliasing at any
sub-pixel phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .motion import Box, Matrix, Motion, compose, invert, transform


@dataclass
class Picture:
    """A window of a texture and where it lies: `place` maps material coordinates to texel indices of the window."""

    texels: Tensor  # (C, h, w) float32
    place: Matrix
    padding: str

    def sample(self, motion: Matrix, residual: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        """Values at frame positions x (1, w), y (h, 1); `motion` is the affine inverse at that time: (C, h, w)."""
        m = compose(self.place, motion)
        scale = np.array([2.0 / self.texels.shape[2], 2.0 / self.texels.shape[1]])
        m = m * scale[:, None]
        m[:, 2] += 0.5 * scale - 1.0
        a = m.tolist()
        grid = torch.empty(1, y.shape[0], x.shape[1], 2)
        for axis in range(2):
            torch.add(a[axis][0] * x, a[axis][1] * y + a[axis][2], out=grid[0, ..., axis])
        if residual is not None:
            p = (self.place[:, :2] * scale[:, None]).tolist()
            for axis in range(2):
                grid[0, ..., axis].add_(residual[0], alpha=p[axis][0]).add_(residual[1], alpha=p[axis][1])
        return F.grid_sample(self.texels[None], grid, "bilinear", self.padding, align_corners=False)[0]


@dataclass
class Layer:
    """One thing of the scene. `colour`: a picture of 3 or 4 channels or a constant (3,); `shape`: its alpha."""

    motion: Motion
    colour: Picture | Tensor
    shape: Picture | None = None
    corners: np.ndarray | None = None  # (n, 2) material points around it; None: everywhere
    grade: Tensor | None = None  # (3, 4) colour matrix
    opacity: float = 1.0
    reach: float = 0.0  # pixels a smooth field can carry it beyond its corners

    def box(self, t: float, size: int) -> Box | None:
        """Pixels it can touch at time t, or None."""
        if self.corners is None:
            return Box(0, 0, size, size, size)
        points = transform(self.motion.matrix(t), self.corners) + (size - 1) / 2
        margin = 2.0 + self.reach * abs(self.motion.progress(t))
        low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(0) + margin) + 1, size).astype(int)
        if (high - low < 1).any():
            return None
        return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]), size)

    def render(self, t: float, box: Box, subsamples: int) -> tuple[Tensor, Tensor | None]:
        """Premultiplied colour (3, h, w) and alpha (1, h, w), None if opaque, of the pixels of a box."""
        x, y = box.samples(subsamples)
        inverse = invert(self.motion.matrix(t))
        residual = self.motion.residual(t, box, subsamples)
        alpha = None
        if self.shape is not None:
            alpha = self.shape.sample(inverse, residual, x, y)
        if isinstance(self.colour, Tensor):
            rgb = self.colour[:, None, None].expand(3, box.height * subsamples, box.width * subsamples)
        else:
            rgb = self.colour.sample(inverse, residual, x, y)
        if rgb.shape[0] == 4:
            own = rgb[3:]
            rgb = rgb[:3] if alpha is None else rgb[:3] * alpha
            alpha = own if alpha is None else own * alpha
        elif alpha is not None:
            rgb = rgb * alpha
        rgb = _pool(rgb, subsamples)
        alpha = None if alpha is None else _pool(alpha, subsamples)
        if self.grade is not None:
            weight = torch.ones_like(rgb[:1]) if alpha is None else alpha
            flat = torch.cat([rgb, weight]).reshape(4, -1)
            rgb = torch.minimum((self.grade @ flat).clamp_min_(0.0), flat[3:]).view(rgb.shape)
        if alpha is not None and self.opacity < 1.0:
            rgb, alpha = rgb * self.opacity, alpha * self.opacity
        return rgb, alpha


def _pool(x: Tensor, n: int) -> Tensor:
    """Mean over n x n samples: (C, h * n, w * n) -> (C, h, w)."""
    if n == 1:
        return x
    if n == 2:
        rows = x[:, 0::2] + x[:, 1::2]
        return (rows[:, :, 0::2] + rows[:, :, 1::2]) * 0.25
    return rearrange(x, "c (h a) (w b) -> c h w (a b)", a=n, b=n).mean(-1)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """(C, h, w) -> the same size, reflected at the border (or repeated where it is too small)."""
    radius = max(1, math.ceil(2.5 * sigma))
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    mode = "reflect" if min(x.shape[1:]) > radius else "replicate"
    for axis in (1, 2):  # sums of shifted copies: a convolution with one input channel is much slower here
        padding = (0, 0, radius, radius) if axis == 1 else (radius, radius, 0, 0)
        padded, length = F.pad(x[None], padding, mode=mode)[0], x.shape[axis]
        x = padded.narrow(axis, radius, length) * (taps[0] / total)
        for k in range(1, radius + 1):
            for start in (radius - k, radius + k):
                x.add_(padded.narrow(axis, start, length), alpha=taps[k] / total)
    return x

"""How the material of a scene moves.

The material coordinates u of a layer are its positions in the middle frame; at time t (0, 1/2, 1 for the three frames)
they have moved to

    q = C_t(A_t(u + s(t) d(u))),   s(t) = (t - 1/2) + 4 a (t - 1/2)^2

with C the camera, A the layer's own affine path, d a smooth displacement field and a the acceleration; s, and with it
all motion, is nothing at t = 1/2. So the flow from the middle frame to the outer ones is exact by construction.

Coordinates: x to the right, y down, pixels, origin in the middle of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Matrix = np.ndarray  # (2, 3) float64: p -> M[:, :2] p + M[:, 2]
TIMES = (0.0, 0.5, 1.0)
NODE_PITCH = 4  # pixels between the nodes at which non-rigid motion is inverted


def affine(linear: np.ndarray, pivot: np.ndarray, shift: np.ndarray) -> Matrix:
    return np.concatenate([linear, (pivot + shift - linear @ pivot)[:, None]], axis=1)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)


def invert(matrix: Matrix) -> Matrix:
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, (-linear @ matrix[:, 2])[:, None]], axis=1)


def transform(matrix: Matrix, points: np.ndarray) -> np.ndarray:
    """(n, 2) -> (n, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


IDENTITY: Matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass
class AffinePath:
    """An affine motion about a pivot. Totals from frame 0 to frame 1: shift (pixels), turn (radians), log zoom."""

    shift: np.ndarray
    pivot: np.ndarray
    turn: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    acceleration: float = 0.0

    def progress(self, t: float) -> float:
        """s(t): -1/2 at frame 0 and 1/2 at frame 1 without acceleration; 0 in the middle."""
        return (t - 0.5) + 4.0 * self.acceleration * (t - 0.5) ** 2

    def at(self, t: float) -> Matrix:
        s = self.progress(t)
        cos, sin = math.cos(self.turn * s), math.sin(self.turn * s)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, self.shear * s], [0.0, 1.0]])
        return affine(linear * math.exp(self.zoom * s), self.pivot, self.shift * s)


@dataclass
class SmoothField:
    """A displacement field d(u): bicubic through a grid of control vectors over a square of the material.

    `control`: (2, g, g) pixels from frame 0 to frame 1; `centre`, `radius`: the square, beyond it the border goes on.
    """

    control: Tensor
    centre: np.ndarray
    radius: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Positions (h, w) -> displacements (2, h, w)."""
        grid = torch.stack([(x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius], -1)
        grid = grid.clamp(-1.2, 1.2).to(torch.float32)[None]
        return F.grid_sample(self.control[None], grid, "bicubic", "border", align_corners=True)[0]


@lru_cache(maxsize=512)
def _bicubic_weights(nodes: int, samples: int) -> Tensor:
    """The matrix (samples, nodes) of bicubic interpolation from end to end; two products are faster than the kernel."""
    rows = torch.eye(nodes)[None, None]
    return F.interpolate(rows, (nodes, samples), mode="bicubic", align_corners=True)[0, 0].T.contiguous()


@dataclass
class Motion:
    """The path of a layer: its own affine motions innermost first, then a smooth field inside of them."""

    paths: list[AffinePath]
    field: SmoothField | None = None

    def matrix(self, t: float) -> Matrix:
        matrix = IDENTITY
        for path in self.paths:
            matrix = compose(path.at(t), matrix)
        return matrix

    def progress(self, t: float) -> float:
        return self.paths[0].progress(t)

    def forward(self, x: Tensor, y: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Where the material at (x, y) of the middle frame is at time t."""
        if self.field is not None:
            dx, dy = self.field(x, y) * self.progress(t)
            x, y = x + dx, y + dy
        m = self.matrix(t).tolist()
        return m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2]

    def residual(self, t: float, box: Box, subsamples: int) -> Tensor | None:
        """u - v over the samples of a box of the frame at time t, v the affine inverse: (2, h, w); None if rigid.

        The fixed point of u = v - s d(u) is found at nodes and interpolated; d is smooth beside their pitch.
        """
        s = self.progress(t)
        if self.field is None or s == 0.0:
            return None
        rows = max(2, math.ceil(box.height / NODE_PITCH) + 1)
        columns = max(2, math.ceil(box.width / NODE_PITCH) + 1)
        inset = 0.5 - 0.5 / subsamples  # the first and last samples lie on nodes
        ys = torch.linspace(box.y0 - inset, box.y1 - 1 + inset, rows)
        xs = torch.linspace(box.x0 - inset, box.x1 - 1 + inset, columns)
        y, x = torch.meshgrid(ys - box.origin, xs - box.origin, indexing="ij")
        m = invert(self.matrix(t)).tolist()
        vx, vy = m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2]
        offset = torch.zeros(2, rows, columns)
        for _ in range(6):
            offset = self.field(vx + offset[0], vy + offset[1]) * -s
        down = _bicubic_weights(rows, box.height * subsamples)
        across = _bicubic_weights(columns, box.width * subsamples)
        return down @ offset @ across.T


@dataclass(frozen=True)
class Box:
    """Whole pixels x0 <= x < x1, y0 <= y < y1 of a frame of `size` x `size`."""

    x0: int
    y0: int
    x1: int
    y1: int
    size: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def origin(self) -> float:
        """Pixel index of the coordinate origin."""
        return (self.size - 1) / 2

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def samples(self, subsamples: int) -> tuple[Tensor, Tensor]:
        """Coordinates of the samples: x (1, w * n), y (h * n, 1)."""
        steps = torch.arange(self.width * subsamples, dtype=torch.float32)
        x = self.x0 - self.origin - 0.5 + (steps + 0.5) / subsamples
        steps = torch.arange(self.height * subsamples, dtype=torch.float32)
        y = self.y0 - self.origin - 0.5 + (steps + 0.5) / subsamples
        return x[None, :], y[:, None]

"""Procedurally rendered motion: three frames of a layered scene with exact flows.

A scene is a background and some layers (photographs cut by random masks, sprites, text, strokes, shadows)
in a fixed order of occlusion. The material coordinates u of a layer are its positions in the middle
frame; at time t (0, 1/2, 1 for the three frames) they have moved to

    q = C_t(A_t(u + s(t) d(u))),   s(t) = (t - 1/2) + 4 a (t - 1/2)^2

with C the camera, A the layer's own affine path, d a smooth displacement field and a the acceleration;
s, and with it all motion, is nothing at t = 1/2. So the flow from the middle frame to the outer ones is
exact by construction. Frames are sampled backwards from textures: the affine part is inverted exactly and
the smooth field by fixed-point iteration. Two samples per pixel and axis over half-octave textures keep
the frames sharp and free of aliasing at any sub-pixel phase.

Coordinates: x to the right, y down, pixels, origin in the middle of the frame. Flows are (dx, dy).

    python -m tlbvfi.training.render --store DIR --out DIR --count 30000 --size 256 --seed 0

renders shards for `ShardDataset`, two processes, and continues where an earlier run stopped.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .store import TextureStore, level_for

log = logging.getLogger(__name__)

Matrix = np.ndarray  # (2, 3) float64: p -> M[:, :2] p + M[:, 2]
TIMES = (0.0, 0.5, 1.0)
NODE_PITCH = 4  # pixels between the nodes at which non-rigid motion is inverted
LABEL_ALPHA = 0.5


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
    def clean(cls, **changes: object) -> RenderConfig:
        """Motion and occlusion alone: no blur, drift, compression or oddities."""
        plain = cls(
            motion_blur=0, defocus=0, drift=0, shadows=0, overlay=0, letterbox=0, still=0, pan=0,
            compression=0, noise_scene=0, noise_cut=0,
        )  # fmt: skip
        return replace(plain, **changes)


# ---------------------------------------------------------------------------------------------- motion


def _affine(linear: np.ndarray, pivot: np.ndarray, shift: np.ndarray) -> Matrix:
    return np.concatenate([linear, (pivot + shift - linear @ pivot)[:, None]], axis=1)


def _compose(outer: Matrix, inner: Matrix) -> Matrix:
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)


def _invert(matrix: Matrix) -> Matrix:
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, (-linear @ matrix[:, 2])[:, None]], axis=1)


def _apply(matrix: Matrix, points: np.ndarray) -> np.ndarray:
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
        return _affine(linear * math.exp(self.zoom * s), self.pivot, self.shift * s)


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
            matrix = _compose(path.at(t), matrix)
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
        m = _invert(self.matrix(t)).tolist()
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


# ---------------------------------------------------------------------------------------------- layers


@dataclass
class Picture:
    """A window of a texture and where it lies: `place` maps material coordinates to texel indices of the window."""

    texels: Tensor  # (C, h, w) float32
    place: Matrix
    padding: str

    def sample(self, motion: Matrix, residual: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
        """Values at frame positions x (1, w), y (h, 1); `motion` is the affine inverse at that time: (C, h, w)."""
        m = _compose(self.place, motion)
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
        points = _apply(self.motion.matrix(t), self.corners) + (size - 1) / 2
        margin = 2.0 + self.reach * abs(self.motion.progress(t))
        low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(0) + margin) + 1, size).astype(int)
        if (high - low < 1).any():
            return None
        return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]), size)

    def render(self, t: float, box: Box, subsamples: int) -> tuple[Tensor, Tensor | None]:
        """Premultiplied colour (3, h, w) and alpha (1, h, w), None if opaque, of the pixels of a box."""
        x, y = box.samples(subsamples)
        inverse = _invert(self.motion.matrix(t))
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


def _gaussian_blur(x: Tensor, sigma: float) -> Tensor:
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


@dataclass
class Scene:
    """Layers from the back to the front, and what the camera does to the finished frames."""

    layers: list[Layer]
    size: int
    shutter: float = 0.0  # of the distance between frame 0 and frame 1
    blur_samples: int = 1
    softness: float = 0.0  # standard deviation of a blur of the whole frame, pixels
    gain: float = 0.0  # log brightness change from frame 0 to frame 1
    gamma: float = 0.0  # log gamma change
    lift: float = 0.0
    bars: int = 0  # rows of a letterbox
    jpeg: int = 0  # quality, 0 for none
    noise: Tensor | None = field(default=None, repr=False)  # replaces the frames: (3, 3, H, W)


# ---------------------------------------------------------------------------------------------- drawing


def _composite(scene: Scene, t: float, subsamples: int, labels: bool) -> tuple[Tensor, Tensor | None]:
    """One instant: colours (3, H, W), and the index of the layer in front (H, W) uint8."""
    size = scene.size
    canvas = torch.zeros(3, size, size)
    front = torch.zeros(size, size, dtype=torch.uint8) if labels else None
    for index, layer in enumerate(scene.layers):
        box = layer.box(t, size)
        if box is None:
            continue
        rgb, alpha = layer.render(t, box, subsamples)
        if alpha is None:
            canvas[(slice(None), *box.slices)] = rgb
            if front is not None:
                front[box.slices] = index
            continue
        target = canvas[(slice(None), *box.slices)]
        target.mul_(1.0 - alpha).add_(rgb)
        if front is not None:
            front[box.slices].masked_fill_(alpha[0] > LABEL_ALPHA, index)
    return canvas, front


def _frame(scene: Scene, t: float, subsamples: int) -> tuple[Tensor, Tensor]:
    """The finished frame at time t (3, H, W) in [0, 1] and its labels (H, W)."""
    if scene.blur_samples > 1:
        _, front = _composite(scene, t, 1, labels=True)
        instants = (np.arange(scene.blur_samples) + 0.5) / scene.blur_samples - 0.5
        frame = torch.zeros(3, scene.size, scene.size)
        for instant in instants:
            frame += _composite(scene, t + float(instant) * scene.shutter, 1, labels=False)[0]
        frame /= scene.blur_samples
    else:
        frame, front = _composite(scene, t, subsamples, labels=True)
    assert front is not None
    if scene.softness > 0:
        frame = _gaussian_blur(frame, scene.softness)
    s = t - 0.5
    if scene.gain or scene.gamma or scene.lift:
        frame = frame.clamp_(0.0, 1.0)
        if scene.gamma:
            frame = frame.pow(math.exp(scene.gamma * s))
        frame = frame * math.exp(scene.gain * s) + scene.lift * s
    if scene.bars:
        frame[:, : scene.bars] = 0.0
        frame[:, scene.size - scene.bars :] = 0.0
    frame = frame.clamp_(0.0, 1.0)
    if scene.jpeg:
        pixels = rearrange((frame * 255.0).round().to(torch.uint8), "c h w -> h w c").numpy()
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=scene.jpeg)
        with Image.open(stream) as decoded:
            back = torch.from_numpy(np.array(decoded))
        frame = rearrange(back, "h w c -> c h w").to(torch.float32) / 255.0
    return frame, front


def _flows(scene: Scene, front: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Flows (2, H, W) from the middle frame to frames 0 and 1, and where they end on the same visible thing."""
    size = scene.size
    whole = Box(0, 0, size, size, size)
    x, y = whole.samples(1)
    flows, valids = [], []
    for t, labels in ((0.0, front[0]), (1.0, front[2])):
        flow = torch.zeros(2, size, size)
        for index, layer in enumerate(scene.layers):
            box = layer.box(0.5, size)
            if box is None:
                continue
            mine = front[1][box.slices] == index
            if not bool(mine.any()):
                continue
            bx, by = box.samples(1)
            bx, by = bx.expand(box.height, -1), by.expand(-1, box.width)
            qx, qy = layer.motion.forward(bx, by, t)
            target = flow[(slice(None), *box.slices)]
            torch.where(mine, torch.stack([qx - bx, qy - by]), target, out=target)
        px, py = x + flow[0] + whole.origin, y + flow[1] + whole.origin
        inside = (px >= 0) & (px <= size - 1) & (py >= 0) & (py <= size - 1)
        column = px.round().long().clamp_(0, size - 1)
        row = py.round().long().clamp_(0, size - 1)
        valid = inside & (labels[row, column] == front[1])
        if scene.bars:
            kept = (py >= scene.bars) & (py <= size - 1 - scene.bars)
            kept[: scene.bars] = False
            kept[size - scene.bars :] = False
            valid &= kept
        flows.append(flow)
        valids.append(valid)
    return flows, valids


def render_scene(scene: Scene, oversample: int = 2) -> dict[str, Tensor]:
    """x0, xm, x1 (3, H, W) in [0, 1]; flow0, flow1 (2, H, W) pixels; valid0, valid1 (1, H, W) bool."""
    size = scene.size
    if scene.noise is not None:
        nothing = torch.zeros(2, size, size)
        never = torch.zeros(1, size, size, dtype=torch.bool)
        x0, xm, x1 = scene.noise
        return {"x0": x0, "xm": xm, "x1": x1, "flow0": nothing, "flow1": nothing.clone(),
                "valid0": never, "valid1": never.clone()}  # fmt: skip
    frames, fronts = zip(*(_frame(scene, t, oversample) for t in TIMES), strict=True)
    flows, valids = _flows(scene, list(fronts))
    return {
        "x0": frames[0], "xm": frames[1], "x1": frames[2],
        "flow0": flows[0], "flow1": flows[1], "valid0": valids[0][None], "valid1": valids[1][None],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- chance


class SceneMaker:
    """Draws random scenes from a store. All chance comes from the generator given to `make`."""

    def __init__(self, store: TextureStore, size: int, config: RenderConfig) -> None:
        self.store = store
        self.size = size
        self.config = config
        self.unit = size / 256  # motion is stated for 256 pixels
        full = [name for name in ("photo", "texture", "graphic") if store.group(name)]
        if not full:
            raise ValueError("the store has no photographs or textures")
        self._opaque = full

    # -- small choices

    def _magnitude(self, rng: np.random.Generator) -> float:
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

    def _path(self, rng: np.random.Generator, pivot: np.ndarray, calm: float = 1.0) -> AffinePath:
        """A random affine path; `calm` < 1 makes rotation, zoom and shear smaller."""
        direction = rng.uniform(0, 2 * math.pi)
        if rng.random() < 0.35:  # mostly sideways, as cameras and walkers move
            direction = rng.choice([0.0, math.pi]) + rng.normal(0, 0.12)
        shift = self._magnitude(rng) * np.array([math.cos(direction), math.sin(direction)])
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

    def _field(self, rng: np.random.Generator, centre: np.ndarray, radius: float, scale: float) -> SmoothField:
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

    def _grade(self, rng: np.random.Generator, strength: float) -> Tensor | None:
        """A random colour matrix (3, 4): saturation, gains and brightness."""
        if rng.random() < 0.45:
            return None
        saturation = float(np.clip(rng.normal(1.0, 0.3 * strength), 0.0, 1.8))
        luma = np.array([0.299, 0.587, 0.114])
        matrix = saturation * np.eye(3) + (1 - saturation) * np.broadcast_to(luma, (3, 3))
        gains = np.exp(rng.normal(0, 0.07 * strength, (3, 1)) + rng.normal(0, 0.2 * strength))
        offset = rng.normal(0, 0.05 * strength, (3, 1))
        return torch.from_numpy(np.concatenate([gains * matrix, offset], 1)).to(torch.float32)

    # -- pictures

    def _opaque_index(self, rng: np.random.Generator) -> int:
        weights = np.array([{"photo": 0.62, "texture": 0.28, "graphic": 0.10}[name] for name in self._opaque])
        group = self._opaque[int(rng.choice(len(weights), p=weights / weights.sum()))]
        members = self.store.group(group)
        return members[int(rng.integers(len(members)))]

    def _window(self, index: int, level: int, place: Matrix, points: np.ndarray, padding: str) -> Picture:
        """Cuts the part of a level that material `points` reach; `place` is in texels of that level."""
        _, height, width = self.store.entries[index].levels[level]
        reached = _apply(place, points)
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

    def _cover(self, rng: np.random.Generator, points: np.ndarray, subsamples: int, closeup: float = 0.0) -> Picture:
        """A photograph laid over the material `points` (n, 2), at a random scale, turn and place."""
        index = self._opaque_index(rng)
        entry = self.store.entries[index]
        span = float((points.max(0) - points.min(0)).max())
        most = max(min(entry.width, entry.height) / max(span, 1.0), 0.75)
        scale = math.exp(rng.uniform(math.log(0.75), math.log(max(most, 0.76)))) if rng.random() < 0.7 else most
        scale = max(scale * (1 - closeup), 0.5)  # texels of the largest level per pixel
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
        return self._window(index, level, _affine(linear, middle, centre - middle), points, "reflection")

    def _fitted(self, index: int, centre: np.ndarray, extent: float, angle: float, flip: float,
                subsamples: int) -> tuple[Picture, np.ndarray]:  # fmt: skip
        """A whole sprite or mask, its longer side `extent` pixels; returns it and its corners (4, 2)."""
        entry = self.store.entries[index]
        scale = max(entry.width, entry.height) / extent
        level = min(level_for(scale / subsamples), len(entry.levels) - 1)
        _, height, width = entry.levels[level]
        scale *= height / entry.height
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        linear = np.array([[cos * flip, -sin * flip], [sin, cos]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        place = _affine(linear, centre, middle - centre)
        corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]], dtype=np.float64)
        corners = _apply(_invert(place), corners)
        texels = self.store.crop(index, level, 0, 0, height, width)
        return Picture(texels, place, "zeros"), corners

    # -- layers

    def _background(self, rng: np.random.Generator, camera: AffinePath, subsamples: int) -> Layer:
        half = self.size / 2
        motion = Motion([camera])
        length = float(np.hypot(*camera.shift))
        if rng.random() < self.config.nonrigid:
            motion.field = self._field(rng, np.zeros(2), half * rng.uniform(1.0, 1.3), max(length, 1.0))
        reach = 0.0 if motion.field is None else float(motion.field.control.abs().max()) * 0.6
        edge = np.linspace(-half - 1, half + 1, 5)
        frame = np.array([[x, y] for x in edge for y in edge])
        needed = np.concatenate([_apply(_invert(motion.matrix(t)), frame) for t in TIMES])
        needed = np.concatenate([needed - reach, needed + reach])
        picture = self._cover(rng, needed, subsamples)
        if rng.random() < self.config.defocus * 0.5:
            picture.texels = _gaussian_blur(picture.texels, float(rng.uniform(0.8, 4.0)))
        return Layer(motion, picture, grade=self._grade(rng, 0.6))

    def _colour(self, rng: np.random.Generator, corners: np.ndarray, subsamples: int) -> Picture | Tensor:
        if rng.random() < 0.1:
            return torch.from_numpy(rng.uniform(0, 1, 3)).to(torch.float32)
        return self._cover(rng, corners, subsamples)

    def _foreground(self, rng: np.random.Generator, parents: list[AffinePath], subsamples: int) -> Layer | None:
        """A layer on top, moving by a path of its own inside of its parents'."""
        half = self.size / 2
        kinds = {"sprite": 0.33, "mask": 0.52, "silhouette": 0.09, "text": 0.06}
        needs = {"sprite": "sprite", "mask": "mask", "silhouette": "sprite", "text": "text"}
        kinds = {kind: weight for kind, weight in kinds.items() if self.store.group(needs[kind])}
        if not kinds:
            return None
        weights = np.array(list(kinds.values()))
        kind = list(kinds)[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        members = self.store.group(needs[kind])
        index = members[int(rng.integers(len(members)))]
        entry = self.store.entries[index]
        extent = self.size * math.exp(rng.uniform(math.log(0.12), math.log(1.1)))
        if kind == "mask" and rng.random() < 0.12:  # fences, branches, rain before the whole view
            extent = self.size * rng.uniform(1.0, 1.7)
        if kind == "text":
            extent = self.size * rng.uniform(0.15, 1.0)
        extent = max(8.0, min(extent, 1.5 * max(entry.width, entry.height)))
        centre = rng.uniform(-half * 1.05, half * 1.05, 2)
        angle = rng.uniform(0, 2 * math.pi) if kind in ("mask", "silhouette") else rng.normal(0, 0.25)
        flip = 1.0 if kind == "text" else float(rng.choice([-1.0, 1.0]))
        shape, corners = self._fitted(index, centre, extent, angle, flip, subsamples)
        path = self._path(rng, centre + rng.normal(0, 0.2, 2) * extent)
        if rng.random() < 0.2:  # carried along with its parent, perhaps a little loose
            path.shift = path.shift * rng.choice([0.0, 0.1])
            path.turn, path.zoom, path.shear = path.turn * 0.2, path.zoom * 0.2, path.shear * 0.2
        motion = Motion([path, *parents])
        layer = Layer(motion, torch.zeros(3), shape, corners)
        if rng.random() < self.config.nonrigid:
            radius = max(float(np.abs(corners - centre).max()), 12.0)
            motion.field = self._field(rng, centre, radius, float(np.hypot(*path.shift)))
            layer.reach = float(motion.field.control.abs().max()) * 1.3
        if kind == "sprite":
            layer.colour, layer.shape = shape, None
        else:
            if kind == "silhouette":
                shape.texels = shape.texels[3:].contiguous()
            reach = layer.reach * 0.5
            around = np.concatenate([corners - reach, corners + reach])
            layer.colour = self._colour(rng, around, subsamples)
            if rng.random() < 0.04:
                layer.opacity = float(rng.uniform(0.3, 0.9))
        layer.grade = self._grade(rng, 1.0)
        if rng.random() < self.config.defocus * 0.3:
            sigma = float(rng.uniform(0.6, 3.0))
            if layer.shape is not None:
                layer.shape.texels = _gaussian_blur(layer.shape.texels, sigma)
            if isinstance(layer.colour, Picture):
                layer.colour.texels = _gaussian_blur(layer.colour.texels, sigma)
        return layer

    def _shadow(self, rng: np.random.Generator, camera: AffinePath, subsamples: int) -> Layer | None:
        members = self.store.group("mask")
        if not members:
            return None
        centre = rng.uniform(-0.5, 0.5, 2) * self.size
        index = members[int(rng.integers(len(members)))]
        shape, corners = self._fitted(index, centre, self.size * rng.uniform(0.3, 1.4), rng.uniform(0, 6.3), 1.0,
                                      subsamples)  # fmt: skip
        shape.texels = _gaussian_blur(shape.texels, float(rng.uniform(1.5, 8)))
        paths = [self._path(rng, centre), camera]
        dark = torch.zeros(3) if rng.random() < 0.8 else torch.ones(3)
        return Layer(Motion(paths), dark, shape, corners, opacity=float(rng.uniform(0.1, 0.45)))

    def make(self, rng: np.random.Generator) -> Scene:
        """A random scene."""
        config, size = self.config, self.size
        odd = rng.random()
        if odd < config.noise_cut + config.noise_scene:
            return self._noise(rng, cut=odd < config.noise_cut)
        blurred = rng.random() < config.motion_blur
        subsamples = 1 if blurred else config.oversample
        still = rng.random() < config.still
        pan = rng.random() < config.pan
        camera = self._path(rng, rng.uniform(-0.5, 0.5, 2) * size, calm=0.4)
        if rng.random() < 0.2:  # a tripod
            camera = AffinePath(np.zeros(2), np.zeros(2))
        scene = Scene([self._background(rng, camera, subsamples)], size)
        count = int(rng.choice(len(config.layers), p=np.array(config.layers) / sum(config.layers)))
        previous: list[AffinePath] = []
        for _ in range(count):
            parents = [camera]
            if previous and rng.random() < 0.25:  # part of the thing before it
                parents = [*previous, camera]
            layer = self._foreground(rng, parents, subsamples)
            if layer is not None:
                scene.layers.append(layer)
                previous = [layer.motion.paths[0]]
            if rng.random() < config.shadows / 2 and (shadow := self._shadow(rng, camera, subsamples)):
                scene.layers.append(shadow)
        if rng.random() < config.overlay and (overlay := self._foreground(rng, [], subsamples)):
            overlay.motion = Motion([AffinePath(np.zeros(2), np.zeros(2))])
            scene.layers.append(overlay)
        if still or pan:
            shared = AffinePath(np.zeros(2), np.zeros(2)) if still else camera
            for layer in scene.layers:
                layer.motion = Motion([shared])
        if rng.random() < config.defocus * 0.6:
            scene.softness = float(rng.uniform(0.35, 1.1))
        if rng.random() < config.drift:
            scene.gain = rng.normal(0, 0.1)
            scene.gamma = rng.normal(0, 0.08) * (rng.random() < 0.5)
            scene.lift = rng.normal(0, 0.03) * (rng.random() < 0.5)
        if rng.random() < config.letterbox:
            scene.bars = int(rng.uniform(0.04, 0.2) * size)
        if rng.random() < config.compression:
            scene.jpeg = int(rng.integers(40, 96))
        if blurred:
            scene.shutter = 0.5 * rng.uniform(0.15, 0.9)  # frames are half the whole distance apart
            fastest = max(self._speed(layer) for layer in scene.layers)
            scene.blur_samples = int(np.clip(math.ceil(fastest * scene.shutter / 1.5), 3, 11))
        return scene

    def _speed(self, layer: Layer) -> float:
        """Greatest distance a point of a layer goes from frame 0 to frame 1, about."""
        half = self.size / 2
        edge = np.array([[-half, -half], [half, -half], [-half, half], [half, half], [0.0, 0.0]])
        points = edge if layer.corners is None else np.clip(layer.corners, -half, half)
        moved = _apply(layer.motion.matrix(1.0), points) - _apply(layer.motion.matrix(0.0), points)
        bent = 0.0 if layer.motion.field is None else float(layer.motion.field.control.abs().max())
        return float(np.hypot(moved[:, 0], moved[:, 1]).max()) + bent

    def _noise(self, rng: np.random.Generator, cut: bool) -> Scene:
        """Frames of nothing but noise: still, moving by whole pixels, or a cut between two."""
        size = self.size

        def draw() -> np.ndarray:
            grain = int(rng.choice([1, 1, 2, 4]))
            small = rng.uniform(0, 1, (3, 2 * size // grain + 1, 2 * size // grain + 1))
            if rng.random() < 0.3:
                small = np.broadcast_to(small[:1], small.shape)
            return small.repeat(grain, 1).repeat(grain, 2)

        first = draw()
        dx, dy = (int(v) for v in rng.integers(-size // 16, size // 16 + 1, 2))
        if rng.random() < 0.3:
            dx = dy = 0
        base = size // 2

        def view(field: np.ndarray, k: int) -> np.ndarray:
            top, left = base + k * dy, base + k * dx
            return field[:, top : top + size, left : left + size]

        x0, xm, x1 = (view(first, k) for k in (-1, 0, 1))
        if cut:
            x1 = view(draw(), 1)
            xm = (x0 + x1) / 2
        noise = torch.from_numpy(np.stack([x0, xm, x1])).to(torch.float32)
        return Scene([], size, noise=noise)


def render_batch(
    store: TextureStore,
    batch: int,
    size: int,
    generator: torch.Generator | int,
    config: RenderConfig | None = None,
) -> dict[str, Tensor]:
    """Renders `batch` triplets of `size` x `size`.

    Returns x0, xm, x1: float32 (B, 3, H, W) in [0, 1]; flow0, flow1: float32 (B, 2, H, W), pixels (dx, dy) from
    the middle frame: xm(p) is x0(p + flow0(p)); valid0, valid1: bool (B, 1, H, W), the same point is seen there.
    The same generator state (or seed) gives the same batch.
    """
    if isinstance(generator, int):
        seed = generator
    else:
        seed = int(torch.randint(2**62, (1,), generator=generator))
    config = config or RenderConfig()
    maker = SceneMaker(store, size, config)
    samples = []
    for number in range(batch):
        scene = maker.make(np.random.default_rng([seed, number]))
        samples.append(render_scene(scene, config.oversample))
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


# ---------------------------------------------------------------------------------------------- shards


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


def _render_shard(job: tuple[str, str, int, int, int, int]) -> tuple[int, float]:
    """Renders one shard unless it is there; returns its number and the seconds it took."""
    store_folder, out, number, count, size, seed = job
    target = Path(out) / f"shard-{number:05d}"
    if target.with_suffix(".frames.npy").exists():
        return number, 0.0
    started = time.perf_counter()
    torch.set_num_threads(1)
    store = TextureStore.open(store_folder)
    frames = np.empty((count, 3, 3, size, size), np.uint8)
    flows = np.empty((count, 2, 2, size // 2, size // 2), np.float16)
    valids = np.empty((count, 2, size // 2, size // 2), np.uint8)
    maker = SceneMaker(store, size, RenderConfig())
    for i in range(count):
        sample = render_scene(maker.make(np.random.default_rng([seed, number, i])))
        for k, key in enumerate(("x0", "xm", "x1")):
            frames[i, k] = (sample[key] * 255.0).round().to(torch.uint8).numpy()
        for k in range(2):
            flow, valid = half_resolution(sample[f"flow{k}"], sample[f"valid{k}"])
            flows[i, k], valids[i, k] = flow.clamp(-1000, 1000).numpy(), valid[0].numpy()
    write_shard(target, frames, flows, valids)
    return number, time.perf_counter() - started


def prerender(
    store: Path, out: Path, count: int, size: int = 256, seed: int = 0, per_shard: int = 250, workers: int = 2
) -> None:
    """Writes shards until there are `count` triplets; shards already written with the same settings stay."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {"size": size, "seed": seed, "per_shard": per_shard}
    described = out / "shards.json"
    if described.exists() and json.loads(described.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{out} holds shards of other settings: {described.read_text(encoding='utf-8')}")
    described.write_text(json.dumps(settings), encoding="utf-8")
    numbers = range(math.ceil(count / per_shard))
    jobs = [(str(store), str(out), number, per_shard, size, seed) for number in numbers]
    done = 0
    with get_context("spawn").Pool(workers) as pool:
        for number, seconds in pool.imap_unordered(_render_shard, jobs):
            done += 1
            each = 1000 * seconds / per_shard
            log.info("shard %d, %.1f ms a triplet; %d of %d", number, each, done, len(jobs))


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
        axes = [axis for axis, flip in ((-1, mirror), (-2, upside)) if flip]
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training.render", description="Render training triplets to shards."
    )
    parser.add_argument("--store", type=Path, required=True, help="the store written by tlbvfi.training.sources")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    if args.size % 2 or args.size < 32:
        parser.error("--size must be even and at least 32")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    prerender(args.store, args.out, args.count, args.size, args.seed, workers=args.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())

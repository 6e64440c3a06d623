"""Random scenes: a background, layers before it and what happens to the finished frames."""

from __future__ import annotations

import math

import numpy as np
import torch

from .chance import MotionMaker, RenderConfig
from .layers import Layer, Picture, gaussian_blur
from .motion import TIMES, AffinePath, Motion, invert, transform
from .pictures import PictureMaker
from .scenes import Scene
from .store import TextureStore

#: Kinds of foreground layers: the group of the store whose pictures they have, and how often they are drawn.
KINDS = {"sprite": ("sprite", 0.33), "mask": ("mask", 0.52), "silhouette": ("sprite", 0.09), "text": ("text", 0.06)}


class SceneMaker:
    """Draws random scenes from a store. All chance comes from the generator given to `make`."""

    def __init__(self, store: TextureStore, size: int, config: RenderConfig) -> None:
        self.store = store
        self.size = size
        self.config = config
        self.motions = MotionMaker(size, config)
        self.pictures = PictureMaker(store)

    def make(self, rng: np.random.Generator) -> Scene:
        """A random scene."""
        config, size = self.config, self.size
        odd = rng.random()
        if odd < config.noise_cut + config.noise_scene:
            return noise_scene(rng, size, cut=odd < config.noise_cut)
        blurred = rng.random() < config.motion_blur
        subsamples = 1 if blurred else config.oversample
        still = rng.random() < config.still
        pan = rng.random() < config.pan
        camera = self.motions.path(rng, rng.uniform(-0.5, 0.5, 2) * size, calm=0.4)
        if rng.random() < 0.2:  # a tripod
            camera = _at_rest()
        layers = self._layers(rng, camera, subsamples)
        if still or pan:
            shared = _at_rest() if still else camera
            for layer in layers:
                layer.motion = Motion([shared])
        scene = Scene(layers, size)
        self._finish(rng, scene)
        if blurred:
            scene.shutter = 0.5 * rng.uniform(0.15, 0.9)  # frames are half the whole distance apart
            fastest = max(self._speed(layer) for layer in layers)
            scene.blur_samples = int(np.clip(math.ceil(fastest * scene.shutter / 1.5), 3, 11))
        return scene

    def _layers(self, rng: np.random.Generator, camera: AffinePath, subsamples: int) -> list[Layer]:
        """A background, and what is before it: layers, each perhaps a part of the one before, shadows, an overlay."""
        config = self.config
        layers = [self._background(rng, camera, subsamples)]
        count = int(rng.choice(len(config.layers), p=np.array(config.layers) / sum(config.layers)))
        previous: list[AffinePath] = []
        for _ in range(count):
            parents = [camera]
            if previous and rng.random() < 0.25:
                parents = [*previous, camera]
            layer = self._foreground(rng, parents, subsamples)
            if layer is not None:
                layers.append(layer)
                previous = [layer.motion.paths[0]]
            if rng.random() < config.shadows / 2 and (shadow := self._shadow(rng, camera, subsamples)):
                layers.append(shadow)
        if rng.random() < config.overlay and (overlay := self._foreground(rng, [], subsamples)):
            overlay.motion = Motion([_at_rest()])
            layers.append(overlay)
        return layers

    def _finish(self, rng: np.random.Generator, scene: Scene) -> None:
        """Draws what happens to the finished frames."""
        config = self.config
        if rng.random() < config.defocus * 0.6:
            scene.softness = float(rng.uniform(0.35, 1.1))
        if rng.random() < config.drift:
            scene.gain = rng.normal(0, 0.1)
            scene.gamma = rng.normal(0, 0.08) * (rng.random() < 0.5)
            scene.lift = rng.normal(0, 0.03) * (rng.random() < 0.5)
        if rng.random() < config.letterbox:
            scene.bars = int(rng.uniform(0.04, 0.2) * scene.size)
        if rng.random() < config.compression:
            scene.jpeg = int(rng.integers(40, 96))

    def _background(self, rng: np.random.Generator, camera: AffinePath, subsamples: int) -> Layer:
        """A photograph that covers the frame at all times."""
        half = self.size / 2
        motion = Motion([camera])
        length = float(np.hypot(*camera.shift))
        if rng.random() < self.config.nonrigid:
            motion.field = self.motions.field(rng, np.zeros(2), half * rng.uniform(1.0, 1.3), max(length, 1.0))
        reach = 0.0 if motion.field is None else float(motion.field.control.abs().max()) * 0.6
        edge = np.linspace(-half - 1, half + 1, 5)
        frame = np.array([[x, y] for x in edge for y in edge])
        needed = np.concatenate([transform(invert(motion.matrix(t)), frame) for t in TIMES])
        needed = np.concatenate([needed - reach, needed + reach])
        picture = self.pictures.cover(rng, needed, subsamples)
        if rng.random() < self.config.defocus * 0.5:
            picture.texels = gaussian_blur(picture.texels, float(rng.uniform(0.8, 4.0)))
        return Layer(motion, picture, grade=self.pictures.grade(rng, 0.6))

    def _foreground(self, rng: np.random.Generator, parents: list[AffinePath], subsamples: int) -> Layer | None:
        """A layer on top, moving by a path of its own inside of its parents'."""
        half = self.size / 2
        kinds = [kind for kind, (group, _) in KINDS.items() if self.store.group(group)]
        if not kinds:
            return None
        weights = np.array([KINDS[kind][1] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        members = self.store.group(KINDS[kind][0])
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
        shape, corners = self.pictures.whole(index, centre, extent, angle, flip, subsamples)
        path = self.motions.path(rng, centre + rng.normal(0, 0.2, 2) * extent)
        if rng.random() < 0.2:  # carried along with its parent, perhaps a little loose
            path.shift = path.shift * rng.choice([0.0, 0.1])
            path.turn, path.zoom, path.shear = path.turn * 0.2, path.zoom * 0.2, path.shear * 0.2
        motion = Motion([path, *parents])
        layer = Layer(motion, torch.zeros(3), shape, corners)
        if rng.random() < self.config.nonrigid:
            radius = max(float(np.abs(corners - centre).max()), 12.0)
            motion.field = self.motions.field(rng, centre, radius, float(np.hypot(*path.shift)))
            layer.reach = float(motion.field.control.abs().max()) * 1.3
        if kind == "sprite":
            layer.colour, layer.shape = shape, None
        else:
            if kind == "silhouette":
                shape.texels = shape.texels[3:].contiguous()
            reach = layer.reach * 0.5
            around = np.concatenate([corners - reach, corners + reach])
            layer.colour = self.pictures.colour(rng, around, subsamples)
            if rng.random() < 0.04:
                layer.opacity = float(rng.uniform(0.3, 0.9))
        layer.grade = self.pictures.grade(rng, 1.0)
        if rng.random() < self.config.defocus * 0.3:
            sigma = float(rng.uniform(0.6, 3.0))
            if layer.shape is not None:
                layer.shape.texels = gaussian_blur(layer.shape.texels, sigma)
            if isinstance(layer.colour, Picture):
                layer.colour.texels = gaussian_blur(layer.colour.texels, sigma)
        return layer

    def _shadow(self, rng: np.random.Generator, camera: AffinePath, subsamples: int) -> Layer | None:
        """A soft dark, or bright, mask that lets through what is behind it."""
        members = self.store.group("mask")
        if not members:
            return None
        centre = rng.uniform(-0.5, 0.5, 2) * self.size
        index = members[int(rng.integers(len(members)))]
        extent, angle = self.size * rng.uniform(0.3, 1.4), rng.uniform(0, 6.3)
        shape, corners = self.pictures.whole(index, centre, extent, angle, 1.0, subsamples)
        shape.texels = gaussian_blur(shape.texels, float(rng.uniform(1.5, 8)))
        paths = [self.motions.path(rng, centre), camera]
        dark = torch.zeros(3) if rng.random() < 0.8 else torch.ones(3)
        return Layer(Motion(paths), dark, shape, corners, opacity=float(rng.uniform(0.1, 0.45)))

    def _speed(self, layer: Layer) -> float:
        """Greatest distance a point of a layer goes from frame 0 to frame 1, about."""
        half = self.size / 2
        edge = np.array([[-half, -half], [half, -half], [-half, half], [half, half], [0.0, 0.0]])
        points = edge if layer.corners is None else np.clip(layer.corners, -half, half)
        moved = transform(layer.motion.matrix(1.0), points) - transform(layer.motion.matrix(0.0), points)
        bent = 0.0 if layer.motion.field is None else float(layer.motion.field.control.abs().max())
        return float(np.hypot(moved[:, 0], moved[:, 1]).max()) + bent


def _at_rest() -> AffinePath:
    return AffinePath(np.zeros(2), np.zeros(2))


def noise_scene(rng: np.random.Generator, size: int, cut: bool) -> Scene:
    """Frames of nothing but noise: still, moving by whole pixels, or a cut between two."""

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

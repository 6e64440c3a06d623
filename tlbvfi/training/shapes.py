"""Procedural alpha masks: blobs, polygons, strokes, hair, grids, dots. Drawn antialiased, seeded."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLE = 3
SHAPES = (
    "blob", "blob", "blob", "lobes", "polygon", "superellipse", "limbs", "limbs",
    "cloud", "strokes", "hair", "bars", "grid", "ring", "dots", "branch",
)  # fmt: skip


def _canvas(size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    side = size * OVERSAMPLE
    image = Image.new("L", (side, side), 0)
    return image, ImageDraw.Draw(image), side


def _radial(rng: np.random.Generator, side: int, harmonics: int, roughness: float) -> list[tuple[float, float]]:
    """A closed smooth curve around the centre, r(angle) a random Fourier series."""
    angle = np.linspace(0, 2 * math.pi, 240, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(1, harmonics + 1):
        amplitude = roughness * rng.normal() / k
        radius += amplitude * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
    radius = np.clip(radius, 0.15, None)
    radius *= 0.46 * side / radius.max()
    squeeze = rng.uniform(0.45, 1.0)
    x = side / 2 + radius * np.cos(angle)
    y = side / 2 + radius * np.sin(angle) * squeeze
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _spline(rng: np.random.Generator, side: int, points: int) -> np.ndarray:
    """A smooth random curve through the square: (n, 2)."""
    knots = rng.uniform(0.04, 0.96, (points, 2)) * side
    t = np.linspace(0, points - 1, 40 * points)
    i = np.clip(t.astype(int), 0, points - 2)
    f = (t - i)[:, None]
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    return 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3)


def _line(draw: ImageDraw.ImageDraw, curve: np.ndarray, width: float, taper: float = 0.0) -> None:
    count = len(curve)
    for i in range(count - 1):
        w = max(1.0, width * (1 - taper * i / count))
        draw.line([tuple(curve[i]), tuple(curve[i + 1])], fill=255, width=round(w))
        if w > 4:
            x, y = curve[i]
            draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=255)


def draw_mask(rng: np.random.Generator, size: int = 320) -> np.ndarray:
    """A random mask, (size, size, 1) uint8, the shape filling most of the square."""
    kind = SHAPES[int(rng.integers(len(SHAPES)))]
    image, draw, side = _canvas(size)
    unit = side / 320
    if kind == "blob":
        draw.polygon(_radial(rng, side, int(rng.integers(2, 6)), rng.uniform(0.05, 0.35)), fill=255)
    elif kind == "lobes":
        draw.polygon(_radial(rng, side, int(rng.integers(6, 16)), rng.uniform(0.3, 0.9)), fill=255)
    elif kind == "polygon":
        corners = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        radius = rng.uniform(0.25, 0.48, corners) * side
        points = np.stack([side / 2 + radius * np.cos(angles), side / 2 + radius * np.sin(angles)], 1)
        draw.polygon([tuple(p) for p in points], fill=255)
    elif kind == "superellipse":
        angle = np.linspace(0, 2 * math.pi, 300, endpoint=False)
        power = 2 / rng.uniform(1.5, 8)
        a, b = 0.47 * side, 0.47 * side * rng.uniform(0.15, 1)
        x = side / 2 + a * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
        y = side / 2 + b * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
        draw.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255)
    elif kind == "limbs":
        for _ in range(int(rng.integers(2, 6))):
            _line(draw, _spline(rng, side, int(rng.integers(2, 5))), rng.uniform(8, 60) * unit, rng.uniform(0, 0.8))
    elif kind == "cloud":
        small = rng.normal(size=(int(rng.integers(4, 14)),) * 2)
        field = np.asarray(Image.fromarray(small.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        yy, xx = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        inside = field - 1.6 * (xx**2 + yy**2) + rng.uniform(0.2, 1.0)
        image = Image.fromarray((inside > 0).astype(np.uint8) * 255)
    elif kind == "strokes":
        for _ in range(int(rng.integers(1, 8))):
            _line(draw, _spline(rng, side, int(rng.integers(2, 6))), rng.uniform(1.5, 8) * unit, rng.uniform(0, 0.5))
    elif kind == "hair":
        base = _spline(rng, side, int(rng.integers(2, 4)))
        for _ in range(int(rng.integers(8, 50))):
            bend = np.linspace(0, 1, len(base))[:, None] * rng.normal(0, 0.12, 2) * side
            shift = rng.normal(0, 0.06, 2) * side
            _line(draw, base + bend + shift, rng.uniform(0.7, 2.5) * unit, 0.5)
    elif kind in ("bars", "grid"):
        step, width = rng.uniform(10, 60) * unit, rng.uniform(1.0, 9) * unit
        for axis in range(1 if kind == "bars" else 2):
            for x in np.arange(step / 2, side, step):
                w = max(1, round(width))
                draw.line([(x, 0), (x, side)] if axis == 0 else [(0, x), (side, x)], fill=255, width=w)
    elif kind == "ring":
        points = np.array(_radial(rng, side, 4, 0.15))
        draw.polygon([tuple(p) for p in points], fill=255)
        inner = side / 2 + (points - side / 2) * rng.uniform(0.4, 0.92)
        draw.polygon([tuple(p) for p in inner], fill=0)
    elif kind == "dots":
        for _ in range(int(rng.integers(5, 90))):
            x, y = rng.uniform(0.03, 0.97, 2) * side
            r = rng.uniform(1, 7) * unit * rng.choice([1, 1, 2])
            draw.ellipse([x - r, y - r * rng.uniform(0.4, 1), x + r, y + r], fill=255)
    elif kind == "branch":
        trunk = np.array([side / 2, 0.97 * side])
        stack = [(trunk, -math.pi / 2 + rng.normal(0, 0.2), 0.26 * side, rng.uniform(5, 14) * unit)]
        while stack:
            start, angle, length, width = stack.pop()
            end = start + length * np.array([math.cos(angle), math.sin(angle)])
            draw.line([tuple(start), tuple(end)], fill=255, width=max(1, round(width)))
            if width > 0.8 * unit and length > 0.03 * side:
                for turn in rng.normal(0, 0.5, int(rng.integers(2, 4))):
                    stack.append((end, angle + turn, length * rng.uniform(0.55, 0.85), width * 0.62))
    mask = np.asarray(image.resize((size, size), Image.Resampling.BOX))
    if kind in ("blob", "lobes", "cloud", "superellipse") and rng.random() < 0.15:
        soft = Image.fromarray(mask).filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 10))))
        mask = np.asarray(soft)
    return np.ascontiguousarray(mask)[..., None]

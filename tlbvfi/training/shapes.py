"""Procedural alpha masks: blobs, polygons, strokes, hair, grids, dots. Drawn antialiased, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLE = 3


class Canvas:
    """A square to draw on.

    Attributes:
        side: pixels of a side.
        unit: pixels of a length of 1 / 320 of the side, in which widths are given.
    """

    def __init__(self, side: int) -> None:
        self.side, self.unit = side, side / 320
        self.image = Image.new("L", (side, side), 0)
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[tuple[float, float]] | np.ndarray, fill: int = 255) -> None:
        self.draw.polygon([(float(x), float(y)) for x, y in points], fill=fill)

    def segment(self, start: np.ndarray, end: np.ndarray, width: int) -> None:
        self.draw.line([tuple(start), tuple(end)], fill=255, width=width)

    def line(self, curve: np.ndarray, width: float, taper: float = 0.0) -> None:
        """A curve (n, 2) with round joints, thinner towards its end by the share `taper`."""
        count = len(curve)
        for i in range(count - 1):
            w = max(1.0, width * (1 - taper * i / count))
            self.segment(curve[i], curve[i + 1], round(w))
            if w > 4:
                x, y = curve[i]
                self.draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=255)


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


def _blob(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.polygon(_radial(rng, canvas.side, int(rng.integers(2, 6)), rng.uniform(0.05, 0.35)))


def _lobes(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.polygon(_radial(rng, canvas.side, int(rng.integers(6, 16)), rng.uniform(0.3, 0.9)))


def _polygon(canvas: Canvas, rng: np.random.Generator) -> None:
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
    radius = rng.uniform(0.25, 0.48, corners) * canvas.side
    middle = canvas.side / 2
    canvas.polygon(np.stack([middle + radius * np.cos(angles), middle + radius * np.sin(angles)], 1))


def _superellipse(canvas: Canvas, rng: np.random.Generator) -> None:
    side = canvas.side
    angle = np.linspace(0, 2 * math.pi, 300, endpoint=False)
    power = 2 / rng.uniform(1.5, 8)
    a, b = 0.47 * side, 0.47 * side * rng.uniform(0.15, 1)
    x = side / 2 + a * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = side / 2 + b * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    canvas.polygon(list(zip(x.tolist(), y.tolist(), strict=True)))


def _limbs(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 6))):
        curve = _spline(rng, canvas.side, int(rng.integers(2, 5)))
        canvas.line(curve, rng.uniform(8, 60) * canvas.unit, rng.uniform(0, 0.8))


def _cloud(canvas: Canvas, rng: np.random.Generator) -> None:
    side = canvas.side
    small = rng.normal(size=(int(rng.integers(4, 14)),) * 2)
    field = np.asarray(Image.fromarray(small.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    yy, xx = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside = field - 1.6 * (xx**2 + yy**2) + rng.uniform(0.2, 1.0)
    canvas.image.paste(Image.fromarray((inside > 0).astype(np.uint8) * 255))


def _strokes(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 8))):
        curve = _spline(rng, canvas.side, int(rng.integers(2, 6)))
        canvas.line(curve, rng.uniform(1.5, 8) * canvas.unit, rng.uniform(0, 0.5))


def _hair(canvas: Canvas, rng: np.random.Generator) -> None:
    base = _spline(rng, canvas.side, int(rng.integers(2, 4)))
    for _ in range(int(rng.integers(8, 50))):
        bend = np.linspace(0, 1, len(base))[:, None] * rng.normal(0, 0.12, 2) * canvas.side
        shift = rng.normal(0, 0.06, 2) * canvas.side
        canvas.line(base + bend + shift, rng.uniform(0.7, 2.5) * canvas.unit, 0.5)


def _bars(canvas: Canvas, rng: np.random.Generator, axes: int = 1) -> None:
    step, width = rng.uniform(10, 60) * canvas.unit, rng.uniform(1.0, 9) * canvas.unit
    for axis in range(axes):
        for place in np.arange(step / 2, canvas.side, step):
            start, end = (np.roll(point, axis) for point in ([place, 0], [place, canvas.side]))
            canvas.segment(start, end, max(1, round(width)))


def _grid(canvas: Canvas, rng: np.random.Generator) -> None:
    _bars(canvas, rng, axes=2)


def _ring(canvas: Canvas, rng: np.random.Generator) -> None:
    points, middle = np.array(_radial(rng, canvas.side, 4, 0.15)), canvas.side / 2
    canvas.polygon(points)
    canvas.polygon(middle + (points - middle) * rng.uniform(0.4, 0.92), fill=0)


def _dots(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(5, 90))):
        x, y = rng.uniform(0.03, 0.97, 2) * canvas.side
        r = rng.uniform(1, 7) * canvas.unit * rng.choice([1, 1, 2])
        canvas.draw.ellipse([x - r, y - r * rng.uniform(0.4, 1), x + r, y + r], fill=255)


def _branch(canvas: Canvas, rng: np.random.Generator) -> None:
    side, unit = canvas.side, canvas.unit
    trunk = np.array([side / 2, 0.97 * side])
    stack = [(trunk, -math.pi / 2 + rng.normal(0, 0.2), 0.26 * side, rng.uniform(5, 14) * unit)]
    while stack:
        start, angle, length, width = stack.pop()
        end = start + length * np.array([math.cos(angle), math.sin(angle)])
        canvas.segment(start, end, max(1, round(width)))
        if width > 0.8 * unit and length > 0.03 * side:
            for turn in rng.normal(0, 0.5, int(rng.integers(2, 4))):
                stack.append((end, angle + turn, length * rng.uniform(0.55, 0.85), width * 0.62))


#: What masks are drawn, each as often as it stands here.
SHAPES: tuple[Callable[[Canvas, np.random.Generator], None], ...] = (
    _blob, _blob, _blob, _lobes, _polygon, _superellipse, _limbs, _limbs,
    _cloud, _strokes, _hair, _bars, _grid, _ring, _dots, _branch,
)  # fmt: skip
#: Those that have a soft edge now and then.
SOFT = (_blob, _lobes, _cloud, _superellipse)


def draw_mask(rng: np.random.Generator, size: int = 320) -> np.ndarray:
    """A random mask, (size, size, 1) uint8, the shape filling most of the square."""
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    canvas = Canvas(size * OVERSAMPLE)
    shape(canvas, rng)
    mask = canvas.image.resize((size, size), Image.Resampling.BOX)
    if shape in SOFT and rng.random() < 0.15:
        mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 10))))
    return np.array(mask)[..., None]

"""A plot of a schedule, drawn with Pillow, which ComfyUI has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_WIDTH, _HEIGHT = 960, 720
#: Drawn so many times as large, and shrunk: lines have smooth edges.
_FINER = 2
_TEXT, _TITLE = 19, 26
# The picture has a ground of its own, so that it is the same on dark and on light desks.
_GROUND, _FRAME, _GRID, _INK = (28, 30, 34), (150, 154, 160), (62, 66, 72), (236, 237, 239)
_STEPS, _MEAN, _VARIANCE = (86, 180, 233), (230, 159, 0), (64, 200, 150)
_MARGIN = 84, 46, 30, 56  # of a panel, for its labels: left, above, right, below

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class _Panel:
    """One plot: a curve, points on it, what its axes mean and how far they go.

    Attributes:
        box: left, top, right and bottom of all of it, in pixels.
        low, high: the values where the axes begin, x and y, and where they end.
    """

    title: str
    x_title: str
    box: tuple[int, int, int, int]
    low: Point
    high: Point
    ticks: tuple[Sequence[float], Sequence[float]]
    colour: Colour
    curve: Sequence[Point]
    points: Sequence[Point]

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """Where the curve is."""
        return (
            self.box[0] + _MARGIN[0], self.box[1] + _MARGIN[1], self.box[2] - _MARGIN[2], self.box[3] - _MARGIN[3],
        )  # fmt: skip

    def place(self, point: Point) -> Point:
        """Of a value, in pixels."""
        left, top, right, bottom = self.inner
        across, up = ((v - low) / (high - low) for v, low, high in zip(point, self.low, self.high, strict=True))
        return left + across * (right - left), bottom - up * (bottom - top)


def plot(steps: Sequence[int], m: Sequence[float], variance: Sequence[float]) -> Tensor:
    """Timesteps by step, and m_t and variance by timestep with the visited ones marked: (H, W, 3) float32 in [0, 1].

    Args:
        steps: the timesteps, falling.
        m, variance: of every timestep.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH * _FINER, _HEIGHT * _FINER), _GROUND)
    pen = _Pen(ImageDraw.Draw(image))
    count = len(steps)
    pen.text((_WIDTH / 2, 26), f"Schedule of {count} step{'s' * (count > 1)}", "mm", _TITLE, bold=True)
    pen.text((_WIDTH / 2, 58), _told(steps, pen, _WIDTH - 60), "mm", _TEXT)
    for panel in _panels(steps, m, variance):
        pen.panel(panel)
    small = image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(_HEIGHT, _WIDTH, 3) / 255


def _panels(steps: Sequence[int], m: Sequence[float], variance: Sequence[float]) -> list[_Panel]:
    count, top, middle = len(steps), len(m) - 1, 390
    numbers = [(float(number), float(t)) for number, t in enumerate(steps, 1)]
    times = [top * k / 4 for k in range(5)]
    highest = max(0.5, *variance)
    return [
        _Panel(
            "timestep t", "step", (0, 76, _WIDTH, middle), (1.0, 0.0), (max(count, 2), top),
            (_whole_ticks(count), times), _STEPS, numbers, numbers,
        ),
        _Panel(
            "m_t: share of the start", "timestep t", (0, middle, _WIDTH // 2, _HEIGHT), (0.0, 0.0), (top, 1.0),
            (times, [0, 0.25, 0.5, 0.75, 1]), _MEAN, [*enumerate(m)], [(t, m[t]) for t in steps],
        ),
        _Panel(
            "variance of the noise", "timestep t", (_WIDTH // 2, middle, _WIDTH, _HEIGHT), (0.0, 0.0), (top, highest),
            (times, [highest * k / 4 for k in range(5)]), _VARIANCE, [*enumerate(variance)],
            [(t, variance[t]) for t in steps],
        ),
    ]  # fmt: skip


def _whole_ticks(count: int) -> list[float]:
    """Up to eleven numbers of steps, the first and the last among them."""
    gaps = max(1, min(count - 1, 10))
    return sorted({round(1 + (count - 1) * k / gaps) for k in range(gaps + 1)})


def _told(steps: Sequence[int], pen: _Pen, width: float) -> str:
    """The timesteps as text of that width: all, or the first and the last ones."""
    shown = ", ".join(map(str, steps))
    for kept in range(min(len(steps), 40) // 2, 1, -1):
        if pen.width(shown, _TEXT) <= width:
            break
        shown = ", ".join([*map(str, steps[:kept]), "...", *map(str, steps[-kept:])])
    return shown


class _Pen:
    """Draws in pixels of the result on a picture that is :data:`_FINER` times as large."""

    def __init__(self, draw: ImageDraw) -> None:
        self._draw = draw

    def width(self, text: str, size: int) -> float:
        return self._draw.textlength(text, font=_font(size)) / _FINER

    def text(self, place: Point, text: str, anchor: str, size: int, colour: Colour = _INK, bold: bool = False) -> None:
        self._draw.text(
            _finer(place),
            text,
            fill=colour,
            font=_font(size),
            anchor=anchor,
            stroke_width=int(bold),
            stroke_fill=colour,
        )

    def line(self, points: Sequence[Point], colour: Colour, width: int) -> None:
        self._draw.line([_finer(point) for point in points], fill=colour, width=width * _FINER, joint="curve")

    def dot(self, place: Point, radius: float, colour: Colour) -> None:
        x, y = _finer(place)
        size = radius * _FINER
        self._draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)

    def panel(self, panel: _Panel) -> None:
        left, top, right, bottom = panel.inner
        across, up = panel.ticks
        for value in across:
            x, _ = panel.place((value, panel.low[1]))
            self.line([(x, top), (x, bottom)], _GRID, 1)
            self.text((x, bottom + 6), f"{value:.0f}", "ma", _TEXT)
        for value in up:
            _, y = panel.place((panel.low[0], value))
            self.line([(left, y), (right, y)], _GRID, 1)
            self.text((left - 9, y), f"{value:.0f}" if panel.high[1] > 10 else f"{value:.3g}", "rm", _TEXT)
        self.line([(left, top), (left, bottom), (right, bottom)], _FRAME, 1)
        self.text((left, top - 12), panel.title, "ls", _TEXT, panel.colour, bold=True)
        self.text((right, bottom + 28), panel.x_title, "ra", _TEXT)
        self.line([panel.place(point) for point in panel.curve], tuple(c * 2 // 3 for c in panel.colour), 2)  # type: ignore[arg-type]
        radius = 5 if len(panel.points) <= 60 else 3
        for point in panel.points:
            self.dot(panel.place(point), radius, panel.colour)


def _finer(place: Point) -> Point:
    return place[0] * _FINER, place[1] * _FINER


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size * _FINER)

"""The icon and the banner of the registry's page, drawn: `python -m tests.release.pictures` writes them into docs/.

Two frames of a ball that flies, and the new one between them.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

from .archive import ROOT

_GROUND, _FRAME, _BALL, _NEW = "#1b1e2b", "#5b6178", "#e8eaf2", "#ffb347"
#: Everything is drawn so many times as large, and made smaller, for smooth edges.
_FINE = 4


def draw(width: int, height: int, side: float) -> Image.Image:
    """Three square frames of a side, one over the other, in the middle."""
    picture = Image.new("RGB", (width * _FINE, height * _FINE), _GROUND)
    pen, side = ImageDraw.Draw(picture), side * _FINE
    step = side * 0.52
    for place in (-1, 1, 0):  # the new one lies on top
        centre = picture.width / 2 + place * step, picture.height / 2 + place * step * 0.28
        _frame(pen, centre, side * (0.86 if place else 1), _NEW if place == 0 else _FRAME)
        ball = centre[0] + place * side * 0.16, centre[1] + place * side * 0.1
        _ball(pen, ball, side * 0.15, _NEW if place == 0 else _BALL)
    return picture.resize((width, height), Image.Resampling.LANCZOS).quantize(64)


def _frame(pen: ImageDraw.ImageDraw, centre: tuple[float, float], side: float, colour: str) -> None:
    box = [middle + sign * side / 2 for sign in (-1, 1) for middle in centre]
    pen.rounded_rectangle(box, radius=side * 0.09, fill=_GROUND, outline=colour, width=round(side * 0.035))


def _ball(pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: str) -> None:
    pen.ellipse([middle + sign * radius for sign in (-1, 1) for middle in centre], fill=colour)


if __name__ == "__main__":
    draw(400, 400, 176).save(ROOT / "docs" / "icon.png", optimize=True)
    draw(1260, 540, 320).save(ROOT / "docs" / "banner.png", optimize=True)

"""Pictures that lie on a video without being part of it: captions, logos, boxes of an interface, bars of news."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..lettering import WORDS
from .parcel import CANVAS

HEIGHT, WIDTH = CANVAS
Colour = tuple[int, int, int, int]


class OverlayMaker:
    """Draws overlays: (HEIGHT, WIDTH, 4) uint8, premultiplied."""

    def __init__(self, fonts: Sequence[Path], logos: Sequence[np.ndarray], rng: np.random.Generator) -> None:
        """Take fonts and logos, the latter (h, w, 4) uint8 with premultiplied colour."""
        self.fonts, self.logos, self.rng = fonts, logos, rng

    def drawn(self, count: int) -> Iterator[np.ndarray]:
        kinds = (self._caption, self._caption, self._logo, self._box, self._ticker, self._table)
        for _ in range(count):
            self.image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
            self.pen = ImageDraw.Draw(self.image)
            kinds[int(self.rng.integers(len(kinds)))]()
            straight = np.asarray(self.image).astype(np.uint16)
            colour = (straight[..., :3] * straight[..., 3:] + 127) // 255
            yield np.concatenate([colour, straight[..., 3:]], axis=-1).astype(np.uint8)

    def _font(self, low: int, high: int) -> ImageFont.FreeTypeFont:
        size = round(float(np.exp(self.rng.uniform(np.log(low), np.log(high)))))
        return ImageFont.truetype(str(self.fonts[int(self.rng.integers(len(self.fonts)))]), size)

    def _words(self, low: int, high: int) -> str:
        if self.rng.random() < 0.15:
            return f"{self.rng.integers(60):02d}:{self.rng.integers(60):02d}:{self.rng.integers(60):02d}"
        text = " ".join(self.rng.choice(WORDS.split(), int(self.rng.integers(low, high + 1))))
        return text.upper() if self.rng.random() < 0.2 else text

    def _colour(self) -> Colour:
        draw = self.rng.random()
        if draw < 0.5:
            return (255, 255, 255, 255)
        if draw < 0.6:
            return (12, 12, 12, 255)
        if draw < 0.7:
            return (250, 220, 40, 255)
        red, green, blue = (int(x) for x in self.rng.integers(0, 256, 3))
        return (red, green, blue, 255)

    def _faint(self, colour: Colour) -> Colour:
        return (*colour[:3], int(self.rng.integers(110, 256)))

    def _text(self, x: float, y: float, text: str, font: ImageFont.FreeTypeFont, colour: Colour) -> None:
        """With an outline, a shadow or nothing."""
        draw = self.rng.random()
        dark = (0, 0, 0, 255) if sum(colour[:3]) > 300 else (255, 255, 255, 255)
        if draw < 0.4:
            width = int(self.rng.integers(1, 3))
            self.pen.multiline_text((x, y), text, font=font, fill=colour, stroke_width=width, stroke_fill=dark)
            return
        if draw < 0.6:
            self.pen.multiline_text((x + 1, y + 1), text, font=font, fill=dark)
        self.pen.multiline_text((x, y), text, font=font, fill=colour)

    def _caption(self) -> None:
        lines = int(self.rng.choice([1, 1, 2]))
        font = self._font(9, 40 if lines == 1 else 26)
        text = "\n".join(self._words(1, 5) for _ in range(lines))
        if self.rng.random() < 0.3:
            box = self.pen.multiline_textbbox((5, 5), text, font=font)
            self.pen.rectangle((0, 0, box[2] + 5, box[3] + 5), fill=self._faint(self._colour()))
        self._text(5, 5, text, font, self._colour())

    def _logo(self) -> None:
        logo = self.logos[int(self.rng.integers(len(self.logos)))]
        side = int(self.rng.integers(20, 110))
        scale = side / max(logo.shape[:2])
        size = (max(6, round(logo.shape[1] * scale)), max(6, round(logo.shape[0] * scale)))
        alpha = np.maximum(logo[..., 3:].astype(np.float32), 1.0)
        straight = np.concatenate([np.minimum(logo[..., :3] * 255.0 / alpha, 255.0), logo[..., 3:]], axis=-1)
        small = Image.fromarray(straight.astype(np.uint8), "RGBA").resize(size, Image.Resampling.LANCZOS)
        self.image.alpha_composite(small, (2, 2))
        if self.rng.random() < 0.4:
            self._text(size[0] + 6, size[1] / 3, self._words(1, 2), self._font(10, 30), self._colour())

    def _box(self) -> None:
        """A panel with a title, buttons or a bar, as games and players have."""
        width, height = int(self.rng.integers(40, 220)), int(self.rng.integers(18, 120))
        corner = int(self.rng.integers(0, 9))
        outline = self._colour() if self.rng.random() < 0.6 else None
        self.pen.rounded_rectangle((1, 1, width, height), corner, fill=self._faint(self._colour()), outline=outline)
        y = 4
        while y < height - 12:
            if self.rng.random() < 0.6:
                self._text(6, y, self._words(1, 2), self._font(8, 15), self._colour())
            else:
                share = self.rng.uniform(0.1, 1.0)
                self.pen.rectangle((6, y + 3, width - 6, y + 10), outline=self._colour())
                self.pen.rectangle((6, y + 3, 6 + share * (width - 12), y + 10), fill=self._colour())
            y += int(self.rng.integers(13, 22))

    def _ticker(self) -> None:
        height = int(self.rng.integers(14, 36))
        if self.rng.random() < 0.6:
            self.pen.rectangle((0, 0, WIDTH, height), fill=self._faint(self._colour()))
        self._text(0, 1, self._words(12, 20), self._font(max(8, height // 2), height - 4), self._colour())

    def _table(self) -> None:
        """Thin lines and small print."""
        columns, rows = int(self.rng.integers(2, 7)), int(self.rng.integers(2, 6))
        dx, dy = int(self.rng.integers(14, 50)), int(self.rng.integers(12, 20))
        colour, font = self._colour(), self._font(7, 12)
        for i in range(columns + 1):
            self.pen.line((1 + i * dx, 1, 1 + i * dx, 1 + rows * dy), fill=colour)
        for j in range(rows + 1):
            self.pen.line((1, 1 + j * dy, 1 + columns * dx, 1 + j * dy), fill=colour)
        for i in range(columns):
            for j in range(rows):
                self.pen.text((3 + i * dx, 2 + j * dy), str(self.rng.integers(100)), font=font, fill=colour)

"""Words, paragraphs and emoji drawn from fonts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .picture_files import SPRITE_SIDE, fit

WORDS = """
    motion frame light river stone bridge window garden summer winter street night music coffee
    market station harbour the of and to in is it you that was for on are with his they at be this
    from have or OPEN EXIT STOP SALE 2024 17:45 100% No. 8 km/h A B C quick brown fox jumps over lazy
    dog
"""


def text_masks(fonts: list[Path], count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rendered words and short paragraphs: (H, W, 1) uint8 alpha."""
    words = WORDS.split()
    for _ in range(count):
        font = ImageFont.truetype(str(fonts[int(rng.integers(len(fonts)))]), int(rng.integers(24, 120)))
        lines = int(rng.choice([1, 1, 1, 2, 3, 5]))
        text = "\n".join(" ".join(rng.choice(words, int(rng.integers(1, 5)))) for _ in range(lines))
        probe = ImageDraw.Draw(Image.new("L", (8, 8)))
        box = probe.multiline_textbbox((0, 0), text, font=font)
        image = Image.new("L", (round(box[2] - box[0]) + 8, round(box[3] - box[1]) + 8), 0)
        ImageDraw.Draw(image).multiline_text((4 - box[0], 4 - box[1]), text, font=font, fill=255)
        image = fit(image, 2 * SPRITE_SIDE)
        if min(image.size) >= 20:
            yield np.asarray(image)[..., None]


def emoji(font_file: Path, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Colour emoji at their native 136 x 128: (H, W, 4) uint8, straight alpha."""
    font = ImageFont.truetype(str(font_file), 109)
    ranges = [(0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF)]
    points = np.array([point for first, last in ranges for point in range(first, last + 1)])
    for point in rng.permutation(points)[:count]:
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), chr(int(point)), font=font, embedded_color=True)
        pixels = np.asarray(image)
        if (pixels[..., 3] > 128).mean() > 0.05:
            yield pixels

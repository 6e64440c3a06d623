"""A picture of the cuts that were found, to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .numbers import whole_number

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_GROUND, _INK, _FAINT = 0.11, 0.92, 0.62
_WIDEST = 2.4  # width to height of a thumbnail, at most: what is wider is lower
_COLUMNS = 4


@dataclass(frozen=True)
class _Cut:
    """Index of the first frame after the cut; thumbnails (h, w, 3) of the frames on both sides, on the CPU."""

    index: int
    before: Tensor
    after: Tensor


class CutStrip:
    """The frames before and after each cut, small and side by side, with their numbers below."""

    def __init__(self, height: int = 96, most: int = 24) -> None:
        """
        Args:
            height: of a thumbnail, in pixels.
            most: cuts that are drawn; of the others only the number is told.

        Raises:
            ValueError: one of them is no whole number from 1 on.
        """
        self._height = whole_number("height", height, 1)
        self._most = whole_number("most", most, 1)
        self._cuts: list[_Cut] = []
        self._left_out = 0

    def add(self, index: int, before: Tensor, after: Tensor) -> None:
        """One cut more.

        Args:
            index: of the first frame after the cut.
            before, after: the frames on both sides, (H, W, 3) in [0, 1]; not kept.
        """
        if len(self._cuts) == self._most:
            self._left_out += 1
        else:
            self._cuts.append(_Cut(index, *(_thumbnail(frame, self._height) for frame in (before, after))))

    def picture(self) -> Tensor:
        """(H, W, 3) float32 in [0, 1]: the pairs in rows, each above its frames' numbers, if Pillow is installed."""
        gap, apart = max(2, self._height // 16), max(4, self._height // 5)
        if not self._cuts:
            return _lettered(_ground(3 * self._text_height, 12 * self._text_height), "no cuts", self._text_height)
        pairs = [self._pair(cut) for cut in self._cuts]
        height, width = max(pair.shape[0] for pair in pairs), max(pair.shape[1] for pair in pairs)
        columns = min(_COLUMNS, math.ceil(math.sqrt(len(pairs))))
        rows = math.ceil(len(pairs) / columns)
        picture = _ground(apart + rows * (height + gap), apart + columns * (width + apart))
        for place, pair in enumerate(pairs):
            top = apart + place // columns * (height + gap)
            left = apart + place % columns * (width + apart) + (width - pair.shape[1]) // 2
            picture[top : top + pair.shape[0], left : left + pair.shape[1]] = pair
        if self._left_out:
            line = _ground(self._text_height, picture.shape[1])
            more = f"and {self._left_out} more {'cut' if self._left_out == 1 else 'cuts'}"
            picture = torch.cat(
                [picture, _lettered(line, more, self._text_height, _FAINT), _ground(gap, picture.shape[1])]
            )
        return picture

    @property
    def _text_height(self) -> int:
        return max(14, self._height // 5)

    def _pair(self, cut: _Cut) -> Tensor:
        """Two thumbnails with a line between them, above their numbers."""
        seam = max(1, self._height // 48)
        height = max(cut.before.shape[0], cut.after.shape[0])
        sides = [_centred(thumbnail, height) for thumbnail in (cut.before, cut.after)]
        row = torch.cat([sides[0], _ground(height, seam) + (_INK - _GROUND), sides[1]], dim=1)
        line = _ground(self._text_height, row.shape[1])
        return torch.cat([row, _lettered(line, f"{cut.index - 1} | {cut.index}", self._text_height)])


def _ground(height: int, width: int) -> Tensor:
    return torch.full((height, width, 3), _GROUND)


def _centred(picture: Tensor, height: int) -> Tensor:
    placed = _ground(height, picture.shape[1])
    top = (height - picture.shape[0]) // 2
    placed[top : top + picture.shape[0]] = picture
    return placed


def _thumbnail(frame: Tensor, height: int) -> Tensor:
    """A frame in that height, or lower where it is very wide; never without pixels."""
    rows, columns = frame.shape[:2]
    scale = height / max(rows, columns / _WIDEST)
    size = [max(1, round(side * scale)) for side in (rows, columns)]
    planes = rearrange(frame.detach().to("cpu", torch.float32), "h w c -> 1 c h w")
    mode = "area" if scale < 1 else "nearest"
    return rearrange(F.interpolate(planes, size, mode=mode), "1 c h w -> h w c").clamp(0, 1)


def _lettered(picture: Tensor, text: str, size: float, ink: float = _INK) -> Tensor:
    """A picture with text in its middle; as it is where there is no Pillow."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return picture
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    size *= 0.7
    font = _font(size)
    while draw.textlength(text, font=font) > width and size > 6:
        size *= 0.9
        font = _font(size)
    draw.text((width / 2, height / 2), text, fill=255, font=font, anchor="mm")
    strength = torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).view(height, width, 1) / 255
    return picture.lerp(torch.tensor(ink), strength)


def _font(size: float) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(max(6, round(size)))

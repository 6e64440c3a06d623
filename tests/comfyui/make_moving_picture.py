"""The moving picture of the README, `docs/smooth.webp`: `python -m tests.comfyui.make_moving_picture`.

The example clip at half its speed: its own frames, and beside them four times as many, made by the Video Interpolator
with the built-in model. Takes a minute on a CPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tests import fake_host
from tests.comfyui.make_pictures import BACK, NEW, TEXT, Studio

TARGET = Path(__file__).resolve().parents[2] / "docs" / "smooth.webp"
#: Frames of the clip, frames for one of them, milliseconds of a frame of the picture, and of its last one.
FRAMES, TIMES, PAUSE, LAST_PAUSE = 13, 4, 20, 600
#: The part of the frames that is shown (left, top, right, bottom), and the sides of a panel.
PART, PANEL = (38, 10, 288, 240), (200, 184)
#: Pixels between the panels and below them, and of the captions.
GAP, FOOT, FONT = 4, 26, 14
LARGEST = 500_000


def composed(source: Tensor, smooth: Tensor) -> Image.Image:
    """A frame of the clip, and what is shown at the time beside it."""
    width, height = PANEL
    whole = Image.new("RGB", (2 * width + GAP, height + FOOT), BACK)
    draw = ImageDraw.Draw(whole)
    rate = 1000 / PAUSE
    captions = (source, f"the clip: {rate / TIMES:g} a second", TEXT), (smooth, f"with new frames: {rate:g}", NEW)
    for x, (frame, caption, colour) in zip((0, width + GAP), captions, strict=True):
        picture = Image.fromarray((frame.clamp(0, 1).numpy() * 255).round().astype(np.uint8))
        whole.paste(picture.resize(PANEL, Image.Resampling.LANCZOS, PART), (x, 0))
        place = (x + width // 2, height + FOOT // 2)
        draw.text(place, caption, colour, ImageFont.load_default(FONT), anchor="mm")
    return whole


def save(pictures: list[Image.Image], path: Path) -> None:
    """As an animation that goes on for ever, of the quality that is small enough.

    Every frame is a whole picture: what WebP leaves out between two that are alike would be seen as blocks.
    """
    pauses = [*(PAUSE for _ in pictures[1:]), LAST_PAUSE]
    for quality in range(80, 20, -4):
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=pauses, loop=0, quality=quality, kmin=0, kmax=1
        )
        if path.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{path.name} is too large")


def main() -> None:
    with tempfile.TemporaryDirectory() as models, pytest.MonkeyPatch.context() as patch:
        fake_host.install(fake_host.FakeHost(Path(models), temp=Path(models)), patch)
        studio = Studio(fake_host.load_pack("_pack_of_the_moving_picture"))
        clip = studio.clip(0, FRAMES)
        smooth = studio.video(clip, multiplier=TIMES)
    save([composed(clip[index // TIMES], frame) for index, frame in enumerate(smooth)], TARGET)


if __name__ == "__main__":
    main()

"""The pictures of the README: their figures are there, and they are small."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.comfyui import make_moving_picture as moving
from tests.speed_picture import PAGE, measured

ROOT = Path(__file__).resolve().parent.parent


def test_figures_of_speed_are_those_of_their_page() -> None:
    sizes = measured(PAGE.read_text(encoding="utf-8"))
    assert {"512x512", "1920x1080", "3840x2160"} <= {each.size for each in sizes}
    for each in sizes:
        assert all(theirs > ours > 0 for theirs, ours in (each.times, each.memory))


def test_the_moving_picture_goes_on_for_ever_and_is_small() -> None:
    assert moving.TARGET.stat().st_size <= moving.LARGEST
    with Image.open(moving.TARGET) as picture:
        assert picture.n_frames == (moving.FRAMES - 1) * moving.TIMES + 1
        assert picture.info["loop"] == 0

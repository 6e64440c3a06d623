"""The pictures of the graphs for the template browser: `python -m tests.comfyui.make_pictures [NAME ...]`.

What is in them the nodes have made, with the built-in model and the example clip at its full size. Takes about a minute
on a CPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tests import fake_host
from tests.comfyui.make_workflows import (
    CLIP,
    FIRST,
    FOLDER,
    GRAPHS,
    LONG,
    PAIR,
    PLOT,
    SCHEDULE,
    SCHEDULES,
    STUDY,
    VHS_LONG,
    VIDEO,
    WHOLE,
)
from tlbvfi import BUILT_IN

#: Sides of the whole, height and size of the captions, and pixels between the panels. The browser shows it at 40 %.
WIDTH, HEIGHT, FOOT, FONT, GAP = 480, 300, 40, 23, 4
LARGEST = 40_000
BACK, TEXT, NEW = (24, 26, 30), (235, 235, 235), (120, 220, 140)
MODEL = f"{next(iter(BUILT_IN))} (built-in)"
Panel = tuple[str, Tensor]  # its caption, a picture (H, W, 3)


class Studio:
    """The nodes, and what they have made so far."""

    def __init__(self, pack: ModuleType) -> None:
        self._nodes = pack.NODE_CLASS_MAPPINGS
        self.between = cache(self._between)

    def clip(self, first: int, count: int = 1) -> Tensor:
        frames: Tensor = self._nodes[CLIP]().read(count, 480, first)[0]
        return frames

    def _between(self, first: int, quality: str = "fast") -> Tensor:
        """The frame in the middle between a frame of the clip and the next one."""
        return self.video(self.clip(first, 2), multiplier=2, quality=quality)[1]

    def video(self, frames: Tensor, **inputs: Any) -> Tensor:
        result: Tensor = self._nodes[VIDEO]().interpolate(frames, MODEL, source_fps="25", **inputs)["result"][0]
        return result

    def plot(self, **schedule: Any) -> Tensor:
        chosen = {"kind": "custom", "steps": 10, "timesteps": "", **schedule}
        picture: Tensor = self._nodes[PLOT]().draw(self._nodes[SCHEDULE]().choose(**chosen)[0])[0][0]
        return picture

    def pair(self, first: int, times: int) -> Tensor:
        frames = self.clip(first, 2)
        result: Tensor = self._nodes[PAIR]().interpolate(
            frames[:1], frames[1:], MODEL, times_to_interpolate=times, use_fp16=False, enable_tf32=False,
            sample_steps=10, flow_scale=0.5, cpu_offload=True, gpu_id=0, seed=0, compile=False,
        )[0]  # fmt: skip
        return result


def gap(studio: Studio, first: int, before: str, after: str) -> list[Panel]:
    """A new frame between its neighbours."""
    return [
        (before, studio.clip(first)[0]),
        ("new", studio.between(first)),
        (after, studio.clip(first + 1)[0]),
    ]


def first_run(studio: Studio) -> list[Panel]:
    return gap(studio, 8, "frame 8", "frame 9")


def whole_video(studio: Studio) -> list[Panel]:
    return gap(studio, 5, "1/25 s", "2/25 s")


def long_video(studio: Studio) -> list[Panel]:
    return [*gap(studio, 4, "25 fps", "25 fps")[:2], *gap(studio, 5, "25 fps", "25 fps")]


def ai_video(studio: Studio) -> list[Panel]:
    made = studio.video(studio.clip(6, 2), mode="target fps", target_fps="93.75")  # as 60 is to 16
    return [(f"{index}/60 s" if index else "0 s", frame) for index, frame in enumerate(made)]


def scene_cuts(studio: Studio) -> list[Panel]:
    made = studio.video(studio.clip(35, 2))
    assert torch.equal(made[0], made[1])
    return list(zip(("frame 35", "held", "frame 36"), made, strict=True))


def seamless_loop(studio: Studio) -> list[Panel]:
    made = studio.video(torch.cat([studio.clip(31), studio.clip(20)]), scene_cut=0.0)
    return list(zip(("last", "new", "first"), made, strict=True))


def comparison(studio: Studio) -> list[Panel]:
    fast, quality = studio.between(8), studio.between(8, quality="quality")
    difference = (8 * (fast - quality).abs()).clamp(0, 1)  # hardly seen else
    return [("fast", fast), ("quality", quality), ("difference", difference)]


def schedule_study(studio: Studio) -> list[Panel]:
    shown = [values for values in SCHEDULES.values() if values["kind"] != "custom"]
    plots = [(values["kind"], studio.plot(**values)[90:]) for values in shown]  # without the title, which is cut
    return [*plots, ("new", studio.between(8))]


def slow_motion(studio: Studio) -> list[Panel]:
    made = studio.pair(8, 2)
    return list(zip(("before", "new", "new", "new", "after"), made, strict=True))


def core_node(studio: Studio) -> list[Panel]:
    return gap(studio, 3, "frame 3", "frame 4")


def vhs_batches(studio: Studio) -> list[Panel]:
    return gap(studio, 7, "batch 1", "batch 2")


#: The panels of each graph; "new" ones have their caption in green.
PICTURES: dict[str, Callable[[Studio], list[Panel]]] = {
    FIRST: first_run,
    WHOLE: whole_video,
    LONG: long_video,
    "AI video - 16 to 60 fps": ai_video,
    "Scene cuts": scene_cuts,
    "Loop without a jump": seamless_loop,
    "Compare two qualities": comparison,
    STUDY: schedule_study,
    "Slow motion between two frames": slow_motion,
    "Frame Interpolate of ComfyUI": core_node,
    "VideoHelperSuite - video with sound": lambda studio: gap(studio, 6, "frame 6", "frame 7"),
    VHS_LONG: vhs_batches,
    "VideoHelperSuite - slow motion between two frames": lambda studio: slow_motion(studio)[::2],
}


def composed(panels: list[Panel]) -> Image.Image:
    """The panels in a row, of each picture the part about the rabbit, above their captions."""
    whole = Image.new("RGB", (WIDTH, HEIGHT), BACK)
    draw = ImageDraw.Draw(whole)
    width, height = (WIDTH - GAP * (len(panels) - 1)) // len(panels), HEIGHT - FOOT
    for index, (caption, frame) in enumerate(panels):
        picture = Image.fromarray((frame.numpy() * 255).round().astype(np.uint8))
        scale = height / picture.height
        picture = picture.resize((round(picture.width * scale), height), Image.Resampling.LANCZOS)
        left = min(max(round(160 * scale) - width // 2, 0), picture.width - width)
        x = index * (width + GAP)
        whole.paste(picture.crop((left, 0, left + width, height)), (x, 0))
        colour = NEW if caption in ("new", "held") else TEXT
        place = (x + width // 2, HEIGHT - FOOT // 2)
        draw.text(place, caption, colour, ImageFont.load_default(FONT), anchor="mm")
    return whole


def save(picture: Image.Image, path: Path) -> None:
    """As a JPEG of the quality that is small enough."""
    for quality in range(88, 40, -4):
        picture.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{path.name} is too large")


def main(names: list[str]) -> None:
    assert PICTURES.keys() == GRAPHS.keys()
    with tempfile.TemporaryDirectory() as models, pytest.MonkeyPatch.context() as patch:
        fake_host.install(fake_host.FakeHost(Path(models), temp=Path(models)), patch)
        studio = Studio(fake_host.load_pack("_pack_of_the_pictures"))
        for name in names or PICTURES:
            save(composed(PICTURES[name](studio)), FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])

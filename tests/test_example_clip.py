"""The clip that comes with the pack, and the node that reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests import fake_host
from tests.fake_host import REPOSITORY, FakeHost
from tlbvfi import scenes, video

NAME = "_pack_of_the_clip"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The node's module, beside a fake ComfyUI."""
    fake_host.install(FakeHost(tmp_path), monkeypatch)
    fake_host.load_pack(NAME)
    yield sys.modules[f"{NAME}.nodes.example_clip"]
    fake_host.forget_pack(NAME)


def test_the_clip_is_what_the_node_says(module: ModuleType) -> None:
    """Its size, rate and length, in few bytes, and a cut where one is said to be and nowhere else."""
    info = video.probe(module.CLIP)
    assert (info.width, info.fps, info.frame_count) == (module.WIDTH, module.RATE, module.FRAMES)
    assert info.sound == 1
    assert module.CLIP.stat().st_size <= 300_000
    frames = list(video.read_frames(module.CLIP))
    assert len(frames) == module.FRAMES
    detector = scenes.SceneDetector()
    detector.start(frames[0])
    assert [n for n, frame in enumerate(frames[1:], start=1) if detector.cut_before(frame)] == [module.CUT]


@pytest.mark.parametrize(
    ("count", "width", "first", "shape"),
    [(9, 256, 0, (9, 144, 256)), (1, 32, 47, (1, 18, 32)), (3, 480, 30, (3, 270, 480)), (3.0, 96, 0, (3, 54, 96))],
)
def test_frames(module: ModuleType, count: Any, width: int, first: int, shape: tuple[int, ...]) -> None:
    """As many as asked for, from the right one on, with the sound that belongs to them."""
    frames, fps, made = module.ExampleClip().read(count, width, first)
    assert frames.shape == (*shape, 3) and frames.dtype == torch.float32
    assert 0 <= frames.min() and frames.max() <= 1
    assert fps == 25.0
    parts = made.get_components()
    assert parts.images is frames and parts.frame_rate == Fraction(25)
    assert parts.audio["waveform"].shape == (1, 1, 48_000 // 25 * count)
    assert parts.audio["waveform"].abs().max() > 0.001
    if width == module.WIDTH:
        expected = list(video.read_frames(module.CLIP))[first : first + int(count)]
        assert torch.equal(frames, torch.stack(expected))


def test_parts_join(module: ModuleType) -> None:
    """Two parts, one after the other, are the whole: frames and sound."""
    read = module.ExampleClip().read
    whole, parts = read(12, 64, 30), [read(5, 64, 30), read(7, 64, 35)]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
    sounds = [each[2].get_components().audio["waveform"] for each in (whole, *parts)]
    assert torch.equal(sounds[0], torch.cat(sounds[1:], dim=-1))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((0, 256, 0), "frame_count must be a whole number between 1 and 48, not 0"),
        ((49, 256, 0), "frame_count"),
        (("many", 256, 0), "frame_count"),
        ((True, 256, 0), "frame_count"),
        ((9, 30, 0), "width must be a whole number between 32 and 480"),
        ((9, 97, 0), "width must be even, not 97; take 96"),
        ((9, None, 0), "width"),
        ((9, float("nan"), 0), "width"),
        ((9, 256, -1), "first_frame"),
        ((9, 256, 40), "from frame 40 on there are 8"),
    ],
)
def test_what_cannot_be(module: ModuleType, inputs: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        module.ExampleClip().read(*inputs)
    assert "\n" not in str(caught.value)


def test_a_missing_clip_is_said(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIP", tmp_path / "example_clip.mp4")
    with pytest.raises(ValueError, match="example_clip.mp4, is missing from this installation"):
        module.ExampleClip().read(3, 96, 0)


def test_its_makers_are_named(module: ModuleType) -> None:
    """Wherever the clip goes, its licence goes along: in the node, its help page and the README."""
    pages = [REPOSITORY / "web" / "docs" / "TLBVFI_ExampleClip.md", REPOSITORY / "README.md"]
    for text in (module.ExampleClip.DESCRIPTION, *(page.read_text(encoding="utf-8") for page in pages)):
        assert "Big Buck Bunny" in text and "Blender Foundation" in text and "CC BY 3.0" in text


def test_no_sound_is_none(tmp_path: Path) -> None:
    video.write_video(tmp_path / "mute.mp4", [torch.zeros(16, 16, 3)] * 2, fps=Fraction(25))
    assert video.read_waveform(tmp_path / "mute.mp4", Fraction(0), Fraction(1)) is None

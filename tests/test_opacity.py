"""Partly transparent videos: from file to file, with new frames of colours and opacity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_model
from tlbvfi.engine import interpolate_video
from tlbvfi.holds import Cuts, Stills
from tlbvfi.model import TLBVFI
from tlbvfi.scenes import SceneDetector
from tlbvfi.settings import Settings
from tlbvfi.sources import FileSource
from tlbvfi.targets import PictureTarget, VideoTarget
from tlbvfi.timeline import Multiplier, TargetRate, Timeline
from tlbvfi.video import Colour, Encoding, VideoInfo, read_frames, write_video

HIDDEN = torch.tensor([0.0, 0.0, 1.0])


def discs(count: int, height: int = 32, width: int = 48) -> list[Tensor]:
    """An orange disc with soft edges that moves, on nothing, where the colours are blue."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    result = []
    for index in range(count):
        distance = ((columns - 14 - 4 * index) ** 2 + (rows - 16) ** 2).sqrt()
        opacity = ((12 - distance) / 4).clamp(0, 1)[..., None]
        colours = torch.where(opacity > 0, torch.tensor([1.0, 0.5, 0.0]), HIDDEN)
        result.append(torch.cat([colours, (opacity * 255).round() / 255], -1))
    return result


class Memory:
    """A source and a target in memory."""

    def __init__(self, frames: list[Tensor], alpha: bool = True) -> None:
        self._frames = frames
        self.info = VideoInfo(frames[0].shape[1], frames[0].shape[0], Fraction(10), len(frames), alpha=alpha)

    def frames(self) -> Iterator[Tensor]:
        return iter(self._frames)

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> list[Tensor]:
        return [frame.clone() for frame in frames]


def run(
    model: TLBVFI, frames: list[Tensor], timeline: Timeline, batch_size: int = 1, alpha: bool = True
) -> list[Tensor]:
    memory = Memory(frames, alpha)
    return interpolate_video(model, memory, memory, Settings(sample_steps=3), timeline, batch_size=batch_size)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tiny_model()


class TestRun:
    @pytest.mark.parametrize(
        ("timeline", "batch_size"),
        [(Multiplier(2), 2), (Multiplier(2, loop=True), 1), (TargetRate(Fraction(10), Fraction(15)), 1)],
    )
    def test_source_frames_stay(self, model: TLBVFI, timeline: Timeline, batch_size: int) -> None:
        frames = discs(3)
        made = run(model, frames, timeline, batch_size)
        assert len(made) == timeline.count(3)
        assert all(frame.shape == (32, 48, 4) and frame.dtype == torch.float32 for frame in made)
        if isinstance(timeline, Multiplier):
            assert all(torch.equal(a, b) for a, b in zip(made[::2], frames, strict=False))

    def test_colours_and_opacity_are_what_the_model_makes_of_each(self, model: TLBVFI) -> None:
        frames = discs(2)
        seen = [torch.where(f[..., 3:] > 0, f[..., :3], torch.tensor([1.0, 0.5, 0.0])) for f in frames]
        grey = [f[..., 3:].expand(-1, -1, 3).contiguous() for f in frames]
        made = run(model, frames, Multiplier(2))[1]
        moved = run(model, grey, Multiplier(2), alpha=False)[1].mean(-1)
        assert torch.equal(made[..., :3], seen[0])  # both pictures are one colour all over
        sure = (moved > 0.01) & (moved < 0.99)
        assert torch.equal(made[..., 3][sure], moved[sure])
        assert sure.any()

    def test_a_picture_that_only_fades_is_no_still(self, model: TLBVFI) -> None:
        frames = [torch.cat([torch.full((32, 48, 3), 0.5), torch.full((32, 48, 1), a)], -1) for a in (1.0, 0.6, 0.6)]
        made = run(model, frames, Stills(Multiplier(2), 0.001))
        assert not torch.equal(made[1], made[0])
        assert torch.equal(made[1][..., :3], frames[0][..., :3])
        assert torch.equal(made[3], frames[1])  # here nothing changes

    def test_nothing_to_see_takes_the_colours_of_the_neighbour(self, model: TLBVFI) -> None:
        shown = torch.cat([torch.full((32, 48, 3), 0.8), torch.ones(32, 48, 1)], -1)
        hidden = torch.zeros(32, 48, 4)
        for frames in ([hidden, shown], [shown, hidden]):
            made = run(model, frames, Multiplier(2))
            assert torch.equal(made[1][..., :3], shown[..., :3])
            assert torch.equal(made[0], frames[0])
            assert torch.equal(made[2], frames[1])

    def test_cuts_are_decided_once(self, model: TLBVFI) -> None:
        bright = torch.rand(32, 48, 4, generator=torch.Generator().manual_seed(1))
        cuts = Cuts(Multiplier(2), SceneDetector(0.01))
        made = run(model, [*discs(2), bright], cuts, 2)
        assert len(made) == 5
        assert 2 in cuts.found
        assert torch.equal(made[3], made[2])


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "codec", "close"),
        [("a.gif", "auto", 0.07), ("a.apng", "auto", 1e-6), ("a.webp", "auto", 0.01), ("a.mov", "prores", 0.001),
         ("a.mkv", "ffv1", 1e-6), ("a.webm", "auto", 0.01), ("a.mkv", "vp9", 0.01)],
    )  # fmt: skip
    @pytest.mark.parametrize("odd", [False, True])
    def test_opacity_comes_back(
        self, tmp_path: Path, name: str, codec: str, close: float, odd: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        frames = [frame[: 32 - odd, : 48 - odd].contiguous() for frame in discs(3)]
        encoding, path = Encoding(codec), tmp_path / name
        assert encoding.holds_alpha(path.suffix)
        assert VideoTarget(path, encoding=encoding).write(frames, Fraction(10)) == 3
        source = FileSource(path, alpha=True)
        assert (source.info.alpha, source.info.width, source.info.height) == (True, 48 - odd, 32 - odd)
        for frame, expected in zip(source.frames(), frames, strict=True):
            assert (frame[..., 3] - expected[..., 3]).abs().mean() < close
            solid = expected[..., 3] == 1
            assert (frame[..., :3] - expected[..., :3])[solid].abs().mean() < 0.05
        assert caplog.text == ""
        plain = list(FileSource(path).frames())
        assert plain[0].shape[2] == 3
        assert caplog.text.count("partly transparent") == 1

    @pytest.mark.parametrize("deep", [False, True])
    def test_a_folder(self, tmp_path: Path, deep: bool) -> None:
        most = 65535 if deep else 255
        frames = [(frame * most * 0.7).round() / most for frame in discs(2)]
        like = VideoInfo(1, 1, None, None, colour=Colour(6, bits=10 if deep else 8))
        PictureTarget(tmp_path / "a", like).write(frames, None)
        source = FileSource(tmp_path / "a", alpha=True)
        assert source.info.alpha
        assert all(torch.equal(a, b) for a, b in zip(source.frames(), frames, strict=True))

    def test_what_is_opaque_stays_without(self, tmp_path: Path) -> None:
        frames = [torch.cat([torch.rand(8, 8, 3), torch.ones(8, 8, 1)], -1) for _ in range(2)]
        write_video(tmp_path / "a.mkv", frames, Fraction(10), encoding=Encoding("ffv1"))
        source = FileSource(tmp_path / "a.mkv", alpha=True)
        assert not source.info.alpha
        assert next(source.frames()).shape == (8, 8, 3)
        assert next(read_frames(tmp_path / "a.mkv", alpha=True)).shape == (8, 8, 4)

    def test_what_cannot_hold_it(self) -> None:
        assert not any(Encoding().holds_alpha(suffix) for suffix in (".mp4", ".mov", ".mkv"))
        assert not Encoding("vp9").holds_alpha(".mp4")
        assert Encoding().holds_alpha("")

"""The one way from a source to a target, between every kind of both."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tlbvfi
from tests.tiny import frames, tiny_model
from tlbvfi import engine, video
from tlbvfi.engine import interpolate_video
from tlbvfi.model import TLBVFI
from tlbvfi.outputs import Output
from tlbvfi.planning import Plan
from tlbvfi.settings import Settings
from tlbvfi.sources import BatchSource, FileSource
from tlbvfi.targets import BatchTarget, PictureTarget, VideoTarget
from tlbvfi.timeline import Multiplier

QUICK = Settings(sample_steps=3)
CLIP = Path(__file__).resolve().parent.parent / "docs" / "demo.mp4"


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tiny_model()


@pytest.fixture(scope="module")
def batch() -> Tensor:
    """(3, 40, 56, 3)"""
    return torch.stack(frames(3, 40, 56))


@pytest.fixture(scope="module")
def clip(batch: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video.write_video(path, batch, Fraction(25))
    return path


def expected(model: TLBVFI, source: Tensor | list[Tensor], times: int = 1) -> Tensor:
    return torch.stack(list(tlbvfi.interpolate_frames(model, source, times, sample_steps=3)))


def into(count: int, batch: Tensor) -> BatchTarget:
    return BatchTarget(torch.empty(count, *batch.shape[1:]))


def test_batch_to_batch(model: TLBVFI, batch: Tensor) -> None:
    target = into(9, batch)
    result = interpolate_video(model, BatchSource(batch), target, QUICK, Multiplier(4))
    assert result is target.result
    assert torch.equal(result, expected(model, batch, 2))


def test_batch_of_other_pictures(model: TLBVFI, batch: Tensor) -> None:
    source = BatchSource((batch * 255).byte(), convert=lambda picture: picture / 255)
    result = interpolate_video(model, source, into(5, batch), QUICK)
    assert torch.equal(result, expected(model, (batch * 255).byte() / 255))


def test_file_to_file(model: TLBVFI, clip: Path, tmp_path: Path) -> None:
    source, target = FileSource(clip), VideoTarget(tmp_path / "out.mp4", like=video.probe(clip))
    seen: list[Output] = []
    assert interpolate_video(model, source, target, QUICK, Multiplier(4), seen.append) == 9
    assert source.taken == 3
    assert video.probe(tmp_path / "out.mp4").fps == 100
    assert [output.position for output in seen] == [Fraction(k, 4) for k in range(9)]
    made = torch.stack([output.frame for output in seen])
    assert torch.equal(made, expected(model, list(video.read_frames(clip)), 2))


def test_open_files(model: TLBVFI, clip: Path, tmp_path: Path) -> None:
    """As a server, or a node with a video in memory, has them: the same video as between files."""
    interpolate_video(model, FileSource(clip), VideoTarget(tmp_path / "out.mp4"), QUICK)
    memory = io.BytesIO()
    with clip.open("rb") as opened:
        source = FileSource(opened)
        assert source.info == video.probe(clip)
        assert interpolate_video(model, source, VideoTarget(memory, suffix=".mp4"), QUICK) == 5
    pairs = list(zip(video.read_frames(memory), video.read_frames(tmp_path / "out.mp4"), strict=True))
    assert len(pairs) == 5
    for found, wanted in pairs:  # x264 is not the same to the bit every time
        assert (found - wanted).abs().mean() < 0.01


def test_open_files_that_are_no_video(model: TLBVFI) -> None:
    with pytest.raises(video.VideoError, match=r"^The open file is not a readable video \(.*\)\.$"):
        _ = FileSource(io.BytesIO(b"no video")).info
    with pytest.raises(video.VideoError, match="kind of video"):
        VideoTarget(io.BytesIO(), suffix=".txt").write(iter(frames(1, 16, 16)), Fraction(25))


def test_pictures_to_pictures(model: TLBVFI, batch: Tensor, tmp_path: Path) -> None:
    video.write_pictures(tmp_path / "in", batch)
    source = FileSource(tmp_path / "in")
    assert interpolate_video(model, source, PictureTarget(tmp_path / "out"), QUICK) == 5
    stored = list(video.read_frames(tmp_path / "in"))
    made = expected(model, stored)
    for written, frame in zip(video.read_frames(tmp_path / "out"), made, strict=True):
        assert (written - frame).abs().max() <= 0.5 / 255 + 1e-6


def test_pictures_have_no_rate_for_a_video(model: TLBVFI, batch: Tensor, tmp_path: Path) -> None:
    with pytest.raises(video.VideoError, match="needs a frame rate"):
        interpolate_video(model, BatchSource(batch), VideoTarget(tmp_path / "out.mp4"), QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("when", ["on_frame", "on_step"])
def test_what_a_callback_raises_ends_the_run_and_leaves_nothing(
    model: TLBVFI, clip: Path, tmp_path: Path, when: str
) -> None:
    class Cancelled(BaseException):
        pass

    calls = []

    def cancel(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        interpolate_video(
            model,
            FileSource(clip),
            VideoTarget(tmp_path / "out.mp4"),
            QUICK,
            **{when: cancel},  # type: ignore[arg-type]
        )
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())


def test_a_run_is_planned_for_what_is_free(model: TLBVFI, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan | None] = []
    original = engine.interpolate_timeline

    def spied(*args: object, plan: Plan | None, **keywords: object) -> Iterator[Output]:
        plans.append(plan)
        return original(*args, plan=plan, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "interpolate_timeline", spied)
    small = tlbvfi.plan(300, 300, torch.float32, params=model.params)
    for free, rows in ((None, None), (10 * 2**30, small.padded_size[0])):
        monkeypatch.setattr(engine, "available", lambda model, free=free: free)
        interpolate_video(model, BatchSource(batch), into(5, batch), QUICK)
        assert (plans[-1] and plans[-1].strip_rows) == (rows and 128)
    monkeypatch.setattr(engine, "available", lambda model: 0)
    with pytest.raises(ValueError, match=r"^56x40 at flow scale 0.5 in float32 needs .* at least"):
        interpolate_video(model, BatchSource(batch), into(5, batch), QUICK)
    given = tlbvfi.plan(40, 56, torch.float32, params=model.params)
    interpolate_video(model, BatchSource(batch), into(5, batch), QUICK, plan=given)
    assert plans[-1] is given

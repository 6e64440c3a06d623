"""Triplets of real video: what is taken and what is passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tlbvfi.training import clips, sources
from tlbvfi.training.losses import endpoint_error
from tlbvfi.training.shards import ShardDataset, write_shard
from tlbvfi.training.views import View, flow_task


@pytest.fixture(scope="module")
def moving() -> list[np.ndarray]:
    """A picture that moves by three pixels a frame, larger than a triplet."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 60, (100, 120, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    return [picture[:320, 3 * i : 3 * i + 400] for i in range(12)]


def test_triplets_are_frames_in_a_row(moving: list[np.ndarray]) -> None:
    made = list(clips.triplets(moving, 8, np.random.default_rng(1)))
    assert len(made) == 8
    shifts = set()
    for triplet in made:
        assert triplet.shape == (3, 3, clips.SIZE, clips.SIZE)
        assert triplet.dtype == np.uint8
        for step in (3, 6):
            same = [np.array_equal(triplet[k, ..., step:], triplet[k + 1, ..., :-step]) for k in range(2)]
            if all(same):
                shifts.add(step)
    assert shifts == {3, 6}


@pytest.mark.parametrize("order", [(0, 0, 0), (0, 0, 1), (0, 1, 1)])
def test_repeated_frames_are_passed_over(moving: list[np.ndarray], order: tuple[int, int, int]) -> None:
    assert clips.useful(moving[0], moving[1], moving[2])
    assert not clips.useful(*(moving[i] for i in order))


def test_cuts_are_passed_over(moving: list[np.ndarray]) -> None:
    assert not clips.useful(moving[0], moving[1], 200 - moving[2])
    assert not clips.useful(moving[0], moving[1] // 8 + 80, moving[2] // 8 + 80)


def test_nothing_is_taken_of_a_still_clip(moving: list[np.ndarray]) -> None:
    assert not list(clips.triplets([moving[0]] * 6, 2, np.random.default_rng(0)))


@pytest.mark.parametrize("shift", [3, -5])
def test_flows_are_believed_where_there_is_contrast(moving: list[np.ndarray], shift: int) -> None:
    size = clips.SIZE
    triplet = np.stack([moving[0][:size, 40 + k * shift : 40 + k * shift + size] for k in range(3)])
    triplet[:, 200:, :] = 90  # a plain surface
    flows, matches = clips.found_flows(triplet.transpose(0, 3, 1, 2))
    assert flows.shape == (2, 2, size // 2, size // 2)
    assert np.isnan(flows[..., 112:, :]).all()
    inner = flows[..., 12:84, 12:-12].astype(np.float32)
    assert np.isfinite(inner).mean() > 0.8
    for flow, across in zip(inner, (shift, -shift), strict=True):
        assert np.nanmedian(flow[0]) == pytest.approx(across, abs=0.1)
        assert np.nanmedian(flow[1]) == pytest.approx(0.0, abs=0.1)
    assert matches[:, 12:-12, 12:-12].mean() > 0.95


def test_flows_that_break_off_are_not_believed() -> None:
    middle = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    flows = torch.zeros(1, 2, 2, 32, 32)
    flows[:, 0, 0], flows[:, 1, 0] = -6.0, 6.0
    assert clips.believable(middle, flows).all()
    flows[:, 1, 0, :, 16:] = 0.0  # 6 pixels to the one side and none to the other
    assert torch.equal(clips.believable(middle, flows)[0, 0, 0, 0], torch.arange(32) < 16)
    assert not clips.believable(torch.full_like(middle, 0.5), flows).any()


def test_clips_are_listed_with_a_licence_and_none_is_measured() -> None:
    page = (Path(sources.__file__).parent / "SOURCES.md").read_text(encoding="utf-8")
    for clip in clips.CLIPS:
        row = next(line for line in page.splitlines() if f"| {Path(clip.name).name} |" in line)
        assert clip.source.name in row
        assert clip.source.licence in row
        assert not any(name in clip.name for name in ("bikes", "carphone", "bunny"))


def test_unknown_flows_count_for_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 3, 3, 32, 32), dtype=np.uint8)
    write_shard(
        tmp_path / "shard-00000",
        frames,
        np.full((2, 2, 2, 16, 16), np.nan, np.float16),
        np.ones((2, 2, 16, 16), np.uint8),
    )
    batch = next(ShardDataset(tmp_path, 32).batches(2))
    for scale in (1.0, 0.5):
        task = flow_task(batch, View(32, False, scale))
        assert not task.weight.any()
        assert bool((task.seen == 1).all())
        assert bool(torch.isfinite(task.flow).all())
        error = endpoint_error(torch.randn_like(task.flow), task.flow, task.weight)
        assert float(error) == 0.0

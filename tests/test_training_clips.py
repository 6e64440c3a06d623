"""Triplets of real video: what is taken and what is passed over."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tlbvfi.training import clips, sources
from tlbvfi.training.card import make_parcel
from tlbvfi.training.losses import endpoint_error
from tlbvfi.training.packages import Source
from tlbvfi.training.shards import ShardDataset, write_shard
from tlbvfi.training.views import View, flow_task


@pytest.fixture(scope="module")
def moving() -> list[np.ndarray]:
    """A picture that moves by three pixels a frame, larger than a triplet."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 60, (100, 120, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    return [picture[:320, 3 * i : 3 * i + 400] for i in range(12)]


def test_triplets_are_frames_in_a_row(moving: list[np.ndarray]) -> None:
    made = list(clips.triplets(moving, 30, np.random.default_rng(1)))
    assert len(made) == 30
    shifts = set()
    for triplet in made:
        assert triplet.shape == (3, 3, clips.SIZE, clips.SIZE)
        assert triplet.dtype == np.uint8
        for step in (3, 6, 12):
            same = [np.array_equal(triplet[k, ..., step:], triplet[k + 1, ..., :-step]) for k in range(2)]
            if all(same):
                shifts.add(step)
    assert shifts == {3, 6, 12}


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
        assert str(clip.count) in row.split("|")[-2]
        assert (clip.source.version or "")[:12] in row
        assert not any(name in clip.name for name in ("bikes", "carphone", "bunny"))


def test_what_is_not_a_package_is_pinned() -> None:
    pinned = [clip for clip in clips.CLIPS if clip.source.kind == "github"]
    for clip in pinned:
        assert re.fullmatch("[0-9a-f]{40}", clip.source.version or "")
        assert re.fullmatch("[0-9a-f]{64}", dict(clip.source.files)[clip.name])
    assert pinned
    assert all(clip.source.version or clip.source.kind == "deb" for clip in clips.CLIPS)


def test_a_parcel_takes_parts_of_known_clips_under_names_of_their_own() -> None:
    for part in make_parcel.PARTS:
        assert sum(f"/{clip.name}".endswith(f"/{part.name}") for clip in clips.CLIPS) == 1, part.name
    stems = [Path(part.name).stem for part in make_parcel.PARTS]
    assert len(set(stems)) == len(stems)


def test_what_is_kept_is_in_the_parcel() -> None:
    parts = {part.name: part for part in make_parcel.PARTS}
    assert clips.LEARNT.keys() <= parts.keys()
    for name, learnt in clips.LEARNT.items():
        kept = parts[name].start + parts[name].frames - learnt
        assert 8 < kept <= parts[name].frames
        assert learnt >= 2 * max(clips.GAPS) + 1


@pytest.fixture
def known(tmp_path: Path, moving: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> tuple[clips.Clip, ...]:
    """A clip that lies where it would be fetched to, of which eight frames are trained on, and one like it by name."""
    folder = tmp_path / "packages" / "owner" / "name"
    folder.mkdir(parents=True)
    with av.open(str(folder / "test.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = 320, 400, "yuv420p"
        for frame in moving:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    monkeypatch.setitem(clips.LEARNT, "test.avi", 8)
    source = Source("owner/name", "github", "CC0-1.0", (), "0" * 40)
    return clips.Clip(source, "test.avi", 1), clips.Clip(source, "vtest.avi", 1)


def test_shards_are_of_what_is_trained_on(
    tmp_path: Path, known: tuple[clips.Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def triplets(frames: list[np.ndarray], count: int, rng: np.random.Generator) -> list[np.ndarray]:
        seen.append(len(frames))
        return []

    monkeypatch.setattr(clips, "CLIPS", known[:1])
    monkeypatch.setattr(clips, "triplets", triplets)
    assert clips.prepare(tmp_path, tmp_path / "real") == {"test.avi": 0}
    assert seen == [8]


def test_a_part_is_coded_anew(
    tmp_path: Path, moving: list[np.ndarray], known: tuple[clips.Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_parcel, "CLIPS", known)
    said = make_parcel.video(make_parcel.Part("test.avi", 2, 8, 160), tmp_path, tmp_path)
    assert said["file"] == "test.mp4"
    assert (said["frames"], said["learnt"]) == (8, 6)
    assert said["starts"] == {"1": list(range(6)), "2": list(range(4)), "4": []}
    frames = list(clips.decoded(tmp_path / "test.mp4"))
    assert len(frames) == 8
    assert frames[0].shape == (160, 200, 3)
    assert np.abs(frames[0][::2, ::2].astype(int) - moving[2][1::4, 1::4]).mean() < 12


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

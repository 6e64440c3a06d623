"""Segments: together they are the whole video, and a run goes on after the last one that was made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny import frames, tiny_model
from tlbvfi import load_model, video
from tlbvfi.holds import Cuts, Stills
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.scenes import SceneDetector
from tlbvfi.segments import (
    Journal,
    JournalError,
    Rounding,
    Segment,
    interpolate_in_segments,
    plan_segments,
    segment_starts,
    segments_at,
)
from tlbvfi.settings import Settings
from tlbvfi.targets import VideoTarget
from tlbvfi.timeline import Multiplier, TargetRate, Timeline, loop_gap
from tlbvfi.video import Encoding, VideoInfo

REPOSITORY = Path(__file__).resolve().parent.parent
LOSSLESS = Encoding("ffv1")
QUICK = Settings(sample_steps=3)


def wanted(timeline: Timeline, count: int) -> list[Fraction]:
    """The positions of the frames that a timeline wants of a video of so many frames."""
    none = torch.zeros(1, 1, 3)
    positions = [Fraction(0)] * len(timeline.opening())
    for index in range(count - 1):
        positions += [index + place for place in timeline.gap(index, none, none).places]
    last = count - 2
    if timeline.loop:
        last = count - 1
        positions += [last + place for place in loop_gap(timeline, last, none, none).places]
    return positions + [last + place for place in timeline.closing(last)]


def wanted_in(timeline: Timeline, segment: Segment) -> list[Fraction]:
    """The same of a segment."""
    none, piece = torch.zeros(1, 1, 3), segment.piece(timeline)
    positions = [Fraction(0)] * len(piece.opening())
    for index in range(segment.first_gap, segment.first_gap + segment.gaps):
        positions += [index + place for place in piece.gap(index, none, none).places]
    last = segment.first_gap + segment.gaps - 1
    return positions + [last + place for place in piece.closing(last)]


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    loop = draw(st.booleans())
    hold_last = draw(st.booleans())
    if draw(st.booleans()):
        return Multiplier(draw(st.integers(1, 9)), loop, hold_last)
    rates = st.sampled_from([Fraction(1), Fraction(24), Fraction(24000, 1001), Fraction(25), Fraction(60)])
    return TargetRate(draw(rates), draw(rates), loop, hold_last)


@settings(max_examples=200, deadline=None)
@given(timelines(), st.integers(1, 40), st.integers(1, 50))
def test_all_segments_together_are_the_whole(timeline: Timeline, count: int, length: int) -> None:
    segments = plan_segments(count, length, timeline.loop)
    parts = [wanted_in(timeline, segment) for segment in segments]
    assert [position for part in parts for position in part] == wanted(timeline, count)
    assert sum(map(len, parts)) == timeline.count(count)
    assert [s.first_gap for s in segments] == list(range(0, max(1, count - (not timeline.loop)), length))
    assert all(segment.gaps <= length for segment in segments)


@dataclass
class Clip:
    """A source that counts what is read of it, and may end in the middle of a run."""

    pictures: list[Tensor]
    fps: Fraction = Fraction(25)
    starts: tuple[int, ...] = ()
    breaks_at: int | None = None

    @property
    def info(self) -> VideoInfo:
        height, width, _ = self.pictures[0].shape
        return VideoInfo(width, height, self.fps, len(self.pictures))

    def frames(self, first: int = 0) -> Iterator[Tensor]:
        self.starts += (first,)
        for index, picture in enumerate(self.pictures[first:], first):
            if index == self.breaks_at:
                raise RuntimeError("the power went off")
            yield picture


def two_scenes(count: int) -> list[Tensor]:
    """Moving pictures of two scenes, whose values 8 bits hold; in the second, two neighbours are the same."""
    dark = [picture * 0.2 for picture in frames(count // 2, 20, 30)]
    texture = 0.6 + 0.4 * torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(1))
    light = [texture.roll(step, 1) for step in range(count - count // 2)]
    light[-2] = light[-1]
    return [(picture * 255).round() / 255 for picture in [*dark, *light]]


TIMELINES: dict[str, Callable[[], Timeline]] = {
    "multiplier": lambda: Multiplier(2),
    "loop": lambda: Multiplier(2, loop=True),
    "hold_last": lambda: TargetRate(Fraction(25), Fraction(50), hold_last=True),
    "few": lambda: TargetRate(Fraction(25), Fraction(6)),
    "cuts": lambda: Cuts(Stills(Multiplier(2, loop=True), 0.0005), SceneDetector()),
}


@pytest.mark.parametrize(
    ("cuts", "multiple", "starts"),
    [
        ((), 1, [0, 10, 20, 30]),
        ((8,), 1, [0, 7, 17, 27]),  # with the gap before a scene
        ((3, 6, 9, 30), 1, [0, 8, 18, 28]),  # the last one that makes a segment no shorter than half
        ((8, 9, 11), 4, [0, 8, 20, 32]),  # of ten and of twelve gaps, at a multiple
    ],
)
def test_segments_begin_with_scenes_where_they_can(cuts: tuple[int, ...], multiple: int, starts: list[int]) -> None:
    assert segment_starts(36, 10, cuts=cuts, multiple=multiple) == starts
    segments = segments_at(starts, 36)
    assert [segment.first_gap for segment in segments] == starts
    assert sum(segment.gaps for segment in segments) == 35


def take(frames: Iterable[Tensor], made: list[Tensor]) -> int:
    made += [frame.clone() for frame in frames]
    return 0


class TestRun:
    def run(self, clip: Clip, target: Path, timeline: Timeline, length: int = 3) -> Journal:
        journal = Journal.opened(target, {"length": str(length)}, lambda: len(clip.pictures))
        segments = plan_segments(journal.frames, length, timeline.loop)
        interpolate_in_segments(tiny_model(), clip, journal, segments, QUICK, timeline, LOSSLESS, target.suffix)
        return journal

    @pytest.mark.parametrize("name", TIMELINES)
    def test_frames_are_those_of_one_run_however_often_it_ends_on_the_way(self, tmp_path: Path, name: str) -> None:
        pictures, target = two_scenes(6), tmp_path / "out.mkv"
        timeline = TIMELINES[name]()
        for end in (2, 5):
            with pytest.raises(RuntimeError, match="power"):
                self.run(Clip(pictures, breaks_at=end), target, TIMELINES[name]())
        journal = self.run(Clip(pictures), target, timeline)
        video.join_videos(journal.parts(".mkv"), target, fps=timeline.rate(Fraction(25)))
        whole = TIMELINES[name]()
        expected = [output.frame for output in interpolate_timeline(tiny_model(), pictures, whole, QUICK)]
        made = list(video.read_frames(target))
        assert len(made) == len(expected) == journal.done == timeline.count(6)
        for frame, truth in zip(made, expected, strict=True):
            assert torch.equal((frame * 255).round(), (truth.clamp(0, 1) * 255).round())
        if isinstance(timeline, Cuts) and isinstance(whole, Cuts):
            assert timeline.found == whole.found == [3, 6]

    def test_what_is_made_is_neither_read_nor_made_again(self, tmp_path: Path) -> None:
        pictures, target = two_scenes(8), tmp_path / "out.mkv"
        with pytest.raises(RuntimeError, match="power"):
            self.run(Clip(pictures, breaks_at=7), target, Multiplier(2))
        folder = Journal.folder_of(target)
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*.mkv")}
        assert len(before) == 2
        (folder / ".000000006.77.partial.mkv").write_bytes(b"what a run that was killed leaves")
        clip = Clip(pictures)
        journal = self.run(clip, target, Multiplier(2))
        assert clip.starts == (6,)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert sorted(p.name for p in folder.iterdir()) == [
            "000000000.mkv",
            "000000003.mkv",
            "000000006.mkv",
            "journal.json",
        ]
        journal.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_source_that_has_become_shorter_is_an_error(self, tmp_path: Path) -> None:
        pictures, target = two_scenes(8), tmp_path / "out.mkv"
        journal = Journal.opened(target, {}, lambda: 9)
        with pytest.raises(video.VideoError, match="ended after 8 frames"):
            interpolate_in_segments(
                tiny_model(), Clip(pictures), journal, plan_segments(9, 4), QUICK, Multiplier(2), LOSSLESS, ".mkv"
            )
        journal.release()
        assert list(Journal.opened(target, {}, lambda: 0).made) == [0]

    @pytest.mark.parametrize("name", ["noise", "cuts"])
    def test_gaps_that_go_through_the_model_together_are_those_of_one_run_to_the_bit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Features of a frame depend on its batch in the last bits, which is that of a run of the whole."""
        if name == "noise":  # of which these bits are seen
            model, pictures = load_model(), list(torch.rand(6, 20, 30, 3, generator=torch.Generator().manual_seed(0)))
        else:
            model, pictures = tiny_model(), two_scenes(6)
        asked = TIMELINES.get(name, TIMELINES["multiplier"])
        expected = list(interpolate_timeline(model, pictures, asked(), QUICK, batch_size=2))
        for again in (False, True)[name == "noise" :]:  # the last segment in a run of its own
            made: list[Tensor] = []
            monkeypatch.setattr(VideoTarget, "write", lambda _, frames, fps, made=made: take(frames, made))
            timeline = asked()
            journal = Journal.opened(tmp_path / f"{again}.mkv", {}, lambda: 6)
            all_of_them = plan_segments(6, 2, timeline.loop)
            if again:
                journal.made |= {segment.first_gap: 0 for segment in all_of_them[:-1]}
            interpolate_in_segments(
                model, Clip(pictures), journal, all_of_them, QUICK, timeline, LOSSLESS, ".mkv", batch_size=2
            )
            assert len(made) == (len(expected) if not again else timeline.count(6) - timeline.until(4))
            for frame, truth in zip(reversed(made), reversed(expected), strict=False):
                assert torch.equal(frame, truth.frame)


class TestJournal:
    def test_another_setting_is_named_with_the_remedy(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        Journal.opened(target, {"IN": "a.mp4", "--seed": "0"}, lambda: 5)
        with pytest.raises(JournalError, match=r"another --seed \(0 instead of 7\).*--force.*OUT"):
            Journal.opened(target, {"IN": "a.mp4", "--seed": "7"}, lambda: 6)
        assert Journal.opened(target, {"IN": "a.mp4", "--seed": "0"}, lambda: 6).frames == 5
        assert Journal.opened(target, {"IN": "a.mp4", "--seed": "7"}, lambda: 6, force=True).frames == 6

    def test_a_setting_that_is_no_longer_asked_for_is_named_too(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        Journal.opened(target, {"IN": "a.mp4", "--loop": "yes"}, lambda: 5)
        with pytest.raises(JournalError, match=r"another --loop \(yes instead of none\)"):
            Journal.opened(target, {"IN": "a.mp4"}, lambda: 5)

    def test_what_was_being_written_goes_and_what_is_made_stays(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        journal, segment = Journal.opened(target, {}, lambda: 9), Segment(0, 4, True, False)
        journal.path(segment, ".mkv").write_bytes(b"whole")
        journal.record(segment, 8, journal.path(segment, ".mkv"))
        journal.path(Segment(4, 4, False, True), ".mkv").write_bytes(b"half")
        journal.release()
        again = Journal.opened(target, {}, lambda: 9)
        assert again.made == {0: 8}
        assert sorted(path.name for path in again.folder.iterdir()) == ["000000000.mkv", "journal.json"]

    @pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
    def test_two_runs_at_once_are_refused_until_the_first_ends_in_whatever_way(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        program = (
            "import sys, time; from pathlib import Path; from tlbvfi.segments import Journal\n"
            "journal = Journal.opened(Path(sys.argv[1]), {}, lambda: 5)\nprint('there', flush=True)\ntime.sleep(1000)"
        )
        first = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, cwd=REPOSITORY)
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"there\n"
            for force in (False, True):
                with pytest.raises(JournalError, match="is being written by another run"):
                    Journal.opened(target, {}, lambda: 6, force=force)
        finally:
            first.kill()
            first.communicate()
        journal = Journal.opened(target, {}, lambda: 6)
        assert journal.frames == 5
        journal.close()
        assert list(tmp_path.iterdir()) == []

    def test_how_it_was_planned_is_known_later(self, tmp_path: Path) -> None:
        target, rounding = tmp_path / "out.mkv", Rounding(64, 2, None, 1)
        journal = Journal.opened(target, {}, lambda: 9)
        journal.plan([0, 4], [5], rounding)
        journal.release()
        again = Journal.opened(target, {}, lambda: 0)
        assert (again.starts, again.cuts, again.rounding) == ((0, 4), (5,), rounding)

    def test_nothing_is_left_where_the_frames_cannot_be_counted(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            Journal.opened(tmp_path / "out.mkv", {}, lambda: 1 // 0)
        assert list(tmp_path.iterdir()) == []

    def test_force_goes_on_with_the_same_run(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        Journal.opened(target, {}, lambda: 5).record(Segment(0, 4, True, True), 0, tmp_path)
        assert Journal.opened(target, {}, lambda: 6, force=True).made == {0: 0}

    def test_a_folder_of_something_else_stays(self, tmp_path: Path) -> None:
        target = tmp_path / "out.mkv"
        folder = Journal.folder_of(target)
        folder.mkdir()
        (folder / "journal.json").write_text(json.dumps(["another"]))
        for force in (False, True):
            with pytest.raises(JournalError, match="holds something else"):
                Journal.opened(target, {}, lambda: 5, force=force)
        assert (folder / "journal.json").exists()

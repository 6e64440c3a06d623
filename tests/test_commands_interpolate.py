"""The options of ``interpolate``: which frames come, how they are made and written, and how a run is resumed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.patience import Patience, ended
from tests.test_video import sound_packets, with_sound
from tests.tiny import frames
from tlbvfi import segments, video
from tlbvfi.commands import interpolate_run
from tlbvfi.commands.main import main, parser
from tlbvfi.settings import Settings, preset
from tlbvfi.video import Encoding

REPOSITORY = Path(__file__).resolve().parent.parent
Runner = functools.partial[tuple[int, str, str]]
#: However little memory is free just now.
QUICK = ("--quality", "fast", "--steps", "3", "--memory", "1")


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Runs ``interpolate`` with a very small model in this process: exit code, stdout, stderr."""

    def running(*arguments: object) -> tuple[int, str, str]:
        words = ["interpolate", *map(str, arguments), "--model", str(tiny_checkpoint), "--device", "cpu"]
        code = main([*words, *QUICK])
        captured = capsys.readouterr()
        if code and sys.__stderr__ is not None:  # shown where the test fails
            sys.__stderr__.write(captured.err)
        return code, captured.out, captured.err

    return functools.partial(running)


def a_clip(path: Path, count: int = 4) -> Path:
    video.write_video(path, frames(count, 20, 30), Fraction(25), encoding=Encoding("ffv1"))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four frames of 30x20 at 25 fps, without loss."""
    return a_clip(tmp_path / "clip.mkv")


class TestTimeline:
    @pytest.mark.parametrize(
        ("asked", "count", "fps"),
        [
            ("", 7, Fraction(50)),
            ("--times 0", 4, Fraction(25)),
            ("--multiplier 3", 10, Fraction(75)),
            ("--multiplier 3 --loop", 12, Fraction(75)),
            ("--times 2 --hold-last", 16, Fraction(100)),
            ("--fps 60", 8, Fraction(60)),
            ("--fps 59.94 --hold-last", 10, Fraction(60000, 1001)),
            ("--fps 10", 2, Fraction(10)),
            ("--input-fps 24000/1001", 7, Fraction(48000, 1001)),
            ("--input-fps 10 --fps 25", 8, Fraction(25)),
            ("--start 0.04 --end 0:00:00.12", 3, Fraction(50)),
            ("--start 0.08 --fps 100", 5, Fraction(100)),
        ],
    )
    def test_how_many_frames_come_and_how_fast(
        self, run: Runner, clip: Path, tmp_path: Path, asked: str, count: int, fps: Fraction
    ) -> None:
        target = tmp_path / "out.mp4"
        code, said, told = run(clip, target, *asked.split())
        assert code == 0, told
        assert video.probe(target).fps == fps
        assert len(list(video.read_frames(target))) == count
        assert said == f"{target}: {count} frames of 30x20 at {interpolate_run.rate(fps)} fps\n"
        assert told.splitlines()[-1].startswith(f"out.mp4: {count} of {count} frames, 100%, ")
        assert told.endswith(" left\n")

    @pytest.mark.parametrize(
        ("asked", "count", "fps"),
        [
            ("--fps 30", 5, 30),
            ("--fps 30 --multiplier 3", 7, 30),
            ("--input-fps 10", 5, 20),
            ("--input-fps 10 --fps 25", 6, 25),
            ("--fps 20 --start 0.1", 3, 20),
        ],
    )
    def test_pictures_get_a_rate(self, run: Runner, tmp_path: Path, asked: str, count: int, fps: int) -> None:
        video.write_pictures(tmp_path / "in", frames(3, 20, 30))
        code, _, told = run(tmp_path / "in", tmp_path / "out.mp4", *asked.split())
        assert code == 0, told
        assert video.probe(tmp_path / "out.mp4").fps == fps
        assert len(list(video.read_frames(tmp_path / "out.mp4"))) == count

    @pytest.mark.parametrize("name", ["out.gif", "out.apng", "out.webp"])
    def test_animated_pictures_both_ways(self, run: Runner, clip: Path, tmp_path: Path, name: str) -> None:
        assert run(clip, tmp_path / name, "--fps", 50, "--hold-last")[0] == 0
        code, said, _ = run(tmp_path / name, tmp_path / "back.mp4")
        assert code == 0
        assert said == f"{tmp_path / 'back.mp4'}: 15 frames of 30x20 at 100 fps\n"

    def test_cuts_are_held_told_and_drawn(self, run: Runner, tmp_path: Path) -> None:
        texture = 0.6 + 0.4 * torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(1))
        scenes = [*(picture * 0.1 for picture in frames(2, 20, 30)), texture, texture.roll(1, 1)]
        source = tmp_path / "in.mkv"
        video.write_video(source, scenes, Fraction(25), encoding=Encoding("ffv1"))
        target, picture = tmp_path / "out.mkv", tmp_path / "cuts.png"
        asked = ("--scene-cut", "--cuts-picture", picture, "--codec", "ffv1")
        code, said, _ = run(source, target, *asked)
        assert code == 0
        assert said.splitlines()[1:] == ["1 scene cut, before frame 2 (0:00:00.080)"]
        assert video.read_picture(picture).ndim == 3
        made = list(video.read_frames(target))
        assert len(made) == 7
        assert torch.equal(made[3], made[2])
        assert not torch.equal(made[1], made[0])
        assert run(source, target, *asked, "--force")[0] == 0
        code, _, told = run(source, tmp_path / "other.mkv", *asked)
        assert (code, told) == (2, f"tlbvfi interpolate: {picture} exists already; choose another name, or give "
                                   "--force to replace it.\n")  # fmt: skip
        said = run(source, tmp_path / "none.mkv", "--scene-cut", 1)[1]
        assert said.splitlines()[1:] == ["0 scene cuts"]

    def test_neighbours_that_are_the_same_are_repeated(self, run: Runner, tmp_path: Path) -> None:
        source = tmp_path / "in.mkv"
        video.write_video(source, frames(1, 20, 30) * 2, Fraction(25), encoding=Encoding("ffv1"))
        for still in (None, 0):
            asked = () if still is None else ("--still", still)
            assert run(source, tmp_path / f"{still}.mkv", "--codec", "ffv1", *asked)[0] == 0
        first, second, _ = video.read_frames(tmp_path / "None.mkv")
        assert torch.equal(first, second)
        first, second, _ = video.read_frames(tmp_path / "0.mkv")
        assert not torch.equal(first, second)

    def test_sound_is_cut_to_the_excerpt_and_left_out_at_another_speed(self, run: Runner, tmp_path: Path) -> None:
        source = with_sound(tmp_path / "in.mp4", "aac", seconds=1.0)
        part = tmp_path / "part.mp4"
        assert run(source, part, "--start", "0.5", "--end", "0.8")[0] == 0
        assert 0 < len(sound_packets(part)) < len(sound_packets(source)) / 2
        code, _, told = run(source, tmp_path / "slow.mp4", "--input-fps", 5)
        assert code == 0
        assert video.probe(tmp_path / "slow.mp4").sound == 0
        assert "The sound is left out" in told

    def test_held_ends_have_sound_to_the_end(self, run: Runner, tmp_path: Path) -> None:
        source = with_sound(tmp_path / "in.mp4", "aac", seconds=1.0)
        assert run(source, tmp_path / "out.mp4", "--hold-last")[0] == 0
        assert video.probe(tmp_path / "out.mp4").duration == video.probe(source).duration
        assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)


class TestPipes:
    def words(self, source: object, target: object, model: Path) -> list[str]:
        words = ["interpolate", source, target, "--model", model, "--device", "cpu", *QUICK]
        return [sys.executable, "-m", "tlbvfi", *map(str, words)]

    def test_from_one_of_ours_to_another(self, clip: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
        target = tmp_path / "out.mkv"
        pipe = subprocess.PIPE
        first = subprocess.Popen(self.words(clip, "-", tiny_checkpoint), cwd=REPOSITORY, stdout=pipe, stderr=pipe)
        assert first.stdout is not None
        second = subprocess.Popen(
            self.words("-", target, tiny_checkpoint),
            cwd=REPOSITORY,
            stdin=first.stdout,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        first.stdout.close()
        out, err = ended(second)
        said = ended(first)[1].decode()
        assert first.returncode == 0, said
        assert "standard output: 7 frames of 30x20 at 50 fps" in said
        assert second.returncode == 0, err
        assert out == f"{target}: 13 frames of 30x20 at 100 fps\n"
        assert len(list(video.read_frames(target))) == 13
        assert video.probe(target).fps == 100
        assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "out.mkv"]

    @pytest.mark.skipif(os.name == "nt", reason="pipes are otherwise there")
    def test_a_reader_that_leaves_ends_it_quietly(self, clip: Path, tiny_checkpoint: Path) -> None:
        pipe = subprocess.PIPE
        process = subprocess.Popen(self.words(clip, "-", tiny_checkpoint), cwd=REPOSITORY, stdout=pipe, stderr=pipe)
        assert process.stdout is not None
        process.stdout.close()
        _, said = ended(process)
        assert process.returncode == 1
        assert all(line.startswith("frames: ") for line in said.decode().splitlines())

    def test_a_terminal_is_refused(self, run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        code, out, told = run(clip, "-")
        assert (code, out, len(told.splitlines())) == (2, "", 1)
        assert "Standard output is a terminal" in told
        monkeypatch.setattr(sys, "stdin", sys.stdout)
        code, out, told = run("-", "out.mp4")
        assert (code, out, len(told.splitlines())) == (2, "", 1)
        assert "Standard input is a terminal" in told


def test_settings_are_those_of_the_preset_where_nothing_else_is_asked() -> None:
    def asked(*words: str) -> Settings:
        return interpolate_run.settings_of(parser().parse_args(["interpolate", "a", "b", *words]))

    assert asked() == Settings()
    assert asked("--quality", "quality", "--seed", "3") == preset("quality", seed=3)
    changed = preset("balanced", flow_scale=0.25, sample_steps=7, padding="published")
    assert asked("--quality=balanced", "--flow-scale=0.25", "--steps=7", "--padding=published") == changed


def test_gaps_that_go_together_give_the_same_frames(run: Runner, clip: Path, tmp_path: Path) -> None:
    assert run(clip, tmp_path / "a.mkv", "--codec", "ffv1")[0] == 0
    assert run(clip, tmp_path / "b.mkv", "--codec", "ffv1", "--batch-size", 3)[0] == 0
    for one, other in zip(video.read_frames(tmp_path / "a.mkv"), video.read_frames(tmp_path / "b.mkv"), strict=True):
        assert (one - other).abs().max() <= 1.01 / 255


def made(folder: Path) -> dict[str, int]:
    """Frames of the segments of a run that are safe."""
    try:
        known: dict[str, int] = json.loads((folder / "journal.json").read_text(encoding="utf-8"))["made"]
    except FileNotFoundError:
        return {}
    return known


class TestResume:
    ASKED = ("--codec", "ffv1", "--batch-size", "1", "--resume", "--segment", "2", "--scene-cut", "--hold-last")

    @pytest.mark.skipif(os.name == "nt", reason="signals are otherwise there")
    def test_a_run_that_is_killed_goes_on_with_the_same_frames(
        self, run: Runner, tmp_path: Path, tiny_checkpoint: Path
    ) -> None:
        source = a_clip(tmp_path / "in.mkv", 10)
        whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
        assert run(source, whole, *self.ASKED)[0] == 0
        words = ["interpolate", source, target, *self.ASKED, "--model", tiny_checkpoint, "--device", "cpu"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tlbvfi", *map(str, words), *QUICK],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        folder = segments.Journal.folder_of(target)
        try:
            patience = Patience(process.pid)
            while not made(folder) and process.poll() is None:
                patience.wait("the first segment", 0.005)
            process.send_signal(signal.SIGKILL)
            ended(process)
        finally:
            process.kill()
        assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
        assert not target.exists()
        code, said, told = run(source, target, *self.ASKED)
        assert code == 0
        assert "of 5 segments are made already" in told
        assert said.startswith(f"{target}: 20 frames of 30x20 at 50 fps\n")
        assert not folder.exists()
        pairs = list(zip(video.read_frames(target), video.read_frames(whole), strict=True))
        assert len(pairs) == 20
        assert all(torch.equal(one, other) for one, other in pairs)

    def test_what_is_made_is_told_when_it_breaks_off_and_another_setting_is_refused(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "out.mkv"
        make, made = segments.interpolate_video, []

        def once(*words: object, **options: object) -> object:
            if made:
                raise KeyboardInterrupt
            made.append(make(*words, **options))  # type: ignore[arg-type]
            return made[0]

        with monkeypatch.context() as patch:
            patch.setattr(segments, "interpolate_video", once)
            code, _, told = run(clip, target, "--batch-size", "1", "--resume", "--segment", 2)
        assert code == 130
        assert f"1 of 2 segments are safe in {target}.parts; the same command line goes on" in told
        there = sorted(tmp_path.rglob("*"))
        code, _, told = run(clip, target, "--batch-size", "1", "--resume", "--segment", 2, "--seed", 7)
        assert code == 2
        assert "another --seed (0 instead of 7)" in told
        assert len(told.splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == there
        a_clip(clip, 5)
        code, _, told = run(clip, target, "--batch-size", "1", "--resume", "--segment", 2)
        assert code == 2 and "another IN" in told
        assert run(clip, target, "--batch-size", "1", "--resume", "--segment", 2, "--force")[0] == 0
        assert len(list(video.read_frames(target))) == 9
        assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "out.mkv"]

    @pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
    def test_sound_and_length_of_segments_that_are_joined(self, run: Runner, tmp_path: Path, name: str) -> None:
        source, target = with_sound(tmp_path / "in.mp4", "aac", seconds=1.0), tmp_path / name
        assert run(source, target, "--batch-size", "1", "--resume", "--segment", 4, "--start", "0.2", "--loop")[0] == 0
        info = video.probe(target)
        assert (info.fps, info.sound) == (20, 1)
        assert len(list(video.read_frames(target))) == 16

    @pytest.mark.parametrize(("name", "codec"), [("out.webm", "vp9"), ("out.mov", "prores"), ("out.mkv", "ffv1")])
    def test_opacity_of_segments_stays(self, run: Runner, tmp_path: Path, name: str, codec: str) -> None:
        frames = [torch.full((20, 30, 4), 0.5) for _ in range(4)]
        for frame in frames:
            frame[:, :15, 3] = 0
        video.write_video(tmp_path / "in.mkv", frames, Fraction(10), encoding=video.Encoding("ffv1"))
        assert run(tmp_path / "in.mkv", tmp_path / name, "--codec", codec, "--resume", "--segment", 2)[0] == 0
        found = list(video.read_frames(tmp_path / name, alpha=True))
        assert len(found) == 7
        assert all(frame[:, :12, 3].max() < 0.1 and frame[:, 18:, 3].min() > 0.4 for frame in found[::2])

    def test_few_frames_of_many(self, run: Runner, clip: Path, tmp_path: Path) -> None:
        """There are segments in which none comes."""
        assert run(clip, tmp_path / "out.mkv", "--batch-size", "1", "--resume", "--segment", 1, "--fps", 10)[0] == 0
        assert len(list(video.read_frames(tmp_path / "out.mkv"))) == 2

"""The command line: what it writes, what it refuses and how, and that an interruption leaves nothing behind."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import tlbvfi
from tests.patience import Patience, ended
from tests.test_video import sound_packets, with_sound
from tests.tiny import TINY, frames
from tlbvfi import demo, device_memory, engine, sources, video
from tlbvfi.commands import interpolate_run, weights
from tlbvfi.commands.main import entry, main, parser
from tlbvfi.outputs import Output
from tlbvfi.planning import Plan, candidates

CPU = torch.device("cpu")

REPOSITORY = Path(__file__).resolve().parent.parent


def shown(frame: torch.Tensor) -> Output:
    """What a run gives for a frame."""
    return Output(Fraction(0), frame)


COMMANDS = ("interpolate", "plan", "convert", "demo", "bench", "download", "migrate")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames of 40x24 at 25 fps."""
    path = tmp_path / "clip.mp4"
    video.write_video(path, frames(3, 24, 40), Fraction(25))
    return path


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> functools.partial[tuple[int, str, str]]:
    """Runs a command line in this process: exit code, stdout, stderr. MODEL stands for a very small model."""

    def running(*arguments: object) -> tuple[int, str, str]:
        words = [str(tiny_checkpoint) if argument == "MODEL" else str(argument) for argument in arguments]
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return functools.partial(running)


Runner = functools.partial[tuple[int, str, str]]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_defaults(run: Runner, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert command in out
    assert "(default: " in out


def test_help_lists_the_commands(run: Runner) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


def test_version(run: Runner) -> None:
    assert run("--version")[:2] == (0, f"tlbvfi {tlbvfi.__version__}\n")


class TestInterpolate:
    def test_into_pictures_these_are_the_library_s_frames(
        self, run: Runner, clip: Path, tmp_path: Path, tiny_checkpoint: Path
    ) -> None:
        out = tmp_path / "out"
        settings = ["--times", 1, "--flow-scale", 0.25, "--steps", 4, "--seed", 7, "--padding", "published"]
        code, said, _ = run("interpolate", clip, out, *settings, "--model", "MODEL", "--device", "cpu")
        assert code == 0
        assert "5 pictures of 40x24" in said
        model = tlbvfi.load_model(tiny_checkpoint)
        source = list(video.read_frames(clip))
        expected = list(tlbvfi.interpolate_frames(model, source, 1, 0.25, 4, 7, padding="published"))
        written = list(video.read_frames(out))
        assert len(written) == len(expected) == 5
        for frame, wanted in zip(written, expected, strict=True):
            assert (frame - wanted).abs().max() <= 0.5 / 255 + 1e-6

    @pytest.mark.parametrize("times", [0, 1, 2])
    def test_rate_count_and_sound_of_a_video(self, run: Runner, tmp_path: Path, times: int) -> None:
        source, target = with_sound(tmp_path / "in.mp4", "aac", seconds=0.3), tmp_path / "out.mp4"
        assert video.probe(source).frame_count == 3
        code, said, _ = run("interpolate", source, target, "--times", times, "--steps", 3, "--model", "MODEL")
        assert code == 0
        info = video.probe(target)
        assert info.fps == 10 * 2**times
        assert info.frame_count == 2 * 2**times + 1
        assert (info.width, info.height) == (32, 16)
        assert sound_packets(target) == sound_packets(source)
        assert f"{info.frame_count} frames of 32x16 at {info.fps} fps" in said

    def test_from_pictures_to_pictures(self, run: Runner, tmp_path: Path) -> None:
        video.write_pictures(tmp_path / "in", frames(2, 9, 7))
        code, _, _ = run("interpolate", tmp_path / "in", tmp_path / "out", "--steps", 3, "--model", "MODEL")
        assert code == 0
        first, _, last = video.read_frames(tmp_path / "out")
        assert torch.equal(first, next(iter(video.read_frames(tmp_path / "in"))))
        assert first.shape == last.shape == (9, 7, 3)

    def test_what_was_there_is_replaced_only_by_a_whole_file(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "out.mp4"
        target.write_bytes(b"old")

        def broken(*args: object, **kwargs: object) -> object:
            yield shown(frames(1, 24, 40)[0])
            raise ValueError("The second frame cannot be made.")

        with monkeypatch.context() as patch:
            patch.setattr(engine, "interpolate_timeline", broken)
            code, _, err = run("interpolate", clip, target, "--model", "MODEL", "--force")
        assert code == 1
        assert err.endswith("tlbvfi interpolate: The second frame cannot be made.\n")
        assert target.read_bytes() == b"old"
        assert run("interpolate", clip, target, "--steps", 3, "--model", "MODEL", "--force")[0] == 0
        assert video.probe(target).frame_count == 5
        assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]

    def test_out_of_memory_is_a_sentence(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def greedy(*args: object, **kwargs: object) -> object:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
            yield

        monkeypatch.setattr(engine, "interpolate_timeline", greedy)
        code, _, err = run("interpolate", clip, tmp_path / "out.mp4", "--model", "MODEL")
        assert code == 1
        assert "CUDA out of memory" in err.splitlines()[-1]
        assert "--dtype float16" in err.splitlines()[-1]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"IN": "nowhere.mp4"}, "does not exist"),
            ({"IN": "text.mp4"}, "not a readable video"),
            ({"IN": "text.txt"}, "not a readable video"),
            ({"IN": ".", "OUT": "out"}, "holds no pictures"),
            ({"IN": "pictures", "OUT": "out.mp4"}, "no frame rate"),
            ({"OUT": "out.avi"}, "no kind of video"),
            ({"OUT": "nowhere/out.mp4"}, "does not exist"),
            ({"OUT": "clip.mp4"}, "the source itself"),
            ({"OUT": "text.mp4"}, "--force"),
            ({"OUT": "out.webm", "--codec": "h264"}, "does not take h264"),
            ({"OUT": "out", "--codec": "h264"}, "--codec and --crf are for video files"),
            ({"--codec": "mpeg7"}, "invalid choice"),
            ({"--crf": "52"}, "crf 52 is not possible"),
            ({"--crf": "64"}, "between 0 and 63"),
            ({"--multiplier": "1025"}, "between 1 and 1024"),
            ({"--multiplier": "0"}, "between 1 and 1024"),
            ({"--times": "1", "--multiplier": "3"}, "not allowed with"),
            ({"--times": "1", "--fps": "50"}, "one of the three"),
            ({"--fps": "0"}, "frames per second between"),
            ({"--fps": "60000/0"}, "frames per second between"),
            ({"--fps": "99999"}, "1024 times as high at most"),
            ({"--input-fps": "fast"}, "frames per second between"),
            ({"--start": "1:60"}, "H:MM:SS"),
            ({"--start": "0.1", "--end": "0.05"}, "give a later end"),
            ({"--start": "7"}, "no frame in the excerpt"),
            ({"--scene-cut": "1.5"}, "between 0 and 1"),
            ({"--still": "-1"}, "between 0 and 1"),
            ({"--cuts-picture": "cuts.png"}, "--scene-cut"),
            ({"--quality": "best"}, "invalid choice"),
            ({"--batch-size": "0"}, "between 1 and 64"),
            ({"--segment": "0"}, "between 1 and"),
            ({"OUT": "out", "--resume": None}, "--resume needs files"),
            ({"OUT": "out.gif", "--resume": None}, "--resume needs files"),
            ({"IN": "-", "--resume": None}, "--resume needs files"),
            ({"IN": "-", "--start": "1"}, "leave out --start"),
            ({"IN": "pictures", "OUT": "out.mp4", "--times": "1"}, "--input-fps"),
            ({"IN": "pictures", "OUT": "out", "--fps": "30"}, "--input-fps"),
            ({"IN": "pictures", "OUT": "out", "--end": "3"}, "--input-fps"),
            ({"--times": "11"}, "between 0 and 10"),
            ({"--times": "one"}, "whole number"),
            ({"--times": "1.5"}, "whole number"),
            ({"--flow-scale": "0.05"}, "between 0.1 and 1.0"),
            ({"--flow-scale": "nan"}, "between 0.1 and 1.0"),
            ({"--flow-scale": "half"}, "a number"),
            ({"--steps": "2"}, "between 3 and 1000"),
            ({"--seed": "-1"}, "between 0 and"),
            ({"--dtype": "int8"}, "one of float32"),
            ({"--device": "meta"}, "no device 'meta'"),
            ({"--device": "nonsense"}, "no device 'nonsense'"),
            ({"--device": "cuda:99"}, "no device 'cuda:99'"),
            ({"--padding": "none"}, "invalid choice"),
            ({"--model": "nowhere.pth"}, "does not exist"),
            ({"--model": "text.txt"}, "not a checkpoint"),
            ({"--model": "text.safetensors"}, "not a readable safetensors file"),
            ({"--unknown": "1"}, "unrecognized arguments"),
        ],
    )
    def test_bad_input_is_one_sentence_before_any_work(
        self,
        run: Runner,
        clip: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        change: dict[str, str | None],
        said: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("text.mp4", "text.txt", "text.safetensors"):
            Path(name).write_text("This is not what its name says.\n" * 40)
        video.write_pictures(Path("pictures"), frames(2, 4, 4))
        monkeypatch.setattr(engine, "interpolate_timeline", lambda *_, **__: pytest.fail("work has begun"))
        there = sorted(tmp_path.rglob("*"))
        options = {"--model": "MODEL"} | {k: v for k, v in change.items() if k.startswith("--")}
        words = [word for item in options.items() for word in item if word is not None]
        code, out, err = run("interpolate", change.get("IN", clip.name), change.get("OUT", "out.mp4"), *words)
        assert code == 2
        assert out == ""
        assert said in err
        refusal, *example = err.splitlines()
        wrong_call = refusal.startswith("python -m tlbvfi interpolate: ")
        assert wrong_call or refusal.startswith("tlbvfi interpolate: ")
        assert example == ["Example: python -m tlbvfi interpolate in.mp4 out.mp4 --times 1"] * wrong_call
        assert sorted(tmp_path.rglob("*")) == there

    def test_without_weights_it_says_where_they_come_from(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights, "built_in_path", lambda name: tmp_path / name)
        code, _, err = run("interpolate", clip, tmp_path / "out.mp4")
        assert code == 2
        assert "--model" in err
        assert "tlbvfi download" in err

    @pytest.mark.skipif(os.name == "nt", reason="signals are otherwise there")
    def test_a_signal_leaves_no_half_written_file(self, tmp_path: Path, tiny_checkpoint: Path) -> None:
        source = tmp_path / "long.mp4"
        video.write_video(source, frames(400, 16, 16), Fraction(25))
        process = subprocess.Popen(
            [sys.executable, "-m", "tlbvfi", "interpolate", source, tmp_path / "out.mp4", "--model", tiny_checkpoint],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background, interruptions are ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            patience = Patience(process.pid)
            while not list(tmp_path.glob(".out.*")) and process.poll() is None:
                patience.wait("the file that is being written")
            assert len(list(tmp_path.glob(".out.*.mp4"))) == 1, "writing has not begun"
            process.send_signal(signal.SIGINT)
            out, err = ended(process)
        finally:
            process.kill()
        assert process.returncode == 130
        assert out == ""
        assert "Traceback" not in err
        assert [p.name for p in tmp_path.iterdir()] == ["long.mp4"]

    @pytest.mark.skipif(os.name == "nt", reason="signals are otherwise there")
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
    def test_a_request_to_end_cleans_up_too(
        self, tmp_path: Path, clip: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        number = getattr(signal, name)

        def ended(*args: object, **kwargs: object) -> object:
            yield from map(shown, frames(100, 24, 40))  # more than the encoder holds back
            assert len(list(tmp_path.glob(".out.*"))) == 1
            signal.raise_signal(number)
            time.sleep(60)

        words = ["tlbvfi", "interpolate", clip, tmp_path / "out.mp4", "--model", tiny_checkpoint]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        monkeypatch.setattr(engine, "interpolate_timeline", ended)
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        signal.signal(number, signal.SIG_DFL)
        try:
            with pytest.raises(SystemExit) as stop:
                entry()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        assert stop.value.code == 128 + number
        assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]

    @pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no terminals that close")
    def test_what_nohup_ignores_stays_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["tlbvfi", "--version"])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with pytest.raises(SystemExit):
                entry()
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    @pytest.mark.skipif(os.name == "nt", reason="pipes are otherwise there")
    def test_a_reader_that_leaves_is_no_failure_of_ours(self) -> None:
        words = [sys.executable, "-m", "tlbvfi", "plan", "3840x2160"]
        process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()
        _, said = ended(process)
        assert process.returncode == 1
        assert said == b""

    def test_a_video_that_was_cut_short_is_said(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = video.probe(clip)
        for stated, said in ((5, False), (30, True)):
            monkeypatch.setattr(sources, "probe", lambda *_, count=stated: dataclasses.replace(info, frame_count=count))
            code, out, err = run("interpolate", clip, tmp_path / f"{stated}.mp4", "--model", "MODEL", "--steps", 3)
            assert code == 0 and "5 frames" in out
            assert ("ended after 3 of 30 frames" in err) == said


class TestMemoryOfTheComputer:
    @pytest.fixture
    def chosen(self, monkeypatch: pytest.MonkeyPatch) -> list[Plan | None]:
        """The plans of the runs."""
        plans: list[Plan | None] = []
        whole = engine.interpolate_timeline

        def spied(*args: Any, plan: Plan | None, **kwargs: Any) -> Iterator[Output]:
            plans.append(plan)
            return whole(*args, plan=plan, **kwargs)

        monkeypatch.setattr(engine, "interpolate_timeline", spied)
        return plans

    @pytest.fixture
    def available(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Say that the computer has so many bytes left."""

        def says(size: float) -> None:
            told = tmp_path / "meminfo"
            told.write_text(f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:   {round(size) // 1024} kB\n")
            monkeypatch.setattr(device_memory, "_MEMINFO", told)

        return says

    def test_what_is_available_is_planned(
        self, tmp_path: Path, clip: Path, run: Runner, chosen: list[Plan | None], available: Callable[[float], None]
    ) -> None:
        whole, *_, least = candidates(24, 40, torch.float32, 0.5, TINY, device=CPU)
        for free in (2**40, 512 * 2**20 + least.peak_bytes - least.weight_bytes + 1024):
            available(free)
            assert run("interpolate", clip, tmp_path / f"{free}.mp4", "--model", "MODEL")[0] == 0
        assert chosen[0] == whole
        assert chosen[1] is not None
        assert chosen[1].peak_bytes <= least.peak_bytes < whole.peak_bytes
        available(2**20)
        code, out, err = run("interpolate", clip, tmp_path / "no.mp4", "--model", "MODEL")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "GiB at least" in err
        assert len(chosen) == 2
        assert run("interpolate", clip, tmp_path / "yes.mp4", "--model", "MODEL", "--memory", 1)[0] == 0

    def test_no_limit_where_nothing_is_said(
        self, tmp_path: Path, clip: Path, run: Runner, chosen: list[Plan | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(device_memory, "_MEMINFO", tmp_path / "nothing")
        assert run("interpolate", clip, tmp_path / "out.mp4", "--model", "MODEL")[0] == 0
        assert chosen == [None]

    @pytest.mark.parametrize(("own", "room", "kept"), [(True, True, 1), (True, False, 0), (False, True, 0)])
    def test_freed_memory_is_kept_where_there_is_room_for_its_gaps(
        self,
        tmp_path: Path,
        clip: Path,
        tiny_checkpoint: Path,
        available: Callable[[float], None],
        monkeypatch: pytest.MonkeyPatch,
        own: bool,
        room: bool,
        kept: int,
    ) -> None:
        calls: list[None] = []
        monkeypatch.setattr(interpolate_run, "keep_freed_memory", lambda: calls.append(None))
        available(2**40)
        peak = tlbvfi.plan(24, 40, torch.float32, params=TINY, device=CPU).peak_bytes
        words = ["interpolate", clip, tmp_path / "out.mp4", "--model", tiny_checkpoint]
        words += [] if room else ["--memory", 2 * peak / 2**30]
        assert main([str(word) for word in words], own_process=own) == 0
        assert len(calls) == kept


class TestPlan:
    def test_a_table(self, run: Runner) -> None:
        """Both dtypes, whole first, then in strips that take less and less."""
        code, out, err = run("plan", "1920x1080")
        assert (code, err) == (0, "")
        title, heads, *rows, _, note = out.splitlines()
        assert "1920x1080" in title
        assert heads.split() == [
            "dtype",
            "padded",
            "to",
            "weights",
            "peak",
            "rows",
            "at",
            "once",
            "pairs",
            "at",
            "once",
            "CUDA",
            "graphs",
        ]
        assert "gaps of its allocator" in note
        for dtype, least in (("float32", 3.0), ("float16", 1.7)):
            cells = [row.split() for row in rows if dtype in row]
            assert {cell[1] for cell in cells} == {"2048x1280"}
            peaks, strips = [float(cell[4]) for cell in cells], [int(cell[6]) for cell in cells]
            assert strips[:2] == [1280, 1280]
            assert [cell[8] for cell in cells] == ["yes", *["no"] * (len(cells) - 1)]
            assert strips == sorted(strips, reverse=True)
            assert peaks[0] > peaks[1] > peaks[2] > peaks[-1]
            assert peaks[-1] < least

    @pytest.mark.parametrize(("vram", "chosen"), [("8", "1280"), ("1.7", None), ("0.5", "")])
    def test_what_fits(self, run: Runner, vram: str, chosen: str | None) -> None:
        code, out, _ = run("plan", "1920x1080", "--dtype", "fp16", "--vram", vram)
        assert code == 0
        assert f"fits {vram} GiB" in out
        rows = [line.split() for line in out.splitlines() if line.lstrip().startswith("float16")]
        assert ("1920x1080 at flow scale 0.5 in float16 needs" in out) == (chosen == "")
        for row in rows:
            assert (row[-1] == "no") == (float(row[4]) > float(vram))
        picked = [row[6] for row in rows if row[-1] == "chosen"]
        assert len(picked) == (chosen != "")
        assert picked == [chosen] if chosen else "1280" not in picked

    @pytest.mark.parametrize("size", ["", "1920", "1920x", "x1080", "0x10", "-1x5", "1920x1080x3", "axb", "1e3x10"])
    def test_bad_sizes(self, run: Runner, size: str) -> None:
        code, _, err = run("plan", "--", size)
        assert code == 2
        assert "WIDTHxHEIGHT" in err
        assert err.splitlines()[1:] == ["Example: python -m tlbvfi plan 3840x2160 --vram 8"]

    @pytest.mark.parametrize("vram", ["0", "-1", "much", "nan", "inf"])
    def test_bad_memory(self, run: Runner, vram: str) -> None:
        code, _, err = run("plan", "64x64", f"--vram={vram}")
        assert code == 2
        assert "GiB such as 8" in err


class TestConvert:
    def test_both_load_times(self, run: Runner, tmp_path: Path, hollow_state: dict[str, torch.Tensor]) -> None:
        source, target = tmp_path / "vimeo_unet.pth", tmp_path / "small.safetensors"
        torch.save({"model": hollow_state}, source)
        code, out, _ = run("convert", source, target, "--dtype", "float16")
        assert code == 0
        first, second = out.splitlines()
        assert first.strip().startswith("source:")
        assert second.strip().startswith("converted:")
        assert "loads in" in first
        assert "loads in" in second
        assert 85e6 < target.stat().st_size < 95e6

    @pytest.mark.parametrize(
        ("source", "target", "dtype", "said"),
        [
            ("nowhere.pth", "a.safetensors", "float32", "does not exist"),
            ("text.pth", "a.safetensors", "float32", "not a checkpoint"),
            ("text.pth", "a.pth", "float32", "must end in .safetensors"),
            ("text.pth", "nowhere/a.safetensors", "float32", "does not exist"),
            ("text.pth", "a.safetensors", "bfloat16", "float32 or float16"),
        ],
    )
    def test_bad_input(
        self,
        run: Runner,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        source: str,
        target: str,
        dtype: str,
        said: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("text.pth").write_text("text")
        code, _, err = run("convert", source, target, "--dtype", dtype)
        assert code == 2
        assert said in err
        assert len(err.splitlines()) == 1 + ("Example: python -m tlbvfi convert" in err)
        assert [p.name for p in tmp_path.iterdir()] == ["text.pth"]


class TestDemo:
    def test_with_a_model(self, run: Runner, tmp_path: Path) -> None:
        code, _, _ = run("demo", "--model", "MODEL", "--output", tmp_path / "a" / "b", "--device", "cpu")
        assert code == 0
        made = video.probe(tmp_path / "a" / "b" / "demo.mp4")
        assert made.fps == 2 * (video.probe(demo.CLIP).fps or 0)
        assert made.frame_count == 7
        picture = video.read_picture(tmp_path / "a" / "b" / "demo.png")
        assert picture.shape == (made.height, 4 * made.width + 3 * 4, 3)
        before, new, after, average = (
            picture[:, i * (made.width + 4) : i * (made.width + 4) + made.width] for i in range(4)
        )
        assert (average - (before + after) / 2).abs().max() < 1.5 / 255
        assert (before - after).abs().mean() > 0.01
        assert not torch.equal(new, average)

    def test_outside_a_clone(self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "CLIP", tmp_path / "docs" / "demo.mp4")
        code, _, err = run("demo", "--output", tmp_path)
        assert code == 2
        assert "clone of the repository" in err


def test_an_interruption_is_130(run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> object:
        yield shown(frames(1, 24, 40)[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "interpolate_timeline", interrupted)
    code, _, err = run("interpolate", clip, tmp_path / "out.mp4", "--model", "MODEL")
    assert code == 130
    assert "interrupted" in err
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_no_command_is_one_sentence_and_an_example(run: Runner) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    sentence, example = err.splitlines()
    assert "COMMAND" in sentence
    assert example.startswith("Example: python -m tlbvfi ")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_is_in_its_help_and_beside_its_usage_errors_and_in_the_grammar(
    run: Runner, command: str
) -> None:
    example = run(command, "--help")[1].splitlines()[-1]
    code, out, err = run(
        command, "--no-such-option", *("a", "b")[: 2 if command in ("interpolate", "convert", "migrate") else 0]
    )
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == [example]
    shown = example.removeprefix("Example: python -m tlbvfi ").split()
    assert shown[0] == command
    assert parser().parse_args(shown).command == command

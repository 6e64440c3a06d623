"""How a command ends: by signals at any moment, with streams that are closed, and what it says of strange names."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tiny import frames
from tlbvfi import engine, video
from tlbvfi.commands import signals
from tlbvfi.commands.main import entry, main
from tlbvfi.commands.signals import Ending, handle, leave_at_once, starting
from tlbvfi.conversion import convert
from tlbvfi.outputs import Output

REPOSITORY = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and streams are otherwise there")
Runner = functools.partial[tuple[int, str, str]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames of 16x16."""
    path = tmp_path / "clip.mkv"
    video.write_video(path, frames(3, 16, 16), Fraction(25))
    return path


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Runs ``interpolate`` with a very small model in this process: exit code, stdout, stderr."""

    def running(*arguments: object) -> tuple[int, str, str]:
        words = ["interpolate", *map(str, arguments), "--model", str(tiny_checkpoint), "--device", "cpu"]
        code = main([*words, "--steps", "3", "--memory", "1"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return functools.partial(running)


@pytest.fixture
def handlers() -> Iterator[None]:
    """What signals do is as before afterwards."""
    before = {number: signal.getsignal(number) for number in signals._NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """A command line of ours in a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    words = [sys.executable, "-m", "tlbvfi", *words]
    return subprocess.run(words, text=True, timeout=60, check=False, **streams)  # type: ignore[call-overload,no-any-return]


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["argparse", "torch"])
def test_signals_while_packages_are_imported(tmp_path: Path, module: str, name: str) -> None:
    """One that is late, and one that the grammar needs."""
    number = getattr(signal, name)
    (tmp_path / f"{module}.py").write_text(f"import os, time\nos.kill(os.getpid(), {number})\ntime.sleep(9)\n")
    found = ended(
        ["plan", "64x64"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    said = "\ntlbvfi: interrupted, nothing was left half-written.\n" if name == "SIGINT" else ""
    assert (found.returncode, found.stdout, found.stderr) == (128 + number, "", said)


@POSIX
def test_a_signal_that_comes_again_does_not_break_off_the_cleaning_up(
    monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    times = iter([10.0, 11.9, 13.0, 20.0])
    # Not for other threads, which look at the clock too.
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: next(times)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started the tests may ignore
    handle(Ending())
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
        with pytest.raises(kind):
            signal.raise_signal(number)
        if number == signal.SIGINT:
            signal.raise_signal(number)


@POSIX
def test_only_our_own_handlers_give_way_while_packages_are_imported(handlers: None) -> None:
    ours = Ending()
    signal.signal(signal.SIGTERM, ours)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with starting():
        assert signal.getsignal(signal.SIGTERM) is leave_at_once
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is ours


@POSIX
@pytest.mark.parametrize("ignored", [True, False])
def test_a_run_under_nohup_goes_on_when_the_terminal_is_closed(
    clip: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, handlers: None, ignored: bool
) -> None:
    def closed(*args: object, **kwargs: object) -> Iterator[Output]:
        for frame in frames(3, 16, 16):
            yield Output(Fraction(0), frame)
            signal.raise_signal(signal.SIGHUP)

    target = clip.with_name("out.mkv")
    words = ["tlbvfi", "interpolate", clip, target, "--model", tiny_checkpoint, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    monkeypatch.setattr(engine, "interpolate_timeline", closed)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    with pytest.raises(SystemExit) as stop:
        entry()
    assert stop.value.code == (0 if ignored else 128 + signal.SIGHUP)
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.mkv"] + ["out.mkv"] * ignored


@POSIX
class TestStreams:
    @pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed_ones(self, tmp_path: Path, streams: str) -> None:
        words = f'"{sys.executable}" -m tlbvfi download nowhere {streams}'
        found = subprocess.run(
            ["sh", "-c", words], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
        )
        said = "" if "2>" in streams else "tlbvfi download: nowhere is not a folder.\n"
        assert (found.returncode, found.stdout, found.stderr) == (2, "", said)

    @pytest.mark.parametrize("words", [["--help"], ["download", "nowhere"]])
    def test_whoever_reads_has_left(self, words: list[str]) -> None:
        read, write = os.pipe()
        os.close(read)
        if words == ["--help"]:
            found = ended(words, cwd=REPOSITORY, stdout=write)
            assert found.stderr == "" and found.returncode in (0, 1)  # argparse says nothing of what it cannot write
        else:
            assert ended(words, cwd=REPOSITORY, stderr=write).returncode == 1
        os.close(write)

    def test_a_stream_that_does_not_know_all_letters(self, tmp_path: Path) -> None:
        found = ended(
            ["download", os.fsdecode(b"\xff\xc3\xa9")], cwd=REPOSITORY, env={**os.environ, "PYTHONIOENCODING": "ascii"}
        )
        assert (found.returncode, found.stderr) == (2, "tlbvfi download: \\udcff\\xe9 is not a folder.\n")


@POSIX
@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xfe.mkv"), "a\n\x1b[31mb.mkv", "-a.mkv", " .mkv", "a b%d'\".mkv"])
def test_strange_names(run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = [Output(Fraction(0), frame) for frame in frames(5, 16, 16)]
    monkeypatch.setattr(engine, "interpolate_timeline", lambda *_, **__: iter(made))
    source, target = clip.with_name(f"s{name}"), clip.with_name(name)
    clip.rename(source)
    code, said, told = run(source, target)
    assert (code, len(list(video.read_frames(target)))) == (0, 5), told
    line, end = said[:-1], said[-1]
    assert line.isprintable() and line.endswith(": 5 frames of 16x16 at 50 fps") and end == "\n"
    code, _, told = run(source, target)
    assert code == 2 and "--force" in told and told[:-1].isprintable()
    code, _, told = run(f"{source}x", target)
    assert code == 2 and "does not exist" in told and told[:-1].isprintable()


@pytest.mark.parametrize(
    "words",
    [
        ["", "out.mkv"],
        ["clip.mkv", ""],
        ["clip.mkv", "out.mkv", "--cuts-picture", ""],
        ["clip.mkv", "out.mkv", "--scene-cut", "--cuts-picture", "cuts.gif"],
        ["clip.mkv", "out.mkv", "--scene-cut", "--cuts-picture", "./clip.mkv"],
        ["clip.mkv", "out.mkv", "--scene-cut", "--cuts-picture", "out.mkv", "--force"],
        ["pictures", "out.mkv", "--input-fps", "5", "--scene-cut", "--cuts-picture", "pictures/cuts.png"],
        ["-clip.mkv", "out.mkv"],
        ["clip.mkv", "out.mkv", "\x1b[31m\n"],
        ["a\0.mkv", "out.mkv"],
        ["x" * 300, "out.mkv"],
        ["clip.mkv", "x" * 300],
    ],
)
def test_names_that_are_refused_before_any_work(
    run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(clip.parent)
    monkeypatch.setattr(engine, "interpolate_timeline", lambda *_, **__: pytest.fail("work has begun"))
    video.write_pictures(Path("pictures"), iter(frames(2, 16, 16)))
    there = sorted(clip.parent.rglob("*"))
    code, out, told = run(*words)
    sentence, *example = told.splitlines()
    assert (code, out, sentence.isprintable()) == (2, "", True), told
    assert len(example) == sentence.startswith("python -m tlbvfi interpolate: ")
    assert sorted(clip.parent.rglob("*")) == there


@POSIX
def test_a_device_is_not_replaced_by_weights(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "null.safetensors"
    target.symlink_to("/dev/null")
    with pytest.raises(ValueError, match="is a device or a pipe"):
        convert(tiny_checkpoint, target)
    assert main(["convert", str(tiny_checkpoint), str(target)]) == 2
    assert "is a device or a pipe" in capsys.readouterr().err
    assert target.is_symlink() and target.is_char_device()


@POSIX
@pytest.mark.parametrize("name", ["pipe.mkv", "null.mkv"])
def test_segments_need_a_file(run: Runner, clip: Path, name: str) -> None:
    os.mkfifo(clip.with_name("pipe.mkv"))
    clip.with_name("null.mkv").symlink_to("/dev/null")
    code, _, told = run(clip, clip.with_name(name), "--resume")
    assert (code, "--resume needs files" in told) == (2, True)

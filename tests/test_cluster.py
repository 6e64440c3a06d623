"""Segments made by workers under Ray: the same frames, and nothing lost however workers and drivers end."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.patience import Patience, ended
from tests.test_segments import two_scenes
from tests.test_video import with_sound
from tlbvfi import video
from tlbvfi.cluster import connection, driver
from tlbvfi.cluster.connection import ClusterError, connected
from tlbvfi.cluster.driver import Share, Workers, share
from tlbvfi.cluster.job import Failed, Fingerprint, Setup, Versions
from tlbvfi.cluster.worker import Worker
from tlbvfi.commands.main import main
from tlbvfi.segments import Journal
from tlbvfi.settings import Settings
from tlbvfi.video import Encoding

REPOSITORY = Path(__file__).resolve().parent.parent
#: However little memory is free, and however many cores there are.
ASKED = ("--steps", "3", "--memory", "1", "--batch-size", "1", "--codec", "ffv1", "--segment", "3", "--device", "cpu")
Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are ended otherwise there")


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """A Ray of two cores for this host alone, to which this process is connected."""
    pytest.importorskip("ray", reason=f"Ray is not installed: pip install '{connection.PACKAGE}'")
    with connected("local", cpus=2, dashboard=False) as package:
        yield package


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs ``interpolate`` with a very small model and one thread in this process: exit code, stdout, stderr."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def running(*arguments: object) -> tuple[int, str, str]:
        code = main(["interpolate", *ASKED, *map(str, arguments), "--model", str(tiny_checkpoint)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield running
    torch.set_num_threads(threads)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two scenes of six frames each, without loss."""
    video.write_video(tmp_path / "in.mkv", two_scenes(12), Fraction(25), encoding=Encoding("ffv1"))
    return tmp_path / "in.mkv"


def assert_same(one: Path, other: Path) -> None:
    """The same video: on some processors PyTorch's products by another number of threads differ in their last digits,
    so that a value here and there is rounded to the next of 255."""
    pairs = list(zip(video.read_frames(one), video.read_frames(other), strict=True))
    assert len(pairs) > 10
    differences = torch.stack([(a - b).abs() * 255 for a, b in pairs])
    assert differences.amax() < 1.5 and differences.mean() < 0.01, (differences.amax(), differences.mean())


def free_cores(ray: ModuleType) -> float:
    cores: float = ray.available_resources().get("CPU", 0.0)
    return cores


def wait_for_cores(ray: ModuleType) -> None:
    """Until no worker is left."""
    patience = Patience()
    while free_cores(ray) < 2:
        patience.wait("the end of the workers", 0.1)


def test_frames_are_those_of_a_single_run_though_a_worker_is_killed(
    ray: ModuleType, run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--fps", "40", "--loop", "--scene-cut")
    whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    assert run(clip, whole, *asked)[0] == 0
    ask, killed = Workers._ask, []

    def kill_one(workers: Workers) -> None:
        busy = [member for member in workers.members if member.hello and member.segment]
        if busy and not killed:
            killed.append(busy[0].hello.pid)  # type: ignore[union-attr]
            os.kill(killed[0], signal.SIGKILL)
        ask(workers)

    monkeypatch.setattr(Workers, "_ask", kill_one)
    code, said, told = run(clip, target, *asked, "--cluster", "local", "--workers", 2, "--source", "sent")
    assert code == 0, told
    assert len(killed) == 1
    assert "is lost, and another one takes its place" in told
    assert "and is tried again" in told
    assert f"{target}: 20 frames of 30x20 at 40 fps\n2 scene cuts, before frame 6 " in said
    assert_same(whole, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv", "whole.mkv"]
    wait_for_cores(ray)


def test_what_is_made_stays_when_the_disk_is_full_the_run_is_cancelled_and_the_driver_is_killed(
    ray: ModuleType, run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    asked = (clip, target, "--scene-cut", "--hold-last", "--cluster", "local", "--workers", 1)
    assert run(clip, whole, *asked[2:4])[0] == 0
    journal = Journal.folder_of(target) / "journal.json"

    def made() -> dict[str, int]:
        known: dict[str, int] = json.loads(journal.read_text())["made"] if journal.exists() else {}
        return known

    with monkeypatch.context() as patch:
        patch.setattr(driver, "atomic", lambda path: full_disk(path))
        code, _, told = run(*asked)
    assert (code, made()) == (1, {}), told
    assert "No space left" in told
    take = driver._Run.take

    def then_cancel(self: Any, *words: Any) -> None:
        take(self, *words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver._Run, "take", then_cancel)
        code, _, told = run(*asked)
    assert code == 130
    assert "1 of 4 segments are safe" in told
    assert list(made()) == ["0"]
    wait_for_cores(ray)
    words = [*asked[:-3], ray.get_runtime_context().gcs_address, *asked[-2:], *ASKED, "--model", tiny_checkpoint]
    process = subprocess.Popen(
        [sys.executable, "-m", "tlbvfi", "interpolate", *map(str, words)], cwd=REPOSITORY, stderr=subprocess.PIPE
    )
    try:
        patience = Patience(process.pid)
        while len(made()) < 2 and process.poll() is None:
            patience.wait("the second segment", 0.005)
        process.send_signal(signal.SIGKILL)
        ended(process)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
    wait_for_cores(ray)
    code, said, told = run(*asked[:4], "--resume")
    assert code == 0, told
    assert " of 4 segments are made already" in told
    assert "1 scene cut, before frame 6 " in said
    assert_same(whole, target)
    assert not journal.parent.exists()


def full_disk(path: Path) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_segment_that_fails_three_times_is_named_and_sound_goes_along_afterwards(
    ray: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = with_sound(tmp_path / "in.mp4", "aac", seconds=0.8), tmp_path / "out.mkv"
    give, kept = driver._Run.give, source.with_name("kept.mp4")

    def vanish(self: Any, member: Any) -> None:
        if self._journal.made and source.exists():
            source.rename(kept)
        give(self, member)

    with monkeypatch.context() as patch:
        patch.setattr(driver._Run, "give", vanish)
        code, _, told = run(source, target, "--cluster", "--source", "shared")
    assert code == 1
    assert "failed 3 times, the last time with worker" in told
    assert f"{source} is not there as it was when the run was begun" in told
    kept.rename(source)
    code, _, told = run(source, target, "--cluster", "--source", "shared")
    assert code == 0, told
    assert "segments are made already" in told
    assert (video.probe(target).sound, len(list(video.read_frames(target)))) == (1, 15)


def test_a_cluster_that_has_no_cards(ray: ModuleType, run: Run, clip: Path) -> None:
    code, _, told = run(clip, clip.with_name("out.mkv"), "--cluster", "--workers", 5)
    assert (code, "has 2 cores for 5 workers" in told) == (2, True)
    with pytest.raises(ClusterError, match="has 0 graphics cards"):
        share([{"CPU": 2}], None, 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cluster", "nowhere"), "such as 10.0.0.1:6379"),
        (("--cluster", "ray://10.0.0.1:10001"), "such as 10.0.0.1:6379"),
        (("--cluster", "127.0.0.1:1"), "no Ray answers at 127.0.0.1:1; start one with: ray start --head"),
        (("--workers", 2), "--workers is for the workers of --cluster"),
        (("--source", "sent"), "--source is for the workers of --cluster"),
        (("--cluster", "--num-gpus", "0.5"), "--device cpu needs no card"),
        (("--cluster", "--num-gpus", "2"), "between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(clip: Path, run: Run, words: tuple[object, ...], said: str) -> None:
    if "127.0.0.1:1" in words:
        package = pytest.importorskip("ray")
        if package.is_initialized():
            with pytest.raises(ClusterError, match=said):
                connection._connect(package, "127.0.0.1:1")
            return
    if "--cluster" in words:
        pytest.importorskip("ray")
    code, _, told = run(clip, clip.with_name("out.mkv"), *words)
    assert code == 2
    assert said in told
    assert [path.name for path in clip.parent.iterdir()] == ["in.mkv"]


def test_what_cannot_be_joined_and_a_ray_that_is_missing(clip: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name, said in (
        ("out.gif", "--cluster needs files"),
        ("out", "--cluster needs files"),
        ("o.mkv", "pip install"),
    ):
        code, _, told = run(clip, clip.with_name(name), "--codec", "auto", "--cluster")
        assert code == 2
        assert said in told
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([{"CPU": 2}], None, None, Share(1, 0, 2)),
        ([{"CPU": 2}], 2, None, Share(2, 0, 1)),
        ([{"CPU": 8}, {"CPU": 4}], None, None, Share(2, 0, 4)),
        ([{"CPU": 8}, {"CPU": 4}], 5, None, Share(5, 0, 2)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 2}], None, None, Share(4, 1, 2)),
        ([{"CPU": 64, "GPU": 8}], 3, None, Share(3, 1, 4)),
        ([{"CPU": 16, "GPU": 2}], None, 0.5, Share(4, 0.5, 4)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 8}], None, 0.0, Share(2, 0, 8)),
    ],
)
def test_how_a_cluster_is_divided(
    nodes: list[dict[str, float]], workers: int | None, gpus: float | None, expected: Share
) -> None:
    assert share(nodes, workers, gpus) == expected


def test_a_worker_says_why_it_cannot_help(tiny_checkpoint: Path) -> None:
    seen = Fingerprint.of(tiny_checkpoint)
    settings, path = Settings(sample_steps=3), str(tiny_checkpoint)
    worker = Worker()
    logging.getLogger().removeHandler(worker._told)
    logging.captureWarnings(False)

    def answer(versions: Versions, weights: Fingerprint, device: str) -> str:
        given = worker.prepare(
            Setup(versions, path, weights, device, None, 1, (20, 30), settings, 1 << 30, 1, tiny_checkpoint, seen)
        )
        assert isinstance(given, Failed)
        return given.why

    assert "tlbvfi is 0.0.1 there" in answer(Versions(tlbvfi="0.0.1"), seen, "cpu").replace(Versions().tlbvfi, "0.0.1")
    assert "torch is" in answer(Versions(torch="1.0"), seen, "cpu")
    assert "is another model" in answer(Versions(), Fingerprint(1, 2, "3"), "cpu")
    if not torch.cuda.is_available():
        assert "finds no graphics card" in answer(Versions(), seen, "cuda")


def test_the_package_is_that_of_the_extra() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'cluster = ["{connection.PACKAGE}"]' in text


def test_a_host_without_this_version_is_said_in_a_sentence() -> None:
    """As Ray writes it: what is missing is at the end, behind a page of colours and places."""
    said = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::Worker.__init__()\x1b[39m "
        f"(pid=7, ip=10.0.0.2, repr={'<object>' * 80})\n"
        "RuntimeError: The actor with name Worker failed to import on the worker.\n\n"
        "\x1b[36mray::Worker.__init__()\x1b[39m\n  ^^^^^\nModuleNotFoundError: No module named 'tlbvfi.cluster'"
    )
    with pytest.raises(ClusterError, match=r"install the same there: ModuleNotFoundError: No module named 'tlbvfi\."):
        Workers.__new__(Workers)._gone(None, RuntimeError(said))  # type: ignore[arg-type]

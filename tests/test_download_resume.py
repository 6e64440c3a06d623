"""What is left of a download that was broken off, and what the next one makes of it."""

from __future__ import annotations

import functools
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hub import Answer, Hub, serving, use
from tlbvfi import fetching, incomplete
from tlbvfi.commands.main import main
from tlbvfi.fetching import Patience

Runner = functools.partial[tuple[int, str]]
NAME = "vimeo_unet.pth"
WHOLE = b"PK\x03\x04" + random.Random(0).randbytes(2_500_000)
SHA256 = hashlib.sha256(WHOLE).hexdigest()
LEFT, OTHER = f"{NAME}.{SHA256[:16]}.incomplete", f"{NAME}.{'0' * 16}.incomplete"
#: A share of it that is worth keeping, and what is said then.
SHARE, GOES_ON = 1_200_000, "; the next run goes on where it stopped.\n"
POSIX = pytest.mark.skipif(os.name == "nt", reason="links and pipes are otherwise there")


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with serving() as server:
        yield server


@pytest.fixture
def run(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runner:
    """Downloads into a folder from the hub on this machine: exit code, and the last line of stderr."""
    use(server, monkeypatch, fetching)
    monkeypatch.setattr(fetching, "Patience", functools.partial(Patience, tries=3, pause=0.01))  # nothing is slow here
    monkeypatch.setattr(Hub, "weights", WHOLE)

    def running(*words: object) -> tuple[int, str]:
        Hub.asked.clear()
        code = main(["download", str(tmp_path), *map(str, words)])
        return code, capsys.readouterr().err

    return functools.partial(running)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begins() -> list[int]:
    """Where the hub was asked to begin, without those to which it led on."""
    return [int((each.split("bytes=") + ["0"])[1].rstrip("-")) for each in Hub.asked if "/resolve/" in each]


@pytest.mark.parametrize("to", [[], ["--force"], ["--revision", "v2"]], ids=["anew", "replacing", "revision"])
def test_the_next_run_goes_on(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: list[str]) -> None:
    if to == ["--force"]:
        (tmp_path / NAME).write_bytes(b"old")
    monkeypatch.setattr(Hub, "fault", lambda hub: hub.part(SHARE) if len(Hub.asked) == 1 else hub.send(404))
    code, err = run(*to)
    assert (code, err) == (
        1,
        f"tlbvfi download: {NAME} could not be downloaded: 127.0.0.1 has no such file (404){GOES_ON}",
    )
    assert (tmp_path / LEFT).read_bytes() == WHOLE[:SHARE] and names(tmp_path) == [
        *([NAME] if "--force" in to else []),
        LEFT,
    ]
    monkeypatch.setattr(Hub, "fault", None)
    assert run(*to) == (0, "") and begins() == [SHARE]
    assert names(tmp_path) == [NAME] and (tmp_path / NAME).read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        ({LEFT: WHOLE}, [len(WHOLE)]),
        ({LEFT: WHOLE[:-1]}, [len(WHOLE) - 1]),
        ({LEFT: WHOLE + b"more"}, [len(WHOLE) + 4, 0]),
        ({LEFT: WHOLE[:SHARE] + bytes(5000)}, [SHARE]),
        ({LEFT: WHOLE[:9999] + b"X" + WHOLE[10_000:SHARE]}, [SHARE, 0]),
        ({LEFT: WHOLE[:-1] + b"X"}, [len(WHOLE), 0]),
        ({LEFT: b"X" + WHOLE[1:SHARE]}, [0]),
        ({LEFT: WHOLE[:1_000_000]}, [0]),
        ({LEFT: b""}, [0]),
        ({OTHER: WHOLE[:SHARE]}, [SHARE, 0]),
        ({LEFT: WHOLE[:1_000_000], OTHER: b""}, [0]),
    ],
    ids=["whole", "nearly whole", "longer", "zeros of a power failure", "damaged", "damaged and whole", "damaged begin",
         "little", "nothing", "another file", "two"],
)  # fmt: skip
def test_whatever_is_left_the_file_is_right(
    run: Runner, tmp_path: Path, left: dict[str, bytes], asked: list[int]
) -> None:
    for name, data in left.items():
        (tmp_path / name).write_bytes(data)
    assert run() == (0, "") and begins() == asked
    assert names(tmp_path) == [NAME] and (tmp_path / NAME).read_bytes() == WHOLE


def in_its_place() -> dict[str, Callable[[Path], object]]:
    return {
        "link": lambda path: path.symlink_to("other"),
        "hard link": lambda path: path.hardlink_to(path.with_name("other")),
        "link to itself": lambda path: path.symlink_to(path.name),
        "folder": lambda path: path.mkdir(),
        "pipe": lambda path: os.mkfifo(path),
    }


@POSIX
@pytest.mark.parametrize("kind", in_its_place())
def test_what_is_not_ours_is_left_alone(run: Runner, tmp_path: Path, kind: str) -> None:
    (tmp_path / "other").write_bytes(WHOLE[:SHARE])
    in_its_place()[kind](tmp_path / LEFT)
    assert run() == (0, "") and begins() == [0]
    assert names(tmp_path) == ["other", NAME, LEFT] and (tmp_path / NAME).read_bytes() == WHOLE
    assert (tmp_path / "other").read_bytes() == WHOLE[:SHARE]


@POSIX
@pytest.mark.parametrize(("mode", "taken"), [(0o777, True), (0o1777, False)])
def test_what_is_of_another_user(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    """It is taken up if it is the folder's owner's and could be renamed."""
    (tmp_path / LEFT).write_bytes(WHOLE[:SHARE])
    tmp_path.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert run() == (0, "") and begins() == [SHARE if taken else 0]
    assert names(tmp_path) == [NAME, *([] if taken else [LEFT])] and (tmp_path / NAME).read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("fault", "said", "kept"),
    [
        (lambda hub: hub.send(503), "fails (503)", True),
        (lambda hub: hub.send(200, b"<html>", Content_Type="text/html"), "a page instead", True),
        (lambda hub: hub.send(200, b"garbage" * 999), "something else", True),
        (lambda hub: hub.send(206, b"a", Content_Range=f"bytes 5-5/{len(WHOLE)}", ETag=SHA256), "another part", True),
        (lambda hub: hub.lead_on(digest="1" * 64), "is not the file", False),
        (
            lambda hub: hub.send(206, WHOLE, Content_Range=f"bytes {SHARE}-9/{len(WHOLE)}", ETag=SHA256),
            "more than",
            False,
        ),
        (lambda hub: hub.send(200, WHOLE, ETag="abc"), "", False),
        (lambda hub: hub.send(200, WHOLE, ETag=SHA256), "", False),
        (lambda hub: hub.send(416) if hub.begin() else hub.lead_on(), "", False),
    ],
    ids=["busy", "page", "garbage", "another part", "wrong", "more", "no hash", "no ranges", "refused"],
)
def test_what_a_fault_leaves_of_an_earlier_run(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Answer, said: str, kept: bool
) -> None:
    """It stays as it was while it may be right, and goes with what is wrong or with the end."""
    (tmp_path / LEFT).write_bytes(WHOLE[:SHARE])
    monkeypatch.setattr(Hub, "fault", fault)
    code, err = run()
    assert (code, said in err, err.endswith(GOES_ON)) == (1 if said else 0, True, kept)
    assert names(tmp_path) == ([LEFT] if kept else [] if said else [NAME])
    assert all((tmp_path / name).read_bytes() == (WHOLE[:SHARE] if name == LEFT else WHOLE) for name in names(tmp_path))


@pytest.mark.parametrize(
    "fault",
    [
        lambda hub: hub.part(300_000),
        lambda hub: hub.lead_on(digest="0" * 64),
        lambda hub: hub.send(200, WHOLE[:SHARE], Content_Length=len(WHOLE)),
        lambda hub: hub.send(200, b"garbage" * 300_000, ETag=SHA256),
    ],
    ids=["little", "wrong", "no hash", "garbage"],
)
def test_what_is_not_kept(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Answer) -> None:
    monkeypatch.setattr(Hub, "fault", fault)
    code, err = run()
    assert (code, "goes on" in err, names(tmp_path)) == (1, False, [])


@pytest.mark.parametrize("other", [False, True], ids=["the same file", "another file"])
def test_one_at_a_time(run: Runner, tmp_path: Path, other: bool) -> None:
    path = tmp_path / (OTHER if other else LEFT)
    path.write_bytes(WHOLE[:SHARE])
    held = incomplete._opened(path)
    assert held is not None
    with held:
        code, err = run()
        assert (code, len(err.splitlines()), f"another run is downloading it just now, into '{path.name}'" in err) == (
            1,
            1,
            True,
        )
        assert "goes on" not in err and Hub.asked == [] and path.read_bytes() == WHOLE[:SHARE]
    assert run()[0] == 0 and names(tmp_path) == [NAME]


@pytest.mark.parametrize("share", [SHARE, 100_000])
def test_an_interruption_says_what_becomes_of_it(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    def tell(fetch: fetching._Fetch) -> None:
        if fetch._count >= share:
            raise KeyboardInterrupt

    monkeypatch.setattr(fetching._Fetch, "_tell", tell)
    code, err = run()
    kept = share == SHARE
    said = (
        "interrupted; the next run goes on where it stopped." if kept else "interrupted, nothing was left half-written."
    )
    assert (code, err, names(tmp_path)) == (130, f"\ntlbvfi download: {said}\n", [LEFT] if kept else [])


def test_a_full_disk_keeps_what_is_there(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = incomplete.Incomplete.write

    def full(file: incomplete.Incomplete, data: bytes) -> None:
        if (tmp_path / LEFT).stat().st_size >= SHARE:
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(incomplete.Incomplete, "write", full)
    said = f"tlbvfi download: {tmp_path / NAME} cannot be written (No space left on device){GOES_ON}"
    assert run() == (1, said) and names(tmp_path) == [LEFT]


def test_only_the_rest_has_to_fit(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = len(WHOLE) - SHARE
    monkeypatch.setattr(fetching, "shutil", SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=free)))
    (tmp_path / LEFT).write_bytes(WHOLE[: SHARE - 1])
    code, err = run()
    assert (code, "GB are free there; the next run" in err, names(tmp_path)) == (1, True, [LEFT])
    (tmp_path / LEFT).write_bytes(WHOLE[:SHARE])
    assert run() == (0, "") and names(tmp_path) == [NAME]


def test_what_has_come_is_on_the_disk_now_and_then(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(incomplete, "_SYNC", 1 << 19)
    monkeypatch.setattr(incomplete, "settle", lambda path: sizes.append(path.stat().st_size))
    assert run() == (0, "")
    assert len(sizes) >= 3 and all(b - a >= 1 << 19 for a, b in zip([0, *sizes], sizes, strict=False))


def test_a_file_that_cannot_be_locked_is_not_kept(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incomplete, "lock", lambda descriptor: False)
    monkeypatch.setattr(Hub, "fault", lambda hub: hub.part(SHARE) if len(Hub.asked) == 1 else hub.send(404))
    code, err = run()
    assert (code, "goes on" in err, names(tmp_path)) == (1, False, [])
    monkeypatch.setattr(Hub, "fault", None)
    assert run() == (0, "") and names(tmp_path) == [NAME]

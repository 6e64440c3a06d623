"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.patience import Patience
from tlbvfi.files import atomic, unwritable


def test_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def interrupted() -> None:
        with atomic(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    with atomic(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_nobody_elses_file_is_in_the_way(tmp_path: Path) -> None:
    others = [tmp_path / "a.json.partial", tmp_path / ".a.partial.json"]
    for other in others:
        other.write_text("precious")
    with atomic(tmp_path / "a.json") as partial:
        partial.write_text("new")
    assert [other.read_text() for other in others] == ["precious"] * 2


def test_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 250}.json"
    assert unwritable(path) is None
    with atomic(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert "its name is not possible here" in str(unwritable(tmp_path / f"{'a' * 300}.json"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("before")
    link.symlink_to(target)
    with atomic(link) as partial:
        partial.write_text("after")
    assert link.is_symlink() and target.read_text() == "after"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert unwritable(pipe) is None
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with atomic(pipe) as file:
        file.write_text("through")
    Patience().joined(reader, "the end of the pipe")
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    assert "does not exist" in str(unwritable(tmp_path / "no" / "a"))
    if Path("/proc").is_dir():
        assert "nothing can be written into the folder /proc" in str(unwritable(Path("/proc/a.json")))
    assert unwritable(tmp_path / "a.json") is None
    assert list(tmp_path.iterdir()) == []

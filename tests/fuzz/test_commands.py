"""Any words after `python -m tlbvfi`: no traceback, one sentence where they are refused, nothing left behind.

Whatever would take long or needs a model is left out; the checks before it are not.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import cases
from tlbvfi.commands import convert, demo, download, main, plan
from tlbvfi.commands.main import COMMANDS, parser

NAMES = tuple(command.__name__.rpartition(".")[2] for command in COMMANDS)
FILES = (
    "in.mp4",
    "out.mp4",
    "out.gif",
    "out",
    "pictures",
    "pictures/a.png",
    "-",
    "no/out.mp4",
    "out.xyz",
    ".",
    "",
    "x" * 300 + ".mp4",
)


def options() -> tuple[str, ...]:
    """All that the commands know."""
    found = parser()._subparsers._group_actions[0].choices.values()  # type: ignore[union-attr]
    return tuple(sorted({name for each in found for name in each._option_string_actions}))


values = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "3", "10", "-1", "1e999", "nan", "inf", "0.5", "1.01", "0.1", "24000/1001", "1/0", "25:1",
         "0/5", "1:30", "0:99:00", "99999999999999999999", "1920x1080", "0x5", "5x", "float16", "half", "auto", "cuda",
         "whole", "fast", "tight", "h264", "ffv1", "built-in", "tlbvfi-small", "true", "None", "²", "٣", "1_000",
         "+5", " 7 ", "1.", ".5", "--", "-", "=", "in.mp4", "out.mp4"]
    ),
    st.sampled_from(FILES),
    st.integers(-(10**25), 10**25).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_characters="\0/\\", codec="utf-8"), max_size=12),
)  # fmt: skip
given_options = st.one_of(
    st.sampled_from(options()).map(lambda name: [name]),
    st.tuples(st.sampled_from(options()), values).map(list),
    st.tuples(st.sampled_from(options()), values).map(lambda pair: ["=".join(pair)]),
    values.map(lambda value: [value]),
)
#: Words that are likely to be taken.
calls = st.one_of(
    st.tuples(st.just("interpolate"), st.sampled_from(FILES), st.sampled_from(FILES)),
    st.tuples(st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(NAMES), values),
    st.tuples(values),
    st.just(()),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to be in, with a file that says that it is a video, and a folder of pictures."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "in.mp4").write_bytes(b"no video")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"no picture")

    def nothing(options: Namespace) -> None:
        assert isinstance(options.command, str)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module in (convert, demo, download, plan):
            patch.setattr(module, "run", nothing)
        for name in ("interpolate_run", "bench_run"):
            work = ModuleType(name)
            work.run = nothing  # type: ignore[attr-defined]
            patch.setitem(sys.modules, f"tlbvfi.commands.{name}", work)
            patch.setattr(sys.modules["tlbvfi.commands"], name, work, raising=False)
        yield folder


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@cases(30)
@given(calls, st.lists(given_options, max_size=5), st.randoms(use_true_random=False))
@example(("interpolate", "in.mp4", "out.mp4"), [["--fps", "1/0"]], None)
@example(("interpolate", "in.mp4", "out.mp4"), [["--times", "²"]], None)
@example(("bench",), [["--json", "no/a.json"]], None)
@example(("demo",), [["a\nb"], ["--\x0c"]], None)
@example(("interpolate", "a\nb.mp4", "out.mp4"), [], None)
@example(("interpolate", "pictures", "-"), [["--start=1:99"], ["--end"]], None)
def test_any_words(folder: Path, call: tuple[str, ...], given: list[list[str]], random: object) -> None:
    groups = [*[[word] for word in call], *given]
    if random is not None and random.random() < 0.2:  # type: ignore[attr-defined]
        random.shuffle(groups)  # type: ignore[attr-defined]
    words = [word for group in groups for word in group]
    before, out, err = left(folder), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main(words)
    said = err.getvalue()
    assert code in (0, 1, 2)
    assert left(folder) == before and Path.cwd() == folder.resolve()
    assert (code == 0) == (said == "")
    if code:
        lines = said.splitlines()
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("Example: python -m tlbvfi")), said
        assert len(lines[0]) < 1500 and "Traceback" not in said
        assert lines[0].startswith(("python -m tlbvfi", "tlbvfi ")) and ": " in lines[0]
    assert os.listdir(folder / "pictures") == ["a.png"]

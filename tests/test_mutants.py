"""The lists of mutants fit the code: each applies to its file and is Python, and its tests are there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, listed
from tests.mutants.run import chosen

MUTANTS = listed()


def test_names_are_given_once() -> None:
    assert not [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1]
    assert all(re.fullmatch(r"[a-z0-9-]+", mutant.name) for mutant in MUTANTS)


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_they_apply(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    before = ast.dump(ast.parse(text))
    for mutant in MUTANTS:
        if mutant.file == file:
            changed = mutant.applied(text)
            times = text.count(mutant.before)
            assert changed is not None, f"{mutant.name} does not apply: {mutant.before!r} is there {times} times"
            assert ast.dump(ast.parse(changed)) != before, mutant.name
            assert mutant.why.endswith("."), mutant.name


@pytest.mark.parametrize("test", sorted({test for mutant in MUTANTS for test in mutant.tests}))
def test_their_tests_are_there(test: str) -> None:
    file, *names = test.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert Path(file).name.startswith("test_")
    assert all(re.search(rf"^ *(def|class) {name.partition('[')[0]}\b", text, re.MULTILINE) for name in names)


def test_some_can_be_chosen() -> None:
    some = [Mutant(name, file, "", "", "") for name, file in (("a", "x/y.py"), ("b", "x/z.py"), ("c", "xy.py"))]
    assert [m.name for m in chosen(some, [])] == ["a", "b", "c"]
    assert [m.name for m in chosen(some, ["x"])] == ["a", "b"]
    assert [m.name for m in chosen(some, ["c", "x/y.py"])] == ["a", "c"]
    with pytest.raises(SystemExit, match="no mutant of d"):
        chosen(some, ["d"])

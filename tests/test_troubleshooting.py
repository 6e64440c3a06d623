"""The messages that `docs/TROUBLESHOOTING.md` explains are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
#: Stands for what differs from time to time.
GAP = "…"
#: Letters that a message must have in common with the code to be that of the code, and letters of its longest part.
LEAST, LONGEST_LEAST = 12, 8


def quoted() -> list[str]:
    """The messages of the page: what is in backquotes in the first column of the tables about messages."""
    found: list[str] = []
    in_table = False
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.startswith("| message |"):
            in_table = True
        elif in_table:
            found += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return found


@cache
def said() -> tuple[str, ...]:
    """Every text of the code, with gaps for what is put into it."""
    modules = [path for folder in ("nodes", "utils", "tlbvfi") for path in sorted((ROOT / folder).rglob("*.py"))]
    kept = [path for path in modules if "training" not in path.parts]
    return tuple(text for path in kept for text in texts(ast.parse(path.read_text(encoding="utf-8"))))


def texts(tree: ast.AST) -> Iterator[str]:
    """All but docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [each.value if isinstance(each, ast.Constant) else GAP for each in node.values]
            yield without_formats("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield without_formats(node.value)


def without_formats(text: str) -> str:
    return re.sub(rf"{GAP}+", GAP, re.sub(r"%[\d.]*[sdfg]", GAP, text))


def is_said(message: str) -> bool:
    """Whether the parts of a message stand in one text in this order, each as it is."""
    parts = [part for part in message.split(GAP) if part.strip(" .,;:()")]
    if sum(map(len, parts)) < LEAST or max(map(len, parts)) < LONGEST_LEAST:
        return False
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    return any(pattern.search(text) for text in said())


@pytest.mark.parametrize("message", quoted())
def test_a_message_of_the_page_is_one_of_the_code(message: str) -> None:
    assert is_said(message)


def test_there_are_messages() -> None:
    assert len(quoted()) > 80
    assert len(set(quoted())) == len(quoted())


@pytest.mark.parametrize(
    "message",
    [
        "The video states no frame rate; give it two.",
        "then press R to refresh the list. There is no interpolation model yet",  # in another order
        "… must …",  # too little to be found by
        "…",
    ],
)
def test_others_are_not(message: str) -> None:
    assert not is_said(message)

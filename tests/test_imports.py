"""Imports point one way: no circle between modules, nor between folders, and nothing reaches back."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: What each part of the pack may import of the others.
ALLOWED = {"nodes": {"tlbvfi", "utils"}, "utils": set(), "tlbvfi": set()}


def modules() -> dict[str, Path]:
    """Every module of the pack by its dotted name; a package goes by its folder's."""
    found = {}
    for part in ALLOWED:
        for path in (ROOT / part).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the pack that one imports while it is imported itself, or later; those for types alone are not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        origin = ".".join(part for part in base if part)
        for alias in node.names:
            whole = f"{origin}.{alias.name}"
            found.add(whole if whole in known else origin)
    return {target for target in found if target in known and target != name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, set(known)) for name, path in known.items()}


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_graph_is_read(graph: dict[str, set[str]]) -> None:
    assert {"tlbvfi.model", "tlbvfi.interpolate"} <= graph["tlbvfi.engine"]
    assert {"nodes.run", "nodes.inputs", "tlbvfi.timeline"} <= graph["nodes.interpolator"]


def test_no_circle_between_modules(graph: dict[str, set[str]]) -> None:
    assert_no_circle(graph)


def test_no_circle_between_folders(graph: dict[str, set[str]]) -> None:
    """A folder inside a part counts as one thing; so does each file beside the folders."""
    folders = {name for name, path in modules().items() if path.name == "__init__.py" and "." in name}

    def place(name: str) -> str:
        return max((f for f in folders if name == f or name.startswith(f"{f}.")), key=len, default=name)

    between: dict[str, set[str]] = {}
    for name, targets in graph.items():
        between.setdefault(place(name), set()).update(place(t) for t in targets if place(t) != place(name))
    assert_no_circle(between)


def test_parts_import_only_what_they_may(graph: dict[str, set[str]]) -> None:
    for name, targets in graph.items():
        part = name.split(".")[0]
        assert {target.split(".")[0] for target in targets} <= ALLOWED[part] | {part}, name


def test_only_the_host_module_imports_comfyui() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            foreign = {each.split(".")[0] for each in names} & {"comfy", "folder_paths", "nodes", "utils", "server"}
            assert not foreign or name == "nodes.host", (name, foreign)

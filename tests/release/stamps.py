"""What our nodes in the example graphs say of the pack that they are from, as the front end writes it into graphs.

By `cnr_id`, the name in the registry, ComfyUI-Manager finds a pack that is missing; `ver` is the version that the graph
was saved with.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .archive import ROOT


def wanted(values: Mapping[str, Any]) -> dict[str, str]:
    """The properties, from `pyproject.toml`."""
    return {"cnr_id": values["project"]["name"], "ver": values["project"]["version"]}


def graphs(root: Path) -> list[Path]:
    """The files of the example graphs and of the blueprints."""
    return [path for folder in ("workflows", "subgraphs") for path in sorted(root.glob(f"{folder}/*.json"))]


def nodes_of(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a saved graph, those in its subgraphs too."""
    inside = saved.get("definitions", {}).get("subgraphs", [])
    return [*saved["nodes"], *(node for graph in inside for node in graph["nodes"])]


def unstamped(path: Path, keys: Collection[str], stamp: Mapping[str, str]) -> list[str]:
    """What is wrong with the stamps of a graph's nodes; `keys` are those of our nodes."""
    found, of = [], f"{stamp['cnr_id']} {stamp['ver']}"
    for node in nodes_of(json.loads(path.read_text(encoding="utf-8"))):
        have = {name: node["properties"].get(name) for name in stamp} if node.get("properties") else {}
        if node["type"] in keys and have != dict(stamp):
            found.append(f"{path.name}: {node['type']} is not said to be of {of}; `release --stamp` writes it.")
        if node["type"] not in keys and have.get("cnr_id") == stamp["cnr_id"]:
            found.append(f"{path.name}: {node['type']} is said to be a node of this pack, and is none.")
    return found


def stamp_all(keys: Collection[str], stamp: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """Write the stamps where they are not; returns the names of the graphs that were changed."""
    changed = []
    for path in graphs(root):
        text = path.read_text(encoding="utf-8")
        saved = json.loads(text)
        for node in nodes_of(saved):
            if node["type"] in keys:
                node["properties"] = {**node.get("properties", {}), **stamp}
        new = json.dumps(saved, indent=2, ensure_ascii="\\u" in text) + "\n"
        if saved != json.loads(text):
            path.write_text(new, encoding="utf-8")
            changed.append(path.name)
    return changed

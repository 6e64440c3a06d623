"""Older graphs with the present nodes: files of ComfyUI, of its front end or for its API. Needs no PyTorch."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from ..quoting import named, quoted
from . import rules
from .graphs import ApiGraph, Graph, Ids, Json, Report, UiGraph
from .kinds import JOINERS, PROCESSOR, SAVER

#: Of a file: far more than any graph has.
MOST_BYTES = 2**28


@dataclass(frozen=True)
class Migrated:
    """A graph's file with the present nodes.

    Attributes:
        data: of the file; the very same where there was nothing to change.
        lines: what was changed, and what was not and why, a line for each.
        changed: whether anything was.
    """

    data: bytes
    lines: tuple[str, ...]
    changed: bool


def migrate(data: bytes) -> Migrated:
    """Have present nodes stand for the older ones of a graph.

    Raises:
        ValueError: the file is no graph, in one sentence.
    """
    text, value = _parsed(data)
    report = Report()
    try:
        graphs = _graphs(value, report)
        for graph in graphs:
            rules.apply(graph)
        for graph in graphs:
            rules.joiners_left(graph)
        report.lines += _group_nodes(value)
        if not report.changed:
            return Migrated(data, tuple(report.lines), False)
        for graph in graphs:
            graph.settle()
        report.lines += _hidden(value, graphs)
        return Migrated(_written(text, value), tuple(report.lines), True)
    except RecursionError:
        raise ValueError("it is nested too deeply for a graph") from None


def _parsed(data: bytes) -> tuple[str, Any]:
    """A file's text and what it holds."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB, as no graph is")
    try:
        text = data.decode("utf-8-sig")
        return text, json.loads(text, parse_float=_finite)
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply for a graph") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg} in line {error.lineno})") from None
    except ValueError:  # of a number
        raise ValueError("it holds a number that is too large") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError
    return number


def _written(text: str, value: Any) -> bytes:
    """A value in the manner of the file that it was in."""
    indent = re.match(r"\s*\{\r?\n([ \t]+)", text)
    spaced = indent is not None or re.search(r'": ', text[:1000]) is not None
    options: Json = {"indent": indent[1] if indent else None, "separators": None if spaced else (",", ":")}
    written = json.dumps(value, ensure_ascii=False, **options)
    try:
        return (written + "\n" * text.endswith("\n")).encode()
    except UnicodeEncodeError:  # half a character, which JSON can hold
        return (json.dumps(value, **options) + "\n" * text.endswith("\n")).encode()


def _graphs(value: Any, report: Report) -> list[Graph]:
    """The graphs of a file: one, and those inside it."""
    if not isinstance(value, dict):
        raise ValueError(f"it holds {quoted(value)} and no graph")
    if "nodes" not in value:
        return [_api(value, report)]
    ids = Ids()
    scopes = _scopes(value)
    for scope, where in scopes:
        _check(scope, where)
        ids.seen(scope)
    exposed = _exposed([scope for scope, _ in scopes])
    return [UiGraph(scope, ids, report, where, exposed.get(str(scope.get("id")), {})) for scope, where in scopes]


def _api(value: Json, report: Report) -> Graph:
    nodes = value.values()
    if not value or not all(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in nodes):
        raise ValueError("it is no graph: neither nodes and links, nor nodes for the API with a class_type each")
    return ApiGraph(value, report)


def _scopes(value: Json) -> list[tuple[Json, str]]:
    """A graph of the front end and all that are defined in it, with words for the report."""
    found, waiting = [(value, "")], [value]
    while waiting:
        definitions = waiting.pop().get("definitions")
        inner = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        if inner is not None and not isinstance(inner, list):
            raise ValueError("it is no graph: its subgraphs are no list")
        for scope in inner or ():
            if not isinstance(scope, dict):
                raise ValueError(f"it is no graph: {quoted(scope)} is among its subgraphs")
            found.append((scope, f"In the subgraph {quoted(str(scope.get('name', scope.get('id'))))}: "))
            waiting.append(scope)
    return found


def _check(scope: Json, where: str) -> None:
    """Raises ValueError where nodes and links are none."""
    nodes, links = scope.get("nodes"), scope.setdefault("links", [])
    said = f"it is no graph: {where[0].lower() + where[1:]}" if where else "it is no graph: "
    if not isinstance(nodes, list) or not isinstance(links, list):
        raise ValueError(f"{said}its {'links' if isinstance(nodes, list) else 'nodes'} are no list")
    for node in nodes:
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            raise ValueError(f"{said}{quoted(node)} is no node")
        if not isinstance(node.get("id"), (int, str)):
            raise ValueError(f"{said}a node has the id {quoted(node.get('id'))}")
    if len({node["id"] for node in nodes}) < len(nodes):
        raise ValueError(f"{said}two nodes have one id")


def _exposed(scopes: list[Json]) -> dict[str, dict[str, set[str]]]:
    """Widgets of nodes that are shown on the boxes of their graphs: by graph and node."""
    found: dict[str, dict[str, set[str]]] = {}
    for scope in scopes:
        for node in scope["nodes"]:
            properties = node.get("properties")
            shown = properties.get("proxyWidgets") if isinstance(properties, dict) else None
            for entry in shown if isinstance(shown, list) else ():
                if _names(entry):
                    found.setdefault(node["type"], {}).setdefault(entry[0], set()).add(entry[1])
    return found


def _hidden(value: Json, graphs: list[Graph]) -> list[str]:
    """Take widgets that are no more off the boxes of graphs that show them; lines for the report."""
    changed = {graph.id: graph.widgets for graph in graphs if isinstance(graph, UiGraph)}
    lines = []
    for scope in [scope for scope, _ in _scopes(value)] if "nodes" in value else []:
        for node in scope["nodes"]:
            properties, widgets = node.get("properties"), changed.get(node["type"], {})
            shown = properties.get("proxyWidgets") if isinstance(properties, dict) else None
            if not isinstance(shown, list) or not widgets:
                continue
            lost = [entry for entry in shown if _names(entry) and entry[1] not in widgets.get(entry[0], {entry[1]})]
            if lost:
                properties["proxyWidgets"] = [entry for entry in shown if entry not in lost]
                names = ", ".join(named(entry[1]) for entry in lost)
                lines.append(f"Node {quoted(node['id'])} no longer shows {names}, which the nodes in it do not have.")
    return lines


def _names(entry: Any) -> bool:
    """Whether an entry names a node and a widget."""
    return isinstance(entry, list) and len(entry) >= 2 and all(isinstance(each, str) for each in entry[:2])


def _group_nodes(value: Json) -> list[str]:
    """Lines for nodes of nodes, as front ends had them before subgraphs, that hold nodes which are not there."""
    extra = value.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    lines = []
    for name, group in groups.items() if isinstance(groups, dict) else ():
        nodes = group.get("nodes") if isinstance(group, dict) else None
        listed = nodes if isinstance(nodes, list) else []
        keys = {str(node.get("type")) for node in listed if isinstance(node, dict)}
        if held := sorted(keys & {PROCESSOR, SAVER, *JOINERS}):
            lines.append(f"The group node {quoted(name)} stays: it holds {', '.join(held)}; convert it to nodes first.")
    return lines

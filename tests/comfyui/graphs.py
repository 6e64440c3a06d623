"""Graphs as ComfyUI's front end saves them, checked and turned into the prompts that it would queue.

The front end stores the values of a node's widgets by position, and decides by its own rules which inputs
have a widget: numbers, strings, booleans and choices do, an INT called `seed` or `noise_seed` is followed by
the value of "control after generate", and a file choice by that of its upload button. An input of several
types, such as "STRING,FLOAT,INT", has the widget that its option `widgetType` names, and its slot keeps all
of them. (VideoHelperSuite stores its values by name instead.) Everything here follows those rules and raises
`GraphError` where a graph does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
NodeInfo = Mapping[str, Any]  # one entry of /object_info

#: The type of an input that takes all.
ANYTHING = "*"
NOTES = ("Note", "MarkdownNote")
CONTROL_MODES = ("fixed", "increment", "decrement", "randomize")
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")
NUMBERS: dict[str, tuple[type, ...]] = {"INT": (int,), "FLOAT": (int, float)}


class GraphError(ValueError):
    """What is wrong with a graph, in one sentence that names the node and the input."""


@dataclass(frozen=True)
class Widget:
    """An input that the front end shows as a widget."""

    name: str
    kind: str  # INT, FLOAT, STRING, BOOLEAN or COMBO
    options: Mapping[str, Any]
    choices: tuple[Any, ...] = ()

    @property
    def companions(self) -> int:
        """How many further values the front end stores right after this widget's own."""
        by_name = self.name in ("seed", "noise_seed")
        seeded = self.kind == "INT" and self.options.get("control_after_generate", by_name)
        return int(bool(seeded)) + int(self.is_file)

    @property
    def is_file(self) -> bool:
        """Whether the front end adds an upload button."""
        return any(self.options.get(flag) for flag in UPLOADS)

    def check(self, value: Any) -> None:
        """Raise `GraphError` unless the widget can hold the value; files need not exist."""
        if self.kind in NUMBERS:
            if isinstance(value, bool) or not isinstance(value, NUMBERS[self.kind]):
                raise GraphError(f"{self.name}: {value!r} is not of type {self.kind}")
            low, high = self.options.get("min", value), self.options.get("max", value)
            if not low <= value <= high:
                raise GraphError(f"{self.name}: {value!r} is outside {low}..{high}")
        elif self.kind == "BOOLEAN":
            if not isinstance(value, bool):
                raise GraphError(f"{self.name}: {value!r} is not a boolean")
        elif self.kind == "STRING":
            if not isinstance(value, str):
                raise GraphError(f"{self.name}: {value!r} is not a string")
        elif looks_like_files(self.choices) or (isinstance(value, str) and Path(value).suffix):
            if not isinstance(value, str):
                raise GraphError(f"{self.name}: {value!r} is not a file name")
        elif not any(value == choice and type(value) is type(choice) for choice in self.choices):
            raise GraphError(f"{self.name}: {value!r} is none of {list(self.choices)}")


def looks_like_files(choices: tuple[Any, ...]) -> bool:
    """Whether the choices are files of this machine rather than words of the node."""
    return bool(choices) and all(isinstance(choice, str) and Path(choice).suffix for choice in choices)


def declared(info: NodeInfo) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Every input of a node in its order: name -> (type or list of choices, options)."""
    inputs: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for section in ("required", "optional"):
        for name, spec in info["input"].get(section, {}).items():
            inputs[name] = (spec[0], spec[1] if len(spec) > 1 else {})
    return inputs


def widgets(info: NodeInfo) -> list[Widget]:
    """The widgets of a node, in the order in which the front end makes them."""
    found = []
    for name, (kind, options) in declared(info).items():
        if options.get("forceInput"):
            continue
        shown = options.get("widgetType", kind)
        if isinstance(shown, (list, tuple)):
            found.append(Widget(name, "COMBO", options, tuple(shown)))
        elif shown == "COMBO":
            found.append(Widget(name, "COMBO", options, tuple(options.get("options", ()))))
        elif shown in ("INT", "FLOAT", "STRING", "BOOLEAN"):
            found.append(Widget(name, shown, options))
    return found


def widget_values(node: Json, info: NodeInfo) -> Json:
    """The values a saved node gives to the inputs of its type, by name, each checked."""
    stored = node.get("widgets_values", [])
    values: Json = {}
    if isinstance(stored, dict):
        for widget in widgets(info):
            if widget.name not in stored:
                raise GraphError(f"no value for {widget.name}")
            values[widget.name] = stored[widget.name]
            for extra in _of_format(widget, stored[widget.name]):
                if extra not in stored:
                    raise GraphError(f"no value for {extra}, which {stored[widget.name]} has")
                values[extra] = stored[extra]
    else:
        rest = list(stored)
        for widget in widgets(info):
            if len(rest) < 1 + widget.companions:
                raise GraphError(f"{len(stored)} widget values are too few: none left for {widget.name}")
            values[widget.name] = rest.pop(0)
            for _ in range(widget.companions):
                companion = rest.pop(0)
                if not widget.is_file and companion not in CONTROL_MODES:
                    raise GraphError(f"{companion!r} after {widget.name} is no control after generate")
        if rest:
            raise GraphError(f"widget values without a widget: {rest}")
    for widget in widgets(info):
        widget.check(values[widget.name])
    return values


def _of_format(widget: Widget, value: Any) -> list[str]:
    """The inputs that VideoHelperSuite adds for the chosen video format."""
    formats = widget.options.get("formats", {})
    entries = formats.get(value, []) if isinstance(formats, dict) else []
    return [entry[0] for entry in entries] if isinstance(entries, list) else []


def read(path: Path) -> Json:
    """A saved graph."""
    graph: Json = json.loads(path.read_text(encoding="utf-8"))
    return graph


def check_structure(graph: Json) -> None:
    """Raise `GraphError` unless ids, slots, links, order and counters agree with each other."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    if len(nodes) != len(graph["nodes"]) or graph["last_node_id"] < max(nodes):
        raise GraphError("node ids are not unique or above last_node_id")
    links = {link[0]: link for link in graph["links"]}
    if len(links) != len(graph["links"]) or graph["last_link_id"] < max(links, default=0):
        raise GraphError("link ids are not unique or above last_link_id")
    if sorted(node["order"] for node in nodes.values()) != list(range(len(nodes))):
        raise GraphError("the order of execution is not a numbering of the nodes")
    for number, source, out, target, into, kind in links.values():
        for end, slots, slot in ((source, "outputs", out), (target, "inputs", into)):
            if end not in nodes or slot >= len(nodes[end][slots]):
                raise GraphError(f"link {number} ends at a slot that does not exist")
        begin, finish = nodes[source]["outputs"][out], nodes[target]["inputs"][into]
        if kind != finish["type"] or (kind != ANYTHING and begin["type"] not in kind.split(",")):
            raise GraphError(f"link {number} is {kind}, its slots are {begin['type']} and {finish['type']}")
        if number not in begin["links"] or number != finish["link"]:
            raise GraphError(f"link {number} is not known to its slots")
        if nodes[source]["order"] >= nodes[target]["order"]:
            raise GraphError(f"link {number} goes against the order of execution")
    for node in nodes.values():
        at = f"node {node['id']} ({node['type']})"
        for slot in node["inputs"]:
            if slot["link"] is not None and slot["link"] not in links:
                raise GraphError(f"{at}: {slot['name']} names a link that does not exist")
        for slot in node["outputs"]:
            if any(number not in links for number in slot["links"]):
                raise GraphError(f"{at}: {slot['name']} names a link that does not exist")


def check_node(node: Json, info: NodeInfo) -> None:
    """Raise `GraphError` unless a saved node has exactly the slots and widgets of its type."""
    shown = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    buttons = ["upload" for widget in widgets(info) if widget.is_file]
    extras = []
    if isinstance(node.get("widgets_values"), dict):
        extras = [e for w in widgets(info) for e in _of_format(w, node["widgets_values"].get(w.name))]
    own = [name for name in shown if name not in buttons and name not in extras]
    if own != [widget.name for widget in widgets(info)]:
        raise GraphError(f"widgets {own} are not {[widget.name for widget in widgets(info)]}")
    for slot in node["inputs"]:
        if slot["name"] in declared(info):
            kind, _ = declared(info)[slot["name"]]
            if slot["type"] != ("COMBO" if isinstance(kind, (list, tuple)) else kind):
                raise GraphError(f"input {slot['name']} is saved as {slot['type']}, its type is {kind}")
    sockets = [slot["name"] for slot in node["inputs"] if "widget" not in slot]
    expected = [name for name in declared(info) if name not in [widget.name for widget in widgets(info)]]
    if sockets != expected:
        raise GraphError(f"inputs {sockets} are not {expected}")
    outputs = [(slot["name"], slot["type"]) for slot in node["outputs"]]
    if outputs != list(zip(info["output_name"], info["output"], strict=True)):
        raise GraphError(f"outputs {outputs} are not those of the node")
    widget_values(node, info)


def to_prompt(graph: Json, object_info: Mapping[str, NodeInfo]) -> dict[str, Json]:
    """What the front end would queue for a saved graph: every node and value checked on the way."""
    check_structure(graph)
    links = {link[0]: link for link in graph["links"]}
    prompt: dict[str, Json] = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        try:
            info = object_info[node["type"]]
            check_node(node, info)
            inputs = widget_values(node, info)
        except KeyError:
            raise GraphError(f"node {node['id']}: no node type {node['type']}") from None
        except GraphError as error:
            raise GraphError(f"node {node['id']} ({node['type']}): {error}") from None
        for slot in node["inputs"]:
            if slot["link"] is not None:
                _, source, out, *_ = links[slot["link"]]
                inputs[slot["name"]] = [str(source), out]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt

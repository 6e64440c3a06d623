"""The pack's subgraph blueprints, which ComfyUI's node library offers as nodes: `subgraphs/*.json`.

ComfyUI serves `custom_nodes/*/subgraphs/*.json` at /global_subgraphs. Such a file is a saved graph of one node, whose
type is the id of the subgraph beside it. Widgets of nodes inside stand on that node because inputs of the subgraph are
linked to them. Every front end with blueprints knows that, while the property `proxyWidgets` for the same is gone from
newer ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.comfyui import graphs
from tests.comfyui.graphs import Json, NodeInfo
from tests.comfyui.make_workflows import BLUE, GREEN, REPOSITORY, VIDEO, YELLOW, Graph

FOLDER = REPOSITORY / "subgraphs"
SMOOTH = "Smooth a video"
DESCRIPTION = (
    "A video with more frames per second, as long as it was and with its sound: so many times as many, or exactly "
    "those of a rate. Its frames are in memory at once."
)
NOTE = (
    "Smooth a video",
    "## What happens here\n\n"
    "The frames of the video go through **Video Interpolator (TLB-VFI)** and, at the new **fps** and with the sound of "
    "before, into a video again.\n\n"
    "- **mode** *multiplier*: so many frames for one, as **multiplier** says. *target fps*: exactly those of the rate "
    "in **target_fps**.\n"
    "- The small built-in model is chosen under **model_name**; the published one belongs into "
    "`ComfyUI/models/interpolation`.\n"
    "- All other settings are at the node itself.",
)
#: Ids of the boxes at whose slots a subgraph begins and ends.
BEGIN, END = -10, -20
BOX_WIDTH, SLOT_HEIGHT, BOX_MARGIN = 140, 20, 24

#: An input or output of a subgraph: its name, a node in it, and the name of that node's slot.
Port = tuple[str, Json, str]


def smooth(g: Graph) -> tuple[list[Port], list[Port]]:
    """The nodes inside, and what of them is to be seen from outside."""
    parts = g.node("GetVideoComponents")
    node = g.node(VIDEO, hold_last=True)
    create = g.node("CreateVideo")
    g.link(parts, "images", node, "images")
    g.link(parts, "fps", node, "source_fps")
    g.link(node, "frames", create, "images")
    g.link(node, "fps", create, "fps")
    g.link(parts, "audio", create, "audio")
    g.group("The video", BLUE, parts)
    g.group("More frames", GREEN, node)
    g.group("The new video", YELLOW, create)
    g.notes(NOTE)
    shown = ("model_name", "mode", "multiplier", "target_fps", "quality")
    inputs = [("video", parts, "video"), *((name, node, name) for name in shown)]
    return inputs, [("video", create, "VIDEO"), ("images", node, "frames"), ("fps", node, "fps")]


def slot(node: Json, side: str, name: str) -> tuple[int, Json]:
    """The number of a node's input or output, and the slot itself."""
    (found,) = [(number, each) for number, each in enumerate(node[side]) if each["name"] == name]
    return found


def port(title: str, side: str, name: str, kind: str, link: int, place: tuple[float, float]) -> Json:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"tlbvfi/{title}/{side}/{name}")
    return {"id": str(identity), "name": name, "type": kind, "linkIds": [link], "pos": list(place)}


def bounding(left: float, top: float, ports: Sequence[Any]) -> list[float]:
    return [left, top, BOX_WIDTH, 2 * BOX_MARGIN + SLOT_HEIGHT * len(ports)]


def stored(node: Json, ours: Mapping[str, NodeInfo], name: str) -> Any:
    """The value of a widget of one of our nodes, as the box around it shows it too."""
    return graphs.widget_values(node, ours[node["type"]])[name]


def blueprint(title: str, description: str, g: Graph, ours: Mapping[str, NodeInfo]) -> Json:
    """The file of a subgraph."""
    inputs, outputs = smooth(g)
    inside = g.made()
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
        for link in inside["links"]
    ]
    left = min(group["bounding"][0] for group in inside["groups"]) - BOX_WIDTH - 60
    right = max(group["bounding"][0] + group["bounding"][2] for group in inside["groups"]) + 60
    slots: dict[str, list[Json]] = {"inputs": [], "outputs": []}
    shown: list[Json] = []
    values: list[Any] = []
    for number, (name, node, inner) in enumerate(inputs):
        place, found = slot(node, "inputs", inner)
        link = len(links) + 1
        links.append(
            {"id": link, "origin_id": BEGIN, "origin_slot": number, "target_id": node["id"], "target_slot": place,
             "type": found["type"]}
        )  # fmt: skip
        found["link"] = link
        at = (left + BOX_WIDTH - BOX_MARGIN, BOX_MARGIN + SLOT_HEIGHT * number)
        slots["inputs"].append(port(title, "inputs", name, found["type"], link, at))
        shown.append({"name": name, "type": found["type"], "link": None})
        if "widget" in found:
            shown[-1]["widget"] = {"name": name}
            values.append(stored(node, ours, inner))
    for number, (name, node, inner) in enumerate(outputs):
        place, found = slot(node, "outputs", inner)
        link = len(links) + 1
        links.append(
            {"id": link, "origin_id": node["id"], "origin_slot": place, "target_id": END, "target_slot": number,
             "type": found["type"]}
        )  # fmt: skip
        found["links"].append(link)
        at = (right + BOX_MARGIN, BOX_MARGIN + SLOT_HEIGHT * number)
        slots["outputs"].append(port(title, "outputs", name, found["type"], link, at))
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"tlbvfi/{title}"))
    box = {
        "id": 1,
        "type": identity,
        "pos": [0, 0],
        "size": [330, 250],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": shown,
        "outputs": [{"name": name, "type": slot(node, "outputs", inner)[1]["type"], "links": []}
                    for name, node, inner in outputs],
        "title": title,
        "properties": {},
        "widgets_values": values,
    }  # fmt: skip
    subgraph = {
        "id": identity,
        "version": 1,
        "state": {
            "lastGroupId": len(inside["groups"]),
            "lastNodeId": inside["last_node_id"],
            "lastLinkId": len(links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": title,
        "description": description,
        "inputNode": {"id": BEGIN, "bounding": bounding(left, 0, inputs)},
        "outputNode": {"id": END, "bounding": bounding(right, 0, outputs)},
        **slots,
        "widgets": [],
        "nodes": inside["nodes"],
        "groups": inside["groups"],
        "links": links,
        "extra": {},
    }
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"tlbvfi/blueprint/{title}")),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [box],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": description},
        "version": 0.4,
    }


def inside(file: Json) -> Json:
    """The graph inside a blueprint, with nothing linked to its beginning and end."""
    (subgraph,) = json.loads(json.dumps(file))["definitions"]["subgraphs"]
    ends = {link["id"] for link in subgraph["links"] if BEGIN == link["origin_id"] or END == link["target_id"]}
    for node in subgraph["nodes"]:
        for each in node["inputs"]:
            each["link"] = None if each["link"] in ends else each["link"]
        for each in node["outputs"]:
            each["links"] = [link for link in each["links"] if link not in ends]
    state = subgraph["state"]
    return {
        "nodes": subgraph["nodes"],
        "links": [list(link.values()) for link in subgraph["links"] if link["id"] not in ends],
        "last_node_id": state["lastNodeId"],
        "last_link_id": state["lastLinkId"],
    }


def made(ours: Mapping[str, NodeInfo]) -> dict[str, str]:
    """The text of every blueprint by its name, for our nodes as ComfyUI tells of them."""
    file = blueprint(SMOOTH, DESCRIPTION, Graph(SMOOTH, ours), ours)
    return {SMOOTH: json.dumps(file, indent=2, ensure_ascii=False) + "\n"}

"""The shipped graphs: consistent in themselves, and valid for the nodes' own inputs, without ComfyUI.

The same is tested against a running ComfyUI in comfyui/test_workflows_live.py.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.comfyui import blueprints, graphs, make_workflows
from tests.fake_host import REPOSITORY
from tests.release import metadata

WORKFLOWS = sorted(REPOSITORY.joinpath("workflows").glob("*.json"))
SLICER, PAIR, VIDEO, FILE, LOADER = (
    "FramePairSlicer",
    "TLBVFI_Interpolator_V2",
    "TLBVFI_VideoInterpolator",
    "TLBVFI_InterpolateVideo",
    "TLBVFI_ModelLoader",
)
EXAMPLE = "TLBVFI_ExampleClip"
Wire = tuple[str, str, str, str]  # node, output, node, input; a node by its title, where it has one
CLIP: set[Wire] = {("LoadVideo", "VIDEO", "GetVideoComponents", "video")}
SAVED: set[Wire] = {("CreateVideo", "VIDEO", "SaveVideo", "video")}
#: From the example clip through the interpolator.
FROM_EXAMPLE: set[Wire] = {
    (EXAMPLE, "frames", VIDEO, "images"),
    (EXAMPLE, "fps", VIDEO, "source_fps"),
}
TO_VIDEO: set[Wire] = {
    (VIDEO, "frames", "CreateVideo", "images"),
    (VIDEO, "fps", "CreateVideo", "fps"),
    *SAVED,
}
OF_THE_PAIR: set[Wire] = {
    (SLICER, "prev_frame", PAIR, "prev_frame"),
    (SLICER, "next_frame", PAIR, "next_frame"),
}
#: From VideoHelperSuite's loader through the frames per second that it loads, and sound, to its combiner.
OF_VHS: set[Wire] = {
    ("VHS_LoadVideo", "IMAGE", VIDEO, "images"),
    ("VHS_LoadVideo", "video_info", "VHS_VideoInfo", "video_info"),
    ("VHS_VideoInfo", "loaded_fps🟦", VIDEO, "source_fps"),
    ("VHS_LoadVideo", "audio", "VHS_VideoCombine", "audio"),
    (VIDEO, "frames", "VHS_VideoCombine", "images"),
    (VIDEO, "fps", "VHS_VideoCombine", "frame_rate"),
}


def studied(name: str) -> set[Wire]:
    """Of a schedule in the study of them."""
    return {
        (name, "schedule", f"Plot: {name}", "schedule"),
        (f"Plot: {name}", "plot", f"Steps: {name}", "images"),
        (name, "schedule", f"Frame: {name}", "schedule"),
        (SLICER, "prev_frame", f"Frame: {name}", "prev_frame"),
        (SLICER, "next_frame", f"Frame: {name}", "next_frame"),
    }


WIRES: dict[str, set[Wire]] = {
    make_workflows.FIRST: FROM_EXAMPLE | TO_VIDEO,
    make_workflows.WHOLE: {
        *CLIP,
        ("GetVideoComponents", "images", VIDEO, "images"),
        ("GetVideoComponents", "fps", VIDEO, "source_fps"),
        ("GetVideoComponents", "audio", "CreateVideo", "audio"),
        *TO_VIDEO,
    },
    make_workflows.LONG: {("LoadVideo", "VIDEO", FILE, "video")},
    "AI video - 16 to 60 fps": {(EXAMPLE, "frames", VIDEO, "images"), *TO_VIDEO},
    "Scene cuts": FROM_EXAMPLE | TO_VIDEO | {(VIDEO, "cut_indices", "Where the cuts are", "source")},
    "Loop without a jump": {
        *FROM_EXAMPLE,
        (VIDEO, "frames", "SaveAnimatedWEBP", "images"),
        (VIDEO, "fps", "SaveAnimatedWEBP", "fps"),
    },
    "Compare two qualities": {
        (EXAMPLE, "frames", "fast", "images"),
        (EXAMPLE, "fps", "fast", "source_fps"),
        (EXAMPLE, "frames", "quality", "images"),
        (EXAMPLE, "fps", "quality", "source_fps"),
        ("fast", "frames", "ImageStitch", "image1"),
        ("quality", "frames", "ImageStitch", "image2"),
        ("ImageStitch", "IMAGE", "CreateVideo", "images"),
        *SAVED,
    },
    make_workflows.STUDY: {
        (EXAMPLE, "frames", SLICER, "images"),
        *(wire for name in make_workflows.SCHEDULES for wire in studied(name)),
        ("Frame: linear, 10 steps", "interpolated_frames", "Two of them", "image1"),
        ("Frame: cosine, 20 steps", "interpolated_frames", "Two of them", "image2"),
        ("Two of them", "IMAGE", "All three", "image1"),
        ("Frame: two timesteps", "interpolated_frames", "All three", "image2"),
        ("All three", "IMAGE", "The frames, in this order", "images"),
        ("Frame: linear, 10 steps", "interpolated_frames", "First minus last", "image1"),
        ("Frame: two timesteps", "interpolated_frames", "First minus last", "image2"),
        ("First minus last", "IMAGE", "The difference", "images"),
    },
    "Slow motion between two frames": {
        (EXAMPLE, "frames", SLICER, "images"),
        *OF_THE_PAIR,
        (PAIR, "interpolated_frames", "CreateVideo", "images"),
        *SAVED,
    },
    "Frame Interpolate of ComfyUI": {
        (EXAMPLE, "frames", "FrameInterpolate", "images"),
        (LOADER, "interp_model", "FrameInterpolate", "interp_model"),
        ("FrameInterpolate", "IMAGE", "CreateVideo", "images"),
        *SAVED,
    },
    "VideoHelperSuite - video with sound": OF_VHS,
    make_workflows.VHS_LONG: {
        *OF_VHS,
        ("VHS_BatchManager", "meta_batch", "VHS_LoadVideo", "meta_batch"),
        ("VHS_BatchManager", "meta_batch", VIDEO, "meta_batch"),
        ("VHS_BatchManager", "meta_batch", "VHS_VideoCombine", "meta_batch"),
    },
    "VideoHelperSuite - slow motion between two frames": {
        ("VHS_LoadVideo", "IMAGE", SLICER, "images"),
        *OF_THE_PAIR,
        (PAIR, "interpolated_frames", "VHS_VideoCombine", "images"),
    },
}
#: What makes a graph give more frames than it is given.
WISHES: dict[str, dict[str, Any]] = {
    PAIR: {"times_to_interpolate": 3, "quality": "custom"},
    VIDEO: {"mode": "multiplier", "multiplier": 2, "quality": "fast", "hold_last": True},
    FILE: {"mode": "target fps", "target_fps": "60", "hold_last": True},
    LOADER: {"quality": "fast"},
}
#: What is otherwise in a graph, by the node's title where it has one.
OTHER_WISHES: dict[str, dict[str, dict[str, Any]]] = {
    "AI video - 16 to 60 fps": {VIDEO: {"mode": "target fps", "source_fps": "16", "target_fps": "60"}},
    "Loop without a jump": {VIDEO: {"loop": True, "hold_last": False}},
    "Compare two qualities": {"quality": {"quality": "quality"}},
    make_workflows.STUDY: {
        f"Frame: {name}": {"times_to_interpolate": 0, "quality": "fast"} for name in make_workflows.SCHEDULES
    },
}
#: Above a node's position is its title.
TITLE = 30
Json = dict[str, Any]


@pytest.fixture(scope="module")
def object_info(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """What ComfyUI would tell of our nodes, from the classes themselves."""
    return make_workflows.our_nodes(tmp_path_factory.mktemp("models"))


def test_all_graphs_are_known() -> None:
    assert [path.stem for path in WORKFLOWS] == sorted(WIRES) == sorted(make_workflows.GRAPHS)


def test_they_are_as_they_are_made(object_info: dict[str, Json]) -> None:
    """After a change of a node or of a graph: `python -m tests.comfyui.make_workflows`."""
    made = make_workflows.made(object_info)
    assert {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS} == made


def test_titles_are_file_names() -> None:
    """On every system, and for people."""
    for name in make_workflows.GRAPHS:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*(?: (?:-|[A-Za-z0-9]+))*", name) and len(name) <= 60


def test_the_first_one_needs_nothing() -> None:
    """No file but those of the pack, and no node but ours and ComfyUI's."""
    saved = graphs.read(REPOSITORY / "workflows" / f"{make_workflows.FIRST}.json")
    kinds = {node["type"] for node in saved["nodes"]} - set(graphs.NOTES)
    assert kinds == {EXAMPLE, VIDEO, "CreateVideo", "SaveVideo"}
    text = json.dumps([node["widgets_values"] for node in saved["nodes"] if node["type"] not in graphs.NOTES])
    assert not re.search(r"\.(?:mp4|mov|webm|png|pth|safetensors)\b", text)


def test_nothing_else_lies_there() -> None:
    """Every picture belongs to a graph."""
    assert {path.stem for path in REPOSITORY.joinpath("workflows").glob("*.jpg")} == set(make_workflows.GRAPHS)
    assert {path.suffix for path in REPOSITORY.joinpath("workflows").iterdir()} == {".json", ".jpg"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
class TestGraph:
    """Each shipped graph."""

    def test_is_consistent(self, path: Path) -> None:
        """Ids, slots, links and order agree; the format is the one that front ends of 2025 and 2026 open."""
        saved = graphs.read(path)
        assert saved["version"] == 0.4
        graphs.check_structure(saved)

    def test_fits_our_nodes(self, object_info: dict[str, Json], path: Path) -> None:
        """Slots, widgets and their values, by order, number, type and range, are those of the classes."""
        for node in graphs.read(path)["nodes"]:
            if node["type"] in object_info:
                graphs.check_node(node, object_info[node["type"]])

    def test_is_wired(self, path: Path) -> None:
        """Each node is there once, and what it gets it gets from where it should."""
        saved = graphs.read(path)
        nodes = {node["id"]: name(node) for node in saved["nodes"] if node["type"] not in graphs.NOTES}
        slots = {node["id"]: node for node in saved["nodes"]}
        expected = WIRES[path.stem]
        assert sorted(nodes.values()) == sorted({wire[0] for wire in expected} | {wire[2] for wire in expected})
        wires = [
            (
                nodes[source],
                slots[source]["outputs"][out]["name"],
                nodes[target],
                slots[target]["inputs"][into]["name"],
            )
            for _, source, out, target, into, _ in saved["links"]
        ]
        assert sorted(wires) == sorted(expected)

    def test_cuts_are_found_as_by_default(self, object_info: dict[str, Json], path: Path) -> None:
        """A threshold in a graph is the measured one."""
        for node in graphs.read(path)["nodes"]:
            declared = graphs.declared(object_info[node["type"]]) if node["type"] in object_info else {}
            if "scene_cut" in declared:
                values = graphs.widget_values(node, object_info[node["type"]])
                assert values["scene_cut"] == declared["scene_cut"][1]["default"]

    def test_repeats_itself(self, object_info: dict[str, Json], path: Path) -> None:
        """It gives more frames, the same ones each time it is queued, by the model that is always there."""
        nodes = [node for node in graphs.read(path)["nodes"] if node["type"] in WISHES]
        assert nodes
        for node in nodes:
            values = graphs.widget_values(node, object_info[node["type"]])
            wish = {**WISHES[node["type"]], **OTHER_WISHES.get(path.stem, {}).get(name(node), {})}
            assert {name: values[name] for name in wish} == wish
            assert values["model_name"] == object_info[node["type"]]["input"]["required"]["model_name"][0][0]
            assert [value for value in node["widgets_values"] if value in graphs.CONTROL_MODES] == ["fixed"]

    def test_has_a_picture(self, path: Path) -> None:
        """The template browser shows the picture of the same name."""
        picture = path.with_suffix(".jpg")
        assert picture.stat().st_size <= 40_000
        with Image.open(picture) as image:
            assert image.format == "JPEG" and image.width > image.height > 100

    def test_says_whose_a_node_is(self, object_info: dict[str, Json], path: Path) -> None:
        """So that a front end can offer to install the pack that a node is from."""
        project = metadata.read()["project"]["name"]
        for node in graphs.read(path)["nodes"]:
            if node["type"] not in graphs.NOTES:
                assert node["properties"]["Node name for S&R"] == node["type"]
                assert (node["properties"]["cnr_id"] == project) == (node["type"] in object_info)

    def test_has_notes_that_can_be_read(self, path: Path) -> None:
        """A note says what to do, and no node lies on another or outside all groups but the notes."""
        saved = graphs.read(path)
        notes = [node for node in saved["nodes"] if node["type"] in graphs.NOTES]
        assert any("models/interpolation" in note["widgets_values"][0] for note in notes)
        boxes = [box(node) for node in saved["nodes"]]
        for index, (left, top, right, bottom) in enumerate(boxes):
            for other_left, other_top, other_right, other_bottom in boxes[:index]:
                assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
        for node in saved["nodes"]:
            if node not in notes:
                assert any(contains(group["bounding"], node) for group in saved["groups"]), node["type"]

    def test_says_what_the_nodes_have(self, object_info: dict[str, Json], path: Path) -> None:
        """A word that the notes print in bold is the name of an input or an output."""
        saved = graphs.read(path)
        nodes = [node for node in saved["nodes"] if node["type"] not in graphs.NOTES]
        names = {slot["name"] for node in nodes for slot in (*node["inputs"], *node["outputs"])}
        said = {
            word
            for note in saved["nodes"]
            if note["type"] in graphs.NOTES
            for word in re.findall(r"\*\*([a-z][a-z0-9_]*)\*\*", note["widgets_values"][0])
        }
        assert said and said <= names


def name(node: Json) -> str:
    """What a node is called here."""
    return str(node.get("title") or node["type"])


def box(node: Json) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a node with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def contains(bounding: list[float], node: Json) -> bool:
    """Whether a node lies in a group's rectangle."""
    left, top, right, bottom = box(node)
    group_left, group_top, width, height = bounding
    return group_left <= left and right <= group_left + width and group_top <= top and bottom <= group_top + height


# The blueprint


@pytest.fixture(scope="module")
def smooth() -> Json:
    return graphs.read(blueprints.FOLDER / f"{blueprints.SMOOTH}.json")


def test_blueprints_are_as_they_are_made(object_info: dict[str, Json]) -> None:
    found = {path.stem: path.read_text(encoding="utf-8") for path in blueprints.FOLDER.iterdir()}
    assert found == blueprints.made(object_info)


def test_a_blueprint_is_one_node_with_a_subgraph(smooth: Json) -> None:
    """As front ends ask; its slots are those of the subgraph, and each is linked to one inside of its type."""
    (box,), (subgraph,) = smooth["nodes"], smooth["definitions"]["subgraphs"]
    assert (box["type"], box["title"]) == (subgraph["id"], subgraph["name"]) and not smooth["links"]
    assert smooth["extra"]["BlueprintDescription"] == subgraph["description"]
    links = {link["id"]: link for link in subgraph["links"]}
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    assert len(links) == len(subgraph["links"]) and max(links) == subgraph["state"]["lastLinkId"]
    for side, end, inner in (("inputs", "origin", "target"), ("outputs", "target", "origin")):
        assert [(slot["name"], slot["type"]) for slot in box[side]] == [
            (slot["name"], slot["type"]) for slot in subgraph[side]
        ]
        for number, slot in enumerate(subgraph[side]):
            (link,) = (links[each] for each in slot["linkIds"])
            assert link[f"{end}_id"] == (-10 if end == "origin" else -20) and link[f"{end}_slot"] == number
            found = nodes[link[f"{inner}_id"]][side][link[f"{inner}_slot"]]
            assert found["type"] == slot["type"] == link["type"]
            assert link["id"] in ([found["link"]] if side == "inputs" else found["links"])


def test_the_blueprint_fits_our_nodes(object_info: dict[str, Json], smooth: Json) -> None:
    """And shows what people set: the values are those of the nodes inside."""
    inside = blueprints.inside(smooth)
    graphs.check_structure(inside)
    (node,) = [each for each in inside["nodes"] if each["type"] in object_info]
    graphs.check_node(node, object_info[node["type"]])
    values = graphs.widget_values(node, object_info[node["type"]])
    (box,) = smooth["nodes"]
    shown = [slot["name"] for slot in box["inputs"] if "widget" in slot]
    assert shown == ["model_name", "mode", "multiplier", "target_fps", "quality"]
    assert box["widgets_values"] == [values[name] for name in shown]
    assert [slot["name"] for slot in box["outputs"]] == ["video", "images", "fps"]
    assert values["model_name"] == object_info[node["type"]]["input"]["required"]["model_name"][0][0]


# What the checks above find


def interpolator(graph: str) -> Json:
    """The node of ours that interpolates in a graph."""
    saved = graphs.read(REPOSITORY / "workflows" / f"{graph}.json")
    (node,) = [node for node in saved["nodes"] if node["type"] in WISHES]
    return node


def forget_control(node: Json) -> None:
    node["widgets_values"].remove("fixed")


def swap_two(node: Json) -> None:
    values = node["widgets_values"]
    values[1], values[2] = values[2], values[1]


def one_inserted(node: Json) -> None:
    node["widgets_values"].insert(6, 0)


def out_of_range(node: Json) -> None:
    place = 1 if node["type"] == PAIR else 2
    node["widgets_values"][place] = 50


def other_widget_order(node: Json) -> None:
    slots = node["inputs"]
    slots[5], slots[6] = slots[6], slots[5]


def other_type(node: Json) -> None:
    (slot, *_) = [slot for slot in node["inputs"] if slot["name"] in ("seed", "source_fps", "target_fps")]
    slot["type"] = "STRING"


def missing_output(node: Json) -> None:
    node["outputs"].clear()


def missing_socket(node: Json) -> None:
    node["inputs"] = [slot for slot in node["inputs"] if slot["name"] != "schedule"]


DAMAGES = [
    forget_control,
    swap_two,
    one_inserted,
    out_of_range,
    other_widget_order,
    other_type,
    missing_output,
    missing_socket,
]


@pytest.mark.parametrize("graph", ["Slow motion between two frames", make_workflows.WHOLE, make_workflows.LONG])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_node_is_found(object_info: dict[str, Json], graph: str, damage: Callable[[Json], None]) -> None:
    """The check of a node refuses what a front end would load into the wrong widgets."""
    node = interpolator(graph)
    info = object_info[node["type"]]
    graphs.check_node(node, info)
    damage(node)
    with pytest.raises(graphs.GraphError):
        graphs.check_node(node, info)


def test_a_rate_is_a_text(object_info: dict[str, Json]) -> None:
    """The widget of an input of several types holds what the widget that it names holds."""
    node = interpolator(make_workflows.WHOLE)
    (rate,) = [widget for widget in graphs.widgets(object_info[VIDEO]) if widget.name == "source_fps"]
    assert rate.kind == "STRING"
    node["widgets_values"][3] = 24
    with pytest.raises(graphs.GraphError, match="source_fps: 24 is not a string"):
        graphs.check_node(node, object_info[VIDEO])


@pytest.mark.parametrize("field", ["source", "slot", "type", "number"])
def test_damage_to_a_link_is_found(field: str) -> None:
    """The check of the structure refuses links that do not fit their ends."""
    saved = copy.deepcopy(graphs.read(REPOSITORY / "workflows" / "Slow motion between two frames.json"))
    place, value = {"source": (1, 99), "slot": (2, 9), "type": (5, "LATENT"), "number": (0, 77)}[field]
    saved["links"][2][place] = value
    saved["last_link_id"] = 77
    with pytest.raises(graphs.GraphError):
        graphs.check_structure(saved)


@pytest.mark.parametrize(("slot", "fits"), [(2, True), (1, False)])
def test_links_to_an_input_of_several_types(slot: int, fits: bool) -> None:
    """One of the types may come in: a rate that is a number, not sound."""
    saved = graphs.read(REPOSITORY / "workflows" / f"{make_workflows.WHOLE}.json")
    nodes = {node["id"]: node for node in saved["nodes"]}
    (link,) = [link for link in saved["links"] if nodes[link[3]]["inputs"][link[4]]["name"] == "source_fps"]
    outputs = nodes[link[1]]["outputs"]
    outputs[link[2]]["links"].remove(link[0])
    outputs[slot]["links"].append(link[0])
    link[2] = slot
    if fits:
        graphs.check_structure(saved)
    else:
        with pytest.raises(graphs.GraphError, match="is STRING,FLOAT,INT, its slots are AUDIO"):
            graphs.check_structure(saved)

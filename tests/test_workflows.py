"""The shipped graphs: consistent in themselves, and valid for the nodes' own inputs, without ComfyUI.

The same is tested against a running ComfyUI in comfyui/test_workflows_live.py.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import fake_host
from tests.comfyui import graphs
from tests.fake_host import REPOSITORY, FakeHost

WORKFLOWS = sorted(REPOSITORY.joinpath("workflows").glob("*.json"))
SLICER, PAIR, VIDEO, FILE, LOADER = (
    "FramePairSlicer",
    "TLBVFI_Interpolator_V2",
    "TLBVFI_VideoInterpolator",
    "TLBVFI_InterpolateVideo",
    "TLBVFI_ModelLoader",
)
Wire = tuple[str, str, str, str]  # node, output, node, input
CLIP: set[Wire] = {("LoadVideo", "VIDEO", "GetVideoComponents", "video")}
SAVED: set[Wire] = {("CreateVideo", "VIDEO", "SaveVideo", "video")}
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
WIRES: dict[str, set[Wire]] = {
    "tlbvfi_core_frame_interpolate": {
        *CLIP,
        ("GetVideoComponents", "images", "FrameInterpolate", "images"),
        (LOADER, "interp_model", "FrameInterpolate", "interp_model"),
        ("FrameInterpolate", "IMAGE", "CreateVideo", "images"),
        ("GetVideoComponents", "audio", "CreateVideo", "audio"),
        *SAVED,
    },
    "tlbvfi_core_video": {
        *CLIP,
        ("GetVideoComponents", "images", SLICER, "images"),
        *OF_THE_PAIR,
        (PAIR, "interpolated_frames", "CreateVideo", "images"),
        *SAVED,
    },
    "tlbvfi_video_file": {("LoadVideo", "VIDEO", FILE, "video")},
    "tlbvfi_videohelpersuite": {
        ("VHS_LoadVideo", "IMAGE", SLICER, "images"),
        *OF_THE_PAIR,
        (PAIR, "interpolated_frames", "VHS_VideoCombine", "images"),
    },
    "tlbvfi_videohelpersuite_long": {
        *OF_VHS,
        ("VHS_BatchManager", "meta_batch", "VHS_LoadVideo", "meta_batch"),
        ("VHS_BatchManager", "meta_batch", VIDEO, "meta_batch"),
        ("VHS_BatchManager", "meta_batch", "VHS_VideoCombine", "meta_batch"),
    },
    "tlbvfi_videohelpersuite_video": OF_VHS,
    "tlbvfi_whole_video": {
        *CLIP,
        ("GetVideoComponents", "images", VIDEO, "images"),
        ("GetVideoComponents", "fps", VIDEO, "source_fps"),
        (VIDEO, "frames", "CreateVideo", "images"),
        (VIDEO, "fps", "CreateVideo", "fps"),
        ("GetVideoComponents", "audio", "CreateVideo", "audio"),
        *SAVED,
    },
}
#: What makes a graph give more frames than it is given.
WISHES: dict[str, dict[str, Any]] = {
    PAIR: {"times_to_interpolate": 3, "quality": "custom"},
    VIDEO: {"mode": "multiplier", "multiplier": 2, "hold_last": True},
    FILE: {"mode": "target fps", "target_fps": "60", "hold_last": True},
    LOADER: {"quality": "fast"},
}
#: Above a node's position is its title.
TITLE = 30
Json = dict[str, Any]


@pytest.fixture
def object_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Json]]:
    """What ComfyUI would tell of our nodes, from the classes themselves."""
    models = tmp_path / "models"
    (models / "interpolation").mkdir(parents=True)
    (models / "interpolation" / "vimeo_unet.pth").touch()
    fake_host.install(FakeHost(models), monkeypatch)
    pack = fake_host.load_pack("_pack_of_the_graphs")
    yield {key: told(node) for key, node in pack.NODE_CLASS_MAPPINGS.items()}
    fake_host.forget_pack("_pack_of_the_graphs")


def told(node: Any) -> Json:
    """The parts of /object_info that a saved graph depends on."""
    return {
        "input": json.loads(json.dumps(node.INPUT_TYPES())),
        "output": list(node.RETURN_TYPES),
        "output_name": list(node.RETURN_NAMES),
    }


def test_all_graphs_are_known() -> None:
    assert [path.stem for path in WORKFLOWS] == sorted(WIRES)


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
        nodes = {node["id"]: node for node in saved["nodes"] if node["type"] not in graphs.NOTES}
        expected = WIRES[path.stem]
        assert sorted(node["type"] for node in nodes.values()) == sorted(
            {wire[0] for wire in expected} | {wire[2] for wire in expected}
        )
        wires = [
            (
                nodes[source]["type"],
                nodes[source]["outputs"][out]["name"],
                nodes[target]["type"],
                nodes[target]["inputs"][into]["name"],
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
        (node,) = [node for node in graphs.read(path)["nodes"] if node["type"] in WISHES]
        values = graphs.widget_values(node, object_info[node["type"]])
        wish = WISHES[node["type"]]
        assert {name: values[name] for name in wish} == wish
        assert values["model_name"] == object_info[node["type"]]["input"]["required"]["model_name"][0][0]
        assert [value for value in node["widgets_values"] if value in graphs.CONTROL_MODES] == ["fixed"]

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


def box(node: Json) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a node with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def contains(bounding: list[float], node: Json) -> bool:
    """Whether a node lies in a group's rectangle."""
    left, top, right, bottom = box(node)
    group_left, group_top, width, height = bounding
    return group_left <= left and right <= group_left + width and group_top <= top and bottom <= group_top + height


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


@pytest.mark.parametrize("graph", ["tlbvfi_core_video", "tlbvfi_whole_video", "tlbvfi_video_file"])
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
    node = interpolator("tlbvfi_whole_video")
    (rate,) = [widget for widget in graphs.widgets(object_info[VIDEO]) if widget.name == "source_fps"]
    assert rate.kind == "STRING"
    node["widgets_values"][3] = 24
    with pytest.raises(graphs.GraphError, match="source_fps: 24 is not a string"):
        graphs.check_node(node, object_info[VIDEO])


@pytest.mark.parametrize("field", ["source", "slot", "type", "number"])
def test_damage_to_a_link_is_found(field: str) -> None:
    """The check of the structure refuses links that do not fit their ends."""
    saved = copy.deepcopy(graphs.read(REPOSITORY / "workflows" / "tlbvfi_core_video.json"))
    place, value = {"source": (1, 99), "slot": (2, 9), "type": (5, "LATENT"), "number": (0, 77)}[field]
    saved["links"][2][place] = value
    saved["last_link_id"] = 77
    with pytest.raises(graphs.GraphError):
        graphs.check_structure(saved)


@pytest.mark.parametrize(("slot", "fits"), [(2, True), (1, False)])
def test_links_to_an_input_of_several_types(slot: int, fits: bool) -> None:
    """One of the types may come in: a rate that is a number, not sound."""
    saved = graphs.read(REPOSITORY / "workflows" / "tlbvfi_whole_video.json")
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

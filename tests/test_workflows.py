"""The shipped graphs: consistent in themselves, and valid for the nodes' own inputs, without ComfyUI.

The same is tested against a running ComfyUI in comfyui/test_workflows_live.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import fake_host
from tests.comfyui import graphs
from tests.fake_host import REPOSITORY, FakeHost

WORKFLOWS = sorted(REPOSITORY.joinpath("workflows").glob("*.json"))
OURS = ("FramePairSlicer", "TLBVFI_Interpolator_V2")
CHAINS = {
    "tlbvfi_core_video": [
        "LoadVideo",
        "GetVideoComponents",
        "FramePairSlicer",
        "TLBVFI_Interpolator_V2",
        "CreateVideo",
        "SaveVideo",
    ],
    "tlbvfi_videohelpersuite": [
        "VHS_LoadVideo",
        "FramePairSlicer",
        "TLBVFI_Interpolator_V2",
        "VHS_VideoCombine",
    ],
}
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


def test_there_are_both_graphs() -> None:
    assert [path.stem for path in WORKFLOWS] == sorted(CHAINS)


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
            if node["type"] in OURS:
                graphs.check_node(node, object_info[node["type"]])

    def test_is_the_chain(self, path: Path) -> None:
        """The nodes are the ones of the chain, each fed by the one before it, the pair's two frames apart."""
        saved = graphs.read(path)
        nodes = {node["id"]: node for node in saved["nodes"] if node["type"] not in graphs.NOTES}
        assert sorted(node["type"] for node in nodes.values()) == sorted(CHAINS[path.stem])
        wires = {
            (
                nodes[source]["type"],
                nodes[source]["outputs"][out]["name"],
                nodes[target]["type"],
                nodes[target]["inputs"][into]["name"],
            )
            for _, source, out, target, into, _ in saved["links"]
        }
        steps = pairwise(CHAINS[path.stem])
        assert {(wire[0], wire[2]) for wire in wires} == set(steps)
        between = {(wire[1], wire[3]) for wire in wires if (wire[0], wire[2]) == OURS}
        assert between == {("prev_frame", "prev_frame"), ("next_frame", "next_frame")}

    def test_repeats_itself(self, object_info: dict[str, Json], path: Path) -> None:
        """The graph gives more than one new frame, and the same ones each time it is queued."""
        (node,) = [node for node in graphs.read(path)["nodes"] if node["type"] == OURS[1]]
        values = graphs.widget_values(node, object_info[OURS[1]])
        assert values["times_to_interpolate"] >= 1
        assert node["widgets_values"][-2] == "fixed"

    def test_has_notes_that_can_be_read(self, path: Path) -> None:
        """A note says what to do, and no node lies on another or outside all groups but the notes."""
        saved = graphs.read(path)
        notes = [node for node in saved["nodes"] if node["type"] in graphs.NOTES]
        assert any("models/interpolation" in note["widgets_values"][0] for note in notes)
        boxes = [(*node["pos"], *node["size"]) for node in saved["nodes"]]
        for index, (x, y, width, height) in enumerate(boxes):
            for other_x, other_y, other_width, other_height in boxes[:index]:
                apart_x = x + width <= other_x or other_x + other_width <= x
                apart_y = y + height <= other_y or other_y + other_height <= y
                assert apart_x or apart_y
        for node in saved["nodes"]:
            if node not in notes:
                assert any(contains(group["bounding"], node) for group in saved["groups"]), node["type"]


def contains(bounding: list[float], node: Json) -> bool:
    """Whether a node lies in a group's rectangle."""
    (x, y), (width, height) = node["pos"], node["size"]
    left, top, group_width, group_height = bounding
    right, bottom = left + group_width, top + group_height
    return bool(left <= x and x + width <= right and top <= y and y + height <= bottom)


# What the checks above find


def forget_control(node: Json) -> None:
    node["widgets_values"].remove("fixed")


def swap_two(node: Json) -> None:
    values = node["widgets_values"]
    values[1], values[2] = values[2], values[1]


def one_inserted(node: Json) -> None:
    node["widgets_values"].insert(6, 0)


def out_of_range(node: Json) -> None:
    node["widgets_values"][1] = 5


def other_steps(node: Json) -> None:
    node["widgets_values"][4] = 11


def other_widget_order(node: Json) -> None:
    slots = node["inputs"]
    slots[4], slots[5] = slots[5], slots[4]


def missing_output(node: Json) -> None:
    node["outputs"].clear()


@pytest.mark.parametrize(
    "damage",
    [
        forget_control,
        swap_two,
        one_inserted,
        out_of_range,
        other_steps,
        other_widget_order,
        missing_output,
    ],
)
def test_damage_to_a_node_is_found(object_info: dict[str, Json], damage: Callable[[Json], None]) -> None:
    """The check of a node refuses what a front end would load into the wrong widgets."""
    (node,) = [node for node in graphs.read(WORKFLOWS[0])["nodes"] if node["type"] == OURS[1]]
    damage(node)
    with pytest.raises(graphs.GraphError):
        graphs.check_node(node, object_info[OURS[1]])


@pytest.mark.parametrize("field", ["source", "slot", "type", "number"])
def test_damage_to_a_link_is_found(field: str) -> None:
    """The check of the structure refuses links that do not fit their ends."""
    saved = copy.deepcopy(graphs.read(WORKFLOWS[0]))
    place, value = {"source": (1, 99), "slot": (2, 9), "type": (5, "LATENT"), "number": (0, 77)}[field]
    saved["links"][2][place] = value
    saved["last_link_id"] = 77
    with pytest.raises(graphs.GraphError):
        graphs.check_structure(saved)

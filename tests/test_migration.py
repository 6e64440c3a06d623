"""Older graphs with the present nodes: of the front end, for the API, and inside a subgraph."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import fake_host
from tests.comfyui import graphs
from tests.comfyui.make_workflows import told
from tests.fake_host import REPOSITORY, FakeHost
from tests.old_graphs import MEANT, STORED
from tlbvfi.commands.main import main
from tlbvfi.migration import migrate
from tlbvfi.migration.kinds import COMBINE_KIND, STEPS

NAME = "_pack_of_the_migration"
VIDEO, PAIR, SLICER, COMBINE = (
    "TLBVFI_VideoInterpolator",
    "TLBVFI_Interpolator_V2",
    "FramePairSlicer",
    "VHS_VideoCombine",
)
Json = dict[str, Any]
MODEL = "vimeo_unet.pth"

#: Older nodes: sockets with their types, widgets in the order in which they are stored, outputs.
OLD: dict[str, tuple[Json, Json, list[tuple[str, str]]]] = {
    "Load": ({}, {}, [("IMAGE", "IMAGE"), ("fps", "FLOAT")]),
    "Show": ({"images": "IMAGE"}, {}, []),
    "ShowText": ({"text": "STRING"}, {}, []),
    "Index": ({}, {}, [("INT", "INT")]),
    "TLBVFI_FramePairSlicer": (
        {"images": "IMAGE"},
        {"pair_index": 0},
        [("frame_pair", "IMAGE"), ("pair_index", "INT"), ("total_pairs", "INT"), ("is_last_pair", "BOOLEAN")],
    ),
    "TLBVFI_Interpolator": (
        {"frame_pair": "IMAGE"},
        {"model_name": MODEL, "times_to_interpolate": 2, "gpu_id": 0, "is_last_pair": False, "save_images": False},
        [("interpolated_frames", "IMAGE")],
    ),
    PAIR: (
        {"prev_frame": "IMAGE", "next_frame": "IMAGE"},
        {
            "model_name": MODEL, "times_to_interpolate": 2, "enable_tf32": True, "sample_steps": 10, "flow_scale": 0.5,
            "tile_size": 0, "cpu_offload": True, "gpu_id": 1,
        },
        [("interpolated_frames", "IMAGE")],
    ),
    "TLBVFI_VFI_TF32": (
        {"images": "IMAGE"},
        {"model_name": MODEL, "times_to_interpolate": 3, "gpu_id": 1},
        [("IMAGE", "IMAGE")],
    ),
    "TLBVFI_BatchInterpolator_V2": (
        {"images": "IMAGE"},
        {
            "model_name": MODEL, "times_to_interpolate": 1, "enable_tf32": False, "sample_steps": 20,
            "flow_scale": 0.25, "cpu_offload": False, "gpu_id": 0, "include_source_frames": True,
        },
        [("interpolated_sequence", "IMAGE"), ("frame_count", "INT")],
    ),
    "TLBVFI_ChunkProcessor": (
        {"images": "IMAGE"},
        {
            "model_name": MODEL, "times_to_interpolate": 2, "fps": 60.0, "codec": "hevc_nvenc", "bitrate": "50M",
            "gpu_id": 1, "session_id": "s", "save_debug_images": False, "enable_tf32": False, "sample_steps": 30,
            "flow_scale": 0.25, "tile_size": 512, "cpu_offload": False, "debug": False,
        },
        [("session_id", "STRING")],
    ),
    "TLBVFI_ChunkVideoSaver": (
        {"frames": "IMAGE"},
        {
            "chunk_id": 0, "fps": 48, "session_id": "s", "output_dir": "output", "source_video_path": "",
            "codec": "libx264", "quality": 16,
        },
        [("session_id", "STRING"), ("chunk_path", "STRING"), ("num_frames", "INT"), ("file_size_mb", "FLOAT")],
    ),
    "TLBVFI_VideoConcatenator": (
        {},
        {
            "session_id": "s", "output_dir": "output/films", "output_filename": "whole.mp4", "cleanup_chunks": True,
            "return_frames": False,
        },
        [],
    ),
}  # fmt: skip
OLD["VideoConcatenator"] = OLD["TLBVFI_VideoConcatenator"]
KINDS = {"model_name": "COMBO", "codec": "COMBO", "fps": "FLOAT", "flow_scale": "FLOAT"}


class Old:
    """A graph of older nodes in the making: `add` nodes, then take it in a form."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, Json]] = []

    def add(self, key: str, **inputs: Any) -> int:
        """A node; inputs are values of widgets, or (node, slot)."""
        self.nodes.append((key, inputs))
        return len(self.nodes)

    def api(self) -> Json:
        found = {}
        for number, (key, inputs) in enumerate(self.nodes, start=1):
            values = {**OLD[key][1], **inputs}
            linked = {name: [str(v[0]), v[1]] if isinstance(v, tuple) else v for name, v in values.items()}
            found[str(number)] = {"class_type": key, "inputs": linked, "_meta": {"title": key}}
        return found

    def ui(self, by_name: bool = False, **more: Any) -> Json:
        boxes: list[Json] = []
        links: list[list[Any]] = []
        for number, (key, inputs) in enumerate(self.nodes, start=1):
            sockets, widgets, outputs = OLD[key]
            kinds = {**sockets, **{name: KINDS.get(name, _kind(value)) for name, value in widgets.items()}}
            slots: list[Json] = []
            for name, kind in kinds.items():
                slot: Json = {"name": name, "type": kind, "link": None}
                if name in widgets:
                    slot["widget"] = {"name": name}
                if isinstance(inputs.get(name), tuple):
                    slot["link"] = len(links) + 1
                    links.append([len(links) + 1, *inputs[name], number, len(slots), kind])
                slots.append(slot)
            values = {n: v if isinstance(inputs.get(n, v), tuple) else inputs.get(n, v) for n, v in widgets.items()}
            boxes.append({
                "id": number, "type": key, "pos": [400 * number, 0], "size": [300, 200], "flags": {},
                "order": number - 1, "mode": 0, "inputs": slots,
                "outputs": [{"name": name, "type": kind, "links": []} for name, kind in outputs],
                "properties": {"Node name for S&R": key, "cnr_id": "older"},
                "widgets_values": values if by_name else list(values.values()),
            })  # fmt: skip
        for link in links:
            boxes[link[1] - 1]["outputs"][link[2]]["links"].append(link[0])
        return {
            "id": "a-graph", "revision": 3, "last_node_id": len(boxes), "last_link_id": len(links), "nodes": boxes,
            "links": links, "groups": [{"title": "all", "bounding": [0, 0, 9, 9]}], "config": {},
            "extra": {"ds": {"scale": 1.5, "offset": [0.25, -3]}, "ü": "✓"}, "version": 0.4, **more,
        }  # fmt: skip


def _kind(value: Any) -> str:
    return {str: "STRING", bool: "BOOLEAN", int: "INT"}.get(type(value), "FLOAT")


def in_subgraph(graph: Json) -> Json:
    """A graph inside another one, links as objects, as a front end stores it."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    inner = {
        "id": "the-subgraph", "version": 1, "name": "Smooth", "nodes": graph["nodes"], "groups": [],
        "state": {"lastNodeId": graph["last_node_id"], "lastLinkId": graph["last_link_id"]},
        "inputs": [], "outputs": [], "links": [dict(zip(names, link, strict=True)) for link in graph["links"]],
    }  # fmt: skip
    box = {"id": 1, "type": "the-subgraph", "order": 0, "inputs": [], "outputs": [], "widgets_values": []}
    return {
        "last_node_id": 1, "last_link_id": 0, "nodes": [box], "links": [], "version": 0.4,
        "definitions": {"subgraphs": [inner]},
    }  # fmt: skip


def out_of_subgraph(outer: Json) -> Json:
    """The graph inside, as one by itself."""
    (inner,) = outer["definitions"]["subgraphs"]
    assert all(isinstance(link, dict) for link in inner["links"])
    return {
        **inner, "links": [list(link.values()) for link in inner["links"]],
        "last_node_id": inner["state"]["lastNodeId"], "last_link_id": inner["state"]["lastLinkId"],
    }  # fmt: skip


FORMS = ["api", "ui", "by name", "subgraph"]


def migrated(old: Old, form: str) -> tuple[dict[str, Json], tuple[str, ...]]:
    """A graph after its migration: id -> class and inputs, whatever the form; and what was said.

    It is well-formed, a second migration leaves it alone, and what is not ours is as it was.
    """
    before = old.api() if form == "api" else old.ui(by_name=form == "by name")
    before = in_subgraph(before) if form == "subgraph" else before
    result = migrate(json.dumps(before).encode())
    after = json.loads(result.data)
    again = migrate(result.data)
    assert not again.changed and again.data == result.data
    if form == "api":
        for node, entry in before.items():
            if not entry["class_type"].startswith(("TLBVFI", "VideoC", "ShowT")):
                assert after[node]["inputs"] == entry["inputs"]
        return {n: {"type": e["class_type"], "inputs": e["inputs"]} for n, e in after.items()}, result.lines
    if form == "subgraph":
        assert {k: v for k, v in after.items() if k != "definitions"} == {
            k: v for k, v in before.items() if k != "definitions"
        }
        after = out_of_subgraph(after)
    else:
        for name in ("id", "revision", "groups", "config", "extra", "version"):
            assert after[name] == before[name]
    graphs.check_structure(after)
    return {str(box["id"]): as_api(box, after) for box in after["nodes"]}, result.lines


def as_api(box: Json, graph: Json) -> Json:
    """A box's class and inputs."""
    if box["type"] in INFO:
        graphs.check_node(box, INFO[box["type"]])
        inputs = graphs.widget_values(box, INFO[box["type"]])
    elif isinstance(box["widgets_values"], dict):
        inputs = dict(box["widgets_values"])
    else:
        inputs = dict(zip([s["name"] for s in box["inputs"] if "widget" in s], box["widgets_values"], strict=True))
    links = {link[0]: link for link in graph["links"]}
    for slot in box["inputs"]:
        if slot["link"] is not None:
            inputs[slot["name"]] = [str(links[slot["link"]][1]), links[slot["link"]][2]]
    return {"type": box["type"], "inputs": inputs}


INFO: dict[str, Json] = {}


@pytest.fixture(scope="module", autouse=True)
def object_info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ComfyUI would tell of our present nodes."""
    models = tmp_path_factory.mktemp("models")
    (models / "interpolation").mkdir()
    (models / "interpolation" / MODEL).touch()
    with pytest.MonkeyPatch.context() as patch:
        fake_host.install(FakeHost(models), patch)
        pack = fake_host.load_pack(NAME)
        INFO.update({key: told(pack.NODE_CLASS_MAPPINGS[key]) for key in (VIDEO, PAIR, SLICER)})
        yield
    INFO.clear()
    fake_host.forget_pack(NAME)


def check_prompt(found: dict[str, Json]) -> None:
    """Every required input is there, links lead to nodes that are there, and no input is unknown."""
    for node in found.values():
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in found
        if node["type"] in INFO:
            known = graphs.declared(INFO[node["type"]])
            assert set(node["inputs"]) <= set(known)
            required = {each for each in INFO[node["type"]]["input"]["required"] if known[each][0] != "IMAGE"}
            assert required <= set(node["inputs"])


@pytest.mark.parametrize("form", FORMS)
class TestForms:
    """Each older node, in each form of a graph."""

    def test_a_slicer(self, form: str) -> None:
        old = Old()
        old.add("Load")
        slicer = old.add("TLBVFI_FramePairSlicer", images=(1, 0), pair_index=5)
        old.add("TLBVFI_Interpolator", frame_pair=(slicer, 0), is_last_pair=(slicer, 3))
        found, lines = migrated(old, form)
        assert found["2"] == {"type": SLICER, "inputs": {"images": ["1", 0], "pair_index": 5}}
        assert found["3"]["inputs"]["is_last_pair"] == ["2", 3] and found["3"]["inputs"]["frame_pair"] == ["2", 0]
        assert len(lines) == 1 and "now FramePairSlicer" in lines[0]
        check_prompt(found)

    @pytest.mark.parametrize("key", ["TLBVFI_VFI_TF32", "TLBVFI_BatchInterpolator_V2"])
    def test_a_video(self, form: str, key: str) -> None:
        old = Old()
        old.add("Load")
        old.add("Index")
        node = old.add(key, images=(1, 0), gpu_id=(2, 0))
        old.add("Show", images=(node, 0))
        found, lines = migrated(old, form)
        inputs = found["3"]["inputs"]
        batch = "Batch" in key
        assert found["3"]["type"] == VIDEO and found["4"]["inputs"] == {"images": ["3", 0]}
        assert inputs["images"] == ["1", 0] and inputs["gpu_id"] == ["2", 0]
        assert (inputs["mode"], inputs["multiplier"]) == ("multiplier", 2 if batch else 8)
        assert inputs["scene_cut"] == inputs["still_threshold"] == 0
        assert inputs["quality"] == ("custom" if batch else "fast") and inputs["model_name"] == MODEL
        if batch:
            wanted = {"sample_steps": 20, "flow_scale": 0.25, "enable_tf32": False, "cpu_offload": False}
            assert {name: inputs[name] for name in wanted} == wanted
        assert len(lines) == 1
        check_prompt(found)

    def test_what_is_not_exact_stays(self, form: str) -> None:
        """New frames alone, and a number of halvings that is linked."""
        old = Old()
        old.add("Load")
        old.add("Index")
        old.add("TLBVFI_BatchInterpolator_V2", images=(1, 0), include_source_frames=False)
        old.add("TLBVFI_VFI_TF32", images=(1, 0), times_to_interpolate=(2, 0))
        found, lines = migrated(old, form)
        assert found["3"]["type"] == "TLBVFI_BatchInterpolator_V2" and found["4"]["type"] == "TLBVFI_VFI_TF32"
        assert len(lines) == 2 and all("stays" in line for line in lines)

    @pytest.mark.parametrize("joiner", ["TLBVFI_VideoConcatenator", "VideoConcatenator", None])
    def test_chunks_of_a_video(self, form: str, joiner: str | None) -> None:
        old = Old()
        old.add("Load")
        node = old.add("TLBVFI_ChunkProcessor", images=(1, 0))
        if joiner is not None:
            old.add(joiner, session_id=(node, 0))
        found, lines = migrated(old, form)
        inputs, saved = found["2"]["inputs"], found["3"]["inputs"]
        assert [each["type"] for each in found.values()] == ["Load", VIDEO, COMBINE]
        wanted = {
            "images": ["1", 0], "multiplier": 4, "source_fps": "15", "quality": "custom", "sample_steps": 20,
            "flow_scale": 0.25, "enable_tf32": False, "cpu_offload": False, "gpu_id": 1, "model_name": MODEL,
        }  # fmt: skip
        assert {name: inputs[name] for name in wanted} == wanted
        assert saved["images"] == ["2", 0] and saved["frame_rate"] == 60
        assert saved["filename_prefix"] == ("films/whole" if joiner else "tlbvfi")
        assert (saved["format"], saved["bitrate"], saved["megabit"]) == ("video/nvenc_hevc-mp4", 50, True)
        assert any("sample_steps 30 is 20 now" in line for line in lines)
        check_prompt(found)

    def test_chunks_of_pairs(self, form: str) -> None:
        """Slicer, interpolator, saver and joiner become the video node and one that saves."""
        old = Old()
        old.add("Load")
        old.add("Index")
        slicer = old.add("TLBVFI_FramePairSlicer", images=(1, 0), pair_index=(2, 0))
        pair = old.add("TLBVFI_Interpolator", frame_pair=(slicer, 0), is_last_pair=(slicer, 3), gpu_id=1)
        saver = old.add("TLBVFI_ChunkVideoSaver", frames=(pair, 0), chunk_id=(slicer, 1), fps=(1, 1))
        old.add("TLBVFI_VideoConcatenator", session_id=(saver, 0))
        old.add("ShowText", text=(saver, 1))
        found, lines = migrated(old, form)
        assert [each["type"] for each in found.values()] == ["Load", "Index", VIDEO, COMBINE, "ShowText"]
        inputs, saved = found["4"]["inputs"], found["5"]["inputs"]
        assert (inputs["images"], inputs["multiplier"], inputs["gpu_id"]) == (["1", 0], 4, 1)
        assert (saved["images"], saved["frame_rate"]) == (["4", 0], ["1", 1])
        assert (saved["filename_prefix"], saved["format"], saved["crf"]) == ("films/whole", "video/h264-mp4", 16)
        assert any("(ShowText): text is no longer linked" in line for line in lines)
        check_prompt(found)

    def test_pairs_that_are_shown_too(self, form: str) -> None:
        """The interpolator of a pair stays where something else takes what it gives."""
        old = Old()
        old.add("Load")
        slicer = old.add("TLBVFI_FramePairSlicer", images=(1, 0))
        pair = old.add("TLBVFI_Interpolator", frame_pair=(slicer, 0))
        old.add("TLBVFI_ChunkVideoSaver", frames=(pair, 0))
        old.add("Show", images=(pair, 0))
        found, _ = migrated(old, form)
        assert [found[str(node)]["type"] for node in range(1, 7)] == [
            "Load", SLICER, "TLBVFI_Interpolator", COMBINE, "Show", VIDEO
        ]  # fmt: skip
        assert found["4"]["inputs"]["images"] == ["6", 0] and found["5"]["inputs"]["images"] == ["3", 0]
        check_prompt(found)

    def test_chunks_of_other_frames(self, form: str) -> None:
        """Frames that are no pair's are saved as they are; an older video node before them becomes the present one."""
        old = Old()
        old.add("Load")
        node = old.add("TLBVFI_VFI_TF32", images=(1, 0))
        old.add("TLBVFI_ChunkVideoSaver", frames=(node, 0), source_video_path="a.mp4", codec="mpeg2")
        found, lines = migrated(old, form)
        assert [each["type"] for each in found.values()] == ["Load", VIDEO, COMBINE]
        assert found["3"]["inputs"]["images"] == ["2", 0] and found["3"]["inputs"]["format"] == "video/h264-mp4"
        assert any("link the sound" in line for line in lines) and any("'mpeg2' is h264" in line for line in lines)

    def test_a_joiner_alone_stays(self, form: str) -> None:
        old = Old()
        old.add("TLBVFI_VideoConcatenator")
        found, lines = migrated(old, form)
        assert found["1"]["type"] == "TLBVFI_VideoConcatenator"
        assert len(lines) == 1 and "stays" in lines[0]


@pytest.mark.parametrize("stored", STORED)
def test_older_orders(stored: str) -> None:
    """The same as the front end's part makes of them."""
    old = Old()
    old.add("Load")
    old.add(PAIR, prev_frame=(1, 0), next_frame=(1, 0))
    graph = old.ui()
    graph["nodes"][1]["widgets_values"] = STORED[stored]
    result = migrate(json.dumps(graph).encode())
    after = json.loads(result.data)
    graphs.check_structure(after)
    graphs.check_node(after["nodes"][1], INFO[PAIR])
    assert after["nodes"][1]["widgets_values"] == list(MEANT[stored].values())
    assert not migrate(result.data).changed


def test_an_older_prompt_has_all_inputs() -> None:
    old = Old()
    old.add("Load")
    old.add(PAIR, prev_frame=(1, 0), next_frame=(1, 0), sample_steps=40)
    found, lines = migrated(old, "api")
    inputs = found["2"]["inputs"]
    assert "tile_size" not in inputs and inputs["use_fp16"] is True and inputs["sample_steps"] == 50
    check_prompt(found)


def test_present_graphs_are_left_alone() -> None:
    for path in REPOSITORY.joinpath("workflows").glob("*.json"):
        result = migrate(path.read_bytes())
        assert (result.changed, result.lines, result.data) == (False, (), path.read_bytes())


def test_the_choices_are_those_of_the_nodes() -> None:
    assert tuple(INFO[VIDEO]["input"]["optional"]["sample_steps"][0]) == STEPS


def test_the_node_that_saves_is_as_in_the_example() -> None:
    """Its slots and values are those of a graph that VideoHelperSuite's own front end stored."""
    (example,) = [
        box
        for box in graphs.read(REPOSITORY / "workflows" / "VideoHelperSuite - video with sound.json")["nodes"]
        if box["type"] == COMBINE
    ]
    shown = [slot["name"] for slot in example["inputs"] if slot["name"] in {each.name for each in COMBINE_KIND.inputs}]
    assert shown == [each.name for each in COMBINE_KIND.inputs]
    old = Old()
    old.add("TLBVFI_ChunkProcessor", codec="h264")
    found, _ = migrated(old, "ui")
    assert set(found["2"]["inputs"]) - {"images"} == set(example["widgets_values"])


def test_links_from_and_to_the_edge_of_a_subgraph() -> None:
    """What comes in and goes out of a subgraph stays linked, and what is cut is forgotten there too."""
    old = Old()
    old.add("TLBVFI_VFI_TF32")
    old.add("TLBVFI_ChunkProcessor")
    outer = in_subgraph(old.ui())
    (inner,) = outer["definitions"]["subgraphs"]
    inner["inputs"] = [{"name": "images", "type": "IMAGE", "linkIds": [1, 2]}]
    inner["outputs"] = [{"name": "IMAGE", "linkIds": [3]}, {"name": "session", "linkIds": [4]}]
    ends = [(1, -10, 0, 1, 0), (2, -10, 0, 2, 0), (3, 1, 0, -20, 0), (4, 2, 0, -20, 1)]
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    inner["links"] = [{**dict(zip(names, end, strict=True)), "type": "IMAGE"} for end in ends]
    for place in (0, 1):
        inner["nodes"][place]["inputs"][0]["link"] = place + 1
        inner["nodes"][place]["outputs"][0]["links"] = [place + 3]
    (after,) = json.loads(migrate(json.dumps(outer).encode()).data)["definitions"]["subgraphs"]
    assert [output["linkIds"] for output in after["outputs"]] == [[3], []]
    assert after["inputs"][0]["linkIds"] == [1, 2]
    assert [link["id"] for link in after["links"]] == [1, 2, 3, 5]
    assert [box["type"] for box in after["nodes"]] == [VIDEO, VIDEO, COMBINE]


@pytest.mark.parametrize("key", ["TLBVFI_VFI_TF32", "TLBVFI_ChunkProcessor"])
def test_widgets_on_the_box_of_a_subgraph(key: str) -> None:
    """A node stays where the box shows a widget that the present one has not; one that has to go loses it there."""
    old = Old()
    old.add(key)
    outer = in_subgraph(old.ui())
    shown = [["1", "gpu_id"], ["1", "times_to_interpolate"], ["9", "x"], 3]
    outer["nodes"][0]["properties"] = {"proxyWidgets": shown}
    result = migrate(json.dumps(outer).encode())
    stays = key == "TLBVFI_VFI_TF32"
    left = json.loads(result.data)["nodes"][0]["properties"]["proxyWidgets"]
    assert result.changed is not stays and left == (shown if stays else [shown[0], *shown[2:]])
    assert stays or any("no longer shows times_to_interpolate" in line for line in result.lines)


def test_a_group_node_with_older_nodes_is_named() -> None:
    groups = {"a": {"nodes": [{"type": "TLBVFI_ChunkProcessor"}]}, "b": {"nodes": [{"type": "x"}]}, "c": 3}
    graph = {"nodes": [], "links": [], "extra": {"groupNodes": groups}}
    (line,) = migrate(json.dumps(graph).encode()).lines
    assert line == "The group node 'a' stays: it holds TLBVFI_ChunkProcessor; convert it to nodes first."


# What is no graph


DEEP = "[" * 100_000
HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "no nodes": b"{}",
    "other JSON": b'{"a": {"b": 1}}',
    "no UTF-8": b"\xff\xfe{}",
    "deep": DEEP.encode(),
    "deep in a graph": b'{"nodes": [], "links": [], "extra": ' + DEEP.encode(),
    "a long number": b'{"nodes": [], "links": [], "extra": ' + b"9" * 10_000 + b"}",
    "infinite": b'{"nodes": [], "links": [], "extra": 1e999}',
    "nodes are an object": b'{"nodes": {}, "links": []}',
    "links are an object": b'{"nodes": [], "links": {}}',
    "a node is a number": b'{"nodes": [3], "links": []}',
    "a node without id": b'{"nodes": [{"type": "a"}], "links": []}',
    "a node with a list for an id": b'{"nodes": [{"type": "a", "id": []}], "links": []}',
    "a node without type": b'{"nodes": [{"id": 1}], "links": []}',
    "one id twice": b'{"nodes": [{"id": 1, "type": "a"}, {"id": 1, "type": "b"}], "links": []}',
    "subgraphs are a number": b'{"nodes": [], "links": [], "definitions": {"subgraphs": 3}}',
    "a subgraph is a list": b'{"nodes": [], "links": [], "definitions": {"subgraphs": [[]]}}',
    "a subgraph without nodes": b'{"nodes": [], "links": [], "definitions": {"subgraphs": [{"id": "a"}]}}',
    "a class that is a number": b'{"1": {"class_type": 3, "inputs": {}}}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_graph_is_one_sentence(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").write_bytes(data)
    assert main(["migrate", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "cannot be migrated: it" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.json"]


WRONG: list[Any] = [None, True, -1, 1e300, "x", [], [1, 2], {}, {"a": 1}]
KEYS = sorted(key for key in OLD if key.startswith(("TLBVFI", "Video")))


@pytest.mark.parametrize("key", KEYS)
def test_wrong_types_in_a_graph(key: str) -> None:
    """Whatever stands where something else belongs, the migration ends, and with a graph or one sentence."""
    old = Old()
    old.add("Load")
    sockets, widgets, _ = OLD[key]
    old.add(key, **dict.fromkeys(sockets, (1, 0)))
    for wrong in WRONG:
        cases: list[Any] = []
        for name in ("inputs", "outputs", "widgets_values", "properties", "pos", "size", "order", "mode", "title"):
            cases.append(old.ui())
            cases[-1]["nodes"][1][name] = wrong
        for name in ("links", "extra", "state", "definitions", "last_node_id", "last_link_id"):
            cases.append({**old.ui(), name: wrong})
        for place in range(6):
            cases.append(old.ui())
            for link in cases[-1]["links"]:
                link[place] = wrong
        cases.append({**old.ui(), "links": [wrong]})
        for place in range(len(widgets)):
            cases.append(old.ui())
            cases[-1]["nodes"][1]["widgets_values"][place] = wrong
        for name in (*widgets, *sockets):
            cases.append(old.api())
            cases[-1]["2"]["inputs"][name] = wrong
        cases.append(old.api())
        cases[-1]["2"]["inputs"] = wrong
        for case in cases:
            result = refusal = None
            try:
                result = migrate(json.dumps(case).encode())
            except ValueError as error:
                refusal = str(error)
            said = (refusal,) if refusal is not None else result.lines if result is not None else ()
            assert not any("\n" in line for line in said)
            assert refusal is None or refusal.startswith("it ")
            assert result is None or not migrate(result.data).changed


@pytest.mark.parametrize("form", ["api", "ui"])
def test_links_in_a_circle(form: str) -> None:
    old = Old()
    old.add("TLBVFI_ChunkVideoSaver", frames=(2, 0), session_id=(3, 0))
    old.add("TLBVFI_Interpolator", frame_pair=(4, 0))
    old.add("TLBVFI_ChunkProcessor", images=(2, 0), session_id=(1, 0))
    old.add("TLBVFI_FramePairSlicer", images=(2, 0))
    old.add("TLBVFI_VideoConcatenator", session_id=(3, 0))
    graph = old.api() if form == "api" else old.ui()
    if form == "ui":  # two nodes that pass on to one another
        for number in (2, 3):
            graph["nodes"][number]["type"] = "Reroute"
            graph["nodes"][number]["inputs"] = [{"name": "", "link": 6 - number}]
    result = migrate(json.dumps(graph).encode())
    assert result.changed and not migrate(result.data).changed


def test_a_large_graph() -> None:
    """Hundreds of nodes that one node leads to."""
    old = Old()
    old.add("Load")
    for _ in range(250):
        node = old.add("TLBVFI_ChunkProcessor", images=(1, 0))
        old.add("TLBVFI_VideoConcatenator", session_id=(node, 0))
    found, _ = migrated(old, "ui")
    assert len(found) == 501 and {each["type"] for each in found.values()} == {"Load", VIDEO, COMBINE}


# The file


@pytest.mark.parametrize("style", ["compact", "indented", "one line", "half a character"])
def test_the_file_keeps_its_manner(style: str) -> None:
    old = Old()
    old.add("TLBVFI_FramePairSlicer")
    graph = old.ui()
    if style == "half a character":
        graph["extra"]["half"] = "\ud800"
    options: Json = {
        "compact": {"separators": (",", ":"), "ensure_ascii": False},
        "indented": {"indent": 2, "ensure_ascii": False},
        "one line": {"ensure_ascii": False},
    }.get(style, {})
    after = migrate(json.dumps(graph, **options).encode()).data
    assert after == json.dumps(json.loads(after), **options).encode()
    assert json.loads(after)["extra"] == graph["extra"]


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    old = Old()
    old.add("Load")
    old.add("TLBVFI_VFI_TF32", images=(1, 0))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old.ui()))
    return path


def test_the_command(old_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each change; another file is replaced with --force alone; nothing to change is said."""
    new, newer = old_file.with_name("new.json"), old_file.with_name("newer.json")
    before = old_file.read_bytes()
    assert main(["migrate", str(old_file), str(new)]) == 0
    assert capsys.readouterr().out == f"Node 2 (TLBVFI_VFI_TF32) is now {VIDEO} with the multiplier 8.\n"
    assert old_file.read_bytes() == before and json.loads(new.read_bytes())["nodes"][1]["type"] == VIDEO
    assert main(["migrate", str(new), str(newer)]) == 0
    assert "Nothing to change" in capsys.readouterr().out and newer.read_bytes() == new.read_bytes()
    assert main(["migrate", str(old_file), str(newer)]) == 2
    assert "--force" in capsys.readouterr().err and newer.read_bytes() == new.read_bytes()
    newer.write_bytes(b"")
    newer.chmod(0o600)
    assert main(["migrate", str(old_file), str(newer), "--force"]) == 0
    assert newer.read_bytes() == new.read_bytes() and stat.S_IMODE(newer.stat().st_mode) == 0o600 or os.name == "nt"
    assert len(list(old_file.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("nowhere.json", "new.json", "does not exist"),
        (".", "new.json", "it is no file"),
        ("old.json", "old.json", "is the graph itself"),
        ("old.json", "nowhere/new.json", "does not exist"),
        ("old.json", ".", "it is a folder"),
        ("/dev/zero", "new.json", "it is no file"),
        ("old.json", "/dev/null", "a device or a pipe"),
    ],
)
def test_files_that_cannot_be(
    old_file: Path, source: str, target: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "/dev/" in source + target and not Path("/dev/zero").exists():
        pytest.skip("no such devices here")
    arguments = [str(old_file.parent / source), str(old_file.parent / target)]
    assert main(["migrate", *arguments, "--force"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert [path.name for path in old_file.parent.iterdir()] == ["old.json"]


def test_no_pytorch(old_file: Path) -> None:
    program = "import sys; from tlbvfi.commands.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    arguments = ["migrate", str(old_file), str(old_file.with_name("new.json"))]
    ran = subprocess.run([sys.executable, "-c", program, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")

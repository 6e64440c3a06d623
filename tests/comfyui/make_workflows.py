"""The shipped graphs, made: `python -m tests.comfyui.make_workflows` writes `workflows/*.json` and, by blueprints.py,
`subgraphs/*.json` anew.

Slots, widgets and defaults of our nodes come from the classes, so that a new input needs no more than another run.
Those of ComfyUI's and VideoHelperSuite's nodes are in other_nodes.json. Nodes stand in columns, columns in groups, and
notes above them all.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import fake_host
from tests.comfyui import graphs
from tests.comfyui.graphs import Json, NodeInfo
from tests.release import metadata, stamps

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "workflows"
#: Nodes of others as the front end saves them: slots, properties, size and values.
OTHERS: dict[str, Json] = json.loads(Path(__file__).with_name("other_nodes.json").read_text(encoding="utf-8"))

CLIP, PAIR, SLICER = "TLBVFI_ExampleClip", "TLBVFI_Interpolator_V2", "FramePairSlicer"
VIDEO, FILE, LOADER = "TLBVFI_VideoInterpolator", "TLBVFI_InterpolateVideo", "TLBVFI_ModelLoader"
SCHEDULE, PLOT = "TLBVFI_Schedule", "TLBVFI_SchedulePreview"
#: Width and height of our nodes, with room for what the front end shows in them.
SIZES = {
    CLIP: (300, 160), PAIR: (310, 600), SLICER: (280, 160), VIDEO: (330, 830), FILE: (380, 980), LOADER: (310, 240),
    SCHEDULE: (310, 140), PLOT: (310, 60),
}  # fmt: skip
BLUE, GREEN, GREY, YELLOW = "#3f789e", "#8A8", "#88A", "#b58b2a"
NODE_TITLE, GROUP_TITLE, MARGIN, GAP = 30, 50, 20, 50
NOTE_WIDTH, NOTE_HEIGHT = 430, 300

MODEL = (
    "The small built-in model is chosen under **model_name**. For the published one, put its file into "
    "`ComfyUI/models/interpolation`, press **R** and choose it: a `.pth` from the authors or a converted "
    "`.safetensors`."
)
OWN_FRAMES = "**A clip of your own**: put *Load Video* and *Get Video Components* in the place of **Example Clip**."
SAVED = "The video is in `ComfyUI/output/video`."
TWICE = (
    "- **A certain frame rate**: set **mode** to *target fps* and type it into **target_fps**, such as 60.",
    "- **Slow motion**: raise **multiplier**",
)
QUALITY = (
    "- **quality**: *fast* is the published setting, *balanced* and *quality* take longer. *custom*: as "
    "**sample_steps** and **flow_scale** say."
)
SPEED = "- **use_fp16**, **enable_tf32**: faster where the graphics card has them."
COMPILE = "- **compile**: faster after a first run that takes minutes longer; for many frames of one size."
SEED = "- **seed**: the same seed gives the same frames."
FLOW = (
    "- **flow_scale**: the size at which motion is estimated; 0.5 suits most clips, 1.0 small or slow motion at more "
    "memory."
)
VIDEO_SETTINGS = (
    "Settings",
    "## The other settings\n\n"
    + "\n".join(
        [
            QUALITY,
            "- **scene_cut**: where a scene ends, its last frame is held rather than melted into the next scene. 0: "
            "off.",
            "- **still_threshold**: frames that stand still are copied. 0: off, for film grain.",
            "- **loop**: new frames from the last frame to the first one too.",
            SEED,
            SPEED,
            COMPILE,
        ]
    ),
)
PAIR_SETTINGS = (
    "Settings",
    "## The other settings\n\n"
    + "\n".join(
        [
            SEED,
            FLOW,
            "- **sample_steps**: 10 is what the model was published with.",
            "- **quality**: other than *custom* it decides about these two: *fast*, *balanced*, *quality*.",
            SPEED,
            "- **cpu_offload**: finished frames leave the graphics card at once.",
            "- **gpu_id**: 0 is the device that ComfyUI uses.",
            COMPILE,
        ]
    ),
)


def steps(*lines: str, then: str = "") -> tuple[str, str]:
    """The first note: what to do, in order."""
    numbered = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))
    return "Read me first", f"## Before the first run\n\n{numbered}" + (f"\n\n{then}" if then else "")


def about(title: str, *paragraphs: str) -> tuple[str, str]:
    """The second note: what the graph gives."""
    return title, "\n\n".join(["## What comes out", *paragraphs])


class Graph:
    """A graph while it is made. Nodes are added in the order in which they run."""

    def __init__(self, title: str, ours: Mapping[str, NodeInfo]) -> None:
        self.title, self._ours = title, ours
        self._nodes: list[Json] = []
        self._links: list[list[Any]] = []
        self._groups: list[tuple[str, str, list[list[Json]]]] = []
        self._notes: tuple[tuple[str, str], ...] = ()

    def node(self, kind: str, /, title: str = "", size: tuple[int, int] | None = None, **values: Any) -> Json:
        """Add a node, with some of its widgets' values; those of the rest are the node's own."""
        node = self._own(kind, values) if kind in self._ours else self._other(kind, values)
        if title:
            node["title"] = title
        node.update(id=len(self._nodes) + 1, size=list(size or node["size"]))
        self._nodes.append(node)
        return node

    def _own(self, kind: str, values: dict[str, Any]) -> Json:
        info = self._ours[kind]
        widgets = {widget.name: widget for widget in graphs.widgets(info)}
        stored: list[Any] = []
        for name, widget in widgets.items():
            value = values.pop(name, widget.options.get("default", widget.choices[0] if widget.choices else None))
            stored += [value, *(["fixed"] * widget.companions)]
        assert not values, f"{kind} has no {values}"
        optional = info["input"].get("optional", {})
        inputs = []
        for name, (type_, _) in graphs.declared(info).items():
            slot: Json = {"name": name, **({"shape": 7} if name in optional else {})}
            slot["type"] = "COMBO" if isinstance(type_, list) else type_
            if name in widgets:
                slot["widget"] = {"name": name}
            inputs.append(slot)
        outputs = [{"name": n, "type": t} for n, t in zip(info["output_name"], info["output"], strict=True)]
        properties = {"Node name for S&R": kind, **stamps.wanted(metadata.read())}
        return whole(kind, sorted(inputs, key=lambda slot: "widget" in slot), outputs, properties, SIZES[kind], stored)

    @staticmethod
    def _other(kind: str, values: dict[str, Any]) -> Json:
        known = json.loads(json.dumps(OTHERS[kind]))
        stored = known["widgets_values"]
        if isinstance(stored, dict):
            assert set(values) <= set(stored)
            stored.update(values)
        else:
            names = [slot["name"] for slot in known["inputs"] if "widget" in slot]
            for name, value in values.items():
                stored[names.index(name)] = value
        return whole(kind, known["inputs"], known["outputs"], known["properties"], known["size"], stored)

    def link(self, source: Json, output: str, target: Json, *inputs: str) -> None:
        """Lead an output of a node to an input of another."""
        for name in inputs:
            (out,) = [i for i, slot in enumerate(source["outputs"]) if slot["name"] == output]
            (into,) = [i for i, slot in enumerate(target["inputs"]) if slot["name"] == name]
            number = len(self._links) + 1
            source["outputs"][out]["links"].append(number)
            target["inputs"][into]["link"] = number
            self._links.append([number, source["id"], out, target["id"], into, target["inputs"][into]["type"]])

    def group(self, title: str, colour: str, *columns: Json | list[Json]) -> None:
        """Some nodes in columns, in a frame of their own, to the right of the groups before."""
        stacks = [column if isinstance(column, list) else [column] for column in columns]
        self._groups.append((f"{len(self._groups) + 1}  {title}", colour, stacks))

    def notes(self, *notes: tuple[str, str]) -> None:
        self._notes = notes

    def made(self) -> Json:
        """The graph as the front end saves it."""
        boxes: list[Json] = []
        left, top = -MARGIN, -NODE_TITLE - GROUP_TITLE
        for title, colour, columns in self._groups:
            x = left + MARGIN
            for column in columns:
                y = 0
                for node in column:
                    node["pos"] = [x, y]
                    y += node["size"][1] + GAP
                x += max(node["size"][0] for node in column) + 2 * MARGIN
            width = x - MARGIN - left
            box = {"id": len(boxes) + 1, "title": title, "bounding": [left, top, width, 0], "color": colour}
            boxes.append({**box, "font_size": 24, "flags": {}})
            left += width + MARGIN // 2
        bottom = max(node["pos"][1] + node["size"][1] for node in self._nodes)
        for each in boxes:
            each["bounding"][3] = bottom + MARGIN - top
        wide = (left + MARGIN // 2 - (len(self._notes) - 1) * GAP // 2) // len(self._notes)
        nodes = [*self._nodes, *self._placed_notes(max(wide, NOTE_WIDTH), top)]
        for order, node in enumerate(nodes):
            node["order"] = order
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"tlbvfi/{self.title}")),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(self._links),
            "nodes": nodes,
            "links": self._links,
            "groups": boxes,
            "config": {},
            "extra": {"ds": {"scale": 0.65, "offset": [130, 680]}},
            "version": 0.4,
        }

    def _placed_notes(self, width: int, top: int) -> Iterable[Json]:
        for index, (title, text) in enumerate(self._notes):
            node = whole("MarkdownNote", [], [], {}, (width, NOTE_HEIGHT), [text])
            node.update(id=len(self._nodes) + index + 1, title=title, color="#432", bgcolor="#653")
            node["pos"] = [index * (width + GAP // 2), top - MARGIN - NOTE_HEIGHT]
            yield node


def whole(
    kind: str, inputs: list[Json], outputs: list[Json], properties: Json, size: Iterable[int], values: Any
) -> Json:
    """A node as it is saved, its place yet to be found."""
    return {
        "id": 0,
        "type": kind,
        "pos": [0, 0],
        "size": list(size),
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{**slot, "link": None} for slot in inputs],
        "outputs": [{**slot, "links": []} for slot in outputs],
        "properties": properties,
        "widgets_values": values,
    }


# Parts that several graphs have


def example(g: Graph, **values: Any) -> Json:
    return g.node(CLIP, **values)


def saving(g: Graph, frames: Json, output: str = "frames", prefix: str = "video/tlbvfi", **values: Any) -> list[Json]:
    """Create Video and Save Video; the rate comes from the node of the frames unless it is given."""
    create = g.node("CreateVideo", **values)
    g.link(frames, output, create, "images")
    if not values:
        g.link(frames, "fps", create, "fps")
    save = g.node("SaveVideo", filename_prefix=prefix)
    g.link(create, "VIDEO", save, "video")
    g.group("The video", YELLOW, create, save)
    return [create, save]


def interpolated(g: Graph, clip: Json, rate: bool = True, **values: Any) -> Json:
    """The Video Interpolator on the example clip."""
    node = g.node(VIDEO, **values)
    g.link(clip, "frames", node, "images")
    if rate:
        g.link(clip, "fps", node, "source_fps")
    return node


# The graphs


def first_run(g: Graph) -> None:
    clip = example(g)
    node = interpolated(g, clip, hold_last=True)
    g.group("The clip", BLUE, clip)
    g.group("More frames", GREEN, node)
    saving(g, node)
    g.notes(
        steps(
            "Press **Run**. The clip comes with the pack, and so does the small model: nothing is downloaded.",
            f"{SAVED} On a CPU it takes less than a minute.",
            f"For your own video take the graph *{WHOLE}*.",
            then=MODEL,
        ),
        about(
            "Smoother, or slower",
            "Two frames for one: 25 frames per second become 50. The **fps** of the result goes on to **Create "
            "Video**, so that the speed stays as it is.",
            "\n".join(
                [
                    TWICE[0],
                    f"{TWICE[1]}, and connect *fps* of **Example Clip** to *fps* of **Create Video**.",
                    "- **frame_count**, **width**: how much of the clip. 480 is its full width.",
                ]
            ),
        ),
        VIDEO_SETTINGS,
    )


def whole_video(g: Graph) -> None:
    load = g.node("LoadVideo")
    parts = g.node("GetVideoComponents")
    g.link(load, "VIDEO", parts, "video")
    node = g.node(VIDEO, hold_last=True)
    g.link(parts, "images", node, "images")
    g.link(parts, "fps", node, "source_fps")
    g.group("Your clip", BLUE, load, parts)
    g.group("More frames", GREEN, node)
    create, _ = saving(g, node)
    g.link(parts, "audio", create, "audio")
    g.notes(
        steps(
            "Choose a clip in **Load Video**.",
            MODEL,
            "Press **Run**. The new video, with the sound of the clip, is in `ComfyUI/output/video`.",
            then=f"All frames are in memory at once. For a long clip take the graph *{LONG}*, which goes from file to "
            "file.",
        ),
        about(
            "Smoother, or slower",
            "Two frames for one: 24 frames per second become 48. The **fps** of the result goes on to **Create "
            "Video**, so that speed and sound stay as they are.",
            "\n".join(
                [
                    TWICE[0],
                    f"{TWICE[1]}. Then connect *fps* of **Get Video Components** to *fps* of **Create Video**, and "
                    "take the link to *audio* away.",
                    "- **hold_last** shows the last frame as long as the others: the video is as long as its sound.",
                ]
            ),
        ),
        VIDEO_SETTINGS,
    )


def long_video(g: Graph) -> None:
    load = g.node("LoadVideo", size=(320, 380))
    node = g.node(FILE, mode="target fps", target_fps="60", filename_prefix="video/tlbvfi")
    g.link(load, "VIDEO", node, "video")
    g.group("Your clip", BLUE, load)
    g.group("The new file", GREEN, node)
    g.notes(
        steps(
            "Choose a clip in **Load Video**. It may be of any length: one frame after the other is read, interpolated "
            "and written.",
            MODEL,
            "Press **Run**. The new file is in `ComfyUI/output/video`, with sound, subtitles and chapters of the clip "
            "and with this graph. It is there when it is complete.",
        ),
        about(
            "Which frames",
            "A video of 60 frames per second, as long as the clip: each frame stands at its exact time.",
            "- **Another frame rate**: type it into **target_fps**, such as 50 or 60000/1001.\n"
            "- **So many frames for one**: set **mode** to *multiplier*.\n"
            "- **format**, **codec**, **crf**: how the file is written. *auto* and -1 are H.264 in mp4, hard to tell "
            "from the frames.\n"
            "- The output **video** is the new file, for nodes that go on from there.",
        ),
        VIDEO_SETTINGS,
    )


def ai_video(g: Graph) -> None:
    clip = example(g, frame_count=9)
    node = interpolated(g, clip, rate=False, mode="target fps", source_fps="16", target_fps="60", hold_last=True)
    g.group("Frames of a video model", BLUE, clip)
    g.group("60 frames per second", GREEN, node)
    saving(g, node)
    g.notes(
        steps(
            "Press **Run**: **Example Clip** stands for the frames that a video model gives.",
            "In your own graph connect the *IMAGE* of **VAE Decode** to **images**. No other node is needed.",
            "Type the rate of your model into **source_fps**: many give 16 frames per second, others 24.",
            then=MODEL,
        ),
        about(
            "From 16 to 60",
            "A video of 60 frames per second that lasts as long as it did at 16: each frame stands at its exact time, "
            "though 60 is no multiple of 16.",
            "- **Another rate**: type it into **target_fps**, such as 24, 30 or 60000/1001. Lower than that of the "
            "source goes too.\n"
            "- The **fps** of the result goes on to **Create Video**, so that the speed is right.\n"
            "- **hold_last** shows the last frame as long as the others: the length stays, and sound fits.",
        ),
        VIDEO_SETTINGS,
    )


def scene_cuts(g: Graph) -> None:
    clip = example(g, frame_count=10, first_frame=31)
    node = interpolated(g, clip, hold_last=True)
    g.group("A clip with a cut", BLUE, clip)
    g.group("More frames", GREEN, node)
    seen = g.node("PreviewAny", "Where the cuts are")
    g.link(node, "cut_indices", seen, "source")
    g.group("The cuts", GREY, seen)
    saving(g, node)
    g.notes(
        steps(
            "Press **Run**. The camera changes in the middle of these ten frames.",
            "The node shows a picture of each cut: the frames before and behind it. **cut_indices** gives their "
            "numbers.",
            OWN_FRAMES,
            then=MODEL,
        ),
        about(
            "Held, not melted",
            "Between the last frame of a scene and the first of the next nothing is made up: the last frame is held "
            "there. The number of frames stays, so that sound fits.",
            "- **scene_cut**: how different two frames have to be to be a cut. Lower it where two scenes melt into one "
            "another, raise it where the picture stands still without a cut. 0: no cuts are looked for; try it here.\n"
            "- **cut_indices**: the frame with which each new scene begins.",
        ),
        VIDEO_SETTINGS,
    )


def seamless_loop(g: Graph) -> None:
    clip = example(g, frame_count=12, first_frame=20)
    node = interpolated(g, clip, loop=True)
    g.group("The clip", BLUE, clip)
    g.group("A loop", GREEN, node)
    save = g.node("SaveAnimatedWEBP", fps=50.0)
    g.link(node, "frames", save, "images")
    g.link(node, "fps", save, "fps")
    g.group("The animation", YELLOW, save)
    g.notes(
        steps(
            "Press **Run**. The animation is in `ComfyUI/output/video`.",
            OWN_FRAMES,
            "Choose frames whose last is not far from the first: what is between the two is made up as well.",
            then=MODEL,
        ),
        about(
            "Round and round",
            "With **loop** new frames lead from the last frame back to the first one: 12 frames become 24, and the "
            "animation has no jump.",
            "- **multiplier**: more frames for one. Where the gap at the end is wider than the others, give it more "
            "frames by **multipliers**.\n"
            "- A loop whose last frame is its first one again: leave that last frame out.\n"
            "- **scene_cut** looks at the gap at the end too; 0 makes new frames there in any case.",
        ),
        VIDEO_SETTINGS,
    )


def comparison(g: Graph) -> None:
    clip = example(g, frame_count=9, first_frame=2)
    nodes = [interpolated(g, clip, title=name, quality=name, hold_last=True) for name in ("fast", "quality")]
    side = g.node("ImageStitch")
    for number, node in enumerate(nodes, start=1):
        g.link(node, "frames", side, f"image{number}")
    g.group("The clip", BLUE, clip)
    g.group("Twice the same", GREEN, *nodes)
    g.group("Side by side", GREY, side)
    create, _ = saving(g, side, "IMAGE", prefix="video/tlbvfi compared", fps=10.0)
    assert create["type"] == "CreateVideo"
    g.notes(
        steps(
            "Press **Run**. Left is what *fast* gives, right what *quality* gives, slowed down to 10 frames per second "
            "so that single frames can be seen.",
            OWN_FRAMES,
            "Compare anything: another model under **model_name**, another **flow_scale** with **quality** *custom*.",
            then=MODEL,
        ),
        about(
            "What is better for your clip",
            "Two videos in one. Every second frame is a new one; the others are the clip's own and the same on both "
            "sides.",
            f"{QUALITY}\n{FLOW}\n"
            "- **sample_steps**: more of them take longer. Often nobody sees the difference; here you do.\n"
            "- **seed**: keep it the same on both sides.",
        ),
        VIDEO_SETTINGS,
    )


#: What the study compares: a name, and the schedule.
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear, 10 steps": {"kind": "linear", "steps": 10},
    "cosine, 20 steps": {"kind": "cosine", "steps": 20},
    "two timesteps": {"kind": "custom", "timesteps": "999, 0"},
}


def schedule_study(g: Graph) -> None:
    clip = example(g, frame_count=12)
    slicer = g.node(SLICER, pair_index=8)
    g.link(clip, "frames", slicer, "images")
    g.group("The clip", BLUE, [clip, slicer])
    frames = []
    for name, values in SCHEDULES.items():
        chosen = g.node(SCHEDULE, title=name, **values)
        plot = g.node(PLOT, title=f"Plot: {name}")
        shown = g.node("PreviewImage", title=f"Steps: {name}")
        node = g.node(PAIR, title=f"Frame: {name}", times_to_interpolate=0, quality="fast")
        g.link(chosen, "schedule", plot, "schedule")
        g.link(plot, "plot", shown, "images")
        for end in ("prev_frame", "next_frame"):
            g.link(slicer, end, node, end)
        g.link(chosen, "schedule", node, "schedule")
        g.group(name, GREEN, [chosen, plot, shown], node)
        frames.append(node)
    two, three = g.node("ImageStitch", title="Two of them"), g.node("ImageStitch", title="All three")
    difference = g.node("ImageBlend", title="First minus last")
    seen = g.node("PreviewImage", title="The frames, in this order", size=(620, 300))
    dark = g.node("PreviewImage", title="The difference")
    for place, source in (("image1", frames[0]), ("image2", frames[1])):
        g.link(source, "interpolated_frames", two, place)
    g.link(two, "IMAGE", three, "image1")
    g.link(frames[2], "interpolated_frames", three, "image2")
    g.link(three, "IMAGE", seen, "images")
    for place, source in (("image1", frames[0]), ("image2", frames[2])):
        g.link(source, "interpolated_frames", difference, place)
    g.link(difference, "IMAGE", dark, "images")
    g.group("Side by side", GREY, [two, three, difference], [seen, dark])
    g.notes(
        steps(
            "Press **Run**. Each green group makes the same new frame by another schedule.",
            "Change **kind** and **steps** of a **Schedule**, or with **kind** *custom* write the **timesteps** down, "
            "and press **Run** again.",
            WHICH_PAIR,
            OWN_FRAMES,
            then=MODEL,
        ),
        about(
            "What the steps do",
            "The plots show which timesteps of the diffusion a schedule visits; on the right are the frames side by "
            "side, and the first one minus the last one.",
            "- **The difference is black** with the built-in model: two steps and fifty give frames that no eye tells "
            "apart, so fewer cost nothing. Another model may need them; here you see it.\n"
            "- **schedule** wins over the steps of **quality** and over **sample_steps**.\n"
            "- **seed**: keep it the same in all of them. Another seed changes a frame as much as another schedule.",
        ),
        PAIR_SETTINGS,
    )


def pair_values() -> dict[str, Any]:
    return {"times_to_interpolate": 3, "quality": "custom"}


TIMES = "| times_to_interpolate | frames |\n|---|---|\n| 0 | the one in the middle |\n| 1 | 3 |\n| 2 | 5 |\n" + (
    "| **3** | **9** |\n| 4 | 17 |\n\nFrom 1 on, the two source frames come first and last, unchanged."
)
WHICH_PAIR = (
    "**pair_index** says which two neighbouring frames to take: 0 is the first and the second frame of the clip; the "
    "last pair is *total_pairs* - 1."
)


def sliced(g: Graph, source: Json, output: str) -> Json:
    """The frames between a pair of a clip."""
    slicer = g.node(SLICER)
    g.link(source, output, slicer, "images")
    node = g.node(PAIR, **pair_values())
    for name in ("prev_frame", "next_frame"):
        g.link(slicer, name, node, name)
    g.group("A pair of frames", GREY, slicer)
    g.group("The frames between", GREEN, node)
    return node


def slow_motion(g: Graph) -> None:
    clip = example(g, frame_count=12)
    g.group("The clip", BLUE, clip)
    node = sliced(g, clip, "frames")
    saving(g, node, "interpolated_frames", fps=8.0)
    g.notes(
        steps("Press **Run**.", WHICH_PAIR, OWN_FRAMES, then=MODEL),
        about("Slow motion between two frames", TIMES, "**Create Video** plays them at 8 frames per second: about one "
              "second for the pair. Type another rate into **fps**."),
        PAIR_SETTINGS,
    )  # fmt: skip


def core_node(g: Graph) -> None:
    clip = example(g, frame_count=12)
    loader = g.node(LOADER)
    node = g.node("FrameInterpolate")
    g.link(clip, "frames", node, "images")
    g.link(loader, "interp_model", node, "interp_model")
    g.group("The clip", BLUE, clip)
    g.group("More frames", GREEN, loader, node)
    saving(g, node, "IMAGE", fps=50.0)
    g.notes(
        steps(
            "This graph needs **ComfyUI 0.20** or newer, which has the node **Frame Interpolate**. In an older one "
            f"take the graph *{FIRST}*.",
            f"Press **Run**. {SAVED}",
            "The frame rate of the new video is that of the clip times **multiplier**: type it into **fps** of "
            "**Create Video**.",
            OWN_FRAMES,
            then=MODEL,
        ),
        about(
            "ComfyUI's own node",
            "N frames become (N - 1) · *multiplier* + 1, those of the clip unchanged.",
            "In any graph that has **Frame Interpolate**, **Model Loader (TLB-VFI)** takes the place of *Load Frame "
            "Interpolation Model*.",
            "With a **multiplier** of 2, 4, 8 or 16 each new frame stands exactly where it should, with others up to "
            "1/32 of a gap beside. **Video Interpolator (TLB-VFI)** of the other graphs knows scene cuts, any frame "
            "rate, loops and batches besides.",
        ),
        ("Settings", "\n".join(["## The other settings\n", QUALITY, FLOW, SEED, SPEED])),
    )


VHS_FIRST = "This graph needs the node pack **ComfyUI-VideoHelperSuite**. Choose a clip in its **Load Video**"


def vhs(g: Graph, batches: bool) -> None:
    """VideoHelperSuite's loader and combiner around the Video Interpolator, in batches or not."""
    manager = g.node("VHS_BatchManager") if batches else None
    load = g.node("VHS_LoadVideo", size=(300, 540), frame_load_cap=0)
    told = g.node("VHS_VideoInfo")
    g.link(load, "video_info", told, "video_info")
    node = g.node(VIDEO, hold_last=True)
    g.link(load, "IMAGE", node, "images")
    g.link(told, "loaded_fps🟦", node, "source_fps")
    combine = g.node("VHS_VideoCombine", size=(330, 640), frame_rate=48)
    g.link(node, "frames", combine, "images")
    g.link(load, "audio", combine, "audio")
    g.link(node, "fps", combine, "frame_rate")
    if manager is not None:
        for each in (load, node, combine):
            g.link(manager, "meta_batch", each, "meta_batch")
    g.group("Your clip", BLUE, *([manager] if manager else []), load, told)
    g.group("More frames", GREEN, node)
    g.group("The video", YELLOW, combine)


def vhs_video(g: Graph) -> None:
    vhs(g, batches=False)
    g.notes(
        steps(
            f"{VHS_FIRST}.",
            MODEL,
            "Press **Run**. The video, with the sound of the clip, is in `ComfyUI/output`.",
            then=f"All frames are in memory at once. For a long clip take the graph *{VHS_LONG}*, or read a part of "
            "it: *frame_load_cap*, *skip_first_frames*.",
        ),
        about(
            "Smoother, or slower",
            "Two frames for one: 24 frames per second become 48. The **fps** of the result goes on to **Video "
            "Combine**, so that speed and sound stay as they are.",
            "\n".join(
                [
                    TWICE[0],
                    f"{TWICE[1]}. Then connect *loaded_fps* of **Video Info** to *frame_rate* of **Video Combine**, "
                    "and take the link to *audio* away.",
                    "- **hold_last** shows the last frame as long as the others: the video is as long as its sound.",
                ]
            ),
        ),
        VIDEO_SETTINGS,
    )


def vhs_batches(g: Graph) -> None:
    vhs(g, batches=True)
    g.notes(
        steps(
            f"{VHS_FIRST}.",
            MODEL,
            "Press **Run** once. Batch after batch is queued by itself; the video is in `ComfyUI/output` after the "
            "last one.",
            then="**Meta Batch Manager** is linked to all three: the loader, the interpolator and **Video Combine**. "
            "Formats of *image/* do not go with it.",
        ),
        about(
            "In batches",
            "The same frames as without batches: the last frame of a batch is kept for the next one. Two frames for "
            "one, with the sound of the clip.",
            "- **frames_per_batch**: so many frames of the clip are in memory at once, and the new ones of these. 32 "
            "frames of 1920x1080 take 0.8 GB, and their results 1.6 GB.\n"
            f"{TWICE[0]}\n"
            "- After a stop, press **Run** again: it begins with the first batch.",
        ),
        VIDEO_SETTINGS,
    )


def vhs_slow_motion(g: Graph) -> None:
    load = g.node("VHS_LoadVideo")
    g.group("Your clip", BLUE, load)
    node = sliced(g, load, "IMAGE")
    combine = g.node("VHS_VideoCombine", frame_rate=8)
    g.link(node, "interpolated_frames", combine, "images")
    g.group("The video", YELLOW, combine)
    g.notes(
        steps(
            f"{VHS_FIRST}; *frame_load_cap* 16 reads only the first 16 frames, *skip_first_frames* starts later.",
            MODEL,
            WHICH_PAIR,
            "Press **Run**.",
        ),
        about("Slow motion between two frames", TIMES, "**Video Combine** plays them at 8 frames per second: about one "
              "second for the pair. Its *pingpong* plays them back and forth."),
        PAIR_SETTINGS,
    )  # fmt: skip


FIRST, WHOLE, LONG = "First run - example clip", "Your video with sound", "Long video - file to file"
VHS_LONG, STUDY = "VideoHelperSuite - long video in batches", "Schedule study - steps side by side"
#: By the name that the template browser shows.
GRAPHS = {
    FIRST: first_run,
    WHOLE: whole_video,
    LONG: long_video,
    "AI video - 16 to 60 fps": ai_video,
    "Scene cuts": scene_cuts,
    "Loop without a jump": seamless_loop,
    "Compare two qualities": comparison,
    STUDY: schedule_study,
    "Slow motion between two frames": slow_motion,
    "Frame Interpolate of ComfyUI": core_node,
    "VideoHelperSuite - video with sound": vhs_video,
    VHS_LONG: vhs_batches,
    "VideoHelperSuite - slow motion between two frames": vhs_slow_motion,
}


def told(node: Any) -> Json:
    """The parts of /object_info that a saved graph depends on."""
    return {
        "input": json.loads(json.dumps(node.INPUT_TYPES())),
        "output": list(node.RETURN_TYPES),
        "output_name": list(node.RETURN_NAMES),
    }


def our_nodes(models: Path) -> dict[str, Json]:
    """Our nodes as /object_info tells of them, as far as a saved graph depends on it.

    Args:
        models: ComfyUI's folder of models; where it is empty there are the built-in ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        fake_host.install(fake_host.FakeHost(models), patch)
        pack = fake_host.load_pack("_pack_of_the_graphs")
        nodes = {key: told(node) for key, node in pack.NODE_CLASS_MAPPINGS.items()}
    fake_host.forget_pack("_pack_of_the_graphs")
    return nodes


def made(ours: Mapping[str, NodeInfo]) -> dict[str, str]:
    """The text of every graph by its name, for our nodes as ComfyUI tells of them."""
    texts = {}
    for title, describe in GRAPHS.items():
        graph = Graph(title, ours)
        describe(graph)
        texts[title] = json.dumps(graph.made(), indent=2, ensure_ascii=False) + "\n"
    return texts


def main() -> None:
    """Write the graphs and blueprints; others in their folders go."""
    from tests.comfyui import blueprints  # which is made with what is here

    with tempfile.TemporaryDirectory() as models:
        ours = our_nodes(Path(models))
    for folder, texts in ((FOLDER, made(ours)), (blueprints.FOLDER, blueprints.made(ours))):
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*.json"):
            if path.stem not in texts:
                path.unlink()
        for title, text in texts.items():
            (folder / f"{title}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

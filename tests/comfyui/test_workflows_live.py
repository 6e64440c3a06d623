"""The shipped graphs against the nodes of a real ComfyUI, and those with VideoHelperSuite as far as that is there.

TLBVFI_VHS names a checkout of ComfyUI-VideoHelperSuite whose requirements are installed in the private
ComfyUI's environment; without it the tests that need it are skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from PIL import Image

from tests.comfyui import blueprints, graphs, make_workflows
from tests.comfyui.install import Installation

if TYPE_CHECKING:
    from tests.comfyui.server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-TLBVFI-TF32"
WORKFLOWS = sorted(REPOSITORY.joinpath("workflows").glob("*.json"))
EXAMPLE = "TLBVFI_ExampleClip"
#: Nodes that this ComfyUI does not have: another pack's, and those of a newer one.
ELSEWHERE = ("VHS_", "FrameInterpolate")

FRAMES, FPS, SAMPLE_RATE = 6, 15, 48_000  # of 60 frames per second a fourth: few calls of the model
WIDTH, HEIGHT = 64, 48
Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def talkie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 6 frames of the example clip, 15 a second, with a tone."""
    path = tmp_path_factory.mktemp("talkie") / "talkie.mp4"
    with av.open(str(REPOSITORY / "nodes" / "example_clip.mp4")) as container:
        frames = [frame.to_ndarray(width=WIDTH, height=HEIGHT, format="rgb24")
                  for frame in itertools.islice(container.decode(video=0), FRAMES)]  # fmt: skip
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        tone = 0.2 * np.sin(np.arange(SAMPLE_RATE * FRAMES // FPS) * 0.06, dtype=np.float32)
        for start in range(0, len(tone), 1024):
            samples = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = SAMPLE_RATE, start
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def with_vhs(
    servers: ModuleType,
    installation: Installation,
    clip: Path,
    official_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ComfyServer]:
    """A server that has VideoHelperSuite besides this pack."""
    source = os.environ.get("TLBVFI_VHS")
    if not source:
        pytest.skip("TLBVFI_VHS names no checkout of ComfyUI-VideoHelperSuite")
    workspace = tmp_path_factory.mktemp("comfyui_vhs")
    (workspace / "input").mkdir()
    shutil.copy2(clip, workspace / "input")
    packs = {PACK: REPOSITORY, "ComfyUI-VideoHelperSuite": Path(source)}
    models = {"interpolation/vimeo_unet.pth": official_checkpoint}
    with servers.ComfyServer(installation, workspace, packs=packs, models=models) as server:
        assert server.object_info("VHS_LoadVideo"), server.tail()
        yield server


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_fits_the_nodes(comfy: ComfyServer, path: Path) -> None:
    """Every node that this ComfyUI knows has the slots, the widgets and values that its type can have."""
    saved = graphs.read(path)
    info = comfy.object_info()
    known = [node for node in saved["nodes"] if node["type"] in info]
    assert any("TLBVFI" in node["type"] for node in known)
    for node in known:
        graphs.check_node(node, info[node["type"]])
    unknown = {node["type"] for node in saved["nodes"]} - set(info) - set(graphs.NOTES)
    assert all(name.startswith(ELSEWHERE) for name in unknown)


def test_the_template_browser_lists_them(comfy: ComfyServer) -> None:
    """Each graph under its name, and the picture that is asked for with it."""
    assert sorted(comfy.get("/workflow_templates")[PACK]) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        picture = comfy.request(f"/api/workflow_templates/{PACK}/{quote(path.stem)}.jpg")
        assert picture == path.with_suffix(".jpg").read_bytes()


#: Of the example clip, so that a graph runs in a moment.
LITTLE = {"frame_count": 3, "width": 96}
#: Graphs that run as they are: what is made smaller, and the rate, number, height and width of the frames made.
AT_ONCE: dict[str, tuple[dict[str, dict[str, Any]], tuple[int, int, int, int]]] = {
    make_workflows.FIRST: ({}, (50, 6, 54, 96)),
    "AI video - 16 to 60 fps": ({}, (60, 12, 54, 96)),
    "Scene cuts": ({EXAMPLE: {"first_frame": 34}}, (50, 6, 54, 96)),
    "Compare two qualities": ({EXAMPLE: {"frame_count": 2}}, (10, 4, 54, 2 * 96 + 4)),
    "Slow motion between two frames": ({"TLBVFI_Interpolator_V2": {"times_to_interpolate": 1}}, (8, 3, 54, 96)),
}


@pytest.mark.parametrize("graph", AT_ONCE)
def test_a_graph_runs_on_a_fresh_install(comfy: ComfyServer, graph: str) -> None:
    """With nothing put into the input folder and no model downloaded: on the clip and by the model of the pack."""
    changes, (rate, count, height, width) = AT_ONCE[graph]
    prompt = prompt_of(comfy, graph, **{**changes, EXAMPLE: {**LITTLE, **changes.get(EXAMPLE, {})}})
    video = Video(result(comfy, prompt, "SaveVideo"))
    assert (video.rate, len(video.frames)) == (rate, count)
    assert {frame.shape for frame in video.frames} == {(height, width, 3)}
    changed = [not np.array_equal(*pair) for pair in zip(video.frames, video.frames[1:], strict=False)]
    assert any(changed)


def test_schedules_are_studied(comfy: ComfyServer) -> None:
    """The plots, the frames side by side, and their difference, which no eye sees."""
    prompt = prompt_of(comfy, make_workflows.STUDY, TLBVFI_ExampleClip=LITTLE, FramePairSlicer={"pair_index": 1})
    run = comfy.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    pictures = []
    for number, node in prompt.items():
        if node["class_type"] == "PreviewImage":
            (path,) = comfy.output_files(run, number)
            with Image.open(path) as picture:
                pictures.append(np.asarray(picture.convert("RGB")))
    *plots, frames, difference = pictures
    assert len({plot.tobytes() for plot in plots}) == 3
    assert (frames.shape, difference.shape) == ((54, 3 * 96 + 2 * 4, 3), (54, 96, 3))
    assert difference.max() <= 1 < np.ptp(frames)


def test_a_prompt_of_before_runs(comfy: ComfyServer) -> None:
    """With a number of steps that the list does not have, an input that there is no more, and without newer ones."""
    prompt = prompt_of(comfy, "Slow motion between two frames", TLBVFI_ExampleClip=LITTLE)
    node = prompt[number_of(prompt, "TLBVFI_Interpolator_V2")]
    older = {name: node["inputs"][name] for name in ("prev_frame", "next_frame", "model_name")}
    older.update(times_to_interpolate=1, enable_tf32=True, sample_steps=15, flow_scale=0.5, tile_size=512)
    node["inputs"] = {**older, "cpu_offload": True, "gpu_id": 0}
    assert len(Video(result(comfy, prompt, "SaveVideo")).frames) == 3


def test_the_blueprint_is_offered_and_runs(comfy: ComfyServer) -> None:
    """What the node library is told of it is the file, and what is in it makes a smooth video with its sound."""
    ((number, entry),) = comfy.get("/global_subgraphs").items()
    assert (entry["name"], entry["info"]["node_pack"]) == (blueprints.SMOOTH, f"custom_nodes.{PACK}")
    saved = json.loads(comfy.get(f"/global_subgraphs/{number}")["data"])
    assert saved == graphs.read(blueprints.FOLDER / f"{blueprints.SMOOTH}.json")
    prompt = graphs.to_prompt(blueprints.inside(saved), comfy.object_info())
    prompt["clip"] = {"class_type": EXAMPLE, "inputs": {**LITTLE, "first_frame": 5}}
    prompt[number_of(prompt, "GetVideoComponents")]["inputs"]["video"] = ["clip", 2]
    saving = {"video": [number_of(prompt, "CreateVideo"), 0], "filename_prefix": "smooth", "format": "auto"}
    prompt["save"] = {"class_type": "SaveVideo", "inputs": {**saving, "codec": "auto"}}
    video = Video(result(comfy, prompt, "SaveVideo"))
    assert (video.rate, len(video.frames)) == (50, 6)
    assert video.seconds_of_sound == pytest.approx(3 / 25, abs=0.05)


def test_the_cut_is_told_and_held(comfy: ComfyServer) -> None:
    """The graph of scene cuts shows where they are, and melts nothing there."""
    prompt = prompt_of(comfy, "Scene cuts", TLBVFI_ExampleClip={**LITTLE, "first_frame": 34})
    run = comfy.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    assert run.outputs[number_of(prompt, "PreviewAny")]["text"] == ["2"]
    (file,) = comfy.output_files(run, number_of(prompt, "SaveVideo"))
    before, held, after = (frame.astype(float) for frame in Video(file).frames[2:5])
    assert np.abs(held - before).mean() < 3 < np.abs(after - before).mean()


def test_loop_graph_runs(comfy: ComfyServer) -> None:
    """An animation with as many new frames as there are others, the last gap among them."""
    prompt = prompt_of(comfy, "Loop without a jump", TLBVFI_ExampleClip={**LITTLE, "first_frame": 4})
    with Image.open(result(comfy, prompt, "SaveAnimatedWEBP")) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (6, (96, 54), 0)
        animation.load()  # reads how long a frame is shown
        assert animation.info["duration"] == 20


def test_whole_video_graph_runs(comfy: ComfyServer, talkie: Path) -> None:
    """From a clip with sound to one of twice the rate that is as long."""
    prompt = prompt_of(comfy, make_workflows.WHOLE, LoadVideo={"file": talkie})
    video = Video(result(comfy, prompt, "SaveVideo"))
    assert (video.rate, len(video.frames)) == (2 * FPS, 2 * FRAMES)
    assert video.seconds_of_sound == pytest.approx(FRAMES / FPS, abs=0.05)


def test_video_file_graph_runs(comfy: ComfyServer, talkie: Path) -> None:
    """From a clip with sound to a file of 60 frames per second that is as long."""
    prompt = prompt_of(comfy, make_workflows.LONG, LoadVideo={"file": talkie})
    video = Video(result(comfy, prompt, "TLBVFI_InterpolateVideo"))
    assert (video.rate, len(video.frames)) == (60, 60 * FRAMES // FPS)
    assert video.seconds_of_sound == pytest.approx(FRAMES / FPS, abs=0.05)


def test_the_example_clip_is_a_video_with_sound(comfy: ComfyServer) -> None:
    """Its VIDEO goes where one from Load Video goes: from memory, with its sound, into a file."""
    prompt = prompt_of(comfy, make_workflows.LONG)
    number, loader = number_of(prompt, "TLBVFI_InterpolateVideo"), number_of(prompt, "LoadVideo")
    prompt[loader] = {"class_type": EXAMPLE, "inputs": {**LITTLE, "first_frame": 5}}
    prompt[number]["inputs"].update(video=[loader, 2], target_fps="50")
    video = Video(result(comfy, prompt, "TLBVFI_InterpolateVideo"))
    assert (video.rate, len(video.frames)) == (50, 6)
    assert video.seconds_of_sound == pytest.approx(3 / 25, abs=0.05)


def test_videohelpersuite_graph_runs(with_vhs: ComfyServer, clip: Path) -> None:
    """From VideoHelperSuite's loader through both nodes to a video of its own."""
    prompt = prompt_of(
        with_vhs,
        "VideoHelperSuite - slow motion between two frames",
        VHS_LoadVideo={"video": clip},
        TLBVFI_Interpolator_V2={"times_to_interpolate": 1},
    )
    video = Video(result(with_vhs, prompt, "VHS_VideoCombine"))
    assert (video.rate, [frame.shape for frame in video.frames]) == (8, [(144, 176, 3)] * 3)


def test_videohelpersuite_batches(with_vhs: ComfyServer, talkie: Path) -> None:
    """A whole video, and the same in batches: the same frames, as many as there are without, and sound with both."""
    videos = []
    for graph, batches in (
        ("VideoHelperSuite - video with sound", {}),
        (make_workflows.VHS_LONG, {"VHS_BatchManager": {"frames_per_batch": 2}}),
    ):
        saved_as = {"VHS_VideoCombine": {"filename_prefix": graph}}
        prompt = prompt_of(with_vhs, graph, VHS_LoadVideo={"video": talkie}, **batches, **saved_as)
        video = Video(result(with_vhs, prompt, "VHS_VideoCombine"))
        assert (video.rate, len(video.frames)) == (2 * FPS, 2 * FRAMES)
        assert video.seconds_of_sound == pytest.approx(FRAMES / FPS, abs=0.05)
        videos.append(video)
    whole, batched = videos
    assert all(np.array_equal(*each) for each in zip(whole.frames, batched.frames, strict=True))


def prompt_of(server: ComfyServer, graph: str, **changes: dict[str, Any]) -> Prompt:
    """What the front end would queue for a shipped graph, with some inputs of a type of node changed.

    A path among them goes into the server's input folder, and the input is its name.
    """
    prompt = graphs.to_prompt(graphs.read(REPOSITORY / "workflows" / f"{graph}.json"), server.object_info())
    for kind, inputs in changes.items():
        for name, value in inputs.items():
            if isinstance(value, Path):
                shutil.copy2(value, server.workspace / "input")
                inputs[name] = value.name
        prompt[number_of(prompt, kind)]["inputs"].update(inputs)
    return prompt


def number_of(prompt: Prompt, kind: str) -> str:
    """The one node of a type."""
    (number,) = [number for number, node in prompt.items() if node["class_type"] == kind]
    return number


def result(server: ComfyServer, prompt: Prompt, kind: str) -> Path:
    """The file that a node of a type has saved, in the last prompt where batches queue one another."""
    number = number_of(prompt, kind)
    before = set(server.get("/history"))
    run = server.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    server.finish()
    history = server.get("/history")
    states = {history[prompt_id]["status"]["status_str"] for prompt_id in set(history) - before}
    assert states == {"success"}, server.tail()
    for prompt_id in set(history) - before:
        run.outputs = history[prompt_id]["outputs"]
        files = server.output_files(run, number)
        if files:
            (file,) = files
            return file
    raise AssertionError(f"nothing is saved\n{server.tail()}")


class Video:
    """A video file: frames per second, all frames (H, W, 3) of eight bits, and how long its sound is."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as container:
            self.rate = container.streams.video[0].average_rate
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        with av.open(str(path)) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0)) if container.streams.audio else 0
            self.seconds_of_sound = samples / container.streams.audio[0].rate if samples else 0.0

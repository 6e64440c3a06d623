"""The pack in a real ComfyUI, seen only through HTTP and WebSocket, as a user's browser sees it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import av
import numpy as np
import pytest
import torch
from PIL import Image

import tlbvfi
from tests.comfyui import graphs
from tests.comfyui.install import Installation

if TYPE_CHECKING:
    from tests.comfyui.server import ComfyServer, Event, Run

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-TLBVFI-TF32"
SLICER = "FramePairSlicer"
INTERPOLATOR = "TLBVFI_Interpolator_V2"

PAIR = 100  # of the clip: both the person and the view from the window move
TIMES = 2
NEW_FRAMES = 2**TIMES - 1
HALVES = [0, 2, 4]  # those of the frames that TIMES 1 gives as well
SEED = 7
PNG = 1.01 / 255  # Save Image rounds down to eight bits

Options = dict[str, Any]
SLICER_INPUTS: dict[str, tuple[Any, Options]] = {
    "images": ("IMAGE", {}),
    "pair_index": ("INT", {"default": 0, "min": 0}),
}
SLICER_OUTPUTS = [
    ("frame_pair", "IMAGE"),
    ("pair_index", "INT"),
    ("total_pairs", "INT"),
    ("is_last_pair", "BOOLEAN"),
    ("prev_frame", "IMAGE"),
    ("next_frame", "IMAGE"),
]
BUILT_IN = "tlbvfi-small (built-in)"
MODELS = [
    BUILT_IN, "corrupt.pth", "from_elsewhere.pth", "older/vimeo_unet.pth", "truncated.pth", "vimeo_unet.pth",
    "vimeo_unet.pth (download)",
]  # fmt: skip
INTERPOLATOR_INPUTS: dict[str, tuple[Any, Options]] = {
    "prev_frame": ("IMAGE", {}),
    "next_frame": ("IMAGE", {}),
    "model_name": (MODELS, {}),
    "times_to_interpolate": ("INT", {"default": 0, "min": 0, "max": 4}),
    "use_fp16": ("BOOLEAN", {"default": True}),
    "enable_tf32": ("BOOLEAN", {"default": True}),
    "sample_steps": ([10, 20, 50], {"default": 10}),
    "flow_scale": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
    "cpu_offload": ("BOOLEAN", {"default": True}),
    "gpu_id": ("INT", {"default": 0, "min": 0, "max": 7}),
    "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
    "compile": ("BOOLEAN", {"default": False}),
    "quality": (["fast", "balanced", "quality", "custom"], {"default": "custom"}),
    "schedule": ("TLBVFI_SCHEDULE", {}),
}

Prompt = dict[str, dict[str, Any]]


# What the front end is told


def test_startup_is_silent(
    comfy: ComfyServer, servers: ModuleType, installation: Installation, elsewhere: Path, tmp_path: Path
) -> None:
    """With the pack ComfyUI prints what it prints without it, and a line in its table of import times."""

    def lines(server: ComfyServer) -> list[str]:
        text = server.startup_log.replace(str(server.workspace), "BASE")
        return [re.sub(r"\d+(\.\d+)?", "#", line).strip() for line in text.splitlines()]

    arguments = ["--extra-model-paths-config", str(elsewhere)]
    with servers.ComfyServer(installation, tmp_path / "bare", arguments=arguments) as bare:
        usual = lines(bare)
    ours = list(dict.fromkeys(line for line in lines(comfy) if line not in usual))
    table = "Import times for custom nodes:"  # not printed where there are none
    folder = re.sub(r"\d+", "#", PACK)
    place = str(Path("BASE", "custom_nodes", folder))
    assert [line for line in ours if line != table] == [f"# seconds: {place}"]


@pytest.mark.parametrize(
    ("key", "inputs", "outputs", "deprecated"),
    [
        (SLICER, SLICER_INPUTS, SLICER_OUTPUTS, False),
        ("TLBVFI_FramePairSlicer", SLICER_INPUTS, SLICER_OUTPUTS, True),
        (INTERPOLATOR, INTERPOLATOR_INPUTS, [("interpolated_frames", "IMAGE")], False),
    ],
)
def test_object_info(
    comfy: ComfyServer,
    key: str,
    inputs: dict[str, tuple[Any, Options]],
    outputs: list[tuple[str, str]],
    deprecated: bool,
) -> None:
    """The inputs in their order with their types, defaults and ranges; the outputs; words for the reader."""
    info = comfy.object_info(key)
    declared = graphs.declared(info)
    assert list(declared) == list(inputs)
    for name, (kind, options) in inputs.items():
        found_kind, found = declared[name]
        if name == "model_name":
            found_kind = [choice.replace("\\", "/") for choice in found_kind]
        assert found_kind == kind, name
        assert {option: found.get(option) for option in options} == options, name
        assert found.get("tooltip"), name
    assert list(info["output_name"]) == [name for name, _ in outputs]
    assert list(info["output"]) == [kind for _, kind in outputs]
    assert not any(info["output_is_list"])
    assert len(info["output_tooltips"]) == len(outputs)
    assert all(info["output_tooltips"])
    assert info["description"]
    assert info["category"] == "frame_interpolation/TLBVFI-TF32"
    assert info["python_module"] == f"custom_nodes.{PACK}"
    assert info.get("deprecated", False) is deprecated
    assert info["display_name"] != key


def test_graphs_are_offered_as_templates(comfy: ComfyServer) -> None:
    """ComfyUI's template browser lists every graph of the pack and can open it."""
    names = sorted(path.stem for path in REPOSITORY.joinpath("workflows").glob("*.json"))
    assert sorted(comfy.get("/workflow_templates")[PACK]) == names
    for name in names:
        assert comfy.get(f"/api/workflow_templates/{PACK}/{quote(name)}.json")["version"] == 0.4


# The graph that ships with the pack


def with_clip(comfy: ComfyServer, clip: Path) -> Prompt:
    """The graph of two frames, with a clip in the place of the example, as its notes say."""
    saved = graphs.read(REPOSITORY / "workflows" / "Slow motion between two frames.json")
    prompt: Prompt = graphs.to_prompt(saved, comfy.object_info())
    del prompt[node_of(prompt, "TLBVFI_ExampleClip")]
    prompt["load"] = {"class_type": "LoadVideo", "inputs": {"file": clip.name}}
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["load", 0]}}
    inputs(prompt, SLICER).update(images=["parts", 0])
    return prompt


@pytest.fixture(scope="module")
def prompt(comfy: ComfyServer, clip: Path) -> Prompt:
    """The graph as the front end queues it, with our clip, a pair of it and the published model; and two more nodes,
    which save the frames and the pair without loss."""
    prompt = with_clip(comfy, clip)
    inputs(prompt, SLICER).update(pair_index=PAIR)
    inputs(prompt, INTERPOLATOR).update(model_name="vimeo_unet.pth", times_to_interpolate=TIMES, seed=SEED)
    for name, source in (("frames", INTERPOLATOR), ("pair", SLICER)):
        images = {"images": [node_of(prompt, source), 0], "filename_prefix": name}
        prompt[name] = {"class_type": "SaveImage", "inputs": images}
    return prompt


@pytest.fixture(scope="module")
def first(comfy: ComfyServer, prompt: Prompt) -> Run:
    """The first run of that graph."""
    return succeed(comfy, prompt)


@pytest.fixture(scope="module")
def pair(clip: Path) -> np.ndarray:
    """The two source frames as ComfyUI loads them: (2, H, W, 3) in [0, 1]."""
    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames[PAIR : PAIR + 2]).astype(np.float32) / 255


@pytest.fixture(scope="module")
def expected(pair: np.ndarray, official_checkpoint: Path) -> np.ndarray:
    """What `tlbvfi` gives when it is called directly: (N, H, W, 3) in [0, 1]."""
    model = tlbvfi.load_model(official_checkpoint)
    sources = torch.from_numpy(pair)
    frames = tlbvfi.interpolate_frames(model, sources, times=TIMES, flow_scale=0.5, sample_steps=10, seed=SEED)
    return torch.stack(list(frames)).numpy()


def node_of(prompt: Prompt, class_type: str) -> str:
    """The id of the one node of a type."""
    (number,) = [number for number, node in prompt.items() if node["class_type"] == class_type]
    return number


def inputs(prompt: Prompt, class_type: str) -> dict[str, Any]:
    """The inputs of the one node of a type."""
    values: dict[str, Any] = prompt[node_of(prompt, class_type)]["inputs"]
    return values


def variant(prompt: Prompt, class_type: str, **values: Any) -> Prompt:
    """A copy of a graph with other inputs at one node."""
    other = copy.deepcopy(prompt)
    inputs(other, class_type).update(values)
    return other


def succeed(comfy: ComfyServer, prompt: Prompt) -> Run:
    """Run to a good end, every node anew rather than with results of the run before."""
    comfy.forget()
    run = comfy.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    assert node_of(prompt, INTERPOLATOR) in run.executed
    return run


def pictures(comfy: ComfyServer, run: Run, node: str = "frames") -> np.ndarray:
    """What a Save Image node of a run has saved: (N, H, W, 3) in [0, 1]."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in comfy.output_files(run, node)]
    return np.stack(images).astype(np.float32) / 255


def run_short(comfy: ComfyServer, prompt: Prompt, **values: Any) -> np.ndarray:
    """The three frames of a run with one new frame; a frame is the same however many others are made."""
    return pictures(comfy, succeed(comfy, variant(prompt, INTERPOLATOR, times_to_interpolate=1, **values)))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, for a peak of 1."""
    return float(-10 * np.log10(np.mean((a - b) ** 2, dtype=np.float64) + 1e-12))


def test_slicer_gives_the_pair(comfy: ComfyServer, first: Run, pair: np.ndarray) -> None:
    """`frame_pair` is the two neighbouring frames of the clip that `pair_index` asks for."""
    np.testing.assert_allclose(pictures(comfy, first, "pair"), pair, atol=PNG)


def test_frames_are_those_of_the_library(comfy: ComfyServer, first: Run, expected: np.ndarray) -> None:
    """The IMAGE of the node is what `tlbvfi` gives for the same pair, to the last of eight bits."""
    assert expected.shape == (NEW_FRAMES + 2, 144, 176, 3)
    steps = np.abs(np.diff(expected, axis=0)).max(axis=(1, 2, 3))
    assert steps.min() > 20 * PNG  # so that a mix-up would be seen
    np.testing.assert_allclose(pictures(comfy, first), expected, atol=PNG)


def test_saved_video_has_the_frames(comfy: ComfyServer, prompt: Prompt, first: Run, expected: np.ndarray) -> None:
    """Save Video's file, although lossy, holds the frames in their order at the rate of the graph."""
    (path,) = comfy.output_files(first, node_of(prompt, "SaveVideo"))
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert rate == inputs(prompt, "CreateVideo")["fps"]
    assert len(frames) == len(expected)
    for index, frame in enumerate(frames):
        closeness = [psnr(frame.astype(np.float32) / 255, other) for other in expected]
        assert int(np.argmax(closeness)) == index
        assert closeness[index] > 30


def test_progress_is_told_per_frame(prompt: Prompt, first: Run) -> None:
    """One progress event for every new frame, up to all of them; where a frame takes long, some within it."""
    told = first.of("progress", node_of(prompt, INTERPOLATOR))
    assert {event["max"] for event in told} == {NEW_FRAMES}
    values = [event["value"] for event in told if event["value"]]
    assert [value for value in values if value == int(value)] == list(range(1, NEW_FRAMES + 1))
    assert values == sorted(values)


def test_seed_decides_the_frames(comfy: ComfyServer, prompt: Prompt, first: Run) -> None:
    """Another seed gives another frame between the same ends; the first seed gives the first frames again, with
    the model still in memory and after it has been unloaded."""
    before = pictures(comfy, first)[HALVES]
    other = run_short(comfy, prompt, seed=SEED + 1)
    np.testing.assert_array_equal(other[[0, -1]], before[[0, -1]])
    assert np.abs(other[1] - before[1]).max() > PNG

    np.testing.assert_array_equal(run_short(comfy, prompt), before)
    comfy.free()
    np.testing.assert_array_equal(run_short(comfy, prompt), before)


def test_zero_times_is_the_middle_frame(comfy: ComfyServer, prompt: Prompt, expected: np.ndarray) -> None:
    """`times_to_interpolate` 0: one frame, the middle one."""
    run = succeed(comfy, variant(prompt, INTERPOLATOR, times_to_interpolate=0))
    np.testing.assert_allclose(pictures(comfy, run), expected[[len(expected) // 2]], atol=PNG)


def test_prompt_from_before_compile(comfy: ComfyServer, prompt: Prompt, first: Run) -> None:
    """A prompt without the input that came later is valid and gives the same frames."""
    older = variant(prompt, INTERPOLATOR, times_to_interpolate=1)
    del inputs(older, INTERPOLATOR)["compile"]
    np.testing.assert_array_equal(pictures(comfy, succeed(comfy, older)), pictures(comfy, first)[HALVES])


def test_cancel_and_run_again(comfy: ComfyServer, prompt: Prompt, first: Run) -> None:
    """A cancel waits for the model call under way at most; the next run gives the right frames."""
    node = node_of(prompt, INTERPOLATOR)
    cancelled_at: list[int] = []

    def cancel(run: Run, event: Event) -> None:
        ours = event.type == "progress" and event.data["node"] == node
        if ours and event.data["value"] >= 1 and not cancelled_at:
            cancelled_at.append(event.data["value"])
            comfy.interrupt(run.prompt_id)

    stopped = comfy.run(variant(prompt, INTERPOLATOR, times_to_interpolate=4), cancel)
    assert stopped.status == "interrupted"
    assert stopped.of("execution_interrupted")[0]["node_id"] == node
    assert max(event["value"] for event in stopped.of("progress", node)) <= cancelled_at[0] + 1
    assert not comfy.output_files(stopped, "frames")

    np.testing.assert_array_equal(run_short(comfy, prompt), pictures(comfy, first)[HALVES])


# Bad input


def check_sentence(message: str, words: list[str]) -> None:
    """One sentence of bearable length, with every one of the words in it."""
    sentence = message.strip()
    assert re.fullmatch(r"[^\n]{10,400}\.", sentence), sentence
    assert not re.search(r"[.!?]\s+[A-Z]", sentence), sentence
    for word in words:
        assert word.lower() in sentence.lower(), sentence


@pytest.mark.parametrize(
    ("class_type", "values", "words"),
    [
        (SLICER, {"pair_index": 100_000}, ["pair_index", "100000"]),
        (SLICER, {"images": ["single", 0]}, ["frame"]),
        (INTERPOLATOR, {"model_name": "corrupt.pth"}, ["corrupt.pth"]),
        (INTERPOLATOR, {"model_name": "truncated.pth"}, ["truncated.pth"]),
        (INTERPOLATOR, {"next_frame": ["narrower", 0]}, ["176", "160"]),
        (INTERPOLATOR, {"next_frame": ["three", 0]}, ["3"]),
        (INTERPOLATOR, {"gpu_id": 7}, ["gpu_id", "7"]),
    ],
    ids=["pair_index", "single frame", "corrupt", "truncated", "sizes", "batches", "gpu_id"],
)
def test_bad_input_is_one_sentence(
    comfy: ComfyServer, prompt: Prompt, class_type: str, values: dict[str, Any], words: list[str]
) -> None:
    """What is wrong arrives in `execution_error` as one sentence, from the node that sees it, before work."""
    clip, pair_end = inputs(prompt, SLICER)["images"], inputs(prompt, INTERPOLATOR)["next_frame"]
    size = {"upscale_method": "area", "width": 160, "height": 144, "crop": "disabled"}
    bad = variant(prompt, class_type, **values)
    for name, kind, given in (  # ComfyUI runs of these only what the bad input names
        ("single", "ImageFromBatch", {"image": clip, "batch_index": 0, "length": 1}),
        ("three", "ImageFromBatch", {"image": clip, "batch_index": 0, "length": 3}),
        ("narrower", "ImageScale", {"image": pair_end, **size}),
    ):
        bad[name] = {"class_type": kind, "inputs": given}
    run = comfy.run(bad)
    assert run.status == "error"
    assert run.error["node_type"] == class_type
    check_sentence(run.error["exception_message"], words)
    assert not run.of("progress", node_of(bad, INTERPOLATOR))


def test_the_graph_runs_as_it_is(comfy: ComfyServer, clip: Path, pair: np.ndarray) -> None:
    """With nothing downloaded: only the clip is another. The frames are the built-in model's."""
    prompt = with_clip(comfy, clip)
    assert inputs(prompt, INTERPOLATOR)["model_name"] == BUILT_IN
    inputs(prompt, SLICER).update(pair_index=PAIR)
    prompt["frames"] = {"class_type": "SaveImage", "inputs": {"images": [node_of(prompt, INTERPOLATOR), 0]}}
    prompt["frames"]["inputs"]["filename_prefix"] = "as_it_is"
    found = pictures(comfy, succeed(comfy, prompt))
    settings = inputs(prompt, INTERPOLATOR)
    expected = tlbvfi.interpolate_frames(
        tlbvfi.load_model(None),
        torch.from_numpy(pair),
        times=settings["times_to_interpolate"],
        flow_scale=settings["flow_scale"],
        sample_steps=settings["sample_steps"],
        seed=settings["seed"],
    )
    np.testing.assert_allclose(found, torch.stack(list(expected)).numpy(), atol=PNG)


def test_small_flow_scale_is_refused(comfy: ComfyServer, servers: ModuleType, prompt: Prompt) -> None:
    """The widget goes down to 0, the node takes 0.1 and more; it may say so before or during the run."""
    try:
        run = comfy.run(variant(prompt, INTERPOLATOR, flow_scale=0.05))
    except servers.PromptRejected as refusal:
        (error,) = refusal.node_errors[node_of(prompt, INTERPOLATOR)]["errors"]
        message = error["details"]
    else:
        assert run.status == "error"
        message = run.error["exception_message"]
    check_sentence(message, ["flow_scale", "0.1"])


def test_good_run_after_bad_ones(comfy: ComfyServer, prompt: Prompt, first: Run) -> None:
    """Refused and failed prompts leave nothing behind."""
    np.testing.assert_array_equal(run_short(comfy, prompt), pictures(comfy, first)[HALVES])

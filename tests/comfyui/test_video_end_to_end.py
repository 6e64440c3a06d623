"""Whole videos through the pack in a real ComfyUI, with its own nodes before and after, and in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.comfyui import graphs
from tests.comfyui.install import Installation
from tlbvfi.video import Encoding, PassedOn, Waveform, read_frames, write_video

if TYPE_CHECKING:
    from tests.comfyui.server import ComfyServer, Event, Run

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-TLBVFI-TF32"
IMAGES, FILE = "TLBVFI_VideoInterpolator", "TLBVFI_InterpolateVideo"
BUILT_IN = "tlbvfi-small (built-in)"
HALF, FPS, SIZE = 30, 24, (64, 96)  # frames of each scene; (height, width)
CLIP = "two scenes.mp4"

Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def scenes(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames of two real clips, a cut in the middle, and a tone."""
    frames = []
    for name in ("carphone_pristine.mp4", "bikes.mp4"):
        for frame in islice(read_frames(installation.clips / name), HALF):
            planes = F.interpolate(frame.permute(2, 0, 1)[None], SIZE, mode="area")
            frames.append(planes[0].permute(1, 2, 0).contiguous())
    path = tmp_path_factory.mktemp("scenes") / CLIP
    tone = 0.3 * torch.sin(torch.arange(2 * HALF * 48000 // FPS) * 0.06).expand(2, -1)
    sound = PassedOn(waveform=Waveform(tone, 48000))
    write_video(path, frames, Fraction(FPS), passed_on=sound, encoding=Encoding("h264", 12))
    return path


@pytest.fixture(scope="module")
def server(
    servers: ModuleType, installation: Installation, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """A ComfyUI with this pack, the nodes that work in batches, and the clip."""
    workspace = tmp_path_factory.mktemp("comfyui_video")
    (workspace / "input").mkdir()
    (workspace / "input" / CLIP).write_bytes(scenes.read_bytes())
    packs = {PACK: REPOSITORY, "meta_batches": Path(__file__).parent / "packs" / "meta_batches"}
    with servers.ComfyServer(installation, workspace, packs=packs) as server:
        yield server


def ours(server: ComfyServer, key: str, **given: Any) -> dict[str, Any]:
    """A node of the pack, its inputs at their defaults but for those that are given."""
    declared = graphs.declared(server.object_info(key))
    values = {name: options["default"] for name, (_, options) in declared.items() if "default" in options}
    return {"class_type": key, "inputs": {**values, "model_name": BUILT_IN, **given}}


def node(kind: str, **given: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": given}


def through(server: ComfyServer, **given: Any) -> Prompt:
    """Load Video, Get Video Components, ours, Create Video with the sound, Save Video; and all frames as pictures."""
    return {
        "load": node("LoadVideo", file=CLIP),
        "parts": node("GetVideoComponents", video=["load", 0]),
        "ours": ours(server, IMAGES, images=["parts", 0], source_fps=["parts", 2], hold_last=True, **given),
        "video": node("CreateVideo", images=["ours", 0], audio=["parts", 1], fps=["ours", 1]),
        "saved": node("SaveVideo", video=["video", 0], filename_prefix="out", format="auto", codec="auto"),
        "new": node("SaveImage", images=["ours", 0], filename_prefix="new"),
        "old": node("SaveImage", images=["parts", 0], filename_prefix="old"),
        "count": node("PreviewAny", source=["ours", 2]),
        "cuts": node("PreviewAny", source=["ours", 3]),
    }


def succeed(server: ComfyServer, prompt: Prompt) -> Run:
    server.forget()
    run = server.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    return run


def pictures(server: ComfyServer, run: Run, node: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in server.output_files(run, node)])


def told(run: Run, node: str) -> str:
    (text,) = run.outputs[node]["text"]
    return str(text)


def seconds_of(path: Path) -> tuple[Fraction, float, float]:
    """Frames per second; seconds of the picture and of the sound."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        shown = sum(1 for _ in container.decode(video=0)) / rate
    with av.open(str(path)) as container:
        heard = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return rate, float(shown), heard


@pytest.mark.parametrize(
    ("given", "count", "fps"),
    [({"multiplier": 2}, 120, 48), ({"mode": "target fps", "target_fps": "60"}, 150, 60)],
    ids=["x2", "24 to 60"],
)
def test_a_clip_with_a_cut_and_sound(server: ComfyServer, given: dict[str, Any], count: int, fps: int) -> None:
    """Exact counts, source frames to the bit, the cut held, picture and sound equally long."""
    run = succeed(server, through(server, **given))
    new, old = pictures(server, run, "new"), pictures(server, run, "old")
    assert (len(old), len(new), told(run, "count"), told(run, "cuts")) == (2 * HALF, count, str(count), str(HALF))
    for k in range(count):
        time = Fraction(k * FPS, fps)
        if time.denominator == 1 or time > 2 * HALF - 1:
            assert (new[k] == old[int(time)]).all(), k
        elif HALF - 1 < time < HALF:
            # Held; or the new scene's first frame, where that is within 1/32 of a gap.
            assert (new[k] == old[HALF - 1]).all(), k
        else:
            assert (new[k] != old[int(time)]).any(), k
    (path,) = server.output_files(run, "saved")
    rate, shown, heard = seconds_of(path)
    assert rate == fps
    assert shown == pytest.approx(2 * HALF / FPS, abs=1e-6)
    assert heard == pytest.approx(shown, abs=0.05)
    (strip,) = server.output_files(run, "ours")
    assert Image.open(strip).size[0] > 96


def test_cancel_and_run_again(server: ComfyServer) -> None:
    """A cancel takes effect within one model call, and nothing of it is left."""
    prompt = through(server, multiplier=16)
    cancelled: list[float] = []

    def cancel(run: Run, event: Event) -> None:
        if event.type == "progress" and event.data["node"] == "ours" and event.data["value"] >= 2 and not cancelled:
            cancelled.append(event.data["value"])
            server.interrupt(run.prompt_id)

    stopped = server.run(prompt, cancel)
    assert stopped.status == "interrupted"
    assert stopped.of("execution_interrupted")[0]["node_id"] == "ours"
    assert max(event["value"] for event in stopped.of("progress", "ours")) <= cancelled[0] + 2
    again = succeed(server, through(server, mode="target fps", target_fps=12))
    assert told(again, "count") == "30"


def test_a_file_becomes_a_file(server: ComfyServer) -> None:
    """With its sound and the workflow, so that dropping it restores the graph; its VIDEO goes on."""
    prompt: Prompt = {
        "load": node("LoadVideo", file=CLIP),
        "ours": ours(server, FILE, video=["load", 0], multiplier=2, filename_prefix="video/smooth"),
        "parts": node("GetVideoComponents", video=["ours", 0]),
        "last": node("ImageFromBatch", image=["parts", 0], batch_index=119, length=1),
        "shown": node("PreviewImage", images=["last", 0]),
        "cuts": node("PreviewAny", source=["ours", 3]),
    }
    run = succeed(server, prompt)
    assert told(run, "cuts") == str(HALF)
    (path,) = server.output_files(run, "ours")
    assert path.parent.name == "video" and path.name == "smooth_00001_.mp4"
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    rate, shown, heard = seconds_of(path)
    assert (rate, shown) == (48, 2.5) and heard == pytest.approx(2.5, abs=0.05)
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"])["ours"]["class_type"] == FILE
    assert server.output_files(run, "shown")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no measure of another process's memory here")
def test_a_long_video_in_flat_memory(server: ComfyServer) -> None:
    """300 frames: the server's memory grows by the result that fills up, and by no more than noise."""
    frames, side, slack = 300, 64, 2**24
    prompt: Prompt = {
        "load": node("LoadVideo", file=CLIP),
        "parts": node("GetVideoComponents", video=["load", 0]),
        "small": node(
            "ImageScale", image=["parts", 0], upscale_method="area", width=side, height=side, crop="disabled"
        ),
        "many": node("RepeatImageBatch", image=["small", 0], amount=frames // (2 * HALF)),
        "ours": ours(server, IMAGES, images=["many", 0], scene_cut=0.0, still_threshold=0.0),
        "last": node("ImageFromBatch", image=["ours", 0], batch_index=0, length=1),
        "shown": node("PreviewImage", images=["last", 0]),
        "count": node("PreviewAny", source=["ours", 2]),
    }
    resident: list[int] = []

    def look(run: Run, event: Event) -> None:
        if event.type == "progress" and event.data["node"] == "ours":
            resident.append(server.resident_bytes())

    run = server.run(prompt, look)
    assert run.status == "success", run.error.get("exception_message")
    assert told(run, "count") == str(2 * frames - 1)
    assert len(resident) >= frames
    result = (2 * frames - 1) * side * side * 3 * 4
    assert np.median(resident[-20:]) - np.median(resident[20:40]) < result + slack


@pytest.mark.parametrize(
    "given",
    [{"multiplier": 2}, {"mode": "target fps", "target_fps": 32, "loop": True}],
    ids=["x2", "24 to 32, looped"],
)
def test_batches_are_the_whole(server: ComfyServer, given: dict[str, Any]) -> None:
    """A video in batches, each a prompt of its own, gives the frames of one run, to the bit."""

    def prompt(name: str, batched: bool) -> Prompt:
        link = {"meta_batch": ["manager", 0]} if batched else {}
        settings = {"images": ["load", 0], "source_fps": str(FPS), "hold_last": True, **given, **link}
        return {
            **({"manager": node("VHS_BatchManager", frames_per_batch=17)} if batched else {}),
            "load": node("LoadInBatches", file=CLIP, **link),
            "ours": ours(server, IMAGES, **settings),
            "saved": node("SaveBatches", images=["ours", 0], name=name, **link),
        }

    made = {}
    for name, batched in (("whole", False), ("batches", True)):
        run = succeed(server, prompt(name, batched))
        assert run.outputs["saved"] == {"unfinished_batch": [batched]}
        file = server.workspace / "output" / f"{name}.npz"
        server.finish()
        with np.load(file) as kept:
            made[name] = kept["frames"], kept["lengths"]
        file.unlink()
    assert len(made["whole"][1]) == 1 and len(made["batches"][1]) == 4
    np.testing.assert_array_equal(made["batches"][0], made["whole"][0])

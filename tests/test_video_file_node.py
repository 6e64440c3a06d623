"""The node from video file to video file on a very small model, next to a stand-in for ComfyUI."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost, Interrupted, VideoFromFile
from tests.smallest import save_smallest
from tests.tiny import frames
from tlbvfi.video import Encoding, PassedOn, Waveform, write_video

NAME = "tlbvfi-pack-of-test-video-file-node"
KEY = "TLBVFI_InterpolateVideo"
MODEL = "tiny.safetensors"
HEIGHT, WIDTH, COUNT, FPS = 24, 40, 8, 25
#: Lossless, so that frames can be compared to the bit; every gap is interpolated in three steps.
QUICK = {"scene_cut": 0.0, "still_threshold": 0.0, "schedule": [999, 1, 0], "codec": "ffv1", "hold_last": False}


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "interpolation").mkdir()
    save_smallest(folder / "interpolation" / MODEL)
    return folder


@pytest.fixture(scope="module")
def loaded_pack(models_folder: Path) -> Iterator[ModuleType]:
    with fake_host.loaded_pack(NAME, models_folder) as pack:
        yield pack


@pytest.fixture
def host(loaded_pack: ModuleType, models_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHost:
    (tmp_path / "output").mkdir()
    host = fake_host.install(FakeHost(models_folder, output=tmp_path / "output"), monkeypatch)
    monkeypatch.setattr(part("nodes.host"), "gc", SimpleNamespace(collect=lambda: None))
    return host


def part(name: str) -> Any:
    return sys.modules[f"{NAME}.{name}"]


Run = Callable[..., Any]


@pytest.fixture
def execute(loaded_pack: ModuleType, host: FakeHost) -> Run:
    """Run the node as ComfyUI does, inputs that are not given at their defaults; gives what the node returns."""
    node = loaded_pack.NODE_CLASS_MAPPINGS[KEY]
    declared = node.INPUT_TYPES()
    entries = {**declared["required"], **declared["optional"]}.items()
    defaults = {name: options["default"] for name, (_, options) in entries if "default" in options}

    def run(video: Any, **inputs: Any) -> Any:
        given = {**defaults, "model_name": MODEL, **QUICK, **inputs}
        with torch.inference_mode():
            return getattr(node(), node.FUNCTION)(video=video, **given)

    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of eight frames, with a tone and a title."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    tone = 0.3 * torch.sin(torch.arange(COUNT * 48000 // FPS) * 0.05).expand(2, -1)
    write_video(
        path,
        frames(COUNT, HEIGHT, WIDTH),
        Fraction(FPS),
        passed_on=PassedOn(waveform=Waveform(tone, 48000)),
        encoding=Encoding("ffv1"),
        metadata={"title": "A clip"},
    )
    return path


def shown(path: Path) -> Tensor:
    """(N, H, W, 3) of a file, in eight bits."""
    with av.open(str(path)) as container:
        return torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))


def files(host: FakeHost) -> list[str]:
    return sorted(str(file.relative_to(host.output)) for file in host.output.rglob("*") if file.is_file())


def result_of(done: Any) -> tuple[Path, float, int, str]:
    video, fps, count, cuts = done["result"]
    return Path(video.file), fps, count, cuts


def test_a_file_becomes_a_file(execute: Run, host: FakeHost, clip: Path) -> None:
    """Frames of the source to the bit, sound and title along, the workflow inside."""
    workflow = {"workflow": {"nodes": [1, 2]}}
    done = execute(VideoFromFile(str(clip)), prompt={"1": {"inputs": {}}}, extra_pnginfo=workflow)
    path, fps, count, cuts = result_of(done)
    assert (fps, count, cuts) == (50.0, 15, "")
    assert path == host.output / "video" / "TLB-VFI_00001_.mkv" and files(host) == ["video/TLB-VFI_00001_.mkv"]
    assert done["ui"] == {
        "images": [{"filename": "TLB-VFI_00001_.mkv", "subfolder": "video", "type": "output"}],
        "animated": (True,),
    }
    assert torch.equal(shown(path)[::2], shown(clip))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 50
        assert len(container.streams.audio) == 1
        tags = {name.lower(): value for name, value in container.metadata.items()}
    assert json.loads(tags["workflow"]) == workflow["workflow"]
    assert json.loads(tags["prompt"]) == {"1": {"inputs": {}}}
    assert tags["title"] == "A clip"


def test_the_frames_are_those_of_the_image_node(execute: Run, loaded_pack: ModuleType, clip: Path) -> None:
    path, *_ = result_of(execute(VideoFromFile(str(clip)), seed=3, mode="target fps", target_fps=60))
    node = loaded_pack.NODE_CLASS_MAPPINGS["TLBVFI_VideoInterpolator"]()
    settings = {"seed": 3, "mode": "target fps", "source_fps": FPS, "target_fps": 60, "schedule": [999, 1, 0]}
    images = shown(clip).float() / 255
    made = node.interpolate(images, MODEL, **settings, scene_cut=0.0, still_threshold=0.0)["result"][0]
    assert torch.equal(shown(path), (made * 255).round().to(torch.uint8))


@pytest.mark.parametrize(
    ("inputs", "count", "fps"),
    [
        ({"hold_last": True}, 16, 50),
        ({"loop": True}, 16, 50),
        ({"multiplier": 3}, 22, 75),
        ({"mode": "target fps", "target_fps": "30000/1001"}, 9, Fraction(30000, 1001)),
        ({"mode": "target fps", "target_fps": 10, "hold_last": True}, 4, 10),
    ],
)
def test_counts_and_rates(execute: Run, clip: Path, inputs: dict[str, Any], count: int, fps: Fraction) -> None:
    path, rate, number, _ = result_of(execute(VideoFromFile(str(clip)), **inputs))
    assert (number, rate, len(shown(path))) == (count, float(fps), count)
    with av.open(str(path)) as container:
        assert abs(container.streams.video[0].average_rate / fps - 1) < 1e-6


def test_every_run_has_a_name_of_its_own(execute: Run, host: FakeHost, clip: Path) -> None:
    for _ in range(2):
        execute(VideoFromFile(str(clip)), filename_prefix="a/b %width%")
    assert files(host) == ["a/b 40_00001_.mkv", "a/b 40_00002_.mkv"]


@pytest.mark.parametrize(
    ("format", "codec", "suffix", "encoder"),
    [
        ("auto", "auto", ".mp4", "h264"),
        ("webm", "auto", ".webm", "vp9"),
        ("auto", "prores", ".mov", "prores"),
        ("mp4", "av1", ".mp4", "av1"),
    ],
)
def test_formats_and_codecs(execute: Run, clip: Path, format: str, codec: str, suffix: str, encoder: str) -> None:
    path, *_ = result_of(execute(VideoFromFile(str(clip)), multiplier=1, format=format, codec=codec, prompt={"a": 1}))
    assert path.suffix == suffix
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec.canonical_name == encoder
        assert len(container.streams.audio) == 1
        assert {name.lower() for name in container.metadata} >= {"prompt"}
    assert len(shown(path)) == COUNT


def test_an_animation_holds_the_workflow(execute: Run, clip: Path) -> None:
    """A WebP, under the tags that ComfyUI's page reads; it is the animation that it is without."""
    told = {"prompt": {"a": "ä" * 3}, "extra_pnginfo": {"workflow": {"nodes": [1]}, "other": 5}}
    plain, *_ = result_of(execute(VideoFromFile(str(clip)), codec="auto", format="webp"))
    path, *_ = result_of(execute(VideoFromFile(str(clip)), codec="auto", format="webp", **told))
    with Image.open(path) as found, Image.open(plain) as expected:
        exif = found.getexif()
        assert (found.n_frames, found.info["loop"]) == (expected.n_frames, expected.info["loop"])
        assert not expected.getexif()
        for index in range(expected.n_frames):
            found.seek(index)
            expected.seek(index)
            assert found.tobytes() == expected.tobytes()
    assert exif[0x010F] == 'workflow:{"nodes": [1]}'
    assert json.loads(exif[0x0110].removeprefix("prompt:")) == told["prompt"]
    assert int.from_bytes(path.read_bytes()[4:8], "little") + 8 == path.stat().st_size


def test_metadata_is_left_out_on_wish(loaded_pack: ModuleType, execute: Run, clip: Path) -> None:
    sys.modules["comfy.cli_args"].args.disable_metadata = True
    path, *_ = result_of(execute(VideoFromFile(str(clip)), multiplier=1, prompt={"a": 1}))
    with av.open(str(path)) as container:
        assert "prompt" not in {name.lower() for name in container.metadata}


def test_an_open_file(execute: Run, clip: Path) -> None:
    path, _, count, _ = result_of(execute(VideoFromFile(io.BytesIO(clip.read_bytes()))))
    assert count == 15 and torch.equal(shown(path)[::2], shown(clip))
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 1


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_trimmed_video(execute: Run, clip: Path, in_memory: bool) -> None:
    """Frames 2 to 5, and the sound beside them."""
    file: Any = io.BytesIO(clip.read_bytes()) if in_memory else str(clip)
    path, _, count, _ = result_of(execute(VideoFromFile(file, start_time=0.08, duration=0.16)))
    assert count == 7 and torch.equal(shown(path)[::2], shown(clip)[2:6])
    with av.open(str(path)) as container:
        sound = sum(frame.samples for frame in container.decode(audio=0))
    assert 0.12 <= sound / 48000 <= 0.20


class VideoInMemory:
    """ComfyUI's VIDEO that was made of images."""

    def __init__(self, images: Tensor, sound: Any = None) -> None:
        self.parts = SimpleNamespace(images=images, audio=sound, frame_rate=Fraction(FPS))

    def get_components(self) -> Any:
        return self.parts


@pytest.mark.parametrize("channels", [3, 4])
def test_a_video_in_memory(execute: Run, channels: int) -> None:
    images = (torch.stack(frames(4, HEIGHT, WIDTH)) * 255).round() / 255
    given = images if channels == 3 else torch.cat([images, images[..., :1]], -1)
    sound = {"waveform": torch.zeros(1, 2, 48000), "sample_rate": 48000}
    path, fps, count, _ = result_of(execute(VideoInMemory(given, sound)))
    assert (fps, count) == (50.0, 7)
    assert torch.equal(shown(path)[::2], (images * 255).to(torch.uint8))
    with av.open(str(path)) as container:
        heard = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(heard - 48000 * 4 // FPS) <= 1024  # no longer than the video


def test_a_video_in_memory_without_sound(execute: Run) -> None:
    path, *_ = result_of(execute(VideoInMemory(torch.stack(frames(2, HEIGHT, WIDTH)))))
    with av.open(str(path)) as container:
        assert not container.streams.audio


def test_a_cropped_video_is_taken_as_it_is_seen(execute: Run, clip: Path) -> None:
    """One that says of itself another size than its file."""

    class Cropped(VideoFromFile):
        pass

    cropped: Any = Cropped(str(clip))
    cropped.get_components = lambda: SimpleNamespace(
        images=torch.stack(frames(2, 8, 8)), audio=None, frame_rate=Fraction(FPS)
    )
    assert shown(result_of(execute(cropped))[0]).shape == (3, 8, 8, 3)


def test_cancel_leaves_no_file(execute: Run, host: FakeHost, clip: Path) -> None:
    done = [0]

    def cancel() -> None:
        done[0] += 1
        host.interrupt = done[0] == 30

    host.on_check = cancel
    with pytest.raises(Interrupted):
        execute(VideoFromFile(str(clip)))
    assert done[0] == 30 and files(host) == []
    host.on_check = lambda: None
    assert result_of(execute(VideoFromFile(str(clip))))[2] == 15


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"format": "avi"}, "format must be auto, mp4"),
        ({"codec": "h265"}, "h265"),
        ({"format": "webm", "codec": "h264"}, ".webm"),
        ({"codec": "h264", "crf": 60}, "crf 60"),
        ({"codec": "ffv1", "crf": 10}, "no quality to choose"),
        ({"codec": "hevc"}, "40x24"),
        ({"filename_prefix": "../../x"}, "output folder"),
        ({"filename_prefix": "a\0b"}, "output folder"),
        ({"mode": "target fps", "target_fps": 0}, "target_fps must be"),
        ({"multiplier": 0}, "multiplier must be"),
    ],
)
def test_bad_inputs_are_one_sentence(
    execute: Run, host: FakeHost, clip: Path, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,400}\.$") as raised:
        execute(VideoFromFile(str(clip)), **inputs)
    assert words in str(raised.value)
    assert host.loads == [] and files(host) == []


@pytest.mark.parametrize("video", [None, "clip.mp4", torch.zeros(2, 8, 8, 3)])
def test_what_is_no_video(execute: Run, video: Any) -> None:
    with pytest.raises(ValueError, match=r"^video must be a VIDEO, such as from Load Video, not .*\.$"):
        execute(video)


def test_what_is_no_readable_video(execute: Run, host: FakeHost, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(os.urandom(2000))
    video = VideoFromFile(str(broken))
    video.get_dimensions = lambda: (4, 4)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"broken\.mp4 is not a readable video"):
        execute(video)
    assert host.loads == [] and files(host) == []

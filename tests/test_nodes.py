"""The two nodes on a very small model, next to a stand-in for ComfyUI."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost, Interrupted
from tests.smallest import PARAMS, save_smallest
from tests.tiny import frames
from tlbvfi.counting import LiveBytes

NAME = "tlbvfi-pack-of-test-nodes"
BUILT_IN = "tlbvfi-small (built-in)"
MODEL = "tiny.safetensors"
DOWNLOADED = "vimeo_unet.pth (download)"
HEIGHT, WIDTH = 24, 40


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's `models`, with a small model, the same in a subfolder, a broken one and things that are no models."""
    folder = tmp_path_factory.mktemp("models")
    interpolation = folder / "interpolation"
    (interpolation / "older").mkdir(parents=True)
    save_smallest(interpolation / MODEL)
    shutil.copy(interpolation / MODEL, interpolation / "older" / "b.safetensors")
    (interpolation / "corrupt.pth").write_bytes(bytes(range(256)) * 16)
    (interpolation / "README.md").write_text("no model")
    return folder


@pytest.fixture
def host(loaded_pack: ModuleType, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """ComfyUI, and a garbage collector that is only counted: the real one takes longer than a run."""
    host = fake_host.install(FakeHost(models_folder), monkeypatch)
    collector = SimpleNamespace(collect=lambda: setattr(host, "garbage_collected", host.garbage_collected + 1))
    monkeypatch.setattr(part("nodes.host"), "gc", collector)
    return host


@pytest.fixture(scope="module")
def loaded_pack(models_folder: Path) -> Iterator[ModuleType]:
    with fake_host.loaded_pack(NAME, models_folder) as pack:
        yield pack


@pytest.fixture
def pack(loaded_pack: ModuleType, host: FakeHost) -> ModuleType:
    return loaded_pack


def part(name: str) -> Any:
    """A module of the loaded pack."""
    return sys.modules[f"{NAME}.{name}"]


@pytest.fixture
def empty_cache(pack: ModuleType) -> Any:
    cache = part("nodes.models").loaded
    cache.clear()
    return cache


Run = Callable[..., Tensor]


@pytest.fixture
def run(pack: ModuleType) -> Run:
    """Run the interpolator as ComfyUI does; inputs that are not given have their defaults."""
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]
    declared = node.INPUT_TYPES()["required"]
    defaults = {name: options["default"] for name, (_, options) in declared.items() if "default" in options}

    def run(prev_frame: Any, next_frame: Any, **inputs: Any) -> Tensor:
        given = {"model_name": MODEL, **defaults, **inputs}
        with torch.inference_mode():
            (result,) = getattr(node(), node.FUNCTION)(prev_frame=prev_frame, next_frame=next_frame, **given)
        return result

    return run


@pytest.fixture(scope="module")
def video() -> Tensor:
    """(4, H, W, 3)"""
    return torch.stack(frames(4, HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def library(loaded_pack: ModuleType, models_folder: Path) -> Callable[..., Tensor]:
    """What the library gives for a video, called directly."""
    tlbvfi = part("tlbvfi")
    model = tlbvfi.load_model(models_folder / "interpolation" / MODEL)

    @cache
    def frames_of(video: Tensor, times: int, **settings: Any) -> Tensor:
        return torch.stack(list(tlbvfi.interpolate_frames(model, video, times, **settings)))

    return frames_of


@pytest.fixture(scope="module")
def pair(video: Tensor) -> Tensor:
    """(2, H, W, 3)"""
    return video[:2]


class Watch:
    """The model calls as they begin, and what of their results is still in memory.

    Made to fail, the call with that number raises once it is done.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.results: list[weakref.ref[Any]] = []
        self.failing_call = 0
        for name in ("encode_frame", "midpoint"):
            monkeypatch.setattr(part("tlbvfi").TLBVFI, name, self.watched(name))

    def watched(self, name: str) -> Callable[..., Any]:
        method = getattr(part("tlbvfi").TLBVFI, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            result = method(*args, **kwargs)
            self.results.append(weakref.ref(result))
            if len(self.calls) == self.failing_call:
                raise RuntimeError("broken")
            return result

        return call

    def alive(self) -> int:
        return sum(result() is not None for result in self.results)


@pytest.fixture
def watch(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


# FramePairSlicer


@pytest.mark.parametrize("key", ["FramePairSlicer", "TLBVFI_FramePairSlicer"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_slicer_gives_views_of_the_pair(pack: ModuleType, video: Tensor, key: str, index: int) -> None:
    node = pack.NODE_CLASS_MAPPINGS[key]
    outputs = getattr(node(), node.FUNCTION)(images=video, pair_index=index)
    pair, number, total, last, first, second = outputs
    assert torch.equal(pair, video[index : index + 2])
    assert torch.equal(first, video[index : index + 1])
    assert torch.equal(second, video[index + 1 : index + 2])
    assert (number, total, last) == (index, 3, index == 2)
    assert {x.untyped_storage().data_ptr() for x in (pair, first, second)} == {video.untyped_storage().data_ptr()}


@pytest.mark.parametrize(
    ("images", "index", "sentence"),
    [
        (torch.rand(4, 2, 2, 3), 3, "pair_index 3 is out of range: 4 frames make 3 pairs, .* between 0 and 2"),
        (torch.rand(4, 2, 2, 3), -1, "pair_index -1 is out of range"),
        (torch.rand(2, 2, 2, 3), 1, "pair_index 1 is out of range: 2 frames make 1 pair, so it must be 0"),
        (torch.rand(4, 2, 2, 3), 0.5, "pair_index must be a whole number, not 0.5"),
        (torch.rand(4, 2, 2, 3), None, "pair_index must be a whole number, not None"),
        (torch.rand(4, 2, 2, 3), "1", "pair_index must be a whole number, not '1'"),
        (torch.rand(1, 2, 2, 3), 0, "images holds 1 frame; a pair needs at least 2"),
        (torch.rand(0, 2, 2, 3), 0, "images holds 0 frames"),
        (torch.rand(2, 2, 3), 0, r"images must be \(frames, height, width, channels\)"),
        (None, 0, "images must be an IMAGE .* not NoneType"),
    ],
)
def test_slicer_refuses(pack: ModuleType, images: Any, index: Any, sentence: str) -> None:
    node = pack.NODE_CLASS_MAPPINGS["FramePairSlicer"]
    with pytest.raises(ValueError, match=sentence) as raised:
        node().slice(images, index)
    assert_one_sentence(raised.value)


def assert_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text == text.strip() and "\n" not in text and text[-1] == "." and len(text) < 400, text


# Interpolator: frames


@pytest.mark.parametrize("times", range(5))
def test_frames_are_those_of_the_library(run: Run, library: Run, pair: Tensor, times: int) -> None:
    """0: the middle frame; k: both ends, to the bit, and what is between them, in order."""
    result = run(pair[:1], pair[1:], times_to_interpolate=times)
    assert result.dtype == torch.float32 and result.device.type == "cpu" and result.is_contiguous()
    assert result.min() >= 0 and result.max() <= 1
    whole = library(pair, 4)
    assert torch.equal(result, whole[:: 2 ** (4 - times)] if times else whole[8:9])
    assert len(result) == (2**times + 1 if times else 1)
    if times:
        assert torch.equal(result[[0, -1]], pair)


@pytest.mark.parametrize("times", [0, 2])
def test_pairs_of_a_batch_follow_one_another(run: Run, library: Run, video: Tensor, times: int) -> None:
    """A video given as its pairs gets the frames that the library gives for the whole."""
    result = run(video[:-1], video[1:], times_to_interpolate=times)
    whole = library(video, 2)
    gaps = torch.cat([whole[i : i + 5] for i in (0, 4, 8)])
    assert torch.equal(result, gaps if times else whole[2::4])


def test_pairs_that_share_nothing_have_their_own_places(run: Run, video: Tensor) -> None:
    """The noise of a pair's frames is that of its number in the batch, after a cut too."""
    first, second = video[[0, 3, 1]], video[[1, 0, 2]]
    frames_of = part("tlbvfi").interpolate_frames
    model = part("tlbvfi").load_model(sys.modules["folder_paths"].get_full_path("interpolation", MODEL))
    result = run(first, second)
    for index, two in enumerate(zip(first, second, strict=True)):
        assert torch.equal(result[index], list(frames_of(model, two, 1, first_gap=index))[1])


def test_seed_decides_the_frames(run: Run, pair: Tensor) -> None:
    first, again, other = (run(pair[:1], pair[1:], seed=seed) for seed in (2**64 - 1, 2**64 - 1, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone(run: Run, pair: Tensor) -> None:
    state = torch.random.get_rng_state()
    run(pair[:1], pair[1:])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "setting", [{"sample_steps": 20}, {"sample_steps": 15}, {"flow_scale": 1.0}, {"flow_scale": 0.1}]
)
def test_settings_reach_the_model(run: Run, library: Run, pair: Tensor, setting: dict[str, Any]) -> None:
    result = run(pair[:1], pair[1:], **setting)
    assert torch.equal(result, library(pair, 1, **setting)[1:2])
    assert not torch.equal(result, library(pair, 4)[8:9])


def test_without_offload_the_frames_are_the_same(
    run: Run, library: Run, pair: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wishes = part("tlbvfi.engine"), []
    original = engine.interpolate_timeline

    def interpolate_timeline(model: Any, frames: Any, timeline: Any, settings: Any, **kwargs: Any) -> Any:
        wishes.append(settings.offload)
        return original(model, frames, timeline, settings, **kwargs)

    monkeypatch.setattr(engine, "interpolate_timeline", interpolate_timeline)
    run(pair[:1], pair[1:], cpu_offload=True)
    assert torch.equal(run(pair[:1], pair[1:], times_to_interpolate=2, cpu_offload=False), library(pair, 4)[::4])
    assert wishes == [True, False]


def test_grey_and_alpha(run: Run, video: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    """Any mixture of 1, 3 and 4 channels is the RGB that it stands for; that alpha goes is said once a run."""
    grey, opaque = video[:1, :, :, :1], torch.ones(1, HEIGHT, WIDTH, 1)
    reference = run(grey.expand(-1, -1, -1, 3), video[1:2], times_to_interpolate=1)
    with caplog.at_level(logging.INFO):
        assert torch.equal(run(grey, video[1:2], times_to_interpolate=1), reference)
        assert "alpha" not in caplog.text
        with_alpha = torch.cat([video[1:2], opaque * 0.25], dim=-1)
        assert torch.equal(run(grey, with_alpha, times_to_interpolate=1), reference)
    assert caplog.text.count("alpha") == 1


def test_values_a_little_outside_are_clamped(run: Run, video: Tensor) -> None:
    wide = video[:2] * 1.4 - 0.2
    assert wide.min() < 0 and wide.max() > 1
    result = run(wide[:1], wide[1:], times_to_interpolate=1)
    clamped = wide.clamp(0, 1)
    assert torch.equal(result, run(clamped[:1], clamped[1:], times_to_interpolate=1))
    assert torch.equal(result[[0, -1]], clamped)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_taken(run: Run, video: Tensor, dtype: torch.dtype) -> None:
    given = video[:2].to(dtype)
    result = run(given[:1], given[1:], times_to_interpolate=1)
    assert result.dtype == torch.float32
    assert torch.equal(result[[0, -1]], given.float())


def test_inputs_are_not_changed(run: Run, video: Tensor) -> None:
    wide = video[:2] * 1.2 - 0.1
    before = wide.clone()
    result = run(wide[:1], wide[1:], times_to_interpolate=1)
    assert torch.equal(wide, before)
    assert result.untyped_storage().data_ptr() != wide.untyped_storage().data_ptr()


def test_numpy_whole_numbers_are_taken(run: Run, pair: Tensor) -> None:
    result = run(pair[:1], pair[1:], times_to_interpolate=np.int64(1), seed=np.uint64(2**64 - 1))
    assert torch.equal(result, run(pair[:1], pair[1:], times_to_interpolate=1, seed=2**64 - 1))


# Interpolator: bad input


def pictures(count: int = 1, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> Tensor:
    return torch.rand(count, height, width, channels)


def with_value(value: float) -> Tensor:
    images = pictures(2)
    images[1, 3, 5, 1] = value
    return images


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("sizes", {"next_frame": pictures(width=48)}, "prev_frame is 40x24 and next_frame is 48x24"),
    ("batches", {"next_frame": pictures(2)}, "prev_frame holds 1 and next_frame 2 frames"),
    ("empty", {"prev_frame": pictures(0)}, "prev_frame is an empty batch"),
    ("no pixels", {"prev_frame": pictures(height=0)}, "prev_frame has frames without pixels"),
    ("2 channels", {"next_frame": pictures(channels=2)}, "next_frame has 2 channels; it must have 1 .* 3 .* 4"),
    ("5 channels", {"prev_frame": pictures(channels=5)}, "prev_frame has 5 channels"),
    ("NaN", {"prev_frame": with_value(float("nan")), "next_frame": pictures(2)}, "prev_frame holds NaN or infinity"),
    ("infinity", {"prev_frame": pictures(2), "next_frame": with_value(float("inf"))}, "next_frame holds NaN or inf"),
    ("-infinity", {"prev_frame": with_value(-float("inf")), "next_frame": pictures(2)}, "prev_frame holds NaN or inf"),
    ("far out", {"prev_frame": pictures() * 255}, "prev_frame has values from .* to 25.*; they must be in"),
    ("bytes", {"next_frame": (pictures() * 255).byte()}, "next_frame must hold floating point .* not torch.uint8"),
    ("3-D", {"prev_frame": pictures()[0]}, r"prev_frame must be \(frames, height, width, channels\)"),
    ("no tensor", {"next_frame": [1]}, "next_frame must be an IMAGE .* not list"),
    ("times", {"times_to_interpolate": 5}, "times_to_interpolate must be a whole number between 0 and 4, not 5"),
    ("half times", {"times_to_interpolate": 0.5}, "times_to_interpolate must be a whole number"),
    ("no number of times", {"times_to_interpolate": None}, "times_to_interpolate must be a whole number.* not None"),
    ("half steps", {"sample_steps": 10.5}, "sample_steps must be a whole number"),
    ("no steps", {"sample_steps": None}, "sample_steps must be a whole number"),
    ("no gpu_id", {"gpu_id": None}, "gpu_id must be a whole number.* not None"),
    ("gpu_id in words", {"gpu_id": "0"}, "gpu_id must be a whole number.* not '0'"),
    ("a number for a name", {"model_name": 5}, "model_name must be the name of a model, not 5"),
    ("no name", {"model_name": None}, "model_name must be the name of a model, not None"),
    ("sparse", {"prev_frame": pictures().to_sparse()}, "prev_frame must be a dense tensor with values, not torch.sp"),
    ("seed", {"seed": -1}, "seed must be a whole number between 0 and 18446744073709551615, not -1"),
    ("sample_steps", {"sample_steps": 2}, "sample_steps must be a whole number between 3 and 500, not 2"),
    ("flow_scale", {"flow_scale": 0.05}, r"flow_scale must be between 0\.1 and 1\.0, not 0\.05"),
    ("flow_scale 0", {"flow_scale": 0.0}, r"flow_scale must be between 0\.1"),
    ("gpu_id", {"gpu_id": 7}, "gpu_id 7 does not exist: ComfyUI runs on cpu and finds 1 such device, so it must be 0"),
    ("model", {"model_name": "absent.pth"}, "'absent.pth' is not there.*vimeo_unet.pth from https.*interpolation"),
    ("no model", {"model_name": "../tiny.pth"}, "is not there"),
    ("corrupt", {"model_name": "corrupt.pth"}, "corrupt.pth: "),
]


@pytest.mark.parametrize(("inputs", "sentence"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_one_sentence_before_any_work(
    run: Run, host: FakeHost, empty_cache: Any, inputs: dict[str, Any], sentence: str
) -> None:
    given = {"prev_frame": pictures(), "next_frame": pictures(), **inputs}
    with pytest.raises(ValueError, match=sentence) as raised:
        run(**given)
    assert_one_sentence(raised.value)
    assert host.loads == host.progress == []
    assert len(empty_cache) == 0


def test_a_good_run_after_a_bad_file(run: Run, library: Run, pair: Tensor, empty_cache: Any) -> None:
    with pytest.raises(part("tlbvfi").CheckpointError):
        run(pair[:1], pair[1:], model_name="corrupt.pth")
    assert torch.equal(run(pair[:1], pair[1:]), library(pair, 4)[8:9])


# Models


def choices(pack: ModuleType) -> list[str]:
    return pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"].INPUT_TYPES()["required"]["model_name"][0]


def validate(pack: ModuleType, name: str | None) -> bool | str:
    return pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"].VALIDATE_INPUTS(model_name=name)


def fingerprint(pack: ModuleType, name: str | None) -> str:
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]
    return node.IS_CHANGED(model_name=name, prev_frame=None, next_frame=None, seed=0)


def test_list_has_the_model_files(pack: ModuleType) -> None:
    """Subfolders too, sorted, and nothing that is no model file; what is downloaded comes last."""
    assert choices(pack) == [BUILT_IN, "corrupt.pth", os.path.join("older", "b.safetensors"), MODEL, DOWNLOADED]
    assert all(validate(pack, name) is True for name in choices(pack))


def test_built_in_models_come_first(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their weights are there; where they are not, the sentence for a graph that names one."""
    models = part("nodes.models")
    weights = tmp_path / "weights.safetensors"
    monkeypatch.setattr(models, "built_in_path", lambda name: weights)
    assert BUILT_IN not in choices(pack)
    refusal = validate(pack, BUILT_IN)
    assert isinstance(refusal, str) and "missing" in refusal and "vimeo_unet.pth" in refusal
    weights.write_bytes(b"")
    assert choices(pack)[0] == BUILT_IN
    assert validate(pack, BUILT_IN) is True
    assert models.find(BUILT_IN) == weights


@pytest.mark.parametrize("exists", [True, False], ids=["empty folder", "no folder"])
def test_no_model_at_all(
    loaded_pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """An entry that says so, the first; a prompt with it is refused with what to get, from where, by what, and where to
    put it."""
    fake_host.install(FakeHost(tmp_path), monkeypatch)
    monkeypatch.setattr(part("nodes.models"), "built_in_path", lambda name: tmp_path / name)
    folder = tmp_path / "interpolation"
    if exists:
        folder.mkdir()
    entry, last = choices(loaded_pack)
    assert "no model" in entry and last == DOWNLOADED
    names = loaded_pack.NODE_DISPLAY_NAME_MAPPINGS
    for name in (entry, "vimeo_unet.pth"):
        refusal = validate(loaded_pack, name)
        assert isinstance(refusal, str)
        assert_one_sentence(ValueError(refusal))
        for fact in ("vimeo_unet.pth", "https://huggingface.co/ucfzl/TLBVFI", str(folder), DOWNLOADED):
            assert fact in refusal
        assert names["TLBVFI_DownloadModel"] in refusal and "python -m tlbvfi download" in refusal
    assert fingerprint(loaded_pack, entry) == "missing"
    node = loaded_pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]()
    with pytest.raises(ValueError, match="no interpolation model yet"):
        node.interpolate(pictures(), pictures(), entry, 0, True, True, 10, 0.5, True, 0, 0)


def test_entry_for_no_model_once_there_is_one(pack: ModuleType) -> None:
    refusal = validate(pack, part("nodes.models").NO_MODEL)
    assert isinstance(refusal, str) and "choose another" in refusal


def test_linked_model_name_is_judged_when_it_is_known(pack: ModuleType) -> None:
    assert validate(pack, None) is True
    assert fingerprint(pack, None) == fingerprint(pack, None)


def test_behind_a_linked_name_may_be_any_file(pack: ModuleType, models_folder: Path) -> None:
    before = fingerprint(pack, None)
    file = next(path for path in (models_folder / "interpolation").rglob("*.safetensors"))
    os.utime(file, (1, 1))
    assert fingerprint(pack, None) != before


@pytest.mark.parametrize("linked", [{"sample_steps": 10.0}, {"times_to_interpolate": 1.0, "gpu_id": 0.0, "seed": 3.0}])
def test_whole_floats_come_from_nodes_that_compute(run: Run, pair: Tensor, linked: dict[str, float]) -> None:
    whole = {name: int(value) for name, value in linked.items()}
    assert torch.equal(run(*pair.split(1), **linked), run(*pair.split(1), **whole))


def test_a_result_that_the_computer_refuses_is_one_sentence(run: Run, host: FakeHost) -> None:
    info = part("tlbvfi.video").VideoInfo(64, 64, None, None)
    with pytest.raises(ValueError, match=r"^The result takes .* GiB of the computer's memory.* Meta Batch Manager"):
        part("nodes.run").image_target(17 * 10**9, info)


@pytest.mark.parametrize("name", ["older/b.safetensors", "older\\b.safetensors"])
def test_names_of_another_system_are_understood(pack: ModuleType, models_folder: Path, name: str) -> None:
    assert validate(pack, name) is True
    assert part("nodes.models").find(name) == models_folder / "interpolation" / "older" / "b.safetensors"


def test_folder_registered_by_others_first(pack: ModuleType, tmp_path: Path, models_folder: Path) -> None:
    """As by extra_model_paths.yaml, where every file is listed: ours is added and theirs keeps its rule."""
    (tmp_path / "shared.pth").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    folders = sys.modules["folder_paths"].folder_names_and_paths  # type: ignore[attr-defined]
    folders["interpolation"] = ([str(tmp_path)], set())
    files = ["corrupt.pth", os.path.join("older", "b.safetensors"), "shared.pth", MODEL]
    assert choices(pack) == [BUILT_IN, *files, DOWNLOADED]
    assert folders["interpolation"] == ([str(tmp_path), str(models_folder / "interpolation")], set())


def test_set_of_suffixes_shared_with_other_folders(pack: ModuleType, tmp_path: Path) -> None:
    shared = {".pth"}
    folders = sys.modules["folder_paths"].folder_names_and_paths  # type: ignore[attr-defined]
    folders["checkpoints"], folders["interpolation"] = ([], shared), ([], shared)
    assert MODEL in choices(pack)
    assert shared == {".pth"}
    assert {".pth", ".safetensors"} <= folders["interpolation"][1]


def test_replaced_file_is_seen(
    run: Run, pack: ModuleType, host: FakeHost, empty_cache: Any, models_folder: Path, pair: Tensor
) -> None:
    """ComfyUI reruns the node, which loads the new weights and forgets the old."""
    path = models_folder / "interpolation" / "replaced.safetensors"
    shutil.copy(models_folder / "interpolation" / MODEL, path)
    try:
        before, first = fingerprint(pack, path.name), run(pair[:1], pair[1:], model_name=path.name)
        old = weakref.ref(host.managed[-1]())
        assert fingerprint(pack, path.name) == before
        with path.open("r+b") as file:  # other weights in the second half of the file
            file.seek(path.stat().st_size // 2)
            rest = np.frombuffer(file.read(), np.uint8).copy()
            file.seek(path.stat().st_size // 2)
            file.write(np.roll(rest, 64).tobytes())
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
        assert fingerprint(pack, path.name) != before
        second = run(pair[:1], pair[1:], model_name=path.name)
        assert not torch.equal(first, second)
        assert len(empty_cache) == 1 and old() is None
    finally:
        path.unlink()


def test_one_model_serves_every_setting(
    run: Run, host: FakeHost, empty_cache: Any, pair: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded once, asked of ComfyUI before every run, and kept alive in between."""
    models, loads = part("nodes.models"), []
    load_model = models.load_model
    monkeypatch.setattr(models, "load_model", lambda *a, **k: loads.append(a) or load_model(*a, **k))
    for inputs in ({}, {"sample_steps": 20}, {"flow_scale": 1.0}, {"enable_tf32": False}, {"use_fp16": False}):
        run(pair[:1], pair[1:], **inputs)
    assert len(loads) == len(empty_cache) == 1
    assert len(host.loads) == 5 and all(full for _, _, full in host.loads)
    gc.collect()
    assert host.managed[-1]() is not None


def test_two_models_are_kept(run: Run, host: FakeHost, empty_cache: Any, models_folder: Path, pair: Tensor) -> None:
    extra = models_folder / "interpolation" / "extra.safetensors"
    shutil.copy(models_folder / "interpolation" / MODEL, extra)
    try:
        for name in (MODEL, "older/b.safetensors", extra.name):
            run(pair[:1], pair[1:], model_name=name)
        gc.collect()
        assert len(empty_cache) == 2
        assert [ref() is not None for ref in host.managed] == [False, True, True]
    finally:
        extra.unlink()


# Device, precision, memory


@pytest.mark.parametrize(
    ("device", "fp16", "bf16", "wish", "dtype"),
    [
        ("cpu", True, True, True, torch.float32),
        ("cuda:0", True, True, True, torch.float16),
        ("cuda:0", False, True, True, torch.bfloat16),
        ("cuda:0", False, False, True, torch.float32),
        ("cuda:0", True, True, False, torch.float32),
        ("mps", True, False, True, torch.float16),
    ],
)
def test_precision_is_what_comfyui_deems_right(
    pack: ModuleType,
    host: FakeHost,
    caplog: pytest.LogCaptureFixture,
    device: str,
    fp16: bool,
    bf16: bool,
    wish: bool,
    dtype: torch.dtype,
) -> None:
    """And it is said once for a device, not at every run."""
    module = part("nodes.host")
    module._told.clear()
    host.fp16, host.bf16 = fp16, bf16
    with caplog.at_level(logging.INFO):
        found = [module.precision(torch.device(device), wish) for _ in range(3)]
    assert found == [dtype] * 3
    assert [record.getMessage().count(device) for record in caplog.records] == [1] * wish


def test_half_precision_reaches_the_model(
    run: Run, library: Run, pair: Tensor, empty_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part("nodes.host"), "precision", lambda device, use_fp16: torch.bfloat16)
    half = run(pair[:1], pair[1:])
    assert half.dtype == torch.float32
    assert not torch.equal(half, library(pair, 4)[8:9])


def test_gpu_id(pack: ModuleType, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 is the device of ComfyUI, whichever that is; others are those of its kind that exist."""
    device = part("nodes.host").device
    assert device(0) == torch.device("cpu")
    host.own_device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [device(i) for i in (0, 1, 2)] == [torch.device("cuda", i) for i in (1, 1, 2)]
    with pytest.raises(ValueError, match="gpu_id 3 does not exist: .* cuda .* 3 such devices, .* between 0 and 2"):
        device(3)
    host.own_device = torch.device("mps")
    with pytest.raises(ValueError, match="so it must be 0"):
        device(1)


Chosen = list[dict[str, Any]]


@pytest.fixture
def elsewhere(host: FakeHost, empty_cache: Any) -> torch.device:
    """A device that is not the CPU and on which nothing can be computed, with 20 GiB."""
    host.own_device = torch.device("meta")
    host.free["meta"] = 20 * 2**30
    return host.own_device


@pytest.fixture
def imitated(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """The library's interpolation replaced by frames of one value; the keywords of its calls."""
    calls: Chosen = []

    def interpolate_timeline(
        model: Any, frames: Any, timeline: Any, settings: Any, **keywords: Any
    ) -> Iterator[SimpleNamespace]:
        calls.append(keywords)
        before = None
        for number, after in enumerate(frames):
            places = timeline.opening() if before is None else timeline.gap(number - 1, before, after).places
            for place in places:
                shown = after if place in (0, 1) else torch.full_like(after, 0.5)
                yield SimpleNamespace(frame=shown, position=number + place)
            before = after

    monkeypatch.setattr(part("tlbvfi.engine"), "interpolate_timeline", interpolate_timeline)
    return calls


class Planner:
    """In the place of `tlbvfi.plan`: weights of 300 bytes, for a run 10000, or 1000 where there is a budget."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.budgets: list[int | None] = []
        whole = part("tlbvfi").plan(1, 1, torch.float32, params=PARAMS)
        self.whole = dataclasses.replace(whole, peak_bytes=10300, weight_bytes=300, way=None)
        self.smaller = dataclasses.replace(self.whole, peak_bytes=1300)
        monkeypatch.setattr(part("nodes.run"), "plan", self)
        monkeypatch.setattr(part("tlbvfi.planning"), "plan", self)

    def __call__(self, *size: Any, params: Any, padding: str, device: Any, budget: int | None = None) -> Any:
        self.asked.append((*size, params))
        self.budgets.append(budget)
        return self.whole if budget is None else self.smaller


@pytest.fixture
def planner(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Planner:
    return Planner(monkeypatch)


def test_run_is_planned_for_the_memory_of_the_device(
    run: Run, host: FakeHost, pair: Tensor, elsewhere: torch.device, imitated: Chosen, planner: Planner
) -> None:
    """ComfyUI makes room for an unlimited run, the plan is for what it could give, and both hear of the plan."""
    run(pair[:1], pair[1:], flow_scale=0.25)
    assert imitated[0]["plan"] is planner.smaller
    assert host.loads == [(elsewhere, 1000, True)]
    model = host.managed[-1]().model.model
    assert planner.asked == [(HEIGHT, WIDTH, torch.float32, 0.25, model.params)] * 2
    assert host.rooms == [(10300 + host.reserved, elsewhere, [model])]
    assert planner.budgets == [None, 20 * 2**30 - round(20 * 2**30 * 0.02)]

    # The weights are on the device now, and belong to what may be used.
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    host.free["meta"] = 2**30
    run(pair[:1], pair[1:])
    assert host.rooms[1:] == [(10300 - weights + host.reserved, elsewhere, [model])]
    assert planner.budgets[2:] == [None, 2**30 + weights - host.reserved]


def test_reserved_memory_is_not_planned_for(
    run: Run, host: FakeHost, pair: Tensor, elsewhere: torch.device, imitated: Chosen, planner: Planner
) -> None:
    """ComfyUI's `--reserve-vram`, with batches too."""
    host.reserved = 15 * 2**30
    run(pair[:1], pair[1:])
    assert host.rooms[0][0] == 10300 + 15 * 2**30
    assert planner.budgets == [None, 5 * 2**30]


def test_every_part_of_a_video_has_the_plan(
    run: Run, video: Tensor, elsewhere: torch.device, imitated: Chosen, planner: Planner
) -> None:
    run(video[[0, 1, 3]], video[[1, 2, 0]])
    assert [call["plan"] for call in imitated] == [planner.smaller]


def test_on_the_cpu_the_computers_memory_is_planned_for(
    run: Run, host: FakeHost, pair: Tensor, imitated: Chosen, planner: Planner
) -> None:
    """Nobody else's models make way there, and one pair at a time keeps it busy."""
    planner.smaller = dataclasses.replace(planner.smaller, batch_size=2, peak_bytes=2300)
    host.free["cpu"] = 2**31
    run(pair[:1], pair[1:])
    model = host.managed[-1]().model.model
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert planner.budgets == [None, 2**31 + weights - 2**29] and not host.rooms
    assert imitated[0]["plan"] == dataclasses.replace(planner.smaller, batch_size=1, peak_bytes=1300)
    assert host.loads == [(torch.device("cpu"), 1000, True)]


def test_plan_without_a_limit(pack: ModuleType, pair: Tensor, planner: Planner) -> None:
    """Where ComfyUI cannot tell what is free, as with DirectML."""
    device = torch.device("privateuseone", 0)
    assert part("nodes.host").free_memory(device) is None
    model = SimpleNamespace(dtype=torch.float16, params=PARAMS, device=device)
    managed = SimpleNamespace(device=device, model=model, make_room=lambda wanted: None)
    assert part("nodes.run").plan_run(managed, (HEIGHT, WIDTH), part("tlbvfi.settings").Settings()) is planner.whole
    assert planner.budgets == [None]


def test_real_plan_is_handed_on(run: Run, pair: Tensor, elsewhere: torch.device, imitated: Chosen) -> None:
    run(pair[:1], pair[1:])
    plan = imitated[0]["plan"]
    assert isinstance(plan, part("tlbvfi").Plan)
    assert plan.padded_size == (64, 64) and 0 < plan.weight_bytes < plan.peak_bytes < 2**30


def test_memory_in_which_nothing_runs(
    run: Run, host: FakeHost, pair: Tensor, elsewhere: torch.device, imitated: Chosen
) -> None:
    """The plan's sentence, before the weights are moved."""
    host.free["meta"] = host.reserved + 1000
    with pytest.raises(ValueError, match="0.0000 GiB") as raised:
        run(pair[:1], pair[1:])
    assert_one_sentence(raised.value)
    assert not host.loads and not imitated
    assert host.caches_emptied >= 1


def test_models_make_way_before_a_warm_up(pack: ModuleType, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled model is made on the device it will run on, and waits on the host like any other."""
    models, loads = part("nodes.models"), []
    load_model = models.load_model

    def loaded_anywhere(path: Path, *, device: torch.device, dtype: torch.dtype, compile: bool) -> Any:
        loads.append((device, compile))
        return load_model(path, dtype=dtype)

    monkeypatch.setattr(models, "load_model", loaded_anywhere)
    meta, cpu = torch.device("meta"), torch.device("cpu")
    models.loaded.clear()
    for compile in (True, False):
        managed = models.managed(models.find(MODEL), meta, torch.float32, compile)
        assert managed.model.device == cpu
    assert loads == [(meta, True), (cpu, False)]
    assert host.rooms == [(models.WARM_UP_BYTES, meta, [])]
    models.managed(models.find(MODEL), cpu, torch.float32, True)
    assert loads[2:] == [(cpu, True)] and len(host.rooms) == 1


def test_compiled_model_is_another(
    run: Run, library: Run, empty_cache: Any, pair: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made where the switch is on, kept beside the plain one; off where a graph does not know it."""
    models, loads = part("nodes.models"), []
    load_model = models.load_model

    def uncompiled(*args: Any, compile: bool, **kwargs: Any) -> Any:
        loads.append(compile)
        return load_model(*args, **kwargs)

    monkeypatch.setattr(models, "load_model", uncompiled)
    for inputs in ({}, {"compile": False}, {"compile": True}, {"compile": True}, {}):
        assert torch.equal(run(pair[:1], pair[1:], **inputs), library(pair, 4)[8:9])
    assert loads == [False, True] and len(empty_cache) == 2


def test_compiler_that_does_not_work_is_one_line(
    run: Run,
    library: Run,
    pair: Tensor,
    empty_cache: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(run(pair[:1], pair[1:], compile=True), library(pair, 4)[8:9])
    (record,) = caplog.records
    assert "no compiler" in record.getMessage()


def test_weights_are_whole_on_the_device(pack: ModuleType, host: FakeHost) -> None:
    """Also where ComfyUI leaves them behind (as with --novram)."""
    meta = torch.device("meta")
    for host.novram in (False, True):
        model = part("tlbvfi").load_model(part("nodes.models").find(MODEL))
        managed = part("nodes.host").ManagedModel(model, meta)
        assert managed.load(5) is model
        assert {p.device for p in (*model.parameters(), *model.buffers())} == {meta}
    assert host.loads == [(meta, 5, True)] * 2


def test_weights_wait_on_the_host(pack: ModuleType, host: FakeHost) -> None:
    module = part("nodes.host")
    assert module.offload_device(torch.device("cuda:0")) == torch.device("cpu")
    management = sys.modules["comfy.model_management"]
    management.unet_offload_device = lambda: torch.device("cuda:0")  # type: ignore[attr-defined]  # --highvram
    assert module.offload_device(torch.device("cuda:1")) == torch.device("cuda:1")


def test_memory_is_given_back_every_few_pairs(
    run: Run, host: FakeHost, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpolator = part("nodes.interpolator")
    assert interpolator.PAIRS_PER_CLEANUP == 10
    monkeypatch.setattr(interpolator, "PAIRS_PER_CLEANUP", 2)
    run(video[[0, 1, 2, 0, 1]], video[[1, 2, 3, 1, 2]])
    assert host.caches_emptied == host.garbage_collected == 2 + 1


def test_neighbouring_pairs_share_their_frame(run: Run, video: Tensor, watch: Watch) -> None:
    """Pairs of a video encode each frame once, and give what each pair gives in its place; a gap starts anew."""
    frames = run(video[[0, 1, 3]], video[[1, 2, 0]], times_to_interpolate=1)
    assert watch.calls.count("encode_frame") == 3 + 2
    assert watch.calls.count("midpoint") == 3
    ends = [frames[i] for i in (0, 2, 3, 5, 6, 8)]
    assert all(torch.equal(a, video[i]) for a, i in zip(ends, (0, 1, 1, 2, 3, 0), strict=True))
    middles = run(video[[0, 1, 3]], video[[1, 2, 0]], times_to_interpolate=0)
    assert torch.equal(middles, frames[[1, 4, 7]])


# The computer's memory


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_result_is_the_only_large_allocation(run: Run, imitated: Chosen, times: int, dtype: torch.dtype) -> None:
    """Inputs and result, and of everything else a few frames: no list of frames, no second copy."""
    video = torch.rand(65, 128, 256, 3).to(dtype)  # a few of these frames outweigh the model
    before, after = video[:-1], video[1:]
    with LiveBytes(excluded=[video]) as counter:
        result = run(before, after, times_to_interpolate=times)
    assert len(result) == 64 * (2**times + 1 if times else 1)
    assert result.untyped_storage().nbytes() == result.nbytes
    assert result.nbytes <= counter.peak <= 1.12 * result.nbytes


def test_large_result_is_announced(
    run: Run,
    host: FakeHost,
    video: Tensor,
    elsewhere: torch.device,
    imitated: Chosen,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, before the work, with its size, what is free and what to do instead; a result that fits is not."""
    size = 3 * 5 * HEIGHT * WIDTH * 3 * 4
    host.free["cpu"] = size
    run(video[:-1], video[1:], times_to_interpolate=2)
    assert not caplog.records
    host.free["cpu"] = size - 1
    host.on_check = lambda: caplog.records or pytest.fail("not announced") if host.loads[1:] else None
    run(video[:-1], video[1:], times_to_interpolate=2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "python -m tlbvfi interpolate" in record.getMessage()


def test_sentence_about_a_large_result(pack: ModuleType) -> None:
    too_little_for = part("utils.memory").too_little_for
    sentence = too_little_for(3 * 2**30, 2**30)
    assert_one_sentence(ValueError(sentence))
    for fact in ("3.0 GiB", "1.0 GiB", "Meta Batch Manager", "python -m tlbvfi interpolate"):
        assert fact in sentence
    assert too_little_for(2**30, 2**30) is None
    assert too_little_for(2**60, None) is None


# Progress, cancelling, failing


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize(("pairs", "times"), [(1, 0), (3, 0), (1, 1), (2, 2)])
def test_progress_is_one_event_per_new_frame(
    run: Run, host: FakeHost, video: Tensor, pairs: int, times: int, offload: bool
) -> None:
    run(video[:pairs], video[1 : pairs + 1], times_to_interpolate=times, cpu_offload=offload)
    total = pairs * (2 ** max(times, 1) - 1)
    assert host.progress == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(("pairs", "times", "model_calls"), [(2, 0, 5), (1, 2, 6)])
@pytest.mark.parametrize("offload", [True, False])
def test_cancel_at_any_moment(
    run: Run,
    host: FakeHost,
    video: Tensor,
    watch: Watch,
    pairs: int,
    times: int,
    model_calls: int,
    offload: bool,
) -> None:
    """The model call under way is the last, and nothing of the run stays in memory; the next run is right."""
    given = (video[:pairs], video[1 : pairs + 1])
    settings = {"times_to_interpolate": times, "cpu_offload": offload}
    reference = run(*given, **settings)
    assert len(watch.calls) == model_calls
    for cancelled_in in range(1, model_calls + 1):
        watch.calls.clear()
        host.caches_emptied = 0
        host.on_check = partial(cancel_during_call, host, watch.calls, cancelled_in)
        with pytest.raises(Interrupted) as raised:
            run(*given, **settings)
        assert len(watch.calls) == cancelled_in
        assert host.caches_emptied >= 1
        assert watch.alive() == 0  # although the exception, and with it the stack, is still here
        del raised
    host.on_check, host.interrupt = lambda: None, False
    assert torch.equal(run(*given, **settings), reference)


def cancel_during_call(host: FakeHost, calls: list[str], number: int) -> None:
    """The user pressed cancel during that model call."""
    host.interrupt = len(calls) == number


def test_cancelled_before_it_begins(run: Run, host: FakeHost, pair: Tensor, empty_cache: Any) -> None:
    host.interrupt = True
    with pytest.raises(Interrupted):
        run(pair[:1], pair[1:])
    assert host.loads == [] and len(empty_cache) == 0


@pytest.mark.parametrize("failing_call", [1, 2, 3, 6])
def test_failure_leaves_nothing_behind(
    run: Run, library: Run, host: FakeHost, pair: Tensor, watch: Watch, failing_call: int
) -> None:
    """The error passes unchanged, and what the run held is free while it does."""
    watch.failing_call = failing_call
    with pytest.raises(RuntimeError, match="broken") as raised:
        run(pair[:1], pair[1:], times_to_interpolate=2)
    assert watch.alive() == 0
    assert raised.value.__traceback__ is not None
    assert len(watch.calls) == failing_call
    assert host.caches_emptied >= 1
    watch.failing_call = 0
    assert torch.equal(run(pair[:1], pair[1:], times_to_interpolate=2), library(pair, 4)[::4])


@pytest.mark.parametrize("error", [RuntimeError("The device has too little memory."), Interrupted()])
def test_what_the_library_raises_passes_untouched(
    run: Run, host: FakeHost, pair: Tensor, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def interpolate_timeline(*_: Any, **__: Any) -> Iterator[Tensor]:
        raise error
        yield

    monkeypatch.setattr(part("tlbvfi.engine"), "interpolate_timeline", interpolate_timeline)
    with pytest.raises(type(error)) as raised:
        run(pair[:1], pair[1:])
    assert raised.value is error and error.__cause__ is error.__context__ is None
    assert host.caches_emptied >= 1


def test_nothing_stays_after_a_good_run(run: Run, pair: Tensor, watch: Watch) -> None:
    run(pair[:1], pair[1:], times_to_interpolate=2)
    assert len(watch.results) == 6 and watch.alive() == 0


# TF32


def flags() -> tuple[Any, ...]:
    """As whichever interface this PyTorch has tells them."""
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32


def set_flags(values: tuple[Any, ...]) -> None:
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = values
    else:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = values


ON = ("tf32", "tf32") if hasattr(torch.backends.cuda.matmul, "fp32_precision") else (True, True)
OFF = ("ieee", "ieee") if hasattr(torch.backends.cuda.matmul, "fp32_precision") else (False, False)


@pytest.fixture(params=[None, ON, OFF, (ON[0], OFF[0])], ids=["fresh", "on", "off", "mixed"])
def flags_before(request: pytest.FixtureRequest) -> Iterator[tuple[Any, ...]]:
    """Whatever the user has set."""
    fresh = flags()
    set_flags(request.param or fresh)
    yield flags()
    set_flags(fresh)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("end", ["success", "error", "interrupt"])
@pytest.mark.filterwarnings("error")
def test_tf32_is_scoped_to_the_run(
    run: Run, host: FakeHost, pair: Tensor, flags_before: tuple[Any, ...], enabled: bool, end: str
) -> None:
    """Set as asked while the model runs, and back to what it was however the run ends."""
    seen: list[tuple[Any, ...]] = []

    def look() -> None:
        seen.append(flags())
        if len(seen) == 4 and end != "success":
            if end == "error":
                raise RuntimeError("broken")
            host.interrupt = True

    host.on_check = look
    outcome = {"error": RuntimeError, "interrupt": Interrupted}.get(end)
    if outcome is None:
        run(pair[:1], pair[1:], enable_tf32=enabled)
    else:
        with pytest.raises(outcome):
            run(pair[:1], pair[1:], enable_tf32=enabled)
    assert flags() == flags_before
    inside = seen[1:4]  # before each of the three model calls; the first look is before the run, and others after it
    assert len(inside) == 3 and set(inside) == {ON if enabled else OFF}


def test_two_threads_leave_the_flags_as_they_were(pack: ModuleType) -> None:
    """Blocks that overlap in time would each restore what the other has set."""
    tf32, before = part("tlbvfi.precision").tf32, flags()
    entered, seen = threading.Event(), []

    def second() -> None:
        entered.wait()
        with tf32(False):
            seen.append(flags())

    other = threading.Thread(target=second)
    other.start()
    with tf32(True):
        entered.set()
        other.join(0.2)
        seen.append(flags())
    other.join()
    assert seen == [ON, OFF] and flags() == before


def test_two_runs_leave_the_flags_as_they_were(run: Run, pair: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time, with other wishes, and where one of them fails."""
    before, seen, midpoint = flags(), set(), part("tlbvfi").TLBVFI.midpoint

    def looking(*args: Any, **keywords: Any) -> Tensor:
        seen.add(flags())
        if threading.current_thread().name == "failing":
            raise RuntimeError("broken")
        return midpoint(*args, **keywords)

    monkeypatch.setattr(part("tlbvfi").TLBVFI, "midpoint", looking)

    def running(enabled: bool) -> None:
        with contextlib.suppress(RuntimeError):
            run(pair[:1], pair[1:], enable_tf32=enabled, times_to_interpolate=1)

    names = ("failing", "on", "off")
    threads = [threading.Thread(target=running, args=(name != "off",), name=name) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {ON, OFF} and flags() == before


def test_old_tf32_flags_can_be_read_afterwards(run: Run, pair: Tensor) -> None:
    """PyTorch refuses that where old and new interface disagree."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    for enabled in (True, False):
        run(pair[:1], pair[1:], enable_tf32=enabled)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
        torch.get_float32_matmul_precision()


@pytest.mark.parametrize("before", [("medium", False), ("high", True), ("highest", True)])
@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_in_older_pytorch(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, before: tuple[str, bool], enabled: bool
) -> None:
    """Which has no setting per backend, but one for products and one flag for convolutions."""
    precision = part("tlbvfi.precision")
    matmul, cudnn = [before[0]], SimpleNamespace(allow_tf32=before[1])
    older = SimpleNamespace(
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=object()), cudnn=cudnn),
        get_float32_matmul_precision=lambda: matmul[-1],
        set_float32_matmul_precision=matmul.append,
    )
    monkeypatch.setattr(precision, "torch", older)
    with contextlib.suppress(RuntimeError), precision.tf32(enabled):
        assert (matmul[-1], cudnn.allow_tf32) == (("high", True) if enabled else ("highest", False))
        raise RuntimeError("broken")
    assert (matmul[-1], cudnn.allow_tf32) == before


def test_host_fakes_are_used(host: FakeHost) -> None:
    """No test here may reach a real ComfyUI."""
    assert dataclasses.is_dataclass(host)
    assert getattr(sys.modules["folder_paths"], "__file__", None) is None

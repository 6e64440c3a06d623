"""The nodes of older graphs give what the present ones give; on a very small model, next to a stand-in for ComfyUI."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost
from tests.smallest import save_smallest
from tests.tiny import frames

NAME = "tlbvfi-pack-of-test-legacy"
MODEL = "tiny.safetensors"
PAIR, BATCH, VIDEO, ONE = (
    "TLBVFI_Interpolator",
    "TLBVFI_BatchInterpolator_V2",
    "TLBVFI_VFI_TF32",
    "TLBVFI_FrameFromBatch",
)
OFF: dict[str, Any] = {"scene_cut": 0.0, "still_threshold": 0.0}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The pack with one model, in a fake ComfyUI for as long as the module runs."""
    models = tmp_path_factory.mktemp("models")
    (models / "interpolation").mkdir()
    save_smallest(models / "interpolation" / MODEL)
    with pytest.MonkeyPatch.context() as patch:
        fake_host.install(FakeHost(models), patch)
        yield fake_host.load_pack(NAME)
    fake_host.forget_pack(NAME)


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return torch.stack(frames(3, 24, 40))


def run(pack: ModuleType, key: str, **inputs: Any) -> tuple[Any, ...]:
    """What a node gives for some inputs."""
    node = pack.NODE_CLASS_MAPPINGS[key]
    named = {} if key == ONE else {"model_name": MODEL}
    found: Any = getattr(node(), node.FUNCTION)(**named, **inputs)
    return tuple(found["result"] if isinstance(found, dict) else found)


@pytest.fixture(scope="module")
def doubled(pack: ModuleType, clip: Tensor) -> Tensor:
    """The clip by the present video node."""
    return run(pack, "TLBVFI_VideoInterpolator", images=clip, multiplier=2, **OFF)[0]  # type: ignore[no-any-return]


def test_a_video(pack: ModuleType, clip: Tensor, doubled: Tensor) -> None:
    (result,) = run(pack, VIDEO, images=clip, times_to_interpolate=1, gpu_id=0)
    assert torch.equal(result, doubled)


def test_a_batch(pack: ModuleType, clip: Tensor, doubled: Tensor) -> None:
    """With and without the frames of the video; 0 times is as 1."""
    result, count = run(pack, BATCH, images=clip, times_to_interpolate=0)
    assert count == 5 and torch.equal(result, doubled)
    result, count = run(pack, BATCH, images=clip, times_to_interpolate=1, include_source_frames=False)
    assert count == 2 and torch.equal(result, doubled[1::2])


def test_a_batch_with_settings(pack: ModuleType, clip: Tensor) -> None:
    """Steps and flow scale count."""
    settings = {"sample_steps": 20, "flow_scale": 0.25, "enable_tf32": False, "cpu_offload": False}
    wanted, *_ = run(
        pack, "TLBVFI_VideoInterpolator", images=clip[:2], multiplier=2, quality="custom", **settings, **OFF
    )
    result, count = run(pack, BATCH, images=clip[:2], **settings)
    assert count == 3 and torch.equal(result, wanted)


def test_prompts_of_before_name_any_number_of_steps(pack: ModuleType) -> None:
    """ComfyUI runs what is in a list of choices, and shows the list: three to choose, and others to run."""
    for key in ("TLBVFI_Interpolator_V2", BATCH):
        choices, _ = pack.NODE_CLASS_MAPPINGS[key].INPUT_TYPES()["optional"]["sample_steps"]
        assert json.dumps(choices) == "[10, 20, 50]" and isinstance(choices, list)
        assert all(steps in choices for steps in (3, 10, 15, 20.0, 500))
        assert not any(each in choices for each in (2, 501, 10.5, True, "10", None, [10], math.nan, math.inf))
        assert str(choices) == "[10, 20, 50] or the whole numbers from 3 to 500"
    choices, _ = pack.NODE_CLASS_MAPPINGS["TLBVFI_VideoInterpolator"].INPUT_TYPES()["optional"]["sample_steps"]
    assert 10 in choices and 15 not in choices


def test_a_pair(pack: ModuleType, clip: Tensor) -> None:
    """Without its end, unless it is the last one; pairs put together are the frames of each gap once."""
    (wanted,) = run(pack, "TLBVFI_Interpolator_V2", prev_frame=clip[:1], next_frame=clip[1:2], times_to_interpolate=2)
    for last in (False, True):
        inputs = {"times_to_interpolate": 2, "gpu_id": 0, "is_last_pair": last, "save_images": last}
        (result,) = run(pack, PAIR, frame_pair=clip[:2], **inputs)
        assert len(result) == 4 + last and torch.equal(result, wanted[: 4 + last])


def test_one_frame_passes_through(pack: ModuleType, clip: Tensor) -> None:
    (result,) = run(pack, VIDEO, images=clip[:1], times_to_interpolate=3, gpu_id=0)
    assert torch.equal(result, clip[:1])


@pytest.mark.parametrize(
    ("index", "clamp", "found"),
    [(0, True, 0), (2, False, 2), (4096, True, 2), (-3, True, 0), (1.0, False, 1), (10**30, True, 2)],
)
def test_a_frame_of_a_batch(pack: ModuleType, clip: Tensor, index: Any, clamp: bool, found: int) -> None:
    (frame,) = run(pack, ONE, images=clip, index=index, clamp_index=clamp)
    assert torch.equal(frame, clip[found : found + 1]) and frame.data_ptr() == clip[found].data_ptr()


@pytest.mark.parametrize(
    ("key", "inputs", "said"),
    [
        (PAIR, {"frame_pair": 3, "times_to_interpolate": 1, "gpu_id": 0}, "frame_pair must hold two frames, not 3"),
        (PAIR, {"frame_pair": 2, "times_to_interpolate": 0, "gpu_id": 0}, "times_to_interpolate must be .* 1 and 4"),
        (PAIR, {"frame_pair": 2, "times_to_interpolate": 1, "gpu_id": 0, "is_last_pair": "no"}, "is_last_pair must"),
        (PAIR, {"frame_pair": 2, "times_to_interpolate": 1, "gpu_id": "a"}, "gpu_id must be"),
        (VIDEO, {"images": 2, "times_to_interpolate": 5, "gpu_id": 0}, "between 1 and 4, not 5"),
        (VIDEO, {"images": 0, "times_to_interpolate": 1, "gpu_id": 0}, "images is an empty batch"),
        (BATCH, {"images": 1, "include_source_frames": False}, "images holds one frame"),
        (BATCH, {"images": 2, "sample_steps": 2}, "sample_steps must be a whole number between 3 and 500, not 2"),
        (BATCH, {"images": 2, "flow_scale": 0.01}, "flow_scale|flow scale"),
        (BATCH, {"images": 2, "include_source_frames": 2}, "include_source_frames must be on or off"),
        (ONE, {"images": 3, "index": 3, "clamp_index": False}, "index 3 is out of range: images holds 3 frames"),
        (ONE, {"images": 1, "index": -1, "clamp_index": False}, "index -1 is out of range: images holds 1 frame, "),
        (ONE, {"images": 0}, "images is an empty batch"),
        (ONE, {"images": 1, "index": "x"}, "index must be a whole number"),
        (ONE, {"images": 1, "clamp_index": "x"}, "clamp_index must be on or off"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    pack: ModuleType, clip: Tensor, key: str, inputs: dict[str, Any], said: str
) -> None:
    batches = {name: clip[:number] for name, number in inputs.items() if name in ("images", "frame_pair")}
    with pytest.raises(ValueError, match=said) as caught:
        run(pack, key, **{**inputs, **batches})
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_there(pack: ModuleType, tmp_path: Path) -> None:
    """Is refused before anything runs, as by the present nodes."""
    for key in (PAIR, BATCH, VIDEO):
        assert "is not there" in pack.NODE_CLASS_MAPPINGS[key].VALIDATE_INPUTS(model_name="old.pth")

"""Odd values for every input of the nodes: each is refused in a sentence of ours, before any work."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost, VideoFromFile
from tests.smallest import save_smallest
from tlbvfi.bridge import Schedule
from tlbvfi.config import BridgeParams
from tlbvfi.pairwise import PairwiseModel
from tlbvfi.settings import Settings

NAME = "tlbvfi-pack-of-test-node-inputs"
SLICER, PAIRS, LOADER = "FramePairSlicer", "TLBVFI_Interpolator_V2", "TLBVFI_ModelLoader"
VIDEO, FILE = "TLBVFI_VideoInterpolator", "TLBVFI_InterpolateVideo"
HUGE = 10**5000
NESTED = torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(3, 3)])
META = torch.empty((), dtype=torch.int64, device="meta")


def kind(value: object) -> str:
    """Of a case: pytest would write numbers out."""
    return type(value).__name__


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHost]:
    """ComfyUI beside the pack, whose runs end before their work."""
    root = tmp_path_factory.mktemp("comfyui")
    (root / "interpolation").mkdir()
    (root / "output").mkdir()
    save_smallest(root / "interpolation" / "tiny.safetensors")
    host = FakeHost(root, temp=root, output=root / "output")
    with fake_host.loaded_pack(NAME, root), pytest.MonkeyPatch.context() as patch:
        fake_host.install(host, patch)
        patch.setattr(part("nodes.host"), "gc", SimpleNamespace(collect=lambda: None))
        patch.setattr(part("nodes.run"), "interpolate_video", lambda model, source, target, *_, **__: reached(target))
        yield host


def reached(target: Any) -> Any:
    return target.result.zero_() if hasattr(target, "result") else 0


def part(name: str) -> Any:
    return sys.modules[f"{NAME}.{name}"]


Call = Callable[..., Any]


@pytest.fixture
def call(host: FakeHost) -> Call:
    """Calls a node, inputs that are not given at their defaults."""

    def calling(key: str, **inputs: Any) -> Any:
        pack: ModuleType = sys.modules[NAME]
        node = pack.NODE_CLASS_MAPPINGS[key]
        declared = node.INPUT_TYPES()
        entries = {**declared["required"], **declared.get("optional", {})}
        given = {name: options["default"] for name, (_, options) in entries.items() if "default" in options}
        given |= {name: torch.rand(2, 8, 8, 3) for name in ("images", "prev_frame", "next_frame") if name in entries}
        if "model_name" in entries:
            given["model_name"] = "tiny.safetensors"
        if "video" in entries:
            given["video"] = in_memory()
        return getattr(node(), node.FUNCTION)(**{**given, **inputs})

    return calling


def in_memory(**parts: Any) -> Any:
    """A VIDEO whose parts are these."""
    found = {"images": torch.rand(2, 24, 40, 3), "audio": None, "frame_rate": Fraction(25), **parts}
    return SimpleNamespace(get_components=lambda: SimpleNamespace(**found))


def refused(call: Call, host: FakeHost, key: str, begin: str, **inputs: Any) -> None:
    loads = len(host.loads)
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call(key, **inputs)
    said = str(raised.value)
    assert said.startswith(begin), said
    assert said.isprintable() and said.endswith(".") and len(said) < 500, said
    assert type(raised.value) is ValueError or type(raised.value).__module__.startswith(NAME)
    assert len(host.loads) == loads
    assert not [path for path in host.output.rglob("*") if path.is_file()]


SWITCHES = {
    "use_fp16": PAIRS, "enable_tf32": LOADER, "cpu_offload": FILE, "compile": VIDEO, "loop": VIDEO, "hold_last": FILE,
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_no_switch(call: Call, host: FakeHost, name: str) -> None:
    odd = [
        torch.tensor(True),
        torch.rand(2),
        META,
        NESTED,
        None,
        "true",
        "",
        2,
        -1,
        0.5,
        math.nan,
        HUGE,
        [],
        {},
        [True],
    ]
    for value in odd:
        refused(call, host, SWITCHES[name], f"{name} must be on or off (true or false), not ", **{name: value})


def test_what_is_a_switch(call: Call) -> None:
    switch = part("tlbvfi.numbers").switch
    assert [switch("loop", value) for value in (0, 1, 0.0, np.bool_(True), np.int64(0))] == [0, 1, 0, 1, 0]


NUMBERS = {
    "times_to_interpolate": PAIRS, "seed": LOADER, "gpu_id": PAIRS, "batch_size": VIDEO, "multiplier": VIDEO,
    "crf": FILE, "pair_index": SLICER, "sample_steps": LOADER, "flow_scale": PAIRS, "scene_cut": VIDEO,
    "still_threshold": FILE, "source_fps": VIDEO, "target_fps": VIDEO,
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number(call: Call, host: FakeHost, name: str) -> None:
    """Truth values are none."""
    others = {
        "sample_steps": {"quality": "custom"}, "flow_scale": {"quality": "custom"},
        "target_fps": {"mode": "target fps"},
    }  # fmt: skip
    odd = [
        True, np.bool_(True), torch.tensor(True), META, NESTED, torch.rand(2), HUGE, -HUGE, math.nan, math.inf, None,
        "\x1b[31m" * 9, "x" * 10**6, [2], {"a": 2}, 2j, object(), b"2", -5,
    ]  # fmt: skip
    for value in odd:
        refused(call, host, NUMBERS[name], name, **{name: value}, **others.get(name, {}))


TEXTS = {
    "model_name": LOADER, "quality": PAIRS, "mode": VIDEO, "format": FILE, "codec": FILE, "filename_prefix": FILE,
    "multipliers": VIDEO,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_text_of_that_kind(call: Call, host: FakeHost, name: str) -> None:
    odd = [HUGE, META, NESTED, torch.rand(2), np.array(["auto", "fast"]), None, {"a": 1}, object(), b"auto", 1.5, True]
    for value in [*odd, "\x1b[31m\n" * 99 + "\0", "x" * 10**6]:
        begin = {"model_name": ("model_name", "The model")[isinstance(value, str)], "multipliers": ""}.get(name, name)
        refused(call, host, TEXTS[name], begin, **{name: value})


@pytest.mark.parametrize("prefix", ["\ud800", "a" * 300, "../x", "/etc/x", "a/" * 501, "a\0"])
def test_a_prefix_that_makes_no_file(call: Call, host: FakeHost, prefix: str) -> None:
    refused(call, host, FILE, "", filename_prefix=prefix)


def images_of(dtype: torch.dtype) -> Tensor:
    return torch.ones(2, 8, 8, 3).to(dtype)


ODD_IMAGES: dict[str, Any] = {
    "nested": torch.nested.nested_tensor([torch.rand(8, 8, 3), torch.rand(9, 8, 3)]),
    "sparse": torch.rand(2, 8, 8, 3).to_sparse(),
    "quantised": torch.quantize_per_tensor(torch.rand(2, 8, 8, 3), 0.1, 0, torch.quint8),
    "meta": torch.empty(2, 8, 8, 3, device="meta"),
    "huge": torch.empty(9, 10**6, 10**6, 3, device="meta"),
    **{str(dtype): images_of(dtype) for dtype in (torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn)},
    **{f"{channels} channels": torch.rand(2, 8, 8, channels) for channels in (0, 2, 5)},
    "no frames": torch.rand(0, 8, 8, 3),
    "0x0": torch.rand(2, 0, 0, 3),
    "far below 0": torch.rand(2, 8, 8, 3) * -255,
    "far above 1": torch.rand(2, 8, 8, 3) * 255,
    "a list": [torch.rand(8, 8, 3)] * 2,
    "a mask": {"mask": torch.rand(1, 8, 8)},
    "text": "x" * 10**6,
    "none": None,
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_what_are_no_images(call: Call, host: FakeHost, name: str) -> None:
    images = ODD_IMAGES[name]
    refused(call, host, VIDEO, "images ", images=images)
    refused(call, host, PAIRS, "next_frame ", next_frame=images)
    refused(call, host, FILE, "video ", video=in_memory(images=images))


@pytest.mark.parametrize("name", ["nested", "sparse", "meta", "no frames", "a list", "text"])
def test_what_the_slicer_refuses(call: Call, host: FakeHost, name: str) -> None:
    refused(call, host, SLICER, "images ", images=ODD_IMAGES[name])
    refused(call, host, "TLBVFI_FrameFromBatch", "images ", images=ODD_IMAGES[name])


def test_the_frame_with_nan_is_named(call: Call, host: FakeHost) -> None:
    images = torch.rand(4, 8, 8, 3)
    images[2, 1, 3, 0] = -math.inf
    refused(call, host, VIDEO, "images holds NaN or infinity in frame 2; repair", images=images)


def test_pairs_may_come_in_different_types(call: Call) -> None:
    first = torch.rand(2, 8, 8, 3)
    (frames,) = call(PAIRS, prev_frame=first, next_frame=first.roll(-1, 0).double(), times_to_interpolate=1)
    assert len(frames) == 6


def test_what_is_no_schedule(call: Call, host: FakeHost) -> None:
    for entry in (True, torch.tensor(True), META, 1.5, "1", None, [1], math.nan, {}):
        refused(call, host, VIDEO, "each timestep of schedule must be a whole number, not ", schedule=[999, entry, 0])
    for schedule in ("999, 0", b"9", {9: 0}, torch.arange(3), 5, HUGE, object()):
        refused(call, host, VIDEO, "schedule must be a list of timesteps, not ", schedule=schedule)
    refused(call, host, VIDEO, "schedule must hold 10000 timesteps at most", schedule=[0] * 10**5)
    refused(call, host, PAIRS, "schedule holds no timesteps; take them from", schedule=[])
    for schedule in ([999, 500], [0, 1], [5, 5, 0], [999, -HUGE, 0], [HUGE, 5]):
        refused(call, host, FILE, "schedule must fall strictly from at most ", schedule=schedule)


@pytest.mark.parametrize(
    "steps", [HUGE, [HUGE, 0], [999, 1, HUGE], [True, False], True, "x" * 10**6, META, [[1], 0]], ids=kind
)
def test_steps_that_no_model_has(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"^sample_steps must [^\n]{10,300}\.$"):
        Schedule(BridgeParams()).timesteps(steps)


def test_a_seed_of_any_length_that_python_writes() -> None:
    assert Settings(seed=10**999).seed == 10**999
    with pytest.raises(ValueError, match=r"^seed must be a number of at most 1,000 digits, not [^\n]{1,80}\.$"):
        Settings(seed=HUGE)


@pytest.mark.parametrize("said", [None, "no", torch.rand(2), NESTED, 2, [], META], ids=kind)
def test_states_that_say_nothing(call: Call, host: FakeHost, said: Any) -> None:
    """What they say is asked for as the video goes by."""
    skipped = part("nodes.wanted")._skips(SimpleNamespace(is_frame_skipped=lambda index: said))
    with pytest.raises(ValueError, match=r"^What interpolation_states says of frame 3 must be on or off .*\.$"):
        skipped(3)
    refused(
        call, host, VIDEO, "interpolation_states must come from", interpolation_states=said if said is not None else "x"
    )


def test_states_that_fail(host: FakeHost) -> None:
    skipped = part("nodes.wanted")._skips(SimpleNamespace(is_frame_skipped=lambda index: {}[index]))
    with pytest.raises(ValueError, match=r"^interpolation_states does not say whether frame 3 is skipped: 3\.$"):
        skipped(3)


def raising(error: Exception) -> Any:
    def get_components() -> None:
        raise error

    return SimpleNamespace(get_components=get_components)


@pytest.mark.parametrize(
    "video",
    [
        None, "clip.mp4", 5, HUGE, torch.rand(2, 8, 8, 3), {"images": 1}, object, VideoFromFile,
        VideoFromFile("/nowhere.mp4"), VideoFromFile("a\0b"), VideoFromFile(__file__), VideoFromFile(None),
        raising(RuntimeError("first\nsecond \x1b[31m" * 99)), raising(KeyError("k")), raising(MemoryError()),
        SimpleNamespace(get_components=lambda: None), in_memory(frame_rate=0), in_memory(frame_rate=math.nan),
        in_memory(frame_rate=HUGE), in_memory(frame_rate="x"), in_memory(frame_rate=None), in_memory(frame_rate=True),
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_no_video(call: Call, host: FakeHost, video: Any) -> None:
    refused(call, host, FILE, "", video=video)


@pytest.mark.parametrize(
    "sound",
    [
        5, "sound", {}, torch.zeros(1, 2, 9), {"waveform": None}, {"waveform": torch.zeros(2, 9)}, {"waveform": NESTED},
        {"waveform": torch.zeros(1, 2, 9), "sample_rate": 0}, {"waveform": torch.zeros(1, 2, 9), "sample_rate": HUGE},
        {"waveform": torch.zeros(1, 2, 9)}, {"waveform": torch.full((1, 2, 9), math.nan), "sample_rate": 9},
        {"waveform": torch.empty(1, 2, 9, device="meta"), "sample_rate": 9},
        {"waveform": torch.zeros(1, 2, 9).to_sparse(), "sample_rate": 9},
        {"waveform": torch.quantize_per_tensor(torch.zeros(1, 2, 9), 0.1, 0, torch.quint8), "sample_rate": 9},
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_no_sound(call: Call, host: FakeHost, sound: Any) -> None:
    refused(call, host, FILE, "The s", video=in_memory(audio=sound))


class Manager(SimpleNamespace):
    """VideoHelperSuite's Meta Batch Manager."""

    __hash__ = object.__hash__

    def __init__(self, **others: Any) -> None:
        super().__init__(**{"unique_id": "7", "has_closed_inputs": True, "frames_per_batch": 4, **others})


@pytest.mark.parametrize(
    ("manager", "prompt"),
    [
        *((manager, {"7": {"inputs": {}}}) for manager in (5, "7", [], {}, SimpleNamespace(unique_id="7"), META)),
        *((Manager(), prompt) for prompt in (None, [], {}, {"7": None}, {"7": []}, {"7": {"inputs": 5}}, {"7": {}})),
        *((Manager(), {"7": {"inputs": {"requeue": odd}}}) for odd in ("x", HUGE, -1, 1.5, [1], True, META)),
        *((Manager(unique_id=odd), {"7": {"inputs": {}}}) for odd in (None, HUGE, [], META)),
        *((Manager(has_closed_inputs=odd), {"7": {"inputs": {}}}) for odd in (None, torch.rand(2), "yes")),
        *((Manager(frames_per_batch=odd), {"7": {"inputs": {}}}) for odd in (None, "x", 0, HUGE, [], META, True)),
    ],
    ids=kind,
)
def test_what_is_no_manager(call: Call, host: FakeHost, manager: Any, prompt: Any) -> None:
    refused(call, host, VIDEO, "", meta_batch=manager, prompt=prompt)


def test_a_graph_of_any_depth_is_looked_through(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    """And entries that are none."""
    chain: dict[str, Any] = {str(number): {"inputs": {"x": [str(number + 1), 0]}} for number in range(5000)}
    chain["7"]["inputs"] |= {"a": [[], 0], "b": [HUGE, 0], "c": ["gone", 0]}
    call(VIDEO, prompt=chain, unique_id="3")
    assert "Meta Batch Manager" not in caplog.text
    chain["5000"] = {"class_type": "VHS_BatchManager"}
    call(VIDEO, prompt=chain, unique_id="3")
    assert "Meta Batch Manager" in caplog.text


@pytest.mark.parametrize("value", [True, None, "0.5", math.nan, HUGE, META, [0.5], -0.1, 1.5], ids=kind)
def test_what_core_s_node_may_not_ask_for(value: Any) -> None:
    network = PairwiseModel(None, Settings(), lambda: None)  # type: ignore[arg-type]
    frame = torch.rand(1, 3, 8, 8)
    if value is not True:
        with pytest.raises(ValueError, match=r"^A timestep must be between 0 and 1, not [^\n]{1,100}\.$"):
            network.forward_multi_timestep(frame, frame, [value])
    for odd in (value, torch.zeros(1, 3, 8, 8).to_sparse(), NESTED, frame.int(), frame[0]):
        with pytest.raises(ValueError, match=r"^[^\n]{10,200}\.$"):
            network.forward_multi_timestep(frame, odd, [0.5])


@pytest.mark.parametrize("name", [HUGE, META, "x" * 10**6, "a\0", "\ud800", [], {}, True], ids=kind)
def test_a_prompt_is_refused_before_it_runs(host: FakeHost, name: Any) -> None:
    node = sys.modules[NAME].NODE_CLASS_MAPPINGS[VIDEO]
    said = node.VALIDATE_INPUTS(name)
    assert isinstance(said, str) and said.isprintable() and said.endswith(".") and len(said) < 500
    assert node.IS_CHANGED(name) == "missing"

"""The node for whole videos on a very small model, next to a stand-in for ComfyUI and for VideoHelperSuite."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost, Interrupted
from tests.meta_batches import Manager, batches, unlinked
from tests.smallest import PARAMS, save_smallest
from tests.tiny import frames

NAME = "tlbvfi-pack-of-test-video-node"
KEY = "TLBVFI_VideoInterpolator"
MODEL = "tiny.safetensors"
HEIGHT, WIDTH = 24, 40
#: Three steps of the bridge, for speed; every gap is interpolated.
QUICK = {"scene_cut": 0.0, "still_threshold": 0.0, "schedule": [999, 1, 0]}


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
    host = fake_host.install(FakeHost(models_folder, temp=tmp_path), monkeypatch)
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

    def run(images: Tensor, **inputs: Any) -> Any:
        given = {**defaults, "model_name": MODEL, **QUICK, **inputs}
        with torch.inference_mode():
            return getattr(node(), node.FUNCTION)(images=images, **given)

    return run


@pytest.fixture
def run(execute: Run) -> Run:
    """The node's frames."""
    return lambda images, **inputs: execute(images, **inputs)["result"][0]


@pytest.fixture(scope="module")
def video() -> Tensor:
    """(6, H, W, 3)"""
    return torch.stack(frames(6, HEIGHT, WIDTH))


@pytest.fixture
def calls(loaded_pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model calls as they begin."""
    made: list[str] = []
    model = part("tlbvfi.model").TLBVFI
    for name in ("encode_frame", "midpoint"):
        method = getattr(model, name)

        def call(*args: Any, _name: str = name, _method: Any = method, **kwargs: Any) -> Any:
            made.append(_name)
            return _method(*args, **kwargs)

        monkeypatch.setattr(model, name, call)
    return made


# Counts, places, rates


@pytest.mark.parametrize(
    ("inputs", "count", "fps"),
    [
        ({}, 11, 48.0),
        ({"multiplier": 4}, 21, 96.0),
        ({"multiplier": 3}, 16, 72.0),
        ({"multiplier": 1}, 6, 24.0),
        ({"hold_last": True}, 12, 48.0),
        ({"loop": True}, 12, 48.0),
        ({"loop": True, "hold_last": True, "multiplier": 3}, 18, 72.0),
        ({"source_fps": "24000/1001"}, 11, 48000 / 1001),
        ({"source_fps": 29.97}, 11, 60000 / 1001),
        ({"mode": "target fps"}, 13, 60.0),
        ({"mode": "target fps", "hold_last": True}, 15, 60.0),
        ({"mode": "target fps", "source_fps": 60, "target_fps": "24"}, 3, 24.0),
        ({"multipliers": "1, 4, 1"}, 11, 48.0),
        ({"multipliers": [1, 1.0, 1, 1, 1]}, 6, 48.0),
    ],
)
def test_counts_and_rates(
    execute: Run, video: Tensor, inputs: dict[str, Any], count: int, fps: float, calls: list[str]
) -> None:
    images, rate, number, cuts = execute(video, **inputs)["result"]
    assert images.shape == (count, HEIGHT, WIDTH, 3) and images.dtype == torch.float32
    assert (number, cuts) == (count, "")
    assert rate == pytest.approx(fps, rel=1e-12)
    assert (0.0 <= images).all() and (images <= 1.0).all()


def test_twelve_frames_at_25_become_27_at_60(execute: Run) -> None:
    """Or 29 where the last one is held; what stands where a source frame does is that, to the bit."""
    source = torch.stack(frames(12, 8, 8))
    rates = {"mode": "target fps", "source_fps": 25, "target_fps": 60}
    images, *_ = execute(source, **rates)["result"]
    assert len(images) == 27
    for k in range(0, 27, 12):
        assert torch.equal(images[k], source[k * 25 // 60])
    held, *_ = execute(source, **rates, hold_last=True)["result"]
    assert len(held) == 29 and torch.equal(held[:27], images)
    assert torch.equal(held[27], source[11]) and torch.equal(held[28], source[11])


def test_sources_come_out_to_the_bit(run: Run, video: Tensor) -> None:
    assert torch.equal(run(video, multiplier=4)[::4], video)
    assert torch.equal(run(video, multiplier=3)[::3], video)


def test_frames_are_those_of_the_pairs(run: Run, video: Tensor, models_folder: Path) -> None:
    """A power of two is the library's bisection."""
    tlbvfi = part("tlbvfi")
    model = tlbvfi.load_model(models_folder / "interpolation" / MODEL)
    expected = torch.stack(list(tlbvfi.interpolate_frames(model, video, 2, sample_steps=[999, 1, 0], seed=5)))
    assert torch.equal(run(video, multiplier=4, seed=5), expected)
    assert torch.equal(run(video, multiplier=4, seed=5, batch_size=1), expected)
    assert torch.equal(run(video, multiplier=2, seed=5), expected[::2])


def test_other_multipliers_stand_near_their_places(run: Run, video: Tensor) -> None:
    fine, thirds = run(video, multiplier=16), run(video, multiplier=3)
    for k in range(3 * 5 + 1):
        assert torch.equal(thirds[k], fine[round(k / 3 * 16)])


def test_one_encode_a_frame_and_one_midpoint_a_new_frame(run: Run, video: Tensor, calls: list[str]) -> None:
    run(video, multiplier=2)
    assert calls.count("encode_frame") == len(video) and calls.count("midpoint") == len(video) - 1


def test_a_loop_closes(run: Run, video: Tensor) -> None:
    looped = run(video, loop=True)
    around = run(torch.cat([video, video[:1]]))
    assert torch.equal(looped, around[:-1])


@pytest.mark.parametrize("inputs", [{}, {"multiplier": 16}, {"mode": "target fps"}])
def test_one_frame_passes_through(run: Run, video: Tensor, inputs: dict[str, Any], calls: list[str]) -> None:
    assert torch.equal(run(video[:1], **inputs), video[:1])
    assert not calls


def test_one_frame_held(run: Run, video: Tensor) -> None:
    assert torch.equal(run(video[:1], multiplier=3, hold_last=True), video[:1].expand(3, -1, -1, -1))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(run: Run, video: Tensor, channels: int) -> None:
    given = video[..., :1] if channels == 1 else torch.cat([video, video[..., :1]], -1)
    expected = video[..., :1].expand(-1, -1, -1, 3) if channels == 1 else video
    assert torch.equal(run(given)[::2], expected)


# Cuts, still frames, skip lists


@pytest.fixture(scope="module")
def two_scenes() -> Tensor:
    """(8, 48, 64, 3): a cut before frame 4."""
    first = torch.stack(frames(4, 48, 64))
    noise = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(3)) * 0.2
    y = torch.linspace(0, 1, 48)[:, None, None]
    second = (noise + (y > 0.5) * 0.7).expand(4, -1, -1, -1)
    return torch.cat([first, torch.stack([s.roll(i, 1) for i, s in enumerate(second)])])


def test_a_cut_is_held(execute: Run, two_scenes: Tensor, host: FakeHost) -> None:
    default = part("nodes.wanted").DEFAULT_THRESHOLD
    plain = execute(two_scenes, multiplier=4)["result"][0]
    found = execute(two_scenes, multiplier=4, scene_cut=default)
    images, _, count, cuts = found["result"]
    assert cuts == "4" and count == len(plain) == len(images)
    for k in range(13, 16):
        assert torch.equal(images[k], two_scenes[3])
        assert not torch.equal(plain[k], two_scenes[3])
    others = [k for k in range(count) if not 12 < k < 16]
    assert torch.equal(images[others], plain[others])
    (picture,) = found["ui"]["images"]
    assert picture["type"] == "temp"
    assert Image.open(host.temp / picture["subfolder"] / picture["filename"]).size[0] > 100
    assert host.pictures[-1][1].size[0] > 100  # and beside the bar, where the last frame would hide it
    assert "ui" not in execute(two_scenes[:4], scene_cut=default)
    looped = execute(two_scenes[3:5], scene_cut=default, loop=True)["result"]  # held on the way back too, which is none
    assert looped[3] == "1" and torch.equal(looped[0][3], two_scenes[4])


def test_still_frames_are_copied(run: Run, video: Tensor, calls: list[str]) -> None:
    doubled = video.repeat_interleave(2, 0)
    images = run(doubled, still_threshold=0.0005)
    assert len(images) == 23 and calls.count("midpoint") == 5
    for k in range(6):
        assert torch.equal(images[4 * k : 4 * k + 3], video[k].expand(3, -1, -1, -1))
    calls.clear()
    run(doubled, still_threshold=0.0)
    assert calls.count("midpoint") == 11


class States(list[int]):
    """As ComfyUI-Frame-Interpolation makes them: a list of frames, to skip or to keep to."""

    def is_frame_skipped(self, index: int) -> bool:
        return index in self


def test_skipped_gaps_are_held(run: Run, video: Tensor, calls: list[str]) -> None:
    plain, skipped = run(video), run(video, interpolation_states=States([1, 3]))
    for k in range(11):
        held = k in (3, 7)
        assert torch.equal(skipped[k], video[k // 2] if held else plain[k])


# Batches of VideoHelperSuite


@pytest.mark.parametrize(("frame_count", "frames_per_batch"), [(7, 4), (3, 1), (1, 4)])
@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"multiplier": 3, "hold_last": True},
        {"loop": True},
        {"mode": "target fps", "source_fps": 25},
        {"mode": "target fps", "source_fps": "24000/1001", "target_fps": 13, "loop": True},
        {"multipliers": "1, 4", "multiplier": 2},
    ],
    ids=["double", "held", "loop", "rate", "slow loop", "list"],
)
def test_batches_are_the_whole(execute: Run, frame_count: int, frames_per_batch: int, inputs: dict[str, Any]) -> None:
    """All batches together are the run without batches, to the bit, and none of them is empty."""
    if inputs.get("target_fps") == 13:  # of shorter ones some would be empty, and are refused
        frames_per_batch = 4
    source = torch.stack(frames(frame_count, 8, 8))
    whole, fps, *_ = execute(source, **inputs)["result"]
    made = [
        execute(images, **inputs, meta_batch=manager, prompt=prompt, unique_id="7")["result"]
        for images, manager, prompt in batches(source, frames_per_batch)
    ]
    assert torch.equal(torch.cat([images for images, *_ in made]), whole)
    assert all(rate == fps and count == len(images) for images, rate, count, _ in made)
    assert all(len(images) for images, *_ in made)
    assert len(part("nodes.meta_batch").memory) == 0


@pytest.mark.parametrize("frames_per_batch", [1, 3, 4, 5])
def test_cuts_in_batches(execute: Run, two_scenes: Tensor, frames_per_batch: int) -> None:
    """Also where the cut is between two of them; the last batch knows of all."""
    inputs = {"scene_cut": part("nodes.wanted").DEFAULT_THRESHOLD, "still_threshold": 0.0005}
    whole = execute(two_scenes, **inputs)["result"]
    made = [
        execute(images, **inputs, meta_batch=manager, prompt=prompt, unique_id="7")["result"]
        for images, manager, prompt in batches(two_scenes, frames_per_batch)
    ]
    assert torch.equal(torch.cat([images for images, *_ in made]), whole[0])
    assert made[-1][3] == whole[3] == "4"


def test_no_batch_is_empty_where_frames_are_left_out(execute: Run) -> None:
    """Nodes that save a video would wait for ever."""
    source = torch.stack(frames(13, 8, 8))
    inputs = {"mode": "target fps", "source_fps": 24, "target_fps": 12}
    whole = execute(source, **inputs)["result"][0]
    made = [
        execute(images, **inputs, meta_batch=manager, prompt=prompt, unique_id="7")["result"][0]
        for images, manager, prompt in batches(source, 4)
    ]
    assert [len(images) for images in made] == [1, 2, 2, 2]
    assert torch.equal(torch.cat(made), whole) and torch.equal(whole, source[::2])


def test_batches_too_short_to_give_frames_are_refused(execute: Run, host: FakeHost) -> None:
    images, manager, prompt = next(batches(torch.stack(frames(13, 8, 8)), 3))
    inputs = {"mode": "target fps", "source_fps": 24, "target_fps": 12}
    with pytest.raises(ValueError, match=r"^Batches of 3 frames are too short for 12 frames .* to 4 or more\.$"):
        execute(images, **inputs, meta_batch=manager, prompt=prompt, unique_id="7")
    assert host.loads == []


def test_a_batch_out_of_order(execute: Run, video: Tensor) -> None:
    given = list(batches(video, 2))
    given[0][1].has_closed_inputs = False  # which it is from the last one on

    def number(index: int) -> Any:
        images, manager, prompt = given[index]
        return execute(images, meta_batch=manager, prompt=prompt, unique_id="7")

    with pytest.raises(ValueError, match=r"^Batch number 2 of the meta batch .* queueing the workflow once more\.$"):
        number(1)
    number(0)
    with pytest.raises(ValueError, match=r"^Batch number 3 .* the one that comes next is number 2"):
        number(2)
    number(0)
    number(1)
    with pytest.raises(ValueError, match=r"^Batch number 2 "):
        number(1)


def test_a_cancelled_batch_leaves_nothing(execute: Run, host: FakeHost, video: Tensor) -> None:
    memory = part("nodes.meta_batch").memory
    coming = batches(video, 2)
    images, manager, prompt = next(coming)
    execute(images, meta_batch=manager, prompt=prompt, unique_id="7")
    assert len(memory) == 1
    images, manager, prompt = next(coming)
    host.interrupt = True
    with pytest.raises(Interrupted):
        execute(images, meta_batch=manager, prompt=prompt, unique_id="7")
    assert len(memory) == 0


def test_what_is_carried_goes_with_its_manager(execute: Run, video: Tensor) -> None:
    memory = part("nodes.meta_batch").memory
    images, manager, prompt = next(batches(video, 2))
    result = execute(images, meta_batch=manager, prompt=prompt, unique_id="7")
    assert len(memory) == 1
    del manager, result
    gc.collect()
    assert len(memory) == 0


def test_two_nodes_of_one_manager(execute: Run, video: Tensor) -> None:
    whole = [execute(video, multiplier=m)["result"][0] for m in (2, 4)]
    made: list[list[Tensor]] = [[], []]
    for images, manager, prompt in batches(video, 4):
        for node, factor in enumerate((2, 4)):
            result = execute(images, multiplier=factor, meta_batch=manager, prompt=prompt, unique_id=str(node))
            made[node].append(result["result"][0])
    assert all(torch.equal(torch.cat(parts), one) for parts, one in zip(made, whole, strict=True))


def test_carrying_keeps_one_frame(execute: Run, video: Tensor) -> None:
    """A view would keep the whole batch."""
    images, manager, prompt = next(batches(video, 4))
    execute(images, meta_batch=manager, prompt=prompt, unique_id="7")
    (carried,) = part("nodes.meta_batch").memory._carried[manager].values()
    assert carried.tail.untyped_storage().nbytes() == HEIGHT * WIDTH * 3 * 4
    assert carried.first is None


def test_a_forgotten_link_is_said(execute: Run, video: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    execute(video[:2], prompt=unlinked(), unique_id="7")
    assert any("Meta Batch Manager" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("manager", [object(), Manager("9"), "text"])
def test_what_is_no_manager(execute: Run, video: Tensor, manager: Any) -> None:
    with pytest.raises(ValueError, match=r"^meta_batch must be linked to VideoHelperSuite's Meta Batch Manager"):
        execute(video, meta_batch=manager, prompt=unlinked(), unique_id="7")


# Progress, memory, errors


def test_the_bar_ends_full_and_shows_frames(
    run: Run, host: FakeHost, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part("nodes.host"), "PICTURE_PAUSE", 0.0)
    run(video)
    values = [value for value, _ in host.progress]
    assert values == sorted(values) and values[-1] == 11 and {total for _, total in host.progress} == {11}
    seen = [(kind, picture.size, side) for kind, picture, side in host.pictures]
    assert len(seen) >= 5 and set(seen) == {("JPEG", (WIDTH, HEIGHT), WIDTH)}
    host.pictures.clear()
    run(torch.rand(1, 8, 3000, 3).expand(2, -1, -1, -1))
    (_, picture, side) = host.pictures[0]
    assert picture.size == (600, 2) and side == 600


def test_the_bar_moves_within_a_slow_frame(
    run: Run, host: FakeHost, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part("nodes.host"), "SLOW_STEP", 0.0)
    run(video[:2])
    within = [value for value, _ in host.progress if 0 < value < 3 and value != math.floor(value)]
    assert len(within) >= 3 and within == sorted(within)


def test_cancel_within_a_frame(run: Run, host: FakeHost, video: Tensor, calls: list[str]) -> None:
    checks = [0]

    def cancel_in_the_middle() -> None:
        checks[0] += 1
        host.interrupt = calls.count("midpoint") == 1

    host.on_check = cancel_in_the_middle
    with pytest.raises(Interrupted):
        run(video)
    assert calls.count("midpoint") == 1
    host.on_check = lambda: None
    assert len(run(video)) == 11


def test_progress_and_time_left_are_logged(
    run: Run, video: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(part("nodes.run"), "_LOG_PAUSE", 0.0)
    caplog.set_level("INFO")
    run(video)
    lines = [record.getMessage() for record in caplog.records]
    assert any("of 11 frames" in line and "frames per second" in line and "left" in line for line in lines)
    assert "11 frames in" in lines[-1]


def test_a_result_that_cannot_fit_is_refused_before_the_work(
    run: Run, host: FakeHost, video: Tensor, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr(part("nodes.host"), "swap_memory", lambda: 0)
    host.free["cpu"] = 11 * HEIGHT * WIDTH * 3 * 4 - 1
    with pytest.raises(ValueError, match=r"^The result takes .* Meta Batch Manager.*\.$"):
        run(video)
    assert not calls and host.loads == []


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"mode": "faster"}, "mode must be multiplier or target fps"),
        ({"multiplier": 0}, "multiplier must be a whole number between 1 and 1024"),
        ({"multiplier": 2.5}, "multiplier must be"),
        ({"source_fps": "fast"}, "source_fps must be frames per second between 0.001 and 100000"),
        ({"source_fps": "0"}, "source_fps must be"),
        ({"mode": "target fps", "target_fps": math.inf}, "target_fps must be"),
        ({"mode": "target fps", "target_fps": "1/0"}, "target_fps must be"),
        ({"mode": "target fps", "source_fps": 1, "target_fps": 5000}, "1024 times as high at most"),
        ({"quality": "best"}, "quality must be fast, balanced, quality or custom"),
        ({"scene_cut": 2.0}, "scene_cut must be a number between 0"),
        ({"scene_cut": math.nan}, "scene_cut must be a number between 0"),
        ({"still_threshold": -0.1}, "still_threshold must be"),
        ({"multipliers": "2,,x"}, "multipliers must be whole numbers such as"),
        ({"multipliers": "0"}, "each of multipliers must be"),
        ({"interpolation_states": 3}, "interpolation_states must come from"),
        ({"schedule": "999"}, "schedule must be a list of timesteps"),
        ({"schedule": [999, 1.5, 0]}, "each timestep of schedule must be"),
        ({"batch_size": 65}, "batch_size must be a whole number between 0 and 64"),
        ({"quality": "custom", "sample_steps": 11, "schedule": None}, "sample_steps must be 10, 20 or 50"),
        ({"quality": "custom", "flow_scale": 0.05}, "flow_scale"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_inputs_are_one_sentence(
    run: Run, host: FakeHost, video: Tensor, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,400}\.$") as raised:
        run(video, **inputs)
    assert words in str(raised.value)
    assert host.loads == [] and host.progress == []


def test_qualities_are_the_presets(run: Run, video: Tensor) -> None:
    presets = part("tlbvfi.settings").presets()
    for name, preset in presets.items():
        custom = {"quality": "custom", "sample_steps": preset.sample_steps, "flow_scale": preset.flow_scale}
        named, itself = (run(video[:2], schedule=None, **given) for given in ({"quality": name}, custom))
        assert torch.equal(named, itself)


def test_a_schedule_is_used(run: Run, video: Tensor) -> None:
    assert torch.equal(
        run(video[:2], schedule=part("tlbvfi.bridge").Schedule(PARAMS.bridge).timesteps(20)),
        run(video[:2], quality="custom", sample_steps=20, schedule=None),
    )


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (24, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (23.976023976023978, Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("119.88", Fraction(120000, 1001)),
        ("24000/1001", Fraction(24000, 1001)),
        (" 24000 / 1001 ", Fraction(24000, 1001)),
        ("12.5", Fraction(25, 2)),
        (16.0, Fraction(16)),
        (0.1, Fraction(1, 10)),
        (Fraction(2997, 100), Fraction(2997, 100)),
        (torch.tensor(25.0), Fraction(25)),
    ],
)
def test_rates_are_exact(loaded_pack: ModuleType, given: Any, rate: Fraction) -> None:
    assert part("tlbvfi.numbers").frame_rate("fps", given) == rate


@pytest.mark.parametrize("given", ["", "abc", "1/0", "-24", "1e3", "nan", None, True, -1, math.nan, 1e9, [24], "0/5"])
def test_what_is_no_rate(loaded_pack: ModuleType, given: Any) -> None:
    with pytest.raises(ValueError, match=r"^fps must be frames per second between .*\.$"):
        part("tlbvfi.numbers").frame_rate("fps", given)

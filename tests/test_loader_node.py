"""The model loader, and its model in ComfyUI's own interpolation node, of which a stand-in keeps the contract."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost, Interrupted
from tests.smallest import save_smallest
from tests.test_nodes import OFF, ON, flags
from tests.tiny import frames

NAME = "tlbvfi-pack-of-test-loader"
MODEL = "tiny.safetensors"
HEIGHT, WIDTH = 24, 40
OutOfMemory = torch.cuda.OutOfMemoryError


def frame_interpolate(
    interp_model: Any,
    images: Tensor,
    multiplier: int,
    *,
    asks_memory: bool = True,
    several: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """What ComfyUI's node asks of a model, and what it makes of the answers.

    Args:
        asks_memory: whether it asks the model for its memory; the first version did not.
        several: whether it asks for several timesteps at once, as it does of models that can.
        dtype: of the result (ComfyUI's `intermediate_dtype`).
    """
    management: Any = sys.modules["comfy.model_management"]
    if len(images) < 2:
        return images
    network, height, width = interp_model.model, *images.shape[1:3]
    frame_dtype = interp_model.model_dtype()
    needed = network.memory_used_forward(images.shape, frame_dtype) if asks_memory else 0
    management.load_models_gpu([interp_model], memory_required=needed)
    multiple = getattr(network, "pad_align", 1)

    def uploaded(image: Tensor) -> Tensor:
        frame = image[None].movedim(-1, 1).to(device=interp_model.load_device, dtype=frame_dtype)
        missing = (-width % multiple, -height % multiple)
        return torch.nn.functional.pad(frame, (0, missing[0], 0, missing[1]), mode="reflect") if any(missing) else frame

    times = [k / multiplier for k in range(1, multiplier)]
    together = len(times)
    before, cache, shown = uploaded(images[0]), dict[str, Any](), [images[0].to(dtype)]
    maps = torch.tensor(times, dtype=frame_dtype).reshape(-1, 1, 1, 1).expand(-1, 1, *before.shape[2:])
    for image in images[1:]:
        after = uploaded(image)
        cache["img0"] = cache.pop("next") if "next" in cache else network.extract_features(before)
        cache["img1"] = cache["next"] = network.extract_features(after)
        new: list[Tensor] = []
        if several:
            try:
                new.extend(network.forward_multi_timestep(before, after, times, cache=cache))
            except management.OOM_EXCEPTION:
                several = False
        while len(new) < len(times):
            some = maps[len(new) : len(new) + together]
            ends = (end.expand(len(some), -1, -1, -1) for end in (before, after))
            try:
                new.extend(network(*ends, timestep=some, cache=cache))
            except management.OOM_EXCEPTION:
                if together == 1:
                    raise
                together //= 2
        shown += [frame[:, :height, :width].movedim(0, -1).to(dtype) for frame in new]
        shown.append(image.to(dtype))
        before = after
    return torch.stack(shown).clamp(0.0, 1.0)


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's `models`, with a very small model and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "interpolation").mkdir()
    save_smallest(folder / "interpolation" / MODEL)
    (folder / "interpolation" / "corrupt.pth").write_bytes(bytes(range(256)) * 16)
    return folder


@pytest.fixture(scope="module")
def loaded_pack(models_folder: Path) -> Iterator[ModuleType]:
    with fake_host.loaded_pack(NAME, models_folder) as pack:
        yield pack


@pytest.fixture
def host(loaded_pack: ModuleType, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    return fake_host.install(FakeHost(models_folder), monkeypatch)


def part(name: str) -> Any:
    """A module of the loaded pack."""
    return sys.modules[f"{NAME}.{name}"]


Loader = Callable[..., Any]


@pytest.fixture
def load(loaded_pack: ModuleType, host: FakeHost) -> Loader:
    """Run the loader; inputs that are not given have their defaults."""
    node = loaded_pack.NODE_CLASS_MAPPINGS["TLBVFI_ModelLoader"]
    declared = node.INPUT_TYPES()["required"]
    defaults = {name: options["default"] for name, (_, options) in declared.items() if "default" in options}

    def load(**inputs: Any) -> Any:
        with torch.inference_mode():
            (model,) = getattr(node(), node.FUNCTION)(
                **{"model_name": MODEL, **defaults, "quality": "custom", **inputs}
            )
        return model

    return load


def run(*arguments: Any, **keywords: Any) -> Tensor:
    """The stand-in as ComfyUI runs a node."""
    with torch.inference_mode():
        return frame_interpolate(*arguments, **keywords)


@pytest.fixture(scope="module")
def model(loaded_pack: ModuleType, models_folder: Path) -> Any:
    """The same model, for the library."""
    return part("tlbvfi").load_model(models_folder / "interpolation" / MODEL)


@pytest.fixture(scope="module")
def expected(model: Any) -> Callable[..., Tensor]:
    """What the library gives for a video, each pair alone."""

    def expected(images: Tensor, multiplier: int, **settings: Any) -> Tensor:
        tlbvfi = part("tlbvfi")
        timeline, settings = tlbvfi.Multiplier(multiplier), tlbvfi.Settings(**settings)
        shown = [images[0]]
        for index in range(len(images) - 1):
            pair = tlbvfi.interpolate.interpolate_timeline(model, images[index : index + 2], timeline, settings)
            shown += [output.frame for output in pair][1:]
        return torch.stack(shown)

    return expected


def video(count: int = 3, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """(N, H, W, 3)"""
    return torch.stack(frames(count, height, width))


class Calls:
    """The model's calls, which may be refused memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.refuse: Callable[[int, Any], bool] = lambda number, strips: False
        for name in ("encode_frame", "midpoint"):
            monkeypatch.setattr(part("tlbvfi").TLBVFI, name, self.watched(name))

    def watched(self, name: str) -> Callable[..., Any]:
        method = getattr(part("tlbvfi").TLBVFI, name)

        def call(model: Any, *arguments: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            strips = keywords.get("strips") or next((a for a in arguments if hasattr(a, "frugal")), None)
            if self.refuse(len(self.calls), strips):
                raise OutOfMemory("no")
            return method(model, *arguments, **keywords)

        return call


@pytest.fixture
def watch(loaded_pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


# Frames


@pytest.mark.parametrize("multiplier", [2, 4, 8, 16])
def test_powers_of_two_are_the_library_s_frames(load: Loader, model: Any, multiplier: int) -> None:
    images = video(3 if multiplier < 8 else 2)
    pairs = len(images) - 1
    result = run(load(), images, multiplier)
    assert result.shape == (pairs * multiplier + 1, HEIGHT, WIDTH, 3) and result.dtype == torch.float32
    assert torch.equal(result[::multiplier], images)
    times = multiplier.bit_length() - 1
    for index in range(pairs):
        pair = list(part("tlbvfi").interpolate_frames(model, images[index : index + 2], times))
        assert torch.equal(result[index * multiplier : (index + 1) * multiplier + 1], torch.stack(pair))


@pytest.mark.parametrize("multiplier", [3, 7, 15])
def test_others_are_the_nearest_that_bisection_makes(load: Loader, expected: Loader, multiplier: int) -> None:
    images = video(3 if multiplier == 3 else 2)
    assert torch.equal(run(load(), images, multiplier), expected(images, multiplier))


@pytest.mark.parametrize("size", [(1, 1), (2, 70), (63, 65), (64, 64)])
def test_any_size(load: Loader, expected: Loader, size: tuple[int, int]) -> None:
    """Smaller than the padding too, where the contract's own padding by reflection would fail."""
    images = video(2, *size)
    assert torch.equal(run(load(), images, 4), expected(images, 4))


def test_one_frame_and_none_are_left_alone(load: Loader, watch: Calls) -> None:
    assert torch.equal(run(load(), video(1), 2), video(1))
    assert watch.calls == []


def test_the_first_version_does_not_ask_for_memory(load: Loader, host: FakeHost) -> None:
    assert torch.equal(run(load(), video(), 2, asks_memory=False), run(load(), video(), 2))
    assert host.loads[1][1] > 0  # the weights come with room for a run all the same


def test_settings_reach_the_model(load: Loader, expected: Loader) -> None:
    settings = {"seed": 2**64 - 1, "flow_scale": 1.0, "sample_steps": 20}
    images = video(2)
    result = run(load(**settings), images, 2)
    assert torch.equal(result, expected(images, 2, **settings))
    default = run(load(), images, 2)
    for name, value in settings.items():
        assert not torch.equal(run(load(**{name: value}), images, 2), default), name


def test_pairs_alike_have_frames_alike(load: Loader) -> None:
    """No gap's number is known, so it cannot make a difference."""
    first, second = video(2)
    result = run(load(), torch.stack([first, second, first, second]), 2)
    assert torch.equal(result[1], result[5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(load: Loader, models_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Frames are handed over in float32 whatever the weights are."""
    monkeypatch.setattr(part("nodes.host"), "precision", lambda device, use_fp16: dtype)
    images = video(2)
    interp_model = load()
    assert interp_model.model_dtype() == torch.float32
    tlbvfi = part("tlbvfi")
    half = tlbvfi.load_model(models_folder / "interpolation" / MODEL, dtype=dtype)
    assert torch.equal(run(interp_model, images, 2), torch.stack(list(tlbvfi.interpolate_frames(half, images))))


def test_results_in_half_precision(load: Loader) -> None:
    whole, half = run(load(), video(), 4), run(load(), video(), 4, dtype=torch.float16)
    assert torch.equal(whole.half(), half)


# The methods, called by others


@pytest.fixture
def network(load: Loader) -> Any:
    return load().model


def pair_of(count: int = 1) -> tuple[Tensor, Tensor]:
    """`count` pairs of frames, (count, 3, H, W) each."""
    images = video(count + 1).movedim(-1, 1)
    return images[:-1], images[1:]


def test_the_half_way_frame_without_a_cache(network: Any, expected: Loader) -> None:
    """Of a batch, each pair as if it were alone."""
    result = network(*pair_of(2))
    assert result.shape == (2, 3, HEIGHT, WIDTH)
    assert torch.equal(result.movedim(1, -1), expected(video(), 2)[1::2])


def test_timesteps_in_any_order_and_twice(network: Any) -> None:
    ends = pair_of()
    result = network.forward_multi_timestep(*ends, [0.75, 0.25, 1, 0.75, 0])
    assert torch.equal(result[0], network(*ends, timestep=0.75)[0])
    assert torch.equal(result[0], result[3]) and not torch.equal(result[0], result[1])
    assert torch.equal(result[2], ends[1][0]) and torch.equal(result[4], ends[0][0])


@pytest.mark.parametrize(
    "timestep", [torch.tensor(0.25), torch.tensor([0.25]), torch.full((1, 1, HEIGHT, WIDTH), 0.25)]
)
def test_timesteps_as_tensors(network: Any, timestep: Tensor) -> None:
    assert torch.equal(network(*pair_of(), timestep=timestep), network(*pair_of(), timestep=0.25))


def test_frames_in_half_precision_come_back_so(network: Any) -> None:
    result = network(*(end.half() for end in pair_of()))
    assert result.dtype == torch.float16 and torch.isfinite(result).all()


def test_nothing_has_a_gradient(network: Any) -> None:
    with torch.enable_grad():
        ends = [end.clone().requires_grad_() for end in pair_of()]
        assert not network(*ends).requires_grad


@pytest.mark.parametrize("time", [-0.1, 1.01, float("nan")])
def test_impossible_timesteps(network: Any, watch: Calls, time: float) -> None:
    with pytest.raises(ValueError, match="A timestep must be between 0 and 1"):
        network.forward_multi_timestep(*pair_of(), [0.5, time])
    assert watch.calls == []


@pytest.mark.parametrize(
    ("shape", "other"), [((1, 4, 8, 8), None), ((2, 3, 8, 8), None), ((3, 8, 8), None), ((1, 3, 8, 8), (1, 3, 8, 9))]
)
def test_impossible_frames(network: Any, shape: tuple[int, ...], other: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match=r"Both frames must be RGB, \(1, 3, height, width\) of one size"):
        network.forward_multi_timestep(torch.zeros(shape), torch.zeros(other or shape), [0.5])
    with pytest.raises(ValueError, match=r"floating point in \[0, 1\], not torch.uint8"):
        network(*(torch.zeros(1, 3, 8, 8, dtype=torch.uint8),) * 2)


def test_features_the_other_way_round(network: Any, watch: Calls) -> None:
    """What is kept of a frame serves it as either end; what was used up is computed again."""
    first, second = pair_of()
    one, other = (network.extract_features(frame) for frame in (first, second))
    there = network(first, second, cache={"img0": one, "img1": other})
    assert watch.calls.count("encode_frame") == 2
    back = network(second, first, cache={"img0": other, "img1": one})
    assert watch.calls.count("encode_frame") == 3
    assert torch.equal(back, network(second, first)) and not torch.equal(there, back)
    assert torch.equal(network(first, second, cache={"img0": one, "img1": other}), there)
    assert torch.equal(network(first, second, cache={"img0": one, "img1": other}), there)


def test_features_of_another_size_are_not_used(network: Any) -> None:
    small = [end[:, :, :8, :8] for end in pair_of()]
    cache = {"img0": network.extract_features(small[0]), "img1": network.extract_features(small[1])}
    network(*small, cache=cache)
    mixed = {"img0": cache["img1"], "img1": network.extract_features(pair_of()[1])}
    assert torch.equal(network(*pair_of(), cache=mixed), network(*pair_of()))


# Work


@pytest.mark.parametrize(("multiplier", "new", "encoded"), [(2, 1, 0), (4, 3, 1), (3, 7, 5)])
def test_each_frame_is_encoded_once(load: Loader, watch: Calls, multiplier: int, new: int, encoded: int) -> None:
    """And what several new frames of a pair have in common is computed once.

    Args:
        new: frames that are computed between two source frames.
        encoded: those of them that others are computed of.
    """
    run(load(), video(4), multiplier)
    assert watch.calls.count("midpoint") == 3 * new
    assert watch.calls.count("encode_frame") == 4 + 3 * encoded


def test_one_timestep_at_a_time(load: Loader) -> None:
    """As for a model that cannot do several at once."""
    assert torch.equal(run(load(), video(), 4, several=False), run(load(), video(), 4))


def test_the_weights_serve_every_loader(load: Loader) -> None:
    part("nodes.models").loaded.clear()
    first, second = load(seed=1), load(seed=2)
    assert len(part("nodes.models").loaded) == 1
    assert first.model is not second.model
    assert not list(first.model.parameters())  # ComfyUI counts weights by module: these belong to one of all loaders
    runs = [run(each, video(2), 2) for each in (first, second, first)]
    assert torch.equal(runs[0], runs[2]) and not torch.equal(runs[0], runs[1])


def test_tf32_holds_while_the_model_computes(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    midpoint = part("tlbvfi").TLBVFI.midpoint
    monkeypatch.setattr(part("tlbvfi").TLBVFI, "midpoint", lambda *a, **k: seen.append(flags()) or midpoint(*a, **k))
    before = flags()
    for enabled in (True, False):
        run(load(enable_tf32=enabled), video(2), 2)
    assert seen == [ON, OFF] and flags() == before


# Memory


def test_room_is_asked_for(load: Loader, host: FakeHost, model: Any) -> None:
    needed = load().model.memory_used_forward((7, HEIGHT, WIDTH, 3), torch.float32)
    plan = part("tlbvfi").plan(HEIGHT, WIDTH, torch.float32, params=model.params, device=torch.device("cpu"))
    assert needed == plan.peak_bytes - plan.weight_bytes + 2 * HEIGHT * WIDTH * 3 * 4
    run(load(), video(), 2)
    (_, asked, _), (device, besides, whole) = host.loads
    assert (asked, besides) == (needed, plan.peak_bytes - plan.weight_bytes)
    assert device.type == "cpu" and whole  # never a part of the weights


def test_what_does_not_fit_is_said_before_any_work(load: Loader, host: FakeHost, watch: Calls) -> None:
    host.free["cpu"] = 0
    with pytest.raises(ValueError, match="40x24 at flow scale 0.5 in float32 needs"):
        run(load(), video(), 2)
    assert watch.calls == [] and host.loads == []


def test_weights_that_left_come_again(load: Loader, host: FakeHost, watch: Calls, monkeypatch: Any) -> None:
    """As between two pairs, where the caller runs other models meanwhile."""
    whole = run(load(), video(), 2)
    interp_model, calls = load(), len(watch.calls)
    monkeypatch.setattr(part("nodes.host").ManagedModel, "ready", property(lambda self: False))
    host.loads.clear()
    assert torch.equal(run(interp_model, video(), 2), whole)
    assert len(host.loads) == 1 + 2
    assert watch.calls[calls:].count("encode_frame") == 4


@pytest.fixture
def tall() -> Tensor:
    """Two frames that can be cut into strips."""
    return video(2, 200, 40)


def test_short_memory_is_dealt_with_in_strips(load: Loader, watch: Calls, tall: Tensor) -> None:
    whole = run(load(), tall, 4)
    watch.refuse = lambda number, strips: not strips.frugal
    interp_model = load()
    interp_model.model.forward = None  # the caller sees nothing of it
    result = run(interp_model, tall, 4)
    torch.testing.assert_close(result, whole, atol=2e-3, rtol=0)
    assert torch.equal(result[::4], tall)


def test_pieces_stay_small_for_the_pairs_after(load: Loader, watch: Calls) -> None:
    images, refused = video(4, 200, 40), []
    watch.refuse = lambda number, strips: not strips.frugal and not refused.append(number)
    run(load(), images, 2)
    assert len(refused) == 1


def test_too_little_for_the_smallest_pieces(load: Loader, watch: Calls, tall: Tensor) -> None:
    watch.refuse = lambda number, strips: True
    with pytest.raises(RuntimeError, match="40x200 does not fit the memory of cpu"):
        run(load(), tall, 4)
    watch.refuse = lambda number, strips: False
    assert run(load(), tall, 4).shape[0] == 5


@pytest.mark.parametrize("most", [1, 3])
def test_a_caller_that_halves_gets_the_same_frames(load: Loader, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Refused all timesteps at once, it asks for fewer, down to one."""
    images, asked = video(2), list[int]()
    whole = run(load(), images, 8)
    interp_model = load()
    several = interp_model.model.forward_multi_timestep

    def refusing(img0: Tensor, img1: Tensor, timesteps: list[float], cache: Any = None) -> Tensor:
        asked.append(len(timesteps))
        if len(timesteps) > most:
            raise OutOfMemory("no")
        return several(img0, img1, timesteps, cache)

    interp_model.model.forward_multi_timestep = refusing
    assert torch.equal(run(interp_model, images, 8), whole)
    assert asked[:3] == [7, 7, 3] and sum(count for count in asked if count <= most) == 7


def test_nothing_is_left_after_a_run(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[weakref.ref[Any]] = []
    pairwise = part("tlbvfi.pairwise")
    made = pairwise.TimelineRun

    def noted(*arguments: Any) -> Any:
        begun = made(*arguments)
        runs.append(weakref.ref(begun))
        return begun

    monkeypatch.setattr(pairwise, "TimelineRun", noted)
    interp_model = load()
    run(interp_model, video(), 2)
    gc.collect()
    assert len(runs) == 1 and runs[0]() is None
    weights = weakref.ref(interp_model.model)
    del interp_model
    gc.collect()
    assert weights() is None


# Cancelling


@pytest.mark.parametrize("check", [1, 2, 3, 5, 8])
def test_cancel_takes_effect_before_the_next_call(load: Loader, host: FakeHost, watch: Calls, check: int) -> None:
    whole = run(load(), video(), 4)
    interp_model, calls = load(), len(watch.calls)
    checks: list[None] = []

    def on_check() -> None:
        checks.append(None)
        host.interrupt = len(checks) == check

    host.on_check = on_check
    with pytest.raises(Interrupted):
        run(interp_model, video(), 4)
    assert len(watch.calls) - calls == check - 1
    host.on_check = lambda: None
    assert torch.equal(run(interp_model, video(), 4), whole)


# The node


def test_the_node_is_refused_and_run_again_as_the_interpolator(loaded_pack: ModuleType, host: FakeHost) -> None:
    loader, interpolator = (
        loaded_pack.NODE_CLASS_MAPPINGS[key] for key in ("TLBVFI_ModelLoader", "TLBVFI_Interpolator_V2")
    )
    assert loader.VALIDATE_INPUTS(model_name=MODEL) is True
    assert "gone.pth" in loader.VALIDATE_INPUTS(model_name="gone.pth")
    for name in (MODEL, "gone.pth", None):
        assert loader.VALIDATE_INPUTS(model_name=name) == interpolator.VALIDATE_INPUTS(model_name=name)
        assert loader.IS_CHANGED(model_name=name, seed=1) == interpolator.IS_CHANGED(model_name=name)


def test_the_socket_is_the_core_node_s(loaded_pack: ModuleType) -> None:
    assert loaded_pack.NODE_CLASS_MAPPINGS["TLBVFI_ModelLoader"].RETURN_TYPES == ("INTERP_MODEL",)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"model_name": "gone.pth"}, "gone.pth"),
        ({"model_name": "corrupt.pth"}, "corrupt.pth"),
        ({"sample_steps": 11}, "sample_steps must be"),
        ({"flow_scale": 0.05}, "flow_scale must be between"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_impossible_inputs(load: Loader, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        load(**inputs)
    assert "\n" not in str(raised.value)


def test_places_are_within_a_32nd(loaded_pack: ModuleType) -> None:
    place = part("tlbvfi.pairwise")._place
    for multiplier in range(2, 17):
        for k in range(1, multiplier):
            there, wanted = place(k / multiplier), Fraction(k, multiplier)
            assert abs(there - wanted) <= Fraction(1, 32)
            assert there == wanted or multiplier.bit_count() > 1

"""Any pictures and any values of widgets, beside a stand-in for ComfyUI: the frames that are meant, or one sentence."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost
from tests.fuzz import cases
from tests.fuzz.stand_in import stand_in_methods
from tests.smallest import save_smallest

NAME = "tlbvfi-pack-of-fuzzed-nodes"
MODEL = "tiny.safetensors"
HALVES = torch.float16, torch.bfloat16


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The pack beside a fake ComfyUI, with a model whose new frames are means."""
    models = tmp_path_factory.mktemp("models")
    (models / "interpolation").mkdir()
    save_smallest(models / "interpolation" / MODEL)
    with fake_host.loaded_pack(NAME, models) as pack, pytest.MonkeyPatch.context() as patch:
        host = FakeHost(models, temp=tmp_path_factory.mktemp("temp"))
        fake_host.install(host, patch)
        patch.setattr(part("nodes.host"), "gc", SimpleNamespace(collect=lambda: None))
        for name, method in stand_in_methods(part("tlbvfi.features").FrameFeatures).items():
            patch.setattr(part("tlbvfi").TLBVFI, name, method)
        need = part("tlbvfi.footprint").Need(2**20, 2**20, 2**20)  # to count it takes longer than a run
        patch.setattr(part("tlbvfi.planning"), "need", lambda way: need)
        patch.setattr(part("tlbvfi.planning"), "weight_bytes", lambda *_: 2**19)
        yield pack


def part(name: str) -> Any:
    """A module of the loaded pack."""
    return sys.modules[f"{NAME}.{name}"]


@dataclass(frozen=True)
class Given:
    """A value of an input, and whether it can be used."""

    value: Any
    good: bool

    def __repr__(self) -> str:
        value = self.value
        shown = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)
        return f"{'good' if self.good else 'bad'} {shown}"


def good(value: Any) -> Given:
    return Given(value, True)


def bad(value: Any) -> Given:
    return Given(value, False)


def mostly(fine: st.SearchStrategy[Any], *wrong: Any) -> st.SearchStrategy[Given]:
    """Values that can be used, and now and then one that cannot."""
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(wrong).map(bad) if n == 0 else fine.map(good))


def whole(lowest: int, highest: int) -> st.SearchStrategy[Given]:
    """Of a widget for whole numbers; nodes that compute give floats."""
    fine = st.integers(lowest, highest)
    huge = 10**400 if highest < 2**64 else -1
    wrong = (
        lowest - 1,
        highest + 1,
        huge,
        0.5,
        math.nan,
        math.inf,
        None,
        "1",
        True,
        False,
        [1],
        torch.tensor([0.5, 2.0]),
    )
    return mostly(st.one_of(fine, fine.filter(lambda n: n < 2**53).map(float)), *wrong)


OUTSIDE = (math.nan, math.inf, -math.inf, -0.51, 1.51, -1e30, 1e30, -3.4e38, 255.0, -1.0)
INSIDE = (0.0, 1.0, -0.49, 1.49, 1e-40, -0.0)
_SHAPES = ((1, 5, 6, 2), (1, 5, 6, 5), (1, 0, 6, 3), (1, 5, 0, 3), (0, 5, 6, 3), (5, 6, 3), (1, 1, 5, 6, 3), (3,), ())


@st.composite
def images(draw: st.DrawFn, most: int) -> Given:
    """A batch of pictures."""
    if draw(st.integers(0, 11)) == 0:
        some = torch.zeros(2, 5, 6, 3)
        wrong = [some.to(torch.uint8), some.bool(), some.to(torch.complex64), some.to("meta"), some.to_sparse()]
        wrong += [torch.zeros(draw(st.sampled_from(_SHAPES))), None, [some[0]], "images", 3]  # type: ignore[list-item]
        return bad(draw(st.sampled_from(wrong)))
    count, height, width = draw(st.integers(1, most)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 7, 64, 65]))
    shape = (count, height, width, draw(st.sampled_from([1, 3, 3, 4])))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, *HALVES]))
    seed = draw(st.integers(0, 99))
    pictures = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    value = draw(st.one_of(st.none(), st.sampled_from([*INSIDE, *INSIDE, *OUTSIDE])))
    if value is not None:
        pictures.view(-1)[draw(st.integers(0, pictures.numel() - 1))] = value
    layout = draw(st.sampled_from(["plain", "plain", "turned", "mirrored"]))
    pictures = pictures.to(dtype)
    if layout == "turned":
        pictures = pictures.transpose(1, 2)
    elif layout == "mirrored":
        pictures = pictures.expand(2, *shape)[1].flip(2)
    return Given(pictures, value not in OUTSIDE)


def rgb(pictures: Tensor) -> Tensor:
    """What the frames of a batch look like in a result."""
    clamped = pictures.float().clamp(0, 1)
    return clamped.expand(*clamped.shape[:-1], 3) if clamped.shape[-1] == 1 else clamped[..., :3]


settings = {
    "sample_steps": mostly(st.sampled_from([10, 20, 50, 10.0]), 0, 3, 11, True, "10", None, math.nan),
    "flow_scale": mostly(
        st.sampled_from([0.1, 0.5, 1.0, 1]), 0.0, 0.05, 1.01, -1, math.nan, math.inf, "0.5", None, [0.5], True, False
    ),
    "seed": whole(0, 2**64 - 1),
    "gpu_id": mostly(st.just(0), 1, -1, 99, 0.5, None, "0", True, math.nan),
    "schedule": mostly(
        st.sampled_from([None, [999, 1, 0], (5, 0), [0], [2.0, 0]]), [], [0, 1], [1000, 0], [5, 5, 0], "999", 3,
        [1.5, 0], [None], [True, False], {"a": 1},
    ),
    "use_fp16": st.booleans().map(good),
    "enable_tf32": st.booleans().map(good),
    "cpu_offload": st.booleans().map(good),
    "model_name": mostly(st.just(MODEL), "none.pth", "", None, 3, "../x.safetensors"),
}  # fmt: skip
#: A node that older graphs have takes their numbers of steps.
of_before = settings | {
    "sample_steps": mostly(st.sampled_from([10, 20, 50, 10.0, 3, 11]), 0, 2, 501, True, "10", None, math.nan)
}


def tried(call: Callable[[], Any], inputs: dict[str, Given]) -> Any:
    """What a node gives for good inputs; None where one is bad, and it says so in one sentence."""
    if all(each.good for each in inputs.values()):
        return call()
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    text = str(raised.value)
    assert text and len(text.splitlines()) == 1 and len(text) < 600, text
    assert text.endswith(".") and type(raised.value).__name__ in ("ValueError", "CheckpointError"), text
    return None


def with_quality(inputs: dict[str, Given]) -> dict[str, Given]:
    """The same where a preset decides: then what it stands for is not looked at."""
    if inputs["quality"].good and inputs["quality"].value != "custom":
        ignored = ("sample_steps", "flow_scale")
        return {name: good(each.value) if name in ignored else each for name, each in inputs.items()}
    return inputs


@cases(8)
@given(
    first=images(3),
    second=st.one_of(st.none(), st.none(), images(3)),
    times=whole(0, 4),
    quality=mostly(st.sampled_from(["fast", "balanced", "quality", "custom", "custom"]), "best", "", None, 1, True),
    widgets=st.fixed_dictionaries(of_before),
)
@example(first=bad(torch.full((1, 2, 2, 3), -1e30)), second=None, times=good(1), quality=good("fast"), widgets={})
@example(first=bad(torch.full((1, 2, 2, 3), -0.6)), second=None, times=good(1), quality=good("fast"), widgets={})
@example(first=good(torch.full((1, 2, 2, 3), 1.4)), second=None, times=good(1), quality=good("fast"), widgets={})
@example(first=good(torch.zeros(1, 1, 1, 1)), second=None, times=good(0), quality=good("custom"),
         widgets={"flow_scale": bad(True)})  # fmt: skip
@example(first=good(torch.zeros(1, 2, 2, 3)), second=None, times=bad(True), quality=good("fast"), widgets={})
@example(first=good(torch.zeros(1, 2, 2, 3)), second=None, times=bad(math.inf), quality=good("fast"), widgets={})
def test_pairs(
    pack: ModuleType, first: Given, second: Given | None, times: Given, quality: Given, widgets: dict[str, Given]
) -> None:
    defaults = {"sample_steps": 10, "flow_scale": 0.5, "seed": 0, "gpu_id": 0, "model_name": MODEL}
    widgets = {**{name: good(value) for name, value in defaults.items()}, **widgets}
    widgets = {**dict.fromkeys(("use_fp16", "enable_tf32", "cpu_offload"), good(True)), **widgets}
    after = first.value if second is None else second.value
    inputs = with_quality({"prev_frame": first, "quality": quality, "times_to_interpolate": times, **widgets})
    alike = second is None or (first.good and second.good and first.value.shape[:3] == after.shape[:3])
    inputs["next_frame"] = Given(after, (second is None or second.good) and alike)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]()
    result = tried(lambda: node.interpolate(**{name: each.value for name, each in inputs.items()}), inputs)
    if result is None:
        return
    (frames,) = result
    before, after = rgb(first.value), rgb(after)
    count = int(times.value)
    shown = 2**count + 1 if count else 1
    assert frames.shape == (len(before) * shown, *before.shape[1:]) and frames.dtype == torch.float32
    assert 0 <= float(frames.min()) <= float(frames.max()) <= 1
    if count:
        assert torch.equal(frames[::shown], before) and torch.equal(frames[shown - 1 :: shown], after)
    middle = frames[shown // 2 :: shown]
    assert (middle - (before + after) / 2).abs().max() < 0.1


def test_a_pair_has_the_noise_of_its_number_whatever_came_before(pack: ModuleType) -> None:
    a, b, c, d = torch.rand(4, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]()
    results = []
    for second in (b, c):  # a cut after the first pair, and none
        pairs = torch.stack([a, c]), torch.stack([second, d])
        (frames,) = node.interpolate(*pairs, MODEL, 1, True, True, 10, 0.5, True, 0, 0)
        results.append(frames[3:])
    assert torch.equal(*results)


@pytest.mark.parametrize("name", ["scene_cut", "still_threshold"])
@pytest.mark.parametrize("value", [True, False])
def test_a_share_is_no_boolean(pack: ModuleType, name: str, value: bool) -> None:
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_VideoInterpolator"]()
    with pytest.raises(ValueError, match=f"^{name} must be a number"):
        node.interpolate(torch.zeros(2, 2, 2, 3), MODEL, **{name: value})


rates = mostly(
    st.sampled_from(["24", 24, 25.0, "24000/1001", 29.97, "1/2", Fraction(12), "60", 59.94]),
    0, -1, "0", "a", "", None, math.nan, math.inf, "1/0", True, [24], "1e3", 10**400,
)  # fmt: skip


def shares(highest: float) -> st.SearchStrategy[Given]:
    """Of a widget from 0 on."""
    return mostly(st.sampled_from([0, 0.0, highest / 2, highest]), -0.1, 1.5, math.nan, "0", None, True, False, [0])


@cases(8)
@given(
    pictures=images(5),
    mode=mostly(st.sampled_from(["multiplier", "target fps"]), "fps", "", None, 0, True),
    quality=mostly(st.sampled_from(["fast", "balanced", "custom"]), "best", None, True),
    ends=st.tuples(st.booleans(), st.booleans()),
    widgets=st.fixed_dictionaries(
        {
            **settings,
            "source_fps": rates,
            "target_fps": rates,
            "multiplier": whole(1, 1024).filter(lambda each: not each.good or each.value <= 9),
            "batch_size": whole(0, 64),
            "scene_cut": shares(1.0),
            "still_threshold": shares(0.1),
            "multipliers": mostly(
                st.sampled_from(["", "1", "2, 3", "4;1 2", [], [3, 1], 2, 2.0, (1,)]),
                "a", "0", "-1", "1.5", "2000", "9" * 30, [0], [None], [True], None, 1.5, {}, True, math.nan,
            ),
        }
    ),
)  # fmt: skip
def test_videos(
    pack: ModuleType,
    pictures: Given,
    mode: Given,
    quality: Given,
    ends: tuple[bool, bool],
    widgets: dict[str, Given],
) -> None:
    inputs = with_quality({"images": pictures, "mode": mode, "quality": quality, **widgets})
    source, target = widgets["source_fps"], widgets["target_fps"]
    exact = part("tlbvfi.numbers").frame_rate
    ratio = Fraction(1)
    if mode.value == "multiplier":
        inputs["target_fps"] = good(target.value)
    elif mode.value == "target fps":
        inputs |= {name: good(inputs[name].value) for name in ("multiplier", "multipliers")}
        if source.good and target.good:
            ratio = exact("target", target.value) / exact("source", source.value)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_VideoInterpolator"]()
    given_values = {name: each.value for name, each in inputs.items()}
    result = tried(lambda: node.interpolate(**given_values, loop=ends[0], hold_last=ends[1]), inputs)
    if result is None:
        return
    frames, fps, count, cuts = result["result"]
    right = rgb(pictures.value)
    total, held = len(right), any(ends)
    if mode.value == "multiplier":
        factor, listed = int(widgets["multiplier"].value), widgets["multipliers"].value
        if isinstance(listed, str):
            listed = [int(word) for word in listed.replace(",", " ").replace(";", " ").split()]
        listed = [int(each) for each in (listed if isinstance(listed, (list, tuple)) else [listed])]
        factors = [*listed, *[factor] * total][: total if held else total - 1]
        places = [sum(factors[:index]) for index in range(total)]
        assert count == sum(factors) + (not held)
        assert fps == pytest.approx(float(exact("source", source.value) * factor))
    else:
        last = total if held else total - 1
        assert count == (math.ceil(last * ratio) if held else math.floor(last * ratio) + 1)
        places = [int(index * ratio) if (index * ratio).denominator == 1 else -1 for index in range(total)]
        assert fps == pytest.approx(float(exact("target", target.value)))
    assert frames.shape == (count, *right.shape[1:]) and frames.dtype == torch.float32
    assert 0 <= float(frames.min()) <= float(frames.max()) <= 1
    for index, place in enumerate(places):
        if place >= 0:
            assert torch.equal(frames[place], right[index])
    assert all(0 < int(cut) < total for cut in cuts.split(", ") if cut)

"""Counted bytes, and plans made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import tlbvfi
from tests.tiny import TINY, tiny_model
from tlbvfi.config import ModelParams, load_params
from tlbvfi.memory import LiveBytes, candidates, counting, usable
from tlbvfi.model import TLBVFI, convert_precision
from tlbvfi.rows.cuts import Strips
from tlbvfi.rows.owned import Owned
from tlbvfi.rows.tuning import Tuning


def test_live_bytes_follow_allocation_and_release() -> None:
    with LiveBytes() as counter:
        a = torch.zeros(1000)  # 4,000 bytes
        view = a[10:20]
        b = a + 1
        assert counter.current == 8000
        del a
        assert counter.current == 8000  # the view holds it
        del view, b
        c = torch.zeros(500, dtype=torch.float16)
        assert counter.current == 1000
        del c
    assert (counter.current, counter.peak) == (0, 8000)


def test_weights_are_counted_apart() -> None:
    model = tiny_model()
    weight = model.vqgan.encoder.conv_in.weight
    with counting(model) as counter:
        view = weight.permute(0, 2, 3, 1)
        assert counter.current == 0
        del view


def test_the_empty_frame_needs_no_memory_for_gradients() -> None:
    """It is encoded as the run begins, wherever that is."""
    peaks = []
    for enabled in (False, True):
        model = tiny_model()
        with torch.set_grad_enabled(enabled), counting(model) as counter:
            model.encode_empty(256, 256)
        peaks.append(counter.peak)
    assert peaks[0] == peaks[1]


SMALL = load_params("tlbvfi-small")


def counted(params: ModelParams, padded: tuple[int, int], dtype: torch.dtype, scale: float, strips: Strips) -> int:
    """Peak live bytes of two pairs of a video, weights apart, on tensors without data, cut as for a graphics card."""
    strips = replace(strips, tuning=Tuning.of(torch.device("cuda")))
    with FakeTensorMode(), torch.no_grad():
        model = convert_precision(TLBVFI(params).finalize(), dtype)
        empty = model.encode_empty(*padded, strips)
        frame = torch.empty(1, 3, *padded)
        with counting(model) as counter:
            left = Owned(model.encode_frame(frame * 2 - 1, scale, strips, empty))
            for _ in range(2):
                right = model.encode_frame(frame * 2 - 1, scale, strips, empty)
                model.midpoint(left if strips.frugal else left.take(), right, [0], strips=strips)
                left = Owned(right)
        return counter.peak


CASES = [
    (TINY, (256, 384), torch.float32, 0.5),
    (SMALL, (512, 256), torch.float16, 0.5),
    (SMALL, (256, 256), torch.float16, 1.0),
    (SMALL, (256, 512), torch.float32, 1.0),
    (ModelParams(), (256, 512), torch.float16, 0.5),
    (ModelParams(), (256, 512), torch.float32, 1.0),
    (ModelParams(), (1024, 1024), torch.float32, 0.5),
]


@pytest.mark.parametrize(("params", "size", "dtype", "scale"), CASES)
def test_every_plan_is_what_a_run_takes(
    params: ModelParams, size: tuple[int, int], dtype: torch.dtype, scale: float
) -> None:
    """Predicted within a tenth of what is counted, whole and in strips."""
    found = candidates(*size, dtype, scale, params)
    for candidate in {found[0], found[-1]}:
        assert candidate.padded_size == size
        peak = counted(params, size, dtype, scale, candidate.strips)
        assert candidate.peak_bytes - candidate.weight_bytes == pytest.approx(peak, rel=0.1), candidate


def test_weights_are_what_the_model_has() -> None:
    model = tiny_model()
    found = tlbvfi.plan(128, 128, torch.float32, params=TINY)
    assert found.weight_bytes == sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


GIB = 2**30


@pytest.mark.parametrize(
    ("size", "dtype", "scale", "most"),
    [
        ((1080, 1920), torch.float16, 0.5, 1.0),
        ((2160, 3840), torch.float16, 0.5, 3.0),
        ((2160, 3840), torch.float32, 0.5, 6.0),
        ((2160, 3840), torch.float16, 1.0, 5.0),
    ],
)
def test_what_sizes_take_at_least(size: tuple[int, int], dtype: torch.dtype, scale: float, most: float) -> None:
    """Peak activations of the published model in GiB."""
    least = candidates(*size, dtype, scale)[-1]
    assert least.peak_bytes - least.weight_bytes <= most * GIB


def test_a_budget_gets_the_fastest_plan_that_fits() -> None:
    found = candidates(2160, 3840, torch.float16, 0.5)
    assert [c.peak_bytes for c in found] == sorted((c.peak_bytes for c in found), reverse=True)
    assert found[0].strip_rows == found[0].padded_size[0]
    for candidate in found:
        assert tlbvfi.plan(2160, 3840, budget=candidate.peak_bytes) == candidate
        if candidate is not found[-1]:
            assert tlbvfi.plan(2160, 3840, budget=candidate.peak_bytes - 1).peak_bytes < candidate.peak_bytes
    assert tlbvfi.plan(4320, 7680, budget=16 * GIB).peak_bytes <= 16 * GIB


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf")])
def test_budgets_that_are_none(budget: float) -> None:
    with pytest.raises(ValueError, match="budget must be a number of bytes, or None for no limit"):
        tlbvfi.plan(64, 64, budget=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, "float16", None])
def test_dtypes_that_no_model_has(dtype: object) -> None:
    with pytest.raises(ValueError, match="dtype must be torch.float32, torch.float16 or torch.bfloat16"):
        tlbvfi.plan(64, 64, dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(5.5, 5), ("a", 5), (None, None)])
def test_sizes_that_are_none(size: tuple[object, object]) -> None:
    with pytest.raises(ValueError, match="sides must be whole numbers"):
        tlbvfi.plan(*size)  # type: ignore[arg-type]


def test_small_frames_go_together_where_there_is_room() -> None:
    one = tlbvfi.plan(256, 256, budget=tlbvfi.plan(256, 256).peak_bytes)
    assert one.batch_size == 1
    several = tlbvfi.plan(256, 256, budget=8 * GIB)
    assert several.batch_size == 8
    assert several.peak_bytes - several.weight_bytes == 8 * (one.peak_bytes - one.weight_bytes)
    assert tlbvfi.plan(720, 1280, budget=8 * GIB).batch_size == 2
    assert tlbvfi.plan(1080, 1920, budget=80 * GIB).batch_size == 1


def test_usable_memory_leaves_a_reserve() -> None:
    assert usable(8 * GIB) == 8 * GIB - GIB // 2
    assert usable(100 * GIB) == 95 * GIB
    assert usable(GIB // 4) == 0


def test_half_precision_is_the_default_and_takes_less() -> None:
    half, full = tlbvfi.plan(300, 300, params=TINY), tlbvfi.plan(300, 300, torch.float32, params=TINY)
    assert half == tlbvfi.plan(300, 300, torch.float16, params=TINY)
    assert half.peak_bytes < full.peak_bytes  # much float32 in a model as narrow as this


def test_a_budget_too_small_is_one_sentence() -> None:
    least = candidates(300, 400, torch.float16, 0.5, TINY)[-1].peak_bytes
    assert tlbvfi.plan(300, 400, budget=least, params=TINY).peak_bytes == least
    with pytest.raises(
        ValueError,
        match=r"^400x300 at flow scale 0.5 in float16 needs .* GiB at least, more than .*; use a smaller size",
    ):
        tlbvfi.plan(300, 400, budget=least - 1, params=TINY)


def test_impossible_plans() -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        tlbvfi.plan(0, 10, params=TINY)
    with pytest.raises(ValueError, match="flow_scale must be"):
        tlbvfi.plan(10, 10, flow_scale=2.0, params=TINY)

"""Plans: what is predicted against what is counted, and what fits a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import tlbvfi
from tests.tiny import TINY, tiny_model
from tlbvfi.config import ModelParams, load_params
from tlbvfi.counting import counting
from tlbvfi.footprint import stages
from tlbvfi.model import TLBVFI, convert_precision
from tlbvfi.planning import Plan, candidates, usable
from tlbvfi.rows.cuts import Strips
from tlbvfi.rows.owned import Owned
from tlbvfi.rows.tuning import Tuning

SMALL, PUBLISHED = load_params("tlbvfi-small"), ModelParams()


def counted(params: ModelParams, padded: tuple[int, int], dtype: torch.dtype, scale: float, strips: Strips) -> int:
    """Peak live bytes of two pairs, weights excluded, on tensors without data, cut as for a graphics card."""
    strips = replace(strips, tuning=Tuning.of(torch.device("cuda")))
    with FakeTensorMode(), torch.no_grad():
        model = convert_precision(TLBVFI(params).finalize(), dtype)
        empty = model.encode_empty(*padded, strips)
        frame = torch.empty(1, 3, *padded)
        with counting(model) as counter:
            left = Owned(model.encode_frame(frame * 2 - 1, scale, strips, empty))
            for _ in range(2):
                right = model.encode_frame(frame * 2 - 1, scale, strips, empty)
                model.midpoint(left if strips.frugal else left.borrow(), right, [0], strips=strips)
                left = Owned(right)
                del right
        return counter.peak


CASES = [
    (TINY, (256, 384), torch.float32, 0.5),
    (SMALL, (512, 256), torch.float16, 0.5),
    (SMALL, (256, 256), torch.float16, 1.0),
    (SMALL, (256, 512), torch.float32, 1.0),
    (PUBLISHED, (256, 512), torch.float16, 0.5),
    (PUBLISHED, (256, 512), torch.float32, 1.0),
    (PUBLISHED, (1024, 1024), torch.float32, 0.5),
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


@pytest.mark.parametrize(
    ("params", "dtype", "rows"),
    [(PUBLISHED, torch.float16, 128), (PUBLISHED, torch.float32, 256), (SMALL, torch.float16, 64)],
)
def test_so_are_those_between_at_1080p(params: ModelParams, dtype: torch.dtype, rows: int) -> None:
    found = candidates(1080, 1920, dtype, 0.5, params)
    candidate = next(candidate for candidate in found[1:-1] if candidate.strip_rows == rows)
    peak = counted(params, candidate.padded_size, dtype, 0.5, candidate.strips)
    assert candidate.peak_bytes - candidate.weight_bytes == pytest.approx(peak, rel=0.1), candidate


#: Bytes of each stage by size, dtype, flow scale and strip rows, as they were when these were last fitted to counts.
STAGES = {
    (TINY, (256, 384), torch.float32, 0.5, 256): {
        "encoder": 13_068_288,
        "wavelet bands": 21_290_035,
        "wavelet blocks": 9_700_147,
        "coarse flow": 9_670_656,
        "refinement, cosines": 20_066_304,
        "refinement": 14_954_496,
        "decoder": 20_361_216,
        "head": 15_421_440,
        "new frame": 16_404_480,
    },
    (SMALL, (512, 256), torch.float16, 1.0, 512): {
        "encoder": 24_297_472,
        "wavelet bands": 29_306_266,
        "wavelet blocks": 18_291_098,
        "coarse flow": 33_652_736,
        "refinement, cosines": 87_523_328,
        "refinement": 51_347_456,
        "decoder": 32_505_856,
        "head": 25_919_488,
        "new frame": 27_230_208,
    },
    (PUBLISHED, (1280, 2048), torch.float16, 0.5, 1280): {
        "encoder": 1_115_422_720,
        "wavelet bands": 701_865_984,
        "wavelet blocks": 855_113_728,
        "coarse flow": 696_647_680,
        "refinement, cosines": 1_117_519_872,
        "refinement": 1_154_088_960,
        "decoder": 1_211_367_424,
        "head": 1_315_962_880,
        "new frame": 838_860_800,
    },
    (PUBLISHED, (1280, 2048), torch.float16, 0.5, 128): {
        "encoder": 849_084_416,
        "wavelet bands": 701_865_984,
        "wavelet blocks": 755_499_008,
        "coarse flow": 696_647_680,
        "refinement, cosines": 949_747_712,
        "refinement": 857_118_720,
        "decoder, block at level 1": 905_576_448,
        "decoder, attention at level 1": 748_814_336,
        "decoder, attention at level 2": 815_923_200,
        "head": 807_141_376,
    },
    (PUBLISHED, (2304, 3840), torch.float32, 0.5, 16): {
        "encoder": 4_958_453_760,
        "wavelet bands": 4_389_264_384,
        "wavelet blocks": 4_409_524_224,
        "coarse flow": 4_149_411_840,
        "refinement, cosines": 4_119_056_640,
        "refinement": 4_087_906_560,
        "decoder, block at level 1": 5_051_105_280,
        "decoder, attention at level 1": 4_085_760_000,
        "decoder, attention at level 2": 4_007_116_800,
        "head": 4_533_780_480,
    },
    (SMALL, (1280, 2048), torch.bfloat16, 0.3, 64): {
        "encoder": 256_512_000,
        "wavelet bands": 197_246_976,
        "wavelet blocks": 191_373_312,
        "coarse flow": 192_806_912,
        "refinement, cosines": 245_651_840,
        "refinement": 207_391_616,
        "decoder, block at level 1": 284_626_944,
        "decoder, attention at level 1": 258_019_328,
        "decoder, attention at level 2": 274_796_544,
        "head": 277_483_520,
    },
}


@pytest.mark.parametrize("case", STAGES)
def test_every_stage_is_what_it_was(case: tuple[ModelParams, tuple[int, int], torch.dtype, float, int]) -> None:
    params, size, dtype, scale, rows = case
    # By the sizes that go with kernels, on every machine.
    strips = replace(Plan(size, 0, 0, rows, 1).strips, tuning=Tuning.of(torch.device("meta")))
    found = {stage.name: stage.bytes for stage in stages(params, size, dtype, scale, strips)}
    assert found == pytest.approx(STAGES[case], abs=1)


@pytest.mark.parametrize("rows", [128, 1280])
def test_a_stage_is_the_sum_of_its_parts(rows: int) -> None:
    size = (1280, 2048)
    for stage in stages(PUBLISHED, size, torch.float16, 0.5, Plan(size, 0, 0, rows, 1).strips):
        assert stage.bytes == stage.kept + stage.stored + stage.strip
        assert min(stage.kept, stage.strip) > 0 and stage.stored >= 0


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

"""Plans: what is counted, and what fits a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tlbvfi
from tests.tiny import TINY, frames, tiny_model
from tlbvfi import footprint
from tlbvfi.allocator import CachingAllocator, Event
from tlbvfi.config import ModelParams, load_params
from tlbvfi.counting import counting
from tlbvfi.footprint import LIBRARIES, Way, need, weight_bytes
from tlbvfi.planning import Plan, batched, candidates, usable
from tlbvfi.rows.cuts import WHOLE
from tlbvfi.rows.tuning import Tuning

SMALL, PUBLISHED = load_params("tlbvfi-small"), ModelParams()
CPU = torch.device("cpu")
CARD = Tuning(kernels=True)
GIB = 2**30
#: So large that pairs go one by one.
LARGE = (768, 1408)


@pytest.mark.parametrize("rows", [256, 128])
def test_a_plan_for_the_cpu_is_what_a_run_takes(rows: int) -> None:
    """Of real tensors; the run has the source frame before the gap and frames on their way out besides."""
    size = (256, 384)
    model = tiny_model()
    found = candidates(*size, torch.float32, 0.5, TINY, device=CPU)
    chosen = next(way for way in found if way.strip_rows <= rows)
    assert not chosen.graphs
    video = iter(frames(3, *size))
    with counting(model) as counter:
        for _ in tlbvfi.interpolate_frames(model, video, 2, 0.5, 3, plan=chosen):
            pass
    frame = 3 * 4 * size[0] * size[1]
    planned = chosen.peak_bytes - chosen.weight_bytes
    assert counter.peak - 4 * frame <= planned <= 1.6 * counter.peak  # in the CPU's pieces it takes less


def a_way(padded: tuple[int, int] = (256, 384), pairs: int = 1, rows: int | None = None) -> Way:
    strips = WHOLE if rows is None else Plan(padded, 0, 0, rows, 1).strips
    return Way(TINY, padded, torch.float16, 0.5, strips, pairs, CARD, on_card=True, graphs=True)


@pytest.mark.parametrize(("pairs", "rows"), [(1, None), (3, None), (1, 64)])
def test_a_card_held_to_what_is_planned_suffices(pairs: int, rows: int | None) -> None:
    """For weights, libraries and run, large blocks and small ones together."""
    way = a_way((256, 768), pairs, rows)
    events, _ = footprint._recorded(way)
    found = need(way)
    tensors = footprint._weights(footprint.meta_model(TINY, torch.float16))
    weights = [Event(-2 - i, t.nbytes) for i, t in enumerate(tensors)]
    allocator = CachingAllocator(found.least)
    assert allocator.replay([*weights, Event(-1, LIBRARIES)])
    for _ in range(3):  # gap after gap
        assert allocator.replay(events)
    free = CachingAllocator()
    assert free.replay([*weights, Event(-1, LIBRARIES), *events])
    assert found.live + LIBRARIES <= found.least <= (1.03 if rows is None else 1.14) * free.peak
    assert found.captured >= free.peak


def test_a_run_gives_back_all_that_it_takes() -> None:
    events, _ = footprint._recorded(a_way())
    came = [event.key for event in events if event.size]
    assert sorted(came) == sorted(event.key for event in events if not event.size)
    assert len(set(came)) == len(came)


def test_in_strips_all_features_lie_apart_when_they_come_back_too() -> None:
    """The gap's end and its middle frame wait on the host for their turn."""
    events, _ = footprint._recorded(a_way((256, 768), rows=64))
    image = 3 * 4 * 256 * 768
    apart = [event for event in events if event.size == image and event.stream == footprint._APART]
    encoded, come_back = 3, 1 + 1 + 2  # one end of the gap, one of its first half, both of its second
    assert len(apart) == encoded + come_back


def test_plans_are_what_is_counted() -> None:
    found = candidates(250, 380, torch.float16, 0.5, TINY)
    for candidate in found:
        way = candidate.way
        assert way is not None and way.strips == candidate.strips
        assert candidate.padded_size == way.padded == (256, 384)
        assert candidate.peak_bytes == need(way).least
        assert candidate.weight_bytes == weight_bytes(TINY, torch.float16)
    assert tlbvfi.plan(250, 380, params=TINY).peak_bytes == need(a_way()).captured


def test_graphs_go_where_they_fit() -> None:
    captured, whole = tlbvfi.plan(*LARGE, params=TINY), candidates(*LARGE, torch.float16, 0.5, TINY)[0]
    assert captured.graphs and not whole.graphs and captured.peak_bytes > whole.peak_bytes
    assert tlbvfi.plan(*LARGE, params=TINY, budget=captured.peak_bytes) == captured
    assert tlbvfi.plan(*LARGE, params=TINY, budget=captured.peak_bytes - 1) == whole
    assert not tlbvfi.plan(*LARGE, params=TINY, device=CPU).graphs


def test_larger_frames_take_more() -> None:
    found = [tlbvfi.plan(*size, params=TINY).peak_bytes for size in ((128, 128), (128, 256), (256, 256), LARGE)]
    assert found == sorted(set(found))


def test_weights_are_what_the_model_has() -> None:
    model = tiny_model()
    found = tlbvfi.plan(128, 128, torch.float32, params=TINY)
    assert found.weight_bytes == sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def test_what_1080p_takes() -> None:
    """The published model in float16: live tensors, and a card."""
    whole = tlbvfi.plan(1080, 1920, budget=80 * GIB)
    assert whole.graphs and whole.batch_size == 1 and whole.way is not None
    found = need(whole.way)
    assert whole.weight_bytes < 0.12 * GIB
    assert found.live < 1.6 * GIB
    assert found.live < found.least < 2.3 * GIB
    assert found.least < found.captured == whole.peak_bytes < 3.2 * GIB


def test_a_budget_gets_the_fastest_plan_that_fits() -> None:
    found = candidates(*LARGE, torch.float16, 0.5, TINY)
    heights = [way.strip_rows for way in found]
    assert heights == [768, 512, 256, 128, 64, 32]
    for way in (found[0], found[2], found[-1]):
        chosen = tlbvfi.plan(*LARGE, params=TINY, budget=way.peak_bytes)
        assert chosen.peak_bytes <= way.peak_bytes and chosen.strip_rows >= way.strip_rows and not chosen.graphs


def test_no_fewer_rows_than_a_budget_asks_for() -> None:
    some = candidates(2160, 3840, torch.float16, 1.0, TINY)[2]
    assert tlbvfi.plan(2160, 3840, flow_scale=1.0, params=TINY, budget=some.peak_bytes).strip_rows == some.strip_rows


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
    size = (128, 128)
    one = tlbvfi.plan(*size, params=TINY)
    several = tlbvfi.plan(*size, params=TINY, budget=8 * GIB)
    assert (one.batch_size, several.batch_size) == (1, 8)
    assert several == batched(one, 8)
    assert one.peak_bytes < several.peak_bytes < 8 * one.peak_bytes
    for pairs in (2, 5):
        some = batched(one, pairs)
        assert some.way is not None and some.peak_bytes == need(some.way).captured
        assert tlbvfi.plan(*size, params=TINY, budget=some.peak_bytes) == some


def test_plans_that_were_not_counted_grow_with_their_pairs() -> None:
    plan = Plan((64, 64), 1300, 300, 64, 1)
    assert batched(plan, 3) == replace(plan, batch_size=3, peak_bytes=3300)
    assert batched(plan, 3, budget=2500) == replace(plan, batch_size=2, peak_bytes=2300)
    assert batched(replace(plan, strip_rows=16), 3).batch_size == 1


@pytest.mark.parametrize(
    ("free", "device", "reserved", "left"),
    [
        (8 * GIB, None, 0, 8 * GIB - GIB // 4),
        (100 * GIB, None, 0, 98 * GIB),
        (GIB // 8, None, 0, 0),
        (8 * GIB, None, GIB, 7 * GIB),
        (8 * GIB, None, 9 * GIB, 0),
        (8 * GIB, CPU, 0, 8 * GIB - GIB // 2),
        (100 * GIB, CPU, 0, 95 * GIB),
    ],
)
def test_usable_memory_leaves_a_reserve(free: int, device: torch.device | None, reserved: int, left: int) -> None:
    assert usable(free, device, reserved) == left


def test_half_precision_is_the_default_and_takes_less() -> None:
    half, full = tlbvfi.plan(300, 300, params=TINY), tlbvfi.plan(300, 300, torch.float32, params=TINY)
    assert half == tlbvfi.plan(300, 300, torch.float16, params=TINY)
    assert half.peak_bytes < full.peak_bytes  # much float32 in a model as narrow as this


def test_a_budget_too_small_is_one_sentence() -> None:
    least = min(way.peak_bytes for way in candidates(300, 400, torch.float16, 0.5, TINY))
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

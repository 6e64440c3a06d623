"""Any timeline: how many frames come, in which order, where they stand, and that pieces together are the whole."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import ceil, floor

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

from tests.fuzz import cases
from tests.fuzz.stand_in import grain, stand_in
from tlbvfi import interpolate
from tlbvfi.bridge import generator_at
from tlbvfi.holds import Skipped
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.outputs import Output
from tlbvfi.planning import Plan
from tlbvfi.settings import Settings
from tlbvfi.timeline import AFTER, BEFORE, MAX_DEPTH, Multiplier, Piece, TargetRate, Timeline, depth_of, loop_gap

QUICK = Settings(sample_steps=3)
NOTHING = torch.empty(0)

ends = st.fixed_dictionaries({"loop": st.booleans(), "hold_last": st.booleans()})
rates = st.one_of(
    st.sampled_from([Fraction(n) for n in (1, 12, 15, 16, 24, 25, 30, 50, 60, 120, 999)]),
    st.sampled_from([Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)]),
    st.fractions(Fraction(1, 1000), 100_000, max_denominator=5000),
)


@st.composite
def multipliers(draw: st.DrawFn, most: int = 2**MAX_DEPTH) -> Multiplier:
    factors = st.one_of(st.integers(1, min(most, 20)), st.integers(1, most))
    return Multiplier(draw(factors), factors=tuple(draw(st.lists(factors, max_size=4))), **draw(ends))


@st.composite
def target_rates(draw: st.DrawFn, most: int = 2**MAX_DEPTH) -> TargetRate:
    source, target = draw(rates), draw(rates)
    assume(target <= source * most)
    return TargetRate(source, target, **draw(ends))


def exact(timeline: Timeline, frames: int) -> list[Fraction]:
    """Where the frames should stand, from what a timeline is meant to be: clocks, not gaps."""
    held = timeline.loop or timeline.hold_last  # type: ignore[attr-defined]
    if isinstance(timeline, TargetRate):
        step, last = timeline.source / timeline.target, Fraction(frames if held else frames - 1)
        count = ceil(last / step) if held else floor(last / step) + 1
        return [k * step for k in range(count)]
    assert isinstance(timeline, Multiplier)
    factors = [*timeline.factors, *[timeline.factor] * frames][: frames if held else frames - 1]
    found = [index + Fraction(k, factor) for index, factor in enumerate(factors) for k in range(factor)]
    return found if held else [*found, Fraction(frames - 1)]


def wanted(timeline: Timeline, frames: int) -> list[Fraction]:
    """Where they stand by the gaps of the timeline, and by what comes before and after these."""
    found: list[Fraction] = [Fraction(0)] * len(timeline.opening())
    for index in range(frames - 1):
        found += [index + place for place in timeline.gap(index, NOTHING, NOTHING).places]
    if timeline.loop:
        return [*found, *(frames - 1 + place for place in loop_gap(timeline, frames - 1, NOTHING, NOTHING).places)]
    return [*found, *(frames - 2 + place for place in timeline.closing(frames - 2))]


@cases(15)
@given(st.one_of(multipliers(), target_rates()), st.integers(1, 6))
@example(TargetRate(Fraction(2), Fraction(33)), 3)  # two frames at one place, were the gap halved once less
@example(TargetRate(Fraction(30), Fraction(24), loop=True), 5)
@example(TargetRate(Fraction(1), Fraction(1024), hold_last=True), 2)
@example(Multiplier(1024), 2)
@example(Multiplier(3, loop=True, hold_last=True, factors=(1, 5)), 1)
def test_counts_order_and_places(timeline: Timeline, frames: int) -> None:
    should, found = exact(timeline, frames), wanted(timeline, frames)
    assert len(found) == len(should) == timeline.count(frames)
    assert timeline.count(0) == 0
    held = not timeline.loop and isinstance(timeline, (Multiplier, TargetRate)) and timeline.hold_last
    for place, right in zip(found, should, strict=True):
        if held and right >= frames - 1:
            assert place == frames - 1
            continue
        depth = depth_of(place - floor(place))
        assert depth <= MAX_DEPTH
        assert abs(place - right) <= Fraction(1, 32)
        if right.denominator.bit_count() == 1 and depth_of(right - floor(right)) <= 4:
            assert place == right
    moving = [place for place in found if place < frames - 1 or timeline.loop]
    assert moving == sorted(set(moving))
    for index in range(frames):
        assert timeline.until(index) == bisect_right(should, index)
        assert timeline.shows(index) == (index in should) or index >= frames - 1


@st.composite
def cut_up(draw: st.DrawFn, most: int) -> list[int]:
    """Numbers of gaps that follow one another."""
    total = draw(st.integers(0, most))
    at = sorted(draw(st.sets(st.integers(1, max(1, total - 1)), max_size=3))) if total > 1 else []
    return [stop - start for start, stop in zip([0, *at], [*at, total], strict=True)]


@cache
def model() -> TLBVFI:
    return stand_in()


def foretold(source: Sequence[Tensor], gap: int, place: Fraction, seed: int) -> Tensor:
    """The frame at a place of a gap."""
    if place.denominator == 1:
        return source[(gap + int(place)) % len(source)]
    half = Fraction(1, place.denominator)
    one, other = (foretold(source, gap, place + step, seed) for step in (-half, half))
    shape = model().latent_shape(64, 64)
    generator = generator_at(seed, gap, place.numerator, depth_of(place))
    draws = [torch.randn(shape, generator=generator)[None] for _ in range(2)]
    return ((one + other) / 2 + grain(draws)).clamp(0, 1)


@cases(10)
@given(
    timeline=st.one_of(multipliers(8), target_rates(8)),
    gaps=cut_up(5),
    held=st.sets(st.integers(0, 5)),
    sides=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    seed=st.integers(0, 2**64 - 1),
    batch_size=st.integers(1, 5),
    offload=st.booleans(),
)
@example(timeline=Multiplier(2, loop=True), gaps=[1, 2], held=set(), sides=(3, 5), seed=0, batch_size=3, offload=True)
@example(
    timeline=Multiplier(3, hold_last=True), gaps=[1, 2], held=set(), sides=(2, 3), seed=0, batch_size=1, offload=True
)
@example(timeline=Multiplier(2), gaps=[5], held=set(), sides=(2, 3), seed=0, batch_size=2, offload=True)
@example(timeline=Multiplier(2, loop=True), gaps=[3], held=set(), sides=(2, 3), seed=0, batch_size=4, offload=True)
@example(
    timeline=Multiplier(2, hold_last=True, factors=(1, 3, 5)), gaps=[1], held=set(), sides=(2, 3), seed=0,
    batch_size=1, offload=True,
)  # fmt: skip
@example(timeline=Multiplier(4), gaps=[3, 2], held={1}, sides=(1, 64), seed=1, batch_size=4, offload=False)
@example(timeline=TargetRate(Fraction(5), Fraction(2)), gaps=[1, 4], held=set(), sides=(2, 2), seed=2, batch_size=2,
         offload=True)  # fmt: skip
def test_runs_give_the_frames_that_are_foretold(
    timeline: Timeline,
    gaps: list[int],
    held: set[int],
    sides: tuple[int, int],
    seed: int,
    batch_size: int,
    offload: bool,
) -> None:
    total = sum(gaps)
    source = list(torch.rand(total + 1, *sides, 3, generator=torch.Generator().manual_seed(total)))
    should, settings = wanted(timeline, total + 1), Settings(sample_steps=3, seed=seed, offload=offload)
    timeline = Skipped(timeline, held.__contains__)
    whole: list[Output] = []
    begin = 0
    for count in gaps:
        last = begin + count == total
        loops = timeline.loop and last
        piece: Timeline = Piece(timeline, begin == 0, last, total if loops else None)
        given = [*source[begin : begin + count + 1], *(source[:1] if loops else [])]
        until = begin + len(given) - 1
        if len(gaps) == 1:  # the whole
            piece, given = timeline, source
        told: list[float] = []
        whole += interpolate_timeline(
            model(), given, piece, settings, first_gap=begin, batch_size=batch_size, on_progress=told.append
        )
        assert told == sorted(told) and all(begin <= each <= until for each in told)
        begin += count
    assert len(whole) == timeline.count(total + 1)
    for output, place in zip(whole, should, strict=True):
        index = floor(place)
        if index in held and place > index:
            assert (output.position, index) == (index, index)
        else:
            assert output.position == place
        offset = output.position - floor(output.position)
        expected = foretold(source, floor(output.position), offset, seed)
        assert output.frame.dtype == torch.float32 and output.frame.shape == expected.shape
        if offset in (BEFORE, AFTER):
            assert torch.equal(output.frame, expected)
        else:
            assert (output.frame - expected).abs().max() < 1e-5


@cases(1)
@given(st.sets(st.integers(1, 30), max_size=3), st.integers(1, 3), st.integers(1, 4))
@example({1}, 3, 4)
@example({5, 6}, 2, 4)
@example({6}, 1, 4)
def test_lack_of_memory_at_any_call_changes_no_frame(failing: set[int], batch_size: int, factor: int) -> None:
    source = list(torch.rand(4, 20, 30, 3, generator=torch.Generator().manual_seed(0)))
    ways = [Plan((64, 64), rows, 0, rows, 1, graphs=False) for rows in (64, 32, 16)]  # not counted, which takes long
    one, calls = stand_in(), 0

    def tried(name: str) -> None:
        method = getattr(type(one), name)

        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls in failing:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return method(one, *arguments, **named)

        setattr(one, name, call)

    for name in ("encode_frame", "midpoint"):
        tried(name)
    given = (source, Multiplier(factor), QUICK)
    expected = list(interpolate_timeline(model(), *given))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpolate, "candidates", lambda *_: ways)
            found = list(interpolate_timeline(one, *given, batch_size=batch_size))
    except RuntimeError as error:
        assert "does not fit the memory" in str(error)  # noqa: PT017
        return
    assert [output.position for output in found] == [output.position for output in expected]
    assert all(torch.allclose(a.frame, b.frame, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("places", [[Fraction(1, 2)], [Fraction(1, 4), Fraction(3, 4)]])
def test_the_noise_of_a_frame_tells(places: list[Fraction]) -> None:
    """What is foretold depends on the gap, the place and the seed, or the tests above would not see them."""
    source = [torch.full((1, 1, 3), 0.5)] * 4
    found = {
        float(foretold(source, gap, place, seed)[0, 0, 0]) for gap in (0, 1) for seed in (0, 1) for place in places
    }
    assert len(found) == 4 * len(places)

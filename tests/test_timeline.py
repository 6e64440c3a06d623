"""What timelines want, and that a run computes just that: places, holds, cuts, loops, several rates in one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import tlbvfi
from tests.smallest import smallest_model
from tests.tiny import frames, tiny_model
from tlbvfi.bisection import midpoints
from tlbvfi.holds import Cuts, Skipped
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.outputs import Output
from tlbvfi.scenes import SceneDetector
from tlbvfi.settings import Settings
from tlbvfi.timeline import (
    AFTER,
    BEFORE,
    Gap,
    Multiplier,
    Piece,
    TargetRate,
    Timeline,
    depth_of,
    loop_gap,
    nearest_place,
)

QUICK = Settings(sample_steps=3)
HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tiny_model()


@dataclass(frozen=True)
class Listed(Timeline):
    """A timeline that wants what a list says of each gap."""

    places: Sequence[Sequence[Fraction]]
    loop: bool = False
    first: int = 1
    last: int = 0

    def opening(self) -> Sequence[Fraction]:
        return (BEFORE,) * self.first

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        return Gap(index, tuple(self.places[index]))

    def closing(self, index: int) -> Sequence[Fraction]:
        return (AFTER,) * self.last

    def count(self, frames: int) -> int:
        return self.first + sum(map(len, self.places[: frames - 1])) + self.last

    def rate(self, fps: Fraction) -> Fraction:
        return fps


class Calls:
    """The model calls of a run, in order: `e` encodes a frame, `m` computes one (so many gaps of them at a time)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = ""
        self.batches: list[int] = []
        for letter, name in (("e", "encode_frame"), ("m", "midpoint"), ("0", "encode_empty")):
            monkeypatch.setattr(TLBVFI, name, self.counted(letter, getattr(TLBVFI, name)))

    def counted(self, letter: str, method: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            self.made += letter
            result = method(*args, **kwargs)  # type: ignore[operator]
            if letter == "m":
                self.batches.append(len(result))
            return result

        return call


def run(model: TLBVFI, source: Sequence[Tensor], timeline: Timeline, **keywords: object) -> list[Output]:
    return list(interpolate_timeline(model, source, timeline, QUICK, **keywords))  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "depth"), [(1, 0), (2, 1), (4, 2), (16, 4), (1024, 10)])
def test_powers_of_two_are_exact_bisection(factor: int, depth: int) -> None:
    gap = Multiplier(factor).gap(7, torch.empty(0), torch.empty(0))
    assert gap == Gap(7, tuple(Fraction(k, factor) for k in range(1, factor + 1)))
    assert max(map(depth_of, gap.places)) == depth


@pytest.mark.parametrize("factor", [3, 5, 6, 7, 9, 10, 15, 100])
def test_other_factors_come_as_near_as_a_few_halvings_do(factor: int) -> None:
    places = Multiplier(factor).gap(0, torch.empty(0), torch.empty(0)).places
    assert len(set(places)) == factor
    for k, place in enumerate(places, 1):
        assert abs(place - Fraction(k, factor)) <= Fraction(1, 32)


@pytest.mark.parametrize(
    ("place", "depth", "nearest"),
    [
        (Fraction(1, 3), 2, QUARTER),
        (Fraction(2, 3), 2, Fraction(3, 4)),
        (Fraction(1, 2), 4, HALF),
        (Fraction(1, 8), 2, QUARTER),  # as near to 0: the later one
        (Fraction(31, 32), 4, AFTER),
        (Fraction(0), 4, BEFORE),
    ],
)
def test_nearest_place(place: Fraction, depth: int, nearest: Fraction) -> None:
    assert nearest_place(place, depth) == nearest


@pytest.mark.parametrize(
    "places", [(Fraction(1, 3),), (Fraction(3, 2),), (-HALF,), (HALF, QUARTER), (Fraction(1, 2**11),)]
)
def test_impossible_places(places: tuple[Fraction, ...]) -> None:
    with pytest.raises(ValueError, match=r"^(A place in a gap|The places in a gap) must"):
        Gap(0, places)


def test_counts_and_rates() -> None:
    timeline = Multiplier(3)
    assert [timeline.count(frames) for frames in (0, 1, 2, 12)] == [0, 1, 4, 34]
    assert timeline.rate(Fraction(24000, 1001)) == Fraction(72000, 1001)


@pytest.mark.parametrize("factor", [0, -1, 1.5, True, "2", 1025])
def test_impossible_factors(factor: int) -> None:
    with pytest.raises(ValueError, match="multiplier must be a whole number between 1 and 1024"):
        Multiplier(factor)


NOTHING = torch.empty(0)
RATES = [
    (25, 60), (24, 60), (24, 25), (60, 24), (30, 30), (16, 24), (1, 999),
    (Fraction(24000, 1001), 60), (Fraction(30000, 1001), 30), (30, Fraction(30000, 1001)),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("frames", [1, 2, 12, 100])
def test_frames_of_a_rate_are_those_of_its_clock(source: Fraction, target: Fraction, frames: int) -> None:
    """Frame k stands at k / target, up to the last source frame; all that is before its end with `hold_last`."""
    timeline = TargetRate(Fraction(source), Fraction(target))
    held = TargetRate(Fraction(source), Fraction(target), hold_last=True)
    looped = TargetRate(Fraction(source), Fraction(target), loop=True)
    times = [Fraction(k) / target for k in range(2 + int(Fraction(frames) * target / source))]
    until_last = [time for time in times if time <= Fraction(frames - 1) / source]
    until_end = [time for time in times if time < Fraction(frames) / source]
    assert timeline.count(frames) == len(until_last)
    assert held.count(frames) == looped.count(frames) == len(until_end)
    positions = [Fraction(0)]
    for index in range(frames - 1):
        positions += [index + place for place in timeline.gap(index, NOTHING, NOTHING).places]
        assert timeline.until(index + 1) == len(positions)
    assert len(positions) == len(until_last)
    for position, time in zip(positions, until_last, strict=True):
        assert abs(position - time * source) <= Fraction(1, 32)
        if (time * source).denominator == 1:
            assert position == time * source
    assert len(until_last) + len(held.closing(frames - 2)) == len(until_end)
    around = loop_gap(looped, frames - 1, NOTHING, NOTHING).places
    assert len(until_last) + len(around) == len(until_end)
    assert len(set(positions)) == len(positions)


def test_the_numbers_of_the_documentation() -> None:
    rate = TargetRate(Fraction(25), Fraction(60))
    held = TargetRate(Fraction(25), Fraction(60), hold_last=True)
    assert (rate.count(12), held.count(12), rate.rate(Fraction(25))) == (27, 29, 60)
    assert Multiplier(2).count(12) == 23
    assert Multiplier(2, loop=True).count(12) == Multiplier(2, hold_last=True).count(12) == 24


@pytest.mark.parametrize(("source", "target"), [(0, 60), (25, 0), (-1, 1), (1, 1025)])
def test_impossible_rates(source: int, target: int) -> None:
    with pytest.raises(ValueError, match=r"^The frame rate can become 1024 times as high at most: .*\.$"):
        TargetRate(Fraction(source), Fraction(target))


@pytest.mark.parametrize("options", [{}, {"loop": True}, {"hold_last": True}, {"loop": True, "hold_last": True}])
def test_lists_of_factors(options: dict[str, bool]) -> None:
    timeline = Multiplier(2, factors=(1, 4, 1), **options)
    for count in range(1, 8):
        factors = [1, 4, 1, 2, 2, 2, 2][:count]
        assert timeline.count(count) == (sum(factors) if options else 1 + sum(factors[:-1]))
        assert timeline.until(count - 1) == 1 + sum(factors[:-1])


@pytest.mark.parametrize(
    "timeline",
    [
        Multiplier(3, hold_last=True),
        Multiplier(2, loop=True),
        Multiplier(2, factors=(1, 4), hold_last=True),
        TargetRate(Fraction(25), Fraction(60), hold_last=True),
        TargetRate(Fraction(30), Fraction(24), loop=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("lengths", [(2, 2, 1), (1, 1, 3)])
def test_pieces_are_the_whole(timeline: Timeline, lengths: tuple[int, ...]) -> None:
    model, source = smallest_model(), frames(5, 16, 16)
    whole = run(model, source, timeline)
    assert len(whole) == timeline.count(5)
    pieces: list[Output] = []
    begin = 0
    for length in lengths:
        first, end = max(begin - 1, 0), begin + length
        ends = end == len(source)
        loops = timeline.loop and ends
        piece = Piece(timeline, begin == 0, ends, len(source) - 1 if loops else None)
        given = [*source[first:end], *(source[:1] if loops else [])]
        pieces += run(model, given, piece, first_gap=first)
        begin = end
    assert [output.position for output in pieces] == [output.position for output in whole]
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(pieces, whole, strict=True))


def test_holds_go_around_a_timeline() -> None:
    inner = TargetRate(Fraction(25), Fraction(60), hold_last=True)
    held = Skipped(inner, lambda index: index == 1)
    assert held.gap(0, NOTHING, NOTHING) == inner.gap(0, NOTHING, NOTHING)
    assert held.gap(1, NOTHING, NOTHING) == Gap(1, (BEFORE, BEFORE))
    assert held.gap(4, NOTHING, NOTHING).places[-1] == AFTER
    assert (held.count(12), held.until(3), held.rate(Fraction(25))) == (29, inner.until(3), 60)
    assert held.closing(10) == inner.closing(10) and held.shows(5) and not held.shows(1)


def test_cuts_start_anew_where_frames_are_left_out() -> None:
    """A piece that does not go on with the one before knows nothing of it."""
    dark, light = torch.zeros(32, 32, 3), torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    cuts = Cuts(Multiplier(2), SceneDetector())
    assert cuts.gap(0, dark, dark).places == (HALF, AFTER)
    assert cuts.gap(5, light, light).places == (HALF, AFTER)
    assert cuts.found == []


@pytest.mark.parametrize("places", [[], [HALF], [QUARTER], [HALF, AFTER], [Fraction(5, 16), Fraction(11, 16)]])
def test_midpoints_are_counted(model: TLBVFI, monkeypatch: pytest.MonkeyPatch, places: list[Fraction]) -> None:
    made = Calls(monkeypatch)
    run(model, frames(2, 16, 16), Listed([places]))
    assert midpoints([place for place in places if place != AFTER]) == made.made.count("m")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_progress_is_a_position_that_rises(model: TLBVFI, batch_size: int) -> None:
    told: list[float] = []
    run(model, frames(4, 16, 16), Multiplier(4), first_gap=5, batch_size=batch_size, on_progress=told.append)
    assert told[0] == 5 and told == sorted(told) and 7 < told[-1] < 8
    if batch_size == 1:
        assert {5, 5 + 1 / 3, 5 + 2 / 3, 6, 7} <= set(told)
        assert len(told) >= 9 * 6  # and within each new frame


def test_what_on_progress_raises_ends_the_run(model: TLBVFI) -> None:
    def ending(position: float) -> None:
        if position > 0.5:
            raise RuntimeError("CUDA out of memory")  # by the listener, so nothing is tried again

    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        run(model, frames(3, 16, 16), Multiplier(2), on_progress=ending)


def test_every_frame_says_where_it_stands(model: TLBVFI) -> None:
    source = frames(3, 20, 30)
    outputs = run(model, source, Multiplier(4), first_gap=10)
    assert [output.position for output in outputs] == [10 + Fraction(k, 4) for k in range(9)]
    expected = tlbvfi.interpolate_frames(model, source, 2, sample_steps=3, first_gap=10)
    assert all(torch.equal(a.frame, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize(
    ("places", "calls"),
    [
        ((HALF,), "0eem"),
        ((QUARTER,), "0eemem"),
        ((Fraction(3, 4), AFTER), "0eemem"),
        ((QUARTER, Fraction(3, 4)), "0eememm"),
        ((Fraction(1, 8), HALF), "0eememem"),
        ((Fraction(5, 8),), "0eememem"),
        ((Fraction(3, 8), Fraction(5, 8), AFTER), "0eemememmem"),
        ((BEFORE, AFTER), ""),
        ((), ""),
    ],
)
@pytest.mark.parametrize("rows", [None, 64])
def test_only_what_leads_to_a_wanted_frame_is_computed(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, places: tuple[Fraction, ...], calls: str, rows: int | None
) -> None:
    source = frames(2, 130, 40)
    padded = tlbvfi.padding_for(130, 40, multiple=model.multiple).padded
    plan = None if rows is None else tlbvfi.Plan(padded, 0, 0, rows, 1)
    every = {output.position: output.frame for output in run(model, source, Multiplier(8), plan=plan)}
    made = Calls(monkeypatch)
    outputs = run(model, source, Listed([places]), plan=plan)
    assert made.made == calls
    assert [output.position for output in outputs] == [0, *places]
    assert all(torch.equal(output.frame, every[output.position]) for output in outputs)


def test_holds_repeat_frames_and_compute_nothing(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(4, 20, 30)
    expected = list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3))
    made = Calls(monkeypatch)
    found = run(model, source, Listed([(HALF, AFTER), (BEFORE, AFTER), (HALF, HALF, AFTER)]))
    order = [0, 1, 2, 2, 4, 5, 5, 6]
    assert all(torch.equal(output.frame, expected[i]) for output, i in zip(found, order, strict=True))
    assert made.made == "0eemeem"  # the frame after the hold is encoded when it is needed


def test_a_repeated_frame_may_be_changed_by_who_got_it(model: TLBVFI) -> None:
    source = frames(3, 20, 30)
    kept = [frame.clone() for frame in source]
    timeline = Listed([(BEFORE, BEFORE, AFTER, AFTER), (BEFORE, AFTER)], first=2, last=2)
    found = []
    for output in interpolate_timeline(model, source, timeline, QUICK):
        found.append(output.frame.clone())
        output.frame.zero_()
    assert all(torch.equal(a, kept[i]) for a, i in zip(found, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2], strict=True))


def test_a_loop_ends_with_the_gap_to_the_first_frame(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(3, 20, 30)
    expected = list(tlbvfi.interpolate_frames(model, [*source, source[0]], 1, sample_steps=3))[:-1]
    found = run(model, source, Listed([(HALF, AFTER), (HALF, AFTER), (HALF,)], loop=True))
    assert [output.position for output in found] == [Fraction(k, 2) for k in range(6)]
    assert all(torch.equal(output.frame, b) for output, b in zip(found, expected, strict=True))


def test_batches_are_of_gaps_that_want_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tlbvfi.load_model()  # whose codes do not depend on rounding
    source = frames(8, 20, 30)
    places = [(HALF, AFTER)] * 3 + [(BEFORE,), (QUARTER, AFTER), (QUARTER, AFTER), (HALF, AFTER)]
    alone = run(model, source, Listed(places))
    made = Calls(monkeypatch)
    together = run(model, source, Listed(places), batch_size=7)
    assert made.batches == [3, 2, 2, 1]
    assert [output.position for output in together] == [output.position for output in alone]
    assert all((a.frame - b.frame).abs().max() < 1e-4 for a, b in zip(alone, together, strict=True))


def test_a_timeline_may_look_at_the_frames(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Cuts(Multiplier):
        def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
            cut = bool((before - after).abs().mean() > 0.3)
            return Gap(index, (BEFORE, AFTER)) if cut else super().gap(index, before, after)

    source = [*frames(2, 20, 30), *(1 - frame for frame in frames(2, 20, 30))]
    made = Calls(monkeypatch)
    found = run(model, source, Cuts())
    assert [output.position for output in found] == [0, HALF, 1, 1, 2, Fraction(5, 2), 3]
    assert made.made.count("m") == 2

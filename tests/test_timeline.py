"""What timelines want, and that a run computes just that: places, holds, cuts, loops, several rates in one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import tlbvfi
from tests.tiny import frames, tiny_model
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.outputs import Output
from tlbvfi.settings import Settings
from tlbvfi.timeline import AFTER, BEFORE, Gap, Multiplier, Timeline, depth_of, nearest_place

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

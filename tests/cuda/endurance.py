"""Many pairs, runs that are ended in their middle, and memory that is refused in the middle of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from tests.cuda.report import Sheet
from tests.cuda.setting import ALIKE_DB, GIB, Setting, Way, decibels, warnings_said
from tlbvfi.planning import Plan, candidates
from tlbvfi.precision import tf32

_PAIRS, _EVERY, _SETTLED = 120, 10, 10
#: MiB that may be allocated or reserved more after all pairs than after the tenth.
_GROWTH = 8


class _Cancelled(Exception):
    pass


def run(setting: Setting, sheet: Sheet) -> None:
    way = setting.ways()[0]
    with tf32(True):
        _ended_runs(setting, way, sheet)
        _refused_strips(setting, way, sheet)
        _refused_graphs(setting, way, sheet)
        _many_pairs(setting, way, sheet)
    setting.clean()


def _many_pairs(setting: Setting, way: Way, sheet: Sheet) -> None:
    """Memory stays where it is after the first pairs."""
    setting.clean()
    pairs = 30 if setting.rehearse else _PAIRS
    new = setting.new_frames(setting.model(), setting.small, way)
    marks = []
    for number in range(1, pairs + 1):
        setting.go_on()
        next(new)
        if number % _EVERY == 0:
            setting.finish()
            memory = setting.memory()
            marks.append((number, memory["now allocated"], memory["now reserved"]))
    sheet.details["allocated and reserved GiB by pairs"] = marks
    settled = next(mark for mark in marks if mark[0] >= _SETTLED)
    for place, name in ((1, "allocated"), (2, "reserved")):
        grown = (max(mark[place] for mark in marks if mark[0] >= _SETTLED) - settled[place]) * GIB / 2**20
        sheet.row(f"{pairs} pairs of {setting.small[1]}x{setting.small[0]}", memory=name, GiB=settled[place],
                  **{"MiB more in the end": grown})  # fmt: skip
        sheet.check(grown <= _GROWTH, f"{grown:.0f} MiB more are {name} after {pairs} pairs than after {_SETTLED}")


def _ended_runs(setting: Setting, way: Way, sheet: Sheet) -> None:
    """A run that was ended by its listener leaves the next one as it would have been."""
    model, size = setting.model(), setting.small
    count = setting.unsettled(way) + 1
    before = list(islice(setting.new_frames(model, size, way), count))
    # Before an encoding and before a new frame, of the first calls and of those that may come out of graphs.
    steps = (1, 2, 2 * count - 3, 2 * count - 2)
    for step in steps:
        calls = itertools.count()

        def listening(_: int, step: int = step, calls: Iterator[int] = calls) -> None:
            if next(calls) == step:
                raise _Cancelled

        try:
            list(islice(setting.new_frames(model, size, way, on_step=listening), count))
            sheet.check(False, f"a run whose listener ends it at its call {step} went on")
        except _Cancelled:
            pass
        after = list(islice(setting.new_frames(model, size, way), count))
        equal = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        sheet.check(equal, f"after a run that was ended at its call {step}, the next one's frames are others")
    sheet.notes.append(f"Runs were ended before their calls {steps}; {count} frames of each next run were compared.")


def _refused_strips(setting: Setting, way: Way, sheet: Sheet) -> None:
    """A run that is planned to go whole where it cannot goes on in strips, to nearly the same frames."""
    model, size, scale = setting.model(), setting.sizes["1080p"], 1.0
    whole = candidates(*size, model.dtype, scale, model.params)[0]
    expected = list(islice(setting.new_frames(model, size, way, scale, whole), 2))
    _refused(setting, way, scale, whole, expected, round(0.75 * whole.peak_bytes), "the whole frame", sheet)


def _refused_graphs(setting: Setting, way: Way, sheet: Sheet) -> None:
    """A run that has the memory for its calls and none for graphs of them goes on, to nearly the same frames."""
    model, size, scale = setting.model(), setting.sizes["1080p"], 0.5
    plan = setting.plan(model, size, scale)
    setting.clean()
    eager = Way("", False, way.kernels)
    expected = list(islice(setting.new_frames(model, size, eager, scale, plan), setting.unsettled(way)))
    budget = round(1.02 * setting.memory()["reserved"] * GIB) or GIB
    _refused(setting, way, scale, plan, expected, budget, "graphs", sheet)


def _refused(
    setting: Setting, way: Way, scale: float, plan: Plan, expected: list[Tensor], budget: int, what: str, sheet: Sheet
) -> None:
    """A run that is held to less than it may need, and its row."""
    with setting.held_to(budget), warnings_said() as said:
        new = setting.new_frames(setting.model(), setting.sizes["1080p"], way, scale, plan)
        made = list(islice(new, len(expected)))
        reserved = setting.memory()["reserved"]
        del new
    near = min(decibels(a, b, peak=1.0) for a, b in zip(made, expected, strict=True))
    sheet.row(
        "1080p where memory is short", **{"short for": what, "flow scale": scale}, planned=plan.peak_bytes / GIB,
        given=budget / GIB, reserved=reserved, refusals=len(said), **{"dB of a run that has it": near},
    )  # fmt: skip
    sheet.details.setdefault("refusals", []).append(said)
    sheet.check(bool(said) or setting.rehearse or what == "graphs", f"memory for {what} was not refused")
    sheet.check(near > ALIKE_DB, f"frames where memory is short for {what} are {near:.1f} dB from the others")

"""Runs held to the memory of smaller cards: by their plans, never refused, and as much as was planned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from tests.cuda.report import Row, Sheet
from tests.cuda.setting import GIB, Setting, warnings_said
from tlbvfi.planning import Plan
from tlbvfi.precision import tf32

BUDGETS = (8.0, 4.0, 3.4)
#: A plan may be so many times what was reserved, and not less than what was allocated.
_ABOVE = 1.15
_OTHER = "cudaMallocAsync"
OTHER_ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": f"backend:{_OTHER}"}


def run(setting: Setting, sheet: Sheet) -> None:
    for budget, size, scale in _cases():
        setting.go_on(needed=2.0)
        _held(setting, budget, size, scale, sheet)
    _held_to_plans(setting, sheet)


def run_other(setting: Setting, sheet: Sheet) -> None:
    """The same by CUDA's own allocator, as ComfyUI has by default; it is chosen before the process begins."""
    there = _allocator(setting)
    if not setting.rehearse and not sheet.check(there == _OTHER, f"the allocator is {there}, not {_OTHER}"):
        return
    for budget, size, scale in _cases():
        setting.go_on(needed=2.0)
        _held(setting, budget, size, scale, sheet)


def _cases() -> Iterator[tuple[float, str, float]]:
    """GiB, sizes and flow scales, the smallest budget first; of 4K at flow scale 1 only the largest holds."""
    for budget, size, scale in product(sorted(BUDGETS), ("1080p", "4K"), (0.5, 1.0)):
        if size != "4K" or scale < 1 or budget == BUDGETS[0]:
            yield budget, size, scale


def _held(setting: Setting, budget: float, size: str, scale: float, sheet: Sheet) -> None:
    """One run held to a budget, and its row."""
    allocator = _allocator(setting)
    case = f"{size}, flow scale {scale:g}, {budget:g} GiB by {allocator}"
    row = sheet.row("Held to a budget, GiB", allocator=allocator, size=size, **{"flow scale": scale, "budget": budget})
    try:
        try:
            plan = setting.plan(setting.model(), setting.sizes[size], scale, free=round(budget * GIB))
        except ValueError as error:  # a plan may say before any work that nothing fits
            row["refused"] = "by the plan"
            sheet.notes.append(f"{case}: {error}")
            return
        row["s for 3 frames"], memory, refused = _run(setting, plan, size, scale, round(budget * GIB))
    except Exception as error:  # not enough memory, or whatever a card raises
        row["refused"] = True
        sheet.check(False, f"{case}: {type(error).__name__}: {error}")
        return
    row |= _figures(plan, memory)
    row["refused"] = len(refused)
    sheet.check(not refused, f"{case}: {'; '.join(refused)}")
    if setting.rehearse:
        return
    planned, used, reserved = plan.peak_bytes / GIB, memory["allocated"], memory["reserved"]
    # The other allocator keeps beyond its limit what it has, as long as the card has room.
    sheet.check(reserved <= budget or allocator == _OTHER, f"{case}: {reserved:.2f} GiB were reserved")
    sheet.check(used <= planned, f"{case}: planned are {planned:.2f} GiB, {used:.2f} were allocated")
    # What graphs take by the other allocator is the driver's, and not in what PyTorch says of it.
    near = planned <= _ABOVE * reserved or allocator == _OTHER
    sheet.check(near, f"{case}: planned are {planned:.2f} GiB, {reserved:.2f} were reserved")


def _run(setting: Setting, plan: Plan, size: str, scale: float, most: int) -> tuple[float, dict[str, float], list[str]]:
    """Seconds of three new frames by a plan that is held to so many bytes, memory, and what was said of refusals."""
    way = setting.ways()[0]
    # A plan is for runs that make one frame of a gap, whose encoding and midpoint are one graph, and for runs that make
    # three or more, which take most otherwise; either once all their graphs are there.
    captured = getattr(plan, "graphs", False)
    with setting.held_to(most), warnings_said() as said, tf32(True):
        for times in (1, 2) if captured else (2,):
            new = setting.new_frames(setting.model(), setting.sizes[size], way, scale, plan, times=times)
            count = 1 if plan.strips.frugal else setting.unsettled(way)
            seconds = [_next_seconds(setting, new) for _ in range(count)][-1]
            memory = setting.memory()
            del new
    return seconds, memory, [sentence for sentence in said if "memory" in sentence]


def _held_to_plans(setting: Setting, sheet: Sheet) -> None:
    """Runs that have no byte more than their plans say."""
    for budget, size, scale in ((8.0, "1080p", 0.5), (3.4, "1080p", 1.0), (8.0, "4K", 0.5), (4.0, "4K", 0.5)):
        setting.go_on(needed=2.0)
        case = f"{size}, flow scale {scale:g}, planned for {budget:g} GiB, held to the plan"
        try:
            plan = setting.plan(setting.model(), setting.sizes[size], scale, free=round(budget * GIB))
            refused = _run(setting, plan, size, scale, plan.peak_bytes)[2]
        except Exception as error:  # not enough memory, or whatever a card raises
            refused = [f"{type(error).__name__}: {error}"]
        sheet.row(
            "Held to the plan itself", size=size, **{"flow scale": scale, "planned for GiB": budget},
            refused="; ".join(refused) or "no",
        )  # fmt: skip
        sheet.check(not refused, f"{case}: {'; '.join(refused)}")


def _allocator(setting: Setting) -> str:
    """The name of this process's allocator."""
    return torch.cuda.get_allocator_backend() if setting.device.type == "cuda" else "none"


def _next_seconds(setting: Setting, new: Iterator[Tensor]) -> float:
    return setting.seconds_of(lambda: next(new))


def _figures(plan: Plan, memory: dict[str, float]) -> Row:
    rows = "whole" if not plan.strips.frugal else str(plan.strip_rows)
    planned = plan.peak_bytes / GIB
    return {
        "rows at a time": rows, "graphs": getattr(plan, "graphs", False), "planned": planned,
        "allocated": memory["allocated"], "reserved": memory["reserved"],
        "planned / allocated": planned / (memory["allocated"] or planned),
        "planned / reserved": planned / (memory["reserved"] or planned),
    }  # fmt: skip

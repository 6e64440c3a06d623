"""Time and memory of a new frame of a video in its steady state, times 1, every way there is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.cuda.report import Row, Sheet
from tests.cuda.setting import ALIKE_DB, GIB, Setting, Way, decibels
from tlbvfi.device_memory import is_out_of_memory
from tlbvfi.precision import tf32

#: Milliseconds wanted of float16 at flow scale 0.5, the usual way, on an H100.
WANTED_MS = {"512x512": 12, "720p": 27, "1080p": 50, "4K": 200}


@dataclass(frozen=True)
class _Case:
    """Frames of a size; `all_ways`, or out of graphs alone, by kernels and plain."""

    size: str
    flow_scale: float = 0.5
    all_ways: bool = True

    def __str__(self) -> str:
        return f"{self.size}, float16, flow scale {self.flow_scale:g}"


#: The most telling first.
_CASES = (
    *(_Case(size) for size in ("1080p", "512x512")),
    *(_Case(size, all_ways=False) for size in ("4K", "720p")),
    _Case("1080p", flow_scale=1.0, all_ways=False),
)


def run(setting: Setting, sheet: Sheet) -> None:
    for case in _CASES:
        row = sheet.row("Milliseconds a new frame, and the usual way's GiB", case=str(case))
        frames: dict[str, Tensor] = {}
        ways = setting.ways()
        for way in ways if case.all_ways else [way for way in ways if way.graphs == ways[0].graphs]:
            setting.go_on(needed=2.0)
            try:
                with tf32(True):
                    figures, frames[way.name] = _measured(setting, case, way)
            except Exception as error:  # whatever a card or a compiler raises
                kind = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
                sheet.check(False, f"{case} by {way.name}: {kind}")
                continue
            finally:
                setting.clean()
            sheet.details.setdefault("cases", []).append({"case": str(case), "way": way.name, **figures})
            row[way.name] = figures["ms"]
            if way == ways[0]:
                row |= {key: figures[key] for key in ("planned", "allocated", "reserved")}
                row["not waited for each"] = figures["ms, not waited for each"]
                row["first frame s"] = figures["first frame s"]
        _compared(case, frames, row, sheet)


def _measured(setting: Setting, case: _Case, way: Way) -> tuple[Row, Tensor]:
    """Figures of a case, and its first new frame."""
    model, size = setting.model(), setting.sizes[case.size]
    setting.frames(size)  # are not made while time counts
    setting.clean()
    plan = setting.plan(model, size, case.flow_scale)
    begin = time.perf_counter()
    new = setting.new_frames(model, size, way, case.flow_scale, plan)
    first = next(new)
    setting.finish()
    first_seconds = time.perf_counter() - begin
    for _ in range(setting.unsettled(way) - 1):
        next(new)
    each = setting.seconds(lambda: next(new))
    count = 1 if setting.rehearse else max(2, min(10, round(0.5 / each)))
    through = setting.seconds_of(lambda: [next(new) for _ in range(count)]) / count
    memory = setting.memory()
    figures: dict[str, Any] = {
        "ms": 1e3 * each,
        "ms, not waited for each": 1e3 * through,
        "first frame s": first_seconds,
        "planned": plan.peak_bytes / GIB,
        **memory,
    }
    return figures, first


def _compared(case: _Case, frames: dict[str, Tensor], row: Row, sheet: Sheet) -> None:
    """The frames of all ways beside each other, and the time beside what is wanted."""
    names = list(frames)
    if len(names) > 1:
        row["least dB between ways"] = min(decibels(frames[name], frames[names[-1]], peak=1.0) for name in names[:-1])
        sheet.check(row["least dB between ways"] > ALIKE_DB, f"{case}: the ways differ by more than they round")
    wanted = WANTED_MS[case.size] if case.flow_scale == 0.5 else None
    if wanted is not None:
        row["wanted ms (H100)"] = wanted

"""What a device has left, and the plan that fits it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..model import TLBVFI
from ..padding import PaddingMode
from ..planning import Plan, candidates, plan, usable

#: What Linux says of the computer's memory.
MEMINFO = Path("/proc/meminfo")
#: Up to 2.6 times the planned memory was resident in a process that keeps its freed memory.
_WITH_GAPS = 3


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device has left, where that is known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and MEMINFO.is_file():
        found = re.search(r"^MemAvailable: *(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None
    return None


def planned(
    model: TLBVFI, height: int, width: int, flow_scale: float, memory: int | None, padding: PaddingMode
) -> Plan | None:
    """The plan that fits the memory given, or else what is free; None where that is not known.

    Raises:
        ValueError: not even the smallest one fits, in one sentence.
    """
    budget, free = memory, free_memory(model.device)
    if budget is None and free is not None:
        budget = usable(free) + sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if budget is None:
        return None
    size = height, width, model.dtype, flow_scale
    chosen = plan(*size, budget, params=model.params, padding=padding)
    if model.device.type != "cpu" or memory is not None:
        return chosen
    # Several pairs at a time are for devices that one pair does not keep busy.
    single = candidates(*size, model.params, padding)
    return next(each for each in single if each.strip_rows == chosen.strip_rows)


def room_for_gaps(chosen: Plan | None, memory: int | None) -> bool:
    """Whether a process that keeps its freed memory, gaps and all, stays within `memory` bytes."""
    return chosen is None or memory is None or _WITH_GAPS * chosen.peak_bytes <= memory

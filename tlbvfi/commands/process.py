"""How a process of our own keeps its memory."""

from __future__ import annotations

import ctypes
import sys

from ..planning import Plan

#: Up to 2.6 times the planned memory was resident in a process that keeps its freed memory.
_FRAGMENTED = 3


def room_for_fragmentation(plan: Plan | None, memory: int | None) -> bool:
    """Whether a process that keeps its freed memory, fragmented as it is, stays within `memory` bytes."""
    return plan is None or memory is None or _FRAGMENTED * plan.peak_bytes <= memory


def keep_freed_memory() -> None:
    """Have glibc use large blocks again instead of returning them to the system, for this process of ours alone.

    Otherwise every large tensor on the CPU comes as fresh pages, which the kernel zeroes first: a fifth of the time.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)

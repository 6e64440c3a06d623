"""What a device has left of its memory, and what it says when there is none."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import torch

#: What Linux says of the computer's memory.
_MEMINFO = Path("/proc/meminfo")
#: How devices other than CUDA's say in a plain RuntimeError that they have no memory left.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class DeviceMemoryError(RuntimeError):
    """A device's memory does not suffice, whatever the plan; the message is one sentence."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device refused memory."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in said for words in _OUT_OF_MEMORY)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device has left or, for the CPU, that the computer has; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and _MEMINFO.is_file():
        found = re.search(r"^MemAvailable: *(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None
    return None


def is_asynchronous() -> bool:
    """Whether the memory of cards is CUDA's own to give, as it is in ComfyUI, instead of PyTorch's."""
    return torch.cuda.get_allocator_backend() == "cudaMallocAsync"


def empty_cache(device: torch.device) -> None:
    """Have PyTorch give a device's unused memory back, and the driver that of graphs which are gone."""
    empty = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if device.type != "cpu" and empty is not None:
        empty()
    if device.type == "cuda" and is_asynchronous():
        _trim_graph_memory(torch.cuda.current_device() if device.index is None else device.index)


def _trim_graph_memory(index: int) -> None:
    """What graphs allocate with ``cudaMallocAsync`` is the driver's, and PyTorch does not ask for it back."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(number), index) == 0:
            driver.cuDeviceGraphMemTrim(number)
    except (OSError, AttributeError):  # no NVIDIA driver, or one that is too old
        return

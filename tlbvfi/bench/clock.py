"""Wall time on a device, and how fast it multiplies matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

_GEMM_SIDE = 2048


def gemm_rate(device: torch.device | str = "cpu", repeats: int = 3) -> float:
    """Float32 matrix multiplication of 2048 x 2048, in TFLOP/s (median)."""
    a, b = (torch.ones(_GEMM_SIDE, _GEMM_SIDE, device=device) for _ in range(2))
    seconds = [seconds_of(lambda: a @ b, torch.device(device)) for _ in range(repeats + 1)][1:]
    return 2 * _GEMM_SIDE**3 / statistics.median(seconds) / 1e12


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of some work on a device, begun when that is idle."""
    finish(device)
    begin = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - begin


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type in ("xpu", "mps"):
        getattr(torch, device.type).synchronize()

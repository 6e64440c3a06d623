"""Time, operations and memory of a case: one setting, in the steady state of a video."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..counting import counting
from ..graphs import UNCAPTURED_CALLS
from ..interpolate import interpolate_frames
from ..model import TLBVFI
from .cases import Case, fixed_plan
from .clock import gemm_rate, seconds_of
from .stages import stage_times, uncompiled
from .work import Work, work_per_frame


@dataclass
class Result:
    """Figures of a case, per new frame in the steady state of a video.

    Attributes:
        seconds: median wall time.
        gemm_tflops: the machine's float32 GEMM rate around the case.
        normalised: seconds x gemm_tflops.
        tflop: floating-point operations, multiplication and addition counted apart.
        gemm_share: the rate reached as a share of the GEMM rate.
        peak_bytes: live tensor bytes at the peak, weights apart.
        stages: share of the time of each stage.
        work: what a graphics card is given to do in each stage of :mod:`.work`.
    """

    model: str
    case: Case
    dtype: str
    seconds: float
    gemm_tflops: float
    normalised: float
    tflop: float
    gemm_share: float
    peak_bytes: int
    stages: dict[str, float] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def moving_frames(height: int, width: int) -> Iterator[Tensor]:
    """An endless smooth motion (H, W, 3) in [0, 1], to and fro over three frames that are made before the first."""
    y, x = torch.meshgrid(torch.arange(height) / 37.0, torch.arange(width) / 53.0, indexing="ij")
    phase = torch.tensor([0.0, 1.3, 2.6])
    frames = [0.5 + 0.5 * torch.sin(x[..., None] * 2 + y[..., None] + phase + 0.2 * i) for i in range(3)]
    return cycle([*frames, frames[1]])


def run_batches(
    model: TLBVFI, case: Case, source: Iterator[Tensor] | None = None, graphs: bool = True
) -> Generator[int, None, None]:
    """Run a video without end; yields after each batch of gaps, with its number of new frames.

    Captured calls show nothing of what they do: who looks into a run wants none (`graphs`).

    From the second batch on, what is done for each is the same.
    """
    size = (case.height, case.width)
    frames = interpolate_frames(
        model, source or moving_frames(*size), case.times, case.flow_scale, case.sample_steps,
        plan=fixed_plan(model, size, case.strip_rows, case.batch_size, graphs),
    )  # fmt: skip
    per_batch = case.batch_size * 2**case.times
    next(frames)
    while True:
        for _ in range(per_batch):
            next(frames)
        yield per_batch - case.batch_size


def _sdpa_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of floating-point operations, with what it leaves out: attention on the CPU."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={attention: _sdpa_flops})


def flops_per_frame(model: TLBVFI, case: Case) -> float:
    """Floating-point operations per new frame of a video in its steady state, multiplication and addition counted
    apart: of convolutions, matrix products and attention, as PyTorch's counter counts them."""
    with uncompiled(model):
        batches = run_batches(model, case, graphs=False)
        next(batches)
        with flop_counter() as counter:
            new = next(batches)
    return counter.get_total_flops() / new


def peak_bytes(model: TLBVFI, case: Case) -> int:
    """Peak live tensor bytes, weights apart, over the first gaps of a video."""
    source = moving_frames(case.height, case.width)
    with uncompiled(model), counting(model) as counter:
        batches = run_batches(model, case, source, graphs=False)
        for _ in range(2):
            next(batches)
        batches.close()
    return counter.peak


def measure(model: TLBVFI, case: Case, repeats: int = 3, name: str = "") -> Result:
    """Measure one case on the model's device."""
    device = model.device
    batches = run_batches(model, case)
    captures = device.type == "cuda"
    new = next(batches)  # warm-up
    for _ in range(UNCAPTURED_CALLS + 1 if captures else 0):
        next(batches)
    rates, seconds = [gemm_rate(device)], []
    for _ in range(repeats):
        seconds.append(seconds_of(lambda: next(batches), device) / new)
        rates.append(gemm_rate(device))
    gemm, each = statistics.median(rates), statistics.median(seconds)
    if captures:
        batches.close()
        batches = run_batches(model, case, graphs=False)
        next(batches)
    with stage_times(model) as spent:
        next(batches)
    batches.close()
    total = sum(spent.values()) or 1.0
    flops = flops_per_frame(model, case)
    return Result(
        model=name,
        case=case,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=each,
        gemm_tflops=gemm,
        normalised=each * gemm,
        tflop=flops / 1e12,
        gemm_share=flops / 1e12 / (each * gemm),
        peak_bytes=peak_bytes(model, case),
        stages={name: value / total for name, value in spent.items()},
        work=work_per_frame(model.params, case, model.dtype),
    )

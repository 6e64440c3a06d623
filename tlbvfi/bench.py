"""Speed and memory of the model, in figures that survive a change of machine.

Wall time is also given in units of (seconds x the machine's float32 GEMM rate in TFLOP/s), the rate measured before and
after each case: a run that does F TFLOP per frame as fast as the machine multiplies matrices takes F of that unit.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .interpolate import interpolate_frames
from .memory import counting
from .model import TLBVFI
from .peers import PEERS, Peer
from .quality import psnr, ssim

log = logging.getLogger(__name__)

_GEMM_SIDE = 2048


@dataclass(frozen=True)
class Case:
    """One setting to measure: frames of height x width, 2**times - 1 new ones a gap."""

    height: int
    width: int
    times: int = 1
    flow_scale: float = 0.5
    sample_steps: int = 10
    batch_size: int = 1


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
    """

    case: Case
    dtype: str
    seconds: float
    gemm_tflops: float
    normalised: float
    tflop: float
    gemm_share: float
    peak_bytes: int
    stages: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def gemm_rate(device: torch.device | str = "cpu", repeats: int = 3) -> float:
    """Float32 matrix multiplication of 2048 x 2048, in TFLOP/s (median)."""
    a, b = (torch.ones(_GEMM_SIDE, _GEMM_SIDE, device=device) for _ in range(2))
    seconds = [_timed(lambda: a @ b, torch.device(device)) for _ in range(repeats + 1)][1:]
    return 2 * _GEMM_SIDE**3 / statistics.median(seconds) / 1e12


def _timed(work: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    begin = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - begin


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moving_frames(height: int, width: int) -> Iterator[Tensor]:
    """An endless smooth motion (H, W, 3) in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 37.0, torch.arange(width) / 53.0, indexing="ij")
    phase = torch.tensor([0.0, 1.3, 2.6])
    index = 0
    while True:
        yield 0.5 + 0.5 * torch.sin(x[..., None] * 2 + y[..., None] + phase + 0.2 * index)
        index += 1


def _gaps(model: TLBVFI, case: Case) -> Iterator[int]:
    """Runs a video and yields after each batch of gaps, with its number of new frames; the first comes after the
    first frame alone."""
    frames = interpolate_frames(
        model, moving_frames(case.height, case.width), case.times, case.flow_scale, case.sample_steps,
        batch_size=case.batch_size,
    )  # fmt: skip
    per_batch = case.batch_size * 2**case.times
    next(frames)
    yield 0
    while True:
        for _ in range(per_batch):
            next(frames)
        yield per_batch - case.batch_size


def flops_per_frame(model: TLBVFI, case: Case) -> float:
    """Floating-point operations per new frame of a video in its steady state (as PyTorch's counter counts them)."""
    gaps = _gaps(model, case)
    next(gaps)
    model.encode_empty(*_padded(model, case))
    with FlopCounterMode(display=False) as counter:
        new = next(gaps)
    return counter.get_total_flops() / new


def peak_bytes(model: TLBVFI, case: Case) -> int:
    """Peak live tensor bytes, weights apart, over the first gaps of a video."""
    with counting(model) as counter:
        gaps = _gaps(model, case)
        for _ in range(3):
            next(gaps)
        del gaps
    return counter.peak


def _padded(model: TLBVFI, case: Case) -> tuple[int, int]:
    from .padding import padding_for

    return padding_for(case.height, case.width, multiple=model.multiple).padded


def measure(model: TLBVFI, case: Case, repeats: int = 3) -> Result:
    """Measure one case on the model's device."""
    device = model.device
    gaps = _gaps(model, case)
    next(gaps)
    new = next(gaps)  # warm-up
    rates, seconds = [gemm_rate(device)], []
    for _ in range(repeats):
        seconds.append(_timed(lambda: next(gaps), device) / new)
        rates.append(gemm_rate(device))
    gemm, each = statistics.median(rates), statistics.median(seconds)
    with stage_times(model) as spent:
        next(gaps)
    total = sum(spent.values()) or 1.0
    flops = flops_per_frame(model, case)
    return Result(
        case=case,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=each,
        gemm_tflops=gemm,
        normalised=each * gemm,
        tflop=flops / 1e12,
        gemm_share=flops / 1e12 / (each * gemm),
        peak_bytes=peak_bytes(model, case),
        stages={name: value / total for name, value in spent.items()},
    )


@contextmanager
def stage_times(model: TLBVFI) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs, filled in as it goes."""
    encoder, decoder = model.vqgan.encoder, model.vqgan.decoder
    stages: list[tuple[str, nn.Module]] = [("encoder conv_in", encoder.conv_in)]
    stages += [(f"encoder level {i}", level) for i, level in enumerate(encoder.down)]
    stages += [("wavelets", encoder.frequency_extractor), ("encoder middle", encoder.mid)]
    stages += [("bridge", model.denoise_fn), ("coarse flow", decoder.flownet)]
    stages += [(f"refinement level {i - 1}", getattr(decoder.refinenet, f"rf_block{i}")) for i in range(1, 5)]
    stages += [("decoder middle", decoder.mid)]
    stages += [(f"decoder level {i}", level) for i, level in enumerate(decoder.up)]
    inner = {name for name, _ in stages if name.startswith("decoder")}
    stages += [("head and warps", decoder)]
    spent = {name: 0.0 for name, _ in stages}
    begun: dict[str, float] = {}
    hooks = []

    def watch(name: str, module: nn.Module) -> None:
        def before(*_: object) -> None:
            _finish(model.device)
            begun[name] = time.perf_counter()

        def after(*_: object) -> None:
            _finish(model.device)
            duration = time.perf_counter() - begun[name]
            spent[name] += duration
            if name in inner:
                spent["head and warps"] -= duration

        hooks.extend([module.register_forward_pre_hook(before), module.register_forward_hook(after)])

    for name, module in stages:
        watch(name, module)
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def table(results: Sequence[Result]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| size | times | flow scale | dtype | s / frame | TFLOP | normalised | of GEMM | peak GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        c = r.case
        lines.append(
            f"| {c.width}x{c.height} | {c.times} | {c.flow_scale} | {r.dtype} | {r.seconds:.3f} | {r.tflop:.3f} | "
            f"{r.normalised:.3f} | {100 * r.gemm_share:.0f} % | {r.peak_bytes / 2**30:.3f} |"
        )
    return "\n".join(lines)


def stage_table(result: Result) -> str:
    """Where the time of a case goes, largest first, as a Markdown table."""
    lines = ["| stage | share |", "|---|---|"]
    for name, share in sorted(result.stages.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {100 * share:.1f} % |")
    return "\n".join(lines)


def compare(model: TLBVFI, frames: Sequence[Tensor], flow_scale: float = 0.5) -> dict[str, dict[str, float]]:
    """The model and the classical peers on every second frame of a clip; the frames left out are the truth.

    Returns:
        method -> mean PSNR (decibels) over the frames, seconds per new frame, and mean SSIM where scikit-image is
        installed. A peer whose library is absent is left out.
    """
    frames = frames[: len(frames) - (len(frames) + 1) % 2]
    given, truths = list(frames[::2]), frames[1::2]

    def ours(given: Sequence[Tensor]) -> list[Tensor]:
        return list(interpolate_frames(model, given, 1, flow_scale))[1::2]

    methods: dict[str, Peer] = {**PEERS, f"TLB-VFI at flow scale {flow_scale:g}": ours}
    scores = {}
    for name, method in methods.items():
        begin = time.perf_counter()
        try:
            made = method(given)
        except ImportError as error:
            log.info("%s is left out: %s.", name, error)
            continue
        seconds = (time.perf_counter() - begin) / len(truths)
        pairs = list(zip(made, truths, strict=True))
        scores[name] = {"psnr": statistics.fmean(psnr(frame, truth) for frame, truth in pairs), "seconds": seconds}
        with suppress(ImportError):
            scores[name]["ssim"] = statistics.fmean(ssim(frame, truth) for frame, truth in pairs)
    return scores


def peer_table(scores: dict[str, dict[str, float]]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| method | PSNR dB | SSIM | s / frame |", "|---|---|---|---|"]
    for name, score in scores.items():
        similarity = f"{score['ssim']:.4f}" if "ssim" in score else "-"
        lines.append(f"| {name} | {score['psnr']:.2f} | {similarity} | {score['seconds']:.3f} |")
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw normalised time per frame and the share of each stage, case by case.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install matplotlib.") from None
    figure = Figure(figsize=(10, 1.2 + 0.6 * len(results)), layout="constrained")
    axes = figure.subplots()
    stages = sorted({name for result in results for name in result.stages})
    labels = [f"{r.case.width}x{r.case.height} x{2**r.case.times} @{r.case.flow_scale:g} {r.dtype}" for r in results]
    left = [0.0] * len(results)
    for stage in stages:
        widths = [result.stages.get(stage, 0.0) * result.normalised for result in results]
        axes.barh(labels, widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlabel("seconds per new frame x GEMM TFLOP/s")
    axes.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)

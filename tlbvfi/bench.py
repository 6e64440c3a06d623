"""Speed and memory of the model, in figures that survive a change of machine.

Wall time is also given in units of (seconds x the machine's float32 GEMM rate in TFLOP/s), the rate measured before and
after each case: a run that does F TFLOP per frame as fast as the machine multiplies matrices takes F of that unit.
What is measured how, and what came out: docs/PERFORMANCE.md.
"""

from __future__ import annotations

import io
import logging
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .config import load_params
from .counting import counting
from .interpolate import interpolate_frames
from .model import TLBVFI, convert_precision
from .padding import padding_for
from .peers import Peer
from .planning import Plan
from .quality import psnr, ssim

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

log = logging.getLogger(__name__)

_GEMM_SIDE = 2048

#: What asks for :func:`stand_in_model` where a weight file is expected.
STAND_IN = "stand-in"


def stand_in_model(device: torch.device, dtype: torch.dtype = torch.float32) -> TLBVFI:
    """The published model's networks with random weights, always the same: its time and memory, not its frames."""
    generator = torch.Generator().manual_seed(0)
    model = TLBVFI(load_params("vimeo_unet"))
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = values * (0.5 if "embedding" in name else parameter[0].numel() ** -0.5)
        else:
            parameter.data = values * 0.1 + float(name.endswith("weight"))
    return convert_precision(model.finalize(), dtype).to(device)


@dataclass(frozen=True)
class Case:
    """One setting to measure: frames of height x width, 2**times - 1 new ones a gap.

    Attributes:
        strip_rows: rows of the padded frame evaluated at a time, in the frugal way; None for whole maps.
    """

    height: int
    width: int
    times: int = 1
    flow_scale: float = 0.5
    sample_steps: int = 10
    batch_size: int = 1
    strip_rows: int | None = None


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
    elif device.type in ("xpu", "mps"):
        getattr(torch, device.type).synchronize()


def moving_frames(height: int, width: int) -> Iterator[Tensor]:
    """An endless smooth motion (H, W, 3) in [0, 1], to and fro over three frames that are made before the first."""
    y, x = torch.meshgrid(torch.arange(height) / 37.0, torch.arange(width) / 53.0, indexing="ij")
    phase = torch.tensor([0.0, 1.3, 2.6])
    frames = [0.5 + 0.5 * torch.sin(x[..., None] * 2 + y[..., None] + phase + 0.2 * i) for i in range(3)]
    return cycle([*frames, frames[1]])


def _plan(model: TLBVFI, size: tuple[int, int], strip_rows: int | None, batch_size: int = 1) -> Plan:
    """A run on frames of `size` (height, width) in whole maps or in strips, whatever memory that takes."""
    padded = padding_for(*size, multiple=model.multiple).padded
    return Plan(padded, 0, 0, strip_rows or padded[0], batch_size)


def _gaps(model: TLBVFI, case: Case, source: Iterator[Tensor] | None = None) -> Generator[int, None, None]:
    """Runs a video and yields after each batch of gaps, with its number of new frames. From the second batch on,
    what is done for each is the same."""
    size = (case.height, case.width)
    frames = interpolate_frames(
        model, source or moving_frames(*size), case.times, case.flow_scale, case.sample_steps,
        plan=_plan(model, size, case.strip_rows, case.batch_size),
    )  # fmt: skip
    per_batch = case.batch_size * 2**case.times
    next(frames)
    while True:
        for _ in range(per_batch):
            next(frames)
        yield per_batch - case.batch_size


def _sdpa_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


#: What PyTorch's counter leaves out: attention on the CPU.
_UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}


def flops_per_frame(model: TLBVFI, case: Case) -> float:
    """Floating-point operations per new frame of a video in its steady state, multiplication and addition counted
    apart: of convolutions, matrix products and attention, as PyTorch's counter counts them."""
    with _uncompiled(model):
        gaps = _gaps(model, case)
        next(gaps)
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
            new = next(gaps)
    return counter.get_total_flops() / new


def peak_bytes(model: TLBVFI, case: Case) -> int:
    """Peak live tensor bytes, weights apart, over the first gaps of a video."""
    source = moving_frames(case.height, case.width)
    with _uncompiled(model), counting(model) as counter:
        gaps = _gaps(model, case, source)
        for _ in range(2):
            next(gaps)
        gaps.close()
    return counter.peak


def measure(model: TLBVFI, case: Case, repeats: int = 3, name: str = "") -> Result:
    """Measure one case on the model's device."""
    device = model.device
    gaps = _gaps(model, case)
    new = next(gaps)  # warm-up
    rates, seconds = [gemm_rate(device)], []
    for _ in range(repeats):
        seconds.append(_timed(lambda: next(gaps), device) / new)
        rates.append(gemm_rate(device))
    gemm, each = statistics.median(rates), statistics.median(seconds)
    with stage_times(model) as spent:
        next(gaps)
    gaps.close()
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
    )


#: How a module that :func:`torch.compile` compiled, or anything else, is called instead of as usual.
_CALL = "_compiled_call_impl"


@contextmanager
def _replaced(changes: Sequence[tuple[nn.Module, str, object]]) -> Iterator[None]:
    """Attributes of modules are others while the block runs."""
    before = [(owner, name, name in vars(owner), vars(owner).get(name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, was_there, value in before:
            if was_there:
                setattr(owner, name, value)
            else:
                vars(owner).pop(name, None)


@contextmanager
def _uncompiled(model: TLBVFI) -> Iterator[None]:
    """Nothing is compiled while the block runs: counters see single operations only."""
    with _replaced([(m, _CALL, None) for m in model.modules() if getattr(m, _CALL, None) is not None]):
        yield


def _stages(model: TLBVFI) -> list[tuple[str, nn.Module, str]]:
    """Stage, and the module and its method that is the stage (without what it calls of the others).

    A level's time includes reading its input where that is not stored: the first conv, warped features.
    """
    encoder, decoder = model.vqgan.encoder, model.vqgan.decoder
    stages: list[tuple[str, nn.Module, str]] = [("encoder level 0", encoder, "pyramid")]
    stages += [(f"encoder level {i}", level, _CALL) for i, level in enumerate(encoder.down)]
    stages += [("wavelets", encoder.frequency_extractor, _CALL), ("encoder middle", encoder, "clip")]
    stages += [("bridge", model.denoise_fn, _CALL), ("coarse flow", decoder.flownet, _CALL)]
    stages += [(f"refinement level {i - 1}", getattr(decoder.refinenet, f"rf_block{i}"), _CALL) for i in range(1, 5)]
    stages += [("decoder middle", decoder.mid, _CALL)]
    stages += [(f"decoder level {i}", level, _CALL) for i, level in enumerate(decoder.up)]
    return [*stages, ("decoder enlarging", decoder, _CALL), ("head and warps", decoder, "_synthesised")]


@contextmanager
def stage_times(model: TLBVFI) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs, complete when it ends; "rest" is what no stage took."""
    stages, device = _stages(model), model.device
    spent = {name: 0.0 for name, _, _ in stages}
    inner = [0.0]  # seconds of the stages called by each one that runs, outermost first

    def watched(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: Any, **options: Any) -> object:
            _finish(device)
            begin = time.perf_counter()
            inner.append(0.0)
            try:
                return call(*args, **options)
            finally:
                _finish(device)
                duration = time.perf_counter() - begin
                spent[name] += duration - inner.pop()
                inner[-1] += duration

        return timed

    def call_of(module: nn.Module, method: str) -> Callable[..., object]:
        return getattr(module, method, None) or module._call_impl

    changes = [(module, method, watched(name, call_of(module, method))) for name, module, method in stages]
    with _replaced(changes):
        begin = time.perf_counter()
        yield spent
        spent["rest"] = max(0.0, time.perf_counter() - begin - inner[0])


def _rows(result: Result) -> str:
    return "whole" if result.case.strip_rows is None else str(result.case.strip_rows)


def table(results: Sequence[Result]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| model | size | times | flow scale | dtype | rows at a time "
        "| s / frame | normalised | TFLOP | of GEMM | peak GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        c = r.case
        lines.append(
            f"| {r.model} | {c.width}x{c.height} | {c.times} | {c.flow_scale:g} | {r.dtype} | {_rows(r)} | "
            f"{r.seconds:.3f} | {r.normalised:.3f} | {r.tflop:.3f} | {100 * r.gemm_share:.0f} % | "
            f"{r.peak_bytes / 2**30:.3f} |"
        )
    return "\n".join(lines)


def stage_table(result: Result) -> str:
    """Where the time of a case goes, largest first, as a Markdown table."""
    lines = ["| stage | share |", "|---|---|"]
    for name, share in sorted(result.stages.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {100 * share:.1f} % |")
    return "\n".join(lines)


def as_peer(
    model: TLBVFI, size: tuple[int, int], flow_scale: float, strip_rows: int | None = None, steps: int = 10
) -> Peer:
    """The model at frames of `size`, as a method beside the classical ones."""
    plan = _plan(model, size, strip_rows)
    return lambda frames: list(interpolate_frames(model, frames, 1, flow_scale, steps, plan=plan))[1::2]


def compare(frames: Sequence[Tensor], methods: Mapping[str, Peer]) -> dict[str, dict[str, float]]:
    """Methods on every second frame of a clip of at least three; the frames left out are the truth.

    Each method runs on the first pair once before its time counts.

    Returns:
        method -> `seconds` per new frame, and mean `psnr` (decibels) and `ssim` over the new frames. A method whose
        library is absent is left out.
    """
    frames = frames[: len(frames) - (len(frames) + 1) % 2]
    given, truths = list(frames[::2]), frames[1::2]
    scores = {}
    for name, method in methods.items():
        try:
            method(given[:2])
        except ImportError as error:
            log.warning("%s is left out: %s.", name, error)
            continue
        begin = time.perf_counter()
        made = method(given)
        seconds = (time.perf_counter() - begin) / len(truths)
        pairs = list(zip(made, truths, strict=True))
        scores[name] = {
            "seconds": seconds,
            "psnr": statistics.fmean(psnr(frame, truth) for frame, truth in pairs),
            "ssim": statistics.fmean(ssim(frame, truth) for frame, truth in pairs),
        }
    return scores


def peer_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| method | s / frame | PSNR dB | SSIM |", "|---|---|---|---|"]
    for name, score in scores.items():
        lines.append(f"| {name} | {score['seconds']:.4f} | {score['psnr']:.2f} | {score['ssim']:.4f} |")
    return "\n".join(lines)


def _new_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("--plot needs matplotlib, which is not installed: pip install matplotlib.") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_plot(path: Path) -> None:
    """Whether a figure can be drawn into a file of that name: one is, into nothing.

    Raises:
        ValueError: matplotlib is not installed, or cannot write such files here.
    """
    figure = _new_figure(1, 1)
    figure.subplots()  # some kinds fail at their first letter
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(f"{path} is no kind of picture that --plot can write ({', '.join(sorted(kinds))}).")
    try:
        _drawn(figure, path.suffix)
    except Exception as error:  # whatever the library of that kind raises
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"{path.suffix} files cannot be drawn here ({reason}); use .png or .svg.") from None


def _drawn(figure: Figure, kind: str) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format=kind.lower().removeprefix("."))
    return target.getvalue()


def plot(results: Sequence[Result], kind: str = "png") -> bytes:
    """A picture of normalised time per frame, case by case, each bar cut into its stages.

    Raises:
        ValueError: matplotlib is not installed.
    """
    figure = _new_figure(10, 2.5 + 0.5 * len(results))
    axes = figure.subplots()
    places = list(range(len(results)))
    left = [0.0] * len(results)
    stages = list(dict.fromkeys(name for result in results for name in result.stages))
    for index, stage in enumerate(stages):
        widths = [result.stages.get(stage, 0.0) * result.normalised for result in results]
        # There are ten colours: the next ten stages are hatched, and so on.
        hatch = (None, "//", "..", "xx")[index // 10 % 4]
        axes.barh(places, widths, left=left, label=stage, color=f"C{index % 10}", hatch=hatch)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    labels = [
        f"{r.model}\n{r.case.width}x{r.case.height}, times {r.case.times}, flow {r.case.flow_scale:g}, {r.dtype}, "
        f"{'whole maps' if r.case.strip_rows is None else f'{r.case.strip_rows} rows'}"
        for r in results
    ]
    axes.set_yticks(places, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("seconds per new frame x GEMM TFLOP/s")
    axes.legend(fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return _drawn(figure, kind)


def plot_scores(scores: Mapping[str, Mapping[str, float]], kind: str = "png") -> bytes:
    """A picture of the comparison: quality against time, a point for each method.

    Raises:
        ValueError: matplotlib is not installed.
    """
    figure = _new_figure(8, 5)
    axes = figure.subplots()
    for name, score in scores.items():
        axes.scatter(score["seconds"], score["psnr"], label=f"{name} (SSIM {score['ssim']:.4f})")
    axes.set_xscale("log")
    axes.set_xlabel("seconds per new frame")
    axes.set_ylabel("PSNR dB")
    axes.legend(fontsize=7)
    return _drawn(figure, kind)

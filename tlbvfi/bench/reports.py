"""The figures as Markdown tables and as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .measuring import Result
from .work import total

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]


def _strip_height(result: Result) -> str:
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
            f"| {r.model} | {c.width}x{c.height} | {c.times} | {c.flow_scale:g} | {r.dtype} | {_strip_height(r)} | "
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


def work_table(result: Result) -> str:
    """What a graphics card is given to do for a new frame, by stage, as a Markdown table."""
    lines = ["| on a graphics card | operations | GB |", "|---|---|---|"]
    for name, work in [*result.work.items(), ("all", total(result.work))]:
        lines.append(f"| {name} | {work.operations:,.0f} | {work.bytes / 1e9:.2f} |")
    return "\n".join(lines)


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

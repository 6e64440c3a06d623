"""The work of ``bench``."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, product
from pathlib import Path

import torch
from torch import Tensor

from .. import video
from ..bench.cases import Case
from ..bench.comparing import as_peer, compare
from ..bench.measuring import Result, measure
from ..bench.reports import check_plot, peer_table, plot, plot_scores, stage_table, table, work_table
from ..bench.stand_in import stand_in_model
from ..bridge import Schedule
from ..checkpoint import check_entries
from ..compilation import compile_model
from ..config import ModelParams
from ..device_memory import free_memory
from ..files import atomic
from ..frames import check_frame
from ..known_models import BUILT_IN, STAND_IN
from ..model import TLBVFI
from ..peers import PEERS
from ..planning import plan, usable
from ..quality import SSIM_WINDOW
from ..settings import Settings, preset
from .models import device_named, dtype_named, load
from .process import keep_freed_memory
from .running import running
from .weights import weight_file


def run(options: argparse.Namespace) -> None:
    """Check everything that was asked for, then measure it."""
    device = device_named(options.device)
    if options.plot is not None:
        check_plot(options.plot)
    sources = dict.fromkeys(options.model or [None])
    _check_models(options, device, sources)
    if options.own_process:
        keep_freed_memory()
    machine = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()), end="\n\n", flush=True)
    work = _measure_cases if options.clip is None else _compare_on_clip
    work(options, device, sources, machine)


def _check_models(options: argparse.Namespace, device: torch.device, sources: Iterable[str | None]) -> None:
    """Every weight file, its steps, and every size against the memory there is, before the first is measured.

    Raises:
        ValueError: one of them cannot be measured, in one sentence.
    """
    files = {source: weight_file(source) for source in sources if source != STAND_IN}
    free = free_memory(device)
    for source in sources:
        params = ModelParams() if source == STAND_IN else check_entries(files[source])
        for settings in _settings(options).values():
            settings.timesteps(Schedule(params.bridge))
        if options.clip is None and free is not None:
            for dtype, (height, width), scale in product(options.dtype, options.size, options.flow_scale):
                plan(height, width, dtype_named(dtype), scale, usable(free, device), params=params, device=device)


def _loaded(
    options: argparse.Namespace,
    device: torch.device,
    source: str | None,
    dtype: str,
    sources: Iterable[str | None],
) -> tuple[TLBVFI, str]:
    """A model to measure, and its name among those of all sources."""
    model = stand_in_model(device, dtype_named(dtype)) if source == STAND_IN else load(source, device, dtype)
    if options.compile:
        compile_model(model)
    if source is None:
        return model, next(iter(BUILT_IN))
    alike = [other for other in sources if other is not None and Path(other).name == Path(source).name]
    return model, Path(source).name if len(alike) == 1 else source


def _strips(options: argparse.Namespace) -> list[int | None]:
    """Rows at a time, None for whole maps."""
    return [None if rows == "whole" else rows for rows in options.strips]


def _settings(options: argparse.Namespace) -> dict[str, Settings]:
    """Settings that the models are compared with, by what they are called."""
    if options.quality is not None:
        return {name: preset(name) for name in options.quality}
    return {f"flow scale {scale:g}": Settings(flow_scale=scale) for scale in options.flow_scale}


def _measure_cases(
    options: argparse.Namespace, device: torch.device, sources: Iterable[str | None], machine: Mapping[str, object]
) -> None:
    """A table for each case as it is measured, and one of all."""
    results: list[Result] = []
    settings = list(product(options.size, options.times, options.flow_scale, _strips(options)))
    try:
        for source, dtype in product(sources, options.dtype):
            model, name = _loaded(options, device, source, dtype, sources)
            for (height, width), times, scale, rows in settings:
                case = Case(height, width, times, scale, batch_size=options.batch_size, strip_rows=rows)
                with running():
                    results.append(measure(model, case, options.repeats, name))
                tables = table(results[-1:]), stage_table(results[-1]), work_table(results[-1])
                print(*tables, sep="\n\n", end="\n\n", flush=True)
            del model
        if len(results) > 1:
            print(table(results))
    finally:
        # What was measured is kept, whatever came after.
        if results:
            _write_results(options, machine, [r.to_dict() for r in results], lambda kind: plot(results, kind))


def _compare_on_clip(
    options: argparse.Namespace, device: torch.device, sources: Iterable[str | None], machine: Mapping[str, object]
) -> None:
    """A table of the classical methods and of all models asked for."""
    frames = list(islice(video.read_frames(options.clip), options.max_frames))
    size = _check_clip(options.clip, frames)
    with running():
        scores = compare(frames, PEERS)
    for source, dtype in product(sources, options.dtype):
        model, name = _loaded(options, device, source, dtype, sources)
        methods = {}
        for (called, settings), rows in product(_settings(options).items(), _strips(options)):
            cut = "" if rows is None else f", {rows} rows at a time"
            methods[f"{name}, {called}, {dtype}{cut}"] = as_peer(model, size, settings, rows)
        with running():
            scores |= compare(frames, methods)
        if name == STAND_IN:
            print("The stand-in's weights are random: its time is real, its quality is not.", end="\n\n")
    print(peer_table(scores))
    finite = [{k: v if math.isfinite(v) else None for k, v in score.items()} for score in scores.values()]
    content = [{"method": name, **score} for name, score in zip(scores, finite, strict=True)]
    _write_results(options, machine, content, lambda kind: plot_scores(scores, kind))


def _check_clip(path: Path, frames: Sequence[Tensor]) -> tuple[int, int]:
    """(height, width) of frames that can be compared.

    Raises:
        ValueError: they cannot, in one sentence.
    """
    if len(frames) < 3:
        raise ValueError(f"{path} has fewer than three frames, which a comparison needs.")
    size = (frames[0].shape[0], frames[0].shape[1])
    if min(size) < SSIM_WINDOW:
        raise ValueError(f"{path} is {size[1]}x{size[0]}; SSIM needs {SSIM_WINDOW}x{SSIM_WINDOW} at least.")
    for index, frame in enumerate(frames):
        check_frame(frame, index, size)
    return size


def _write_results(
    options: argparse.Namespace,
    machine: Mapping[str, object],
    results: Sequence[Mapping[str, object]],
    draw: Callable[[str], bytes],
) -> None:
    """The files asked for; `draw` gives a picture for a suffix."""
    with running():
        if options.json is not None:
            text = json.dumps({**machine, "results": results}, indent=1)
            with atomic(options.json) as file:
                file.write_text(f"{text}\n", encoding="utf-8")
        if options.plot is not None:
            picture = draw(options.plot.suffix)
            with atomic(options.plot) as file:
                file.write_bytes(picture)

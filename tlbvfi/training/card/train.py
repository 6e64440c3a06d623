"""The parts of a run, one after the other, each in its time."""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path

import torch

from ...model import TLBVFI
from .bridging import train_bridge
from .run import WEIGHTS, Run, write_model

log = logging.getLogger(__name__)


def train(run: Run, start: TLBVFI, resume: Path | None = None) -> None:
    """Measure the model to start from, learn, measure again; all is saved by the end of the run's time, and whatever
    stops it."""
    options = run.options
    if resume is not None:
        run.resume(resume)
    gc.collect()
    gc.freeze()
    began = time.monotonic()
    run.report["average"] = run.judge.average()
    run.measure("before", start)
    spent = time.monotonic() - began
    log.info("measured in %.1f s", spent)
    # The first measure compiles and warms up what the last one has at hand.
    reserve = options.trust + options.bridge + spent + min(10.0, 4.0 + spent)
    try:
        if options.coarse > 0:
            run.learn_coarse(time.monotonic() + options.coarse)
            run.save()
        run.learn(options.until - reserve)
    finally:
        run.save()
    model = run.averaged()
    if options.trust > 0:
        run.report["trust"] = run.learn_trust(model, options.until - reserve + options.trust)
        log.info("trust: %s", run.report["trust"])
        write_model(options.out / WEIGHTS, model, {"steps": str(run.step)})
    if options.bridge > 0:
        batches = run.bridge_batches()
        run.report["bridge"] = train_bridge(model, batches, options.until - reserve + options.trust + options.bridge)
        log.info("bridge: %s", run.report["bridge"])
        write_model(options.out / WEIGHTS, model, {"steps": str(run.step)})
    run.measure("after", model)
    run.write_sheet()
    for title, figures in run.report["after"].items():  # type: ignore[attr-defined]
        before = run.report["before"][title]  # type: ignore[index]
        shown = {name: (round(before[name], 4), round(value, 4)) for name, value in figures.items()}
        log.info("%s: %s", title, shown)
    log.info("done, %.1f s before the end", options.until - time.monotonic())
    if run.device.type == "cuda":
        log.info("%.1f GiB at most", torch.cuda.max_memory_reserved() / 2**30)

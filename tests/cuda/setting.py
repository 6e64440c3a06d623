"""On what the parts run: a device, its models and sizes, and the ways to go there.

A rehearsal goes through the same code on the CPU, with a very small model and small frames: it shows that a check would
run to its end, and nothing about a card.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tlbvfi
from tests.tiny import tiny_model
from tlbvfi.bench.clock import finish, seconds_of
from tlbvfi.bench.measuring import moving_frames
from tlbvfi.bench.stand_in import stand_in_model
from tlbvfi.device_memory import empty_cache
from tlbvfi.kernels.availability import usable
from tlbvfi.model import TLBVFI
from tlbvfi.planning import Plan, batched, plan_for
from tlbvfi.rows.tuning import Tuning, tuned
from tlbvfi.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
GIB = 2**30
_PLENTY = 2**50
#: (height, width) by what a size is called, and the same for a rehearsal.
SIZES = {"512x512": (512, 512), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
REHEARSED_SIZES = {"512x512": (128, 128), "720p": (100, 128), "1080p": (120, 250), "4K": (200, 256)}
#: A size whose largest maps are small, for runs of many pairs.
SMALL = (256, 256)


@dataclass(frozen=True)
class Way:
    """How the model's work reaches the card: steps captured in graphs or not, kernels of our own or PyTorch's."""

    name: str
    graphs: bool
    kernels: bool


#: How near frames of different ways have to be, in float16 and of a peak of 1: they round differently, and as codes of
#: random weights lie close, a few of these are others.
ALIKE_DB = 35.0
WAYS = (
    Way("graphs + kernels", True, True),
    Way("kernels", False, True),
    Way("graphs, plain", True, False),
    Way("plain", False, False),
)
PLAIN = WAYS[-1]


class OutOfTime(BaseException):
    """A part has used up its time: no failure of what it calls, which may catch those."""


class Setting:
    """On what the parts run.

    Attributes:
        device: the card, or the CPU for a rehearsal.
        rehearse: whether this is one.
        out: the folder for what the parts write beside the report.
        deadline: by `time.monotonic`, when the present part has to be over.
    """

    def __init__(self, device: torch.device, out: Path, rehearse: bool = False) -> None:
        self.device, self.out, self.rehearse = device, out, rehearse
        self.sizes = REHEARSED_SIZES if rehearse else SIZES
        self.small = (64, 64) if rehearse else SMALL
        self.sample_steps = 3 if rehearse else 10
        self.deadline = math.inf

    @property
    def left(self) -> float:
        """Seconds that the present part has left."""
        return self.deadline - time.monotonic()

    def go_on(self, needed: float = 0.0) -> None:
        """Raises OutOfTime where the present part has fewer seconds left than needed."""
        if self.left <= needed:
            raise OutOfTime

    def model(self) -> TLBVFI:
        """The published networks with random weights in float16, kept; in a rehearsal a very small model in float32."""
        return _model(self.device, self.rehearse)

    # ---- Ways to go: the one place that knows how graphs and kernels are turned on and off. ----

    def ways(self) -> list[Way]:
        """Those that there are here, the usual one first."""
        if self.rehearse:
            return list(WAYS)
        return [w for w in WAYS if (not w.graphs or graphs_are_there()) and (not w.kernels or usable(self.device))]

    @contextmanager
    def taking(self, way: Way) -> Iterator[None]:
        """The model calls kernels of our own while the block runs, as it does by itself, or does not."""
        with nullcontext() if way.kernels and not self.rehearse else tuned(Tuning()):
            yield

    def new_frames(
        self,
        model: TLBVFI,
        size: tuple[int, int],
        way: Way,
        flow_scale: float = 0.5,
        plan: Plan | None = None,
        source: Iterator[Tensor] | None = None,
        on_step: Callable[[int], object] | None = None,
        times: int = 1,
    ) -> Iterator[Tensor]:
        """The first new frame of each gap of a video, endless unless it is given (see :meth:`unsettled`)."""
        plan = plan or self.plan(model, size, flow_scale)
        if graphs_are_there():
            plan = replace(plan, graphs=way.graphs and plan.graphs)
        frames = tlbvfi.interpolate_frames(
            model, source or cycle(self.frames(size)), times, flow_scale, self.sample_steps, plan=plan, on_step=on_step
        )
        while True:
            with self.taking(way):
                new = list(islice(frames, 2**times))[1:]
            if not new:
                return
            yield new[0]

    @staticmethod
    def frames(size: tuple[int, int]) -> list[Tensor]:
        """Frames of a smooth motion to and fro, kept."""
        return _frames(size)

    def unsettled(self, way: Way) -> int:
        """New frames of a video after which all are made alike: the first gap encodes two frames, and graphs are
        captured when their calls have come up a few times."""
        if self.rehearse or not (way.graphs and graphs_are_there()):
            return 2
        from tlbvfi.graphs import UNCAPTURED_CALLS

        return UNCAPTURED_CALLS + 3

    # ----

    def plan(self, model: TLBVFI, size: tuple[int, int], flow_scale: float, free: int | None = None) -> Plan:
        """What a run would be planned to do, one pair at a time: with so many bytes free, or with all that it likes."""
        settings = Settings(flow_scale=flow_scale, sample_steps=self.sample_steps)
        budget = _PLENTY if free is None else None
        found = plan_for(model, size, settings, free, budget, device=self.device)
        assert found is not None
        return batched(found, 1)

    def finish(self) -> None:
        finish(self.device)

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Wall time of some work, the device waited for before and after."""
        return seconds_of(work, self.device)

    def seconds(self, work: Callable[[], object], repeats: int = 7, most: float = 0.8) -> float:
        """Median wall time of some work, the device waited for: of three repeats at least, and of more until `most`
        seconds have gone; in a rehearsal of one."""
        taken: list[float] = []
        least, repeats = (1, 1) if self.rehearse else (3, repeats)
        while len(taken) < least or (len(taken) < repeats and sum(taken) < most):
            self.go_on()
            taken.append(self.seconds_of(work))
        return statistics.median(taken)

    def clean(self) -> None:
        """What nobody holds is given back, and peaks count from here."""
        gc.collect()
        empty_cache(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> dict[str, float]:
        """GiB allocated and reserved, now and at the peak since :meth:`clean`."""
        if self.device.type != "cuda":
            return {"allocated": 0.0, "reserved": 0.0, "now allocated": 0.0, "now reserved": 0.0}
        return {
            "allocated": torch.cuda.max_memory_allocated(self.device) / GIB,
            "reserved": torch.cuda.max_memory_reserved(self.device) / GIB,
            "now allocated": torch.cuda.memory_allocated(self.device) / GIB,
            "now reserved": torch.cuda.memory_reserved(self.device) / GIB,
        }

    @contextmanager
    def held_to(self, budget: int) -> Iterator[None]:
        """PyTorch gets no more than so many bytes of the card while the block runs."""
        if self.device.type != "cuda":
            yield
            return
        self.clean()
        whole = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / whole), self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
            self.clean()

    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """What does some work again, and where its results come to lie: a CUDA graph of it, or in a rehearsal
        the work itself. It must be given its inputs in one place, and take nothing from the host."""
        if self.device.type != "cuda":
            return work, work()
        side = _side_stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):
                work()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            results = work()
        graph.replay()
        return graph.replay, results

    def call(self, *words: str, name: str, most: float, **environment: str) -> int | None:
        """Run this Python with these arguments in the project's folder, its output in a file of :attr:`out`.

        Returns:
            Its exit code, or None where its time was up (`most` seconds, or what the part has left).
        """
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment}
        with (self.out / f"{name}.txt").open("w", encoding="utf-8") as output:
            try:
                done = subprocess.run(
                    [sys.executable, *words], cwd=ROOT, env=surroundings, stdout=output, stderr=subprocess.STDOUT,
                    timeout=max(1.0, min(most, self.left - 1)), check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return None
        return done.returncode


def graphs_are_there() -> bool:
    """Whether this version captures the steps of a run in graphs."""
    return find_spec("tlbvfi.graphs") is not None


@contextmanager
def warnings_said() -> Iterator[list[str]]:
    """What the package warns of in the log while the block runs."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, logger = Listener(logging.WARNING), logging.getLogger("tlbvfi")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Always the same, as libraries keep memory for each."""
    return torch.cuda.Stream(device)


@lru_cache(maxsize=2)
def _frames(size: tuple[int, int]) -> list[Tensor]:
    return list(islice(moving_frames(*size), 4))


@lru_cache(maxsize=1)  # another one would count among what a run takes
def _model(device: torch.device, tiny: bool) -> TLBVFI:
    return tiny_model() if tiny else stand_in_model(device, torch.float16)


def decibels(value: Tensor, expected: Tensor, peak: float | None = None) -> float:
    """How near values are; the peak is the range of the expected ones unless given."""
    value, expected = value.double().cpu(), expected.double().cpu()
    error = (value - expected).square().mean().item()
    if not math.isfinite(error):
        return -math.inf
    peak = float(expected.max() - expected.min()) if peak is None else peak
    return 300.0 if error == 0 else 10 * math.log10(peak**2 / error)


def machine(device: torch.device) -> dict[str, Any]:
    """What figures belong to."""
    said: dict[str, Any] = {"device": "CPU (rehearsal)"}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        said = {
            "card": card.name,
            "memory GiB": round(card.total_memory / GIB, 1),
            "capability": f"{card.major}.{card.minor}",
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
        }
    triton = find_spec("triton") is not None
    return {
        **said,
        "PyTorch": torch.__version__,
        "Triton": __import__("triton").__version__ if triton else "none",
        "Python": sys.version.split()[0],
        "graphs": graphs_are_there(),
        "kernels": usable(device),
    }


def read_json(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

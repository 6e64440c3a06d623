"""What runs on the hosts of a cluster: one process, one device, a model that is loaded once, segment after segment."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import BinaryIO

import torch
from torch import Tensor

from ..checkpoint import load_model
from ..known_models import resolve_source
from ..model import TLBVFI
from ..planning import Plan, available, plan_for
from ..quoting import escaped
from ..segments import Rounding, Seekable, Segment, make_segment
from ..sources import FileSource, ParcelSource
from ..targets import VideoTarget
from ..video import VideoInfo
from .job import Failed, Film, Hello, Made, Setup, State, Versions

log = logging.getLogger(__name__)

#: Lines of a log that wait to be asked for.
_MOST_LINES = 1000


class _Stopped(Exception):
    """The work is to end."""


class _Told(logging.Handler):
    """Keeps what is logged until it is asked for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(escaped(record.getMessage(), 1500))

    def taken(self) -> tuple[str, ...]:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return tuple(lines)


class Worker:
    """A worker. Its methods are called from several threads, of which one makes a segment."""

    def __init__(self) -> None:
        self._told = _Told()
        logging.getLogger().addHandler(self._told)
        logging.captureWarnings(True)
        self._stop = threading.Event()
        self._frames = 0
        self._files: dict[int, BinaryIO] = {}
        self._reading = threading.Lock()
        self._setup: Setup
        self._model: TLBVFI
        self._plan: Plan | None

    def prepare(self, setup: Setup) -> Hello | Failed:
        """Load the model."""
        try:
            return self._prepared(setup)
        except (ValueError, OSError, RuntimeError) as error:
            return Failed(f"{_host()}: {escaped(str(error), 1500)}", told=self._told.taken())

    def _prepared(self, setup: Setup) -> Hello:
        for name, theirs in vars(setup.versions).items():
            if theirs != (here := getattr(Versions(), name)):
                raise ValueError(f"{name} is {here} there and {theirs} here; install the same everywhere.")
        path = resolve_source(setup.model)
        if not setup.weights.is_at(path):
            raise ValueError(f"{path} is another model than that file is here; put the same everywhere.")
        device = _device(setup.device)
        if device.type == "cpu":
            torch.set_num_threads(setup.threads)
        dtype = setup.dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        self._setup, self._model = setup, load_model(path, device=device, dtype=dtype)
        self._plan = plan_for(self._model, setup.size, setup.settings, available(self._model), setup.memory)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        rounding = Rounding.of(self._plan, setup.batch_size, device)
        return Hello(_host(), os.getpid(), device.type, name, rounding, setup.seen.is_at(setup.source))

    def make(self, film: Film, segment: Segment, *parcels: bytes) -> Made | Failed:
        """Make a segment; its file stays here until it is forgotten.

        Args:
            parcels: the packets of the source that it needs; none where that is at the same path here.
        """
        self._frames = 0
        try:
            source = self._source(film, parcels)
            file = tempfile.TemporaryFile()  # noqa: SIM115  # without a name, so that nothing is left of it
            frames = self._make(film, segment, source, file)
        except _Stopped:
            return Failed("it was stopped", stopped=True, told=self._told.taken())
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            return Failed(escaped(str(error) or type(error).__name__, 1500), told=self._told.taken())
        self._files[segment.first_gap] = file
        return Made(frames, file.seek(0, os.SEEK_END), self._told.taken())

    def _source(self, film: Film, parcels: Sequence[bytes]) -> Seekable:
        if parcels:
            return _Stoppable([ParcelSource(parcel) for parcel in parcels], self._check)
        if not film.seen.is_at(film.source):
            raise ValueError(f"{film.source} is not there as it was when the run was begun.")
        source = FileSource(film.source, film.start, film.end, film.fps, deinterlace=film.deinterlace, alpha=film.alpha)
        return _Stoppable([source], self._check)

    def _make(self, film: Film, segment: Segment, source: Seekable, file: BinaryIO) -> int:
        rounding, plan, batch_size = film.rounding, self._plan, self._setup.batch_size
        if rounding is not None:
            if plan is not None and plan.strip_rows < rounding.rows:
                raise ValueError(
                    f"{self._model.device} has too little free memory for strips of {rounding.rows} rows, as the run "
                    "was begun with; free some, or begin anew with --force and --memory."
                )
            plan, batch_size = rounding.plan(plan), rounding.batch_size
        with rounding.on(self._model.device) if rounding else nullcontext():
            return make_segment(
                self._model,
                source,
                segment,
                VideoTarget(file, source.info, encoding=film.encoding, suffix=film.suffix),
                self._setup.settings,
                film.timeline,
                self._count,
                plan=plan,
                batch_size=batch_size,
                on_step=self._check,
            )

    def _count(self, _: object) -> None:
        self._frames += 1
        self._check()

    def _check(self, _: object = None) -> None:
        if self._stop.is_set():
            raise _Stopped

    def state(self) -> State:
        """How far it is."""
        return State(self._frames, self._told.taken())

    def piece(self, first_gap: int, offset: int, size: int) -> bytes:
        """Some bytes of a segment that is made."""
        with self._reading:
            file = self._files[first_gap]
            file.seek(offset)
            return file.read(size)

    def forget(self, first_gap: int) -> None:
        """Remove the file of a segment."""
        self._files.pop(first_gap).close()

    def stop(self) -> None:
        """Have the work end before the next call of the model."""
        self._stop.set()


class _Stoppable:
    """A source that may end between two frames: a file, or parcels of it."""

    def __init__(self, sources: Sequence[FileSource | ParcelSource], check: Callable[[], None]) -> None:
        """sources: the second one, if any, has the first frame."""
        self._sources, self._check = sources, check

    @property
    def info(self) -> VideoInfo:
        return self._sources[0].info

    def frames(self, first: int = 0) -> Iterator[Tensor]:
        for frame in self._sources[0 if first else -1].frames(first):
            self._check()
            yield frame

    def holds_after(self, index: int) -> bool:
        return self._sources[0].holds_after(index)


def _host() -> str:
    return platform.node()


def _device(kind: str | None) -> torch.device:
    """The card that Ray gives to this process, or the CPU.

    Raises:
        ValueError: PyTorch finds none.
    """
    if kind == "cpu":
        return torch.device("cpu")
    there = {"cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available()}
    found = [name for name, is_there in there.items() if is_there]
    if not found or kind not in (None, found[0]):
        raise ValueError(f"PyTorch finds no graphics card there{f' of the kind {kind}' if kind else ''}.")
    return torch.device(found[0])

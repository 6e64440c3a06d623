"""Deals out the segments of a run to workers under Ray, and takes what they make."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ..files import atomic
from ..quoting import escaped
from ..segments import Journal, Segment, lead_of
from ..sources import FileSource
from .connection import ClusterError
from .job import Failed, Film, Hello, Made, Setup, State
from .worker import Worker

#: How often a segment, or a worker that does not get ready, is tried.
TRIES = 3
#: Bytes of a segment that are on their way at a time.
_PIECE = 8 << 20
#: Seconds between two looks at how far all are.
_TICK = 0.5
#: Ticks without a worker until that is told.
_PATIENCE = 120
#: Seconds that a worker has to end by itself, which it does after a call of the model.
_GRACE = 10.0
#: Calls of a worker at a time: a segment, and what is asked meanwhile.
_CALLS = 4
#: How Ray says that a worker's modules are not there.
_NOT_IMPORTED = ("failed to import on the worker", "ModuleNotFoundError", "ImportError")
#: Codes that colour text in a terminal.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Cores of a host that a card's worker gets, at most: for decoding and encoding.
_CORES = 4


class SegmentFailed(ValueError):
    """A segment that was tried often enough. One sentence."""


@dataclass(frozen=True)
class Share:
    """What of a cluster each worker gets.

    Attributes:
        workers: their number.
        gpus: cards, or the part of one.
        cpus: cores.
    """

    workers: int
    gpus: float
    cpus: int


def share(nodes: Iterable[Mapping[str, float]], workers: int | None, gpus: float | None) -> Share:
    """How a cluster is divided.

    Args:
        nodes: what each host has, by Ray's names.
        workers: as asked for; by default one for every card, or without cards one for every host.
        gpus: of a worker; by default a card where there are any.

    Raises:
        ClusterError: it does not have as much.
    """
    hosts = [(int(node.get("CPU", 0)), node.get("GPU", 0.0)) for node in nodes]
    cards = sum(held for _, held in hosts)
    gpus = gpus if gpus is not None else 1.0 if cards else 0.0
    if gpus:
        most = sum(int(held / gpus + 1e-6) for _, held in hosts)
        if not most:
            raise ClusterError(
                f"the cluster has {cards:g} graphics cards, and --num-gpus {gpus:g} asks for more; give --num-gpus 0 "
                "to compute on its CPUs."
            )
        cores = min(int(cpus * gpus / held) for cpus, held in hosts if held)
        return Share(min(workers or most, most), gpus, min(max(cores, 1), _CORES))
    held = [cpus for cpus, _ in hosts if cpus]
    if sum(held) < (workers or 1):
        raise ClusterError(f"the cluster has {sum(held)} cores for {workers or 1} workers; give fewer with --workers.")
    wanted, each = workers or len(held), max(held)
    while sum(cpus // each for cpus in held) < wanted:
        each -= 1
    return Share(wanted, 0.0, each)


@dataclass(eq=False)
class _Member:
    """A worker, and what it does."""

    number: int
    actor: Any
    coming: Any  # what it promised to say when it is ready
    hello: Hello | None = None
    segment: Segment | None = None
    making: Any = None
    asked: Any = None
    frames: int = 0
    label: str = ""  # its segment, for people
    replaces: bool = False  # one that was lost
    parcels: list[Any] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"worker {self.number} on {self.hello.host}" if self.hello else f"worker {self.number}"


class Workers:
    """Workers on a cluster, each of which is replaced where it is lost."""

    def __init__(self, ray: ModuleType, setup: Setup, part: Share, tell: Callable[[str], object]) -> None:
        """tell: is given lines of the workers' logs."""
        self._ray, self._setup, self._part, self._tell = ray, ray.put(setup), part, tell
        self._class = ray.remote(Worker)
        self._members: list[_Member] = []
        self._number = 0
        self._lost = 0  # one after another, without a segment that was made
        self._next_ask = 0.0
        self._idle = 0  # ticks without a worker
        self._device: str | None = None
        while len(self._members) < part.workers:
            self._add()

    def _add(self) -> None:
        self._number += 1
        options: dict[str, Any] = {"num_cpus": self._part.cpus, "max_concurrency": _CALLS, "max_restarts": 0}
        if self._part.gpus:
            options["num_gpus"] = self._part.gpus
        actor = self._class.options(**options).remote()
        self._members.append(_Member(self._number, actor, actor.prepare.remote(self._setup)))

    def first(self) -> Hello:
        """A worker that is ready, which is waited for.

        Raises:
            ClusterError: one cannot get ready.
        """
        while not (ready := [member.hello for member in self._members if member.hello]):
            self._wait()
        return ready[0]

    def make(
        self,
        film: Film,
        source: FileSource,
        segments: Sequence[Segment],
        journal: Journal,
        sent: bool | None,
        progress: Callable[[int, Sequence[str]], object],
    ) -> None:
        """Make the segments that are not made yet.

        Args:
            source: whose packets go to hosts that do not see it.
            segments: all of them.
            sent: whether they go to all hosts, or to none.
            progress: is told the number of frames that are made, and who does what.

        Raises:
            SegmentFailed: a segment was tried three times.
            ClusterError: there are no workers any more.
            OSError, VideoError: the segments cannot be written, or the source not be read.
        """
        run = _Run(self, film, source, segments, journal, sent)
        while run.left:
            for member in self._members:
                if member.hello and member.segment is None:
                    run.give(member)
            self._ask()
            for member, result in self._wait():
                run.take(member, result)
            progress(run.frames(self._members), run.status(self._members))

    def _ask(self) -> None:
        if time.monotonic() < self._next_ask:
            return
        self._next_ask = time.monotonic() + _TICK
        for member in self._members:
            if member.segment is not None and member.asked is None:
                member.asked = member.actor.state.remote()

    def _wait(self) -> list[tuple[_Member, Made | Failed]]:
        """Wait a moment for something to happen; what became of segments."""
        refs = {}
        for member in self._members:
            for ref in (member.coming, member.making, member.asked):
                if ref is not None:
                    refs[ref] = member
        ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=_TICK)
        self._idle = 0 if ready or any(member.hello for member in self._members) else self._idle + 1
        if self._idle == _PATIENCE:
            self._tell("no worker is ready yet: the cluster may be busy with other work, or its hosts not be there")
        done = []
        for ref in ready:
            member = refs[ref]
            try:
                value = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                if member in self._members:
                    done += self._gone(member, error)
                continue
            done += self._heard(member, ref, value)
        return done

    def _heard(self, member: _Member, ref: Any, value: object) -> list[tuple[_Member, Made | Failed]]:
        if ref == member.coming:
            member.coming = None
            self._arrived(member, value)
            return []
        self._say(member, value.told if isinstance(value, State | Made | Failed) else ())
        if ref == member.asked:
            member.asked = None
            member.frames = value.frames if isinstance(value, State) else 0
            return []
        assert isinstance(value, Made | Failed)
        member.making = None
        member.parcels.clear()
        if isinstance(value, Made):
            self._lost = 0
        return [(member, value)]

    def _say(self, member: _Member, lines: Iterable[str]) -> None:
        where = member.name if member.segment is None else f"{member.label}, {member.name}"
        for line in lines:
            self._tell(f"{where}: {line}")

    def _arrived(self, member: _Member, value: object) -> None:
        if isinstance(value, Failed):
            if not member.replaces:
                raise ClusterError(value.why)
            self._replace(member, value.why)
            return
        assert isinstance(value, Hello)
        if self._device is not None and value.device != self._device:
            raise ClusterError(
                f"{value.host} computes on {value.device} and another host on {self._device}, whose frames differ; "
                "give --device, or --num-gpus 0."
            )
        others = {other.hello.name for other in self._members if other.hello}
        member.hello, self._device = value, value.device
        if others and value.name not in others:
            self._tell(
                f"{member.name} has {value.name}, others have {', '.join(sorted(others))}: frames may differ in "
                "their last bits"
            )

    def _gone(self, member: _Member, error: Exception) -> list[tuple[_Member, Made | Failed]]:
        """A worker that ended, or that cannot be reached: another one takes its place."""
        whole = _COLOURS.sub("", str(error))
        if any(sign in whole for sign in _NOT_IMPORTED):
            last = escaped(whole.strip().splitlines()[-1], 400)
            raise ClusterError(
                f"a host of the cluster cannot import tlbvfi as it is here; install the same there: {last}"
            )
        text = escaped(" ".join(whole.split()), 400)
        self._replace(member, text)
        return [(member, Failed(f"its worker was lost: {text}"))] if member.segment is not None else []

    def _replace(self, member: _Member, why: str) -> None:
        self._members.remove(member)
        with suppress(Exception):
            self._ray.kill(member.actor)
        self._lost += 1
        if self._lost >= TRIES * max(1, self._part.workers):
            raise ClusterError(f"{self._lost} workers were lost one after another, {member.name} last: {why}")
        self._tell(f"{member.name} is lost, and another one takes its place: {why}")
        self._add()
        self._members[-1].replaces = True

    @property
    def members(self) -> Sequence[_Member]:
        return self._members

    def fetch(self, member: _Member, segment: Segment, size: int, path: Path) -> None:
        """Get the file of a segment.

        Raises:
            _Cut: it cannot be had.
            OSError: it cannot be written.
        """
        with atomic(path) as partial:
            try:
                with partial.open("wb") as file:
                    while (offset := file.tell()) < size:
                        piece = self._ray.get(member.actor.piece.remote(segment.first_gap, offset, _PIECE))
                        if not piece:
                            raise _Cut("its file is cut short")
                        file.write(piece)
            except self._ray.exceptions.RayError as error:
                raise _Cut(escaped(" ".join(str(error).split()), 400)) from None

    def close(self) -> None:
        """End all work: each worker within one call of the model, or by force."""
        for member in self._members:
            with suppress(Exception):
                member.actor.stop.remote()
        making = [member.making for member in self._members if member.making is not None]
        if making:
            with suppress(Exception):
                self._ray.wait(making, num_returns=len(making), timeout=_GRACE)
        for member in self._members:
            with suppress(Exception):
                self._ray.kill(member.actor)
        self._members.clear()


class _Cut(Exception):
    """A file that did not come whole."""


class _Run:
    """The segments that are still to be made."""

    def __init__(
        self,
        workers: Workers,
        film: Film,
        source: FileSource,
        segments: Sequence[Segment],
        journal: Journal,
        sent: bool | None,
    ) -> None:
        self._workers, self._source, self._journal, self._sent = workers, source, journal, sent
        self._ray = workers._ray
        self._film, self._suffix = self._ray.put(film), film.suffix
        self._numbers = {segment.first_gap: number for number, segment in enumerate(segments, 1)}
        self._lead = lead_of(film.rounding.pairs if film.rounding else 1)
        self._queue = deque(segment for segment in segments if segment.first_gap not in journal.made)
        self.left = len(self._queue)
        self._failed: Counter[int] = Counter()
        self._tried: set[tuple[int, int]] = set()  # a segment's first gap, a worker's number

    def give(self, member: _Member) -> None:
        """Give a worker its next segment, one that failed with it only where nobody else is there for it."""
        everybody = [other.number for other in self._workers.members if other.hello]
        for segment in self._queue:
            first = segment.first_gap
            if (first, member.number) not in self._tried or all((first, other) in self._tried for other in everybody):
                break
        else:
            return
        self._queue.remove(segment)
        member.segment, member.frames = segment, 0
        member.label = f"segment {self._numbers[segment.first_gap]} of {len(self._numbers)}"
        member.parcels = self._parcels(member, segment)
        member.making = member.actor.make.remote(self._film, segment, *member.parcels)

    def _parcels(self, member: _Member, segment: Segment) -> list[Any]:
        """The packets that a worker needs which does not see the source; they stay in Ray's store while it works."""
        assert member.hello is not None
        if not self._sent and member.hello.sees_source:
            return []
        if self._sent is False:
            raise ClusterError(
                f"{member.hello.host} does not see the same file at the path of IN; put it there, or leave out "
                "--source shared."
            )
        first = max(0, segment.first_gap - self._lead)
        parcels = [self._source.parcel(first, segment.first_gap + segment.gaps + 1 - first)]
        if segment.loop_gap is not None and first:
            parcels.append(self._source.parcel(0, 1))
        return [self._ray.put(parcel) for parcel in parcels]

    def take(self, member: _Member, result: Made | Failed) -> None:
        """What became of a worker's segment."""
        segment, label, member.segment = member.segment, member.label, None
        assert segment is not None
        why = result.why if isinstance(result, Failed) else self._kept(member, segment, result)
        if why is None:
            self.left -= 1
            return
        first = segment.first_gap
        self._failed[first] += 1
        self._tried.add((first, member.number))
        name = f"{label} (frames {first} to {first + segment.gaps} of IN)"
        if self._failed[first] >= TRIES:
            raise SegmentFailed(f"{name} failed {TRIES} times, the last time with {member.name}: {why}")
        self._workers._tell(f"{name} failed with {member.name}, and is tried again: {why}")
        self._queue.appendleft(segment)

    def _kept(self, member: _Member, segment: Segment, made: Made) -> str | None:
        """Keep a segment that is made; the worker goes on with its next one meanwhile. Returns why that failed."""
        path = self._journal.path(segment, self._suffix)
        if member in self._workers.members:
            self.give(member)
        if made.frames:
            try:
                self._workers.fetch(member, segment, made.size, path)
            except _Cut as error:
                return str(error)
        with suppress(Exception):
            member.actor.forget.remote(segment.first_gap)
        self._journal.record(segment, made.frames, path)
        return None

    def frames(self, members: Iterable[_Member]) -> int:
        """Frames of the result that are made."""
        return self._journal.done + sum(member.frames for member in members if member.segment is not None)

    def status(self, members: Iterable[_Member]) -> list[str]:
        """Who does what."""
        return [
            f"{member.name}: {member.label}, {member.frames} frames" for member in members if member.segment is not None
        ]

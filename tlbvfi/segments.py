"""A long run in segments, each of which is safe once it is made, so that the run can be resumed.

The gaps of a video are dealt out to :class:`Segment`s. Each becomes a whole video file of its own in a folder beside
the result; a journal there says what decides the frames and which segments are made. At the end they are joined. A
frame depends on its place in the whole video and not on its segment: they can be made in any order, and by several.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from .engine import Holding, interpolate_video
from .files import Lock, atomic, settle
from .holds import Cuts, Holds
from .model import TLBVFI
from .outputs import Output
from .planning import Plan, repeated
from .settings import Settings
from .targets import VideoTarget
from .timeline import Gap, Piece, Timeline
from .video import Encoding, VideoError, VideoInfo

_JOURNAL = "journal.json"


@dataclass(frozen=True)
class Segment:
    """Some neighbouring gaps of a video, with the frames after each of them.

    Attributes:
        first_gap: the index of its first gap, and of the source frame before that.
        gaps: their number.
        begins: the video's first frame belongs to it.
        ends: what comes after the last gap belongs to it.
        loop_gap: the index of the gap from the last frame to the first one, if that is its last.
    """

    first_gap: int
    gaps: int
    begins: bool
    ends: bool
    loop_gap: int | None = None

    def piece(self, whole: Timeline) -> Piece:
        """What a timeline wants of it."""
        return Piece(whole, self.begins, self.ends, self.loop_gap)


def plan_segments(frames: int, length: int, loop: bool = False) -> list[Segment]:
    """Segments of `length` gaps that together are a video of so many frames; the last one is shorter.

    Args:
        loop: with a gap from the last frame to the first one.
    """
    return segments_at(segment_starts(frames, length, loop), frames, loop)


def segment_starts(
    frames: int, length: int, loop: bool = False, cuts: Sequence[int] = (), multiple: int = 1
) -> list[int]:
    """The first gaps of segments of `length` gaps, or of half as many at least where one can begin with a cut.

    Args:
        cuts: the frames with which scenes begin; nothing new is made in the gap before each.
        multiple: all of them begin at a multiple of this.
    """
    total, length = _gaps(frames, loop), -(-length // multiple) * multiple
    held = [cut - 1 for cut in cuts if (cut - 1) % multiple == 0]
    starts = [0]
    while (following := starts[-1] + length) < total:
        place = bisect_right(held, following) - 1
        starts.append(held[place] if place >= 0 and held[place] > following - length / 2 else following)
    return starts


def segments_at(starts: Sequence[int], frames: int, loop: bool = False) -> list[Segment]:
    """Segments that begin with these gaps."""
    total = _gaps(frames, loop)
    return [
        Segment(
            start,
            end - start,
            begins=start == 0,
            ends=end == total,
            loop_gap=frames - 1 if loop and end == total else None,
        )
        for start, end in zip(starts, [*starts[1:], total], strict=True)
    ]


def _gaps(frames: int, loop: bool) -> int:
    return frames if loop else frames - 1


@dataclass(frozen=True)
class Rounding:
    """What decides the last bits of the frames on one kind of device; a run that is resumed goes on with the same.

    Attributes:
        rows: of a strip (:attr:`.planning.Plan.strip_rows`).
        pairs: that go through the model together, of which segments begin at a multiple.
        batch_size: as it was asked for.
        threads: of a CPU.
    """

    rows: int
    pairs: int
    batch_size: int | None = None
    threads: int | None = None

    @staticmethod
    def of(plan: Plan | None, batch_size: int | None, device: torch.device) -> Rounding | None:
        """That of a run; None where it has no plan, and so may change on the way."""
        if plan is None:
            return None
        threads = torch.get_num_threads() if device.type == "cpu" else None
        return Rounding(plan.strip_rows, batch_size or plan.batch_size, batch_size, threads)

    def plan(self, found: Plan | None) -> Plan | None:
        """A plan that rounds so."""
        return None if found is None else repeated(found, self.rows, 1 if self.batch_size else self.pairs)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Within, a CPU works with so many threads."""
        before = torch.get_num_threads()
        if device.type == "cpu" and self.threads not in (None, before):
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


class JournalError(ValueError):
    """A run that was begun otherwise, or that goes on just now. One sentence."""


@dataclass
class Journal:
    """What is known of a run beyond the process that makes it, in a folder of its own beside the result.

    The folder is locked until :meth:`release` or :meth:`close`, or until the process ends.

    Attributes:
        folder: holds the segments.
        asked: what decides the frames, by the names by which it is asked for.
        frames: of the source, exactly.
        made: frames of the result in each segment that is made, by the segment's first gap.
        starts: the first gaps of all segments; none before they are planned.
        cuts: the frames with which scenes begin, where they were looked for in all of the source beforehand.
        rounding: None where it is not known.
    """

    folder: Path
    asked: Mapping[str, str]
    frames: int
    made: dict[int, int] = field(default_factory=dict)
    starts: tuple[int, ...] = ()
    cuts: tuple[int, ...] | None = None
    rounding: Rounding | None = None
    _lock: Lock | None = None

    @staticmethod
    def folder_of(target: Path) -> Path:
        """Where the segments of a result are."""
        return target.with_name(f"{target.name}.parts")

    @staticmethod
    def opened(target: Path, asked: Mapping[str, str], count: Callable[[], int], force: bool = False) -> Journal:
        """The journal of a result: as an earlier run left it, or a new one.

        Args:
            count: counts the source's frames; called for a new one.
            force: where a run was begun otherwise, begin anew.

        Raises:
            JournalError: a run was begun otherwise, or is writing there just now.
            OSError: the folder cannot be written.
        """
        folder = Journal.folder_of(target)
        is_new = not folder.exists()
        lock = _locked(folder)
        try:
            journal = _opened(folder, asked, count, force)
        except BaseException:
            lock.release()
            if is_new:
                with suppress(OSError):
                    folder.rmdir()
            raise
        journal._lock = lock
        return journal

    def plan(self, starts: Sequence[int], cuts: Sequence[int] | None = None, rounding: Rounding | None = None) -> None:
        """Note how the segments will be made, before the first of them."""
        self.starts, self.cuts, self.rounding = tuple(starts), None if cuts is None else tuple(cuts), rounding
        self._write()

    @property
    def done(self) -> int:
        """Frames of the result that are made."""
        return sum(self.made.values())

    def path(self, segment: Segment, suffix: str) -> Path:
        """The file of a segment."""
        return self.folder / f"{segment.first_gap:09d}{suffix}"

    def parts(self, suffix: str) -> list[Path]:
        """The segments that are made, in order, without those in which no frame comes."""
        return [self.folder / f"{first:09d}{suffix}" for first, frames in sorted(self.made.items()) if frames]

    def record(self, segment: Segment, frames: int, path: Path) -> None:
        """Note that a segment is made and lies on the disk."""
        if frames:
            settle(path)
        self.made[segment.first_gap] = frames
        self._write()

    def close(self) -> None:
        """Remove the folder."""
        _remove(self.folder)
        self.release()

    def release(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.release()

    def _write(self) -> None:
        values: dict[str, Any] = {"asked": dict(self.asked), "frames": self.frames, "made": self.made}
        if self.starts:
            values |= {"starts": self.starts, "cuts": self.cuts}
        if self.rounding is not None:
            values["rounding"] = asdict(self.rounding)
        with atomic(self.folder / _JOURNAL) as file:
            file.write_text(f"{json.dumps(values, indent=1)}\n", encoding="utf-8")
        settle(self.folder)

    def _clear(self) -> None:
        """Remove what was being written when a run ended."""
        kept = {f"{first:09d}" for first, frames in self.made.items() if frames}
        for path in self.folder.iterdir():
            if path.name != _JOURNAL and path.stem not in kept:
                path.unlink()


def _locked(folder: Path) -> Lock:
    """The lock of a journal's folder, which is made where there is none."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            return Lock(folder)
        except FileNotFoundError:  # the run that had it has just removed it
            continue
        except BlockingIOError:
            raise JournalError(
                f"{folder} is being written by another run; wait until that has ended, or give another name as OUT."
            ) from None


def _opened(folder: Path, asked: Mapping[str, str], count: Callable[[], int], force: bool) -> Journal:
    found = _read(folder / _JOURNAL)
    if found is not None:
        difference = _difference(found.asked, asked)
        if difference is None:
            found._clear()
            return found
        if not force:
            raise JournalError(
                f"{folder} holds a run that was begun with another {difference}; ask for the same to resume it, "
                "give --force to begin anew, or another name as OUT."
            )
        _empty(folder)
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise JournalError(f"{folder} is needed, but holds something else; move it, or give another name as OUT.")
    journal = Journal(folder, asked, count())
    journal._write()
    journal._clear()
    return journal


def _read(path: Path) -> Journal | None:
    """The journal in a file; None where there is none."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        made = {int(first): int(frames) for first, frames in values["made"].items()}
        starts = tuple(map(int, values.get("starts", ())))
        cuts = None if values.get("cuts") is None else tuple(map(int, values["cuts"]))
        rounding = Rounding(**values["rounding"]) if "rounding" in values else None
        return Journal(path.parent, dict(values["asked"]), int(values["frames"]), made, starts, cuts, rounding)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What is asked for otherwise than before, as part of a sentence; None where nothing is."""
    for name in (*now, *before):
        if before.get(name) != now.get(name):
            return f"{name} ({before.get(name, 'none')} instead of {now.get(name, 'none')})"
    return None


def _remove(folder: Path) -> None:
    """Remove a journal's folder."""
    _empty(folder)
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    """Remove what is in a journal's folder; the journal last, so that what is left of it is known for what it is."""
    if (folder / _JOURNAL).is_file():
        for path in folder.iterdir():
            if path.name != _JOURNAL:
                path.unlink()
        (folder / _JOURNAL).unlink()


class Seekable(Protocol):
    """A source whose frames can be had from some index on, again and again (see :class:`.sources.FileSource`)."""

    @property
    def info(self) -> VideoInfo: ...

    def frames(self, first: int = 0) -> Iterator[Tensor]: ...


def interpolate_in_segments(
    model: TLBVFI,
    source: Seekable,
    journal: Journal,
    segments: Sequence[Segment],
    settings: Settings,
    timeline: Timeline,
    encoding: Encoding,
    suffix: str,
    on_frame: Callable[[Output], object] | None = None,
    *,
    plan: Plan | None = None,
    batch_size: int | None = None,
) -> None:
    """Make the segments that are not made yet.

    Args:
        segments: all of them, in order.
        timeline: of the whole video. Where it looks for cuts, it is shown the gaps of the segments that are made too.
        suffix: of the result, whose kind of file the segments are.
        on_frame, plan, batch_size: as for :func:`tlbvfi.interpolate_video`.

    Raises:
        ValueError, DeviceMemoryError: as for it. What was made before stays.
    """
    lead = lead_of(_ahead(plan, batch_size))
    if lead and _looks_for_cuts(timeline):
        timeline = _Remembered(timeline, lead)
    reader = SegmentReader(source, lead)
    for segment in segments:
        made = segment.first_gap in journal.made
        if made and not _looks_for_cuts(timeline):
            continue
        if made:
            _show(timeline, segment, reader.window(segment))
            continue
        path = journal.path(segment, suffix)
        frames = make_segment(
            model,
            source,
            segment,
            VideoTarget(path, source.info, encoding=encoding),
            settings,
            timeline,
            on_frame,
            plan=plan,
            batch_size=batch_size,
            reader=reader,
        )
        journal.record(segment, frames, path)


def make_segment(
    model: TLBVFI,
    source: Seekable,
    segment: Segment,
    target: VideoTarget,
    settings: Settings,
    timeline: Timeline,
    on_frame: Callable[[Output], object] | None = None,
    *,
    plan: Plan | None = None,
    batch_size: int | None = None,
    on_step: Callable[[int], object] | None = None,
    reader: SegmentReader | None = None,
) -> int:
    """Make the video of one segment, as it would be in a run of the whole, to the bit.

    Where pairs go through the model together, the features of the frame before a segment are those of a batch before
    it: the gaps of that are made too, and left out.

    Args:
        target: where it goes; nothing is written where no frame comes in the segment.
        timeline, on_frame, plan, batch_size, on_step: as for :func:`tlbvfi.interpolate_video`; the timeline is that of
            the whole video.
        reader: what has read the segments before this one from the source.

    Returns:
        The number of frames.

    Raises:
        ValueError, DeviceMemoryError: as for it.
    """
    lead = min(lead_of(_ahead(plan, batch_size)), segment.first_gap)
    first = segment.first_gap - lead
    before = timeline.until(segment.first_gap) - timeline.until(first) if lead else 0
    reader = reader or SegmentReader(source)
    given = count()

    def told(output: Output) -> None:
        if next(given) >= before and on_frame is not None:
            on_frame(output)

    made = interpolate_video(
        model,
        _Window(source.info, reader.window(segment, lead), source),
        _SegmentTarget(target, before),
        settings,
        segment.piece(timeline),
        told,
        plan=plan,
        first_gap=first,
        batch_size=batch_size,
        on_step=on_step,
    )
    reader.check(segment)
    return made


def lead_of(pairs: int) -> int:
    """Gaps before a segment that are made for it, where so many pairs go through the model together."""
    return pairs if pairs > 1 else 0


def _ahead(plan: Plan | None, batch_size: int | None) -> int:
    return batch_size or (plan.batch_size if plan else 1)


class _Remembered(Holds):
    """A timeline that may be asked for its last gaps again."""

    def __init__(self, inner: Timeline, count: int) -> None:
        super().__init__(inner)
        self._gaps: deque[Gap] = deque(maxlen=count)

    def gap(self, index: int, before: Tensor, after: Tensor) -> Gap:
        for gap in self._gaps:
            if gap.index == index:
                return gap
        self._gaps.append(self.inner.gap(index, before, after))
        return self._gaps[-1]

    def holds(self, index: int, before: Tensor, after: Tensor) -> bool:
        return False


def _looks_for_cuts(timeline: Timeline) -> bool:
    """Whether what a timeline wants of a gap depends on the frames before it."""
    while isinstance(timeline, Holds):
        if isinstance(timeline, Cuts):
            return True
        timeline = timeline.inner
    return False


def _show(timeline: Timeline, segment: Segment, frames: Iterator[Tensor]) -> None:
    """Have a timeline look at the gaps of a segment."""
    piece, before = segment.piece(timeline), next(frames)
    for index, after in enumerate(frames, segment.first_gap):
        piece.gap(index, before, after)
        before = after


class SegmentReader:
    """A source, read once in order as far as segments follow one another."""

    def __init__(self, source: Seekable, lead: int = 0) -> None:
        """lead: gaps before a segment that may be wanted for it."""
        self._source = source
        self._frames: Iterator[Tensor] = iter(())
        self._next = 0  # the index of the frame that comes next
        self._last: deque[Tensor] = deque(maxlen=lead + 1)  # copies of the last frames of the last segment

    def window(self, segment: Segment, lead: int = 0) -> Iterator[Tensor]:
        """The frames before, between and after a segment's gaps, and those of so many gaps before it."""
        if len(self._last) <= lead or self._next != segment.first_gap + 1:
            self._next = segment.first_gap - lead
            self._frames = self._source.frames(self._next)
            self._last.clear()
        else:
            yield from list(self._last)[-1 - lead :]
        own = segment.first_gap + segment.gaps - (segment.loop_gap is not None)
        for frame in islice(self._frames, own + 1 - self._next):
            self._next += 1
            if self._next > own + 1 - (self._last.maxlen or 1):
                self._last.append(frame.clone())
            yield frame
        if segment.loop_gap is not None and self._next == own + 1:
            yield from islice(self._source.frames(), 1)

    def check(self, segment: Segment) -> None:
        """Raises VideoError where a segment's frames were not all there."""
        expected = segment.first_gap + segment.gaps + (segment.loop_gap is None)
        if self._next != expected:
            raise VideoError(
                f"The source ended after {self._next} frames, though it had more when the run was begun; begin anew."
            )


@dataclass(frozen=True)
class _Window:
    """A part of a source."""

    info: VideoInfo
    _frames: Iterator[Tensor]
    _source: Seekable

    def frames(self) -> Iterator[Tensor]:
        return self._frames

    def holds_after(self, index: int) -> bool:
        return isinstance(self._source, Holding) and self._source.holds_after(index)


@dataclass(frozen=True)
class _SegmentTarget:
    """The file of a segment; none where no frame comes in it."""

    target: VideoTarget
    left_out: int  # frames before the segment

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        remaining = islice(frames, self.left_out, None)
        for first in remaining:
            return self.target.write(chain([first], remaining), fps)
        return 0

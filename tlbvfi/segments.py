"""A long run in segments, each of which is safe once it is made, so that the run can be resumed.

The gaps of a video are dealt out to :class:`Segment`s. Each becomes a whole video file of its own in a folder beside
the result; a journal there says what decides the frames and which segments are made. At the end they are joined. A
frame depends on its place in the whole video and not on its segment: they can be made in any order, and by several.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .engine import Holding, interpolate_video
from .files import atomic, settle
from .holds import Cuts, Holds
from .model import TLBVFI
from .outputs import Output
from .planning import Plan
from .settings import Settings
from .targets import VideoTarget
from .timeline import Piece, Timeline
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
    total = frames if loop else frames - 1
    starts = range(0, max(total, 1), length)
    return [
        Segment(
            start,
            min(length, total - start),
            begins=start == 0,
            ends=start == starts[-1],
            loop_gap=frames - 1 if loop and start == starts[-1] else None,
        )
        for start in starts
    ]


class JournalError(ValueError):
    """A run that was begun otherwise. One sentence."""


@dataclass
class Journal:
    """What is known of a run beyond the process that makes it, in a folder of its own beside the result.

    Attributes:
        folder: holds the segments.
        asked: what decides the frames, by the names by which it is asked for.
        frames: of the source, exactly.
        made: frames of the result in each segment that is made, by the segment's first gap.
    """

    folder: Path
    asked: Mapping[str, str]
    frames: int
    made: dict[int, int] = field(default_factory=dict)

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
            JournalError: a run was begun otherwise.
            OSError: the folder cannot be written.
        """
        folder = Journal.folder_of(target)
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
            _remove(folder)
        elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise JournalError(f"{folder} is needed, but holds something else; move it, or give another name as OUT.")
        journal = Journal(folder, asked, count())
        folder.mkdir(exist_ok=True)
        journal._write()
        journal._clear()
        return journal

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

    def _write(self) -> None:
        values = {"asked": dict(self.asked), "frames": self.frames, "made": self.made}
        with atomic(self.folder / _JOURNAL) as file:
            file.write_text(f"{json.dumps(values, indent=1)}\n", encoding="utf-8")
        settle(self.folder)

    def _clear(self) -> None:
        """Remove what was being written when a run ended."""
        kept = {f"{first:09d}" for first, frames in self.made.items() if frames}
        for path in self.folder.iterdir():
            if path.name != _JOURNAL and path.stem not in kept:
                path.unlink()


def _read(path: Path) -> Journal | None:
    """The journal in a file; None where there is none."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        made = {int(first): int(frames) for first, frames in values["made"].items()}
        return Journal(path.parent, dict(values["asked"]), int(values["frames"]), made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What is asked for otherwise than before, as part of a sentence; None where nothing is."""
    for name in (*now, *before):
        if before.get(name) != now.get(name):
            return f"{name} ({before.get(name, 'none')} instead of {now.get(name, 'none')})"
    return None


def _remove(folder: Path) -> None:
    """Remove a journal's folder; the journal last, so that what is left of a folder is known for what it is."""
    if (folder / _JOURNAL).is_file():
        for path in folder.iterdir():
            if path.name != _JOURNAL:
                path.unlink()
    shutil.rmtree(folder)


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
    reader = _Reader(source)
    for segment in segments:
        made = segment.first_gap in journal.made
        if made and not _looks_for_cuts(timeline):
            continue
        frames = reader.window(segment)
        if made:
            _show(timeline, segment, frames)
            continue
        path = journal.path(segment, suffix)
        count = interpolate_video(
            model,
            _Window(source.info, frames, source),
            _SegmentTarget(VideoTarget(path, source.info, encoding=encoding)),
            settings,
            segment.piece(timeline),
            on_frame,
            plan=plan,
            first_gap=segment.first_gap,
            batch_size=batch_size,
        )
        reader.check(segment)
        journal.record(segment, count, path)


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


class _Reader:
    """A source, read once in order as far as segments follow one another."""

    def __init__(self, source: Seekable) -> None:
        self._source = source
        self._frames: Iterator[Tensor] = iter(())
        self._next = 0  # the index of the frame that comes next
        self._last: Tensor | None = None  # a copy of the last frame of the last segment

    def window(self, segment: Segment) -> Iterator[Tensor]:
        """The frames before, between and after a segment's gaps."""
        if self._last is None or self._next != segment.first_gap + 1:
            self._frames = self._source.frames(segment.first_gap)
            self._next = segment.first_gap
        else:
            yield self._last
        own = segment.first_gap + segment.gaps - (segment.loop_gap is not None)
        for frame in islice(self._frames, own + 1 - self._next):
            self._next += 1
            if self._next > own:
                self._last = frame.clone()
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

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        remaining = iter(frames)
        for first in remaining:
            return self.target.write(chain([first], remaining), fps)
        return 0

"""The work of ``interpolate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TextIO

from .. import __version__, video
from ..bridge import Schedule
from ..config import BridgeParams
from ..device_memory import free_memory
from ..engine import Source, Target, interpolate_video
from ..files import put
from ..holds import Cuts, Stills, at_cuts
from ..model import TLBVFI
from ..planning import Plan, available, plan_for
from ..quoting import escaped
from ..scenes import DEFAULT_THRESHOLD, CutStrip, SceneDetector
from ..schedules import timesteps
from ..segments import Journal, Rounding, Segment, interpolate_in_segments, segment_starts, segments_at
from ..settings import Settings, preset
from ..sources import FileSource, Y4mSource
from ..targets import PictureTarget, VideoTarget, Y4mTarget
from ..timeline import Multiplier, TargetRate, Timeline
from . import grammar
from .models import device_named, load
from .process import keep_freed_memory, room_for_fragmentation
from .running import progress_bar, running
from .weights import weight_file

#: Cuts whose places are told.
_MOST_CUTS = 100


def run(options: argparse.Namespace) -> None:
    """Look at the source, load, plan, and go."""
    device = device_named(options.device)
    source = source_of(options)
    info = source.info
    is_video = options.target is None or bool(options.target.suffix)
    if info.fps is None and (options.fps is not None or is_video):
        raise video.VideoError(f"{options.source} does not state its frame rate; give it with --input-fps.")
    cuts = FoundCuts(options)
    timeline = cuts.around(timeline_of(options, info))
    settings = settings_of(options)
    resumed = None
    if isinstance(source, FileSource) and options.resume:
        resumed = Resumed(options, source, settings, device.type)
        if resumed.journal.cuts is not None:
            timeline = cuts.known(timeline_of(options, info), resumed.journal.cuts)
    model = load(options.model, device, options.dtype)
    plan = plan_for(model, (info.height, info.width), settings, available(model), options.memory)
    if options.own_process and (
        device.type != "cpu" or room_for_fragmentation(plan, options.memory or free_memory(device))
    ):
        keep_freed_memory()
    frames = resumed.journal.frames if resumed else info.frame_count
    total = timeline.count(frames) if frames else None
    done = resumed.journal.done if resumed else 0
    name = "frames" if options.target is None else escaped(options.target.name)
    with running(), progress_bar(total, name, done) as on_frame:
        if resumed:
            count = resumed.run(timeline, lambda: resumed.make(model, timeline, plan, on_frame))
        else:
            count = interpolate_video(
                model,
                source,
                _target(options, info),
                settings,
                timeline,
                on_frame,
                plan=plan,
                batch_size=options.batch_size,
            )
        cuts.draw()
    tell(options, info, timeline, count)
    cuts.report(info.fps, _out(options))
    if isinstance(source, FileSource) and not source.is_damaged:
        warn_of_early_end(options.source, resumed.journal.frames if resumed else source.taken, info.frame_count)


def tell(options: argparse.Namespace, info: video.VideoInfo, timeline: Timeline, count: int) -> None:
    """Say what was made."""
    is_video = options.target is None or bool(options.target.suffix)
    made = f"{count} {'frames' if is_video else 'pictures'} of {info.width}x{info.height}"
    if is_video and info.fps is not None:
        made = f"{made} at {rate(timeline.rate(info.fps))} fps"
    name = "standard output" if options.target is None else escaped(str(options.target), 300)
    print(f"{name}: {made}", file=_out(options))


def _out(options: argparse.Namespace) -> TextIO:
    """Where things are said: not among the frames."""
    return sys.stderr if options.target is None else sys.stdout


def rate(fps: Fraction) -> str:
    """Frames per second, as a whole number or as a fraction with its value."""
    return str(fps) if fps.denominator == 1 else f"{fps} = {float(fps):.3f}"


def source_of(options: argparse.Namespace) -> Source:
    deinterlace = options.interlaced == "deinterlace"
    if options.source is None:
        return Y4mSource(sys.stdin.buffer, deinterlace=deinterlace)
    fps = options.input_fps
    if fps is None and options.source.is_dir() and options.fps is not None:
        fps = options.fps / _factor(options)  # such that the result has that rate
    return FileSource(
        options.source, options.start, options.end, fps, deinterlace=deinterlace, alpha=keeps_alpha(options)
    )


def keeps_alpha(options: argparse.Namespace) -> bool:
    """Whether OUT can hold what is transparent in IN."""
    if options.target is None:
        return False
    held: bool = options.encoding.holds_alpha(options.target.suffix.lower())
    return held


def _target(options: argparse.Namespace, info: video.VideoInfo) -> Target[int]:
    if options.target is None:
        return Y4mTarget(sys.stdout.buffer, info)
    if not options.target.suffix:
        return PictureTarget(options.target, info)
    return VideoTarget(options.target, info, _passed_on(options, info), options.encoding)


def _passed_on(options: argparse.Namespace, info: video.VideoInfo) -> video.PassedOn | None:
    """What goes along: nothing beside pictures that are shown faster or slower than they were."""
    if options.source is None:
        return None
    if options.input_fps is not None and options.input_fps != FileSource(options.source).info.fps:
        if info.sound:
            print("The sound is left out: --input-fps changes how fast the video is.", file=sys.stderr)
        return None
    return video.PassedOn(options.source, options.start, options.end)


def _factor(options: argparse.Namespace) -> int:
    """Frames for one."""
    factor: int = options.multiplier or 2 ** (1 if options.times is None else options.times)
    return factor


def timeline_of(options: argparse.Namespace, info: video.VideoInfo) -> Timeline:
    timeline: Timeline
    pictures = options.source is not None and options.source.is_dir()
    if options.fps is not None and (options.input_fps is not None or not pictures):
        assert info.fps is not None
        timeline = TargetRate(info.fps, options.fps, options.loop, options.hold_last)
    else:
        timeline = Multiplier(_factor(options), options.loop, options.hold_last)
    return Stills(timeline, options.still) if options.still else timeline


def settings_of(options: argparse.Namespace) -> Settings:
    asked = {"flow_scale": options.flow_scale, "sample_steps": options.steps, "padding": options.padding}
    changes = {name: value for name, value in asked.items() if value is not None}
    settings = preset(options.quality, seed=options.seed, **changes)
    if options.schedule is None:
        return settings
    return replace(settings, sample_steps=_timesteps(options.schedule, settings.step_count))


def _timesteps(schedule: str | Sequence[int], steps: int) -> Sequence[int]:
    """Those of a schedule by its name, or as listed."""
    return timesteps(schedule, steps, Schedule(BridgeParams()).m.tolist()) if isinstance(schedule, str) else schedule


class FoundCuts:
    """The scene cuts of a run: held, drawn and told."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._threshold = DEFAULT_THRESHOLD if options.scene_cut == grammar.AUTO else options.scene_cut
        self._picture: Path | None = options.cuts_picture
        self._start: Fraction = options.start or Fraction(0)
        if self._picture is not None:
            video.check_picture(self._picture)
        self._strip = CutStrip()
        self._found: list[int] | None = None

    def around(self, timeline: Timeline) -> Timeline:
        """The timeline, held at the cuts where that was asked for."""
        if self._threshold is None:
            return timeline
        on_cut = self._strip.add if self._picture is not None else None
        looking = Cuts(timeline, SceneDetector(self._threshold), on_cut)
        self._found = looking.found
        return looking

    def known(self, timeline: Timeline, found: Sequence[int]) -> Timeline:
        """The timeline, held at cuts that were found before. Where they are to be drawn, they are looked for again."""
        if self._threshold is None or self._picture is not None:
            return self.around(timeline)
        return self.held(timeline, found)

    def held(self, timeline: Timeline, found: Sequence[int]) -> Timeline:
        """The timeline, held at cuts that have been found."""
        self._found = list(found)
        return at_cuts(timeline, found)

    @property
    def found(self) -> Sequence[int] | None:
        """The frames with which scenes begin, as far as they were looked for; None where they are not."""
        return self._found

    @property
    def are_drawn(self) -> bool:
        return self._picture is not None

    def draw(self) -> None:
        """Write the picture that was asked for, where there is something to show."""
        if self._picture is not None and self._found:
            video.write_picture(self._picture, self._strip.picture())

    def report(self, fps: Fraction | None, out: TextIO) -> None:
        """Say where the cuts are: the frames of IN with which scenes begin, and when these are shown."""
        found = self._found
        if found is None:
            return

        def place(index: int) -> str:
            return str(index) if fps is None else f"{index} ({_clock(self._start + index / fps)})"

        told = ", ".join(map(place, found[:_MOST_CUTS])) + (", ..." if len(found) > _MOST_CUTS else "")
        said = f"{len(found)} scene {'cut' if len(found) == 1 else 'cuts'}"
        print(f"{said}, before frame {told}" if found else said, file=out)


def _clock(time: Fraction) -> str:
    """H:MM:SS.mmm."""
    minutes, milliseconds = divmod(round(time * 1000), 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{milliseconds / 1000:06.3f}"


class Resumed:
    """A run in segments, begun now or earlier.

    Attributes:
        journal: what is made of it.
        segments: all of them, once they are planned.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        source: FileSource,
        settings: Settings,
        device: str,
        count: Callable[[], int] | None = None,
    ) -> None:
        """
        Args:
            device: its kind.
            count: counts the source's frames.
        """
        self._options, self._source, self._settings = options, source, settings
        self._target: Path = options.target
        asked = _asked(options, settings, device, source.info.fps)
        self.journal = Journal.opened(self._target.resolve(), asked, count or self._count, options.force)
        self.segments: Sequence[Segment] = ()

    def _count(self) -> int:
        target, source = escaped(self._target.name), escaped(str(self._options.source), 300)
        print(f"{target}: counting the frames of {source} ...", file=sys.stderr)
        return self._source.count()

    def planned(self, rounding: Rounding | None, cuts: Sequence[int] | None = None) -> Rounding | None:
        """Plan the segments, where they were not; returns how the run rounds, now or since it was begun.

        Args:
            rounding: how it would round now.
            cuts: of all of the source.
        """
        journal, loop = self.journal, self._options.loop
        if not journal.starts:
            length = _segment_frames(self._options, self._source.info.fps)
            multiple = rounding.pairs if rounding and not journal.made else 1
            journal.plan(segment_starts(journal.frames, length, loop, cuts or (), multiple), cuts, rounding)
        elif cuts is not None and journal.cuts is None:
            journal.plan(journal.starts, cuts, journal.rounding)
        self.segments = segments_at(journal.starts, journal.frames, loop)
        if made := len(journal.made):
            name = escaped(self._target.name)
            print(f"{name}: {made} of {len(self.segments)} segments are made already.", file=sys.stderr)
        return journal.rounding

    def make(self, model: TLBVFI, timeline: Timeline, plan: Plan | None, on_frame: Callable[[object], None]) -> None:
        """Make what is not made yet, here."""
        batch_size = self._options.batch_size
        rounding = self.planned(Rounding.of(plan, batch_size, model.device))
        with rounding.on(model.device) if rounding else nullcontext():
            interpolate_in_segments(
                model,
                self._source,
                self.journal,
                self.segments,
                self._settings,
                timeline,
                self._options.encoding,
                self._target.suffix,
                on_frame,
                plan=rounding.plan(plan) if rounding else plan,
                batch_size=rounding.batch_size if rounding else batch_size,
            )

    def run(self, timeline: Timeline, make: Callable[[], None]) -> int:
        """Have what is not made yet be made, and join all; returns the number of frames."""
        options, journal, info = self._options, self.journal, self._source.info
        suffix = self._target.suffix
        try:
            make()
            assert info.fps is not None
            whole = journal.folder / f"whole{suffix}"
            passed_on = _passed_on(options, info)
            count = video.join_videos(journal.parts(suffix), whole, fps=timeline.rate(info.fps), passed_on=passed_on)
            put(whole, self._target.resolve())
        except BaseException:
            safe = f"{len(journal.made)} of {len(self.segments)} segments are safe" if self.segments else "The run is"
            print(
                f"\n{safe} in {escaped(str(journal.folder), 300)}; the same command line goes on after them.",
                file=sys.stderr,
            )
            journal.release()
            raise
        journal.close()
        return count


def _segment_frames(options: argparse.Namespace, fps: Fraction | None) -> int:
    """The length of a segment in source frames."""
    asked: int | Fraction = options.segment
    return max(1, round(asked if isinstance(asked, int) else asked * (fps or 1)))


def _asked(options: argparse.Namespace, settings: Settings, device: str, fps: Fraction | None = None) -> dict[str, str]:
    """All that decides the frames of a run, by the names of the command line."""
    asked = {
        "IN": _identity(options.source),
        "--model": _identity(weight_file(options.model)),
        "--times or --multiplier": _factor(options),
        "--flow-scale": settings.flow_scale,
        "--steps": settings.step_count,
        "--padding": settings.padding,
        "--seed": settings.seed,
        "--device": device,
        "--segment": _segment_frames(options, fps),
        "version of tlbvfi": __version__,
    }
    others = "fps input_fps start end interlaced loop hold_last scene_cut still dtype codec crf"
    asked |= {f"--{name.replace('_', '-')}": getattr(options, name) for name in others.split()}
    if not isinstance(settings.sample_steps, int):
        asked["--schedule"] = ",".join(map(str, settings.sample_steps))
    return {name: "none" if value is None else str(value) for name, value in asked.items()}


def _identity(path: Path) -> str:
    """A file, or a folder with its files, as it is now."""
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
    states = [file.stat() for file in files]
    size, latest = sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
    return f"{path.resolve()}, {len(files)} files, {size} bytes, changed {latest}"


def warn_of_early_end(source: Path, found: int, stated: int | None) -> None:
    """A file that was cut short says of more frames than there are; by a few it may be wrong anyway."""
    if stated is not None and found < 0.9 * stated - 2:
        name = escaped(str(source), 300)
        print(f"{name} ended after {found} of {stated} frames: it may be cut short or damaged.", file=sys.stderr)

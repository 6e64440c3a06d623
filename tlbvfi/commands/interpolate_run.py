"""The work of ``interpolate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TextIO

import torch

from .. import __version__, video
from ..bridge import Schedule
from ..config import BridgeParams
from ..device_memory import free_memory
from ..engine import Source, Target, interpolate_video
from ..files import put
from ..holds import Cuts, Stills
from ..model import TLBVFI
from ..planning import Plan, available, plan_for
from ..quoting import escaped
from ..scenes import DEFAULT_THRESHOLD, CutStrip, SceneDetector
from ..schedules import timesteps
from ..segments import Journal, interpolate_in_segments, plan_segments
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
    source = _source(options)
    info = source.info
    is_video = options.target is None or bool(options.target.suffix)
    if info.fps is None and (options.fps is not None or is_video):
        raise video.VideoError(f"{options.source} does not state its frame rate; give it with --input-fps.")
    cuts = _Cuts(options)
    timeline = cuts.around(_timeline(options, info))
    settings = _settings(options)
    resumed = _Resumed(options, source, settings, device) if isinstance(source, FileSource) and options.resume else None
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
            count = resumed.run(model, timeline, plan, on_frame)
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
    made = f"{count} {'frames' if is_video else 'pictures'} of {info.width}x{info.height}"
    if is_video and info.fps is not None:
        made = f"{made} at {rate(timeline.rate(info.fps))} fps"
    out = sys.stderr if options.target is None else sys.stdout
    print(f"{'standard output' if options.target is None else escaped(str(options.target), 300)}: {made}", file=out)
    cuts.report(info.fps, out)
    if isinstance(source, FileSource) and not source.is_damaged:
        _warn_of_early_end(options.source, resumed.journal.frames if resumed else source.taken, info.frame_count)


def rate(fps: Fraction) -> str:
    """Frames per second, as a whole number or as a fraction with its value."""
    return str(fps) if fps.denominator == 1 else f"{fps} = {float(fps):.3f}"


def _source(options: argparse.Namespace) -> Source:
    deinterlace = options.interlaced == "deinterlace"
    if options.source is None:
        return Y4mSource(sys.stdin.buffer, deinterlace=deinterlace)
    fps = options.input_fps
    if fps is None and options.source.is_dir() and options.fps is not None:
        fps = options.fps / _factor(options)  # such that the result has that rate
    return FileSource(
        options.source, options.start, options.end, fps, deinterlace=deinterlace, alpha=_keeps_alpha(options)
    )


def _keeps_alpha(options: argparse.Namespace) -> bool:
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


def _timeline(options: argparse.Namespace, info: video.VideoInfo) -> Timeline:
    timeline: Timeline
    pictures = options.source is not None and options.source.is_dir()
    if options.fps is not None and (options.input_fps is not None or not pictures):
        assert info.fps is not None
        timeline = TargetRate(info.fps, options.fps, options.loop, options.hold_last)
    else:
        timeline = Multiplier(_factor(options), options.loop, options.hold_last)
    return Stills(timeline, options.still) if options.still else timeline


def _settings(options: argparse.Namespace) -> Settings:
    asked = {"flow_scale": options.flow_scale, "sample_steps": options.steps, "padding": options.padding}
    changes = {name: value for name, value in asked.items() if value is not None}
    settings = preset(options.quality, seed=options.seed, **changes)
    if options.schedule is None:
        return settings
    return replace(settings, sample_steps=_timesteps(options.schedule, settings.step_count))


def _timesteps(schedule: str | Sequence[int], steps: int) -> Sequence[int]:
    """Those of a schedule by its name, or as listed."""
    return timesteps(schedule, steps, Schedule(BridgeParams()).m.tolist()) if isinstance(schedule, str) else schedule


class _Cuts:
    """The scene cuts of a run: held, drawn and told."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._threshold = DEFAULT_THRESHOLD if options.scene_cut == grammar.AUTO else options.scene_cut
        self._picture: Path | None = options.cuts_picture
        self._start: Fraction = options.start or Fraction(0)
        if self._picture is not None:
            video.check_picture(self._picture)
        self._strip = CutStrip()
        self._timeline: Cuts | None = None

    def around(self, timeline: Timeline) -> Timeline:
        """The timeline, held at the cuts where that was asked for."""
        if self._threshold is None:
            return timeline
        on_cut = self._strip.add if self._picture is not None else None
        self._timeline = Cuts(timeline, SceneDetector(self._threshold), on_cut)
        return self._timeline

    def draw(self) -> None:
        """Write the picture that was asked for, where there is something to show."""
        if self._picture is not None and self._timeline is not None and self._timeline.found:
            video.write_picture(self._picture, self._strip.picture())

    def report(self, fps: Fraction | None, out: TextIO) -> None:
        """Say where the cuts are: the frames of IN with which scenes begin, and when these are shown."""
        if self._timeline is None:
            return
        found = self._timeline.found

        def place(index: int) -> str:
            return str(index) if fps is None else f"{index} ({_clock(self._start + index / fps)})"

        told = ", ".join(map(place, found[:_MOST_CUTS])) + (", ..." if len(found) > _MOST_CUTS else "")
        said = f"{len(found)} scene {'cut' if len(found) == 1 else 'cuts'}"
        print(f"{said}, before frame {told}" if found else said, file=out)


def _clock(time: Fraction) -> str:
    """H:MM:SS.mmm."""
    minutes, milliseconds = divmod(round(time * 1000), 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{milliseconds / 1000:06.3f}"


class _Resumed:
    """A run in segments, begun now or earlier."""

    def __init__(
        self, options: argparse.Namespace, source: FileSource, settings: Settings, device: torch.device
    ) -> None:
        self._options, self._source, self._settings = options, source, settings
        self._target: Path = options.target
        asked = _asked(options, settings, device)
        self.journal = Journal.opened(self._target.resolve(), asked, self._count, options.force)
        self._segments = plan_segments(self.journal.frames, options.segment, options.loop)
        if made := len(self.journal.made):
            print(
                f"{escaped(self._target.name)}: {made} of {len(self._segments)} segments are made already.",
                file=sys.stderr,
            )

    def _count(self) -> int:
        target, source = escaped(self._target.name), escaped(str(self._options.source), 300)
        print(f"{target}: counting the frames of {source} ...", file=sys.stderr)
        return self._source.count()

    def run(self, model: TLBVFI, timeline: Timeline, plan: Plan | None, on_frame: Callable[[object], None]) -> int:
        """Make what is not made yet, and join all; returns the number of frames."""
        options, journal, info = self._options, self.journal, self._source.info
        suffix = self._target.suffix
        try:
            interpolate_in_segments(
                model,
                self._source,
                journal,
                self._segments,
                self._settings,
                timeline,
                options.encoding,
                suffix,
                on_frame,
                plan=plan,
                batch_size=options.batch_size,
            )
        except BaseException:
            print(
                f"\n{len(journal.made)} of {len(self._segments)} segments are safe in "
                f"{escaped(str(journal.folder), 300)}; the same "
                "command line goes on after them.",
                file=sys.stderr,
            )
            raise
        assert info.fps is not None
        whole = journal.folder / f"whole{suffix}"
        passed_on = _passed_on(options, info)
        count = video.join_videos(journal.parts(suffix), whole, fps=timeline.rate(info.fps), passed_on=passed_on)
        put(whole, self._target.resolve())
        journal.close()
        return count


def _asked(options: argparse.Namespace, settings: Settings, device: torch.device) -> dict[str, str]:
    """All that decides the frames of a run, by the names of the command line."""
    asked = {
        "IN": _identity(options.source),
        "--model": _identity(weight_file(options.model)),
        "--times or --multiplier": _factor(options),
        "--flow-scale": settings.flow_scale,
        "--steps": settings.step_count,
        "--padding": settings.padding,
        "--seed": settings.seed,
        "--device": device.type,
        "version of tlbvfi": __version__,
    }
    others = "fps input_fps start end interlaced loop hold_last scene_cut still dtype codec crf segment"
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


def _warn_of_early_end(source: Path, found: int, stated: int | None) -> None:
    """A file that was cut short says of more frames than there are; by a few it may be wrong anyway."""
    if stated is not None and found < 0.9 * stated - 2:
        name = escaped(str(source), 300)
        print(f"{name} ended after {found} of {stated} frames: it may be cut short or damaged.", file=sys.stderr)

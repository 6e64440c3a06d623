"""The work of ``interpolate --cluster``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

from tqdm import tqdm

from .. import video
from ..cluster.connection import connected
from ..cluster.driver import Workers, share
from ..cluster.job import Film, Fingerprint, Hello, Setup, Versions
from ..known_models import BUILT_IN
from ..quoting import escaped
from ..settings import Settings
from ..sources import FileSource
from ..timeline import Multiplier, Timeline
from .interpolate_run import (
    FoundCuts,
    Resumed,
    keeps_alpha,
    settings_of,
    source_of,
    tell,
    timeline_of,
    warn_of_early_end,
)
from .models import dtype_named
from .running import bar, running
from .weights import weight_file


def run(options: argparse.Namespace) -> None:
    """Look at the source, find workers, deal out the segments, and join them."""
    source = source_of(options)
    assert isinstance(source, FileSource)
    info = source.info
    if info.fps is None:
        raise video.VideoError(f"{options.source} does not state its frame rate; give it with --input-fps.")
    cuts = FoundCuts(options)
    timeline, settings = timeline_of(options, info), settings_of(options)
    seen = Fingerprint.of(options.source)
    with connected(options.cluster) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        part = share(nodes, options.workers, 0.0 if options.device == "cpu" else options.num_gpus)
        setup = _setup(options, settings, (info.height, info.width), part.cpus, part.gpus > 0, seen)
        with closing(Workers(ray, setup, part, _said)) as workers:
            first = workers.first()
            _said(_described(part.workers, first, ray.get_runtime_context().gcs_address))
            count, frames = _made(options, source, workers, first, cuts, timeline, settings, seen)
    tell(options, info, timeline, count)
    cuts.report(info.fps, sys.stdout)
    if not source.is_damaged:
        warn_of_early_end(options.source, frames, info.frame_count)


def _described(workers: int, first: Hello, address: str) -> str:
    device = first.device if first.name == first.device else f"{first.device} ({first.name})"
    return f"{workers} {'worker' if workers == 1 else 'workers'} on {device} under the Ray at {address}"


def _said(line: str) -> None:
    tqdm.write(escaped(line, 2000), file=sys.stderr)


def _setup(
    options: argparse.Namespace, settings: Settings, size: tuple[int, int], cpus: int, on_card: bool, seen: Fingerprint
) -> Setup:
    weights = weight_file(options.model)
    built_in = options.model is None or options.model in BUILT_IN
    return Setup(
        Versions(),
        (options.model or next(iter(BUILT_IN))) if built_in else str(weights.resolve()),
        Fingerprint.of(weights),
        "cpu" if not on_card else None if options.device == "auto" else options.device,
        None if options.dtype == "auto" else dtype_named(options.dtype),
        cpus,
        size,
        settings,
        options.memory,
        options.batch_size,
        options.source.resolve(),
        seen,
    )


def _made(
    options: argparse.Namespace,
    source: FileSource,
    workers: Workers,
    first: Hello,
    cuts: FoundCuts,
    timeline: Timeline,
    settings: Settings,
    seen: Fingerprint,
) -> tuple[int, int]:
    """Make and join all; returns the number of frames, and of those of the source."""
    resumed = Resumed(options, source, settings, first.device, lambda: _counted(options, source, cuts))
    journal = resumed.journal
    found = cuts.found if cuts.found is not None else journal.cuts
    if options.scene_cut is not None and (found is None or (cuts.are_drawn and cuts.found is None)):
        _counted(options, source, cuts)
        found = cuts.found
    if found is not None:
        timeline = cuts.held(timeline, found)
    rounding = resumed.planned(first.rounding, found)
    film = Film(
        options.source.resolve(),
        seen,
        options.start,
        options.end,
        source.rate,
        options.interlaced == "deinterlace",
        keeps_alpha(options),
        timeline,
        rounding,
        options.encoding,
        options.target.suffix,
    )
    sent = {"auto": None, "shared": False, "sent": True}[options.reach]
    name, total = escaped(options.target.name), timeline.count(journal.frames)
    with running(), bar(total, name, journal.done) as drawn:

        def progress(done: int, who: Sequence[str]) -> None:
            drawn.set_postfix_str("; ".join(who), refresh=False)
            drawn.update(done - drawn.n)

        count = resumed.run(timeline, lambda: workers.make(film, source, resumed.segments, journal, sent, progress))
        cuts.draw()
    return count, journal.frames


def _counted(options: argparse.Namespace, source: FileSource, cuts: FoundCuts) -> int:
    """Count the frames of the source, and where cuts are asked for find them on the way."""
    name, target = escaped(str(options.source), 300), escaped(options.target.name)
    if options.scene_cut is None:
        print(f"{target}: counting the frames of {name} ...", file=sys.stderr)
        return source.count()
    print(f"{target}: looking for the scene cuts of {name} ...", file=sys.stderr)
    looking = cuts.around(Multiplier(1, options.loop))
    frames = source.frames()
    before = opening = next(frames, None)
    count = 0
    if before is None or opening is None:
        return 0
    opening = before = opening.clone()
    for count, after in enumerate(frames, 1):
        looking.gap(count - 1, before, after)
        before = after.clone()
    if options.loop:
        looking.gap(count, before, opening)
    return count + 1

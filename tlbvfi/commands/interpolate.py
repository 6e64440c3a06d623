"""``interpolate``: new frames between the frames of a video."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import video
from ..cluster.connection import AUTO, LOCAL, check_address, package
from ..config import BridgeParams, preset_names
from ..files import is_special
from ..obstacles import is_same, unwritable_file
from ..ranges import MIN_STEPS, STILL_THRESHOLD
from ..schedules import SCHEDULES, most_steps
from ..timeline import MAX_DEPTH
from ..video.containers import CONTAINERS
from . import grammar
from .signals import starting
from .weights import MODEL_HELP, weight_file

EXAMPLE = "in.mp4 out.mp4 --times 1"
#: Source frames between two safe points of a run that can be resumed: a minute or so of work.
_SEGMENT = 240


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "interpolate", run, "Put new frames between the frames of a video; the sound goes along.", EXAMPLE
    )
    command.add_argument(
        "source", metavar="IN", type=grammar.file_or_pipe,
        help="a video, an animated picture, a folder of pictures, or - for YUV4MPEG2 on standard input",
    )  # fmt: skip
    command.add_argument(
        "target", metavar="OUT", type=grammar.file_or_pipe,
        help=f"a video or an animated picture ({' '.join(video.SUFFIXES)}), a new or empty folder for pictures, or - "
        "for YUV4MPEG2 on standard output",
    )  # fmt: skip
    _add_timeline(command.add_argument_group("which frames come"))
    _add_making(command.add_argument_group("how new ones are made"))
    _add_encoding(command.add_argument_group("how they are written"))
    _add_cluster(command.add_argument_group("many cards and hosts"))


def _add_timeline(command: grammar.Arguments) -> None:
    many = command.add_mutually_exclusive_group()
    many.add_argument(
        "--times", type=grammar.number_between(0, MAX_DEPTH), metavar="N",
        help="halve each gap N times: 2^N times the frames; None: once, where nothing else says how many",
    )  # fmt: skip
    many.add_argument(
        "--multiplier", type=grammar.number_between(1, 2**MAX_DEPTH), metavar="M",
        help=f"M times the frames, any whole number to {2**MAX_DEPTH}",
    )  # fmt: skip
    command.add_argument(
        "--fps", type=grammar.rate, metavar="F",
        help="frames per second of the result, such as 60, 59.94 or 60000/1001, the motion as fast as it was; for a "
        "folder of pictures without --input-fps the rate at which what --times or --multiplier makes is shown",
    )  # fmt: skip
    command.add_argument(
        "--input-fps", type=grammar.rate, metavar="F",
        help="frames per second of IN: of pictures, or in place of what a video states; None: as it states",
    )  # fmt: skip
    command.add_argument(
        "--start", type=grammar.time, metavar="TIME", help="only what is shown from here on: seconds, or H:MM:SS.mmm"
    )
    command.add_argument("--end", type=grammar.time, metavar="TIME", help="only what is shown before this")
    command.add_argument(
        "--interlaced", choices=("deinterlace", "leave"), default="deinterlace",
        help="what becomes of frames that are two fields: whole pictures, as many, or as they are",
    )  # fmt: skip
    end = command.add_mutually_exclusive_group()
    end.add_argument("--loop", action="store_true", help="the last frame leads back to the first one")
    end.add_argument("--hold-last", action="store_true", help="the last frame is shown as long as the others")
    command.add_argument(
        "--scene-cut", type=grammar.threshold_or_auto, nargs="?", const=grammar.AUTO, metavar="THRESHOLD",
        help="repeat frames at scene cuts instead of melting two scenes into one another, and say where these are; "
        "THRESHOLD is from 0 to 1, without it one that suits most video; None: off",
    )  # fmt: skip
    command.add_argument(
        "--cuts-picture", type=grammar.file, metavar="FILE", help="draw the frames beside each cut that was found"
    )
    command.add_argument(
        "--still", type=grammar.threshold, default=STILL_THRESHOLD, metavar="THRESHOLD",
        help="repeat frames where two neighbours differ by less, from 0 to 1; 0: never",
    )  # fmt: skip


def _add_making(command: grammar.Arguments) -> None:
    command.add_argument(
        "--quality", choices=preset_names(), default="fast", help="settings of --steps and --flow-scale"
    )
    command.add_argument(
        "--flow-scale", type=grammar.flow_scale, metavar="S",
        help="size at which motion is estimated, 0.1 to 1; smaller for larger motion; None: as --quality says",
    )  # fmt: skip
    count = BridgeParams().num_timesteps
    steps = grammar.number_between(MIN_STEPS, count)
    command.add_argument("--steps", type=steps, metavar="N", help="steps of the diffusion; None: as --quality says")
    command.add_argument(
        "--schedule", type=grammar.schedule_below(count), metavar="NAME|LIST",
        help=f"how these steps are spread ({', '.join(SCHEDULES)}), or the timesteps, such as 999,749,500,1,0; "
        "None: linear, as published",
    )  # fmt: skip
    grammar.add_padding(command, "published pads as the published code does; None: as --quality says", default=None)
    command.add_argument(
        "--seed", type=grammar.number_between(0, 2**64 - 1), default=0, metavar="N", help="same seed, same frames"
    )
    command.add_argument("--model", metavar="FILE", help=MODEL_HELP)
    grammar.add_device(command)
    command.add_argument(
        "--dtype", default="auto", type=grammar.dtype_or_auto,
        help="float32, float16 or bfloat16; auto: float16 on CUDA, else float32",
    )  # fmt: skip
    command.add_argument(
        "--memory", type=grammar.gibibytes, metavar="GIB",
        help="memory of the device that may be used; None: what is free on a graphics card, or on Linux for the CPU",
    )  # fmt: skip
    command.add_argument(
        "--batch-size", type=grammar.number_between(1, 64), metavar="N",
        help="gaps that go through the model together, the frames are the same; None: as fits the memory",
    )  # fmt: skip


def _add_encoding(command: grammar.Arguments) -> None:
    command.add_argument(
        "--codec", choices=("auto", *video.CODECS), default="auto", metavar="NAME",
        help=f"auto, {', '.join(video.CODECS)}; auto: the usual one of OUT's kind of file",
    )  # fmt: skip
    command.add_argument(
        "--crf", type=grammar.number_between(0, 63), metavar="N",
        help="quality of the encoded video; lower is better and larger; None: the codec's usual one",
    )  # fmt: skip
    command.add_argument("--force", action="store_true", help="replace OUT where it exists")
    command.add_argument(
        "--resume", action="store_true",
        help="write OUT in segments into a folder beside it; the same command line goes on after the last whole one",
    )  # fmt: skip
    command.add_argument(
        "--segment", type=grammar.segment, default=_SEGMENT, metavar="FRAMES|SECONDSs",
        help="length of a segment of --resume and --cluster: source frames, or seconds such as 10s; longer by a few "
        "where several gaps go through the model together",
    )  # fmt: skip


def _add_cluster(command: grammar.Arguments) -> None:
    command.add_argument(
        "--cluster", nargs="?", const=AUTO, metavar="ADDRESS",
        help="have the segments made by all cards, or hosts, of a Ray (docs/CLUSTER.md), and go on as --resume does: "
        f"HOST:PORT, {LOCAL} for one of this host that ends with the run, or {AUTO}: one that runs here, else a local "
        "one; None: without",
    )  # fmt: skip
    command.add_argument(
        "--workers", type=grammar.number_between(1, 10_000), metavar="N",
        help="how many, at most; None: one for every card, or without cards one for every host",
    )  # fmt: skip
    command.add_argument(
        "--num-gpus", type=grammar.part, metavar="G",
        help="cards of a worker, from 0 (its CPU) to 1; less than 1 for several on a card; None: 1 where there are any",
    )  # fmt: skip
    command.add_argument(
        "--source", dest="reach", choices=("auto", "shared", "sent"), default="auto",
        help="how workers come to IN: by its path, or as packets through Ray; auto: by its path where they see it",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Check what needs no model, then load, plan, and go."""
    options.encoding = video.Encoding(options.codec, options.crf)
    _check_files(options)
    _check_rates(options)
    _check_pipes(options)
    _check_cuts_picture(options)
    _check_schedule(options)
    _check_cluster(options)
    video.Excerpt(options.start, options.end)
    weight_file(options.model)
    with starting():
        from . import cluster_run, interpolate_run

    (interpolate_run if options.cluster is None else cluster_run).run(options)


def _check_files(options: argparse.Namespace) -> None:
    source: Path | None = options.source
    target: Path | None = options.target
    if source is not None:
        video.check_source(source)
    if target is not None:
        video.check_target(target, source, options.encoding, force=options.force)
    if (options.codec != "auto" or options.crf is not None) and (target is None or not target.suffix):
        raise video.VideoError("--codec and --crf are for video files; give such a file as OUT, or leave them out.")
    if not (options.resume or options.cluster) or (source and target and _can_be_joined(target)):
        return
    name = "--cluster" if options.cluster else "--resume"
    raise video.VideoError(f"{name} needs files: a video or a folder of pictures as IN, and a video file as OUT.")


def _can_be_joined(target: Path) -> bool:
    kind = CONTAINERS.get(target.suffix.lower())
    return kind is not None and not kind.is_animation and not is_special(target)


def _check_rates(options: argparse.Namespace) -> None:
    """--fps beside --times, --multiplier and --input-fps."""
    counted = options.times is not None or options.multiplier is not None
    pictures = options.source is not None and options.source.is_dir()
    exact = not pictures or options.input_fps is not None
    if options.fps is not None and counted and exact:
        raise ValueError("--fps says how many frames come, as --times and --multiplier do; give one of the three.")
    if not pictures or options.input_fps is not None:
        return
    name = options.target.name if options.target is not None else "a stream"
    if options.target is None or options.target.suffix:
        if options.fps is None:
            raise video.VideoError(
                f"pictures have no frame rate for {name}; give theirs with --input-fps, or that of {name} with --fps."
            )
    elif options.fps is not None:
        raise video.VideoError("Pictures have no frame rate; give that of IN with --input-fps, or leave out --fps.")
    elif options.start is not None or options.end is not None:
        raise video.VideoError("Pictures have no times for --start and --end; give their rate with --input-fps.")


def _check_pipes(options: argparse.Namespace) -> None:
    if options.source is None:
        given = [name for name in ("start", "end", "input_fps") if getattr(options, name) is not None]
        if given:
            name = given[0].replace("_", "-")
            raise video.VideoError(f"A stream on standard input is taken as it comes; leave out --{name}.")
        if sys.stdin.isatty():
            raise video.VideoError("Standard input is a terminal; pipe a YUV4MPEG2 stream into it, or name a file.")
    if options.target is None and sys.stdout.isatty():
        raise video.VideoError("Standard output is a terminal; pipe it into something that reads YUV4MPEG2.")


def _check_cuts_picture(options: argparse.Namespace) -> None:
    path: Path | None = options.cuts_picture
    if path is None:
        return
    if options.scene_cut is None:
        raise ValueError("--cuts-picture shows what --scene-cut finds; give that too.")
    if (obstacle := unwritable_file(path)) is not None:
        raise ValueError(f"{path} cannot be written, because {obstacle}.")
    for name, other in (("IN", options.source), ("OUT", options.target)):
        if other is not None and (is_same(path, other) or path == other):
            raise ValueError(f"{path} is {name} itself; give --cuts-picture another name.")
    video.check_apart(path, options.source)
    if path.exists() and not is_special(path) and not options.force:
        raise ValueError(f"{path} exists already; choose another name, or give --force to replace it.")


def _check_cluster(options: argparse.Namespace) -> None:
    if options.cluster is None:
        given = {"--workers": options.workers, "--num-gpus": options.num_gpus, "--source": options.reach != "auto"}
        for name, value in given.items():
            if value is not None and value is not False:
                raise ValueError(f"{name} is for the workers of --cluster; give that too, or leave it out.")
        return
    check_address(options.cluster)
    if options.device not in ("auto", "cpu", "cuda", "xpu"):
        raise ValueError(
            f"With --cluster Ray chooses the card; give --device auto, cpu, cuda or xpu, not {options.device}."
        )
    if options.device == "cpu" and options.num_gpus:
        raise ValueError("--device cpu needs no card; leave out --num-gpus.")
    package()


def _check_schedule(options: argparse.Namespace) -> None:
    """--schedule beside --steps."""
    if options.schedule is None or options.steps is None:
        return
    if not isinstance(options.schedule, str):
        raise ValueError("--schedule lists the timesteps, and --steps says how many; give one of the two.")
    most = most_steps(BridgeParams().num_timesteps)
    if options.steps > most:
        raise ValueError(
            f"--schedule {options.schedule} takes {most} steps at most, not {options.steps}; "
            "give fewer, or leave out --schedule."
        )

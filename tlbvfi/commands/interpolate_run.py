"""``interpolate``: new frames between the frames of a video."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path

from .. import video
from ..bridge import MIN_STEPS
from ..checkpoint import BUILT_IN
from ..config import BridgeParams
from ..device_memory import free_memory
from ..engine import Target, interpolate_video
from ..planning import available, plan_for
from ..settings import Settings
from ..sources import FileSource
from ..targets import PictureTarget, VideoTarget
from ..timeline import MAX_DEPTH, Multiplier
from . import grammar
from .models import device_named, load
from .process import keep_freed_memory, room_for_fragmentation
from .running import progress_bar, running


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "interpolate", run, "Put new frames between the frames of a video; the sound goes along."
    )
    command.add_argument("source", metavar="IN", type=Path, help="a video, or a folder of pictures")
    command.add_argument(
        "target", metavar="OUT", type=Path, help=f"a video ({' '.join(video.SUFFIXES)}), or a new folder for pictures"
    )
    command.add_argument(
        "--times", type=grammar.number_between(0, MAX_DEPTH), default=1, metavar="N",
        help="halve each gap N times: 2^N times the fps",
    )  # fmt: skip
    command.add_argument(
        "--flow-scale", type=grammar.flow_scale, default=0.5, metavar="S",
        help="size at which motion is estimated, 0.1 to 1; smaller for larger motion",
    )  # fmt: skip
    steps = grammar.number_between(MIN_STEPS, BridgeParams().num_timesteps)
    command.add_argument("--steps", type=steps, default=10, metavar="N", help="steps of the diffusion")
    command.add_argument(
        "--seed", type=grammar.number_between(0, 2**64 - 1), default=0, metavar="N", help="same seed, same frames"
    )
    command.add_argument(
        "--model", metavar="FILE", help=f"a weight file or {', '.join(BUILT_IN)}; None: the built-in one"
    )
    grammar.add_device(command)
    command.add_argument(
        "--dtype", default="auto", type=grammar.dtype_or_auto,
        help="float32, float16 or bfloat16; auto: float16 on CUDA, else float32",
    )  # fmt: skip
    grammar.add_padding(command, "published pads as the published code does")
    command.add_argument(
        "--crf", type=grammar.number_between(0, 51), metavar="N",
        help="quality of the encoded video; lower is better and larger; None: 17 for H.264",
    )  # fmt: skip
    command.add_argument(
        "--memory", type=grammar.gibibytes, metavar="GIB",
        help="memory of the device that may be used; None: what is free on a graphics card, or on Linux for the CPU",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Check, load, plan, and go."""
    encoding = video.Encoding(crf=options.crf)
    video.check_target(options.target, options.source, encoding, force=True)
    device = device_named(options.device)
    source, timeline = FileSource(options.source), Multiplier(2**options.times)
    info = source.info
    if info.fps is None and options.target.suffix:
        raise video.VideoError(f"pictures have no frame rate for {options.target.name}; give a folder as OUT.")
    model = load(options.model, device, options.dtype)
    settings = Settings(options.flow_scale, options.steps, options.seed, options.padding)
    plan = plan_for(model, (info.height, info.width), settings, available(model), options.memory)
    if options.own_process and (
        device.type != "cpu" or room_for_fragmentation(plan, options.memory or free_memory(device))
    ):
        keep_freed_memory()
    total = timeline.count(info.frame_count) if info.frame_count else None
    with running(), progress_bar(total, options.target.name) as on_frame:
        count = interpolate_video(model, source, _target(options, info), settings, timeline, on_frame, plan=plan)
    size = f"{info.width}x{info.height}"
    if options.target.suffix and info.fps is not None:
        print(f"{options.target}: {count} frames of {size} at {rate(timeline.rate(info.fps))} fps")
    else:
        print(f"{options.target}: {count} pictures of {size}")
    _warn_of_early_end(options.source, source.taken, info.frame_count)


def _target(options: argparse.Namespace, info: video.VideoInfo) -> Target[int]:
    if not options.target.suffix:
        return PictureTarget(options.target)
    passed_on = video.PassedOn(options.source) if options.source.is_file() else None
    return VideoTarget(options.target, info, passed_on, video.Encoding(crf=options.crf))


def _warn_of_early_end(source: Path, found: int, stated: int | None) -> None:
    """A file that was cut short says of more frames than there are; by a few it may be wrong anyway."""
    if stated is not None and found < 0.9 * stated - 2:
        print(f"{source} ended after {found} of {stated} frames: it may be cut short or damaged.", file=sys.stderr)


def rate(fps: Fraction) -> str:
    """Frames per second, as a whole number or as a fraction with its value."""
    return str(fps) if fps.denominator == 1 else f"{fps} = {float(fps):.3f}"

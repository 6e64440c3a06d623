"""``interpolate``: new frames between the frames of a video."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from .. import video
from ..bridge import MIN_STEPS
from ..checkpoint import BUILT_IN
from ..config import BridgeParams
from ..interpolate import MAX_TIMES, interpolate_frames
from . import grammar
from .memory import free_memory, planned, room_for_gaps
from .models import device_named, load
from .process import keep_freed_memory
from .running import running, with_progress_bar


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "interpolate", run, "Put new frames between the frames of a video; the sound goes along."
    )
    command.add_argument("source", metavar="IN", type=Path, help="a video, or a folder of pictures")
    command.add_argument(
        "target", metavar="OUT", type=Path, help=f"a video ({' '.join(video.ENCODERS)}), or a new folder for pictures"
    )
    command.add_argument(
        "--times", type=grammar.number_between(0, MAX_TIMES), default=1, metavar="N",
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
        "--crf", type=grammar.number_between(0, 51), default=video.DEFAULT_CRF, metavar="N",
        help="quality of the encoded video; lower is better and larger",
    )  # fmt: skip
    command.add_argument(
        "--memory", type=grammar.gibibytes, metavar="GIB",
        help="memory of the device that may be used; None: what is free on a graphics card, or on Linux for the CPU",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Check, load, plan, and go."""
    video.check_target(options.target, options.source)
    device = device_named(options.device)
    info = video.probe(options.source)
    if info.fps is None and options.target.suffix:
        raise video.VideoError(f"pictures have no frame rate for {options.target.name}; give a folder as OUT.")
    source = _Counted(video.read_frames(options.source))
    frames = _new_video(options, device, info, source)
    total = (info.frame_count - 1) * 2**options.times + 1 if info.frame_count else None
    with running():
        print(_written(options, info, with_progress_bar(frames, total, options.target.name)))
    _warn_of_early_end(options.source, source.count, info.frame_count)


def _new_video(
    options: argparse.Namespace, device: torch.device, info: video.VideoInfo, source: Iterable[Tensor]
) -> Iterator[Tensor]:
    """The frames of the result, computed as they are asked for by a model loaded and planned for now."""
    model = load(options.model, device, options.dtype)
    chosen = planned(model, info.height, info.width, options.flow_scale, options.memory, options.padding)
    if options.own_process and (device.type != "cpu" or room_for_gaps(chosen, options.memory or free_memory(device))):
        keep_freed_memory()
    return interpolate_frames(
        model,
        source,
        options.times,
        options.flow_scale,
        options.steps,
        options.seed,
        padding=options.padding,
        plan=chosen,
    )


def _written(options: argparse.Namespace, info: video.VideoInfo, frames: Iterable[Tensor]) -> str:
    """Write the frames; returns a line that says what is there now."""
    size = f"{info.width}x{info.height}"
    if not options.target.suffix:
        count = video.write_pictures(options.target, frames)
        return f"{options.target}: {count} pictures of {size}"
    assert info.fps is not None
    fps = info.fps * 2**options.times
    sound = options.source if info.sound else None
    count = video.write_video(options.target, frames, fps, like=info, sound_from=sound, crf=options.crf)
    return f"{options.target}: {count} frames of {size} at {rate(fps)} fps"


class _Counted:
    """Frames, and how many have been taken."""

    def __init__(self, frames: Iterable[Tensor]) -> None:
        self._frames, self.count = frames, 0

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._frames:
            self.count += 1
            yield frame


def _warn_of_early_end(source: Path, found: int, stated: int | None) -> None:
    """A file that was cut short says of more frames than there are; by a few it may be wrong anyway."""
    if stated is not None and found < 0.9 * stated - 2:
        print(f"{source} ended after {found} of {stated} frames: it may be cut short or damaged.", file=sys.stderr)


def rate(fps: Fraction) -> str:
    """Frames per second, as a whole number or as a fraction with its value."""
    return str(fps) if fps.denominator == 1 else f"{fps} = {float(fps):.3f}"

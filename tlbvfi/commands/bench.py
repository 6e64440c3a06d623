"""``bench``: speed and memory, or quality beside classical methods."""

from __future__ import annotations

import argparse

from ..config import preset_names
from ..known_models import BUILT_IN, STAND_IN
from ..obstacles import unwritable_file
from . import grammar
from .signals import starting


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "bench", run, "Measure speed and memory, per new frame of a video in its steady state.",
        "--size 512x512 --times 1 2",
    )  # fmt: skip
    command.add_argument(
        "--model", metavar="FILE", nargs="+",
        help=f"one or more: a weight file, {', '.join(BUILT_IN)}, or {STAND_IN} (the published model's networks "
        "with random weights: its time, not its frames); None: the built-in model",
    )  # fmt: skip
    command.add_argument(
        "--size", metavar="WIDTHxHEIGHT", type=grammar.size, nargs="+", default=[(512, 512)], help="of the video"
    )
    command.add_argument("--dtype", type=grammar.dtype, nargs="+", default=["float32"], help="one or more")
    command.add_argument(
        "--times", type=grammar.number_between(1, 4), nargs="+", default=[1], metavar="N", help="one or more"
    )
    settings = command.add_mutually_exclusive_group()
    settings.add_argument(
        "--flow-scale", type=grammar.flow_scale, nargs="+", default=[0.5], metavar="S",
        help="one or more, with 10 steps of the diffusion",
    )  # fmt: skip
    settings.add_argument(
        "--quality", choices=preset_names(), nargs="+",
        help="of --clip: the flow scale and the steps of these presets, one or more; None: as --flow-scale says",
    )  # fmt: skip
    command.add_argument(
        "--strips", type=grammar.strip_rows, nargs="+", default=["whole"], metavar="ROWS",
        help="rows of the padded frame evaluated at a time, or whole; one or more",
    )  # fmt: skip
    command.add_argument(
        "--batch-size", type=grammar.number_between(1, 64), default=1, metavar="N", help="gaps at a time"
    )
    command.add_argument(
        "--repeats", type=grammar.number_between(1, 1000), default=3, metavar="N", help="the median is taken"
    )
    grammar.add_device(command)
    command.add_argument("--compile", action="store_true", help="with torch.compile")
    command.add_argument(
        "--clip", type=grammar.file, metavar="VIDEO",
        help="instead, drop every second frame of this video and predict it, by the models and by classical methods "
        "(no --size, --times, --batch-size and --repeats then)",
    )  # fmt: skip
    command.add_argument(
        "--max-frames",
        type=grammar.number_between(3, 100_000),
        default=31,
        metavar="N",
        help="first frames of the clip",
    )
    command.add_argument("--json", type=grammar.file, metavar="FILE", help="write the figures here too")
    command.add_argument(
        "--plot",
        type=grammar.file,
        metavar="FILE",
        help="draw time and stages, or quality against time (needs matplotlib)",
    )


def run(options: argparse.Namespace) -> None:
    """Check what needs no model, then everything else, then measure."""
    if options.quality is not None and options.clip is None:
        raise ValueError("--quality compares presets on a video; name one with --clip.")
    _check_results(options)
    with starting():
        from . import bench_run

    bench_run.run(options)


def _check_results(options: argparse.Namespace) -> None:
    """Whether the figures can be written where they are wanted.

    Raises:
        ValueError: they cannot, in one sentence.
    """
    for path in (options.json, options.plot):
        reason = path and unwritable_file(path)
        if reason:
            raise ValueError(f"{path} cannot be written, because {reason}.")
    if None not in (options.json, options.plot) and options.json.resolve() == options.plot.resolve():
        raise ValueError(f"--json and --plot are the same file, {options.plot}; give two names.")

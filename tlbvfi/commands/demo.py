"""``demo``: the main job on a short clip."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..obstacles import uncreatable
from . import grammar
from .signals import starting


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "demo", run, "Interpolate a short clip and show a new frame beside its neighbours.", "--output demo"
    )
    command.add_argument("--model", metavar="FILE", help="a weight file; None: the built-in model")
    command.add_argument(
        "--output", metavar="DIR", type=grammar.file, default=Path("demo"), help="where the results go"
    )
    grammar.add_device(command)


def run(options: argparse.Namespace) -> None:
    """Write the demo's video and picture, and say what they show."""
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file already; choose another --output.")
    if (obstacle := uncreatable(folder)) is not None:
        raise ValueError(f"{folder} cannot be written, because {obstacle}.")
    with starting():
        from .. import demo
        from .interpolate_run import rate
        from .models import device_named, load
        from .process import keep_freed_memory
        from .running import progress_bar, running

    device = device_named(options.device)
    clip = demo.find_clip()
    if options.own_process:
        keep_freed_memory()
    model = load(options.model, device, "float32")
    excerpt = demo.Excerpt.for_model(model, built_in=options.model is None)
    with running():
        folder.mkdir(parents=True, exist_ok=True)
        source = demo.read(clip, excerpt)
        with progress_bar(demo.TIMELINE.count(source.info.frame_count or 0), "demo") as on_frame:
            result = demo.run(model, clip, folder, excerpt, source, on_frame)
    print(f"{result.video}: {result.frames} frames at {rate(result.fps)} fps, {result.new} of them new")
    print(f"{result.picture}: frame before | new frame | frame after | average of the two, for comparison")

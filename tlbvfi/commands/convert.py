"""``convert``: a weight file in our own layout."""

from __future__ import annotations

import argparse
import time

from ..files import is_special
from ..known_models import resolve_source
from ..obstacles import is_same, unwritable_file
from . import grammar
from .errors import RunError
from .signals import starting


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "convert", run, "Write a weight file as safetensors without duplicates, which loads faster.",
        "vimeo_unet.pth vimeo_unet.safetensors",
    )  # fmt: skip
    command.add_argument("source", metavar="SOURCE", type=grammar.file, help="a weight file, such as vimeo_unet.pth")
    command.add_argument("target", metavar="TARGET", type=grammar.file, help="the .safetensors file to write")
    command.add_argument("--dtype", type=grammar.dtype, default="float32", help="float32, or float16 for half the size")
    command.add_argument("--no-ema", action="store_true", help="not the averaged (ema) weights, where the file has any")


def run(options: argparse.Namespace) -> None:
    """Convert, then say how large both files are and how long they take to load."""
    if is_same(options.target, resolve_source(options.source)):
        raise ValueError(f"{options.target} is the source itself; choose another name.")
    if (reason := unwritable_file(options.target)) is not None:
        raise ValueError(f"{options.target} cannot be written, because {reason}.")
    if is_special(options.target):
        raise ValueError(f"{options.target} is a device or a pipe; give the name of a file.")
    with starting():
        from ..checkpoint import load_model
        from ..conversion import convert
        from .models import dtype_named

    try:
        convert(options.source, options.target, dtype_named(options.dtype), ema=not options.no_ema)
    except OSError as error:
        raise RunError(f"{options.target} cannot be written ({error.strerror or error}).") from None
    for label, path in (("source", options.source), ("converted", options.target)):
        start = time.perf_counter()
        load_model(path, ema=not options.no_ema)
        seconds = time.perf_counter() - start
        print(f"{label:>9}: {path.stat().st_size / 1e6:7.1f} MB, loads in {seconds:.2f} s  {path}")

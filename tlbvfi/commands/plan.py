"""``plan``: how much memory a size takes."""

from __future__ import annotations

import argparse

from . import grammar


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(commands, "plan", run, "Say how much memory a size takes.", "3840x2160 --vram 8")
    command.add_argument("size", metavar="WIDTHxHEIGHT", type=grammar.size, help="of the video, such as 3840x2160")
    command.add_argument("--dtype", type=grammar.dtype, help="float32, float16 or bfloat16; None: the first two")
    command.add_argument("--flow-scale", type=grammar.flow_scale, default=0.5, metavar="S", help="0.1 to 1")
    grammar.add_padding(command, "as for interpolate")
    command.add_argument("--vram", type=grammar.gibibytes, metavar="GIB", help="memory of the graphics card")


def run(options: argparse.Namespace) -> None:
    """Print a line for each way to go."""
    from ..planning import amount, candidates, plan
    from .models import dtype_named

    height, width = options.size
    heads = ["dtype", "padded to", "weights", "peak", "rows at once", "pairs at once"]
    heads += [f"fits {options.vram / 2**30:g} GiB"] if options.vram else []
    print(f"{width}x{height}, flow scale {options.flow_scale:g}, {options.padding} padding, published model")
    print("  ".join(f"{head:>14}" for head in heads))
    refusals: list[str] = []
    for name in [options.dtype] if options.dtype is not None else ["float32", "float16"]:
        dtype = dtype_named(name)
        found = candidates(height, width, dtype, options.flow_scale, padding=options.padding)
        chosen = None
        if options.vram:
            try:
                chosen = plan(height, width, dtype, options.flow_scale, options.vram, padding=options.padding)
                found = [chosen if line.strip_rows == chosen.strip_rows else line for line in found]
            except ValueError as error:
                refusals.append(str(error))
        for line in found:
            fits = "chosen" if line == chosen else "yes" if line.peak_bytes <= (options.vram or 0) else "no"
            cells = [
                name,
                f"{line.padded_size[1]}x{line.padded_size[0]}",
                amount(line.weight_bytes),
                amount(line.peak_bytes),
                str(line.strip_rows),
                str(line.batch_size),
            ]
            print("  ".join(f"{cell:>14}" for cell in [*cells, *([fits] if options.vram else [])]))
    print("Every line gives the same frames; fewer rows at once take a little longer.")
    print("peak: weights and live tensors on the device; allocator overhead and library workspaces come on top.")
    for refusal in refusals:
        print(refusal)

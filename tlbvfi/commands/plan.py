"""``plan``: how much memory a size takes."""

from __future__ import annotations

import argparse

from . import grammar
from .signals import starting


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
    with starting():
        from ..planning import amount, candidates, plan
        from .models import dtype_named

    height, width = options.size
    heads = ["dtype", "padded to", "weights", "peak", "rows at once", "pairs at once", "CUDA graphs"]
    heads += [f"fits {options.vram / 2**30:g} GiB"] if options.vram else []
    print(f"{width}x{height}, flow scale {options.flow_scale:g}, {options.padding} padding, published model")
    print("  ".join(f"{head:>14}" for head in heads))
    refusals: list[str] = []
    for name in [options.dtype] if options.dtype is not None else ["float32", "float16"]:
        asked = height, width, dtype_named(name), options.flow_scale
        found = [plan(*asked, padding=options.padding), *candidates(*asked, padding=options.padding)]
        chosen = None
        if options.vram:
            try:
                chosen = plan(*asked, options.vram, padding=options.padding)
            except ValueError as error:
                refusals.append(str(error))
        for line in found:
            if chosen is not None and (line.strip_rows, line.graphs) == (chosen.strip_rows, chosen.graphs):
                line = chosen  # with as many pairs at once as fit
            fits = "chosen" if line == chosen else "yes" if line.peak_bytes <= (options.vram or 0) else "no"
            cells = [
                name,
                f"{line.padded_size[1]}x{line.padded_size[0]}",
                amount(line.weight_bytes),
                amount(line.peak_bytes),
                str(line.strip_rows),
                str(line.batch_size),
                "yes" if line.graphs else "no",
            ]
            print("  ".join(f"{cell:>14}" for cell in [*cells, *([fits] if options.vram else [])]))
    print("Every line gives the same frames; the first is the fastest, fewer rows at once take longer.")
    print(
        "peak: what the card needs for PyTorch, with the gaps of its allocator and the libraries' workspaces; the "
        "driver and other programs come on top."
    )
    for refusal in refusals:
        print(refusal)

"""The command line as a whole: its commands, and how each ends.

A file being written is there whole or not at all, however the command ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NoReturn

from .. import __version__
from . import bench, convert, demo, download, interpolate, plan
from .errors import RunError, WrongCall, printable
from .grammar import Parser

#: In the order in which the help lists them.
COMMANDS = (interpolate, plan, convert, demo, bench, download)
EXAMPLE = f"interpolate {interpolate.EXAMPLE}"


class ExitCode(IntEnum):
    """How a command ended, for the shell. A command that a signal ended gives 128 and the signal's number."""

    DONE = 0
    #: It went wrong on the way.
    FAILED = 1
    #: It was asked for something that cannot be: one sentence on stderr, before any long work. Where that is told by
    #: the words and the files alone, PyTorch is not imported for it, which takes seconds.
    REFUSED = 2
    INTERRUPTED = 130


def parser() -> Parser:
    """The command line's grammar."""
    root = Parser(prog="python -m tlbvfi", description="Video frame interpolation with TLB-VFI.")
    root.example = EXAMPLE
    root.add_argument("--version", action="version", version=f"tlbvfi {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return root


def main(arguments: Sequence[str] | None = None, own_process: bool = False) -> int:
    """Run the command line; returns the exit code. In a process of its own it may set how that keeps memory."""
    try:
        options = parser().parse_args(arguments)
    except WrongCall as error:
        print(error, file=sys.stderr)
        return ExitCode.REFUSED
    except SystemExit:  # --help and --version
        return ExitCode.DONE
    options.own_process = own_process
    name = f"tlbvfi {options.command}"
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted, nothing was left half-written.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left. What is still to be flushed goes nowhere, so that nothing fails at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (OSError, RunError) as error:
        print(printable(f"{name}: {error}"), file=sys.stderr)
        return ExitCode.FAILED
    except ValueError as error:
        print(printable(f"{name}: {error}"), file=sys.stderr)
        return ExitCode.REFUSED
    return ExitCode.DONE


def entry() -> NoReturn:
    """The installed command. A termination request, or a terminal that is closed, cleans up like an interruption."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(main(own_process=True))

"""The command line as a whole: its commands, and how each ends.

A file being written is there whole or not at all, however the command ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NoReturn, TextIO

from .. import __version__
from . import bench, convert, demo, download, interpolate, migrate, plan
from .errors import RunError, WrongCall, told
from .grammar import Parser
from .signals import INTERRUPTED, Ending, handle

#: In the order in which the help lists them.
COMMANDS = (interpolate, plan, convert, demo, bench, download, migrate)
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
        return _ended(arguments, own_process)
    except BrokenPipeError:
        # Whoever read the output has left. What is still to be flushed goes nowhere, so that nothing fails at the end.
        for stream in (sys.stdout, sys.stderr):
            _close_where_nobody_reads(stream)
        return ExitCode.FAILED


def _ended(arguments: Sequence[str] | None, own_process: bool) -> ExitCode:
    """The exit code of a command line whose readers, of the output and of the errors, stay."""
    name = "tlbvfi"
    try:
        try:
            options = parser().parse_args(arguments)
        except SystemExit:  # --help and --version
            sys.stdout.flush()
            return ExitCode.DONE
        options.own_process = own_process
        name = f"tlbvfi {options.command}"
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print(f"\n{name}: {str(error) or INTERRUPTED}", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except WrongCall as error:
        print(error, file=sys.stderr)
        return ExitCode.REFUSED
    except MemoryError:
        print(f"{name}: the memory does not suffice.", file=sys.stderr)
        return ExitCode.FAILED
    except (OSError, RunError) as error:
        print(f"{name}: {told(error)}", file=sys.stderr)
        return ExitCode.FAILED
    except ValueError as error:
        print(f"{name}: {told(error)}", file=sys.stderr)
        return ExitCode.REFUSED
    return ExitCode.DONE


def _close_where_nobody_reads(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def entry() -> NoReturn:
    """The installed command. A termination request, or a terminal that is closed, cleans up like an interruption."""
    _have_streams()
    handle(Ending())
    code = main(own_process=True)
    handle(signal.SIG_DFL)  # an interruption from here on is no error of ours to be shown
    sys.exit(code)


def _have_streams() -> None:
    """Have somewhere to print to, also where a stream is closed, and have it take every name of a file.

    A stream that is closed would become the next file that is opened.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif number and hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

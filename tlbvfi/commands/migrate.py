"""``migrate``: a graph of older nodes with the present ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import atomic, is_special
from ..migration import MOST_BYTES, migrate
from ..obstacles import is_same, unwritable_file
from ..quoting import escaped
from . import grammar
from .errors import RunError


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "migrate", run, "Rewrite a ComfyUI graph of older nodes with the present ones.", "old.json new.json"
    )
    command.add_argument("source", metavar="OLD", type=grammar.file, help="a graph: a workflow, or one for the API")
    command.add_argument("target", metavar="NEW", type=grammar.file, help="the file to write; OLD stays as it is")
    command.add_argument("--force", action="store_true", help="replace NEW where it is there")


def run(options: argparse.Namespace) -> None:
    """Migrate a graph and say what was changed, line by line."""
    source, target = options.source, options.target
    if is_same(target, source):
        raise ValueError(f"{_shown(target)} is the graph itself; choose another name.")
    if (reason := unwritable_file(target)) is not None:
        raise ValueError(f"{_shown(target)} cannot be written, because {reason}.")
    if is_special(target):
        raise ValueError(f"{_shown(target)} is a device or a pipe; give the name of a file.")
    if target.exists() and not options.force:
        raise ValueError(f"{_shown(target)} exists already; --force replaces it.")
    try:
        migrated = migrate(_read(source))
    except ValueError as error:
        raise ValueError(f"{_shown(source)} cannot be migrated: {error}.") from None
    try:
        with atomic(target) as partial:
            partial.write_bytes(migrated.data)
    except OSError as error:
        raise RunError(f"{_shown(target)} cannot be written ({error.strerror or error}).") from None
    for line in migrated.lines:
        print(line)
    if not migrated.changed:
        print(f"Nothing to change; {_shown(target)} is the same as {_shown(source)}.")


def _read(source: Path) -> bytes:
    """A file, as much of it as a graph may have and a byte more."""
    if source.is_dir() or is_special(source):
        raise ValueError("it is no file")
    try:
        with source.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ValueError("it does not exist") from None
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from None


def _shown(path: Path) -> str:
    return escaped(str(path), 300)

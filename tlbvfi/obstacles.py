"""Why a file or a folder cannot be written at a place, before there is anything to write. Needs no PyTorch."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from .files import holds_nothing, resolved
from .quoting import escaped

#: Linux' devices of memory: which of them swallow what is written.
_MEMORY, _SWALLOWING, _FULL = 1, (3, 5), 7


def unwritable(path: Path) -> str | None:
    """Why a new file, or folder, cannot be put at `path`, as the end of a sentence; None where it can."""
    try:
        state: os.stat_result | None = path.stat()
    except FileNotFoundError:
        state = None
    except NotADirectoryError:
        return _no_folder(path.parent)
    except (OSError, ValueError) as error:
        return f"its name is not possible here ({_reason(error)})"
    try:
        if state is not None and stat.S_ISREG(state.st_mode):
            if (obstacle := _unwritable_file(path, state)) is not None:
                return obstacle
        elif state is not None and not stat.S_ISDIR(state.st_mode):
            return _unwritable_special(path, state)
        where = resolved(path)
        folder = where if where.is_dir() else where.parent
        if not folder.is_dir():
            return _no_folder(folder)
    except OSError as error:
        return f"its name is not possible here ({_reason(error)})"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"nothing can be written into the folder {escaped(str(folder), 300)} ({_reason(error)})"


def unwritable_file(path: Path) -> str | None:
    """As :func:`unwritable`, of a file."""
    with suppress(OSError, ValueError):  # a name that is not possible
        if path.is_dir():
            return "it is a folder"
    return unwritable(path)


def uncreatable(folder: Path) -> str | None:
    """As :func:`unwritable`, of a folder that is made with those above it, or is there."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    except (OSError, ValueError) as error:
        return f"its name is not possible here ({_reason(error)})"
    return unwritable(folder) if folder.is_dir() else f"{escaped(str(folder), 300)} is no folder"


def is_empty_folder(path: Path) -> bool:
    """Whether there is a folder into which pictures may be put; one that cannot be read is not."""
    try:
        return path.is_dir() and holds_nothing(path)
    except OSError:
        return False


def is_same(path: Path, other: Path) -> bool:
    """Whether two names are of one file or folder, by whatever links, or ways to write them."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, which need not be there, lies in a folder itself, and not in one of its folders."""
    try:
        return folder.is_dir() and resolved(path).parent.samefile(folder)
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _no_folder(folder: Path) -> str:
    return f"the folder {escaped(os.path.abspath(folder), 300)} does not exist"


def _unwritable_file(path: Path, state: os.stat_result) -> str | None:
    """Why a file that is there cannot be replaced: whoever may not write to it may not, though the folder is open."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        if error.errno != errno.ETXTBSY:
            return f"the file that is there is protected against writing ({_reason(error)})"
    if sys.platform != "win32":
        folder = resolved(path).parent.stat()
        if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, state.st_uid, folder.st_uid):
            return "the file that is there belongs to another user"
    return None


def _unwritable_special(path: Path, state: os.stat_result) -> str | None:
    """Why a device or a pipe cannot be written to."""
    mode = state.st_mode
    if stat.S_ISSOCK(mode):
        return "it is a socket"
    if stat.S_ISBLK(mode):
        return "it is a disk, which would lose what is on it"
    if not os.access(path, os.W_OK):
        return f"it is protected against writing ({os.strerror(errno.EACCES)})"
    if stat.S_ISFIFO(mode):
        return "it is standard output itself; give - for that" if _is_standard_output(state) else None
    if sys.platform == "linux" and os.major(state.st_rdev) == _MEMORY and os.minor(state.st_rdev) not in _SWALLOWING:
        full = os.minor(state.st_rdev) == _FULL
        return f"it is a device that takes no files{f' ({os.strerror(errno.ENOSPC)})' if full else ''}"
    return "it is a terminal" if _is_terminal(path) else None


def _is_standard_output(state: os.stat_result) -> bool:
    try:
        return os.path.samestat(state, os.fstat(1))
    except OSError:
        return False


def _is_terminal(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)

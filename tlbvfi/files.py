"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Characters of a file's name that go into its partial one's, which may not become too long.
_LONGEST_STEM = 40


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file or a folder to; it becomes `path` at the end, and is removed if there is no
    proper end.

    Where `path` is a link, what it points to is replaced; a pipe or a device is written to directly.
    """
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    partial = path.with_name(f".{path.stem[:_LONGEST_STEM]}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def unwritable(path: Path) -> str | None:
    """Why a new file, or folder, cannot be put at `path`, as the end of a sentence; None where it can."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist"
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"its name is not possible here ({error.strerror or error})"
    if path.exists() and not path.is_file() and not path.is_dir():
        return None
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            return None
    except OSError as error:
        return f"nothing can be written into the folder {folder} ({error.strerror or error})"

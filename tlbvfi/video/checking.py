"""What can be said of a target before any work is done for it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..files import is_special
from ..obstacles import is_empty_folder, is_same, lies_in, unwritable
from .containers import CONTAINERS, PICTURES, SUFFIXES
from .encoding import Encoding, check_hardware
from .pyav import VideoError, check_file, import_av, name_of


def check_target(
    path: Path, source: Path | None = None, encoding: Encoding | None = None, *, force: bool = False
) -> None:
    """Raise VideoError where a video, or a folder of pictures if `path` has no suffix, cannot be written at `path`.

    Args:
        source: what the frames are read from, which may not be written over.
        encoding: how they would be written.
        force: a file that is there may be replaced.
    """
    import_av()
    suffix, name = path.suffix.lower(), name_of(path)
    if suffix and suffix not in CONTAINERS:
        known = ", ".join(SUFFIXES)
        raise VideoError(f"{name} is no kind of video that can be written ({known}, or a folder for pictures).")
    if suffix:
        codec = (encoding or Encoding()).chosen(suffix)
        check_hardware(codec, suffix)
    if is_special(path):
        _check_special(path)
        return
    if (obstacle := unwritable(path)) is not None:
        raise VideoError(f"{name} cannot be written, because {obstacle}.")
    if path.exists() and path.is_dir() == bool(suffix):
        raise VideoError(f"{name} is {'a folder' if path.is_dir() else 'a file'} already; choose another name.")
    if source is not None and is_same(path, source):
        raise VideoError(f"{name} is the source itself; choose another name.")
    if path.is_dir() and not is_empty_folder(path):
        raise VideoError(f"The folder {name} is not empty; choose another.")
    check_apart(path, source)
    if path.is_file() and not force:
        raise VideoError(f"{name} exists already; choose another name, or give --force to replace it.")


def check_source(path: Path) -> None:
    """Raise VideoError where `path` is neither a file nor a folder that can be read."""
    with suppress(OSError, ValueError):
        if path.is_dir():
            return
    check_file(path)


def check_apart(path: Path, source: Path | None) -> None:
    """Raise VideoError where a new file would be taken for one of the pictures of the folder `source`."""
    if source is not None and path.suffix.lower() in PICTURES and lies_in(path, source):
        raise VideoError(f"{name_of(path)} would be one of the pictures of the source; choose another folder for it.")


def _check_special(path: Path) -> None:
    """Raise VideoError where no video can be written into a pipe or a device."""
    name, kind = name_of(path), CONTAINERS.get(path.suffix.lower())
    if (obstacle := unwritable(path)) is not None:
        raise VideoError(f"{name} cannot be written, because {obstacle}.")
    if kind is None:
        raise VideoError(
            f"{name} is no file or folder, and its name does not say which kind of video is wanted; give - for raw "
            "frames on standard output, or a link to it whose name ends in .mkv."
        )
    if path.is_fifo() and kind.is_iso:
        raise VideoError(f"{name} is a pipe, through which no {path.suffix} goes; name one that ends in .mkv or .webm.")

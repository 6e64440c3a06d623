"""What can be said of a target before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from ..files import unwritable
from .containers import CONTAINERS, SUFFIXES
from .encoding import Encoding, check_hardware
from .pyav import VideoError, import_av


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
    suffix = path.suffix.lower()
    if suffix and suffix not in CONTAINERS:
        known = ", ".join(SUFFIXES)
        raise VideoError(f"{path} is no kind of video that can be written ({known}, or a folder for pictures).")
    if suffix:
        codec = (encoding or Encoding()).chosen(suffix)
        check_hardware(codec, suffix)
    if (obstacle := unwritable(path)) is not None:
        raise VideoError(f"{path} cannot be written, because {obstacle}.")
    if path.exists() and path.is_dir() == bool(path.suffix):
        raise VideoError(f"{path} is {'a folder' if path.is_dir() else 'a file'} already; choose another name.")
    if path.is_dir() and any(path.iterdir()):
        raise VideoError(f"The folder {path} is not empty; choose another.")
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise VideoError(f"{path} is the source itself; choose another name.")
    if path.is_file() and not force:
        raise VideoError(f"{path} exists already; choose another name, or give --force to replace it.")

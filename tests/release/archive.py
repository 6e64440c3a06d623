"""The archive that the registry gets: the files in git that `.comfyignore` leaves, as comfy-cli packs them."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from pathspec import PathSpec

ROOT = Path(__file__).resolve().parents[2]


class NotInGit(RuntimeError):
    """This is a copy of the files and not a checkout; what would be packed is not known."""


def git(root: Path, *words: str) -> str:
    """What git says of a checkout."""
    try:
        result = subprocess.run(["git", *words], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInGit(f"{root} is not a git checkout, or git is not installed.") from error
    return result.stdout.decode()


def tracked(root: Path = ROOT, *, new: bool = False) -> list[str]:
    """The files in git that exist, by their paths from the root; on demand those too that a commit would add."""
    return [name for name in _indexed(root, new=new) if (root / name).is_file()]


def _indexed(root: Path, *, new: bool = False) -> list[str]:
    words = ["--others", "--exclude-standard"] if new else []
    return sorted({name for name in git(root, "ls-files", "--cached", *words, "-z").split("\0") if name})


def _left(root: Path, names: list[str]) -> list[str]:
    """Those that `.comfyignore` leaves."""
    ignore = root / ".comfyignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    ignored = PathSpec.from_lines("gitignore", lines)
    return [name for name in names if not ignored.match_file(name)]


def shipped(root: Path = ROOT, *, new: bool = False) -> list[str]:
    """Those of :func:`tracked` that are packed."""
    return _left(root, tracked(root, new=new))


def absent(root: Path = ROOT) -> list[str]:
    """Files in git that would be packed, and are not here."""
    return [name for name in _left(root, _indexed(root)) if not (root / name).is_file()]


def build(target: Path, root: Path = ROOT, *, new: bool = False) -> list[str]:
    """Write the archive; returns what is in it."""
    names = shipped(root, new=new)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(root / name, name)
    return names

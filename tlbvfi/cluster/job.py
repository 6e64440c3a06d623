"""What the driver of a run and its workers say to one another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from .. import __version__
from ..segments import Rounding
from ..settings import Settings
from ..timeline import Timeline
from ..video import Encoding

#: Bytes of a file's begin and end that tell it from others of the same size.
_ENDS = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """Tells files, or folders of files, from one another without reading all of them."""

    files: int
    bytes: int
    digest: str

    @staticmethod
    def of(path: Path) -> Fingerprint:
        """
        Raises:
            OSError: it cannot be read.
        """
        digest = hashlib.sha256()
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if each.is_file())
            for each in files:
                state = each.stat()
                digest.update(f"{each.name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
            return Fingerprint(len(files), sum(each.stat().st_size for each in files), digest.hexdigest())
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
        return Fingerprint(1, size, digest.hexdigest())

    def is_at(self, path: Path) -> bool:
        """Whether the same is there."""
        try:
            return Fingerprint.of(path) == self
        except (OSError, ValueError):
            return False


@dataclass(frozen=True)
class Versions:
    """What has to be the same everywhere for the same frames."""

    tlbvfi: str = __version__
    torch: str = torch.__version__.partition("+")[0]  # after which the build for a kind of card stands


@dataclass(frozen=True)
class Setup:
    """What a worker gets ready with.

    Attributes:
        versions: of the driver.
        model: a path, or the name of a model that comes along.
        weights: of the model's file.
        device: the kind that is asked for, or None for the card that Ray gives, and without one the CPU.
        dtype: None for float16 on CUDA, else float32.
        threads: of a CPU.
        size: (height, width) of the source frames.
        memory: bytes that may be used, if that is asked for.
        batch_size: as asked for.
        source, seen: the source, as the driver sees it.
    """

    versions: Versions
    model: str
    weights: Fingerprint
    device: str | None
    dtype: torch.dtype | None
    threads: int
    size: tuple[int, int]
    settings: Settings
    memory: int | None
    batch_size: int | None
    source: Path
    seen: Fingerprint


@dataclass(frozen=True)
class Film:
    """What all segments of a run have in common.

    Attributes:
        source, seen: the source, as the driver sees it.
        start, end, fps, deinterlace, alpha: as for :class:`~tlbvfi.sources.FileSource`.
        timeline: of the whole video, of which gaps can be asked for in any order.
        rounding: of all segments; None where that is not known.
        encoding, suffix: of the result.
    """

    source: Path
    seen: Fingerprint
    start: Fraction | None
    end: Fraction | None
    fps: Fraction | None
    deinterlace: bool
    alpha: bool
    timeline: Timeline
    rounding: Rounding | None
    encoding: Encoding
    suffix: str


@dataclass(frozen=True)
class Hello:
    """A worker that is ready.

    Attributes:
        host, pid: where it is.
        device: its kind.
        name: of the device.
        rounding: as it would round by itself.
        sees_source: the source is at the same path there.
    """

    host: str
    pid: int
    device: str
    name: str
    rounding: Rounding | None
    sees_source: bool


@dataclass(frozen=True)
class State:
    """How far a worker is.

    Attributes:
        frames: of the result that are made in its segment.
        told: what it has logged since it was asked last, a line each.
    """

    frames: int
    told: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """A segment that is made, and lies with its worker.

    Attributes:
        frames: of the result.
        size: bytes of its file.
        told: as of :class:`State`.
    """

    frames: int
    size: int
    told: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A segment that was not made, or a worker that cannot get ready.

    Attributes:
        why: one sentence.
        stopped: because it was to end.
    """

    why: str
    stopped: bool = False
    told: tuple[str, ...] = ()

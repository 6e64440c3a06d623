"""The published weights in ComfyUI's model folders: found, fetched when a run asks for them, converted."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..tlbvfi.config import ModelParams
from ..tlbvfi.conversion import convert, weight_bytes
from ..tlbvfi.files import is_special
from ..tlbvfi.incomplete import is_kept
from ..tlbvfi.known_models import PUBLISHED_FILE
from ..tlbvfi.obstacles import uncreatable, unwritable_file
from ..tlbvfi.published import GOES_ON, LICENCE, DownloadError, address, download
from ..tlbvfi.quoting import escaped, sentence
from ..tlbvfi.weight_file import SAFETENSORS, SUFFIXES
from ..utils.model_cache import FileIdentity
from . import host

log = logging.getLogger(__name__)

#: The entry of model lists that has a run download them.
ENTRY = f"{PUBLISHED_FILE} (download)"
#: The node that does so as well.
NODE_NAME = "Download Model (TLB-VFI)"
#: What the converted file is called.
CONVERTED = Path(PUBLISHED_FILE).with_suffix(SAFETENSORS).name
#: Seconds between two moves of the bar, and two lines of the log.
_BAR_PAUSE, _LOG_PAUSE = 0.25, 10.0
_fetched: set[FileIdentity] = set()


def local(*, converted_first: bool = False) -> Path | None:
    """The file that is there, as published or converted; None where there is neither."""
    names = (CONVERTED, PUBLISHED_FILE) if converted_first else (PUBLISHED_FILE, CONVERTED)
    found = (host.model_path(name, SUFFIXES) for name in names)
    return next((Path(path) for path in found if path is not None), None)


def provide(converted: bool) -> tuple[Path, str]:
    """The file, fetched if it is not there, and converted if that is wished; and a sentence about what was done.

    What was there stays. Of what is fetched here the published file goes once the converted one is verified.

    Raises:
        ValueError: nothing may be downloaded, or be written there; `tlbvfi.CheckpointError`, one of them, for a file
            that is no TLB-VFI model.
        tlbvfi.published.DownloadError: the download failed, or the converted file cannot be written.
    """
    path = local(converted_first=converted)
    if path is not None and (not converted or path.suffix.lower() == SAFETENSORS):
        return path, f"{path.name} is there already, in {_shown(path.parent)}."
    began = time.monotonic()
    fetched = path is None
    if path is None:
        path = fetch(converted)
    place, size = _shown(path.parent), path.stat().st_size
    done = f"{PUBLISHED_FILE} ({size / 1e6:.1f} MB){' downloaded into' if fetched else ', there already in'} {place}"
    if converted:
        source, path = path, _converted(path)
        removed = fetched and _removed(source)
        if fetched:
            _note(path)
        size = path.stat().st_size
        done += f", converted to {path.name} ({size / 1e6:.1f} MB) and {'removed' if removed else 'kept'}"
    return path, f"{done}, in {time.monotonic() - began:.0f} s."


def _removed(path: Path) -> bool:
    """Remove a file; False where the system does not let it go, as Windows does with one that is open."""
    try:
        path.resolve().unlink()
    except OSError:
        return False
    return True


def fetched_here(identity: FileIdentity) -> bool:
    """Whether it is a file that this process fetched."""
    return identity in _fetched


def _note(path: Path) -> None:
    _fetched.add(FileIdentity.of(path))


def fetch(converted: bool = False) -> Path:
    """Fetch the file into a model folder, under ComfyUI's eyes: its bar moves by bytes, its cancel button works.

    It is there whole or not at all: what comes of a download that fails or is cancelled lies beside its place, where
    the next one goes on with it.

    Args:
        converted: it will be converted beside it, for which there must be room too.

    Raises:
        ValueError: nothing may be downloaded, or written there; one sentence.
        tlbvfi.published.DownloadError: the download failed.
    """
    url = address()
    host.check_interrupted()
    target = _place(converted) / PUBLISHED_FILE
    log.info("TLB-VFI: downloading %s into %s. %s", PUBLISHED_FILE, _shown(target.parent), LICENCE)
    began = time.monotonic()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{_shown(target.parent)} cannot be made ({error.strerror or error}).") from None
    try:
        download(url, target, _Watch(), weight_bytes(ModelParams()) if converted else 0)
    except BaseException:
        kept = GOES_ON if is_kept(target) else "nothing of it is kept"
        log.info("TLB-VFI: the download did not come to its end; %s.", kept)
        raise
    log.info("TLB-VFI: %s downloaded in %.0f s.", PUBLISHED_FILE, time.monotonic() - began)
    _note(target)
    return target


def _place(converted: bool) -> Path:
    """The first model folder that is there and takes the file; ComfyUI's own one, still to be made, where none does.

    Raises:
        ValueError: there is none; one sentence.
    """
    own = Path(host.own_model_folder())
    there = [folder for folder in map(Path, host.model_folders(SUFFIXES)) if folder.is_dir()]
    names = [PUBLISHED_FILE, *([CONVERTED] if converted else [])]
    first = None
    for folder in there:
        obstacle = next(filter(None, (_obstacle(folder / name) for name in names)), None)
        if obstacle is None:
            return folder
        first = first or obstacle
    if own not in there:
        leads_nowhere = "it is a link that leads nowhere" if own.is_symlink() else None
        obstacle = leads_nowhere or uncreatable(own)
        if obstacle is None:
            return own
        first = first or f"The folder {_shown(own)} cannot be made, because {obstacle}."
    raise ValueError(first)


def _obstacle(target: Path) -> str | None:
    """Why a file cannot be put at a place, in one sentence; None where it can."""
    reason = "it is a device or a pipe" if is_special(target) else unwritable_file(target)
    return None if reason is None else f"{_shown(target)} cannot be written, because {reason}."


def _converted(source: Path) -> Path:
    """The file converted, beside it.

    Raises:
        ValueError: it is no TLB-VFI model, or its place cannot be written to.
        tlbvfi.published.DownloadError: it cannot be written.
    """
    target = source.with_name(CONVERTED)
    if (obstacle := _obstacle(target)) is not None:
        raise ValueError(obstacle)
    log.info("TLB-VFI: converting %s to %s.", source.name, target.name)
    try:
        convert(source, target, watch=host.check_interrupted)
    except OSError as error:
        reason = sentence(error.strerror or error, 200)
        raise DownloadError(
            f"{source.name} is there, but {_shown(target)} cannot be written ({reason}); make room, or go without "
            "convert."
        ) from None
    return target


class _Watch:
    """Shows the bytes of a download, and has it end where the user cancels."""

    def __init__(self) -> None:
        self._progress: host.Progress | None = None
        self._size: int | None = None
        self._moved = self._logged = time.monotonic()

    def __call__(self, count: int, size: int | None) -> None:
        host.check_interrupted()
        if size is None:
            return
        now = time.monotonic()
        if self._progress is None or size != self._size:
            self._progress, self._size = host.Progress(size), size
        elif now - self._moved < _BAR_PAUSE and count < size:
            return
        self._moved = now
        self._progress.at(count)
        if now - self._logged >= _LOG_PAUSE:
            self._logged = now
            log.info("TLB-VFI: %.0f of %.0f MB of %s.", count / 1e6, size / 1e6, PUBLISHED_FILE)


def _shown(path: Path) -> str:
    return escaped(str(path), 300)

"""The `model_name` input: which models there are, what a stored name means, and the models in memory."""

from __future__ import annotations

import logging
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..tlbvfi import BUILT_IN, load_model
from ..tlbvfi.known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY, built_in_path
from ..tlbvfi.published import address
from ..tlbvfi.quoting import escaped, quoted
from ..tlbvfi.weight_file import SUFFIXES
from ..utils.model_cache import FileIdentity, ModelCache
from . import host, published

log = logging.getLogger(__name__)

#: Where the published weights are.
PUBLISHED_AT = f"https://huggingface.co/{PUBLISHED_REPOSITORY}"
#: The only entry of the list where there is no model at all.
NO_MODEL = f"no model found: {PUBLISHED_FILE} is missing"

#: More than the published model takes on a device while `torch.compile` warms up, weights included.
WARM_UP_BYTES = 2**30

_BUILT_IN_LABELS = {f"{name} (built-in)": name for name in BUILT_IN}
#: The models in memory; ComfyUI decides where their weights are.
loaded: ModelCache[host.ManagedModel] = ModelCache(capacity=2)


def choices() -> list[str]:
    """What the list offers: built-in models, the files of the model folders, and at last what a run downloads.

    The last one stays when it is there, as does its name in graphs.
    """
    built_in = [label for label, name in _BUILT_IN_LABELS.items() if built_in_path(name).is_file()]
    return [*([*built_in, *host.model_files(SUFFIXES)] or [NO_MODEL]), published.ENTRY]


def find(model_name: str) -> Path:
    """The weight file that a name from the list stands for, without any download.

    Raises:
        ValueError: there is none (any more); the sentence says which file to get, from where, and where to put it.
    """
    if not isinstance(model_name, str):
        raise ValueError(f"model_name must be the name of a model, not {quoted(model_name)}.")
    if model_name in _BUILT_IN_LABELS:
        path = built_in_path(_BUILT_IN_LABELS[model_name])
        if path.is_file():
            return path
        raise ValueError(f"The weights of {model_name} are missing from this installation; {_remedy()}.")
    if model_name == published.ENTRY and (local := published.local()) is not None:
        return local
    found = host.model_path(model_name, SUFFIXES) if model_name not in (NO_MODEL, published.ENTRY) else None
    if found is not None:
        return Path(found)
    if NO_MODEL not in choices():
        raise ValueError(f"The model {quoted(model_name)} is not there; choose another in model_name, or {_remedy()}.")
    raise ValueError(f"There is no interpolation model yet; {_remedy()}, then press R to refresh the list.")


def _remedy() -> str:
    folders = " or ".join(host.model_folders(SUFFIXES))
    return (
        f"get {PUBLISHED_FILE} from {PUBLISHED_AT} into {folders}, by hand, the node {published.NODE_NAME}, "
        f"the entry '{published.ENTRY}' or `python -m tlbvfi download`"
    )


def check(model_name: str) -> None:
    """As :func:`find`, before a run; a name that is downloaded by the run will do where that is allowed. Asks no hub.

    Raises:
        ValueError: as :func:`find`.
    """
    if _is_to_be_fetched(model_name):
        address()
    else:
        find(model_name)


def find_or_fetch(model_name: str) -> Path:
    """As :func:`find`, for a run: what the name says is downloaded is, if it is not there.

    Raises:
        ValueError: as :func:`find`; or nothing may be downloaded, or written there.
        tlbvfi.published.DownloadError: the download failed.
    """
    return published.fetch() if _is_to_be_fetched(model_name) else find(model_name)


def _is_to_be_fetched(model_name: Any) -> bool:
    return isinstance(model_name, str) and model_name == published.ENTRY and published.local() is None


def fingerprint(model_name: str | None) -> str:
    """Changes whenever the file behind a name does; where the name is not known yet (None), whenever any file does."""
    if model_name is None:
        return str({name: fingerprint(name) for name in choices()})
    try:
        identity = FileIdentity.of(find(model_name))
    except (ValueError, OSError):
        return "missing"
    if model_name == published.ENTRY and published.fetched_here(identity):
        return "missing"  # as it was before the run that fetched it, whose results are those of this file
    return str(identity)


class ModelNode:
    """What the nodes with a `model_name` input have in common."""

    CATEGORY = "frame_interpolation/TLBVFI-TF32"

    @classmethod
    def VALIDATE_INPUTS(cls, model_name: str | None = None) -> bool | str:
        """Refuse a prompt whose model is not there, before anything runs. (A linked name arrives as None.)"""
        if model_name is None:
            return True
        try:
            check(model_name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, model_name: str | None = None, **_: Any) -> str:
        """Run again after the model file was replaced."""
        return fingerprint(model_name)


def managed(path: Path, device: torch.device, dtype: torch.dtype, compile: bool = False) -> host.ManagedModel:
    """The model of a weight file for a device in a dtype, compiled or not, loaded once and then kept for a while.

    Raises:
        tlbvfi.CheckpointError: the file is not a usable checkpoint.
    """

    def load() -> host.ManagedModel:
        began = time.monotonic()
        model = made()
        log.info(
            "TLB-VFI: %s loaded%s in %.1f s.",
            escaped(path.name),
            " and compiled" if compile else "",
            time.monotonic() - began,
        )
        return model

    def made() -> host.ManagedModel:
        waiting = host.offload_device(device)
        if not compile:
            return host.ManagedModel(load_model(path, device=waiting, dtype=dtype, compile=False), device)
        # What is compiled belongs to a device: it is warmed up where it will run.
        host.make_room(device, WARM_UP_BYTES)
        model = load_model(path, device=device, dtype=dtype, compile=True)
        return host.ManagedModel(model.to(waiting), device)

    return loaded.get(FileIdentity.of(path), (device, dtype, compile), load)


@dataclass(frozen=True)
class Freed:
    """What clearing the cache came to.

    Attributes:
        count, bytes: models that are gone, and what their weights took.
        kept, kept_bytes: those that something else still holds, such as the output of a loader.
    """

    count: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0


def forget() -> Freed:
    """Free all models in memory, and the memory that is cached for them."""
    models = [(weakref.ref(model), model.weight_bytes) for model in loaded.clear()]
    host.free_unused_memory()
    gone = [size for model, size in models if model() is None]
    kept = [size for model, size in models if model() is not None]
    return Freed(len(gone), sum(gone), len(kept), sum(kept))

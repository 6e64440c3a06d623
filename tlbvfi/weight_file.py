"""What a weight file holds, read safely and into memory once.

Two layouts are understood. The official one is a state dict with the autoencoder stored twice (under ``vqgan.`` and
``cond_stage_model.``) and six schedule buffers, in a pickle or a safetensors file, bare or wrapped as
``{"model": ..., "ema": ...}``. Ours is a safetensors file without duplicates whose metadata holds the configuration.
"""

from __future__ import annotations

import json
import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import ModelParams, load_params, params_from_dict
from .known_models import CheckpointError

log = logging.getLogger(__name__)

#: The suffix of safetensors files, and those of all weight files that :func:`load_model` reads.
SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pth", ".ckpt", ".pt")
#: How files of torch.save begin: as a zip archive, or (before torch 1.6) as a pickle.
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"
#: What torch.load raises for files that were cut off or altered.
_DAMAGED = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ImportError,
    struct.error,
)
#: What to do about a damaged file.
FETCH_AGAIN = "if it was downloaded, it may have been cut off: fetch it again"
#: The configuration of the official layout, which holds none.
_OFFICIAL_CONFIG = "vimeo_unet"
#: Prefixes of the official layout: of the autoencoder's second copy, and of the denoiser.
ALIAS, _DENOISER = "cond_stage_model.", "denoise_fn."


@dataclass
class CheckpointContents:
    """What a weight file holds: tensors (possibly mapped from it), configuration, and whether averaged."""

    state: dict[str, Tensor]
    params: ModelParams
    used_ema: bool = False


def read_checkpoint(path: Path, *, ema: bool = True) -> CheckpointContents:
    """Read a weight file of either layout; see :func:`load_model` for the errors."""
    if path.suffix.lower() == SAFETENSORS:
        return _read_safetensors(path)
    return _read_pickle(path, ema)


def read_params(path: Path) -> ModelParams:
    """The configuration of a weight file, without reading a tensor.

    A file that was cut off is noticed by its directory of entries; which entries it has is not looked at.

    Raises:
        CheckpointError: the file cannot be read or is no weight file.
    """
    if path.suffix.lower() == SAFETENSORS:
        with _opened_safetensors(path) as file:
            metadata = file.metadata() or {}
        return _params_in(metadata, path)
    if _read_head(path).startswith(_ARCHIVE):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise _unreadable(path, error) from None
        if not any(entry.endswith("/data.pkl") for entry in entries):
            raise CheckpointError(f"{path}: not a checkpoint; it is an archive of something else.")
    return load_params(_OFFICIAL_CONFIG)


def entry_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a weight file's entries. Values are not read: of a safetensors file the header tells, and
    archives of torch.save are mapped.

    Raises:
        CheckpointError: the file cannot be read or is no weight file.
    """
    if path.suffix.lower() != SAFETENSORS:
        return {key: tuple(tensor.shape) for key, tensor in _read_pickle(path, ema=True).state.items()}
    with _opened_safetensors(path) as file:
        return {name: tuple(file.get_slice(key).get_shape()) for name, key in _names(file).items()}


def _names(file: Any) -> dict[str, str]:
    """The keys of a safetensors file by the names that the model has for them, the second copy left out."""
    keys = list(file.keys())
    prefix = "model." if keys and all(key.startswith("model.") for key in keys) else ""
    named = {key[len(prefix) :]: key for key in keys}
    return {name: key for name, key in named.items() if not name.startswith(ALIAS)}


@contextmanager
def _opened_safetensors(path: Path) -> Iterator[Any]:
    """The file, whose header was checked against its length."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({_first_line(error)}); {FETCH_AGAIN}."
        ) from None


def _params_in(metadata: Mapping[str, str], path: Path) -> ModelParams:
    """The configuration in a safetensors file's metadata; a file without one is the published model."""
    if "config" not in metadata:
        return load_params(_OFFICIAL_CONFIG)
    try:
        return params_from_dict(json.loads(metadata["config"]), path.name)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({_first_line(error)}).") from None


def _read_safetensors(path: Path) -> CheckpointContents:
    with _opened_safetensors(path) as file:
        metadata = file.metadata() or {}
        state = {name: file.get_tensor(key) for name, key in _names(file).items()}
    return CheckpointContents(state, _params_in(metadata, path))


def _read_head(path: Path) -> bytes:
    """The first bytes of a file of torch.save.

    Raises:
        CheckpointError: it cannot be read, or begins otherwise.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(24)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({_first_line(error)}).") from None
    if not head.startswith((_ARCHIVE, _PICKLE)):
        raise CheckpointError(f"{path}: not a checkpoint; it {f'begins with {head[:12]!r}' if head else 'is empty'}.")
    return head


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a readable checkpoint ({_first_line(error)}); {FETCH_AGAIN}.")


def _read_pickle(path: Path, ema: bool) -> CheckpointContents:
    """torch.load with `weights_only=True`, mapped where the file's format allows."""
    head = _read_head(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=head.startswith(_ARCHIVE))
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain containers, such as code; it was not executed."
        ) from None
    except _DAMAGED as error:
        raise _unreadable(path, error) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict.")
    wrapped = (content.get(key) for key in ("model", "state_dict"))
    state = next((inner for inner in wrapped if isinstance(inner, Mapping)), content)
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    averaged = content.get("ema") if ema else None
    named = _averaged_denoiser(averaged, path) if isinstance(averaged, Mapping) else {}
    if named:
        if plain := [key for key in tensors if key.startswith(_DENOISER) and key not in named]:
            log.warning("%s: %d weights of the denoiser have no average (ema): %s.", path.name, len(plain), few(plain))
        tensors.update(named)
        log.debug("%s: using its averaged (ema) denoiser weights.", path.name)
    return CheckpointContents(tensors, load_params(_OFFICIAL_CONFIG), used_ema=bool(named))


def _averaged_denoiser(averaged: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The `ema` entries under their full names, which begin with the denoiser's prefix."""
    named = {str(k): v for k, v in averaged.items() if isinstance(v, Tensor)}
    named = {k if k.startswith(_DENOISER) else _DENOISER + k: v for k, v in named.items()}
    if len(named) != len(averaged):
        raise CheckpointError(f"{path}: its averaged weights (ema) are not all tensors; load it with ema=False.")
    return named


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0].split(". This is")[0] if text else type(error).__name__)[:160].rstrip(".")


def few(items: Iterable[str], count: int = 3) -> str:
    items = list(items)
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")

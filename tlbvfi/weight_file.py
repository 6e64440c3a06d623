"""What a weight file holds, whoever made it: nothing in it is executed, and no tensor is read before it is asked for.

Two layouts are understood. The official one is a state dict with the autoencoder stored twice (under ``vqgan.`` and
``cond_stage_model.``) and six schedule buffers, in a pickle or a safetensors file, bare or wrapped as
``{"model": ..., "ema": ...}``. Ours is a safetensors file without duplicates whose metadata holds the configuration.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ModelParams, load_params, params_from_dict
from .device_memory import is_out_of_memory
from .inert_pickle import ForeignError
from .known_models import CheckpointError
from .mapped_file import Entry, MappedFile
from .quoting import escaped, named, quoted, sentence
from .safetensors_header import HeaderError, parsed, read_header
from .torch_file import ArchiveError, Places, entries_of, read_archive, read_old_file

log = logging.getLogger(__name__)

#: The suffix of safetensors files, and those of all weight files that :func:`load_model` reads.
SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pth", ".ckpt", ".pt")
#: How files of torch.save begin: as a zip archive, or (before torch 1.6) as a pickle.
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"
#: What to do about a damaged file.
FETCH_AGAIN = "if it was downloaded, it may have been cut off: fetch it again"
#: The configuration of the official layout, which holds none.
_OFFICIAL_CONFIG = "vimeo_unet"
#: Prefixes of the official layout: of the autoencoder's second copy, and of the denoiser.
ALIAS, _DENOISER = "cond_stage_model.", "denoise_fn."
#: Characters that a configuration in a file's metadata may have.
_LONGEST_CONFIG = 1 << 16


@dataclass
class CheckpointContents:
    """What a weight file holds: entries, configuration, and whether averaged."""

    state: dict[str, Entry]
    params: ModelParams
    used_ema: bool = False


def refusal(path: Path, reason: str) -> CheckpointError:
    """The error that says why a file is refused, which the reason is as the rest of a sentence."""
    return CheckpointError(f"{escaped(str(path), 300)}: {reason}")


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What goes wrong with a weight file in here is a :class:`CheckpointError`; interrupts pass."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArchiveError, HeaderError, ForeignError) as error:
        raise refusal(path, f"{_reason(error)}.") from None
    except OSError as error:
        raise refusal(path, f"cannot be read ({sentence(error.strerror or error, 160)}).") from None
    except Exception as error:
        if isinstance(error, MemoryError) or is_out_of_memory(error):
            raise refusal(path, "the memory does not suffice to load it.") from None
        kind = (
            ""
            if isinstance(error, (ValueError, NotImplementedError, zipfile.BadZipFile))
            else f"{type(error).__name__}: "
        )
        reason = sentence(f"{kind}{error}", 200).rstrip(".")
        raise refusal(path, f"not a readable checkpoint ({reason}); {FETCH_AGAIN}.") from error


def _reason(error: ArchiveError | HeaderError | ForeignError) -> str:
    if isinstance(error, ArchiveError):
        return f"not a checkpoint; it is {error}"
    if isinstance(error, HeaderError):
        return f"not a readable safetensors file ({error}); {FETCH_AGAIN}"
    return f"holds something other than tensors and plain containers, such as code ({error}); it was not executed"


def read_checkpoint(path: Path, *, ema: bool = True) -> CheckpointContents:
    """What a weight file of either layout holds. No tensor is read.

    Raises:
        CheckpointError: the file cannot be read or is no weight file.
    """
    with refusing(path):
        file = MappedFile(path)
        if path.suffix.lower() == SAFETENSORS:
            return _read_safetensors(path, file)
        return _read_pickle(path, file, ema)


def _read_safetensors(path: Path, file: MappedFile) -> CheckpointContents:
    metadata, entries = read_header(file)
    return CheckpointContents(_named(entries), _params_in(metadata, path))


def _named(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries by the names that the model has for them, the second copy left out."""
    prefix = "model." if entries and all(key.startswith("model.") for key in entries) else ""
    return {key[len(prefix) :]: entry for key, entry in entries.items() if not key.startswith(prefix + ALIAS)}


def _params_in(metadata: Mapping[str, str], path: Path) -> ModelParams:
    """The configuration in a safetensors file's metadata; a file without one is the published model."""
    if "config" not in metadata:
        return load_params(_OFFICIAL_CONFIG)
    try:
        if len(metadata["config"]) > _LONGEST_CONFIG:
            raise ValueError(f"it has more than {_LONGEST_CONFIG} characters")
        return params_from_dict(parsed(metadata["config"]), path.name)
    except ValueError as error:
        reason = sentence(error, 400).rstrip(".")
        raise refusal(path, f"its configuration cannot be used ({reason}).") from None


def _read_pickle(path: Path, file: MappedFile, ema: bool) -> CheckpointContents:
    head = file.read(0, 12)
    if head.startswith(_ARCHIVE):
        content, places = read_archive(path, file)
    elif head.startswith(_PICKLE):
        content, places = read_old_file(file)
    else:
        begins = f"begins with {head!r}" if head else "is empty"
        raise refusal(path, f"not a checkpoint; it {begins}.")
    if not isinstance(content, dict):
        raise refusal(path, f"holds a {type(content).__name__}, not a state dict.")
    wrapped = (content.get(key) for key in ("model", "state_dict"))
    state = next((inner for inner in wrapped if isinstance(inner, dict)), content)
    entries = _text_keys(entries_of(state, file, places), path)
    averaged = content.get("ema") if ema else None
    named_averages = _averaged_denoiser(averaged, path, file, places) if isinstance(averaged, dict) else {}
    if named_averages:
        if plain := [key for key in entries if key.startswith(_DENOISER) and key not in named_averages]:
            log.warning("%s: %d weights of the denoiser have no average (ema): %s.", path.name, len(plain), few(plain))
        entries.update(named_averages)
        log.debug("%s: using its averaged (ema) denoiser weights.", path.name)
    return CheckpointContents(entries, load_params(_OFFICIAL_CONFIG), used_ema=bool(named_averages))


def _text_keys(entries: Mapping[Any, Entry], path: Path) -> dict[str, Entry]:
    """The entries, whose keys must be text."""
    if others := [key for key in entries if not isinstance(key, str)]:
        raise refusal(path, f"its state dict has the key {quoted(others[0])}, which is not text.")
    return dict(entries)


def _averaged_denoiser(averaged: Mapping[Any, Any], path: Path, file: MappedFile, places: Places) -> dict[str, Entry]:
    """The `ema` entries under their full names, which begin with the denoiser's prefix."""
    entries = entries_of(averaged, file, places)
    if len(entries) != len(averaged):
        raise refusal(path, "its averaged weights (ema) are not all tensors; load it with ema=False.")
    full = {k if k.startswith(_DENOISER) else _DENOISER + k: v for k, v in _text_keys(entries, path).items()}
    if len(full) != len(entries):
        raise refusal(path, "its averaged weights (ema) have a name twice.")
    return full


def few(items: Iterable[str], count: int = 3) -> str:
    """The names of some entries, the first in words."""
    items = list(items)
    shown = ", ".join(map(named, items[:count]))
    return shown + (f" and {len(items) - count} more" if len(items) > count else "")

"""Reading weights: safely, strictly, and into memory once.

Two layouts are understood. The official one is a state dict with the autoencoder stored twice (under ``vqgan.`` and
``cond_stage_model.``) and six schedule buffers, in a pickle or a safetensors file, bare or wrapped as
``{"model": ..., "ema": ...}``. Ours is a safetensors file without duplicates whose metadata holds the configuration.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .bridge import Schedule
from .compilation import compile_model
from .config import ModelParams, load_params, params_from_dict
from .files import whole
from .model import FLOAT32_PARTS, TLBVFI, check_dtype, convert_precision
from .modules.preparation import laid_out_copy

log = logging.getLogger(__name__)

FORMAT = "tlbvfi"
#: How files of torch.save begin: as a zip archive, or (before torch 1.6) as a pickle.
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"
#: Weight files that :func:`load_model` reads.
SUFFIXES = (".safetensors", ".pth", ".ckpt", ".pt")
#: What to do about a damaged file.
_AGAIN = "if it was downloaded, it may have been cut off: fetch it again"
#: The published weights: their file, and its repository on Hugging Face.
PUBLISHED_FILE, PUBLISHED_REPOSITORY = "vimeo_unet.pth", "ucfzl/TLBVFI"
#: Models inside the package: name -> file in ``tlbvfi/weights``. The first is the default.
BUILT_IN = {"tlbvfi-small": "tlbvfi-small.safetensors"}
#: Entries of the official layout that take no part in inference.
_UNUSED = re.compile(
    r"^cond_stage_model\.|\.num_batches_tracked$|^vqgan\.decoder\.up\.\d+\.cross_attn\.out_conv\.|^vqgan\.loss\."
    r"|^vqgan\..*\.block\.0\.nin_shortcut\.(weight|bias)$"
)


class CheckpointError(ValueError):
    """A weight file that is missing, damaged or of another model. One sentence, naming the file."""


def built_in_path(name: str) -> Path:
    """The weight file of a built-in model (which may be absent in a source checkout without weights)."""
    return Path(__file__).resolve().parent / "weights" / BUILT_IN[name]


def load_model(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    ema: bool = True,
    compile: bool = False,
) -> TLBVFI:
    """Load a model for inference.

    Args:
        source: a weight file (.safetensors, .pth, .ckpt, .pt), the name of a built-in model, or None for the
            built-in default.
        device: where the weights go.
        dtype: float32, float16 or bfloat16 for the convolutions. The bridge's denoiser and the codebook keep
            float32 always.
        ema: use the file's averaged denoiser weights (``ema``), as the published evaluation does, where it has any.
        compile: run the largest parts through :func:`tlbvfi.compilation.compile_model`, which takes minutes once.

    Returns:
        A :class:`TLBVFI` in evaluation mode, without gradients.

    Raises:
        CheckpointError: the file cannot be read or is not this model; nothing is kept of it.
        ValueError: an unsupported dtype.
    """
    check_dtype(dtype)
    path = resolve_source(source)
    contents = read_checkpoint(path, ema=ema)
    with torch.device("meta"):
        model = TLBVFI(contents.params)
    state = _matching_state(model, contents, path)
    del contents
    weights = {}
    for key in list(state):
        # The batch norms around the context convolutions are folded in float32 before these get their dtype.
        keep = key.startswith(FLOAT32_PARTS) or ".proj_in." in key
        weights[key] = _own_copy(state.pop(key), torch.float32 if keep else dtype)
    model.load_state_dict(weights, strict=True, assign=True)
    del weights
    model = convert_precision(model.finalize(), dtype).to(device)
    if compile:
        compile_model(model)
    return model


def resolve_source(source: str | os.PathLike[str] | None) -> Path:
    """The weight file meant by `source` (see :func:`load_model`).

    Raises:
        CheckpointError: there is no such file and no such built-in model.
    """
    if source is None:
        source = next(iter(BUILT_IN))
    path = Path(source)
    if str(source) in BUILT_IN and not path.is_file():
        path = built_in_path(str(source))
        if not path.is_file():
            raise CheckpointError(f"{path.name}: the built-in model's weights are missing from this installation.")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weight file.")
    if not path.is_file():
        known = ", ".join(BUILT_IN)
        raise CheckpointError(f"{path} does not exist (built-in models: {known}).")
    return path


@dataclass
class CheckpointContents:
    """What a weight file holds: tensors (possibly mapped from it), configuration, and whether averaged."""

    state: dict[str, Tensor]
    params: ModelParams
    used_ema: bool = False


def read_checkpoint(path: Path, *, ema: bool = True) -> CheckpointContents:
    """Read a weight file of either layout; see :func:`load_model` for the errors."""
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return _read_pickle(path, ema)


def _read_safetensors(path: Path) -> CheckpointContents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys())
            prefix = "model." if keys and all(k.startswith("model.") for k in keys) else ""
            skipped = {k for k in keys if k[len(prefix) :].startswith("cond_stage_model.")}
            state = {k[len(prefix) :]: file.get_tensor(k) for k in keys if k not in skipped}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({_first_line(error)}); {_AGAIN}.") from None
    if "config" not in metadata:
        return CheckpointContents(state, load_params("vimeo_unet"))
    try:
        return CheckpointContents(state, params_from_dict(json.loads(metadata["config"]), path.name))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({_first_line(error)}).") from None


def _read_pickle(path: Path, ema: bool) -> CheckpointContents:
    """torch.load with `weights_only=True`, mapped where the file's format allows."""
    try:
        with open(path, "rb") as file:
            head = file.read(24)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({_first_line(error)}).") from None
    if not head.startswith((_ARCHIVE, _PICKLE)):
        raise CheckpointError(f"{path}: not a checkpoint; it {f'begins with {head[:12]!r}' if head else 'is empty'}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            mapped = head.startswith(_ARCHIVE)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain containers, such as code; it was not executed."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({_first_line(error)}); {_AGAIN}.") from None
    except (struct.error, UnicodeDecodeError, ImportError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({_first_line(error)}); {_AGAIN}.") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict.")
    state = content
    for wrapper in ("model", "state_dict"):
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    averaged = content.get("ema")
    used = False
    if ema and isinstance(averaged, Mapping) and averaged:
        used = True
        named = _averaged_denoiser(averaged, path)
        if plain := [key for key in tensors if key.startswith("denoise_fn.") and key not in named]:
            log.warning("%s: %d weights of the denoiser have no average (ema): %s.", path.name, len(plain), _few(plain))
        tensors.update(named)
        log.debug("%s: using its averaged (ema) denoiser weights.", path.name)
    return CheckpointContents(tensors, load_params("vimeo_unet"), used)


def _averaged_denoiser(averaged: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The `ema` entries under their full names, `denoise_fn.` first."""
    prefix = "denoise_fn."
    named = {str(k): v for k, v in averaged.items() if isinstance(v, Tensor)}
    named = {k if k.startswith(prefix) else prefix + k: v for k, v in named.items()}
    if len(named) != len(averaged):
        raise CheckpointError(f"{path}: its averaged weights (ema) are not all tensors; load it with ema=False.")
    return named


def _matching_state(model: TLBVFI, contents: CheckpointContents, path: Path) -> dict[str, Tensor]:
    """The entries the model takes, shapes and schedule checked; anything else is an error."""
    state = contents.state
    _check_schedule(state, model.schedule, path)
    wanted = {
        key: tensor.shape for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    missing = [key for key in wanted if key not in state]
    buffers = model.schedule.buffers()
    foreign = [k for k in state if k not in wanted and k not in buffers and not _UNUSED.search(k)]
    if missing or foreign:
        raise CheckpointError(f"{path}: not a TLB-VFI checkpoint of this shape: {_differences(missing, foreign)}.")
    wrong = [
        f"{k} is {_shape(state[k].shape)} instead of {_shape(s)}" for k, s in wanted.items() if state[k].shape != s
    ]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} entries have another shape: {_few(wrong)}.")
    integers = [key for key in wanted if not state[key].is_floating_point()]
    if integers:
        raise CheckpointError(f"{path}: {len(integers)} entries are not floating point: {_few(integers)}.")
    damaged = [key for key in wanted if not bool(torch.isfinite(state[key].float()).all())]
    if damaged:
        raise CheckpointError(
            f"{path}: {len(damaged)} entries hold NaN or infinity, such as {_few(damaged, 1)}; {_AGAIN}."
        )
    matched = {key: state[key] for key in wanted}
    for key in model.state_dict():
        if key.endswith("num_batches_tracked"):
            matched[key] = torch.zeros((), dtype=torch.long)
    return matched


def _check_schedule(state: Mapping[str, Tensor], schedule: Schedule, path: Path) -> None:
    """The file's schedule buffers, where it has any, must be those of the formulas."""
    for name, expected in schedule.buffers().items():
        if name not in state:
            continue
        stored = state[name].float().numpy()
        if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4, atol=1e-6):
            raise CheckpointError(
                f"{path}: its schedule buffer {name} does not follow the bridge's formula for "
                f"{schedule.num_timesteps} timesteps, so the weights belong to another diffusion."
            )


def _own_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy that does not hold the file open, as inference uses it."""
    return laid_out_copy(tensor, dtype if tensor.is_floating_point() else tensor.dtype)


def _few(items: Iterable[str], count: int = 3) -> str:
    items = list(items)
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def _differences(missing: list[str], foreign: list[str]) -> str:
    parts = [f"{len(missing)} missing, first {_few(missing)}"] if missing else []
    parts += [f"{len(foreign)} unknown, first {_few(foreign)}"] if foreign else []
    return "; ".join(parts)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0].split(". This is")[0] if text else type(error).__name__)[:160].rstrip(".")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def convert(source: Path, target: Path, dtype: torch.dtype = torch.float32, *, ema: bool = True) -> None:
    """Write a weight file in our layout: no duplicates, configuration and the source's hash in the metadata.

    The target appears whole or not at all.

    Raises:
        CheckpointError: as :func:`load_model`.
        ValueError: a dtype other than float32 and float16, or a target that is no .safetensors file or is the source.
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"A converted file holds float32 or float16, not {dtype}.")
    if target.suffix.lower() != ".safetensors":
        raise ValueError(f"The converted file must end in .safetensors, not {target.name!r}.")
    if target.exists() and target.resolve() == source.resolve():
        raise ValueError(f"{target} is the source itself; choose another name.")
    contents = read_checkpoint(source, ema=ema)
    with torch.device("meta"):
        model = TLBVFI(contents.params)
    state = _matching_state(model, contents, source)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(contents.params.to_dict()),
        "source_name": source.name,
        "source_sha256": sha256(source),
        "ema": str(contents.used_ema).lower(),
    }
    tensors = {
        key: value.to(dtype).contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")
    }
    with whole(target) as partial:
        save_file(tensors, partial, metadata)
        shutil.copymode(source, partial)  # it is made for its owner alone

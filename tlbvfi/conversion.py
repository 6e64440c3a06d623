"""Writing weights in our layout: a safetensors file without duplicates, the configuration in its metadata."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .checkpoint import finite_weight, load_model, matching_model, without_counters
from .config import ModelParams
from .files import atomic, is_special
from .known_models import CheckpointError
from .model import TLBVFI
from .weight_file import SAFETENSORS, read_checkpoint, refusal, refusing

#: What the metadata of a file in our layout gives as its format.
FORMAT = "tlbvfi"
#: What :func:`convert` stores weights in.
_DTYPES = (torch.float32, torch.float16)


def convert(
    source: Path,
    target: Path,
    dtype: torch.dtype = torch.float32,
    *,
    ema: bool = True,
    watch: Callable[[], object] = lambda: None,
) -> None:
    """Write a weight file in our layout: no duplicates, configuration and the source's hash in the metadata.

    The target appears whole or not at all, and only after what was written has been read again: it loads, and its
    weights are those of the source.

    Args:
        watch: called again and again on the way. What it raises passes through.

    Raises:
        CheckpointError: as :func:`tlbvfi.load_model`.
        ValueError: a dtype other than float32 and float16, or a target that is no .safetensors file, a folder, or the
            source.
        OSError: the target cannot be written.
    """
    if is_special(target):  # which would be replaced
        raise ValueError(f"{target} is a device or a pipe; give the name of a file.")
    if dtype not in _DTYPES:
        known = " or ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise ValueError(f"A converted file holds {known}, not {dtype}.")
    if target.suffix.lower() != SAFETENSORS:
        raise ValueError(f"The converted file must end in {SAFETENSORS}, not {target.name!r}.")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; give the name of a file in it.")
    if target.exists() and target.resolve() == source.resolve():
        raise ValueError(f"{target} is the source itself; choose another name.")
    contents = read_checkpoint(source, ema=ema)
    model = matching_model(contents, source)
    with refusing(source):
        keys = list(without_counters(model.state_dict()))
    state = {}
    for key in keys:
        watch()
        with refusing(source):
            state[key] = finite_weight(contents, key, dtype, source)
    facts = {"source_name": source.name, "source_sha256": sha256(source, watch), "ema": str(contents.used_ema).lower()}
    with atomic(target) as partial:
        write_weights(partial, state, contents.params, facts)
        if partial.is_file():  # and no pipe
            watch()
            _check_loadable(partial, source, dtype)
            _check_equal(partial, state, dtype, watch)
        shutil.copymode(source, partial)  # it is made for its owner alone


def _check_loadable(partial: Path, source: Path, dtype: torch.dtype) -> None:
    """Raises CheckpointError, a sentence about the source, where the file made of it cannot be loaded."""
    try:
        load_model(partial)
    except CheckpointError as error:
        reason = str(error).replace(f"{partial}: ", "").rstrip(".")
        name = str(dtype).removeprefix("torch.")
        raise refusal(
            source, f"converted to {name} it could not be loaded, so nothing was written ({reason})."
        ) from None


def _check_equal(partial: Path, state: Mapping[str, Tensor], dtype: torch.dtype, watch: Callable[[], object]) -> None:
    """Raises OSError where a file does not hold the weights that were written to it."""
    contents = read_checkpoint(partial)
    for key, tensor in state.items():
        watch()
        if not torch.equal(finite_weight(contents, key, dtype, partial), tensor):
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: what was written is read otherwise")


def weight_bytes(params: ModelParams) -> int:
    """Bytes of the weights of a model in a converted file, in float32."""
    with torch.device("meta"):
        state = without_counters(TLBVFI(params).state_dict())
    return sum(tensor.numel() * torch.float32.itemsize for tensor in state.values())


def write_weights(path: Path, state: Mapping[str, Tensor], params: ModelParams, facts: Mapping[str, str]) -> None:
    """Write a state dict in our layout, with further facts for the metadata."""
    metadata = {"format": FORMAT, "config": json.dumps(params.to_dict()), **facts}
    tensors = {key: tensor.contiguous() for key, tensor in without_counters(state).items()}
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # as it says that the disk is full
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from None


def sha256(path: Path, watch: Callable[[], object] = lambda: None) -> str:
    """The SHA-256 of a file, in hexadecimal; `watch` is called again and again."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            watch()
            digest.update(block)
    return digest.hexdigest()

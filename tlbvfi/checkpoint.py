"""Loading models from weight files, strictly: every entry must be there, of its shape, finite, and known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .bridge import Schedule
from .compilation import compile_model
from .config import ModelParams
from .known_models import CheckpointError, resolve_source
from .model import FLOAT32_PARTS, TLBVFI, check_dtype, convert_precision
from .modules.preparation import laid_out_copy
from .weight_file import (
    ALIAS,
    FETCH_AGAIN,
    CheckpointContents,
    entry_shapes,
    few,
    read_checkpoint,
    read_params,
)

#: Batch norms' counters, of no use for inference.
_COUNTER = ".num_batches_tracked"
#: Entries of the official layout that take no part in inference.
_UNUSED = re.compile(
    rf"^{re.escape(ALIAS)}|{re.escape(_COUNTER)}$"
    r"|^vqgan\.decoder\.up\.\d+\.cross_attn\.out_conv\.|^vqgan\.loss\."
    r"|^vqgan\..*\.block\.0\.nin_shortcut\.(weight|bias)$"
)


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
    state = matching_state(model, contents, path)
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


def matching_state(model: TLBVFI, contents: CheckpointContents, path: Path) -> dict[str, Tensor]:
    """The file's entries that the model takes, and zeros for its counters; anything else is a CheckpointError."""
    state = contents.state
    _check_schedule(state, model.schedule, path)
    wanted = without_counters(model.state_dict())
    _check_shapes(model, {key: tuple(tensor.shape) for key, tensor in state.items()}, path)
    integers = [key for key in wanted if not state[key].is_floating_point()]
    if integers:
        raise CheckpointError(f"{path}: {len(integers)} entries are not floating point: {few(integers)}.")
    damaged = [key for key in wanted if not bool(torch.isfinite(state[key].float()).all())]
    if damaged:
        raise CheckpointError(
            f"{path}: {len(damaged)} entries hold NaN or infinity, such as {few(damaged, 1)}; {FETCH_AGAIN}."
        )
    zero = torch.zeros((), dtype=torch.long)
    return {key: state[key] if key in wanted else zero.clone() for key in model.state_dict()}


def check_entries(path: Path) -> ModelParams:
    """The configuration of a weight file whose entries are those of its model, by name and shape; values are not read.

    Raises:
        CheckpointError: the file cannot be read or is not this model.
    """
    params = read_params(path)
    with torch.device("meta"):
        model = TLBVFI(params)
    _check_shapes(model, entry_shapes(path), path)
    return params


def _check_shapes(model: TLBVFI, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Every entry that the model takes must be there in its shape, and no unknown one."""
    wanted = without_counters(model.state_dict())
    missing = [key for key in wanted if key not in shapes]
    buffers = model.schedule.buffers()
    foreign = [k for k in shapes if k not in wanted and k not in buffers and not _UNUSED.search(k)]
    if missing or foreign:
        raise CheckpointError(f"{path}: not a TLB-VFI checkpoint of this shape: {_differences(missing, foreign)}.")
    pairs = {key: (shapes[key], tuple(tensor.shape)) for key, tensor in wanted.items()}
    wrong = [f"{key} is {_shape(a)} instead of {_shape(b)}" for key, (a, b) in pairs.items() if a != b]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} entries have another shape: {few(wrong)}.")


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the counters of its batch norms, which files of our layout do not hold."""
    return {key: tensor for key, tensor in state.items() if not key.endswith(_COUNTER)}


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


def _differences(missing: list[str], foreign: list[str]) -> str:
    parts = [f"{len(missing)} missing, first {few(missing)}"] if missing else []
    parts += [f"{len(foreign)} unknown, first {few(foreign)}"] if foreign else []
    return "; ".join(parts)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"

"""Loading models from weight files, strictly: every entry must be there, of its shape, finite, and known."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .bridge import Schedule
from .compilation import compile_model
from .config import ModelParams
from .known_models import resolve_source
from .mapped_file import Entry
from .model import FLOAT32_PARTS, TLBVFI, check_dtype, convert_precision
from .modules.preparation import laid_out_copy
from .quoting import quoted, sentence
from .weight_file import ALIAS, FETCH_AGAIN, CheckpointContents, few, read_checkpoint, refusal, refusing

#: In the names of convolutions that take batch norms in.
_FOLDED = ".proj_in."
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
    with refusing(path):
        model = _filled(matching_model(contents, path), contents, path, dtype)
    model = model.to(device)
    if compile:
        compile_model(model)
    return model


def matching_model(contents: CheckpointContents, path: Path) -> TLBVFI:
    """A model on ``meta`` whose weights are the file's entries; anything else is a CheckpointError.

    It has no more numbers than the file's entries say that they have. Of these none is read but the schedule's.
    """
    with refusing(path):
        try:
            with torch.device("meta"):
                model = TLBVFI(contents.params)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            reason = sentence(error, 200).rstrip(".")
            raise refusal(path, f"its configuration cannot be used ({reason}).") from None
        _check_entries(model, contents.state, path)
        _check_schedule(contents.state, model.schedule, path)
    return model


def check_entries(path: Path) -> ModelParams:
    """The configuration of a weight file whose entries are those of its model, by name and shape; weights are not read.

    Raises:
        CheckpointError: the file cannot be read or is not this model.
    """
    contents = read_checkpoint(path)
    matching_model(contents, path)
    return contents.params


def _filled(model: TLBVFI, contents: CheckpointContents, path: Path, dtype: torch.dtype) -> TLBVFI:
    """The model with the file's weights in a dtype, ready for inference on the CPU."""
    weights = {}
    for key in model.state_dict():
        # The batch norms around the context convolutions are folded in float32 before these get their dtype.
        keep = key.startswith(FLOAT32_PARTS) or _FOLDED in key
        if key.endswith(_COUNTER):
            weights[key] = torch.zeros((), dtype=torch.long)
        else:
            weights[key] = finite_weight(contents, key, torch.float32 if keep else dtype, path, laid_out_copy)
    model.load_state_dict(weights, strict=True, assign=True)
    del weights
    model = convert_precision(model.finalize(), dtype)
    # What is computed from several weights may be too large where none of them is.
    computed = [(name, weight) for name, weight in model.named_parameters() if _FOLDED in name]
    for name, tensor in (*computed, *model.named_buffers()):
        if not is_finite(tensor):
            raise refusal(
                path,
                f"{name}, as inference uses it, holds NaN or infinity in {_named(tensor.dtype)}; {_remedy(dtype)}.",
            )
    return model


def finite_weight(
    contents: CheckpointContents,
    key: str,
    dtype: torch.dtype,
    path: Path,
    convert: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to,
) -> Tensor:
    """A weight of a file whose entries match a model, in a dtype.

    Args:
        convert: makes a tensor of the weight and the dtype.

    Raises:
        CheckpointError: it cannot be read, or holds NaN or infinity, there or in the dtype.
    """
    read = contents.state[key].read
    assert read is not None
    try:
        stored = read()
    except ValueError as error:
        raise refusal(path, f"not a readable checkpoint ({key}: {error}); {FETCH_AGAIN}.") from None
    weight = convert(stored, dtype)
    if is_finite(weight):
        return weight
    if not is_finite(stored):
        raise refusal(path, f"{key} holds NaN or infinity; {FETCH_AGAIN}.")
    largest = float(stored.abs().max())
    raise refusal(path, f"{key} holds {largest:g}, too large for {_named(dtype)}; {_remedy(dtype)}.")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    if not tensor.is_floating_point():
        return True
    # A sum in few passes: it is finite only if everything is. Where it is not, it may just be too large.
    return math.isfinite(tensor.sum(dtype=torch.float32).item()) or bool(torch.isfinite(tensor).all())


def _remedy(dtype: torch.dtype) -> str:
    """What to do about weights that are not finite in a dtype."""
    return FETCH_AGAIN if dtype == torch.float32 else f"use float32, unless the file is damaged: {FETCH_AGAIN}"


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_entries(model: TLBVFI, entries: Mapping[str, Entry], path: Path) -> None:
    """Every entry that the model takes must be there, in its shape and of floating point, and no unknown one."""
    wanted = without_counters(model.state_dict())
    missing = [key for key in wanted if key not in entries]
    buffers = model.schedule.buffers()
    foreign = [k for k in entries if k not in wanted and k not in buffers and not _UNUSED.search(k)]
    if missing or foreign:
        raise refusal(path, f"not a TLB-VFI checkpoint of this shape: {_differences(missing, foreign)}.")
    others = [key for key in (*wanted, *buffers) if key in entries and entries[key].read is None]
    if others:
        kind = quoted(entries[others[0]].kind)
        raise refusal(path, f"{len(others)} entries are no plain floating-point tensors but {kind}: {few(others)}.")
    pairs = {key: (entries[key].shape, tuple(tensor.shape)) for key, tensor in wanted.items()}
    wrong = [f"{key} is {_shape(a)} instead of {_shape(b)}" for key, (a, b) in pairs.items() if a != b]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise refusal(path, f"{len(wrong)} entries have another shape: {', '.join(wrong[:3])}{more}.")


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the counters of its batch norms, which files of our layout do not hold."""
    return {key: tensor for key, tensor in state.items() if not key.endswith(_COUNTER)}


def _check_schedule(entries: Mapping[str, Entry], schedule: Schedule, path: Path) -> None:
    """The file's schedule buffers, where it has any, must be those of the formulas."""
    for name, expected in schedule.buffers().items():
        entry = entries.get(name)
        if entry is None or entry.read is None:
            continue
        # Only one of the right shape is read.
        same = entry.shape == expected.shape
        if not same or not np.allclose(entry.read().float().numpy(), expected, rtol=1e-4, atol=1e-6):
            raise refusal(
                path,
                f"its schedule buffer {name} does not follow the bridge's formula for "
                f"{schedule.num_timesteps} timesteps, so the weights belong to another diffusion.",
            )


def _differences(missing: list[str], foreign: list[str]) -> str:
    parts = [f"{len(missing)} missing, first {few(missing)}"] if missing else []
    parts += [f"{len(foreign)} unknown, first {few(foreign)}"] if foreign else []
    return "; ".join(parts)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"

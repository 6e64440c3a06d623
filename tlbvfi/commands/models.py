"""The model that a command line names, and the device and dtype for it."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import BUILT_IN, built_in_path, load_model, resolve_source
from ..model import TLBVFI
from ..weight_file import CheckpointError


def weight_file(model: str | None) -> Path:
    """The file of ``--model``; None is the built-in model.

    Raises:
        CheckpointError: there is none.
    """
    if model is None and not built_in_path(next(iter(BUILT_IN))).is_file():
        raise CheckpointError(
            "this installation has no built-in weights; give a weight file with --model "
            "(python -m tlbvfi download fetches the published one)."
        )
    return resolve_source(model)


def load(model: str | None, device: torch.device, dtype: torch.dtype | str) -> TLBVFI:
    """The model of ``--model`` on a device; dtype "auto" is float16 on CUDA, else float32.

    Raises:
        CheckpointError: as :func:`weight_file` and :func:`tlbvfi.load_model`.
    """
    path = weight_file(model)
    if isinstance(dtype, str):
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    return load_model(path, device=device, dtype=dtype)


def device_named(name: str) -> torch.device:
    """The device of ``--device``; "auto" is the first graphics card, else the CPU.

    Raises:
        ValueError: there is none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        device = torch.device("meta")
    if device.type == "meta":
        raise ValueError(f"there is no device {name!r} here (auto, cpu, cuda, cuda:1, mps, xpu).")
    return device

"""The model that a command line names, and the device and dtype for it."""

from __future__ import annotations

import torch

from ..checkpoint import load_model
from ..model import TLBVFI
from .weights import weight_file


def load(model: str | None, device: torch.device, dtype: str) -> TLBVFI:
    """The model of ``--model`` on a device; dtype "auto" is float16 on CUDA, else float32.

    Raises:
        CheckpointError: as :func:`.weights.weight_file` and :func:`tlbvfi.load_model`.
    """
    path = weight_file(model)
    if dtype == "auto":
        dtype = "float16" if device.type == "cuda" else "float32"
    return load_model(path, device=device, dtype=dtype_named(dtype))


def dtype_named(name: str) -> torch.dtype:
    """The dtype of ``--dtype``, by one of the names in :data:`.grammar.DTYPES`."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


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

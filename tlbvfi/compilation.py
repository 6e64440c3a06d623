"""`torch.compile` for the parts of the model that are many small operations."""

from __future__ import annotations

import logging

import torch
from torch import nn

from .model import TLBVFI

log = logging.getLogger(__name__)


def compile_model(model: TLBVFI) -> bool:
    """Compile the coarse flow and the denoiser in place, and warm them up at the smallest size.

    Where that fails, for want of a compiler or for any other reason, the model is left as it was and one line is
    logged. Results are equal to rounding. Every new size is compiled when it first comes up, until PyTorch has as many
    of one module as it keeps; further sizes run as without.

    Returns:
        Whether the model is compiled.
    """
    parts = compiled_parts(model)
    try:
        for part in parts:
            # With sizes as symbols the compiler takes many minutes on the CPU.
            part.compile(dynamic=False)
        with torch.no_grad():
            frame = torch.zeros(1, 3, model.multiple, model.multiple, device=model.device)
            features = model.encode_frame(frame)
            model.midpoint(features, features, [1, 0])
    except Exception as error:
        for part in parts:
            part._compiled_call_impl = None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("torch.compile does not work here, going on without it: %s", reason[0][:200])
        return False
    return True


def is_compiled(model: TLBVFI) -> bool:
    """Whether any part of a model is compiled."""
    return any(part._compiled_call_impl is not None for part in compiled_parts(model))


def compiled_parts(model: TLBVFI) -> list[nn.Module]:
    """The modules that :func:`compile_model` compiles: those that take and give tensors of one size."""
    flow = model.vqgan.decoder.flownet
    # Each is compiled once a size. (Attention is many modules of one class: more kinds than PyTorch will compile.)
    return [flow.block0, flow.block1, flow.block2, model.denoise_fn]

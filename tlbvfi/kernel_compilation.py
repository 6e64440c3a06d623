"""Kernels of our own, compiled before a run first needs them."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import Any

import torch

from .counting import Recording
from .footprint import meta_model
from .kernels.device.ahead import Wanted, compile_noted, noting
from .model import TLBVFI
from .precision import convolutions_in_tf32, products_in_tf32, tf32
from .rows.tuning import Tuning, tuned
from .settings import Settings

log = logging.getLogger(__name__)

#: Steps of the bridge whose kernels are noted: the first, one between and the last.
_STEPS = 3
#: Seconds of compiling that the log has a line about.
_WORTH_SAYING = 1.0
_done: set[tuple[Any, ...]] = set()
_lock = Lock()


@torch.no_grad()
def compile_kernels(model: TLBVFI, padded: tuple[int, int], batch: int, settings: Settings) -> None:
    """Compile what model calls start on the model's card, once for each kind of model and size; nothing where there are
    no kernels of our own.

    Args:
        padded: (height, width) that the model sees.
        batch: frames at a time.
    """
    device = model.device
    tuning = Tuning.of(device)
    if device.type != "cuda" or not tuning.kernels:
        return
    with tf32(settings.tf32), _lock:
        kind = (device, model.params, model.dtype, padded, batch, products_in_tf32(), convolutions_in_tf32())
        if kind in _done:
            return
        _done.add(kind)
        began = time.monotonic()
        try:
            compile_noted(noted(model, padded, batch, settings, tuning), device)
        except Exception as error:  # they are compiled one after the other then
            log.debug("Kernels are not compiled ahead: %s", error)
        seconds = time.monotonic() - began
        if seconds >= _WORTH_SAYING:
            log.info("Kernels compiled in %.1f s.", seconds)


def noted(model: TLBVFI, padded: tuple[int, int], batch: int, settings: Settings, tuning: Tuning) -> list[Wanted]:
    """Each start of a kernel by encoding frames and computing new ones (arguments as above)."""
    empty = meta_model(model.params, model.dtype)
    weights = [*empty.parameters(), *empty.buffers()]
    with torch.no_grad(), torch.device("meta"), tuned(tuning), Recording(weights), noting() as kernels:
        frames = torch.empty(batch, 3, *padded)
        draws = torch.empty(_STEPS - 1, batch, *empty.latent_shape(*padded))
        features = empty.encode_frame(frames, settings.flow_scale)
        empty.midpoint(features, features, _STEPS, list(draws))
    return kernels

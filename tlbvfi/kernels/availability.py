"""Whether a device runs kernels of our own."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from threading import Lock

import torch

log = logging.getLogger(__name__)

#: The oldest cards that have the shared memory that the kernels take, and bfloat16.
_OLDEST_CAPABILITY = (8, 0)
_found: dict[torch.device, bool] = {}
_lock = Lock()


def usable(device: torch.device) -> bool:
    """Whether the layers should call kernels of our own on a device.

    On a card one is compiled and run the first time, and what comes out is remembered: a compiler may be missing, or
    not fit the card. The ``meta`` device says yes: what is counted there is what a card does at its best.
    """
    if device.type != "cuda":
        return device.type == "meta"
    if device not in _found:
        with _lock:
            if device not in _found:
                _found[device] = _tried(device)
    return _found[device]


def give_up(device: torch.device, reason: str) -> None:
    """Call none of them on a device from here on; says so once in the log."""
    if _found.get(device, True):
        _warn(device, reason)
    _found[device] = False


def _warn(device: torch.device, reason: str) -> None:
    log.warning("Kernels by Triton do not work on %s, going on without them: %s", device, reason)


def _tried(device: torch.device) -> bool:
    if not torch.cuda.is_available():
        return False
    if find_spec("triton") is None:
        log.info("Triton is not installed: going on without kernels of our own, which are faster.")
        return False
    if torch.version.cuda is not None and torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        return False
    try:
        from .joins import join

        x = torch.ones(1, 16, 1, 1, device=device)
        if torch.equal(join(x, other=x), torch.full_like(x, 2.0)):
            return True
        reason = "a sum came out wrong"
    except Exception as error:  # whatever the compiler raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    _warn(device, reason)
    return False

"""Kernels compiled before they are needed, several at a time.

A kernel is compiled when it is first started, one after the other, which takes the first new frame of a machine half a
minute. What a model call starts is known on the ``meta`` device, so all of it can be compiled at once before. Triton
keeps what it compiled on the disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

import torch

log = logging.getLogger(__name__)

_wanted: ContextVar[list[Callable[[], object]] | None] = ContextVar("wanted", default=None)


def wanted() -> list[Callable[[], object]] | None:
    """Where what would compile a kernel is noted now, instead of starting it; None where kernels are started."""
    return _wanted.get()


@contextmanager
def noting() -> Iterator[list[Callable[[], object]]]:
    """On the ``meta`` device operators note their kernels in the block, and say their shapes."""
    noted: list[Callable[[], object]] = []
    token = _wanted.set(noted)
    try:
        yield noted
    finally:
        _wanted.reset(token)


def compile_noted(noted: list[Callable[[], object]], device: torch.device) -> None:
    """Compile kernels for a card. What cannot be compiled is left to whoever starts it."""
    if find_spec("triton.runtime._async_compile") is None:  # an older Triton compiles in one thread
        return

    def compiled(kernel: Callable[[], object]) -> None:
        try:
            with torch.cuda.device(device):
                kernel()
        except Exception as error:
            log.debug("A kernel was not compiled ahead: %s", error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(compiled, noted))

"""Kernels compiled before they are needed, several at a time.

A kernel is compiled when it is first started, one after the other, which takes the first new frame of a machine half a
minute. What a model call starts is known on the ``meta`` device, so all of it can be compiled at once before. Triton
keeps what it compiled on the disk.

They are loaded one after the other. In Triton 3.6 (not in 3.9) what starts a kernel is a Python module of its own. All
of them have one name, and of modules of one name CPython keeps a single object where a file is loaded again: of two
threads that load, one may get the other's, and then a kernel is started as another one is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from threading import RLock
from typing import Any

import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A kernel for arguments of a kind.

    Attributes:
        key: the same for what is compiled into the same.
        compile: compiles it for the current device, in any thread.
        load: makes what `compile` gave ready to be started, while no other kernel is loaded.
    """

    key: Hashable
    compile: Callable[[], Any]
    load: Callable[[Any], object]


#: Held while a kernel is loaded.
loading = RLock()


_wanted: ContextVar[list[Wanted] | None] = ContextVar("wanted", default=None)


def wanted() -> list[Wanted] | None:
    """Where what would compile a kernel is noted now, instead of starting it; None where kernels are started."""
    return _wanted.get()


@contextmanager
def noting() -> Iterator[list[Wanted]]:
    """On the ``meta`` device operators note their kernels in the block, and say their shapes."""
    noted: list[Wanted] = []
    token = _wanted.set(noted)
    try:
        yield noted
    finally:
        _wanted.reset(token)


def compile_noted(noted: list[Wanted], device: torch.device) -> None:
    """Compile kernels for a card. What cannot be compiled is left to whoever starts it."""
    if find_spec("triton.runtime._async_compile") is None:  # an older Triton compiles in one thread
        return

    def compiled(kernel: Wanted) -> Any:
        with torch.cuda.device(device):
            return kernel.compile()

    each = {kernel.key: kernel for kernel in noted}
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        coming = [(kernel, pool.submit(compiled, kernel)) for kernel in each.values()]
    for kernel, result in coming:
        try:
            with loading, torch.cuda.device(device):
                kernel.load(result.result())
        except Exception as error:
            log.debug("A kernel was not compiled ahead: %s", error)

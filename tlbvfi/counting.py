"""The bytes of the tensors that are alive, counted exactly, on real and on fake devices."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .model import TLBVFI


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and their peak, while it is active.

    Every storage that an operation returns counts once, from then until its last reference goes; those of `excluded`,
    such as a model's weights, do not.

    Attributes:
        current: bytes alive now.
        peak: the most that were alive at once.
    """

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}
        self._excluded = {tensor.untyped_storage()._cdata for tensor in excluded}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._excluded:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.finalize(storage, self._release, key, size)
        self.current += size
        self.peak = max(self.peak, self.current)

    def _release(self, key: int, size: int) -> None:
        self._alive.pop(key, None)
        self.current -= size


@contextmanager
def counting(model: TLBVFI | None = None) -> Iterator[LiveBytes]:
    """Count live bytes of real or fake tensors in the block, a model's weights excluded."""
    counter = LiveBytes([] if model is None else [*model.parameters(), *model.buffers()])
    with counter:
        yield counter

"""The bytes of the tensors that are alive, counted exactly, on real and on fake devices; and when they come and go."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .allocator import Event
from .model import TLBVFI


class _Storages(TorchDispatchMode, ABC):
    """Sees every storage that an operation returns once, from then until its last reference goes; not those of
    `excluded`, such as a model's weights."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; PyTorch's guard against that takes longer than all the rest."""
        return False

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._alive: dict[int, Any] = {}
        self._excluded = {tensor.untyped_storage()._cdata for tensor in excluded}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._excluded:
            return
        came = self._came(tensor, storage.nbytes())

        def went(_: object) -> None:
            self._alive.pop(key, None)
            self._went(came)

        self._alive[key] = weakref.ref(storage, went)

    @abstractmethod
    def _came(self, tensor: Tensor, size: int) -> Any:
        """A tensor with so many bytes of its own is there; what this returns is said when they go."""

    @abstractmethod
    def _went(self, came: Any) -> None:
        """They are gone."""


class LiveBytes(_Storages):
    """Counts the bytes of the storages that are alive, and their peak, while it is active.

    Attributes:
        current: bytes alive now.
        peak: the most that were alive at once.
    """

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        super().__init__(excluded)
        self.current = 0
        self.peak = 0

    def _came(self, tensor: Tensor, size: int) -> int:
        if tensor.is_meta:  # what is planned for has no memory
            return 0
        self.current += size
        self.peak = max(self.peak, self.current)
        return size

    def _went(self, came: int) -> None:
        self.current -= came


@contextmanager
def counting(model: TLBVFI | None = None) -> Iterator[LiveBytes]:
    """Count live bytes of real or fake tensors in the block, a model's weights excluded."""
    counter = LiveBytes([] if model is None else [*model.parameters(), *model.buffers()])
    with counter:
        yield counter


#: Bytes that an operation has beside its result while it runs.
Workspace = Callable[[Any, tuple[Any, ...], Any], int]


class Recording(_Storages):
    """Writes down what tensors on the ``meta`` device would allocate and free on a card, while it is active.

    What an operation returns depends on the shapes that it takes: it is asked once for each, which saves most of the
    time.

    Attributes:
        events: in order.
        stream: that allocations are made on now.
    """

    def __init__(self, excluded: Iterable[Tensor] = (), workspace: Workspace = lambda *_: 0) -> None:
        super().__init__(excluded)
        self.events: list[Event] = []
        self.stream = 0
        self._workspace = workspace
        self._keys = count()
        self._known: dict[Any, Callable[[Any], Any] | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        signature = func, _signature(args), _signature(kwargs.items()) if kwargs else ()
        again = self._known.get(signature, _unknown)
        if again is _unknown:
            result = _as_on_a_device(func, args, func(*args, **kwargs))
            self._known[signature] = _again(func, args, kwargs, signature, result)
        elif again is None:
            result = func(*args, **kwargs)
        else:
            result = again(args)
        for leaf in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._see(leaf)
        if workspace := self._workspace(func, args, result):
            self._went(self._note(workspace))
        return result

    def ended(self) -> list[Event]:
        """The events, and the end of what is alive still."""
        alive = {event.key for event in self.events if event.size} - {e.key for e in self.events if not e.size}
        return [*self.events, *(Event(key, 0) for key in alive)]

    def _came(self, tensor: Tensor, size: int) -> int:
        return self._note(size)

    def _note(self, size: int) -> int:
        key = next(self._keys) if size else -1  # empty tensors have no memory
        if size:
            self.events.append(Event(key, size, self.stream))
        return key

    def _went(self, came: int) -> None:
        if came >= 0:
            self.events.append(Event(came, 0))


def _as_on_a_device(func: Any, args: Any, result: Any) -> Any:
    """An operation's result in a device's layout: a convolution's is channels last where its map or its weight is; on
    the ``meta`` device the weight is not asked."""
    if func is torch.ops.aten.convolution.default and result.is_meta and any(map(channels_last, args[:2])):
        return result.contiguous(memory_format=torch.channels_last)
    return result


def channels_last(x: Tensor) -> bool:
    """Whether PyTorch takes a map (B, C, H, W) for one of channels last."""
    if x.ndim != 4:
        return False
    least = 0
    for side in (1, 3, 2, 0):
        if x.stride(side) < least or (side == 0 and least == x.stride(1)):
            return False
        least = x.stride(side) * max(x.shape[side], 1)
    return x.stride(1) > 0


def _unknown(_: Any) -> Any:
    """In the place of what is not known yet."""


def _again(func: Any, args: Any, kwargs: Any, signature: Any, result: Any) -> Callable[[Any], Any] | None:
    """What gives an operation's result again for arguments of the same shapes; None where that takes the operation."""
    if not func._schema.is_mutable:
        leaves = result if isinstance(result, (tuple, list)) else (result,)
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        fresh = all(isinstance(t, Tensor) and t.is_meta and t.untyped_storage()._cdata not in given for t in leaves)
        return _Fresh(leaves, result) if fresh and leaves else None
    if signature[1:] != (_signature(args), _signature(kwargs.items())):
        return None  # it has changed a shape
    if result is None:
        return lambda _: None
    return (lambda again: again[0]) if args and result is args[0] else None


class _Fresh:
    """Gives new tensors of the shapes of some."""

    def __init__(self, tensors: Iterable[Tensor], result: Any) -> None:
        self._kind = None if isinstance(result, Tensor) else type(result)
        self._specs = [(tuple(t.shape), t.stride(), t.dtype) for t in tensors]

    def __call__(self, _: Any) -> Any:
        made = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in self._specs]
        return made[0] if self._kind is None else self._kind(made)


def _signature(values: Iterable[Any]) -> tuple[Any, ...]:
    """All that the shapes of a result can depend on, hashable."""
    found: list[Any] = []
    for value in values:
        kind = type(value)
        if isinstance(value, Tensor):
            found.append((value.shape, value.stride(), value.dtype, value.is_meta))
        elif kind is tuple or kind is list:
            found.append(_signature(value))
        else:
            found.append((kind, value))  # 1, 1.0 and True are equal
    return tuple(found)


class FusedAttention(TorchFunctionMode):
    """Attention as a card's kernels make it, without logits; on the ``meta`` device PyTorch takes it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            q, _, v, *_ = args
            sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
            result = q.new_empty(*q.shape[:-1], v.shape[-1])
            del sums
            return result
        return func(*args, **(kwargs or {}))

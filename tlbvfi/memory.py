"""What a run needs of the device's memory: counted exactly, without a device, under fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .config import ModelParams
from .model import TLBVFI, convert_precision
from .padding import PaddingMode, padding_for


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and their peak, while it is active.

    Every storage that an operation returns counts once, from then until its last reference goes; those of `apart`,
    such as a model's weights, do not.
    """

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}
        self._apart = {tensor.untyped_storage()._cdata for tensor in apart}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._apart:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.finalize(storage, self._release, key, size)
        self.current += size
        self.peak = max(self.peak, self.current)

    def _release(self, key: int, size: int) -> None:
        self._alive.pop(key, None)
        self.current -= size


@dataclass(frozen=True)
class Plan:
    """How a run at a size will go.

    Attributes:
        padded_size: (height, width) that the model sees.
        peak_bytes: weights and live activations at the peak. Allocator overhead and library workspaces are extra.
        weight_bytes: the weights alone.
        strip_rows: rows of the frame evaluated at a time; the padded height where it goes whole.
        batch_size: pairs evaluated at a time.
    """

    padded_size: tuple[int, int]
    peak_bytes: int
    weight_bytes: int
    strip_rows: int
    batch_size: int


def plan(
    height: int,
    width: int,
    dtype: torch.dtype = torch.float16,
    flow_scale: float = 0.5,
    budget: int | None = None,
    *,
    params: ModelParams | None = None,
    padding: PaddingMode = "tight",
) -> Plan:
    """Memory that interpolating video of height x width takes.

    Args:
        height, width: of the source frames.
        dtype: the model's.
        flow_scale: as for :func:`tlbvfi.interpolate_frames`.
        budget: bytes that may be used, weights included; None for no limit.
        params: the model's parameters (``model.params``); the published model's by default.
        padding: as for :func:`tlbvfi.interpolate_frames`.

    Raises:
        ValueError: a size, flow scale or dtype that cannot be, or a budget that is too small; names what would do.
    """
    params = params or ModelParams()
    padded = padding_for(height, width, padding, params.autoencoder.multiple).padded
    weights = _weight_bytes(params, dtype)
    peak = weights + _peak_activations(params, padded, dtype, float(flow_scale))
    if budget is not None and peak > budget:
        raise ValueError(
            f"{height}x{width} at flow scale {flow_scale} in {str(dtype).removeprefix('torch.')} needs "
            f"{peak / 2**30:.2f} GiB, more than the {budget / 2**30:.2f} GiB given; use a smaller size, "
            "a smaller flow scale or float16."
        )
    return Plan(padded, peak, weights, padded[0], 1)


@lru_cache(maxsize=8)
def _weight_bytes(params: ModelParams, dtype: torch.dtype) -> int:
    with torch.device("meta"):
        model = convert_precision(TLBVFI(params).finalize(), dtype)
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _peak_activations(params: ModelParams, padded: tuple[int, int], dtype: torch.dtype, flow_scale: float) -> int:
    """Peak live bytes of a run, weights apart: counted once at a small size, and linear in the pixels."""
    small = params.autoencoder.multiple
    per_pixel = _counted_activations(params, (small, small), dtype, flow_scale) / small**2
    return round(per_pixel * padded[0] * padded[1])


@lru_cache(maxsize=64)
def _counted_activations(params: ModelParams, padded: tuple[int, int], dtype: torch.dtype, flow_scale: float) -> int:
    """Peak live bytes, weights apart, of a pair of frames: the run itself, on tensors without data."""
    with FakeTensorMode(), torch.no_grad():
        model = convert_precision(TLBVFI(params).finalize(), dtype)
        frame = torch.empty(1, 3, *padded)
        with counting(model) as counter:
            left = model.encode_frame(frame, flow_scale)
            right = model.encode_frame(frame, flow_scale)
            model.midpoint(left, right, [0])  # the bridge is small, and every step is alike
        return counter.peak


@contextmanager
def counting(model: TLBVFI | None = None) -> Iterator[LiveBytes]:
    """Count live bytes of real or fake tensors in the block, a model's weights apart."""
    counter = LiveBytes([] if model is None else [*model.parameters(), *model.buffers()])
    with counter:
        yield counter

"""TF32, the 10-bit mantissa in which NVIDIA's tensor cores multiply float32: on or off for a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch

#: PyTorch's switches belong to the whole process: blocks of several threads run in turn, or one would restore what
#: another has set.
_switches = RLock()


@contextmanager
def tf32(enabled: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions; when the block is left, all is as it was before.

    With None nothing is changed.
    """
    if enabled is None:
        yield
        return
    with _switches:
        before = _settings()
        try:
            if _has_precision_per_backend():
                _apply("tf32" if enabled else "ieee", "tf32" if enabled else "ieee")
            else:
                _apply("high" if enabled else "highest", enabled)
            yield
        finally:
            _apply(*before)


def products_in_tf32() -> bool:
    """Whether matrix products of float32 may be made in TF32 now."""
    return _settings()[0] in ("tf32", "high", "medium")


def convolutions_in_tf32() -> bool:
    """Whether convolutions of float32 may be made in TF32 now."""
    return _settings()[1] in ("tf32", True)


def _has_precision_per_backend() -> bool:
    """PyTorch from 2.9. It refuses to read the older settings where they and the newer ones disagree."""
    return hasattr(torch.backends.cuda.matmul, "fp32_precision")


def _settings() -> tuple[Any, Any]:
    """Of matrix products and of convolutions, as :func:`_apply` takes them."""
    backends: Any = torch.backends
    if _has_precision_per_backend():
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32


def _apply(products: Any, convolutions: Any) -> None:
    backends: Any = torch.backends
    if _has_precision_per_backend():
        backends.cuda.matmul.fp32_precision = products
        backends.cudnn.conv.fp32_precision = convolutions
    else:
        torch.set_float32_matmul_precision(products)
        backends.cudnn.allow_tf32 = convolutions

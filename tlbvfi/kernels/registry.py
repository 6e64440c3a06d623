"""How an operator is defined: its schema, the shapes of its results, and what starts its kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ..precision import convolutions_in_tf32, products_in_tf32
from .device.ahead import wanted


class KernelError(RuntimeError):
    """A kernel could not be compiled for its device, or not be started there."""


def _new_library() -> torch.library.Library:
    """Operators under the package's own name; a second copy of the package in the process takes another."""
    base = re.sub(r"\W", "_", __name__.rpartition(".kernels")[0])
    for number in count(1):
        try:
            return torch.library.Library(base if number == 1 else f"{base}_{number}", "DEF")
        except RuntimeError:  # the name is taken
            continue
    raise AssertionError


_library = _new_library()


def operator(schema: str, shapes: Callable[..., Any], launch: Callable[..., Any]) -> Callable[..., Any]:
    """Define an operator and give it back.

    Args:
        schema: as PyTorch writes it, with the name first: ``"join(Tensor x, Tensor? bias) -> Tensor"``.
        shapes: makes the results on the ``meta`` device, empty; takes the operator's arguments.
        launch: makes the results on a card, or on the CPU by Triton's interpreter; takes the operator's arguments.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, _noting(shapes, launch), "Meta")
    _library.impl(name, _on_its_card(launch), "CUDA")
    _library.impl(name, launch, "CPU")
    return getattr(getattr(torch.ops, _library.ns), name)


def _noting(shapes: Callable[..., Any], launch: Callable[..., Any]) -> Callable[..., Any]:
    """The shapes of the results; where kernels are noted (:mod:`.device.ahead`), those that would be started are."""

    def made(*arguments: Any) -> Any:
        if wanted() is not None:
            launch(*arguments)
        return shapes(*arguments)

    return made


def _on_its_card(launch: Callable[..., Any]) -> Callable[..., Any]:
    """Triton starts a kernel on the current card, whatever its tensors are on."""

    def launched(*arguments: Any) -> Any:
        first = next(argument for argument in arguments if isinstance(argument, Tensor))
        try:
            with torch.cuda.device(first.device):
                return launch(*arguments)
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "triton":
                raise
            raise KernelError((str(error).strip().splitlines() or [type(error).__name__])[0][:200]) from error

    return launched


def ceil_div(count: int, size: int) -> int:
    """How many pieces of a size there are in a count."""
    return -(-count // size)


def power_of_two(count: int, least: int = 1) -> int:
    """The power of two at or above a count, and at least `least`: what Triton's blocks have for sides."""
    return max(1 << (count - 1).bit_length(), least)


def products(x: Tensor, convolution: bool = False) -> str:
    """How Triton multiplies matrices of a tensor's dtype, for a convolution or else: in TF32 where that is allowed for
    these now, else exactly."""
    allowed = convolutions_in_tf32() if convolution else products_in_tf32()
    return "tf32" if x.dtype == torch.float32 and allowed else "ieee"

"""Preparation for inference: one protocol for modules, and the one place that knows how weights lie in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from torch import Tensor, nn


def stacked(weight: Tensor) -> Tensor:
    """The kernel (out, in, t, y, x) of a 3-D convolution as that (out, t in, y, x) of a 2-D one over stacked frames."""
    return rearrange(weight, "o i t y x -> o (t i) y x")


def _unstacked(weight: Tensor, reach: int) -> Tensor:
    return rearrange(weight, "o (t i) y x -> o i t y x", t=reach)


def laid_out(weight: Tensor) -> Tensor:
    """The weight, its memory as convolutions use it: channels last, 3-D ones as :func:`stacked` has them."""
    if weight.ndim == 5:
        return _unstacked(laid_out(stacked(weight)), weight.shape[2])
    return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight.contiguous()


def laid_out_copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of the weight in a dtype, its memory as :func:`laid_out` has it."""
    if weight.ndim == 5:
        out, channels, reach, *sides = weight.shape
        memory = torch.empty(out, reach * channels, *sides, dtype=dtype, memory_format=torch.channels_last)
        return _unstacked(memory, reach).copy_(weight)
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    return torch.empty(weight.shape, dtype=dtype, memory_format=layout).copy_(weight)


def multiple_of_8(channels: int) -> int:
    """Channels that cards convolve fast in half precision: so many, or the next more."""
    return -(-channels // 8) * 8


def zero_padded(weight: Tensor, *sizes: int) -> Tensor:
    """A copy of the weight whose first sides are these, with zeros past its own, laid out for convolutions."""
    padded = weight.new_zeros(*sizes, *weight.shape[len(sizes) :])
    padded[tuple(slice(size) for size in weight.shape[: len(sizes)])] = weight
    return laid_out(padded)


class Prepared(ABC):
    """A module that computes something from its weights once, for inference."""

    @abstractmethod
    def prepare(self) -> None:
        """Compute it, where it is not there or the weights have changed since (a model is built on ``meta``, filled,
        and may get another dtype)."""


@torch.no_grad()
def prepare(model: nn.Module) -> None:
    """Make all modules of a model ready for inference."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = laid_out(module.weight.data)
    for module in model.modules():
        if isinstance(module, Prepared):
            module.prepare()


def version_of(weight: Tensor) -> int:
    """Counts the changes made to a weight in place; 0 for one made under torch.inference_mode, which keeps no count."""
    try:
        return weight._version
    except RuntimeError:
        return 0


class Deriving(Prepared, nn.Module):
    """A module that computes with tensors derived from its weights, and keeps them for inference.

    They are buffers outside of the state, built by :meth:`prepare`, and derived anew at every call where there are
    none, where a weight wants a gradient, or where one has changed since.
    """

    _derived_from: tuple[object, ...] = ()
    _derived: tuple[str, ...] = ()

    @abstractmethod
    def derive(self) -> dict[str, Tensor]:
        """The tensors, by the names of the buffers."""

    @abstractmethod
    def sources(self) -> tuple[Tensor, ...]:
        """The weights that they are derived from."""

    @torch.no_grad()
    def prepare(self) -> None:
        if self._derived and not self._outdated():
            return
        tensors = self.derive()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)
        self._derived, self._derived_from = tuple(tensors), self._state()

    def derived(self) -> dict[str, Tensor]:
        learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in self.sources())
        if not self._derived or learning or self._outdated():
            return self.derive()
        return {name: self._buffers[name] for name in self._derived}  # type: ignore[misc]

    def _state(self) -> tuple[object, ...]:
        return tuple((id(weight), version_of(weight), weight.dtype) for weight in self.sources())

    def _outdated(self) -> bool:
        # Compiled code takes the weights not to change.
        return not torch.compiler.is_compiling() and self._derived_from != self._state()

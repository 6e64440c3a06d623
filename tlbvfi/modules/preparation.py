"""Preparation for inference: one protocol for modules, and the one place that knows how weights lie in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

#: Dimensions from the outermost in memory to the innermost, by their number: those of 2-D convolutions (out, in, y, x)
#: as channels-last, those of 3-D ones (out, in, t, y, x) as :class:`.blocks.ClipConv` stacks them.
_ORDER = {4: (0, 2, 3, 1), 5: (0, 3, 4, 2, 1)}


def laid_out(weight: Tensor) -> Tensor:
    """The weight as it is, its memory in the order in which it is used."""
    order = _order(weight.ndim)
    return weight.permute(order).contiguous().permute(_inverse(order))


def laid_out_copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of the weight in a dtype, its memory in the order in which it is used."""
    order = _order(weight.ndim)
    ordered = weight.permute(order)
    return torch.empty(ordered.shape, dtype=dtype).copy_(ordered).permute(_inverse(order))


def _order(dimensions: int) -> tuple[int, ...]:
    return _ORDER.get(dimensions, tuple(range(dimensions)))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(dimension) for dimension in range(len(order)))


class Prepared(ABC):
    """A module that computes something from its weights once, for inference."""

    @abstractmethod
    def prepare(self) -> None:
        """Compute it, where it is not there or the weights have changed since (a model is built on ``meta``, filled,
        and may get another dtype)."""


@torch.no_grad()
def prepare(model: nn.Module) -> None:
    """Make all modules of a model ready for inference."""
    for parameter in model.parameters():
        parameter.data = laid_out(parameter.data)
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

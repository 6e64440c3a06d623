"""The activations of norms: layers of PyTorch, which kernels of our own know by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """An activation that overwrites its input where no gradient needs it.

    Attributes:
        name: as :func:`..kernels.norms.scale_act` has it.
        function: of PyTorch.
    """

    name: str
    function: Callable[..., Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, inplace=not torch.is_grad_enabled())


silu = Activation("silu", F.silu)
relu = Activation("relu", F.relu)

"""What changes the weights: two optimizers side by side, and the average of the weights over the steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Least sides of a matrix that Muon steps: what reads colours or gives flows is too thin for it.
_MUON_SIDE = 16
#: Muon's rate beside AdamW's, its steps scaled to be as large as AdamW's.
_MUON_RATE = 2.0


class Optimizer:
    """Muon for the weights between wide maps, AdamW for all else."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.rate = rate
        wide = [p for p in parameters if p.ndim > 1 and min(p.shape[:2]) >= _MUON_SIDE]
        chosen = {id(p) for p in wide}
        self._wide = [(p, nn.Parameter(_matrix(p.detach()))) for p in wide]
        rest = [p for p in parameters if id(p) not in chosen]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-4), 1.0)
        ]
        if wide:
            matrices = [matrix for _, matrix in self._wide]
            muon = torch.optim.Muon(matrices, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw")
            self._parts.append((muon, _MUON_RATE))

    def step(self, share: float) -> None:
        """One step at `share` of the rate."""
        for parameter, matrix in self._wide:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad)
        for part, factor in self._parts:
            for group in part.param_groups:
                group["lr"] = self.rate * share * factor
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part, _ in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for (part, _), state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _matrix(weight: Tensor) -> Tensor:
    """A weight (out, in, ...) as a matrix over its inputs: the same memory, as it lies."""
    if weight.ndim == 4:
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)


class Average:
    """Exponential moving average of parameters, slow at the start of training only as far as it must be."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay, self.parameters = decay, parameters
        self.values = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for value, parameter in zip(self.values, self.parameters, strict=True):
                value.lerp_(parameter, 1 - decay)

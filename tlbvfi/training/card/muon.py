"""Muon and AdamW as :mod:`..optimizer` has them, in few operations: matrices of one shape are stepped together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Least sides of a matrix that Muon steps, and its rate beside AdamW's, its steps scaled to be as large as AdamW's.
#: Biases and last layers, which AdamW steps, take less: at 5e-5 their very first step makes trained weights worse.
_SIDE, _RATE = 16, 4.0
_MOMENTUM, _DECAY = 0.95, 1e-4
#: The polynomial that brings singular values near 1 (Jordan et al. 2024), and how often it is applied.
_POLYNOMIAL, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns), each with all its singular values brought near 1, in bfloat16."""
    x = matrices.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    a, b, c = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Optimizer:
    """Muon for the weights between wide maps, AdamW for all else."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.rate = rate
        self._shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        rest = []
        for parameter in parameters:
            if parameter.ndim > 1 and min(parameter.shape[:2]) >= _SIDE:
                shape = (parameter.shape[0], parameter[0].numel())
                self._shapes.setdefault(shape, []).append(parameter)
            else:
                rest.append(parameter)
        self._momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self._shapes.items()
        }
        fused = rest[0].device.type == "cuda"
        self._adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=_DECAY, fused=fused)

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One step at `share` of the rate; all parameters have gradients."""
        for group in self._adam.param_groups:
            group["lr"] = self.rate * share
        self._adam.step()
        rate = self.rate * share * _RATE
        for shape, parameters in self._shapes.items():
            weights: list[Tensor] = [p.detach() for p in parameters]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            gradient = torch.stack([g.reshape(shape) for g in gradients]).float()
            momentum = self._momenta[shape].lerp_(gradient, 1.0 - _MOMENTUM)
            update = orthogonal(gradient.lerp_(momentum, _MOMENTUM)).float()
            torch._foreach_mul_(weights, 1.0 - rate * _DECAY)
            updates = [u.view(p.shape) for u, p in zip(update.unbind(), parameters, strict=True)]
            torch._foreach_add_(weights, updates, alpha=-rate * 0.2 * max(shape) ** 0.5)

    def state(self) -> dict[str, Tensor]:
        """What it has to remember, by name."""
        found = {f"muon.{rows}.{columns}": value for (rows, columns), value in self._momenta.items()}
        for number, state in self._adam.state_dict()["state"].items():
            found |= {f"adam.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return found

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Remember it again."""
        for (rows, columns), momentum in self._momenta.items():
            momentum.copy_(tensors[f"muon.{rows}.{columns}"])
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, which = name.split(".")
                state.setdefault(int(number), {})[which] = value.float()
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state})

"""Whole maps by kernels of our own: a norm and its activation in two passes, and convolutions without their biases,
which what reads their maps adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..kernels.norms import group_norm_affine, scale_act
from ..rows.activations import Activation
from ..rows.cuts import Shape, Strips


def fuses(shape: Shape | torch.Size, strips: Strips, device: torch.device) -> bool:
    """Whether a map goes whole, by kernels of our own."""
    return strips.tuning_on(device).kernels and len(strips.cuts(shape)) == 1


def affine(x: Tensor, norm: nn.GroupNorm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The norm of x + bias as x * scale + shift."""
    return group_norm_affine(x, norm.weight, norm.bias, norm.num_groups, norm.eps, bias)


def norm_act(
    x: Tensor,
    norm: nn.GroupNorm,
    activation: Activation,
    bias: Tensor | None = None,
    reuse: bool = False,
    below: int = 0,
) -> Tensor:
    """activation(norm(x + bias)).

    Args:
        x: (B, C, H, W).
        norm, activation: the layers.
        bias: (C,), of the convolution that made x without it.
        reuse: the result goes over x.
        below: so many rows of zeros below, and columns to the right, where it does not.
    """
    out = x if reuse and not below else None
    return scale_act(x, *affine(x, norm, bias), activation.name, out, below)


def bare(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution without its bias."""
    if conv.kernel_size == (1, 1):
        return positionwise(x, conv.weight)
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def positionwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution as the matrix product that it is, in which a card adds the bias."""
    return rearrange(F.linear(rearrange(x, "b c h w -> b h w c"), weight.flatten(1), bias), "b h w c -> b c h w")

"""Statistics of maps, exact in float32, whole and from strips, and norms by them.

Those of strips are merged with the between-strip term (Chan, Golub and LeVeque 1983), so that every strip is normed by
the statistics of the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..kernels import norms
from .activations import Activation
from .cpu import column_sums, own_kernel_norms
from .tuning import Tuning


def channel_moments(x: Tensor, tuning: Tuning | None = None) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the positions: float32 (B, C) each, for x (B, C, H, W)."""
    tuning = tuning or Tuning.of(x.device)
    last = x.stride(1) == 1
    if tuning.kernels and last:
        return norms.channel_moments(x)
    in_one = tuning.few_operations and x.dtype == torch.float32
    if torch.compiler.is_compiling() or in_one or not (last or tuning.few_operations):
        variance, mean = torch.var_mean(x.flatten(2).float(), dim=2, correction=0)
        return mean, variance
    if tuning.few_operations:
        mean, square = _first_moments(x)
        return mean, (square - mean.square()).clamp_min_(0.0)
    # One pass over differences from a mean of some rows, which is near enough that nothing cancels.
    near = x[:, :, :: max(1, x.shape[2] // 8)].mean(dim=(2, 3), dtype=torch.float32)
    sums, squares = torch.zeros_like(near), torch.zeros_like(near)
    for i, part in _parts(x, tuning):
        centred = part - near[i]  # float32
        sums[i] += column_sums(centred, tuning.ones)
        squares[i] += column_sums(centred.mul_(centred), tuning.ones)
    offset = sums / (x.shape[2] * x.shape[3])
    return near + offset, (squares / (x.shape[2] * x.shape[3]) - offset.square()).clamp_min_(0.0)


def _first_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel of a map in half precision, and of its square: float32 (B, C) each.

    What their difference loses is less than what the map was rounded by; and no copy in float32 is made.
    """
    mean = x.mean(dim=(2, 3), dtype=torch.float32)
    length = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32)
    return mean, length.mul_(x.shape[2:].numel() ** -0.5).square_()


def channel_sums(x: Tensor, tuning: Tuning | None = None) -> Tensor:
    """Sum of each channel over the positions: float32 (B, C), for x (B, C, H, W)."""
    tuning = tuning or Tuning.of(x.device)
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or x.stride(1) != 1
    if tuning.kernels and not plain:  # PyTorch makes a float32 copy of half precision
        return norms.channel_moments(x)[0] * x.shape[2:].numel()
    if plain or not tuning.half_sums_in_parts or x.dtype == torch.float32:
        return x.sum(dim=(2, 3), dtype=torch.float32)
    sums = x.new_zeros(x.shape[:2], dtype=torch.float32)
    for i, part in _parts(x, tuning):
        sums[i] += column_sums(part.float(), tuning.ones)
    return sums


def _parts(x: Tensor, tuning: Tuning) -> Iterator[tuple[int, Tensor]]:
    """A channels-last map some positions at a time, as long sums lose digits: index in the batch, positions (N, C)."""
    for i, positions in enumerate(rearrange(x, "b c h w -> b (h w) c")):
        for part in positions.split(max(1, tuning.summed_elements // max(x.shape[1], 64))):
            yield i, part


@dataclass
class Moments:
    """Mean and variance of each channel of a map, taken from its strips.

    Attributes:
        tuning: for :func:`channel_moments`.
        counts, means, variances: of each strip: positions, and float32 (B, C) each.
    """

    tuning: Tuning | None = None
    counts: list[int] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)

    def add(self, strip: Tensor) -> None:
        mean, variance = channel_moments(strip, self.tuning)
        self.counts.append(strip.shape[2:].numel())
        self.means.append(mean)
        self.variances.append(variance)

    def channels(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over the whole map: float32 (B, C) each."""
        if len(self.counts) == 1:
            return self.means[0], self.variances[0]
        means, variances = torch.stack(self.means), torch.stack(self.variances)  # (strips, B, C)
        total = sum(self.counts)
        # Filled in on the device, as a list of numbers would have to be copied there, which waits for it.
        runs = [means.new_full((len(list(run)), 1, 1), count / total) for count, run in groupby(self.counts)]
        share = torch.cat(runs)
        mean = (means * share).sum(dim=0)
        return mean, ((variances + (means - mean).square()) * share).sum(dim=0)

    def groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group of channels: float32 (B, groups) each."""
        return grouped(*self.channels(), groups)


def grouped(mean: Tensor, variance: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Moments (B, C) of channels -> moments (B, groups) of their groups, with the between-channel term."""
    between, group_mean = torch.var_mean(rearrange(mean, "b (g c) -> b g c", g=groups), dim=2, correction=0)
    return group_mean, rearrange(variance, "b (g c) -> b g c", g=groups).mean(dim=2) + between


def affine(mean: Tensor, variance: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """The norm by group moments (B, groups) as x * scale + shift: float32 (B, C, 1, 1) each."""
    per_group = norm.num_channels // norm.num_groups
    inverse = torch.rsqrt(variance + norm.eps)
    weight = rearrange(norm.weight.float(), "(g c) -> g c", c=per_group)
    scale = inverse[:, :, None] * weight
    shift = rearrange(norm.bias.float(), "(g c) -> g c", c=per_group) - mean[:, :, None] * scale
    return rearrange(scale, "b g c -> b (g c) 1 1"), rearrange(shift, "b g c -> b (g c) 1 1")


def _affine_in_few(x: Tensor, norm: nn.GroupNorm, tuning: Tuning) -> tuple[Tensor, Tensor]:
    """The norm of a map as x * scale + shift, (B, C, 1, 1) each in the map's dtype, in few operations."""
    groups, positions = norm.num_groups, x.shape[2:].numel()
    if x.dtype == torch.float32:
        mean, variance = grouped(*channel_moments(x, tuning), groups)
        inverse = torch.rsqrt(variance + norm.eps)
    else:
        # See _first_moments; here the squares are those of groups.
        mean = x.mean(dim=(2, 3), dtype=torch.float32).unflatten(1, (groups, -1)).mean(dim=2)
        lengths = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32).unflatten(1, (groups, -1))
        length = torch.linalg.vector_norm(lengths, dim=2)
        share = groups / (x.shape[1] * positions)
        negative = torch.addcmul(mean.square(), length, length, value=-share).clamp_max_(0.0)
        inverse = torch.rsqrt(norm.eps - negative)
    weight, bias = (parameter.unflatten(0, (groups, -1)) for parameter in (norm.weight, norm.bias))
    scale, shift = (x.new_empty(len(x), *weight.shape) for _ in range(2))
    torch.mul(inverse[:, :, None], weight, out=scale)
    torch.addcmul(bias, mean[:, :, None], scale, value=-1.0, out=shift)
    return rearrange(scale, "b g c -> b (g c) 1 1"), rearrange(shift, "b g c -> b (g c) 1 1")


def scaled(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    activation: Activation | None = None,
    reuse: bool = False,
    tuning: Tuning | None = None,
) -> Tensor:
    """activation(x * scale + shift) in the dtype of x; over x, with `reuse`."""
    if (tuning or Tuning.of(x.device)).kernels and x.stride(1) == 1:
        name = "none" if activation is None else activation.name
        return norms.scale_act(x, scale.flatten(1), shift.flatten(1), name, out=x if reuse else None)
    result = torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype), out=x if reuse else None)
    return result if activation is None else activation(result)


def group_normed(
    x: Tensor,
    norm: nn.GroupNorm,
    activation: Activation | None = None,
    writable: bool = False,
    tuning: Tuning | None = None,
) -> Tensor:
    """GroupNorm of a map (B, C, H, W) whose statistics are exact in float32, in any memory layout, and an activation.

    `writable`: x serves nobody else, and may be overwritten.
    """
    tuning = tuning or Tuning.of(x.device)
    if own_kernel_norms(x, tuning):
        result = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return result if activation is None else activation(result)
    if tuning.kernels and x.stride(1) == 1:
        scale, shift = norms.group_norm_affine(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    elif tuning.few_operations:
        scale, shift = _affine_in_few(x, norm, tuning)
    else:
        scale, shift = affine(*grouped(*channel_moments(x, tuning), norm.num_groups), norm)
    return scaled(x, scale, shift, activation, writable, tuning)

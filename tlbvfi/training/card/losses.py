"""Errors of pictures, each a mean over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metrics import ALEXNET, LPIPS


def charbonnier_map(error: Tensor) -> Tensor:
    """sqrt(error^2 + 0.001^2) - 0.001, a smooth absolute error, of each value."""
    return torch.sqrt(error.float().square() + 1e-6) - 1e-3


def _binomial(x: Tensor) -> Tensor:
    """Blurred by 1 4 6 4 1 along both axes, every second pixel of it."""
    channels = x.shape[1]
    taps = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
    kernel = (taps[:, None] * taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=channels)


def laplacian(made: Tensor, truth: Tensor, levels: int = 4) -> Tensor:
    """Mean absolute errors of the bands of a pyramid, coarser ones count more: a pixel stands for more. Of small
    pictures there are fewer levels."""
    error = (made - truth).float()
    total = error.new_zeros(())
    levels = min(levels, (min(error.shape[-2:]) - 1).bit_length() - 1)
    with torch.autocast(error.device.type, enabled=False):
        for level in range(levels):
            smaller = _binomial(error)
            larger = F.interpolate(smaller, (error.shape[-2], error.shape[-1]), mode="bilinear")
            total = total + charbonnier_map(error - larger).mean() * 1.6**level
            error = smaller
    return total + charbonnier_map(error).mean() * 1.6**levels


def perceptual(lpips: LPIPS, made: Tensor, truth: Tensor) -> Tensor:
    """LPIPS, with a gradient where nothing of a kind is found: there the length of its features has none."""
    made, truth = ((x * 2.0 - 1.0 - lpips.shift) / lpips.scale for x in (made, truth))
    total = made.new_zeros(())
    for conv, head, (_, _, _, _, pooled) in zip(lpips.convs, lpips.heads, ALEXNET, strict=True):
        both = torch.cat([made, truth])
        both = F.relu(conv(F.max_pool2d(both, 3, 2) if pooled else both))
        made, truth = both.chunk(2)
        unit = [x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-8) for x in (made.float(), truth.float())]
        total = total + (head * (unit[0] - unit[1]).square()).sum(dim=1).mean()
    return total


def census(made: Tensor, truth: Tensor, reach: int = 2) -> Tensor:
    """How differently a pixel of luminance stands to those around it: blind to brightness that drifts."""
    weights = made.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    greys = [(x.float() * weights).sum(dim=1) for x in (made, truth)]
    height, width = greys[0].shape[-2:]
    # Of two pixels each stands to the other as the other to it, but for the sign: every pair is looked at once.
    steps = [(y, x) for y in range(reach + 1) for x in range(-reach, reach + 1) if (y, x) > (0, 0)]
    total = greys[0].new_zeros(())
    for y, x in steps:
        left, right = slice(max(-x, 0), width - max(x, 0)), slice(max(x, 0), width + min(x, 0))
        differences = [grey[:, y:, right] - grey[:, : height - y, left] for grey in greys]
        ranks = [difference * torch.rsqrt(0.0025 + difference.square()) for difference in differences]
        squared = (ranks[0] - ranks[1]).square()
        # The mean of s / (0.1 + s) in fewer operations.
        total = total + 1.0 - 0.1 * (0.1 + squared).reciprocal().mean()
    return total / len(steps)


def course(errors: list[Tensor]) -> dict[str, float]:
    """How an error went: over how many steps, and its means over the first tenth of them and over the last."""
    if not errors:
        return {}
    told = torch.stack(errors).tolist()
    ends = max(1, len(told) // 10)
    return {"steps": len(told), "first": sum(told[:ends]) / ends, "last": sum(told[-ends:]) / ends}

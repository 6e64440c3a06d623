"""Ways around what PyTorch does slowly or inexactly on the CPU; :class:`.tuning.Tuning` says whether they are taken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tuning import Tuning


def positionwise(x: Tensor, conv: nn.Conv2d, bias: Tensor | None = None, tuning: Tuning | None = None) -> Tensor:
    """A 1x1 convolution of x (B, C, H, W), with another bias where one is given.

    With one thread PyTorch copies what it convolves with 1x1; the linear map of positions that it is does not.
    """
    bias = conv.bias if bias is None else bias
    if (tuning or Tuning.of(x.device)).linear_pointwise:
        return F.linear(x.permute(0, 2, 3, 1), conv.weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, conv.weight, bias)


def column_sums(x: Tensor, ones: int) -> Tensor:
    """Sums (C,) of the columns of a contiguous x (N, C) float32; `ones` as in :class:`.tuning.Tuning`.

    Most of it is a product with a few ones: of long rows, each of many positions. A product with N ones would be one
    long sum on some processors, and lose digits.
    """
    if not ones or len(x) < ones:
        return x.sum(dim=0)
    count = len(x) // ones * ones
    sums = torch.mv(x[:count].view(ones, -1).T, x.new_ones(ones)).view(-1, x.shape[1]).sum(dim=0)
    return sums if count == len(x) else sums + x[count:].sum(dim=0)


def own_kernel_norms(x: Tensor, tuning: Tuning) -> bool:
    """Whether PyTorch's kernel is good enough for the GroupNorm of a map.

    For channels-last maps on the CPU it takes the variance as E[x^2] - E[x]^2 in float32, which costs this model 25 dB
    at 512 x 512. Training wants its backward; and in half precision what it loses does not show, while it is faster.
    """
    return torch.is_grad_enabled() or (tuning.own_half_norm and x.dtype != torch.float32)

"""Attention in windows and the feed-forward after it, in one pass, against the layers one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.interpreted import DEVICE, HALVES, kernels, plain
from tlbvfi.kernels.attention import fits
from tlbvfi.modules.maxvit import MaxViT
from tlbvfi.modules.preparation import prepare


def decibels(got: Tensor, want: Tensor) -> float:
    got, want = got.double().cpu(), want.double().cpu()
    error = (got - want).square().mean().item()
    return 10 * math.log10((want.max() - want.min()).item() ** 2 / max(error, 1e-30))


def randomised(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, weight in module.named_parameters():
        value = torch.randn(weight.shape, generator=generator)
        scale = 1.0 if "rel_pos" in name else 0.2 if weight.ndim == 1 else 1.5 / math.sqrt(weight[0].numel())
        weight.data.copy_(value * scale + ("norm.weight" in name))
    module = module.eval().requires_grad_(False).to(DEVICE, dtype)
    prepare(module)
    return module


def token_map(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Rounded as in half precision, so that all dtypes start from the same."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5
    return values.bfloat16().to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("shape", "window", "with_context", "halves"),
    [
        ((1, 16, 16, 24), 8, False, ()),
        ((2, 8, 4, 12), 4, True, HALVES),
        ((1, 64, 8, 16), 8, True, HALVES),
        ((1, 32, 8, 8), 4, False, ()),
    ],
)
def test_a_layer(
    shape: tuple[int, int, int, int], window: int, with_context: bool, halves: Sequence[torch.dtype]
) -> None:
    results = {}
    for dtype in (torch.float32, *halves):
        layer = randomised(MaxViT(shape[1], window), dtype)
        x = token_map(*shape, dtype=dtype, seed=0)
        context = token_map(*shape, dtype=dtype, seed=1) if with_context else None
        before = None if context is None else context.clone()
        with plain():
            results["plain", dtype] = layer(x.clone(), context)
        with kernels():
            results["kernels", dtype] = got = layer(x, context)
        assert got is x
        assert context is None or torch.equal(context, before)
    exact = results["plain", torch.float32]
    assert decibels(results["kernels", torch.float32], exact) > 120
    for half in halves:
        assert decibels(results["kernels", half], exact) > decibels(results["plain", half], exact) - 1.0


def test_what_does_not_fit_goes_the_plain_way() -> None:
    assert fits(torch.empty(1, 128, 8, 8, dtype=torch.float16, device="meta"), 8)
    assert fits(torch.empty(1, 64, 8, 8, device="meta"), 8)
    assert not fits(torch.empty(1, 128, 8, 8, device="meta"), 8)
    assert not fits(torch.empty(1, 72, 8, 8, dtype=torch.float16, device="meta"), 8)
    assert not fits(torch.empty(1, 16, 6, 6, device="meta"), 2)
    layer = randomised(MaxViT(8, 2))
    x = token_map(1, 8, 4, 6, dtype=torch.float32, seed=0)
    with plain():
        want = layer(x.clone())
    with kernels():
        assert torch.equal(layer(x.clone()), want)

"""What a decoder level attends to, by kernels, against the layers one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.interpreted import DEVICE, HALVES, kernels, plain
from tests.test_kernels_attention import decibels, randomised, token_map
from tlbvfi.kernels.context import context_expand, depthwise_gelu, gated_weight
from tlbvfi.kernels.positions import Bases
from tlbvfi.modules.maxvit import Context, CrossAttention, MBConv
from tlbvfi.rows.cuts import WHOLE, Strips


def smooth_flow(batch: int, height: int, width: int, reach: float = 4.0) -> Tensor:
    """A flow (B, 4, H, W) that leads out of the map in places."""
    values = torch.randn(batch, 4, 5, 5, generator=torch.Generator().manual_seed(5)) * reach
    return F.interpolate(values, size=(height, width), mode="bilinear").to(DEVICE)


def context(shape: tuple[int, int, int, int], with_flow: bool, dtype: torch.dtype) -> Context:
    features = (token_map(*shape, dtype=dtype, seed=2), token_map(*shape, dtype=dtype, seed=3))
    flow = smooth_flow(shape[0], *shape[2:]) if with_flow else None
    return Context(features, flow, WHOLE)


@pytest.mark.parametrize(
    ("shape", "out", "with_flow"), [((1, 16, 7, 9), 8, False), ((2, 24, 5, 6), 24, True), ((1, 72, 3, 5), 16, True)]
)
def test_an_expansion(shape: tuple[int, int, int, int], out: int, with_flow: bool) -> None:
    inputs = shape[1] * (4 if with_flow else 2)
    weight = torch.randn(4 * out, inputs, generator=torch.Generator().manual_seed(6)).to(DEVICE) / inputs**0.5
    bias = torch.linspace(-1, 1, 4 * out, device=DEVICE)
    results = {}
    for dtype in (torch.float32, *HALVES):
        x = context(shape, with_flow, dtype)
        with plain():
            results["plain", dtype] = F.gelu(F.conv2d(x.tensor(), weight[..., None, None].to(dtype), bias.to(dtype)))
        results["kernels", dtype] = context_expand(
            *x.features, x.flow, Bases.of(x.features[0]), weight.to(dtype), bias.to(dtype)
        )
    exact = results["plain", torch.float32]
    got = results["kernels", torch.float32]
    assert got.shape == exact.shape and got.stride(1) == 1
    assert decibels(got, exact) > 120
    for half in HALVES:
        assert decibels(results["kernels", half], exact) > decibels(results["plain", half], exact) - 1.0


def test_a_flow_of_any_layout_that_leads_anywhere() -> None:
    x = context((1, 16, 6, 8), True, torch.float32)
    assert x.flow is not None
    x.flow[0, :, 0, 0], x.flow[0, :, 2, 3] = 1e30, -1e30
    weight, bias = torch.eye(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    with plain():
        want = F.gelu(x.tensor())
    for flow in (x.flow, x.flow.contiguous(memory_format=torch.channels_last)):
        assert decibels(context_expand(*x.features, flow, Bases.of(flow), weight, bias), want) > 120
    x.flow[0, :, 1, 1] = float("nan")
    context_expand(*x.features, x.flow, Bases.of(x.flow), weight, bias)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 8, 5, 7), torch.float16),
        ((2, 72, 6, 3), torch.float32),
        ((1, 16, 18, 3), torch.float32),
        ((1, 16, 3, 40), torch.float32),
        ((1, 16, 1, 1), torch.float32),
    ],
)
def test_a_depthwise_convolution(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    x = token_map(*shape, dtype=dtype, seed=4)
    weight = token_map(shape[1], 1, 3, 3, dtype=dtype, seed=5)
    bias = torch.linspace(-1, 1, shape[1], device=DEVICE).to(dtype)
    want = F.gelu(F.conv2d(x.float(), weight.float(), bias.float(), padding=1, groups=shape[1]))
    got, means = depthwise_gelu(x, weight.view(shape[1], 9).T.contiguous(), bias)
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2}[dtype]
    torch.testing.assert_close(got.float(), want, atol=tolerance, rtol=tolerance / 5)
    torch.testing.assert_close(means, got.float().mean(dim=(2, 3)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("hidden", "squeezed", "outputs"), [(32, 8, 8), (96, 40, 24)])
def test_gates_in_a_weight(hidden: int, squeezed: int, outputs: int) -> None:
    shapes = ((2, hidden), (squeezed, hidden), (hidden, squeezed), (outputs, hidden))
    generator = torch.Generator().manual_seed(7)
    means, squeeze, excite, weight = (torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes)
    gates = torch.sigmoid(F.linear(F.silu(F.linear(means, squeeze)), excite))
    assert decibels(gated_weight(means, squeeze, excite, weight), weight * gates[:, None]) > 120
    half = gated_weight(means, squeeze.half(), excite.half(), weight.half())
    assert half.dtype == torch.float16
    assert decibels(half, weight * gates[:, None]) > 50


@pytest.mark.parametrize(("batch", "with_flow", "halves"), [(1, True, HALVES), (2, False, ())])
def test_a_cross_attention(batch: int, with_flow: bool, halves: Sequence[torch.dtype]) -> None:
    shape = (batch, 16, 4, 8)
    results = {}
    for dtype in (torch.float32, *halves):
        layer = randomised(CrossAttention(16, 16 * (4 if with_flow else 2), 4), dtype)
        for name, run in (("plain", plain), ("kernels", kernels)):
            with run():
                x = token_map(*shape, dtype=dtype, seed=0)
                results[name, dtype] = layer(x, context(shape, with_flow, dtype), WHOLE)
    exact = results["plain", torch.float32]
    assert decibels(results["kernels", torch.float32], exact) > 120
    for half in halves:
        assert decibels(results["kernels", half], exact) > decibels(results["plain", half], exact) - 1.0


def test_in_strips_the_bottleneck_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomised(CrossAttention(16, 64, 4))
    shape = (1, 16, 8, 8)
    with kernels():
        want = layer(token_map(*shape, dtype=torch.float32, seed=0), context(shape, True, torch.float32), WHOLE)
    monkeypatch.setattr(MBConv, "_by_kernels", None)
    strips = Strips(4 * 8, frugal=True)
    with kernels():
        got = layer(token_map(*shape, dtype=torch.float32, seed=0), context(shape, True, torch.float32), strips)
    assert decibels(got, want) > 120

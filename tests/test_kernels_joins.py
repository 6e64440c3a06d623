"""Sums of maps in one pass, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.interpreted import DEVICE, HALVES
from tlbvfi.kernels.joins import join, position_stride


def channels_last(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 8, 5, 7), torch.float32),
        ((2, 66, 3, 4), HALVES[0]),
        ((2, 66, 3, 4), HALVES[-1]),
        ((1, 3, 1, 1), torch.float32),
    ],
)
def test_join(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    x, other = (channels_last(*shape, dtype=dtype, seed=seed) for seed in (0, 1))
    bias, other_bias, slope = (torch.randn(shape[1], device=DEVICE).to(dtype) for _ in range(3))
    want = (x.float() + other.float() + (bias.float() + other_bias.float())[:, None, None]).cpu()
    want = torch.where(want > 0, want, want * slope.float().cpu()[:, None, None])
    got = join(x, bias, other, other_bias, slope)
    assert got is x
    tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(got.float().cpu(), want, atol=tolerance, rtol=tolerance)


def test_some_channels_of_a_wider_map() -> None:
    wide = torch.zeros(2, 5, 3, 24, device=DEVICE)
    out = wide[..., 8:16].permute(0, 3, 1, 2)
    x = channels_last(2, 8, 5, 3)
    before = x.clone()
    join(x, bias=torch.ones(8, device=DEVICE), out=out)
    torch.testing.assert_close(out, before + 1)
    assert torch.equal(x, before) and not wide[..., :8].any() and not wide[..., 16:].any()


def test_what_is_added_after_the_activation() -> None:
    x, after = (channels_last(1, 8, 3, 4, seed=seed) for seed in (0, 1))
    want = x.relu() + after
    torch.testing.assert_close(join(x, slope=torch.zeros(8, device=DEVICE), after=after), want)


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="channels last"):
        position_stride(torch.zeros(1, 4, 3, 3))
    assert position_stride(torch.zeros(1, 4, 1, 1)) == 4

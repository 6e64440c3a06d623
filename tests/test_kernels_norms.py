"""Norms, activations and stacked frames by kernels of our own, and the blocks made of them, against plain PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.interpreted import DEVICE
from tests.test_kernels_joins import channels_last
from tlbvfi.kernels.joins import join
from tlbvfi.kernels.norms import channel_moments, group_norm_affine, scale_act, stack_frames

ACTIVATIONS = {"none": lambda x: x, "silu": F.silu, "relu": F.relu}


def decibels(result: Tensor, expected: Tensor) -> float:
    result, expected = result.double(), expected.double()
    peak = float(expected.max() - expected.min())
    return float(10 * torch.log10(peak**2 / (result - expected).square().mean().clamp_min(1e-300)))


@pytest.mark.parametrize(("mean", "std", "tolerance"), [(0.8, 0.7, 2e-6), (1000.0, 1.0, 1e-3)])
@pytest.mark.parametrize(("shape", "groups"), [((2, 16, 40, 37), 4), ((1, 66, 20, 31), 3), ((1, 8, 1, 1), 2)])
def test_statistics_are_exact(
    shape: tuple[int, int, int, int], groups: int, mean: float, std: float, tolerance: float
) -> None:
    """Also of a map that is another one above than below."""
    x = channels_last(*shape) * std + mean
    x[0, :, : shape[2] // 2] += 3 * std
    weight, bias, conv_bias = (torch.randn(shape[1], device=DEVICE) for _ in range(3))
    scale, shift = group_norm_affine(x, weight, bias, groups, 1e-6, conv_bias)
    expected = (x.double() + conv_bias.double()[:, None, None]).cpu()
    expected = F.group_norm(expected, groups, weight.double().cpu(), bias.double().cpu(), 1e-6)
    found = scale_act(x, scale, shift)
    assert found.is_contiguous(memory_format=torch.channels_last)
    slack = 300 if shape[2:] == (1, 1) else 1  # two channels a group, and those near each other
    assert (found.cpu().double() - expected).abs().max() < slack * tolerance
    variance, mean_ = torch.var_mean(x.double().flatten(2), dim=2, correction=0)
    found_mean, found_variance = channel_moments(x)
    torch.testing.assert_close(found_mean.double(), mean_, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_variance.double(), variance, rtol=1e-5, atol=1e-9)


def test_statistics_of_many_chunks() -> None:
    """More chunks than one program merges at a time, the last shorter than the others; rows of other means."""
    x = channels_last(1, 8, 299, 517) + 5 * torch.linspace(-1, 1, 299, device=DEVICE)[:, None]
    scale, shift = group_norm_affine(x, *(torch.ones(8, device=DEVICE) for _ in range(2)), 2, 1e-6)
    expected = F.group_norm(x.double(), 2, eps=1e-6) + 1
    assert decibels(x * scale[:, :, None, None] + shift[:, :, None, None], expected) > 130


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scale_and_activation(activation: str, dtype: torch.dtype) -> None:
    """In place, and into a map of zeros below and to the right; two neighbours with a scale."""
    x = channels_last(4, 12, 9, 7, dtype=dtype)
    scale, shift = torch.randn(2, 2, 12, device=DEVICE)
    value = x.float() * scale.repeat_interleave(2, 0)[:, :, None, None]
    expected = ACTIVATIONS[activation](value + shift.repeat_interleave(2, 0)[:, :, None, None])
    padded = scale_act(x, scale, shift, activation, below=1)
    assert padded.shape == (4, 12, 10, 8) and padded.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(padded[:, :, :9, :7], expected.to(dtype))
    assert not padded[:, :, 9].any() and not padded[..., 7].any()
    assert scale_act(x, scale, shift, activation, out=x) is x
    torch.testing.assert_close(x, expected.to(dtype))


@pytest.mark.parametrize("rows", [0, 2, 6])
@pytest.mark.parametrize("merge", [False, True])
def test_stacked_frames(merge: bool, rows: int) -> None:
    clip = channels_last(6, 5, 4, 3)
    seen, arguments = clip, ()
    if rows:
        scale, shift = torch.randn(2, rows, 5, device=DEVICE)
        arguments = scale, shift, "silu"
        factor, offset = (v.repeat_interleave(6 // rows, 0)[:, :, None, None] for v in (scale, shift))
        seen = F.silu(clip * factor + offset)
    frames = seen.unflatten(0, (2, 3))
    none = torch.zeros_like(frames[:, :1])
    before, after = torch.cat([none, frames[:, :2]], 1), torch.cat([frames[:, 1:], none], 1)
    expected = frames.flatten(1, 2) if merge else torch.cat([before, frames, after], 2).flatten(0, 1)
    found = stack_frames(clip, *arguments, merge=merge)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_join_with_a_smaller_map_is_zero_past_it() -> None:
    x, other = channels_last(2, 8, 6, 5), channels_last(2, 8, 5, 4, seed=1)
    bias = torch.ones(8, device=DEVICE)
    expected = F.pad(x[:, :, :5, :4] + other + 1, (0, 1, 0, 1))
    torch.testing.assert_close(join(x, bias, other), expected)

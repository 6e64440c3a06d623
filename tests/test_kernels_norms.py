"""Norms, activations and stacked frames by kernels of our own, and the blocks made of them, against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.interpreted import DEVICE, HALVES, kernels, plain
from tests.test_kernels_joins import channels_last
from tests.tiny import tiny_model
from tlbvfi.kernels.joins import join
from tlbvfi.kernels.norms import channel_moments, group_norm_affine, scale_act, stack_frames
from tlbvfi.model import TLBVFI
from tlbvfi.rows.cuts import WHOLE, Strips
from tlbvfi.rows.lazy import materialise, stored
from tlbvfi.rows.moments import channel_sums
from tlbvfi.rows.owned import Owned

ACTIVATIONS = {"none": lambda x: x, "silu": F.silu, "relu": F.relu}


def decibels(result: Tensor, expected: Tensor) -> float:
    result, expected = result.double(), expected.double()
    peak = float(expected.max() - expected.min())
    return float(10 * torch.log10(peak**2 / (result - expected).square().mean().clamp_min(1e-300)))


@pytest.mark.parametrize(("mean", "std", "tolerance"), [(0.8, 0.7, 2e-6), (1000.0, 1.0, 1e-3)])
@pytest.mark.parametrize(("shape", "groups"), [((2, 8, 40, 37), 4), ((1, 18, 20, 31), 3), ((1, 8, 1, 1), 2)])
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
    torch.testing.assert_close(found_variance.double(), variance, rtol=1e-5 * max(1.0, mean / 100), atol=1e-9)


def test_statistics_of_many_chunks() -> None:
    """More chunks than one program merges at a time, the last shorter than the others; rows of other means."""
    x = channels_last(1, 4, 299, 517) + 5 * torch.linspace(-1, 1, 299, device=DEVICE)[:, None]
    scale, shift = group_norm_affine(x, *(torch.ones(4, device=DEVICE) for _ in range(2)), 2, 1e-6)
    expected = F.group_norm(x.double(), 2, eps=1e-6) + 1
    assert decibels(x * scale[:, :, None, None] + shift[:, :, None, None], expected) > 130


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_sums_of_channels(dtype: torch.dtype) -> None:
    """Of some rows of a map."""
    x = (channels_last(2, 24, 40, 37) + 3.0).to(dtype)[:, :, 3:31]
    with kernels():
        found = channel_sums(x)
    torch.testing.assert_close(found.double(), x.double().sum(dim=(2, 3)), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [("none", torch.float32), ("relu", HALVES[-1]), ("silu", HALVES[0]), ("silu", torch.float32)],
)
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


@pytest.mark.parametrize(("merge", "rows"), [(False, 0), (False, 6), (True, 0), (True, 2)])
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


def test_rows_and_channels_of_a_map() -> None:
    x = channels_last(2, 24, 9, 5)
    part = x[:, 8:16, 2:7]
    weight, bias = torch.randn(2, 8, device=DEVICE)
    scale, shift = group_norm_affine(part, weight, bias, 2, 1e-6)
    expected = x.clone()
    expected[:, 8:16, 2:7] = F.group_norm(part.contiguous(), 2, weight, bias, 1e-6)
    scale_act(part, scale, shift, out=part)
    torch.testing.assert_close(x, expected)


# --- Layers of the model made of them ---

#: Batch, height and width of the maps.
BATCH, HEIGHT, WIDTH = 2, 32, 8


@cache
def model(dtype: torch.dtype = torch.float32) -> TLBVFI:
    return tiny_model(dtype=dtype).to(DEVICE)


def uneven(channels: int, dtype: torch.dtype, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """A map with rows of different statistics."""
    down = torch.linspace(0, 1, height, device=DEVICE)[:, None]
    x = channels_last(BATCH, channels, height, width, seed=seed) * (0.5 + down) + 2 * down
    return x.to(dtype)


def pyramid(first: bool) -> Callable[[torch.dtype, Strips], list[Tensor]]:
    def run(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
        levels = model(dtype).vqgan.encoder.pyramid(uneven(3, torch.float32), 2, strips, first)
        assert (levels[0] is None) == (not first)
        return [level for level in levels if level is not None]

    return run


def resnet_block(up: int) -> Callable[[torch.dtype, Strips], list[Tensor]]:
    def run(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
        block = model(dtype).vqgan.decoder.up[up].block[0]
        rows = block(stored(uneven(block.conv1.in_channels, dtype)), strips)
        return [materialise(rows, strips.cuts(rows.shape)).tensor()]

    return run


def encoder_level(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    layer = model(dtype).vqgan.encoder.down[4]
    return [layer(stored(uneven(layer.block[0].conv1.in_channels, dtype, height=8, width=4)), strips).tensor()]


def enlarged(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    """A map that comes without the bias of the layer before, through a block with a shortcut."""
    decoder = model(dtype).vqgan.decoder
    source = stored(uneven(decoder.up[1].upsample.conv.in_channels, dtype, height=HEIGHT // 2, width=WIDTH // 2))
    return [decoder.up[0].block[0](decoder.up[1].upsample(source), strips).tensor()]


def frequency_block(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    block = model(dtype).vqgan.encoder.frequency_extractor.Blocks[1]
    return [block(stored(uneven(block.conv1.in_channels, dtype)), strips).tensor()]


def middle(part: str) -> Callable[[torch.dtype, Strips], list[Tensor]]:
    def run(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
        mid = getattr(model(dtype).vqgan, part).mid
        clip = torch.cat([uneven(mid.block_1.conv1.in_channels, dtype, seed, 4, 3) for seed in range(3)])
        return [mid(clip.contiguous(memory_format=torch.channels_last))]

    return run


def clip_latent(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    encoder = model(dtype).vqgan.encoder
    deepest = [uneven(encoder.mid.block_1.conv1.in_channels, dtype, seed, 1, 1)[:1] for seed in range(3)]
    return [encoder.clip(deepest, *(uneven(3, torch.float32, seed, 32, 32)[:1].sigmoid() for seed in range(2)), strips)]


def decoder_input(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    clip = torch.cat([uneven(3, dtype, seed, 4, 3) for seed in range(3)])
    return [model(dtype).vqgan.decoder.conv_in(clip)]


def head(dtype: torch.dtype, strips: Strips) -> list[Tensor]:
    decoder = model(dtype).vqgan.decoder
    rows = stored(uneven(decoder.conv_out.in_channels, dtype))
    rows = materialise(rows, strips.cuts(rows.shape), measure=True)
    pair = (uneven(3, torch.float32, 1) * 0.1, uneven(3, torch.float32, 2) * 0.1)
    flow = torch.zeros(BATCH, 4, HEIGHT, WIDTH, device=DEVICE)
    return [decoder._synthesised(Owned(rows), pair, flow, strips)]


LAYERS: dict[str, Callable[[torch.dtype, Strips], list[Tensor]]] = {
    "pyramid": pyramid(first=False),
    "pyramid with level 0": pyramid(first=True),
    "block": resnet_block(2),
    "block with shortcut": resnet_block(3),
    "encoder level with attention": encoder_level,
    "enlarged": enlarged,
    "frequency block": frequency_block,
    "encoder's middle": middle("encoder"),
    "decoder's middle": middle("decoder"),
    "latent of a clip": clip_latent,
    "decoder's input": decoder_input,
    "head": head,
}
#: Those that are run in half precision too, and those that are cut.
IN_HALVES = ["pyramid", "block with shortcut", "encoder's middle", "head"]
CUT = ["pyramid", "enlarged", "frequency block", "head"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    with plain():
        expected = LAYERS[name](torch.float32, WHOLE)
    with kernels():
        results = LAYERS[name](torch.float32, WHOLE)
    for result, want in zip(results, expected, strict=True):
        assert result.shape == want.shape
        assert decibels(result, want) > 120


@pytest.mark.parametrize("name", IN_HALVES)
def test_a_layer_in_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "BATCH", 1)
    with plain():
        expected, halves = (LAYERS[name](dtype, WHOLE) for dtype in (torch.float32, torch.float16))
    with kernels():
        results = LAYERS[name](torch.float16, WHOLE)
    for result, half, want in zip(results, halves, expected, strict=True):
        assert decibels(result, want) > decibels(half, want) - 1


@pytest.mark.parametrize("name", CUT)
def test_a_layer_in_strips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "BATCH", 1)
    with plain():
        expected = LAYERS[name](torch.float32, WHOLE)
    with kernels():
        results = LAYERS[name](torch.float32, Strips(BATCH * 12 * WIDTH, frugal=True))
    assert min(decibels(result, want) for result, want in zip(results, expected, strict=True)) > 115

"""The denoiser by kernels of our own, against its plain path and PyTorch's convolutions."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.interpreted import DEVICE, kernels, plain
from tests.tiny import TINY
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.bridge import LAST, Factors
from tlbvfi.config import DenoiserParams, ModelParams
from tlbvfi.kernels.denoiser import (
    Clip,
    Norm,
    clip_attention,
    clip_conv,
    clip_entry,
    clip_linear,
    clip_step,
    part_positions,
)
from tlbvfi.model import TLBVFI
from tlbvfi.modules.preparation import laid_out
from tlbvfi.modules.unet import UNet

#: Two levels are enough for every kind of block; groups of concatenated maps have two channels.
SMALL = DenoiserParams(model_channels=8, channel_mult=(1, 1), attention_downsampling=(2,), norm_groups=8)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def decibels(got: Tensor, want: Tensor) -> float:
    span = (want.max() - want.min()).double()
    return 10 * math.log10(float(span**2 / (got.double() - want.double()).square().mean()))


def planes(clip: Clip) -> Tensor:
    """(B, C, T, h, w) of a clip."""
    return rearrange(clip.maps, "b t h w c -> b c t h w")


def clip_of(*shape: int, seed: int = 0) -> Clip:
    """Random maps (B, 3, h, w, C), not around zero."""
    maps = values(*shape, seed=seed) + values(shape[-1], seed=seed + 1)
    return Clip(maps, moments_of(maps))


def moments_of(maps: Tensor) -> Tensor:
    positions = maps.shape[2] * maps.shape[3]
    parts = rearrange(maps, "b t h w c -> (b t) (h w) c").split(part_positions(positions), dim=1)
    means = torch.stack([part.mean(1) for part in parts], 1)
    squares = torch.stack([(part - part.mean(1, keepdim=True)).square().sum(1) for part in parts], 1)
    return rearrange(torch.stack([means, squares], 2), "(b t) part kind c -> b (t part) kind c", t=3).contiguous()


def norm_of(channels: int, groups: int, embedded: bool = False) -> Norm:
    embedding = values(2 * channels, seed=6) * 0.3 if embedded else None
    return Norm(1 + 0.3 * values(channels, seed=4), values(channels, seed=5), groups, 1e-5, embedding)


def normed(x: Tensor, norm: Norm) -> Tensor:
    x = F.group_norm(x.double(), norm.groups, norm.weight.double(), norm.bias.double(), norm.eps)
    if norm.embedding is None:
        return x
    scale, shift = norm.embedding.double()[:, None, None, None].chunk(2)
    return x * (1 + scale) + shift


def test_first_layer_and_the_moments_of_its_parts() -> None:
    x, y, weight, bias = values(2, 3, 3, 3, 6), values(2, 3, 3, 3, 6, seed=1), values(12, 6, 3, 3, 3), values(12)
    clip = clip_entry(x, y, weight, bias)
    assert decibels(planes(clip), F.conv3d(torch.cat([x, y], 1), weight, bias, padding=1)) > 120
    torch.testing.assert_close(clip.moments, moments_of(clip.maps), rtol=1e-4, atol=1e-4)


def test_conv_of_two_maps_with_everything() -> None:
    """Groups of two channels, a batch, parts that are not full, channels that are no power of two."""
    clips = [clip_of(2, 3, 3, 6, 12), clip_of(2, 3, 3, 6, 4, seed=7)]
    both = torch.cat([planes(clip) for clip in clips], 1)
    weight, bias, norm = laid_out(values(12, 16, 3, 3, 3)), values(12), norm_of(16, 8)
    skip_weight, skip_bias = values(12, 16, 1, 1, 1), values(12, seed=8)
    got = clip_conv(clips, weight, bias, norm, "", clips, "", skip_weight, skip_bias)
    want = F.conv3d(F.silu(normed(both, norm)), weight.double(), bias.double(), padding=1)
    want += F.conv3d(both.double(), skip_weight.double(), skip_bias.double())
    assert decibels(planes(got), want) > 120


def test_attention() -> None:
    clip, norm = clip_of(1, 3, 5, 9, 8), norm_of(8, 4)
    weight, bias, out, out_bias = values(24, 8, 1), values(24), values(8, 8, 1), values(8, seed=1)
    qkv = clip_linear(clip, weight, bias, norm)
    tokens = rearrange(normed(planes(clip), norm), "b c t h w -> b (t h w) c")
    want = F.linear(tokens, weight[..., 0].double(), bias.double())
    assert decibels(qkv.flatten(1, 3), want) > 120
    got = clip_attention(qkv, clip, out, out_bias)
    seen = F.scaled_dot_product_attention(*want.chunk(3, dim=-1))
    want = F.linear(seen, out[..., 0].double(), out_bias.double()) + clip.maps.flatten(1, 3)
    assert decibels(got.maps.flatten(1, 3), want) > 120


@pytest.mark.parametrize("factors", [Factors(0.8, 0.2, 0.7, 0.6, 0.4, 0.3), LAST])
def test_step(factors: Factors) -> None:
    clip, norm, weight, bias = clip_of(1, 3, 4, 4, 8), norm_of(8, 8), values(3, 8, 3, 3, 3), values(3)
    x, y, noise = (values(1, 3, 3, 4, 4, seed=seed) for seed in range(3))
    got = clip_step(clip, weight, bias, norm, x, y, noise, factors)
    x_0 = x - F.conv3d(F.silu(normed(planes(clip), norm)), weight.double(), bias.double(), padding=1)
    a, b, c, d, m, e = factors
    assert decibels(got, a * x_0 + b * y + c * (x - d * x_0 - m * y) + e * noise) > 120


def small_model() -> TLBVFI:
    model = TLBVFI(ModelParams(TINY.autoencoder, SMALL))
    random_weights(model, 0)
    return model.finalize().to(DEVICE)


def test_bridge() -> None:
    """All of it, with maps of a single position, and told after every step."""
    model, exact, latent, told = small_model(), small_model().double(), values(1, 3, 3, 2, 2), []
    with plain():
        want = exact.denoise(latent.double(), [0])
    with kernels():
        got = model.denoise(latent, [0], after_step=lambda: told.append(None))
    assert decibels(got, want) > 120 and len(told) == 1


def test_what_the_kernels_do_not_take_goes_the_plain_way() -> None:
    model = small_model()
    assert model.denoise_fn.has_kernels(values(1, 3, 3, 2, 4))
    assert not model.denoise_fn.has_kernels(values(1, 3, 3, 3, 4))
    assert not model.denoise_fn.has_kernels(values(1, 3, 3, 2, 4).half())
    # Groups of three channels, some of them with channels of both maps.
    uneven = UNet(3, DenoiserParams(model_channels=4, channel_mult=(1, 2), norm_groups=4, attention_downsampling=()), 9)
    assert not uneven.has_kernels(values(1, 3, 3, 2, 4))
    with kernels():
        assert model.to(torch.float64).denoise(values(1, 3, 3, 2, 2).double(), [0]).isfinite().all()


def test_embeddings_follow_the_weights() -> None:
    denoiser = small_model().denoise_fn
    with torch.no_grad():
        before = denoiser.embeddings([5, 0])
        blocks: list[Any] = [block for block in denoiser.modules() if hasattr(block, "emb_layers")]
        assert [len(row) for row in before] == [len(blocks)] * 2
        blocks[1].emb_layers[1].bias += 1.0
        after = denoiser.embeddings([5, 0])
    torch.testing.assert_close(after[0][1], before[0][1] + 1)
    assert torch.equal(after[1][0], before[1][0])


class Operations(TorchDispatchMode):
    """Counts what is called, by name, but views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(func is view for view in _VIEWS):
            self.counts[func.overloadpacket.__name__] += 1
        return out


_VIEWS = {torch.ops.aten.slice.Tensor, torch.ops.aten.unbind.int, torch.ops.aten.split_with_sizes.default}
_VIEWS |= {torch.ops.aten.t.default, torch.ops.aten.empty_like.default}


def test_operations_of_ten_steps() -> None:
    """However large the latent is."""
    with torch.device("meta"), torch.no_grad():
        model = TLBVFI().finalize()
        latent = torch.empty(1, 3, 3, 40, 64)
        with Operations() as operations:
            assert model.denoise(latent, 10, [latent] * 9).shape == latent.shape
    assert operations.counts["clip_conv"] == 300 and operations.counts.total() <= 470

"""Convolution blocks of the autoencoder, 2-D per frame and 3-D over the clip of three frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import attention


def silu(x: Tensor) -> Tensor:
    """SiLU that overwrites its input where no gradient needs it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def relu(x: Tensor) -> Tensor:
    """ReLU that overwrites its input where no gradient needs it."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


def accumulate(x: Tensor, y: Tensor) -> Tensor:
    """x + y, into x where no gradient needs it."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics are exact in float32, in any memory layout.

    PyTorch's own kernel for channels-last maps on the CPU takes the variance as E[x^2] - E[x]^2 in float32, which
    costs this model 25 dB at 512 x 512.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # training: the fused kernel and its backward
            return super().forward(x)
        mean, variance = group_statistics(x, self.num_groups)
        return normalise(x, mean, variance, self)


#: Elements of a channels-last map that are reduced at a time.
_CHUNK = 1 << 20


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel over the positions: float32 (B, C) each, for x (B, C, ...)."""
    if torch.compiler.is_compiling() or x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        variance, mean = torch.var_mean(x.flatten(2).float(), dim=2, correction=0)
        return mean, variance
    rows = rearrange(x, "b c h w -> b (h w) c")
    mean = rows.mean(dim=1, dtype=torch.float32)
    squares = torch.zeros_like(mean)
    for part in rows.split(max(1, _CHUNK // (x.shape[0] * x.shape[1])), dim=1):
        centred = part - mean[:, None]
        squares += centred.mul_(centred).sum(dim=1)
    return mean, squares / rows.shape[1]


def group_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each group over channels and positions: float32 (B, groups) each.

    Channels are merged with the between-channel term (Chan et al. 1983), all in float32.
    """
    channel_mean, channel_variance = channel_statistics(x)
    between, mean = torch.var_mean(rearrange(channel_mean, "b (g c) -> b g c", g=groups), dim=2, correction=0)
    return mean, rearrange(channel_variance, "b (g c) -> b g c", g=groups).mean(dim=2) + between


def normalise(x: Tensor, mean: Tensor, variance: Tensor, norm: nn.GroupNorm) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias for group statistics (B, groups), as x * scale + shift."""
    per_group = x.shape[1] // norm.num_groups
    inverse = torch.rsqrt(variance + norm.eps).repeat_interleave(per_group, dim=1)
    scale = inverse * norm.weight.float()
    shift = norm.bias.float() - mean.repeat_interleave(per_group, dim=1) * scale
    shape = (*x.shape[:2], *([1] * (x.ndim - 2)))
    return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))


def group_norm(groups: int, channels: int) -> GroupNorm:
    """The autoencoder's GroupNorm: eps 1e-6 throughout."""
    return GroupNorm(groups, channels, eps=1e-6)


#: Frames of a clip: x0, the empty middle, x1. A clip is held as its frames (B 3, C, h, w), each clip's together.
FRAMES = 3


def join_frames(frames: Sequence[Tensor]) -> Tensor:
    """Three maps (B, C, h, w) -> the clip (B 3, C, h, w), channels last."""
    return rearrange(torch.stack([rearrange(f, "b c h w -> b h w c") for f in frames], 1), "b t h w c -> (b t) c h w")


def as_one_map(clip: Tensor) -> Tensor:
    """The clip as one tall map (B, C, 3 h, w), for what looks at all its positions. A view where channels are last."""
    return rearrange(clip, "(b t) c h w -> b c (t h) w", t=FRAMES)


def as_frames(tall: Tensor) -> Tensor:
    """The reverse of :func:`as_one_map`."""
    return rearrange(tall, "b c (t h) w -> (b t) c h w", t=FRAMES)


class ClipConv(nn.Conv3d):
    """A 3-D convolution over a clip's frames (B 3, C, h, w), computed as a 2-D one over stacked channels.

    In time the clip is padded with zeros, or merged into one frame with ``merge_frames``.
    2-D convolutions are the fast ones everywhere, and some 3-D ones are broken in half precision.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int | tuple[int, int, int], merge_frames: bool = False
    ) -> None:
        size = (size, size, size) if isinstance(size, int) else size
        super().__init__(in_channels, out_channels, size)
        self.merge_frames = merge_frames

    def forward(self, clip: Tensor) -> Tensor:
        reach, side = self.kernel_size[0], self.kernel_size[1]
        if self.merge_frames:
            stacked = rearrange(clip, "(b t) c h w -> b (t c) h w", t=FRAMES)
        elif reach == 1:
            stacked = clip
        else:
            frames = rearrange(clip, "(b t) c h w -> b t h w c", t=FRAMES)
            nothing = torch.zeros_like(frames[:, :1])
            before, after = torch.cat([nothing, frames[:, :-1]], dim=1), torch.cat([frames[:, 1:], nothing], dim=1)
            stacked = rearrange(torch.cat([before, frames, after], dim=-1), "b t h w c -> (b t) c h w")
        weight = rearrange(self.weight, "o i t y x -> o (t i) y x").contiguous(memory_format=torch.channels_last)
        return F.conv2d(stacked, weight, self.bias, padding=side // 2)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))) on maps (B, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return accumulate(h, x if self.nin_shortcut is None else self.nin_shortcut(x))


class ClipResnetBlock(nn.Module):
    """Residual block over a clip (B 3, C, h, w); its first norm sees the clip, its second each frame alone.

    With ``merge_frames`` the second conv and the skip take the three frames to one.
    """

    def __init__(self, channels: int, groups: int, merge_frames: bool = False) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, channels)
        self.conv1 = ClipConv(channels, channels, 3)
        self.norm2 = group_norm(groups, channels)
        self.conv2 = ClipConv(channels, channels, 3, merge_frames)
        self.nin_shortcut = ClipConv(channels, channels, (FRAMES if merge_frames else 1, 1, 1), merge_frames)

    def forward(self, clip: Tensor) -> Tensor:
        h = self.conv1(silu(as_frames(self.norm1(as_one_map(clip)))))
        h = self.conv2(silu(self.norm2(h)))
        return accumulate(h, self.nin_shortcut(clip))


class ClipAttention(nn.Module):
    """Single-head self-attention over all 3 h w positions of a clip, with residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels)
        self.q = ClipConv(channels, channels, 1)
        self.k = ClipConv(channels, channels, 1)
        self.v = ClipConv(channels, channels, 1)
        self.proj_out = ClipConv(channels, channels, 1)

    def forward(self, clip: Tensor) -> Tensor:
        h, w = clip.shape[2:]
        normed = as_frames(self.norm(as_one_map(clip)))
        q, k, v = (
            rearrange(conv(normed), "(b t) c h w -> b 1 (t h w) c", t=FRAMES) for conv in (self.q, self.k, self.v)
        )
        out = rearrange(attention(q, k, v), "b 1 (t h w) c -> (b t) c h w", t=FRAMES, h=h, w=w)
        return accumulate(self.proj_out(out), clip)


class Middle(nn.Module):
    """The 3-D middle of encoder and decoder; the decoder's merges the clip into one map."""

    def __init__(self, channels: int, groups: int, merge_frames: bool = False) -> None:
        super().__init__()
        self.block_1 = ClipResnetBlock(channels, groups)
        self.attn_1 = ClipAttention(channels, groups)
        self.block_2 = ClipResnetBlock(channels, groups, merge_frames)

    def forward(self, clip: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(clip)))


class Downsample(nn.Module):
    """Halve a map by a strided conv, padded by one column right and one row below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double a map by repeating its pixels, then a conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

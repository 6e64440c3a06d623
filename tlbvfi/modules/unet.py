"""The denoiser of the bridge: a small 3-D UNet that never resamples time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import DenoiserParams
from ..kernels.denoiser import (
    MOST_CHANNELS,
    Clip,
    Norm,
    clip_attention,
    clip_conv,
    clip_entry,
    clip_linear,
    clip_step,
)
from ..rows.activations import silu
from ..rows.tuning import Tuning
from .attention import attention
from .blocks import FRAMES
from .preparation import Deriving


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """(B,) integer timesteps -> (B, channels) float32: [cos, sin] of t * 10000^(-i / half)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class BandedConv(Deriving, nn.Conv3d):
    """A 3-D convolution over a clip (B, C, 3, h, w) of contiguous maps, with zeros past its ends.

    Computed as one 2-D convolution from all frames' channels to all frames' channels, with zero weights between the
    first frame and the last: maps of the latent's size cost by the call, not by the operation.
    """

    def derive(self) -> dict[str, Tensor]:
        """`band`, (out T, in T, y, x): weights from every frame to every frame; `band_bias`, (out T,)."""
        weight, bias = self.sources()
        if self.kernel_size[0] == 1:
            return {}
        before, here, after = weight.unbind(2)  # (out, in, y, x) each
        none = torch.zeros_like(here)
        rows = (here, after, none), (before, here, after), (none, before, here)
        band = torch.stack([torch.stack(row, dim=2) for row in rows], dim=1)
        return {
            "band": rearrange(band, "o t i s y x -> (o t) (i s) y x").contiguous(),
            "band_bias": bias.repeat_interleave(FRAMES),
        }

    def sources(self) -> tuple[Tensor, ...]:
        assert self.bias is not None
        return self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size[0] == 1:
            maps = F.conv2d(x.flatten(2, 3), self.weight[:, :, 0], self.bias)
            return maps.unflatten(2, x.shape[2:4])
        found = self.derived()
        maps = F.conv2d(x.flatten(1, 2), found["band"], found["band_bias"], padding=self.kernel_size[1] // 2)
        return maps.unflatten(1, (self.out_channels, FRAMES))


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    # Clips are (B, C, T, h, w), contiguous: PyTorch's own kernel is exact for these.
    return nn.GroupNorm(min(groups, channels), channels, eps=1e-5)


def _of(norm: nn.GroupNorm, embedding: Tensor | None = None) -> Norm:
    return Norm(norm.weight, norm.bias, norm.num_groups, norm.eps, embedding)


#: What a normed clip is multiplied by, and what is added to it: (B, C, 1, 1, 1) each.
Affine = tuple[Tensor, Tensor]


class TimedResBlock(nn.Module):
    """Residual block with scale-shift norm from the time embedding, optionally resampling height and width."""

    def __init__(self, in_channels: int, out_channels: int, params: DenoiserParams, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            _norm(params.norm_groups, in_channels), nn.SiLU(), BandedConv(in_channels, out_channels, 3)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * params.model_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(
            _norm(params.norm_groups, out_channels),
            nn.SiLU(),
            nn.Identity(),
            BandedConv(out_channels, out_channels, 3),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else BandedConv(in_channels, out_channels, 1)

    def _resampled(self, x: Tensor) -> Tensor:
        if not self.resample:
            return x
        maps = x.flatten(1, 2)  # (B, C T, h, w)
        maps = F.avg_pool2d(maps, 2) if self.resample == "down" else F.interpolate(maps, scale_factor=2.0)
        return maps.unflatten(1, x.shape[1:3])

    def affine(self, embedding: Tensor) -> Affine:
        """What emb_layers make of an embedding (B, 4 model_channels) that has gone through their SiLU."""
        scale, shift = self.emb_layers[1](embedding)[:, :, None, None, None].chunk(2, dim=1)
        return 1 + scale, shift

    def forward(self, x: Tensor, affine: Affine) -> Tensor:
        """x: clip (B, C, T, h, w)."""
        layers: list[Any] = [*self.in_layers, *self.out_layers, self.skip_connection]
        norm, _, conv, norm2, _, _, conv2, skip = layers
        h = conv(self._resampled(silu(norm(x))))
        scale, shift = affine
        h = conv2(silu(torch.addcmul(shift, norm2(h), scale)))
        x = self._resampled(x)
        return h + (x if isinstance(skip, nn.Identity) else skip(x))

    def by_kernels(self, inputs: Sequence[Clip], embedding: Tensor) -> Clip:
        """:meth:`forward` of one map or two, which count as one of all their channels; embedding: (2 C,), what
        emb_layers give."""
        layers: list[Any] = [*self.in_layers, *self.out_layers, self.skip_connection]
        norm, _, conv, norm2, _, _, conv2, skip = layers
        h = clip_conv(inputs, conv.weight, conv.bias, _of(norm), self.resample)
        weights = (None, None) if isinstance(skip, nn.Identity) else (skip.weight, skip.bias)
        return clip_conv([h], conv2.weight, conv2.bias, _of(norm2, embedding), "", inputs, self.resample, *weights)


class ClipSelfAttention(nn.Module):
    """Single-head attention over all positions of the clip; qkv from one 1x1 conv, laid out q | k | v."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = x.shape[2:]
        tokens = rearrange(self.norm(x), "b c t h w -> b (t h w) c")
        # The 1-D convolutions of the checkpoint, of width one, are linear maps of the positions.
        if Tuning.of(x.device).few_operations:
            tokens = tokens.flatten(0, 1)  # of which PyTorch adds the bias in the product
        qkv = F.linear(tokens, self.qkv.weight[:, :, 0], self.qkv.bias).view(len(x), t * h * w, -1)
        q, k, v = rearrange(qkv, "b n (qkv c) -> qkv b 1 n c", qkv=3)
        out = F.linear(attention(q, k, v), self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + rearrange(out, "b 1 (t h w) c -> b c t h w", t=t, h=h, w=w)

    def by_kernels(self, x: Clip) -> Clip:
        into, out = self.qkv, self.proj_out
        assert into.bias is not None and out.bias is not None
        return clip_attention(clip_linear(x, into.weight, into.bias, _of(self.norm)), x, out.weight, out.bias)


class TimedSequential(nn.Sequential):
    """A Sequential that hands what comes of the time embedding to the blocks that take it."""

    def forward(self, x: Tensor, affine: Callable[[TimedResBlock], Affine]) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, affine(layer)) if isinstance(layer, TimedResBlock) else layer(x)
        return x

    def by_kernels(self, inputs: Sequence[Clip], embeddings: Iterator[Tensor]) -> Clip:
        """:meth:`forward` of what :meth:`TimedResBlock.by_kernels` takes, each block with the next embedding."""
        layers: list[Any] = list(self)
        for layer in layers:
            timed = isinstance(layer, TimedResBlock)
            inputs = [layer.by_kernels(inputs, next(embeddings)) if timed else layer.by_kernels(*inputs)]
        return inputs[0]


class UNet(Deriving):
    """Predicts x_t - x_0 from [x_t, y] and the integer timestep."""

    def __init__(self, latent_channels: int, params: DenoiserParams, num_timesteps: int) -> None:
        super().__init__()
        self.channels = params.model_channels
        self.num_timesteps = num_timesteps
        self.multiple = 2 ** (len(params.channel_mult) - 1)
        self._widest = max(params.channel_mult) * params.model_channels
        width, embedding = params.model_channels, 4 * params.model_channels
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def attend(ch: int, downsampling: int) -> list[nn.Module]:
            wanted = downsampling in params.attention_downsampling
            return [ClipSelfAttention(ch, params.norm_groups)] if wanted else []

        first = BandedConv(2 * latent_channels, width, 3)
        self.input_blocks = nn.ModuleList([TimedSequential(first)])
        ch, ds, skips = width, 1, [width]
        last = len(params.channel_mult) - 1
        for level, mult in enumerate(params.channel_mult):
            for _ in range(params.num_res_blocks):
                out = mult * width
                self.input_blocks.append(TimedSequential(TimedResBlock(ch, out, params), *attend(out, ds)))
                ch = out
                skips.append(ch)
            if level != last:
                self.input_blocks.append(TimedSequential(TimedResBlock(ch, ch, params, "down")))
                ds *= 2
                skips.append(ch)
        self.middle_block = TimedSequential(
            TimedResBlock(ch, ch, params), ClipSelfAttention(ch, params.norm_groups), TimedResBlock(ch, ch, params)
        )
        self.output_blocks = nn.ModuleList()
        self._groups_fit = True
        for level, mult in reversed(list(enumerate(params.channel_mult))):
            for index in range(params.num_res_blocks + 1):
                out, both = mult * width, ch + skips.pop()
                # Kernels of our own norm two maps side by side, without a group that has channels of both.
                members = both // min(params.norm_groups, both)
                self._groups_fit &= ch % members == 0 and members & (members - 1) == 0
                layers = [TimedResBlock(both, out, params), *attend(out, ds)]
                ch = out
                if level and index == params.num_res_blocks:
                    layers.append(TimedResBlock(ch, ch, params, "up"))
                    ds //= 2
                self.output_blocks.append(TimedSequential(*layers))
        self.out = nn.Sequential(_norm(params.norm_groups, ch), nn.SiLU(), BandedConv(ch, latent_channels, 3))

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """x, y: (B, C, T, h, w), h and w multiples of 4; t: (B,) timesteps. Returns x's shape, float32."""
        dtype = next(self.time_embed.parameters()).dtype
        # Every block begins with the same SiLU of it.
        embedding = silu(self.time_embed(timestep_embedding(t, self.channels).to(dtype)))
        return self._difference(torch.cat([x, y], dim=1).to(dtype), lambda block: block.affine(embedding))

    def _difference(self, h: Tensor, affine: Callable[[TimedResBlock], Affine]) -> Tensor:
        """:meth:`forward` of both clips joined, where it is known what comes of the time embedding."""
        skips = []
        for block in self.input_blocks:
            h = block(h, affine)
            skips.append(h)
        h = self.middle_block(h, affine)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), affine)
        layers: list[Any] = list(self.out)
        norm, _, conv = layers
        return conv(silu(norm(h))).float()

    def knows_affines(self) -> bool:
        """Whether :meth:`embeddings` and :meth:`affines` may be asked for: whether the weights are float32."""
        return self.time_embed[0].get_parameter("weight").dtype == torch.float32

    def has_kernels(self, x: Tensor) -> bool:
        """Whether :meth:`step` takes a latent (B, C, T, h, w); :meth:`forward` takes all."""
        fits = self._groups_fit and self._widest <= MOST_CHANNELS and x.shape[2] == FRAMES
        whole = x.shape[3] % self.multiple == 0 and x.shape[4] % self.multiple == 0
        return fits and whole and x.dtype == self.out[0].weight.dtype == torch.float32

    def derive(self) -> dict[str, Tensor]:
        """Of all timesteps the `sinusoids`; of all blocks together `scales` and `scale_biases` of emb_layers, and what
        is added to that: `ones` to scales, zeros to shifts."""
        layers = self._embedding_layers()
        halves = [layer.bias[: layer.out_features // 2] for layer in layers]
        steps = torch.arange(self.num_timesteps, device=layers[0].weight.device)
        return {
            "sinusoids": timestep_embedding(steps, self.channels),
            "scales": torch.cat([layer.weight for layer in layers]),
            "scale_biases": torch.cat([layer.bias for layer in layers]),
            "ones": torch.cat([F.pad(torch.ones_like(half), (0, len(half))) for half in halves]),
        }

    def sources(self) -> tuple[Tensor, ...]:
        return tuple(tensor for layer in self._embedding_layers() for tensor in (layer.weight, layer.bias))

    def _embedding_layers(self) -> list[nn.Linear]:
        """In the order of the blocks."""
        blocks: list[Any] = [block for block in self.modules() if isinstance(block, TimedResBlock)]
        return [block.emb_layers[1] for block in blocks]

    def embeddings(self, timesteps: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """For every timestep what :meth:`step` takes: what its blocks scale and shift by, (2 C,) each."""
        return [row.split(self._sizes()) for row in self._scales_and_shifts(timesteps)]

    def _scales_and_shifts(self, timesteps: Sequence[int]) -> Tensor:
        """What emb_layers of all blocks give for every timestep: a row each."""
        found = self.derived()
        sinusoids = torch.cat([found["sinusoids"][t : t + 1] for t in timesteps])
        return F.linear(silu(self.time_embed(sinusoids)), found["scales"], found["scale_biases"])

    def _sizes(self) -> list[int]:
        return [layer.out_features for layer in self._embedding_layers()]

    def affines(self, timesteps: Sequence[int]) -> list[list[Affine]]:
        """For every timestep what :meth:`plain_step` takes: each block's, for all of a batch."""
        rows = self._scales_and_shifts(timesteps).add_(self.derived()["ones"])
        halves = [size // 2 for size in self._sizes() for _ in range(2)]
        found = []
        for row in rows[:, None, :, None, None, None]:
            parts = iter(row.split(halves, dim=1))
            found.append(list(zip(parts, parts, strict=True)))
        return found

    def plain_step(
        self, x: Tensor, y: Tensor, affines: Sequence[Affine], factors: Sequence[float], noise: Tensor
    ) -> Tensor:
        """A step of the bridge in few operations of PyTorch; as :meth:`step`, with one of :meth:`affines`."""
        each = iter(affines)
        difference = self._difference(torch.cat([x, y], dim=1), lambda _: next(each))
        a, b, c, d, m, e = factors
        # With x_0 = x - difference the next state is a sum of four.
        state = (x * (a + c - c * d)).add_(difference, alpha=c * d - a)
        return state.add_(y, alpha=b - c * m).add_(noise, alpha=e)

    def step(
        self, x: Tensor, y: Tensor, embeddings: Sequence[Tensor], factors: Sequence[float], noise: Tensor
    ) -> Tensor:
        """A step of the bridge by kernels of our own, one of :meth:`embeddings` for all of a batch.

        Args:
            x, y, noise: (B, C, T, h, w), contiguous, as :meth:`has_kernels` wants them.
            embeddings, factors: of the step (:class:`..bridge.Factors`).

        Returns:
            The next state.
        """
        each = iter(embeddings)
        first: Any = self.input_blocks[0]
        h = clip_entry(x, y, first[0].weight, first[0].bias)
        skips = [h]
        blocks: list[Any] = list(self.input_blocks)[1:]
        for block in blocks:
            h = block.by_kernels([h], each)
            skips.append(h)
        h = self.middle_block.by_kernels([h], each)
        blocks = list(self.output_blocks)
        for block in blocks:
            h = block.by_kernels([h, skips.pop()], each)
        layers: list[Any] = list(self.out)
        norm, _, conv = layers
        return clip_step(h, conv.weight, conv.bias, _of(norm), x, y, noise, factors)

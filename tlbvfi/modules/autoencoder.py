"""The VQGAN autoencoder: what belongs to a frame, and what belongs to a pair (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import AutoencoderParams
from .blocks import FRAMES, ClipConv, Downsample, Middle, ResnetBlock, Upsample, group_norm, join_frames, relu, silu
from .flow import CoarseFlow, FlowRefinement
from .maxvit import CrossAttention, MaxViT
from .quantize import VectorQuantizer
from .warp import resize, resize_flow, warp, warp_features
from .wavelet import FrequencyExtractor, gate, to_grey

#: Pyramid levels that the flow refinement reads, and that are warped for the decoder (level 0 is not).
FLOW_LEVELS = 4


@dataclass
class Flows:
    """The optical flow of a pair at its stages, each (B, 4, ., .) float32 (see :mod:`.flow`)."""

    coarse: Tensor
    refined: Tensor
    full: Tensor


class EncoderLevel(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, params: AutoencoderParams, attend: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList([ResnetBlock(in_channels, out_channels, params.norm_groups)])
        self.attn = nn.ModuleList([MaxViT(out_channels, params.window)] if attend else [])
        self.downsample = Downsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block[0](x)
        for attn in self.attn:
            x = attn(x)
        return self.downsample(x)


class Encoder(nn.Module):
    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths = params.pyramid_widths
        deepest, levels = widths[-1], params.num_levels
        self.conv_in = nn.Conv2d(3, params.ch, 3, padding=1)
        self.down = nn.ModuleList(
            EncoderLevel(widths[i], widths[i + 1], params, attend=i == levels - 1) for i in range(levels)
        )
        self.mid = Middle(deepest, params.norm_groups)
        self.frequency_extractor = FrequencyExtractor(params.ch, deepest, params.norm_groups)
        self.norm_out = group_norm(params.norm_groups, deepest)
        self.conv_out = ClipConv(deepest, params.z_channels, 3)

    def pyramid(self, frame: Tensor, levels: int) -> list[Tensor]:
        """Feature levels 0..levels of a frame (B, 3, H, W) in [0, 1]; level k is at 1 / 2**k."""
        frame = frame.to(self.conv_in.weight.dtype).contiguous(memory_format=torch.channels_last)
        features = [self.conv_in(frame)]
        for level in self.down[:levels]:
            features.append(level(features[-1]))
        return features

    def clip(self, deepest: Sequence[Tensor], frame0: Tensor, frame1: Tensor) -> Tensor:
        """The latent before `quant_conv`.

        Args:
            deepest: deepest pyramid level of x0, of the empty frame and of x1, each (B, C, h, w).
            frame0, frame1: (B, 3, H, W) in [0, 1], for the wavelet branch.

        Returns:
            (B 3, z_channels, h, w).
        """
        frequency = self.frequency_extractor(to_grey(frame0), to_grey(frame1))
        h = join_frames([gate(features, frequency) for features in deepest])
        return self.conv_out(silu(self.norm_out(self.mid(h))))


class DecoderLevel(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, context: int, params: AutoencoderParams, attend: bool
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList([ResnetBlock(in_channels, out_channels, params.norm_groups)])
        self.attn = nn.ModuleList([MaxViT(out_channels, params.window)] if attend else [])
        self.cross_attn = CrossAttention(out_channels, context, params.window)
        self.upsample = Upsample(out_channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.block[0](x)
        for attn in self.attn:
            x = attn(x)
        return self.upsample(self.cross_attn(x, context))


class Decoder(nn.Module):
    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths, groups = params.pyramid_widths, params.norm_groups
        deepest = widths[-1]
        self.flownet = CoarseFlow(params.flow_widths)
        self.refinenet = FlowRefinement(widths)
        self.conv_in = ClipConv(params.z_channels, deepest, 3)
        self.mid = Middle(deepest, groups, merge_frames=True)
        self.up = nn.ModuleList()
        for i in range(params.num_levels):
            outer = widths[min(i + 2, params.num_levels)]
            warped = i + 1 < FLOW_LEVELS
            context = widths[i + 1] * (4 if warped else 2)
            self.up.append(DecoderLevel(outer, widths[i + 1], context, params, attend=i == params.num_levels - 1))
        inner, last = params.head_widths
        self.norm_out = group_norm(groups, widths[1])
        self.conv_out = nn.Conv2d(widths[1], params.ch, 3, padding=1)
        self.moduleout = nn.Sequential(
            nn.Conv2d(params.ch, inner, 3, padding=1), group_norm(params.head_norm_groups[0], inner), nn.Identity(),
            nn.Conv2d(inner, last, 3, padding=1), group_norm(params.head_norm_groups[1], last), nn.Identity(),
            nn.Conv2d(last, 4, 3, padding=1),
        )  # fmt: skip

    def flows(
        self,
        frames: tuple[Tensor, Tensor],
        pyramids: tuple[Sequence[Tensor], Sequence[Tensor]],
        size: tuple[int, int],
    ) -> Flows:
        """Flow of a pair from frames (as the coarse flow takes them) and pyramids at the flow size."""
        coarse = self.flownet(*frames)
        refined = self.refinenet(*pyramids, coarse)
        return Flows(coarse, refined, resize_flow(refined, size))

    def forward(
        self,
        latent: Tensor,
        frames: tuple[Tensor, Tensor],
        pyramids: tuple[Sequence[Tensor | None], Sequence[Tensor | None]],
        flow: Tensor,
    ) -> Tensor:
        """The middle frame.

        Args:
            latent: the clip's frames (B 3, z_channels, h, w), after `post_quant_conv`.
            frames: the two frames (B, 3, H, W) in [0, 1].
            pyramids: their feature levels 0.. (level 0 is not read).
            flow: (B, 4, H, W) at the frames' size.

        Returns:
            (B, 3, H, W) float32 in [0, 1].
        """
        level_flows = self._level_flows(flow)
        h = self.mid(self.conv_in(latent))
        for i in reversed(range(len(self.up))):
            h = self.up[i](h, self._context(i + 1, pyramids, level_flows))
        return self._synthesise(self._head(h), frames, flow)

    @staticmethod
    def _level_flows(flow: Tensor) -> dict[int, Tensor]:
        """The flow at each pyramid level that is warped, each level's from the level above."""
        flows = {}
        for level in range(1, FLOW_LEVELS):
            flow = resize(flow, (flow.shape[-2] // 2, flow.shape[-1] // 2)) * 0.5
            flows[level] = flow
        return flows

    @staticmethod
    def _context(
        level: int, pyramids: tuple[Sequence[Tensor | None], Sequence[Tensor | None]], flows: dict[int, Tensor]
    ) -> Tensor:
        """What a decoder level attends to: both frames' features, up to level 3 also warped to the middle."""
        features = [f for pyramid in pyramids if (f := pyramid[level]) is not None]
        if level in flows:
            to_frames = flows[level].chunk(2, dim=1)
            features += [warp_features(f, to_frame) for f, to_frame in zip(features, to_frames, strict=True)]
        return torch.cat(features, dim=1)

    def _head(self, h: Tensor) -> Tensor:
        """Blend mask and residual, four channels, from the last decoder map."""
        h = self.conv_out(silu(self.norm_out(h)))
        conv, norm, _, conv2, norm2, _, conv3 = self.moduleout
        h = relu(norm(conv(h)))
        return conv3(relu(norm2(conv2(h))))

    @staticmethod
    def _synthesise(head: Tensor, frames: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
        head = torch.sigmoid(head.float())
        mask, residual = head[:, 3:], 2.0 * head[:, :3] - 1.0
        warped = torch.lerp(warp(frames[1].float(), flow[:, 2:]), warp(frames[0].float(), flow[:, :2]), mask)
        return (warped + residual).clamp(0.0, 1.0)


class VQGAN(nn.Module):
    """Encoder, codebook and decoder under the names of the published checkpoint."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        self.encoder = Encoder(params)
        self.decoder = Decoder(params)
        self.quantize = VectorQuantizer(params.n_embed, params.z_channels)
        self.quant_conv = nn.Conv2d(params.z_channels, params.z_channels, 1)
        self.post_quant_conv = nn.Conv2d(params.z_channels, params.z_channels, 1)

    def latent(self, deepest: Sequence[Tensor], frame0: Tensor, frame1: Tensor) -> Tensor:
        """The clip's latent (B, z_channels, 3, h, w) float32 (arguments as in :meth:`Encoder.clip`)."""
        z = self.encoder.clip(deepest, frame0, frame1).to(self.quant_conv.weight.dtype)
        return rearrange(self.quant_conv(z).float(), "(b t) c h w -> b c t h w", t=FRAMES)

    def decoder_input(self, codes: Tensor) -> Tensor:
        """What the decoder takes for codes (B, z_channels, 3, h, w): through `post_quant_conv`, frame by frame."""
        frames = rearrange(codes, "b c t h w -> (b t) c h w").to(self.post_quant_conv.weight.dtype)
        return self.post_quant_conv(frames).to(self.decoder.conv_in.weight.dtype)

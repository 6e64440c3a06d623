"""The VQGAN autoencoder: what belongs to a frame, and what belongs to a pair (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import AutoencoderParams
from ..kernels.images import new_frame
from ..kernels.joins import join
from ..kernels.positions import Bases
from ..rows.activations import Activation, relu, silu
from ..rows.cuts import WHOLE, Cut, Strips, halved
from ..rows.lazy import (
    Rows,
    computed,
    convolved,
    lacking,
    materialise,
    materialise_over,
    normed,
    read_once,
    stored,
)
from ..rows.owned import Owned
from ..rows.tuning import Tuning
from .alignment import aligned
from .blocks import FRAMES, AlignedConv, ClipConv, Downsample, Middle, ResnetBlock, Upsample, group_norm, join_frames
from .coarse_maps import towards_mean
from .cross_fade import CrossFade
from .flow import CoarseFlow, FlowRefinement
from .fused import bare, fuses, norm_act
from .maxvit import Context, CrossAttention, MaxViT
from .quantize import VectorQuantizer
from .stills import Stills
from .trust import Trust
from .warp import resize_flow, resize_times, warp_all
from .wavelet import FrequencyExtractor, gate

#: Pyramid levels that the flow refinement reads, and that are warped for the decoder (level 0 is not).
FLOW_LEVELS = 4

#: Rows of a strip of the output head, at least: a halo of two on either side is computed twice.
_HEAD_ROWS = 16


@dataclass
class Flows:
    """The optical flow of a pair, each (B, 4, ., .) float32 (see :mod:`.flow`).

    Attributes:
        coarse: from the frames alone, at half the flow size.
        refined: from the features, at the flow size.
        full: at the frames' size.
    """

    coarse: Tensor
    refined: Tensor
    full: Tensor


class EncoderLevel(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, params: AutoencoderParams, attend: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList([ResnetBlock(in_channels, out_channels, params.norm_groups)])
        self.attn = nn.ModuleList([MaxViT(out_channels, params.window)] if attend else [])
        self.downsample = Downsample(out_channels)

    def forward(self, x: Rows, strips: Strips) -> Rows:
        """The level's map (B, C, H, W) to the next one's, stored."""
        if fuses(x.shape, strips, self.downsample.conv.weight.device):
            return stored(self._whole(x, strips))
        cuts = strips.cuts(x.shape)
        x = self.block[0](x, strips)
        for attn in self.attn:
            x = stored(attn(computed(x, strips), strips=strips))
        return materialise(self.downsample(x), halved(cuts), measure=True)

    def _whole(self, x: Rows, strips: Strips) -> Tensor:
        """A whole map by kernels of our own: where nothing comes between, the block's last pass pads for the conv."""
        block = self.block[0]
        assert isinstance(block, ResnetBlock)
        padded = block.whole(x, below=0 if self.attn else 1)
        for attn in self.attn:
            padded = F.pad(attn(padded, strips=strips), (0, 1, 0, 1))
        return self.downsample.conv(padded)


class Encoder(nn.Module):
    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths = params.pyramid_widths
        deepest, levels = widths[-1], params.num_levels
        self.conv_in = AlignedConv(3, params.ch, 3, padding=1)
        self.down = nn.ModuleList(
            EncoderLevel(widths[i], widths[i + 1], params, attend=i == levels - 1) for i in range(levels)
        )
        self.mid = Middle(deepest, params.norm_groups)
        self.frequency_extractor = FrequencyExtractor(params.ch, deepest, params.norm_groups)
        self.norm_out = group_norm(params.norm_groups, deepest)
        self.conv_out = ClipConv(deepest, params.z_channels, 3)

    def pyramid(self, frame: Tensor, levels: int, strips: Strips = WHOLE, first: bool = True) -> list[Tensor | None]:
        """Feature levels 0..levels of a frame (B, 3, H, W) in [0, 1]; level k is at 1 / 2**k.

        Without `first`, level 0 (None then) is not stored but computed where it is read: it is wide, and cheap.
        """
        x = self._full_size(frame, strips)
        if first:
            x = materialise(x, strips.cuts(x.shape), measure=True)
        features = [x.tensor() if first else None]
        for level in self.down[:levels]:
            x = level(x, strips)
            features.append(x.tensor())
        return features

    def _full_size(self, frame: Tensor, strips: Strips) -> Rows:
        """Level 0, computed where it is read."""
        conv = self.conv_in
        shape = (frame.shape[0], conv.out_channels, *frame.shape[2:])
        if fuses(shape, strips, frame.device):
            filled = conv.filled_up(frame)
            return lacking(shape, lambda: conv.apart(filled))
        dtype = conv.weight.dtype
        pixels = Rows(
            (frame.shape[0], *frame.shape[1:]),
            lambda a, b: frame[:, :, a:b].to(dtype).contiguous(memory_format=torch.channels_last),
        )
        return convolved(pixels, conv)

    def clip(self, deepest: Sequence[Tensor], frame0: Tensor, frame1: Tensor, strips: Strips = WHOLE) -> Tensor:
        """The latent before `quant_conv`.

        Args:
            deepest: deepest pyramid level of x0, of the empty frame and of x1, each (B, C, h, w).
            frame0, frame1: (B, 3, H, W) in [0, 1], for the wavelet branch.

        Returns:
            (B 3, z_channels, h, w).
        """
        frequency = self.frequency_extractor(frame0, frame1, strips)
        if Tuning.of(frequency.device).kernels:
            h = join_frames(deepest)
            clips = rearrange(h, "(b t) c h w -> b t c h w", t=FRAMES)
            clips.addcmul_(clips, torch.sigmoid(frequency)[:, None])
            h = self.conv_out.bare(self.mid(h), self.norm_out, silu)
            return join(h, self.conv_out.bias)
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

    def forward(self, source: Owned[Rows], context: Rows, strips: Strips) -> Rows:
        """The level's map (B, C, H, W), stored, to the next one's, which is not."""
        x = computed(self.block[0](source.take(), strips), strips)
        for attn in self.attn:
            x = attn(x, strips=strips)
        return self.upsample(stored(self.cross_attn(x, context, strips)))


class Decoder(nn.Module):
    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        widths, groups = params.pyramid_widths, params.norm_groups
        deepest = widths[-1]
        self.flownet = CoarseFlow(params.flow_widths, params.flow_sizes, params.flow_start, params.flow_turns)
        self.fine_flow, self.alignments = bool(params.fine_flow), params.flow_alignments
        self.refinenet = FlowRefinement(widths, params.flow_levels)
        self.conv_in = ClipConv(params.z_channels, deepest, 3)
        self.mid = Middle(deepest, groups, merge_frames=True)
        self.up = nn.ModuleList()
        for i in range(params.num_levels):
            outer = widths[min(i + 2, params.num_levels)]
            warped = i + 1 < FLOW_LEVELS
            context = widths[i + 1] * (4 if warped else 2)
            self.up.append(DecoderLevel(outer, widths[i + 1], context, params, attend=i == params.num_levels - 1))
        self.cubic, self.still_within, self.fade_from = params.cubic, params.still_within, params.fade_from
        self.trust = Trust(params.trust_widths) if params.trust_widths else None
        inner, last = params.head_widths
        self.norm_out = group_norm(groups, widths[1])
        self.conv_out = nn.Conv2d(widths[1], params.ch, 3, padding=1)
        self.moduleout = nn.Sequential(
            nn.Conv2d(params.ch, inner, 3, padding=1), group_norm(params.head_norm_groups[0], inner), nn.Identity(),
            nn.Conv2d(inner, last, 3, padding=1), group_norm(params.head_norm_groups[1], last), nn.Identity(),
            AlignedConv(last, 4, 3, padding=1),
        )  # fmt: skip

    def flows(
        self,
        frames: tuple[Tensor, Tensor],
        pyramids: tuple[Sequence[Tensor], Sequence[Tensor]],
        images: tuple[Tensor, Tensor],
        strips: Strips = WHOLE,
    ) -> Flows:
        """Flow of a pair from frames (as the coarse flow takes them) and pyramids at the flow size, for the frames
        (B, 3, H, W) in [0, 1] themselves."""
        coarse = self.flownet(*frames)
        refined = self.refinenet(*pyramids, coarse, strips)
        smaller = frames[0].shape != images[0].shape
        return Flows(coarse, refined, self.full_flow(refined, images, smaller, strips))

    def full_flow(
        self, refined: Tensor, images: tuple[Tensor, Tensor], smaller: bool, strips: Strips = WHOLE
    ) -> Tensor:
        """The flow at the size of frames (B, 3, H, W) in [0, 1], from the refined one; `smaller`: of smaller frames."""
        full = resize_flow(refined, (images[0].shape[-2], images[0].shape[-1]))
        if self.fine_flow and smaller:
            full = self.flownet.finer(*images, full, strips)
        return aligned(full, images, self.alignments, strips)

    def forward(
        self,
        latent: Tensor,
        frames: tuple[Tensor, Tensor],
        pyramids: tuple[list[Tensor | None], list[Tensor | None]],
        flow: Tensor,
        strips: Strips = WHOLE,
        signed: bool = False,
    ) -> Tensor:
        """The middle frame.

        Args:
            latent: the clip's frames (B 3, z_channels, h, w), after `post_quant_conv`.
            frames: the two frames (B, 3, H, W) in [0, 1].
            pyramids: their feature levels 0.. (level 0 is not read). The lists are the decoder's own: each level is
                removed as it is read, and freed where nobody else has it.
            flow: (B, 4, H, W) at the frames' size.
            strips: how wide maps are cut.
            signed: give it in [-1, 1].

        Returns:
            (B, 3, H, W) float32 in [0, 1], or [-1, 1].
        """
        flows = self._level_flows(flow)
        x = Owned(stored(self.mid(self.conv_in(latent))))
        for level in reversed(self.up):
            level_map = level(x, Context(_features(pyramids), flows.pop(), strips), strips)
            x = _materialised(level_map, strips, flow.device)
        return self._synthesised(x, frames, flow, strips, signed)

    def _level_flows(self, flow: Tensor) -> list[Tensor | None]:
        """The flow at each decoder level's size, outermost first; None for levels that are not warped."""
        flows: list[Tensor | None] = [None] * len(self.up)
        for i in range(FLOW_LEVELS - 1):
            flow = resize_times(flow, (flow.shape[-2] // 2, flow.shape[-1] // 2), 0.5)
            flows[i] = flow
        return flows

    def _synthesised(
        self,
        source: Owned[Rows],
        frames: tuple[Tensor, Tensor],
        flow: Tensor,
        strips: Strips,
        signed: bool = False,
    ) -> Tensor:
        """From the last decoder map, stored: blend mask and residual, four channels, and the frame (B, 3, H, W) in
        [0, 1], or [-1, 1] where `signed`."""
        layers: list[Any] = list(self.moduleout)
        conv, norm, _, conv2, norm2, _, conv3 = layers
        cuts = strips.cuts(flow.shape, least=_HEAD_ROWS)
        size = (flow.shape[0], 3, *flow.shape[2:])
        if fuses(flow.shape, strips, flow.device):
            x, bias = source.take().apart()
            x = self.conv_out(norm_act(x, self.norm_out, silu, bias, reuse=True))
            x = norm_act(bare(x, conv), norm, relu, conv.bias, reuse=True)
            x = norm_act(bare(x, conv2), norm2, relu, conv2.bias, reuse=True)
            last = stored(x)
        else:
            inner = _head_step(source, self.norm_out, silu, (self.conv_out, conv), cuts, strips)
            outer = _head_step(inner, norm, relu, (conv2,), cuts, strips)
            last = normed(read_once(outer.take(), cuts), norm2, strips, relu)
        stills = fade = share = None
        if self.still_within or self.fade_from or self.trust is not None:
            with torch.no_grad():
                if self.still_within:
                    stills = Stills(frames, flow, self.still_within, cuts, self.cubic)
                if self.fade_from:
                    fade = CrossFade(frames, flow, self.fade_from)
            if self.trust is not None:
                share = self.trust.share(frames, flow, None if stills is None else stills.places)
        elif not self.cubic and strips.tuning_on(flow.device).kernels and min(flow.shape[2:]) > 1:
            return materialise(Rows(size, self._frame_by_kernels(last, frames, flow, signed)), cuts).tensor()
        head = convolved(last, conv3)

        def read(a: int, b: int) -> Tensor:
            gates = torch.sigmoid(head.read(a, b).float())
            mask, residual = gates[:, 3:], 2.0 * gates[:, :3] - 1.0
            if stills is not None:
                result = stills.blended(mask, residual, a, b)
            else:
                to_frames = flow[:, :, a:b].chunk(2, dim=1)
                warped0, warped1 = (
                    warp_all((frame,), to_frame, a, self.cubic)[0]
                    for frame, to_frame in zip(frames, to_frames, strict=True)
                )
                result = (torch.lerp(warped1, warped0, mask) + residual).clamp(0.0, 1.0)
            if fade is not None:
                result = fade.blended(result, a, b)
            if share is not None:
                result = towards_mean(result, frames, share.read(a, b), a, b)
            if not signed:
                return result
            return result * 2.0 - 1.0 if torch.is_grad_enabled() else result.mul_(2.0).sub_(1.0)

        return materialise(Rows(size, read), cuts).tensor()

    def _frame_by_kernels(
        self, last: Rows, frames: tuple[Tensor, Tensor], flow: Tensor, signed: bool
    ) -> Callable[[int, int], Tensor]:
        """What reads rows of the frame, from the map before the last conv."""
        conv = self.moduleout[-1]
        assert isinstance(conv, AlignedConv) and conv.bias is not None
        bias = conv.bias
        height, width = flow.shape[2:]
        places = Bases.of(flow)

        def read(a: int, b: int) -> Tensor:
            top, bottom = max(a - 1, 0), min(b + 1, height)
            # The rows beside the strip are there for the conv's sake, and cut off.
            head, lacking = conv.apart(conv.filled_up(last.read(top, bottom)))
            missing = torch.zeros_like(bias) if lacking is None else lacking
            return new_frame(head[:, :, a - top : b - top], missing, *frames, flow, places, a, signed)

        return read


def _features(pyramids: tuple[list[Tensor | None], list[Tensor | None]]) -> tuple[Tensor, Tensor]:
    """The deepest levels left of two pyramids, removed from them."""
    before, after = (pyramid.pop() for pyramid in pyramids)
    assert before is not None and after is not None
    return before, after


def _materialised(rows: Rows, strips: Strips, device: torch.device) -> Owned[Rows]:
    """A map stored for one reader."""
    if fuses(rows.shape, strips, device):
        x, bias = rows.apart()
        return Owned(lacking(rows.shape, lambda: (x, bias), writable=False))
    return Owned(materialise(rows, strips.cuts(rows.shape), measure=True))


def _head_step(
    source: Owned[Rows],
    norm: nn.GroupNorm,
    activation: Activation,
    convs: Sequence[nn.Conv2d],
    cuts: list[Cut],
    strips: Strips,
) -> Owned[Rows]:
    """Norm, activation and convs of a stored map (B, C, H, W); where memory is short, stored in the map's own place."""
    rows = read_once(source.take(), cuts)
    wide = normed(rows, norm, strips, activation)
    if strips.frugal and len(cuts) > 1 and convs[-1].out_channels <= rows.shape[1]:
        return Owned(materialise_over(rows.tensor(), wide, convs, cuts))
    for conv in convs:
        wide = convolved(wide, conv)
    return Owned(materialise(wide, cuts, measure=True))


class VQGAN(nn.Module):
    """Encoder, codebook and decoder under the names of the published checkpoint."""

    def __init__(self, params: AutoencoderParams) -> None:
        super().__init__()
        self.encoder = Encoder(params)
        self.decoder = Decoder(params)
        self.quantize = VectorQuantizer(params.n_embed, params.z_channels)
        self.quant_conv = nn.Conv2d(params.z_channels, params.z_channels, 1)
        self.post_quant_conv = nn.Conv2d(params.z_channels, params.z_channels, 1)

    def latent(self, deepest: Sequence[Tensor], frame0: Tensor, frame1: Tensor, strips: Strips = WHOLE) -> Tensor:
        """The clip's latent (B, z_channels, 3, h, w) float32 (arguments as in :meth:`Encoder.clip`)."""
        z = self.encoder.clip(deepest, frame0, frame1, strips).to(self.quant_conv.weight.dtype)
        return rearrange(self.quant_conv(z).float(), "(b t) c h w -> b c t h w", t=FRAMES)

    def decoder_input(self, codes: Tensor) -> Tensor:
        """What the decoder takes for codes (B, z_channels, 3, h, w): through `post_quant_conv`, frame by frame."""
        frames = rearrange(codes, "b c t h w -> (b t) c h w").to(self.post_quant_conv.weight.dtype)
        return self.post_quant_conv(frames).to(self.decoder.conv_in.weight.dtype)

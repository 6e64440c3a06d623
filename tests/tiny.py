"""A very small model of random weights, for everything that does not need the published one."""

from __future__ import annotations

from dataclasses import replace

import torch

from tlbvfi.bench.stand_in import random_weights
from tlbvfi.config import AutoencoderParams, DenoiserParams, ModelParams
from tlbvfi.model import TLBVFI, convert_precision
from tlbvfi.modules.autoencoder import Decoder
from tlbvfi.rows.cuts import Strips
from tlbvfi.rows.lazy import materialise, stored
from tlbvfi.rows.owned import Owned

#: Sides of its frames are multiples of 128 (window 4 at 1/32).
TINY = ModelParams(
    AutoencoderParams(
        ch=8, ch_mult=(1, 1, 2, 1, 2), n_embed=64, window=4, flow_widths=(8, 8, 8),
        head_widths=(8, 8), head_norm_groups=(4, 4),
    ),
    DenoiserParams(model_channels=8),
)  # fmt: skip
#: The same with all that the built-in model does and the published one does not.
TINY_BUILT_IN = replace(
    TINY,
    autoencoder=replace(
        TINY.autoencoder,
        flow_start=32,
        flow_sizes=2,
        flow_turns=2,
        flow_levels=3,
        fine_flow=1,
        flow_alignments=1,
        cubic=1.0,
        still_within=0.05,
        fade_from=0.7,
        trust_widths=(8, 8, 16),
    ),
)


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32) -> TLBVFI:
    """Always the same weights for a seed; flows of a few pixels, so that warps matter."""
    model = TLBVFI(TINY)
    random_weights(model, seed)
    return convert_precision(model.finalize(), dtype)


def frames(count: int, height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    """Smooth moving pictures (H, W, 3) in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 17.0, torch.arange(width) / 23.0, indexing="ij")
    phase = torch.arange(3) * 1.3 + seed
    return [0.5 + 0.5 * torch.sin(x[..., None] * 2 + y[..., None] + phase + 0.4 * i) for i in range(count)]


def last_stage(
    decoder: Decoder, pair: tuple[torch.Tensor, torch.Tensor], flow: torch.Tensor, strips: Strips
) -> torch.Tensor:
    """The new frame (B, 3, H, W) of a pair, by what the decoder does at the frames' size, from always the same map."""
    size = (flow.shape[0], decoder.conv_out.in_channels, *flow.shape[2:])
    x = torch.rand(size, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=torch.channels_last)
    rows = materialise(stored(x), strips.cuts(x.shape), measure=True)
    return decoder._synthesised(Owned(rows), pair, flow, strips)

"""A very small model and a parcel of noise: the same way through, in seconds on any machine."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ...config import AutoencoderParams, BridgeParams, DenoiserParams, ModelParams
from ...model import TLBVFI
from ..initialise import initialise
from .parcel import CANVAS, GAPS, MASK, TEXTURE, Parcel, Pictures, Video
from .run import learning

PARAMS = ModelParams(
    AutoencoderParams(
        ch=8, ch_mult=(1, 1, 1, 1, 1), n_embed=16, norm_groups=2, window=4, flow_widths=(8, 8, 8), flow_start=32,
        flow_sizes=2, flow_turns=2, flow_levels=3, fine_flow=1, flow_alignments=1, fade_from=0.7, trust_widths=(8, 8),
        head_widths=(8, 8), head_norm_groups=(2, 2),
    ),
    DenoiserParams(model_channels=8, norm_groups=4),
    BridgeParams(num_timesteps=50),
)  # fmt: skip


def small_model(device: torch.device) -> TLBVFI:
    model = TLBVFI(replace(PARAMS))
    initialise(model, 0)
    return learning(model.to(device))


def small_parcel(device: torch.device, size: int) -> Parcel:
    """Pictures of smooth noise and one video of a picture that moves; no LPIPS."""
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, channels: int, height: int, width: int, pitch: int = 16) -> torch.Tensor:
        coarse = torch.rand(count, channels, height // pitch + 2, width // pitch + 2, generator=generator)
        return (F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)

    overlays = torch.zeros(8, 4, *CANVAS, dtype=torch.uint8)
    overlays[:, :, 4:20, 4:50] = (255 * (noise(8, 1, 16, 46, 4) > 128)).to(torch.uint8)
    sprites, masks = noise(8, 4, MASK, MASK), 255 * (noise(8, 1, MASK, MASK, 48) > 110)
    sprites[:, 3:] = 255 * (sprites[:, 3:] > 110)
    sprites[:, :3] = torch.minimum(sprites[:, :3], sprites[:, 3:])
    pictures = Pictures(
        noise(16, 3, TEXTURE, TEXTURE).to(device),
        sprites.to(device),
        masks.to(torch.uint8).to(device),
        overlays.to(device),
    )
    picture = noise(1, 3, size + 60, size + 60, 4)
    frames = torch.cat([picture[..., i : i + size + 20, 2 * i : 2 * i + size + 20] for i in range(20)])
    starts = {gap: list(range(20 - 2 * gap)) for gap in GAPS}
    return Parcel(pictures, [Video("noise", frames.to(device), 10, starts)], None)

"""Captions, logos, boxes and bars over finished frames: they stand still or move whatever the scene does.

They are put on rendered scenes and on real video alike. Their flow is exact, and what they hide counts as hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .draws import Chance
from .motion import frame_places
from .scenes import LABEL_ALPHA, Rendered

#: Labels of overlays; below are those of a scene's layers.
FIRST_LABEL = 100.0


def put_on(rendered: Rendered, overlays: Tensor, chance: Chance, share: float, most: int = 2) -> Tensor:
    """Put up to `most` overlays of (N, 4, h, w) uint8 on a share of the scenes, in place; where they are in the middle
    frame, (B, 1, S, S) bool."""
    there = torch.zeros_like(rendered.labels[0], dtype=torch.bool)
    batch = len(there)
    wanted = chance.happens(share, batch)
    for number in range(most):
        present = wanted if number == 0 else wanted & chance.happens(0.4, batch)
        there |= _put_one(rendered, overlays, chance, present, FIRST_LABEL + number)
    if (bars := _bars(rendered, chance, 0.15 * share, FIRST_LABEL + most)) is not None:
        there |= bars
    return there


def _put_one(rendered: Rendered, overlays: Tensor, chance: Chance, present: Tensor, label: float) -> Tensor:
    batch, size, device = len(present), rendered.frames[0].shape[-1], overlays.device
    chosen = chance.number(len(overlays), batch).to(device)
    sprites = overlays[chosen].float() / 255.0
    # Bounds of the content: it lies in the upper left corner of its canvas.
    filled = sprites[:, 3] > 0.02
    height, width = filled.any(dim=2).sum(dim=1).cpu(), filled.any(dim=1).sum(dim=1).cpu()
    zoom = torch.where(
        chance.happens(0.6, batch), torch.ones(batch, dtype=torch.float64), chance.uniform(0.7, 1.6, batch)
    )
    corner = torch.stack(
        [
            chance.uniform(0.0, 1.0, batch) * (size - (width * zoom).clamp_max(0.8 * size)),
            chance.uniform(0.0, 1.0, batch) * (size - (height * zoom).clamp_max(0.8 * size)),
        ],
        dim=-1,
    ).round()
    speed = _speeds(chance, batch)
    faint = chance.happens(0.2, batch)
    opacity = torch.where(faint, chance.uniform(0.25, 0.8, batch), torch.ones(batch, dtype=torch.float64)) * present
    numbers = torch.cat([zoom[:, None], corner, speed, opacity[:, None]], dim=1).float().to(device)[..., None, None]
    there: list[Tensor] = []
    alphas = []
    for i, t in enumerate(rendered.times):
        rgb, alpha = _sampled(sprites, numbers, t, size)
        rendered.frames[i] = rendered.frames[i] * (1.0 - alpha) + rgb
        rendered.labels[i] = rendered.labels[i].masked_fill(alpha > LABEL_ALPHA, label)
        alphas.append(alpha)
        if t == 0.5:
            there = [alpha > 0.02, alpha > LABEL_ALPHA]
    here = frame_places(size, device)
    for i, t in enumerate(rendered.times):
        moved = here + numbers[:, 3:5] * (t - 0.5)
        rendered.places[i] = torch.where(there[1], moved, rendered.places[i])
    return there[0]


def _speeds(chance: Chance, batch: int) -> Tensor:
    """Pixels from frame 0 to frame 1, (B, 2): most stand still, some run along one side, few as they like."""
    still = torch.zeros(batch, 2, dtype=torch.float64)
    along = torch.stack([chance.uniform(-24.0, 24.0, batch), torch.zeros(batch, dtype=torch.float64)], dim=1)
    along = torch.where(chance.happens(0.25, batch)[:, None], along.flip(1), along)
    along = torch.where(chance.happens(0.5, batch)[:, None], (along / 2).round() * 2, along)  # whole pixels a frame
    free = chance.normal(6.0, batch, 2)
    moving = torch.where(chance.happens(0.8, batch)[:, None], along, free)
    return torch.where(chance.happens(0.22, batch)[:, None], moving, still)


def _sampled(sprites: Tensor, numbers: Tensor, t: float, size: int) -> tuple[Tensor, Tensor]:
    """Premultiplied colour and alpha of each overlay over the frame at time t."""
    zoom, corner, speed, opacity = numbers.split([1, 2, 2, 1], dim=1)
    height, width = sprites.shape[-2:]
    line = torch.arange(size, device=sprites.device, dtype=torch.float32)
    x = (line[None, None, :] - corner[:, 0] - speed[:, 0] * (t - 0.5)) / zoom[:, 0]
    y = (line[None, :, None] - corner[:, 1] - speed[:, 1] * (t - 0.5)) / zoom[:, 0]
    grid = torch.stack(
        [((2.0 * x + 1.0) / width - 1.0).expand(-1, size, -1), ((2.0 * y + 1.0) / height - 1.0).expand(-1, -1, size)],
        dim=-1,
    )
    found = F.grid_sample(sprites, grid, "bilinear", "zeros", align_corners=False) * opacity
    return found[:, :3], found[:, 3:]


def _bars(rendered: Rendered, chance: Chance, share: float, label: float) -> Tensor | None:
    """Black bars above and below, or at the sides."""
    batch, size, device = len(rendered.labels[0]), rendered.frames[0].shape[-1], rendered.frames[0].device
    present = chance.happens(share, batch)
    rows = chance.number(size // 8, batch) + size // 20
    sides = chance.happens(0.3, batch)
    if not present.any():
        return None
    line = torch.arange(size)
    edge = torch.minimum(line, size - 1 - line)[None, :] < rows[:, None]
    mask = torch.where(sides[:, None, None], edge[:, None, :], edge[:, :, None]) & present[:, None, None]
    where = mask[:, None].to(device)
    here = frame_places(size, device)
    for i in range(len(rendered.times)):
        rendered.frames[i] = rendered.frames[i].masked_fill(where, 0.0)
        rendered.labels[i] = rendered.labels[i].masked_fill(where, label)
        rendered.places[i] = torch.where(where, here, rendered.places[i])
    return where

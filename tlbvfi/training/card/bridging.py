"""The denoiser, on the latents of the autoencoder as it is in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle

import torch
from torch import Tensor

from ...model import TLBVFI
from ...rows.tuning import Tuning, tuned
from .. import pipeline
from .losses import course
from .step import LEARNING
from .triplets import Triplets

#: Timesteps for each latent: encoding costs far more than the denoiser.
_REPEATS = 16
_RATE = 6e-4


@torch.no_grad()
def latents(model: TLBVFI, triplets: Triplets) -> tuple[Tensor, Tensor]:
    """The latents of clips with their middle frame, and with an empty one."""
    x0, xm, x1 = triplets.frames
    with tuned(Tuning()):
        deepest = pipeline.pyramid(model, torch.cat([x0, xm, x1]))[-1]
        first, middle, last = deepest.chunk(3)
        empty = pipeline.empty_deepest(model, first, x0.shape[-2], x0.shape[-1])
        return model.latent((first, middle, last), x0, x1), model.latent((first, empty, last), x0, x1)


def train_bridge(model: TLBVFI, batches: Iterator[Triplets], until: float) -> dict[str, float]:
    """Train the denoiser alone until a moment of the monotonic clock; its error at first and at last."""
    model.requires_grad_(False)
    parameters = pipeline.denoiser_parameters(model)
    for parameter in parameters:
        parameter.requires_grad_(True)
    kept = [latents(model, triplets) for triplets in batches]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule, device = model.schedule, model.device
    m_of, v_of = (
        torch.as_tensor(values, dtype=torch.float32, device=device) for values in (schedule.m, schedule.variance)
    )
    began, errors = time.monotonic(), list[Tensor]()
    for z, y in cycle(kept):
        if (now := time.monotonic()) >= until:
            break
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1.0 - (now - began) / max(until - began, 1e-3))
        z, y = z.repeat(_REPEATS, 1, 1, 1, 1), y.repeat(_REPEATS, 1, 1, 1, 1)
        t = torch.randint(schedule.num_timesteps, (len(z),), device=device)
        m, v = m_of[t].view(-1, 1, 1, 1, 1), v_of[t].view(-1, 1, 1, 1, 1)
        x = (1 - m) * z + m * y + v.sqrt() * torch.randn_like(z)
        with tuned(LEARNING):
            loss = (pipeline.denoise(model, x, y, t) - (x - z)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.detach())
    model.requires_grad_(False)
    return course(errors)

"""The denoiser of the bridge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import pipeline
from ..views import Batch, View
from .stage import Stage


class BridgeStage(Stage):
    """The denoiser on x_t = (1 - m_t) z + m_t y + sqrt(v_t) noise, predicting x_t - z (paper section 3.3)."""

    def parameters(self) -> list[nn.Parameter]:
        return pipeline.denoiser_parameters(self.model)

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
        with torch.no_grad():
            deepest = pipeline.pyramid(self.model, torch.cat([x0, xm, x1]))[-1]
            first, middle, last = deepest.chunk(3)
            empty = pipeline.empty_deepest(self.model, first, x0.shape[-2], x0.shape[-1])
            z = self.model.latent((first, middle, last), x0, x1)
            y = self.model.latent((first, empty, last), x0, x1)
        schedule = self.model.schedule
        # Several timesteps for each latent: encoding costs far more than the denoiser.
        repeats = 32
        z, y = z.repeat(repeats, 1, 1, 1, 1), y.repeat(repeats, 1, 1, 1, 1)
        t = torch.randint(schedule.num_timesteps, (z.shape[0],), generator=generator)
        m = torch.from_numpy(schedule.m)[t].view(-1, 1, 1, 1, 1)
        v = torch.from_numpy(schedule.variance)[t].view(-1, 1, 1, 1, 1)
        noise = torch.randn(z.shape, generator=generator)
        x = (1 - m) * z + m * y + v.sqrt() * noise
        with torch.autocast("cpu", enabled=False):
            error = pipeline.denoise(self.model, x, y, t) - (x - z)
        return error.square().mean(), {"mse": error.square().mean().item(), "spread": (z - y).square().mean().item()}

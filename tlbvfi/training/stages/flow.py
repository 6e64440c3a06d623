"""The coarse flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import pipeline
from ..losses import flow_error, photometric
from ..views import Batch, View, affordable, flow_task, motion_view
from .stage import Stage


class FlowStage(Stage):
    """The coarse flow."""

    def parameters(self) -> list[nn.Parameter]:
        return pipeline.coarse_parameters(self.model)

    def view(self, generator: torch.Generator) -> View:
        return motion_view(generator, 0.3, 0.75, self.crop)

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        task = flow_task(affordable(batch, view, generator), view)
        estimates = pipeline.coarse_estimates(self.model, task.frames)
        errors = [flow_error(flow, task) for flow in estimates]
        light = photometric(estimates[-1], task)
        total = 0.3 * errors[0] + 0.5 * errors[1] + torch.stack(errors[2:]).sum() + 4.0 * light
        return total, {"epe": errors[-1].item(), "photo": light.item()}

"""The flow refinement and the encoder levels it looks at."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import pipeline
from ..losses import flow_error, photometric
from ..views import Batch, FlowTask, View, affordable, flow_task, motion_view
from .stage import Stage

#: Weight of the error after each level of the refinement, coarsest first.
LEVEL_WEIGHTS = (0.7, 0.8, 0.9, 1.0)
#: How many levels of the refinement a step trains, coarsest first, how often, and on which part of a batch. The last
#: levels cost most by far, and what the first ones miss they cannot find.
DEPTHS = ((2, 0.4, 1), (3, 0.4, 1), (4, 0.2, 2))
#: Share of the pairs whose refinement starts at a disturbed flow, when the stage begins (at its end none does), and how
#: far that is off at most, in pixels of the coarse flow (standard deviation).
DISTURBED, DISTURBANCE = 0.6, 2.0


def disturbed(flow: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A coarse flow (B, 4, H, W) with some of it lost and something smooth added, for a share of the pairs.

    Where the coarse flow is right there is nothing to correct, and where it is wrong little to see. From a start that
    is wrong everywhere the refinement learns to search.
    """
    count = len(flow)
    kept, off, whole = torch.rand(3, count, 1, 1, 1, generator=generator)
    noise = torch.randn(count, flow.shape[1], 4, 4, generator=generator) * off * DISTURBANCE
    noise = F.interpolate(noise, (flow.shape[-2], flow.shape[-1]), mode="bicubic")
    return torch.where(whole < share, flow * kept + noise, flow)


class RefineStage(Stage):
    """The refinement and the encoder levels it looks at."""

    def parameters(self) -> list[nn.Parameter]:
        return pipeline.motion_parameters(self.model)

    def view(self, generator: torch.Generator) -> View:
        return motion_view(generator, 0.3, 0.85, self.crop)

    def flows(
        self, task: FlowTask, depth: int = len(LEVEL_WEIGHTS), generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """The refined flow estimates of a task, of the first `depth` levels; with a generator from a disturbed start.
        The coarse flow is what it is."""
        x0, _, x1 = task.images
        with torch.no_grad():
            coarse = pipeline.coarse_estimates(self.model, task.frames)[-1]
        if generator is not None:
            coarse = disturbed(coarse, DISTURBED * (1.0 - self.spent), generator)
        levels = pipeline.motion_pyramid(self.model, torch.cat([x0, x1]))
        pyramids = list(zip(*(level.chunk(2) for level in levels), strict=True))
        return pipeline.refined_estimates(self.model, pyramids, coarse, depth)

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = float(torch.rand((), generator=generator))
        ends = itertools.accumulate(share for _, share, _ in DEPTHS)
        depth, _, part = next((d for d, end in zip(DEPTHS, ends, strict=True) if draw < end), DEPTHS[-1])
        depth = min(depth, self.model.params.autoencoder.flow_levels)
        batch = affordable(batch, view, generator)
        task = flow_task({name: value[::part] for name, value in batch.items()}, view)
        refined = self.flows(task, depth, generator)
        total, figures = torch.zeros(()), {}
        for flow, share in zip(refined, LEVEL_WEIGHTS, strict=False):
            error = flow_error(flow, task)
            total = total + share * error
        figures[f"epe{depth}"] = error.item()
        if depth > 2:  # what is coarser blurs more than it misses
            light = photometric(refined[-1], task)
            total = total + 8.0 * light
            figures[f"photo{depth}"] = light.item()
        return total, figures

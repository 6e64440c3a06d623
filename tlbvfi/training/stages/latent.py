"""What is between the feature pyramid and the decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import pipeline
from ..views import Batch, View
from .autoencoder import DecoderStage


class LatentStage(DecoderStage):
    """What is between the pyramid and the decoder: each frame's latent has to draw that frame, at its size."""

    def parameters(self) -> list[nn.Parameter]:
        return [*pipeline.latent_parameters(self.model), *self.sketch.parameters()]

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images = (batch["x0"], batch["xm"], batch["x1"])
        _, commitment, drawn = self.coded(self.features(torch.cat(images)), images)
        return commitment + drawn, {"drawn": drawn.item(), "commitment": commitment.item()}

"""What every stage of the training is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ...model import TLBVFI
from ..views import Batch, View, drawn_scale


class Stage(ABC):
    """What a stage trains and how: parameters, how it looks at a batch, and its loss with figures for the log.

    Attributes:
        crop: side of the pictures.
        spent: share of the stage that is done.
    """

    crop = 256
    spent = 0.0

    def __init__(self, model: TLBVFI) -> None:
        self.model = model

    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """What the stage trains."""

    def view(self, generator: torch.Generator) -> View:
        """How a step looks at its batch."""
        return View(self.crop, False, drawn_scale(generator, 0.12))

    @abstractmethod
    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and figures for the log; what is drawn comes from the generator."""

"""What a run of a stage is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass
class Options:
    """A run of a stage.

    Attributes:
        stage: a name of :data:`.stages.STAGES`.
        data, clips: folders of shards: rendered, and of real video.
        run: folder of weights, state and logs.
        batch: triplets of a step.
        lr: the highest learning rate.
        minutes: of this run; not looked at where there are steps.
        steps: of all runs of the stage together.
        clip_share: share of the steps that see real video, where there is any.
        save_minutes: how often the state is saved.
    """

    stage: str
    data: Path
    run: Path
    batch: int
    lr: float
    minutes: float = math.inf
    steps: int | None = None
    seed: int = 0
    config: str = "tlbvfi-small"
    clips: Path | None = None
    clip_share: float = 0.5
    save_minutes: float = 5.0

    def reseed(self, generator: torch.Generator, step: int, purpose: str) -> torch.Generator:
        """Set a generator to what a step draws for one purpose: with the same draws for two, a view would decide what
        the loss does with it."""
        drawn = np.random.default_rng([self.seed, step, *purpose.encode()])
        return generator.manual_seed(int(drawn.integers(2**62)))

    def spent(self, step: int, seconds: float) -> float:
        """Share of the run that is over."""
        if self.steps is None:
            return seconds / 60 / self.minutes
        return step / self.steps if step < self.steps else 1.0

"""A stage at work on its model, kept in the folder of the run."""

from __future__ import annotations

import copy
import json
import logging
import math
import time

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..config import load_params
from ..conversion import FORMAT
from ..model import TLBVFI
from .initialise import initialise
from .optimizer import Average, Optimizer
from .options import Options
from .stages import STAGES
from .stages.autoencoder import AutoencoderStage, Perceptual
from .views import Batch, View

log = logging.getLogger(__name__)


def fresh_model(options: Options) -> TLBVFI:
    """The model of the run: its weights so far, or new ones that start as the average of the warped frames."""
    model = TLBVFI(load_params(options.config))
    weights = options.run / "weights.safetensors"
    if weights.is_file():
        model.load_state_dict(load_file(weights), strict=False)  # all but the norms' unused counters
    else:
        initialise(model, options.seed)
    # Batch norms stay affine (mean 0, variance 1): batches are small, and they are folded away for inference.
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class Run:
    """A stage with its model, optimizer and average, from the state that an earlier run of the folder has saved.

    Attributes:
        step: how many steps all runs of the stage have taken.
    """

    def __init__(self, options: Options, perceptual: Perceptual | None = None) -> None:
        options.run.mkdir(parents=True, exist_ok=True)
        self.options, self.step = options, 0
        self.model = fresh_model(options)
        self.stage = STAGES[options.stage](self.model)
        if isinstance(self.stage, AutoencoderStage):
            self.stage.perceptual = perceptual
        self.model.requires_grad_(False)
        self.parameters = self.stage.parameters()
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = Optimizer(self.parameters, options.lr)
        self.average = Average(self.parameters, 0.998)
        self._generator = torch.Generator()
        self._state_file = options.run / f"{options.stage}.state.pt"
        if self._state_file.is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self._state_file, weights_only=True)
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.average.values = state["average"]
        log.info("%s: continuing at step %d", self.options.stage, self.step)

    def save(self) -> None:
        """Write the state, to go on from, and the average of the weights."""
        state = {"step": self.step, "optimizer": self.optimizer.state_dict(), "average": self.average.values}
        partial = self._state_file.with_suffix(".partial")
        torch.save({**state, "parameters": [p.detach() for p in self.parameters]}, partial)
        partial.replace(self._state_file)
        averaged = copy.deepcopy(self.model)
        names = {id(p): name for name, p in self.model.named_parameters()}
        own = dict(averaged.named_parameters())
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average.values, strict=True):
                if id(parameter) in names:  # not the readout's
                    own[names[id(parameter)]].copy_(value)
        tensors = {k: v.contiguous() for k, v in averaged.state_dict().items() if not k.endswith("num_batches_tracked")}
        partial = self.options.run / "weights.partial"
        save_file(tensors, partial, {"format": FORMAT, "config": json.dumps(self.model.params.to_dict())})
        partial.replace(self.options.run / "weights.safetensors")

    def take_step(self, batch: Batch, view: View, spent: float) -> dict[str, float]:
        """A step on a batch, at the share of the learning rate that is due when `spent` of the run is over; returns
        the figures for the log. A step whose gradient is not finite changes nothing."""
        warm = min(1.0, (self.step + 1) / 200)
        share = warm * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * spent)))
        self.options.reseed(self._generator, self.step, "loss")
        self.stage.spent = spent
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = self.stage.loss(batch, view, self._generator)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if math.isfinite(float(norm)):
            self.optimizer.step(share)
            self.average.update(self.step)
        self.step += 1
        return {"loss": loss.item(), **figures}


class History:
    """The log of a stage: a line of JSON for every 50 steps, with the means of the figures since the last."""

    def __init__(self, options: Options) -> None:
        self._file = (options.run / f"{options.stage}.jsonl").open("a", encoding="utf-8")
        self._began = time.monotonic()
        self._sums: dict[str, list[float]] = {}

    def add(self, step: int, figures: dict[str, float], real: bool) -> None:
        """The figures of the step that was number `step`; those of real video go under names of their own."""
        for name, value in figures.items():
            self._sums.setdefault(f"real_{name}" if real else name, []).append(value)
        if step % 50:
            return
        line: dict[str, float] = {"step": step, "minutes": round((time.monotonic() - self._began) / 60, 2)}
        line.update({name: round(sum(values) / len(values), 5) for name, values in self._sums.items()})
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        log.info("%s", line)
        self._sums.clear()

    def close(self) -> None:
        self._file.close()

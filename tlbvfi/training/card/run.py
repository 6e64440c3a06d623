"""One run on a card: from weights to better ones, within a number of seconds."""

from __future__ import annotations

import copy
import gc
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...config import ModelParams, params_from_dict
from ...conversion import write_weights
from ...model import TLBVFI
from ..initialise import trustful
from ..optimizer import Average
from ..pipeline import PARTS
from .draws import Chance
from .judge import Judge
from .muon import Optimizer
from .narrowing import with_window
from .packed import encoded
from .parcel import Parcel
from .step import Learner, Weights
from .triplets import Replay, Source, Triplets
from .trusting import looks, train_trust

log = logging.getLogger(__name__)

WEIGHTS, RAW, STATE = "weights.safetensors", "raw.safetensors", "state.safetensors"
#: Flow scales of the steps, one after the other; None for one drawn at random. At "deep" ones the pair is half new.
_SCALES: tuple[float | None, ...] = (0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5, None)
_DEEP = (4, 7)
#: Triplets of a step of the coarse flow alone, at most.
_COARSE_BATCH = 96
#: How many steps one after the other may have a gradient that is not finite.
_LOST = 20
#: Shares of rendered scenes and of real video with an overlay.
_OVERLAYS = (0.35, 0.45)


@dataclass
class Options:
    """What a run is asked for.

    Attributes:
        until: when it has to be over, of the monotonic clock.
        batch: triplets of a step at a flow scale of 1; at 0.5 twice as many.
        real: share of a batch that is real video.
        rate: AdamW's highest learning rate; Muon's is four times that.
        judged: triplets of each set that models are measured on.
        coarse: seconds for the coarse flow alone, at first.
        bridge: seconds for the denoiser.
        trust: seconds for the network that says where the flow is not to be trusted, two fifths of them for what it
            looks at.
        save_seconds: how often all is saved.
        parts: of the model that learn, some of :data:`..pipeline.PARTS`.
        weights: of the errors.
    """

    out: Path
    until: float
    batch: int = 40
    real: float = 0.5
    rate: float = 1.5e-4
    size: int = 256
    seed: int = 0
    judged: int = 32
    coarse: float = 0.0
    bridge: float = 15.0
    trust: float = 0.0
    save_seconds: float = 50.0
    parts: tuple[str, ...] = PARTS
    weights: Weights = field(default_factory=Weights)


def read_model(weights: Path, device: torch.device, wanted: ModelParams | None = None) -> TLBVFI:
    """A model of ours from a file in our layout, ready to learn.

    Args:
        weights: the file.
        device: where to.
        wanted: what to make of them, of the same widths; windows may be smaller. None: what the file says.
    """
    with safe_open(weights, "pt") as file:
        params = params_from_dict(json.loads(file.metadata()["config"]), weights.name)
    state: Mapping[str, Tensor] = load_file(weights)
    if wanted is not None:
        params, state = wanted, with_window(state, params.autoencoder.window, wanted.autoencoder.window)
    model = TLBVFI(params)
    found = model.load_state_dict(state, strict=False)  # all but the norms' unused counters
    network = model.vqgan.decoder.trust
    if network is not None and any(".trust." in name for name in found.missing_keys):
        trustful(network)
    return learning(model.to(device))


def learning(model: TLBVFI) -> TLBVFI:
    """With weights as convolutions on a card like them, and batch norms that stay affine."""
    model.train().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class Run:
    """A model at work.

    Attributes:
        step: how many steps it has taken, those it was resumed from among them.
        model: as it is now; :meth:`averaged` is what counts.
    """

    def __init__(self, options: Options, model: TLBVFI, parcel: Parcel) -> None:
        self.options, self.model, self.step, self.batch = options, model, 0, options.batch
        self.device = model.device
        self.learner = Learner(model, parcel.lpips, options.weights, parts=options.parts)
        self.parameters = self.learner.parameters()
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = Optimizer(self.parameters, options.rate)
        self.average = Average(self.parameters, 0.998)
        self.source, kept = Source.of(parcel, options.size)
        self.judge = Judge.of(kept, parcel.lpips, options.judged)
        self.replay = Replay(24)
        self.report: dict[str, object] = {}
        # A card multiplies no more than 65535 windows at a time everywhere; the decoder has them at half the size.
        self._most = 65_535 // (options.size // 2 // model.params.autoencoder.window) ** 2
        torch.manual_seed(options.seed)

    def chance(self, purpose: int) -> Chance:
        """What the current step draws for one purpose."""
        seed = (self.options.seed * 1_000_003 + self.step) * 16 + purpose
        return Chance(torch.Generator().manual_seed(seed))

    def learn(self, until: float) -> None:
        """Take steps until a moment of the monotonic clock; the learning rate falls over that time."""
        began = saved = time.monotonic()
        longest, lost = 0.0, 0
        history = History(self.options.out / "log.jsonl", began)
        while (now := time.monotonic()) + longest < until:
            spent = (now - began) / (until - began)
            figures = self._step_or_none(spent)
            if figures is None:
                self._forget()
                continue
            history.add(self.step, spent, figures)
            lost = 0 if figures["finite"] else lost + 1
            if lost > _LOST:
                raise RuntimeError(f"The gradients of {lost} steps one after the other are not finite.")
            if self.step > 20:
                longest = max(longest, min(time.monotonic() - now, 5.0))
            if time.monotonic() - saved > self.options.save_seconds:
                self.save()
                saved = time.monotonic()
        history.write(self.step)

    def learn_coarse(self, until: float) -> None:
        """Train the coarse flow alone until a moment of the monotonic clock. Steps of it are cheaper than the triplets
        that they are taken on, so each batch serves three of them, turned, at one flow scale after the other."""
        began, longest, number = time.monotonic(), 0.0, 0
        parameters = self.learner.coarse_parameters()
        optimizer = Optimizer(parameters, self.options.rate)
        history = History(self.options.out / "coarse.jsonl", began)
        while (now := time.monotonic()) + longest < until:
            triplets = self.triplets(min(2 * self.batch, _COARSE_BATCH))
            for scale in (0.5, 1.0, float(self.chance(3).uniform(0.3, 0.8))):
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss, figures = self.learner.coarse_loss(triplets, scale)
                for parameter in parameters:
                    parameter.grad = None
                loss.backward()
                norm = float(nn.utils.clip_grad_norm_(parameters, 1.0))
                spent = (time.monotonic() - began) / (until - began)
                if math.isfinite(norm):
                    optimizer.step(_share(number, spent))
                number += 1
                told = {f"{name} @{scale:g}": value for name, value in figures.items() if scale in (0.5, 1.0)}
                history.add(number, spent, {"loss": loss.detach(), "norm": torch.tensor(norm), **figures, **told})
                triplets = triplets.turned(self.chance(4))
            self.step += 1
            if number > 20:
                longest = max(longest, min(time.monotonic() - now, 5.0))
        history.write(number)
        self._forget()
        for value, parameter in zip(self.average.values, self.parameters, strict=True):
            value.copy_(parameter.detach())

    def _step_or_none(self, spent: float) -> dict[str, Tensor] | None:
        """A step, or none where memory does not do for it: then batches are half as large from now on."""
        try:
            return self.take_step(spent)
        except torch.cuda.OutOfMemoryError:
            if self.batch <= 4:
                raise
            self.batch //= 2
            log.warning("out of memory: a batch is %d from now on", self.batch)
        return None

    def _forget(self) -> None:
        """Give back what a step has left."""
        for parameter in self.parameters:
            parameter.grad = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def take_step(self, spent: float) -> dict[str, Tensor]:
        """A step when `spent` of the time is over; figures for the log, still on the device. A step whose gradient is
        not finite changes nothing."""
        place = self.step % len(_SCALES)
        drawn = _SCALES[place]
        scale = float(self.chance(0).uniform(0.3, 0.8)) if drawn is None else drawn
        self.learner.spent = spent
        batch = max(4, min(round(self.batch * min(2.0, 1.0 / scale)), self._most))
        with torch.autocast(self.device.type, torch.bfloat16):
            triplets = self.triplets(batch, place in _DEEP)
            if triplets.quarter is not None:
                triplets = self._halved(triplets, scale)
            loss, figures = self.learner.loss(triplets, scale, self.chance(1))
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        # Each part by itself: what goes back through all turns of the coarse flow is large now and then.
        norms = {part: nn.utils.clip_grad_norm_(own, 1.0) for part, own in self.learner.parameters_of_parts().items()}
        norm = float(torch.stack(list(norms.values())).norm())
        if math.isfinite(norm):
            self.optimizer.step(_share(self.step, spent))
            decay = min(self.average.decay, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.average.values, [p.detach() for p in self.parameters], 1.0 - decay)
        self.step += 1
        name = f"@{drawn}" + (" 1/4" if place in _DEEP else "") if drawn is not None else "@any"
        told = {f"{key} {name}": value for key, value in figures.items() if key in ("psnr", "perceptual", "flow")}
        finite = torch.tensor(float(math.isfinite(norm)))
        return {"loss": loss.detach(), "norm": torch.tensor(norm), "finite": finite, **figures, **told}

    def triplets(self, batch: int, quarter: bool = False) -> Triplets:
        """A batch: real video and rendered scenes, in every other step new ones."""
        with torch.autocast(self.device.type, enabled=False):
            chance = self.chance(2)
            real = self.source.real(round(batch * self.options.real), chance, _OVERLAYS[1], quarter)
            rest = batch - (0 if real is None else len(real))
            scenes = self._seen_before(rest, chance) if not quarter and self.step % 2 else []
            if not scenes:
                scenes = [self.source.rendered(rest, chance, _OVERLAYS[0], quarter)]
                if not quarter:
                    self.replay.add(scenes[0])
            parts = [part.turned(chance) for part in ([] if real is None else [real]) + scenes]
            # The first are those whose middle frame is encoded: they are to be of all kinds.
            joined = Triplets.joined(parts)
            return joined.chosen(torch.tensor(chance.order(len(joined))).to(self.device))

    def _seen_before(self, count: int, chance: Chance) -> list[Triplets]:
        """So many of two batches of rendered scenes that were seen before; none while there are few."""
        found = []
        for _ in range(4):
            part = self.replay.drawn(count, chance) if count else None
            if part is None:
                break
            part = part.chosen(slice(0, max(1, min(count, len(part) // 2 + 1))))
            found.append(part)
            count -= len(part)
        return found if count == 0 else []

    def _halved(self, triplets: Triplets, scale: float) -> Triplets:
        """From the first frame to the middle one that the model makes, as bisection does; between them is the frame at
        1/4. No flows are known there."""
        assert triplets.quarter is not None
        made = self.learner.middle(triplets, scale).clamp(0.0, 1.0)
        frames = torch.stack([triplets.frames[0], triplets.quarter, made])
        unknown, unseen = torch.full_like(triplets.flow, float("nan")), torch.zeros_like(triplets.seen)
        return Triplets(frames, unknown, unseen, triplets.overlay)

    def averaged(self) -> TLBVFI:
        """A copy of the model with the average of its weights."""
        model = copy.deepcopy(self.model).requires_grad_(False)
        names = {id(p): name for name, p in self.model.named_parameters()}
        own = dict(model.named_parameters())
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average.values, strict=True):
                if id(parameter) in names:  # not those beside the model
                    own[names[id(parameter)]].copy_(value)
        return model

    def save(self, model: TLBVFI | None = None) -> None:
        """Write the averaged weights, and what a run goes on from."""
        out = self.options.out
        averaged = self.averaged() if model is None else model
        write_model(out / WEIGHTS, averaged, {"steps": str(self.step)})
        write_model(out / RAW, self.model, {"steps": str(self.step)})
        state = {name: value.to(torch.bfloat16) for name, value in self.optimizer.state().items()}
        own = {id(p) for p in self.model.parameters()}
        beside = [p for p in self.parameters if id(p) not in own]
        state |= {f"beside.{i}": p.detach() for i, p in enumerate(beside)}
        partial = out / f"{STATE}.partial"
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, partial, {"step": str(self.step)})
        partial.replace(out / STATE)

    def resume(self, folder: Path) -> None:
        """Go on from what another run has saved."""
        raw, averaged, state = load_file(folder / RAW), load_file(folder / WEIGHTS), load_file(folder / STATE)
        with safe_open(folder / STATE, "pt") as file:
            self.step = int(file.metadata()["step"])
        names = {id(p): name for name, p in self.model.named_parameters()}
        beside = iter(sorted(name for name in state if name.startswith("beside.")))
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.average.values, strict=True):
                name = names.get(id(parameter))
                if name is None:
                    parameter.copy_(state[next(beside)])
                    value.copy_(parameter)
                else:
                    parameter.copy_(raw[name])
                    value.copy_(averaged[name])
        self.optimizer.load_state({name: value.to(self.device) for name, value in state.items()})
        log.info("continuing at step %d", self.step)

    def measure(self, name: str, model: TLBVFI) -> None:
        """Measure a model, and write the report so far."""
        self.report[name] = self.judge.measured(name, model)
        self.write_report()

    def write_report(self) -> None:
        text = json.dumps({"steps": self.step, "batch": self.batch, **self.report}, indent=1)
        (self.options.out / "report.json").write_text(text, encoding="utf-8")

    def write_sheet(self) -> None:
        sheet = (self.judge.sheet().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
        (self.options.out / "sheet.webp").write_bytes(encoded(sheet.cpu().contiguous().numpy(), ".webp", 88))

    def learn_trust(self, model: TLBVFI, until: float) -> dict[str, float]:
        """Train the network that says where the flow of a model is not to be trusted, until a moment of the monotonic
        clock; what came of it."""

        def chances() -> Iterator[Chance]:
            while True:
                yield self.chance(5)
                self.step += 1

        drawn, began = chances(), time.monotonic()
        kept = looks(model, self.source, max(self.batch // 4, 2), drawn, began + 0.4 * (until - began))
        found = train_trust(model, kept, self.judge.lpips, drawn, until)
        return {"looks": len(kept.overlay), **found}

    def bridge_batches(self, count: int = 6) -> Iterator[Triplets]:
        """Batches for the denoiser."""
        for _ in range(count):
            yield self.triplets(self.batch)
            self.step += 1


def write_model(path: Path, model: TLBVFI, facts: dict[str, str]) -> None:
    """Write a model in our layout in half precision; whole, or not at all."""
    partial = path.with_suffix(".partial")
    state = {name: value.to("cpu", torch.float16) for name, value in model.state_dict().items()}
    write_weights(partial, state, model.params, facts)
    partial.replace(path)


def _share(step: int, spent: float) -> float:
    """Of the highest learning rate: it rises over 40 steps, then falls until the time is over."""
    return min(1.0, (step + 1) / 40) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(spent, 1.0))))


class History:
    """The log of a run: a line of JSON every few seconds, with the means of the figures since the last."""

    def __init__(self, path: Path, began: float, every: float = 5.0) -> None:
        self._path, self._began, self._every = path, began, every
        self._last, self._sums = began, dict[str, list[Tensor]]()
        self._steps = 0

    def add(self, step: int, spent: float, figures: dict[str, Tensor]) -> None:
        for name, value in figures.items():
            self._sums.setdefault(name, []).append(value)
        self._steps += 1
        if time.monotonic() - self._last > self._every or step <= 3:
            self.write(step, spent)

    def write(self, step: int, spent: float = 1.0) -> None:
        if not self._sums:
            return
        now = time.monotonic()
        line: dict[str, float] = {"step": step, "seconds": round(now - self._began, 1), "spent": round(spent, 4)}
        line["seconds a step"] = round((now - self._last) / max(self._steps, 1), 4)
        if torch.cuda.is_available():
            line["GiB"] = round(torch.cuda.max_memory_reserved() / 2**30, 1)
        for name, values in self._sums.items():
            line[name] = round(float(torch.stack([v.float().cpu() for v in values]).mean()), 5)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = (
            "loss",
            "norm",
            "finite",
            "psnr @0.5",
            "psnr @1.0",
            "perceptual @0.5",
            "flow @0.5",
            "seconds a step",
            "GiB",
        )
        log.info("step %d, %.0f s: %s", step, now - self._began, {n: line[n] for n in shown if n in line})
        self._sums.clear()
        self._last, self._steps = time.monotonic(), 0

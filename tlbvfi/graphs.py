"""Model calls that are captured once and replayed: a card needs microseconds for an operation that the host gives it in
five to fifteen.

A call is captured when it has come up a few times, and replayed from then on. It reads and writes memory of its own
(:mod:`.slots`), into which its arguments are copied, and reads the model's weights where they were: the addresses of
all of them are compared before every call. What there is while a graph runs is in one memory for all graphs of a run.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .calls import Calls, Listener
from .compilation import is_compiled
from .device_memory import is_out_of_memory
from .features import FrameFeatures
from .model import TLBVFI
from .padding import Padding
from .planning import Plan
from .precision import convolutions_in_tf32, products_in_tf32
from .recording import Recorder, Recording, recorder_for
from .rows.cuts import WHOLE
from .rows.owned import Owned
from .rows.tuning import Tuning
from .settings import Settings
from .slots import Ends, Handle, Held, Slot, write

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Calls of a kind that go without, before one is captured: that takes as long as two or three of them, and many a run
#: has no more.
UNCAPTURED_CALLS = 3
#: Sizes of batches whose graphs are kept: that of a run, and one for what does not fill a batch.
MOST_BATCH_SIZES = 2

#: Models that cannot be captured.
_refused: weakref.WeakSet[TLBVFI] = weakref.WeakSet()


def graph_calls(model: TLBVFI, settings: Settings, padding: Padding, plan: Plan | None) -> GraphCalls | None:
    """Calls of a model that are replayed where that pays; None where they cannot be, or are not wanted."""
    if plan is not None and (not plan.graphs or plan.strips != WHOLE):
        return None
    if model in _refused or is_compiled(model):
        return None
    recorder = recorder_for(model.device)
    return None if recorder is None else GraphCalls(model, settings, padding, recorder)


@dataclass
class _Template:
    """What a batch looks like, on the ``meta`` device: its frames as the model takes them, and their features."""

    frames: Tensor
    features: FrameFeatures


class _Stage:
    """The captured calls of one size of batches, with what they read and write: the features of two frames, and a
    picture.

    Attributes:
        graphs: by their kinds.
    """

    def __init__(self, template: _Template, device: torch.device) -> None:
        self._template, self._device = template, device
        self.graphs: dict[str, Recording] = {}
        self._noise: Tensor | None = None

    @cached_property
    def left(self) -> Slot:
        return Slot(self._template.features, self._device)

    @cached_property
    def right(self) -> Slot:
        """Where frames are encoded to."""
        return Slot(self._template.features, self._device)

    @cached_property
    def picture(self) -> Tensor:
        """What is encoded, and where a new frame is computed to: used within one call."""
        with torch.inference_mode(False):
            return torch.empty_like(self._template.frames, device=self._device)

    def noise_like(self, noise: Tensor) -> Tensor:
        """Where the draws of a new frame are read."""
        if self._noise is None:
            with torch.inference_mode(False):
                self._noise = torch.empty_like(noise)
        return self._noise

    @staticmethod
    def seated(handle: Handle, slot: Slot) -> Held:
        """The features, taken from their handle, in a slot."""
        if isinstance(handle, Held):
            held = handle.passed_on()
            if not held.is_in(slot):
                held.move(slot)
            return held
        slot.fill(handle.take() if isinstance(handle, Owned) else handle)
        return Held(slot)

    def seats(self, left: Ends, right: Ends) -> bool:
        """Whether two ends are in the slots."""
        return isinstance(left, Held) and left.is_in(self.left) and isinstance(right, Held) and right.is_in(self.right)


class GraphCalls(Calls):
    """Calls of a model for whole frames of one size, captured when they have come up a few times.

    Belongs to one run. Where capturing or replaying fails for any reason but lack of memory, the model goes without
    from then on, and the log says so once.
    """

    def __init__(self, model: TLBVFI, settings: Settings, padding: Padding, recorder: Recorder) -> None:
        super().__init__(model, settings, padding, WHOLE)
        self._recorder = recorder
        self._stages: OrderedDict[tuple[Any, ...], _Stage] = OrderedDict()
        self._empty: Tensor | None = None
        self._templates: dict[int, _Template] = {}
        self._counts: Counter[tuple[Any, ...]] = Counter()
        self._weights: tuple[int, ...] = ()
        self._seated: _Stage | None = None

    @property
    def holding(self) -> bool:
        """Whether there are graphs, or memory for them."""
        return bool(self._stages)

    def release(self) -> None:
        """Forget all graphs. Their memory is PyTorch's again, which gives it back when its cache is emptied."""
        self._stages.clear()
        self._seated = None

    def encode(self, frame: Tensor, empty: Tensor | None) -> Owned[FrameFeatures] | Held:
        if empty is not self._empty:
            self.release()
            self._templates.clear()
            self._empty = empty
        stage = self._stage("encode", len(frame))
        if stage is not None:
            held = self._tried(lambda: self._encoded(stage, frame))
            if held is not None:
                return held
        features = super().encode(frame, empty)
        if empty is not None and len(frame) not in self._templates:
            self._templates[len(frame)] = _Template(_meta(frame), features.borrow().each(_meta))
        return features

    def seated(
        self, left: Handle, right: Handle, pairs: int
    ) -> tuple[Owned[FrameFeatures] | Held, Owned[FrameFeatures] | Held]:
        stage = self._seated = self._stage("midpoint", pairs)
        if stage is None:
            return super().seated(left, right, pairs)
        return stage.seated(left, stage.left), stage.seated(right, stage.right)

    def midpoint(self, left: Ends, right: Ends, noise: Tensor | None, listener: Listener | None) -> Tensor:
        stage, self._seated = self._seated, None
        if stage is not None and stage.seats(left, right):
            frame = self._tried(lambda: self._computed(stage, noise))
            if frame is not None:
                if listener is not None:
                    listener(1.0 - 1.0 / (self.settings.step_count + 3))  # as the last time within a call
                return frame
        return super().midpoint(left, right, noise, listener)

    def _stage(self, kind: str, batch: int) -> _Stage | None:
        """Where a call of a kind is replayed, or captured now; None where it goes without."""
        if self.model in _refused:
            return None
        weights = _addresses(self.model)
        if weights != self._weights:
            self.release()
            self._weights = weights
        key = (batch, Tuning.of(self.model.device), products_in_tf32(), convolutions_in_tf32())
        self._counts[kind, key] += 1
        stage = self._stages.get(key)
        if stage is None or kind not in stage.graphs:
            template = self._templates.get(batch)
            if template is None or self._counts[kind, key] <= UNCAPTURED_CALLS:
                return None
            stage = stage or _Stage(template, self.model.device)
        self._stages[key] = stage
        self._stages.move_to_end(key)
        while len(self._stages) > MOST_BATCH_SIZES:
            self._stages.popitem(last=False)
        return stage

    def _encoded(self, stage: _Stage, frame: Tensor) -> Held:
        stage.right.clear(refuge=stage.left if stage.right.occupant is not None else None)
        target, picture, empty = stage.right.features, stage.picture, self._empty

        def encode() -> None:
            write(target, self.model.encode_frame(picture, self.settings.flow_scale, WHOLE, empty))

        picture.copy_(frame)
        self._done(stage, "encode", encode)
        return Held(stage.right)

    def _computed(self, stage: _Stage, noise: Tensor | None) -> Tensor:
        ends, picture, steps = (stage.left.features, stage.right.features), stage.picture, self.settings.sample_steps
        if noise is not None:
            noise = stage.noise_like(noise).copy_(noise)

        def compute() -> None:
            draws = [] if noise is None else list(noise)
            picture.copy_(self.model.midpoint(*ends, steps, draws, strips=WHOLE))

        self._done(stage, "midpoint", compute)
        return self.finished(picture)

    def _done(self, stage: _Stage, kind: str, work: Callable[[], None]) -> None:
        """Do some work by its graph, or with capturing it."""
        if kind in stage.graphs:
            stage.graphs[kind].replay()
        else:
            stage.graphs[kind] = self._recorder.record(work)

    def _tried(self, call: Callable[[], T]) -> T | None:
        """What a call gives; None where captured calls do not work here."""
        try:
            return call()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        # Outside of the handler, so that the failed call's tensors are gone with its traceback.
        self.release()
        _refused.add(self.model)
        log.warning("CUDA graphs do not work on %s, going on without them: %s", self.model.device, reason)
        return None


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def _addresses(model: nn.Module) -> tuple[int, ...]:
    """Where all weights of a model are, and how often each was changed in place: what is captured reads them there, and
    has them as they were."""
    found: list[int] = []
    modules: list[nn.Module | None] = [model]
    while modules:
        module = modules.pop()
        if module is None:
            continue
        modules.extend(module._modules.values())
        # `Module.parameters` looks for names and repetitions too, which takes four times as long.
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                found += tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
    return tuple(found)

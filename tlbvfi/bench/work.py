"""What a graphics card is given to do for a new frame, counted without one, exactly and the same on any machine.

A card waits for the host where there are many small operations, and for its memory where these read and write much;
both are counted on PyTorch's ``meta`` device, by stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..config import ModelParams
from ..counting import FusedAttention
from ..features import FrameFeatures
from ..model import TLBVFI, convert_precision
from ..rows.owned import Owned
from ..rows.tuning import Tuning, tuned
from .cases import Case, fixed_plan
from .stages import CALL, replaced

#: What belongs to no other stage: the codes, the decoder and the new frame.
REST = "decoder"
#: The stages in the order of a run.
STAGES = ("encode_frame", "latent", "bridge", "coarse flow", "refinement", REST)


@dataclass(frozen=True)
class Work:
    """Of a stage or of all, per new frame.

    Attributes:
        operations: of PyTorch, or of our own, that start kernels. Each counts once, though a card may take several
            kernels for it (split convolutions, layout changes, sums in two passes).
        bytes: of all their inputs and results, once each for every operation, as if no cache held anything.
    """

    operations: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, factor: float) -> Work:
        return Work(self.operations * factor, self.bytes * factor)


def total(stages: dict[str, Work]) -> Work:
    """The work of all stages."""
    return sum(stages.values(), Work(0, 0))


class WorkCounter(TorchDispatchMode):
    """Counts operations and bytes while it is active.

    Attributes:
        stage: to which the work belongs that is done now.
        operations, bytes: by (stage, name of the operation).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = REST
        self.operations: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _starts_kernels(func):
            self.count(func.overloadpacket.__name__, (args, kwargs, result))
        return result

    def count(self, name: str, values: Any) -> None:
        """Count an operation of that name, which reads or writes all tensors among `values`."""
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.is_meta]
        places = {(t.untyped_storage()._cdata, t.storage_offset(), t.shape): t.nbytes for t in tensors}
        self.operations[self.stage, name] += 1
        self.bytes[self.stage, name] += sum(places.values())

    def by_stage(self) -> dict[str, Work]:
        """What was counted of each stage."""
        counts = {name: [0, 0] for name in STAGES}
        for (stage, name), count in self.operations.items():
            counts[stage][0] += count
            counts[stage][1] += self.bytes[stage, name]
        return {name: Work(*of) for name, of in counts.items()}

    def watched(self, stage: str, call: Callable[..., object]) -> Callable[..., object]:
        """The same call, whose work is a stage's."""

        def counted(*args: Any, **options: Any) -> object:
            outer, self.stage = self.stage, stage
            try:
                return call(*args, **options)
            finally:
                self.stage = outer

        return counted


class _CountedAttention(FusedAttention):
    """Counts attention as the one kernel that it is on a card."""

    def __init__(self, counter: WorkCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if func is F.scaled_dot_product_attention:
            self._counter.count(func.__name__, (args, kwargs, result))
        return result


#: What only asks for memory, or looks at what is there. Views are told by their schema.
_NO_KERNELS = {
    *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"),
    *("_unsafe_view", "is_pinned", "_local_scalar_dense"),
}


@cache
def _starts_kernels(operation: Any) -> bool:
    """Whether an operation does more than to look at its inputs in another way or to ask for memory."""
    if operation.overloadpacket.__name__ in _NO_KERNELS:
        return False
    aliases = [result.alias_info for result in operation._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def work_per_frame(
    params: ModelParams, case: Case, dtype: torch.dtype = torch.float16, *, kernels: bool = True
) -> dict[str, Work]:
    """The work of each stage per new frame of a video in its steady state, where a model call takes what a graphics
    card takes.

    Args:
        params: the model's parameters.
        case: sizes and settings.
        dtype: the model's.
        kernels: whether kernels of our own are called (:mod:`..kernels`); otherwise PyTorch's alone.
    """
    with torch.no_grad(), nullcontext() if kernels else tuned(Tuning()):
        run = _Run(params, case, dtype)
        run.midpoint(run.encoded(), run.encoded())  # what is kept for a size is there from now on
        left, counter = run.encoded(), WorkCounter()
        with _watched(run.model, counter), _CountedAttention(counter), counter:
            run.midpoint(left, run.encoded())
    done = counter.by_stage()
    # One source frame, and of the new ones those that are ends again.
    done["encode_frame"] *= 2 ** (case.times - 1) / (2**case.times - 1)
    return {name: work * (1 / case.batch_size) for name, work in done.items()}


class _Run:
    """A model without values, and its calls."""

    def __init__(self, params: ModelParams, case: Case, dtype: torch.dtype) -> None:
        self.case = case
        with torch.device("meta"):
            self.model = convert_precision(TLBVFI(params).finalize(), dtype)
            plan = fixed_plan(self.model, (case.height, case.width), case.strip_rows, case.batch_size)
            self.strips, size = plan.strips, plan.padded_size
            self.frames = torch.empty(case.batch_size, 3, *size)
            latent = (case.batch_size, *self.model.latent_shape(*size))
            self.noise = [torch.empty(latent) for _ in range(case.sample_steps - 1)]
            self.empty = self.model.encode_empty(*size, self.strips)

    def encoded(self) -> FrameFeatures:
        return self.model.encode_frame(self.frames, self.case.flow_scale, self.strips, self.empty)

    def midpoint(self, left: FrameFeatures, right: FrameFeatures) -> None:
        self.model.midpoint(Owned(left), right, self.case.sample_steps, self.noise, strips=self.strips)


@contextmanager
def _watched(model: TLBVFI, counter: WorkCounter) -> Iterator[None]:
    """The model's calls are told apart while the block runs."""
    decoder = model.vqgan.decoder
    watched: list[tuple[str, nn.Module, str, Callable[..., object]]] = [
        ("encode_frame", model, "encode_frame", model.encode_frame),
        ("latent", model, "latent", model.latent),
        ("bridge", model, "denoise", model.denoise),
        ("coarse flow", decoder.flownet, CALL, decoder.flownet._call_impl),
        ("refinement", decoder.refinenet, CALL, decoder.refinenet._call_impl),
    ]
    with replaced([(module, method, counter.watched(stage, call)) for stage, module, method, call in watched]):
        yield

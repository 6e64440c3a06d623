"""Where the time goes: the stages of the model, timed without touching its code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..model import TLBVFI
from .clock import finish

#: How a module that :func:`torch.compile` compiled, or anything else, is called instead of as usual.
CALL = "_compiled_call_impl"


@contextmanager
def replaced(changes: Sequence[tuple[nn.Module, str, object]]) -> Iterator[None]:
    """Attributes of modules are others while the block runs."""
    before = [(owner, name, name in vars(owner), vars(owner).get(name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, was_there, value in before:
            if was_there:
                setattr(owner, name, value)
            else:
                vars(owner).pop(name, None)


@contextmanager
def uncompiled(model: TLBVFI) -> Iterator[None]:
    """Nothing is compiled while the block runs: counters see single operations only."""
    with replaced([(m, CALL, None) for m in model.modules() if getattr(m, CALL, None) is not None]):
        yield


def _stages(model: TLBVFI) -> list[tuple[str, nn.Module, str]]:
    """Stage, and the module and its method that is the stage (without what it calls of the others).

    A level's time includes reading its input where that is not stored: the first conv, warped features.
    """
    encoder, decoder = model.vqgan.encoder, model.vqgan.decoder
    stages: list[tuple[str, nn.Module, str]] = [("encoder level 0", encoder, "pyramid")]
    stages += [(f"encoder level {i}", level, CALL) for i, level in enumerate(encoder.down)]
    stages += [("wavelets", encoder.frequency_extractor, CALL), ("encoder middle", encoder, "clip")]
    stages += [("bridge", model.denoise_fn, CALL), ("coarse flow", decoder.flownet, CALL)]
    refinement = decoder.refinenet
    stages += [(f"refinement level {i}", refinement.block(i), CALL) for i in reversed(refinement.levels)]
    stages += [("decoder middle", decoder.mid, CALL)]
    stages += [(f"decoder level {i}", level, CALL) for i, level in enumerate(decoder.up)]
    return [*stages, ("decoder enlarging", decoder, CALL), ("head and warps", decoder, "_synthesised")]


@contextmanager
def stage_times(model: TLBVFI) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs, complete when it ends; "rest" is what no stage took."""
    stages, device = _stages(model), model.device
    spent = {name: 0.0 for name, _, _ in stages}
    inner = [0.0]  # seconds of the stages called by each one that runs, outermost first

    def watched(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: Any, **options: Any) -> object:
            finish(device)
            begin = time.perf_counter()
            inner.append(0.0)
            try:
                return call(*args, **options)
            finally:
                finish(device)
                duration = time.perf_counter() - begin
                spent[name] += duration - inner.pop()
                inner[-1] += duration

        return timed

    def call_of(module: nn.Module, method: str) -> Callable[..., object]:
        return getattr(module, method, None) or module._call_impl

    changes = [(module, method, watched(name, call_of(module, method))) for name, module, method in stages]
    with replaced(changes):
        begin = time.perf_counter()
        yield spent
        spent["rest"] = max(0.0, time.perf_counter() - begin - inner[0])

"""Kernels are noted without a card, and compiled by whoever wants them."""

from __future__ import annotations

import torch

from tests.interpreted import KERNELS
from tests.tiny import TINY
from tlbvfi.footprint import meta_model
from tlbvfi.kernel_compilation import compile_kernels, noted
from tlbvfi.kernels.device import Started, ahead
from tlbvfi.model import TLBVFI
from tlbvfi.settings import Settings


def test_what_a_step_starts_is_noted_and_nothing_else_runs() -> None:
    model = meta_model(TINY, torch.float16)
    kernels = noted(model, (128, 128), 1, Settings(), KERNELS)
    assert len(kernels) > 50 and all(map(callable, kernels))
    assert ahead.wanted() is None


def test_a_kernel_is_started_but_where_it_is_noted() -> None:
    calls: list[tuple[object, ...]] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda *arguments, **options: calls.append(("started", grid, arguments, options))

        def warmup(self, *arguments: object, grid: tuple[int, ...], **options: object) -> None:
            calls.append(("compiled", grid, arguments, options))

    kernel = Started(Kernel())
    kernel[2,](1, BLOCK=4)
    with ahead.noting() as kernels:
        kernel[3,](5, BLOCK=8)
    assert calls == [("started", (2,), (1,), {"BLOCK": 4})]
    for one in kernels:
        one()
    assert calls[1:] == [("compiled", (3,), (5,), {"BLOCK": 8})]


def test_nothing_is_compiled_without_a_card() -> None:
    compile_kernels(TLBVFI(TINY), (128, 128), 1, Settings())
    assert ahead.wanted() is None

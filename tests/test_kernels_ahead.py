"""Kernels are noted without a card, and compiled by whoever wants them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from threading import Barrier, current_thread, main_thread
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from tests.interpreted import KERNELS
from tests.tiny import TINY
from tlbvfi import kernel_compilation
from tlbvfi.footprint import meta_model
from tlbvfi.kernel_compilation import compile_kernels, noted
from tlbvfi.kernels.device import Started, ahead, started
from tlbvfi.model import TLBVFI
from tlbvfi.settings import Settings


def test_what_a_step_starts_is_noted_and_nothing_else_runs() -> None:
    model = meta_model(TINY, torch.float16)
    kernels = noted(model, (128, 128), 1, Settings(), KERNELS)
    assert len(kernels) > 50 and 20 < len({kernel.key for kernel in kernels}) < len(kernels)
    assert ahead.wanted() is None


def test_a_kernel_is_started_but_where_it_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(started, "_prepare_start", lambda made: calls.append(("prepared", made)))
    calls: list[tuple[object, ...]] = []

    class Noting:
        arg_names = ("n", "BLOCK")

        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda *arguments, **options: calls.append(("started", grid, arguments, options))

        def warmup(self, *arguments: object, grid: tuple[int, ...], **options: object) -> str:
            calls.append(("compiled", grid, arguments, options))
            return "binary"

    kernel = Started(Noting())
    kernel[2,](1, BLOCK=4)
    with ahead.noting() as kernels:
        kernel[3,](5, BLOCK=8)
    assert calls == [("started", (2,), (1,), {"BLOCK": 4})]
    assert [one.compile() for one in kernels] == ["binary"]
    assert calls[1:] == [("compiled", (3,), (5,), {"BLOCK": 8}), ("prepared", "binary")]


def test_kernels_are_compiled_together_and_loaded_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What Triton starts a kernel with is mixed up by threads that load several. One that fails costs no other."""
    together, loaded = Barrier(3, timeout=60.0), list[object]()

    def compiled(number: int) -> Callable[[], int]:
        def run() -> int:
            together.wait()
            if number == 4:
                raise ValueError("this one is not to be")
            return number

        return run

    def load(number: object) -> None:
        assert current_thread() is main_thread() and ahead.loading._is_owned()  # type: ignore[attr-defined]
        loaded.append(number)

    monkeypatch.setattr(ahead, "find_spec", lambda _: True)
    monkeypatch.setattr(ahead.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    with caplog.at_level(logging.DEBUG):
        ahead.compile_noted([ahead.Wanted(n % 3, compiled(n), load) for n in range(6)], torch.device("cuda"))
    assert loaded == [3, 5]  # each key once
    assert "this one is not to be" in caplog.text


def test_a_kernel_that_is_started_first_is_loaded_alone() -> None:
    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[[], None]:
            return lambda: owned.append(ahead.loading._is_owned())  # type: ignore[attr-defined]

    owned: list[bool] = []
    Started(Kernel())[1,]()
    assert owned == [True]


class Parameter(NamedTuple):
    num: int
    do_not_specialize: bool


class Compiled:
    """What a kernel was compiled to, and how it was started since."""

    def __init__(self) -> None:
        self.started: list[tuple[object, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments: self.started.append((grid, *arguments))


class Kernel:
    """A kernel of a tensor, two integers and a constant; every start by Triton is as if nothing was compiled."""

    arg_names = ("x", "size", "free", "BLOCK")
    params = (Parameter(0, False), Parameter(1, False), Parameter(2, True), Parameter(3, False))

    def __init__(self) -> None:
        self.compiled: list[Compiled] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Compiled]:
        def start(*arguments: object, **options: object) -> Compiled:
            self.compiled.append(Compiled())
            return self.compiled[-1]

        return start


@pytest.fixture
def addressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(started, "by_address", lambda: True)


@pytest.mark.usefixtures("addressed")
def test_what_was_compiled_is_started_with_addresses() -> None:
    kernel, x, y = Kernel(), torch.zeros(64), torch.zeros(64)
    start = Started(kernel)
    start[2, 3](x, 7, 5, BLOCK=4, num_warps=8)
    start[6,](y, 9, 11, BLOCK=4, num_warps=8)
    (compiled,) = kernel.compiled
    assert compiled.started == [((6, 1, 1), y.data_ptr(), 9, 11, 4)]


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((torch.zeros(64, dtype=torch.float16), 7, 5), {}),
        ((torch.zeros(64)[1:], 7, 5), {}),  # its address is no multiple of 16
        ((torch.zeros(64), 1, 5), {}),
        ((torch.zeros(64), 16, 5), {}),
        ((torch.zeros(64), 2**31, 5), {}),
        ((torch.zeros(64), -(2**31) - 1, 5), {}),
        ((torch.zeros(64), 7, 2**31), {}),
        ((torch.zeros(64), 7.0, 5), {}),
        ((torch.zeros(64), True, 5), {}),
        ((None, 7, 5), {}),
        ((torch.zeros(64), 7, 5), {"BLOCK": 8}),
        ((torch.zeros(64), 7, 5), {"num_warps": 4}),
    ],
)
def test_another_kind_of_arguments_is_compiled_anew(arguments: tuple[object, ...], options: dict[str, object]) -> None:
    kernel = Kernel()
    start = Started(kernel)
    usual = {"BLOCK": 4, "num_warps": 8}
    start[1,](torch.zeros(64), 7, 5, **usual)
    start[1,](*arguments, **usual | options)
    assert len(kernel.compiled) == 2 and not any(compiled.started for compiled in kernel.compiled)


def test_an_integer_that_the_compiler_does_not_look_at_starts_the_same(addressed: None) -> None:
    kernel = Kernel()
    start = Started(kernel)
    for free in (1, 16, 5):
        start[1,](torch.zeros(64), 7, free, BLOCK=4)
    assert len(kernel.compiled) == 1 and len(kernel.compiled[0].started) == 2


def test_the_log_has_the_time_that_compiling_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for a kind of model and size, where it is worth a line."""
    monkeypatch.setattr(kernel_compilation, "Tuning", SimpleNamespace(of=lambda device: KERNELS))
    monkeypatch.setattr(kernel_compilation, "noted", lambda *_: [])
    monkeypatch.setattr(kernel_compilation, "compile_noted", lambda *_: None)
    monkeypatch.setattr(kernel_compilation, "_done", set())
    caplog.set_level(logging.INFO)
    model: Any = SimpleNamespace(device=torch.device("cuda"), params=TINY, dtype=torch.float16)
    for least, lines in ((60.0, 0), (0.0, 1), (0.0, 1)):
        monkeypatch.setattr(kernel_compilation, "_WORTH_SAYING", least)
        compile_kernels(model, (128, 128) if least else (128, 256), 1, Settings())
        assert caplog.text.count("Kernels compiled in 0.0 s.") == lines


def test_nothing_is_compiled_without_a_card() -> None:
    compile_kernels(TLBVFI(TINY), (128, 128), 1, Settings())
    assert ahead.wanted() is None

"""Kernels of our own on the CPU, by Triton's interpreter (:mod:`tests`): slow, and exact enough to be compared with the
plain path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from tlbvfi.rows.tuning import Tuning, tuned

pytest.importorskip("triton", reason="kernels of our own are tested where Triton is installed")

#: Where the kernels run in tests: on a card where there is one.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: Half precision: Triton's interpreter neither multiplies matrices of bfloat16 nor rounds to it.
HALVES = (torch.float16,) if DEVICE.type == "cpu" else (torch.float16, torch.bfloat16)
#: What a card does without kernels of our own, and with them.
PLAIN = Tuning()
KERNELS = replace(PLAIN, kernels=True)


@contextmanager
def kernels() -> Iterator[None]:
    """The layers call kernels of our own while the block runs, without gradients."""
    with torch.no_grad(), tuned(KERNELS):
        yield


@contextmanager
def plain() -> Iterator[None]:
    """The layers take the plain path of a card while the block runs, without gradients."""
    with torch.no_grad(), tuned(PLAIN):
        yield

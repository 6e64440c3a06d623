"""What several test modules share: stand-ins for the published checkpoint, and a very small model in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.parity.schedule_buffers import schedule_buffers
from tests.parity.weights import manifest, state_dict
from tests.tiny import TINY
from tlbvfi.model import TLBVFI
from tlbvfi.precision import tf32

try:
    import hypothesis
except ImportError:  # where a graphics card is checked, it may not be there
    pass
else:
    phases = hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink
    hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None, phases=phases)
    hypothesis.settings.register_profile("fuzz", deadline=None, database=None, phases=phases, print_blob=True)
    hypothesis.settings.load_profile(os.environ.get("TLBVFI_HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def exact_products(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a card PyTorch convolves in TF32 unless it is told not to, in which no two ways agree to 120 dB."""
    with tf32(False if request.module.__name__.rpartition(".")[2].startswith("test_kernels") else None):
        yield


@pytest.fixture(scope="session")
def schedule() -> dict[str, Tensor]:
    """The six schedule buffers of the published checkpoint."""
    return {name: torch.from_numpy(values) for name, values in schedule_buffers().items()}


@pytest.fixture(scope="session")
def official_checkpoint(tmp_path_factory: pytest.TempPathFactory, schedule: dict[str, Tensor]) -> Path:
    """A file in the published layout and wrapping, aliases included, with the weights of the parity cases."""
    path = tmp_path_factory.mktemp("official") / "vimeo_unet.pth"
    torch.save({"model": {**state_dict(0), **schedule}}, path)
    return path


@pytest.fixture(scope="session")
def hollow_state(schedule: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every entry of the published layout with its shape, each filled with one number of its own.

    A whole checkpoint made of these takes well under a megabyte, because only the one number is stored.
    """
    state = {
        entry["key"]: torch.tensor(_number(entry, index)).expand(entry["shape"])
        for index, entry in enumerate(manifest())
        if entry["kind"] != "schedule"
    }
    return {**state, **schedule}


def _number(entry: dict[str, str], index: int) -> int | float:
    if entry["kind"] == "counter":
        return 0
    return 1.0 if entry["kind"] == "running_var" else (index + 1) / 65536


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small model of random weights in our own layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = TLBVFI(TINY).state_dict()
    state = {key: value.contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file(state, path, {"format": "tlbvfi", "config": json.dumps(TINY.to_dict())})
    return path

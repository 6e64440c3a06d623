"""The parameters of a model that is smaller still than :mod:`tests.tiny`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny import TINY
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.model import TLBVFI

#: A new frame takes a tenth of a second. Sides are multiples of 64.
PARAMS = dataclasses.replace(
    TINY,
    autoencoder=dataclasses.replace(TINY.autoencoder, ch_mult=(1, 1, 1, 1, 1), window=2),
    denoiser=dataclasses.replace(TINY.denoiser, channel_mult=(1,), attention_downsampling=()),
)


def smallest_model(seed: int = 0) -> TLBVFI:
    """Always the same weights for a seed."""
    model = TLBVFI(PARAMS)
    random_weights(model, seed)
    return model.finalize()


def save_smallest(file: Path) -> None:
    """Save a model with the weights that PyTorch begins with, always the same, with what it is in the metadata."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = TLBVFI(PARAMS).state_dict()
    state = {key: value.contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    save_file(state, file, {"config": json.dumps(PARAMS.to_dict())})

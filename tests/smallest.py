"""The parameters of a model that is smaller still than :mod:`tests.tiny`."""

from __future__ import annotations

import dataclasses

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

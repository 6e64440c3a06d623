"""Models of random weights: the time and memory of the real ones, not their frames."""

from __future__ import annotations

import torch

from ..config import load_params
from ..model import TLBVFI, convert_precision


@torch.no_grad()
def random_weights(model: TLBVFI, seed: int = 0) -> None:
    """Fill a new model with weights that depend on the seed alone.

    Maps neither vanish nor grow from layer to layer, and flows are of a few pixels, so that warps matter.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(values * (0.5 if "embedding" in name else parameter[0].numel() ** -0.5))
        else:
            parameter.copy_(values * 0.1 + float(name.endswith("weight")))


def stand_in_model(device: torch.device, dtype: torch.dtype = torch.float32) -> TLBVFI:
    """The published model's networks with random weights, always the same: its time and memory, not its frames."""
    model = TLBVFI(load_params("vimeo_unet"))
    random_weights(model)
    return convert_precision(model.finalize(), dtype).to(device)

"""A model whose new frames are the mean of the two, and a little of their noise: what a run makes can be foretold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.smallest import PARAMS
from tlbvfi.model import TLBVFI

#: What the noise of a frame counts.
GRAIN = 1e-2


def grain(draws: Sequence[Tensor]) -> Tensor:
    """What the noise of new frames adds to them, one number for each of the batch."""
    return GRAIN * torch.stack([draw.flatten(1).mean(dim=1) for draw in draws]).sum(dim=0)


def stand_in_methods(features: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The methods of the model, by their names; features: the class :class:`tlbvfi.features.FrameFeatures`."""

    def encode_empty(self: Any, height: int, width: int, strips: Any = None) -> Tensor:
        return torch.zeros(1, 1, 1, 1)

    def encode_frame(self: Any, frame: Tensor, flow_scale: float, strips: Any = None, empty: Any = None) -> Any:
        self._check_frames(frame)
        image = frame * 0.5 + 0.5
        return features(image, image, [image], [], empty)

    def midpoint(
        self: Any, first: Any, last: Any, steps: Any, draws: Any, strips: Any = None, on_progress: Any = None
    ) -> Tensor:
        one, other = (each.take() if hasattr(each, "take") else each for each in (first, last))
        assert not torch.isnan(one.image).any()
        if on_progress is not None:
            on_progress(0.5)
        middle = (one.image + other.image) / 2
        if draws:
            middle = middle + grain(draws)[:, None, None, None]
        return middle * 2.0 - 1.0

    return {"encode_empty": encode_empty, "encode_frame": encode_frame, "midpoint": midpoint}


def stand_in() -> TLBVFI:
    """One of its own, which can be given other methods."""
    from tlbvfi.features import FrameFeatures

    kind = type("StandIn", (TLBVFI,), stand_in_methods(FrameFeatures))
    model: TLBVFI = kind(PARAMS)
    return model.finalize()

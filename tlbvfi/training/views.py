"""How a step looks at its batch: pictures and exact flows at a flow scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.warp import resize

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class View:
    """How a step looks at its batch: the side of the pictures, whether the loader halves them, and the flow scale.

    Flow networks see pictures at a flow scale of 1 in [0, 1], else in [-1, 1] (the model's convention); halved ones are
    at their flow scale already.
    """

    crop: int
    halved: bool
    scale: float


def drawn_scale(generator: torch.Generator, full: float, half: float = 0.6) -> float:
    """Flow scale of a batch: 1 with probability `full`, of the others 0.5 with `half`, the rest evenly 0.35 to 0.75."""
    draw = torch.rand(2, generator=generator).tolist()
    if draw[0] < full:
        return 1.0
    return 0.5 if draw[1] < half else 0.35 + 0.4 * (draw[1] - half) / (1.0 - half)


def motion_view(generator: torch.Generator, full: float, half: float, side: int) -> View:
    """A view for the flow networks alone, of the whole picture."""
    scale = drawn_scale(generator, full, half)
    return View(side, scale == 0.5, scale)


#: Pairs of a batch that a flow stage takes at a flow scale of 1, where they cost most, and how many of these are the
#: ones that move farthest: what is far at the full size is rare, and a part of a picture would not hold it.
_FULL_SIZE, _FARTHEST = 1 / 3, 3 / 4


def affordable(batch: Batch, view: View, generator: torch.Generator) -> Batch:
    """The batch; at a flow scale of 1 its pairs with the farthest motion, and some of the others."""
    if view.scale < 1.0:
        return batch
    count = max(1, round(len(batch["flow0"]) * _FULL_SIZE))
    far = math.ceil(count * _FARTHEST)
    moved = torch.linalg.vector_norm(batch["flow0"].float().nan_to_num(), dim=1).mean(dim=(1, 2))
    order = moved.argsort(descending=True)
    others = torch.randperm(len(order) - far, generator=generator)[: count - far]
    chosen = torch.cat([order[:far], order[far:][others]])
    return {name: value[chosen] for name, value in batch.items()}


@dataclass
class FlowTask:
    """A batch as the flow networks see it at a flow scale: frames, and the exact flow at the size of the result.

    `seen` is 1 where a frame shows a point and 0.1 where it is hidden, `weight` is that, or 0 where no flow is known.
    """

    frames: tuple[Tensor, Tensor]
    images: tuple[Tensor, Tensor, Tensor]
    flow: Tensor
    seen: Tensor
    weight: Tensor


def flow_task(batch: Batch, view: View) -> FlowTask:
    """A batch at the flow scale of its view."""
    x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
    flow = torch.cat([batch["flow0"], batch["flow1"]], dim=1)
    valid = torch.cat([batch["valid0"], batch["valid1"]], dim=1).float()
    if view.scale < 1.0 and not view.halved:
        height, width = (round(side * view.scale / 16) * 16 for side in xm.shape[-2:])
        x0, xm, x1 = (resize(x, (height, width)) for x in (x0, xm, x1))
        flow = F.interpolate(flow, size=(height // 2, width // 2), mode="area") * view.scale
        valid = F.interpolate(valid, size=(height // 2, width // 2), mode="area")
    frames = (x0, x1) if view.scale == 1.0 else (x0 * 2 - 1, x1 * 2 - 1)
    # Hidden pixels have a true flow too, which the picture cannot show: they count a little.
    seen, known = 0.1 + 0.9 * valid, flow.isfinite().all(dim=1, keepdim=True)
    return FlowTask(frames, (x0, xm, x1), flow.nan_to_num() / 2, seen, seen * known)

"""What the stages are trained by: errors of flows, of frames and of the blend of the warped frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..modules.warp import resize, resize_flow, warp
from .views import Batch, FlowTask


def charbonnier(error: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Mean of sqrt(error^2 + 0.001^2), a smooth absolute error, weighted per pixel."""
    return (torch.sqrt(error.float().square() + 1e-6) * weight).mean()


def endpoint_error(flow: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean robust length of the difference of flows (B, 4, H, W), weighted by (B, 2, H, W) for the two flows."""
    difference = rearrange(flow.float() - target, "b (two c) h w -> b two c h w", two=2)
    return ((difference.square().sum(dim=2) + 1e-3).pow(0.45) * weight).mean()


def flow_error(flow: Tensor, task: FlowTask) -> Tensor:
    """Endpoint error of an estimate at its own size, as long as if in pixels of the size that the truth has."""
    size = (flow.shape[-2], flow.shape[-1])
    error = endpoint_error(flow, resize_flow(task.flow, size), resize(task.weight, size))
    return error * (task.flow.shape[-1] / size[1]) ** 0.9


def photometric(flow: Tensor, task: FlowTask) -> Tensor:
    """How well the outer frames, brought along the flow, give the middle one where they can be seen."""
    x0, xm, x1 = task.images
    size = (xm.shape[-2], xm.shape[-1])
    full, seen = resize_flow(flow, size), resize(task.seen, size)
    return charbonnier(warp(x0, full[:, :2]) - xm, seen[:, :1]) + charbonnier(warp(x1, full[:, 2:]) - xm, seen[:, 1:])


def hidden_loss(logits: Tensor, batch: Batch) -> Tensor:
    """How far the blend mask, given as logits (B, 1, H, W), is from the one frame that sees a point, where one does."""
    size = (batch["valid0"].shape[-2], batch["valid0"].shape[-1])
    first, last = batch["valid0"].float(), batch["valid1"].float()
    error = F.binary_cross_entropy_with_logits(resize(logits.float(), size), first, reduction="none")
    alone = (first - last).abs()
    return (error * alone).sum() / (alone.sum() + 100.0)


#: Least difference of the warped frames' errors that says which of them to take, and over how many pixels it is taken.
_TELLING, _AROUND = 0.01, 5


def around(error: Tensor) -> Tensor:
    """Means of errors (B, 1, H, W) over the pixels around each place, as :func:`blend_loss` compares them."""
    return F.avg_pool2d(error, _AROUND, 1, _AROUND // 2, count_include_pad=False)


def blend_loss(logits: Tensor, errors: tuple[Tensor, Tensor]) -> Tensor:
    """How far the blend mask, given as logits (B, 1, H, W), is from the warped frame that is nearer to the middle one,
    by what each of them is off there (B, 1, H, W), weighted by how much nearer it is.

    Covers what the flow got wrong as well as what is hidden. The error of the blended frame asks for the same, but
    pixel by pixel, where noise decides, and less the surer the mask is of the wrong frame.
    """
    nearer = (errors[1] - errors[0]).detach()
    weight = (nearer.abs() - _TELLING).clamp_min(0.0)
    loss = F.binary_cross_entropy_with_logits(logits.float(), (nearer > 0).float(), reduction="none")
    return (loss * weight).sum() / (weight.sum() + 1.0)

"""Scenes and their finished frames, with exact flows from the middle frame and where the outer ones show the same."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from .layers import Layer, gaussian_blur
from .motion import TIMES, Box

LABEL_ALPHA = 0.5  # opacity from which a layer counts as what a pixel shows


@dataclass
class Scene:
    """Layers from the back to the front, and what the camera does to the finished frames."""

    layers: list[Layer]
    size: int
    shutter: float = 0.0  # of the distance between frame 0 and frame 1
    blur_samples: int = 1
    softness: float = 0.0  # standard deviation of a blur of the whole frame, pixels
    gain: float = 0.0  # log brightness change from frame 0 to frame 1
    gamma: float = 0.0  # log gamma change
    lift: float = 0.0
    bars: int = 0  # rows of a letterbox
    jpeg: int = 0  # quality, 0 for none
    noise: Tensor | None = field(default=None, repr=False)  # replaces the frames: (3, 3, H, W)


def _composite(scene: Scene, t: float, subsamples: int, labels: bool) -> tuple[Tensor, Tensor | None]:
    """One instant: colours (3, H, W), and the index of the layer in front (H, W) uint8."""
    size = scene.size
    canvas = torch.zeros(3, size, size)
    front = torch.zeros(size, size, dtype=torch.uint8) if labels else None
    for index, layer in enumerate(scene.layers):
        box = layer.box(t, size)
        if box is None:
            continue
        rows, columns = box.slices
        rgb, alpha = layer.render(t, box, subsamples)
        if alpha is None:
            canvas[:, rows, columns] = rgb
            if front is not None:
                front[rows, columns] = index
            continue
        target = canvas[:, rows, columns]
        target.mul_(1.0 - alpha).add_(rgb)
        if front is not None:
            front[rows, columns].masked_fill_(alpha[0] > LABEL_ALPHA, index)
    return canvas, front


def _frame(scene: Scene, t: float, subsamples: int) -> tuple[Tensor, Tensor]:
    """The finished frame at time t (3, H, W) in [0, 1] and its labels (H, W)."""
    if scene.blur_samples > 1:
        _, front = _composite(scene, t, 1, labels=True)
        instants = (np.arange(scene.blur_samples) + 0.5) / scene.blur_samples - 0.5
        frame = torch.zeros(3, scene.size, scene.size)
        for instant in instants:
            frame += _composite(scene, t + float(instant) * scene.shutter, 1, labels=False)[0]
        frame /= scene.blur_samples
    else:
        frame, front = _composite(scene, t, subsamples, labels=True)
    assert front is not None
    if scene.softness > 0:
        frame = gaussian_blur(frame, scene.softness)
    s = t - 0.5
    if scene.gain or scene.gamma or scene.lift:
        frame = frame.clamp_(0.0, 1.0)
        if scene.gamma:
            frame = frame.pow(math.exp(scene.gamma * s))
        frame = frame * math.exp(scene.gain * s) + scene.lift * s
    if scene.bars:
        frame[:, : scene.bars] = 0.0
        frame[:, scene.size - scene.bars :] = 0.0
    frame = frame.clamp_(0.0, 1.0)
    if scene.jpeg:
        pixels = rearrange((frame * 255.0).round().to(torch.uint8), "c h w -> h w c").numpy()
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=scene.jpeg)
        with Image.open(stream) as decoded:
            back = torch.from_numpy(np.array(decoded))
        frame = rearrange(back, "h w c -> c h w").to(torch.float32) / 255.0
    return frame, front


def _flows(scene: Scene, front: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Flows (2, H, W) from the middle frame to frames 0 and 1, and where they end on the same visible thing."""
    size = scene.size
    whole = Box(0, 0, size, size, size)
    x, y = whole.samples(1)
    flows, valids = [], []
    for t, labels in ((0.0, front[0]), (1.0, front[2])):
        flow = torch.zeros(2, size, size)
        for index, layer in enumerate(scene.layers):
            box = layer.box(0.5, size)
            if box is None:
                continue
            rows, columns = box.slices
            mine = front[1][rows, columns] == index
            if not bool(mine.any()):
                continue
            bx, by = box.samples(1)
            bx, by = bx.expand(box.height, -1), by.expand(-1, box.width)
            qx, qy = layer.motion.forward(bx, by, t)
            target = flow[:, rows, columns]
            torch.where(mine, torch.stack([qx - bx, qy - by]), target, out=target)
        px, py = x + flow[0] + whole.origin, y + flow[1] + whole.origin
        inside = (px >= 0) & (px <= size - 1) & (py >= 0) & (py <= size - 1)
        column = px.round().long().clamp_(0, size - 1)
        row = py.round().long().clamp_(0, size - 1)
        valid = inside & (labels[row, column] == front[1])
        if scene.bars:
            kept = (py >= scene.bars) & (py <= size - 1 - scene.bars)
            kept[: scene.bars] = False
            kept[size - scene.bars :] = False
            valid &= kept
        flows.append(flow)
        valids.append(valid)
    return flows, valids


def render_scene(scene: Scene, oversample: int = 2) -> dict[str, Tensor]:
    """x0, xm, x1 (3, H, W) in [0, 1]; flow0, flow1 (2, H, W) pixels; valid0, valid1 (1, H, W) bool."""
    size = scene.size
    if scene.noise is not None:
        nothing = torch.zeros(2, size, size)
        never = torch.zeros(1, size, size, dtype=torch.bool)
        x0, xm, x1 = scene.noise
        return {"x0": x0, "xm": xm, "x1": x1, "flow0": nothing, "flow1": nothing.clone(),
                "valid0": never, "valid1": never.clone()}  # fmt: skip
    frames, fronts = zip(*(_frame(scene, t, oversample) for t in TIMES), strict=True)
    flows, valids = _flows(scene, list(fronts))
    return {
        "x0": frames[0], "xm": frames[1], "x1": frames[2],
        "flow0": flows[0], "flow1": flows[1], "valid0": valids[0][None], "valid1": valids[1][None],
    }  # fmt: skip

"""ComfyUI's IMAGE, (B, H, W, C) floating point in [0, 1]: checked at the door, one sentence per fault."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Channels that can be made RGB: grey, RGB, RGB with alpha.
CHANNELS = (1, 3, 4)


def check_batch(images: Any, name: str) -> None:
    """Raises ValueError, one sentence, where `images` is no batch of pictures (B, H, W, C); B may be 0."""
    if not isinstance(images, Tensor):
        raise ValueError(f"{name} must be an IMAGE (a tensor), not {type(images).__name__}.")
    if images.ndim != 4:
        raise ValueError(f"{name} must be (frames, height, width, channels), not of shape {tuple(images.shape)}.")


def check_images(images: Any, name: str, tolerance: float) -> None:
    """Raises ValueError, one sentence, where `images` is not a batch of one or more usable pictures.

    Args:
        images: should be (B, H, W, C), floating point, finite, with C one of :data:`CHANNELS`.
        name: of the input, for the sentence.
        tolerance: how far outside [0, 1] a value may be.
    """
    check_batch(images, name)
    count, height, width, channels = images.shape
    if count < 1:
        raise ValueError(f"{name} is an empty batch; it must hold at least one frame.")
    if height < 1 or width < 1:
        raise ValueError(f"{name} has frames without pixels ({width}x{height}).")
    if channels not in CHANNELS:
        raise ValueError(f"{name} has {channels} channels; it must have 1 (grey), 3 (RGB) or 4 (RGB and alpha).")
    if images.layout != torch.strided or images.device.type == "meta":
        raise ValueError(f"{name} must be a dense tensor with values, not {images.layout} on {images.device}.")
    if not images.is_floating_point():
        raise ValueError(f"{name} must hold floating point values in [0, 1], not {images.dtype}.")
    low, high = _range(images)
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"{name} holds NaN or infinity; repair the node or file it comes from.")
    if low < -tolerance or high > 1 + tolerance:
        raise ValueError(f"{name} has values from {low:.3g} to {high:.3g}; they must be in [0, 1].")


def _range(images: Tensor) -> tuple[float, float]:
    """The lowest and the highest value, NaN where there is one. Picture by picture: a batch may fill the memory."""
    exact = (image if image.dtype in (torch.float32, torch.float64) else image.float() for image in images)
    lows, highs = zip(*(torch.aminmax(image) for image in exact), strict=True)
    return float(torch.stack(lows).min()), float(torch.stack(highs).max())


def check_same_size(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Raises ValueError, one sentence, where two batches differ in length or in the size of their pictures."""
    if first.shape[1:3] != second.shape[1:3]:
        sizes = [f"{batch.shape[2]}x{batch.shape[1]}" for batch in (first, second)]
        raise ValueError(
            f"{names[0]} is {sizes[0]} and {names[1]} is {sizes[1]} (width x height); they must have one size."
        )
    if len(first) != len(second):
        raise ValueError(
            f"{names[0]} holds {len(first)} and {names[1]} {len(second)} frames; they must hold equally many, "
            "which are interpolated pair by pair."
        )


def to_rgb(picture: Tensor) -> Tensor:
    """(H, W, 1, 3 or 4) -> (H, W, 3) float32 in [0, 1] on the CPU: grey repeated, alpha dropped, the rest clamped.

    Values of an RGB picture that are in [0, 1] stay as they are, to the bit.
    """
    picture = picture.detach().to(device="cpu", dtype=torch.float32)
    if picture.shape[-1] == 1:
        picture = picture.expand(*picture.shape[:-1], 3)
    return picture[..., :3].clamp(0.0, 1.0)

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


def check_pictures(images: Any, name: str) -> None:
    """Raises ValueError, one sentence, where `images` is not a batch of one or more pictures (B, H, W, C) with pixels,
    C one of :data:`CHANNELS`. Values are not looked at."""
    check_batch(images, name)
    count, height, width, channels = images.shape
    if count < 1:
        raise ValueError(f"{name} is an empty batch; it must hold at least one frame.")
    if height < 1 or width < 1:
        raise ValueError(f"{name} has frames without pixels ({width}x{height}).")
    if channels not in CHANNELS:
        raise ValueError(f"{name} has {channels} channels; it must have 1 (grey), 3 (RGB) or 4 (RGB and alpha).")


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


def same_picture(one: Tensor, other: Tensor) -> bool:
    """Whether two pictures (H, W, C) are the same RGB picture; they may be on different devices, of different types."""
    if (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape):
        return torch.equal(one, other)
    return torch.equal(to_rgb(one), to_rgb(other))


def to_rgb(picture: Tensor) -> Tensor:
    """(H, W, 1, 3 or 4) -> (H, W, 3) float32 in [0, 1] on the CPU: grey repeated, alpha dropped, the rest clamped.

    Values of an RGB picture that are in [0, 1] stay as they are, to the bit.
    """
    picture = picture.detach().to(device="cpu", dtype=torch.float32)
    if picture.shape[-1] == 1:
        picture = picture.expand(*picture.shape[:-1], 3)
    return picture[..., :3].clamp(0.0, 1.0)

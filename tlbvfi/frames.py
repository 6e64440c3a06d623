"""Frames at the door: (H, W, 3) pictures in [0, 1], checked with one sentence per fault."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

#: How far outside [0, 1] a value may be (it is clamped) before it counts as one of another range.
RANGE_TOLERANCE = 0.5
#: In which values may come.
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_frame(frame: Tensor, index: int = 0, size: tuple[int, int] | None = None) -> None:
    """Raise ValueError, one sentence, for a frame that cannot be interpolated.

    Args:
        frame: should be (H, W, 3), floating point, finite, in [0, 1].
        index: its number, for the sentence.
        size: (H, W) of the frames before it.
    """
    what = f"Frame {index}"
    if not isinstance(frame, Tensor):
        raise ValueError(f"{what} must be a tensor, not {type(frame).__name__}.")
    check_storage(frame, what)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"{what} must be (height, width, 3), not {tuple(frame.shape)}.")
    height, width = frame.shape[:2]
    if size is not None and (height, width) != size:
        raise ValueError(
            f"{what} is {width}x{height}, but those before it are {size[1]}x{size[0]} (width x height); "
            "all frames of a video must have one size."
        )
    if height < 1 or width < 1:
        raise ValueError(f"{what} has no pixels ({width}x{height}).")
    check_values([frame], what)


def check_storage(pictures: Tensor, what: str) -> None:
    """Raise ValueError, one sentence, for pictures that are not floating point, or not there to be read."""
    if pictures.dtype not in DTYPES:
        remedy = "; divide 8-bit values by 255" if pictures.dtype == torch.uint8 else ""
        raise ValueError(f"{what} must hold floating point values in [0, 1], not {pictures.dtype}{remedy}.")
    check_dense(pictures, what)


def check_dense(pictures: Tensor, what: str) -> None:
    """Raise ValueError, one sentence, for pictures that are not there to be read."""
    # Of a nested tensor PyTorch does not even tell the shape.
    if pictures.is_nested or pictures.layout != torch.strided or pictures.device.type == "meta":
        kind = "a nested one" if pictures.is_nested else str(pictures.layout)
        raise ValueError(f"{what} must be a dense tensor with values, not {kind} on {pictures.device}.")


def check_values(pictures: Iterable[Tensor], what: str) -> None:
    """Raise ValueError, one sentence, for pictures with NaN, infinity or values that belong to another range.

    They are looked at one by one: a batch may fill the memory.
    """
    exact = (p if p.dtype in (torch.float32, torch.float64) else p.float() for p in pictures)
    lows, highs = (torch.stack(ends) for ends in zip(*(torch.aminmax(picture) for picture in exact), strict=True))
    low, high = float(lows.min()), float(highs.max())
    if not -math.inf < low <= high < math.inf:
        which = int((~(lows.isfinite() & highs.isfinite())).nonzero()[0])
        where = f" in frame {which}" if len(lows) > 1 else ""
        raise ValueError(f"{what} holds NaN or infinity{where}; repair the node or file it comes from.")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{what} has values from {low:.3g} to {high:.3g}; they must be in [0, 1].")

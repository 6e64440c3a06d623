"""NaN and infinity in new frames, which a weight makes that overflows in the arithmetic: found at the cost of a few
reductions, and without waiting for the device.

Two steps of the model hide them: the choice of a code, and positions, which are clamped. What goes into these is passed
on with the codes (:func:`pass_on`), from where NaN reaches the frame. There one value tells of all
(:func:`mark`): it goes to the host with the frame, and is looked at there (:func:`check_new_frame`).
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor


class NonFiniteFrameError(ValueError):
    """A new frame with NaN or infinity; the message is one sentence."""


def pass_on(codes: Tensor, chosen_by: Tensor, flow: Tensor) -> Tensor:
    """Codes (B, C, T, h, w), in place: NaN where what chose them was NaN, or too large for a distance to it, and
    throughout where a flow (B, 4, H, W) is not finite. Others stay as they are."""
    codes.add_(chosen_by.square(), alpha=0.0)
    return codes.add_(flow.sum(dim=(1, 2, 3))[:, None, None, None, None], alpha=0.0)


def mark(frames: Tensor) -> Tensor:
    """Frames (B, H, W, 3), in place: the first value of each is NaN where any is."""
    frames[:, 0, 0, 0].add_(frames.sum(dim=(1, 2, 3)), alpha=0.0)
    return frames


def check_new_frame(frame: Tensor, position: Fraction, dtype: torch.dtype) -> None:
    """Raise :class:`NonFiniteFrameError`, one sentence, for a marked frame (H, W, 3) on the host that is not finite.

    Args:
        position: where it stands, for the sentence.
        dtype: that the model computes in.
    """
    if not math.isnan(float(frame[0, 0, 0])):
        return
    others = [name for name in ("bfloat16", "float32") if not str(dtype).endswith(f".{name}")]
    remedy = (
        "the weight file is damaged, or no TLB-VFI model: get it again"
        if dtype == torch.float32
        else f"use {' or '.join(others)} (--dtype, or use_fp16 off in a node); where that gives the same, the weight "
        "file is damaged"
    )
    place = int(position)
    raise NonFiniteFrameError(
        f"The new frame at {float(position):g}, after source frame {place}, holds NaN or infinity: numbers of the "
        f"model do not fit {str(dtype).removeprefix('torch.')}; {remedy}."
    )

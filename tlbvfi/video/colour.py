"""Y'CbCr as it is stored, to RGB and back, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LIMITED, FULL = 1, 2  # FFmpeg's AVColorRange
BT709, UNKNOWN, BT601, YCGCO, DERIVED = 1, 2, 6, 8, 12  # FFmpeg's AVColorSpace; the last follows from the primaries
#: (K_r, K_b) of the Y'CbCr matrices, by their numbers in ITU-T H.273, which FFmpeg uses.
LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
#: The matrices that follow from primaries.
OF_PRIMARIES = {1: BT709, 4: BT601, 6: 7, 7: 7, 9: 9}
_HD_ROWS = 720


@dataclass(frozen=True)
class Colour:
    """How RGB is stored as Y'CbCr; numbers as in ITU-T H.273.

    Attributes:
        matrix: one of those in :data:`LUMA`, or Y'CgCo, which is only read.
        primaries, transfer: only carried along.
        full_range: black and white at the ends of the sample range instead of at 16 and 235 (of 255).
        bits: of a sample.
    """

    matrix: int
    primaries: int = UNKNOWN
    transfer: int = UNKNOWN
    full_range: bool = False
    bits: int = 8

    @staticmethod
    def usual(rows: int) -> Colour:
        """That of a video with so many rows which states nothing."""
        return Colour(BT709 if rows >= _HD_ROWS else BT601)

    @cached_property
    def _scales(self) -> tuple[float, float, float]:
        """Offset of Y, and the sample steps of Y from 0 to 1 and of Cb and Cr from -0.5 to 0.5."""
        if self.full_range:
            top = float(2**self.bits - 1)
            return 0.0, top, top
        unit = 2.0 ** (self.bits - 8)
        return 16 * unit, 219 * unit, 224 * unit

    def to_rgb(self, samples: Tensor) -> Tensor:
        """samples (3, H, W), integers: Y, Cb, Cr -> (H, W, 3) float32 in [0, 1]."""
        offset, luma, chroma = self._scales
        y, cb, cr = samples.float()
        y = (y - offset) / luma
        cb, cr = ((c - 2.0 ** (self.bits - 1)) / chroma for c in (cb, cr))
        if self.matrix == YCGCO:  # their places are those of Cg and Co
            rest = y - cb
            return torch.stack((rest + cr, y + cb, rest - cr), dim=-1).clamp_(0.0, 1.0)
        kr, kb = LUMA[self.matrix]
        r = y + 2 * (1 - kr) * cr
        b = y + 2 * (1 - kb) * cb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
        return torch.stack((r, g, b), dim=-1).clamp_(0.0, 1.0)

    def from_rgb(self, frame: Tensor) -> Tensor:
        """frame (H, W, 3) in [0, 1] -> (3, H, W) int32 samples Y, Cb, Cr."""
        kr, kb = LUMA[self.matrix]
        offset, luma, chroma = self._scales
        r, g, b = frame.float().clamp(0.0, 1.0).unbind(-1)
        y = kr * r + (1 - kr - kb) * g + kb * b
        half = 2.0 ** (self.bits - 1)
        cb = (b - y) / (2 * (1 - kb)) * chroma + half
        cr = (r - y) / (2 * (1 - kr)) * chroma + half
        samples = torch.stack((y * luma + offset, cb, cr))
        return samples.round().clamp_(0, 2**self.bits - 1).int()

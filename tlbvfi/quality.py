"""How near a frame is to the truth. Frames are (H, W, 3) in [0, 1]."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

_SIGMA, _RADIUS = 1.5, 5
#: A frame's smaller side must be at least this for SSIM.
SSIM_WINDOW = 2 * _RADIUS + 1


def psnr(frame: Tensor, truth: Tensor) -> float:
    """Decibels over all RGB values of a frame; infinite for equal ones."""
    error = float((frame.double() - truth.double()).square().mean())
    return math.inf if error == 0 else -10.0 * math.log10(error)


def ssim(frame: Tensor, truth: Tensor) -> float:
    """Mean structural similarity of the colour channels, Gaussian window 11 x 11, sigma 1.5 (Wang et al. 2004).

    As scikit-image gives it with the settings of that paper.

    Raises:
        ValueError: a side is smaller than the window.
    """
    if min(frame.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs frames of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels.")
    x, y = (rearrange(picture.double(), "h w c -> c h w").contiguous() for picture in (frame, truth))
    mean_x, mean_y, xx, yy, xy = map(_windowed, (x, y, x * x, y * y, x * y))
    luminance, contrast = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + luminance) * (2 * (xy - mean_x * mean_y) + contrast)
    squares = mean_x.square() + mean_y.square()
    denominator = (squares + luminance) * (xx + yy - squares + contrast)
    return float((numerator / denominator).mean())


def _windowed(x: Tensor) -> Tensor:
    """Gaussian means (C, H - 10, W - 10) around the positions whose window is inside x (C, H, W)."""
    weights = [math.exp(-0.5 * (offset / _SIGMA) ** 2) for offset in range(-_RADIUS, _RADIUS + 1)]
    for side in (1, 2):
        length = x.shape[side] - 2 * _RADIUS
        mean = torch.zeros_like(x.narrow(side, 0, length))
        for first, weight in enumerate(weights):
            mean.add_(x.narrow(side, first, length), alpha=weight / sum(weights))
        x = mean
    return x

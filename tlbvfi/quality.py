"""How near a frame is to the truth. Frames are (H, W, 3) in [0, 1]."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(frame: Tensor, truth: Tensor) -> float:
    """Decibels over all RGB values of a frame; infinite for equal ones."""
    error = float((frame.double() - truth.double()).square().mean())
    return math.inf if error == 0 else -10.0 * math.log10(error)


def ssim(frame: Tensor, truth: Tensor) -> float:
    """Mean structural similarity of the colour channels, Gaussian window 11 x 11, sigma 1.5 (Wang et al. 2004).

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            frame.double().numpy(),
            truth.double().numpy(),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )

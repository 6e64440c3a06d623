"""Scene cuts."""

from __future__ import annotations

import torch
from torch import Tensor

DEFAULT_THRESHOLD = 0.3


class SceneDetector:
    """Frames (H, W, 3) in [0, 1] stream by."""

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        self.threshold = threshold

    def start(self, frame: Tensor) -> None:
        """The first frame."""
        self.last = frame.mean()

    def cut_before(self, frame: Tensor) -> bool:
        """Whether a cut lies between the last frame and this one."""
        last, self.last = self.last, frame.mean()
        return bool((last - self.last).abs() >= self.threshold)


def is_still(before: Tensor, after: Tensor, threshold: float) -> bool:
    """Whether two frames show the same."""
    return torch.equal(before, after)


class CutStrip:
    """A picture of cuts."""

    def __init__(self, height: int = 96, most: int = 24) -> None: ...

    def add(self, index: int, before: Tensor, after: Tensor) -> None:
        """A cut."""

    def picture(self) -> Tensor:
        """(H, W, 3)."""
        return torch.zeros(96, 96, 3)

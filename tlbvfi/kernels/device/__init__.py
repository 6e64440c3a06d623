"""The code that runs on the card. All modules here but :mod:`.ahead` import Triton, and are imported by what starts
them only."""

from __future__ import annotations

from typing import Any

from . import ahead


class Started:
    """A kernel that the host starts as ``kernel[grid](...)``; see :mod:`.ahead` for when it is not."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        wanted = ahead.wanted()
        if wanted is None:
            return self.kernel[grid]

        def noted(*arguments: Any, **options: Any) -> None:
            wanted.append(lambda: self.kernel.warmup(*arguments, grid=grid, **options))

        return noted

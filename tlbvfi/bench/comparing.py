"""The model beside classical methods, on a clip of which every second frame is held back as the truth."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..interpolate import interpolate_timeline
from ..model import TLBVFI
from ..peers import Peer
from ..quality import psnr, ssim
from ..settings import Settings
from ..timeline import Multiplier
from .cases import fixed_plan

log = logging.getLogger(__name__)


def as_peer(model: TLBVFI, size: tuple[int, int], settings: Settings, strip_rows: int | None = None) -> Peer:
    """The model at frames of `size`, as a method beside the classical ones."""
    plan = fixed_plan(model, size, strip_rows)

    def middles(frames: Sequence[Tensor]) -> list[Tensor]:
        outputs = interpolate_timeline(model, frames, Multiplier(2), settings, plan=plan)
        return [output.frame for output in outputs][1::2]

    return middles


def compare(frames: Sequence[Tensor], methods: Mapping[str, Peer]) -> dict[str, dict[str, float]]:
    """Methods on every second frame of a clip of at least three; the frames left out are the truth.

    Each method runs on the first pair once before its time counts.

    Returns:
        method -> `seconds` per new frame, and mean `psnr` (decibels) and `ssim` over the new frames. A method whose
        library is absent is left out.
    """
    frames = frames[: len(frames) - (len(frames) + 1) % 2]
    given, truths = list(frames[::2]), frames[1::2]
    scores = {}
    for name, method in methods.items():
        try:
            method(given[:2])
        except ImportError as error:
            log.warning("%s is left out: %s.", name, error)
            continue
        begin = time.perf_counter()
        made = method(given)
        seconds = (time.perf_counter() - begin) / len(truths)
        pairs = list(zip(made, truths, strict=True))
        scores[name] = {
            "seconds": seconds,
            "psnr": statistics.fmean(psnr(frame, truth) for frame, truth in pairs),
            "ssim": statistics.fmean(ssim(frame, truth) for frame, truth in pairs),
        }
    return scores

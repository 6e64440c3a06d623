"""What settings may be, each in one place. Needs no PyTorch, so that a wrong one is refused at once."""

from __future__ import annotations

from numbers import Real
from typing import Literal, get_args

PaddingMode = Literal["tight", "published"]
MIN_FLOW_SCALE, MAX_FLOW_SCALE = 0.1, 1.0
#: Steps of the bridge, at least: the first, 1 and 0.
MIN_STEPS = 3
#: Neighbours that differ by less count as the same frame, unless another threshold is asked for.
STILL_THRESHOLD = 0.0005


def check_padding_mode(mode: PaddingMode) -> None:
    """Raises ValueError, a sentence, for an unknown way to pad."""
    if mode not in get_args(PaddingMode):
        raise ValueError(f"padding must be one of {', '.join(get_args(PaddingMode))}, not {mode!r}.")


def check_flow_scale(flow_scale: float) -> None:
    """Raises ValueError, a sentence, where the flow scale is out of range (or not a number)."""
    if not isinstance(flow_scale, Real) or isinstance(flow_scale, bool):
        raise ValueError(f"flow_scale must be a number such as 0.5, not {flow_scale!r}.")
    if not MIN_FLOW_SCALE <= flow_scale <= MAX_FLOW_SCALE:
        raise ValueError(
            f"flow_scale must be between {MIN_FLOW_SCALE} and {MAX_FLOW_SCALE:.1f}, not {flow_scale}: "
            "0.5 suits most video, lower values larger motion, 1.0 small motion at small sizes."
        )

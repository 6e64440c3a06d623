"""Weights for smaller attention windows than they were trained with.

Frames are padded to whole windows at the latent's size, of 8 x 8 to multiples of 256 pixels, of 4 x 4 to multiples of
128: a frame of 640 x 360 then has 0.63 of the positions.
"""

from __future__ import annotations

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

#: How the biases of pairs of positions in a window are named.
_BIASES = "rel_pos_bias.weight"


def with_window(state: Mapping[str, Tensor], old: int, window: int) -> dict[str, Tensor]:
    """Weights for another window, at most as large: biases of pairs too far apart are dropped."""
    if window > old:
        raise ValueError(f"The weights have windows of {old}; {window} is more.")
    span, first = 2 * window - 1, old - window
    narrowed = dict(state)
    for name, bias in state.items():
        if name.endswith(_BIASES):
            table = rearrange(bias, "(y x) c -> y x c", y=2 * old - 1)
            inner = table[first : first + span, first : first + span]
            narrowed[name] = rearrange(inner, "y x c -> (y x) c").contiguous()
    return narrowed

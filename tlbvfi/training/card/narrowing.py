"""Weights for other networks than they were trained with: smaller attention windows, a fine flow of its own.

Frames are padded to whole windows at the latent's size, of 8 x 8 to multiples of 256 pixels, of 4 x 4 to multiples of
128: a frame of 640 x 360 then has 0.63 of the positions.
"""

from __future__ import annotations

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

#: How the biases of pairs of positions in a window are named.
_BIASES = "rel_pos_bias.weight"
#: The last scale of the coarse flow, and the network that a fine flow of its own begins as.
_LAST, _FINE = "decoder.flownet.block2.", "decoder.flownet.fine."


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


def with_fine_flow(state: Mapping[str, Tensor], fine_flow: int) -> dict[str, Tensor]:
    """Weights for a fine flow of its own, where `fine_flow` of a configuration asks for one and they have none: it
    begins as the last scale of the coarse flow."""
    widened = dict(state)
    if fine_flow > 1 and not any(_FINE in name for name in state):
        widened |= {name.replace(_LAST, _FINE): value.clone() for name, value in state.items() if _LAST in name}
    return widened

"""How wide maps are cut into strips of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .tuning import Tuning

#: Rows of a strip: its first, and the one after its last.
Cut = tuple[int, int]
#: (B, C, H, W).
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Strips:
    """How maps are cut.

    Attributes:
        pixels: positions (rows x columns x batch) evaluated at a time; None for whole maps.
        frugal: compute again what is wide and cheap rather than keep it, and keep on the device only what the next
            step needs.
        tuning: for the layers that are cut; None for the device's own.
    """

    pixels: int | None = None
    frugal: bool = False
    tuning: Tuning | None = None

    def cuts(self, shape: Shape | torch.Size, multiple: int = 2, least: int = 1) -> list[Cut]:
        """Rows (start, stop) of a map (B, C, H, W), in strips of a multiple of rows, at least `least`."""
        batch, _, height, width = shape
        if self.pixels is None:
            return [(0, height)]
        rows = max(self.pixels // (batch * width), least, 1)
        rows = max(rows // multiple, 1) * multiple
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]

    def tuning_on(self, device: torch.device) -> Tuning:
        """:attr:`tuning`, or the device's own; in strips what takes the least memory."""
        tuning = self.tuning or Tuning.of(device)
        return tuning if self.pixels is None else tuning.for_strips()


#: Everything in one piece.
WHOLE = Strips()


def halved(cuts: list[Cut]) -> list[Cut]:
    """The cuts of a map of half the height."""
    return [(a // 2, (b + 1) // 2) for a, b in cuts]


def pieces(shape: Shape | torch.Size, strips: Strips, device: torch.device) -> Strips:
    """The cuts of a map (B, C, H, W) for layers that are several times wider: of whole maps as well, as what is wide
    then never exists whole."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return strips
    tuning = strips.tuning_on(device)
    most = tuning.piece_positions
    if strips.pixels is None and tuning.most_pieces:
        batch, _, height, width = shape
        most = max(most, -(-height // tuning.most_pieces) * batch * width)
    return replace(strips, pixels=min(strips.pixels or most, most))


def wide_cuts(shape: Shape, strips: Strips, device: torch.device) -> list[Cut]:
    """The cuts by :func:`pieces` where the halo of each is computed twice."""
    smaller = pieces(shape, strips, device)
    if smaller.pixels == strips.pixels:
        return strips.cuts(shape)
    return smaller.cuts(shape, least=strips.tuning_on(device).piece_rows)

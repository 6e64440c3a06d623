"""The model calls of a run, one operation after the other; :mod:`.graphs` has a card replay them instead."""

from __future__ import annotations

from collections.abc import Callable

from einops import rearrange
from torch import Tensor

from .features import FrameFeatures
from .finite import mark
from .model import TLBVFI
from .padding import Padding
from .rows.cuts import Strips
from .rows.owned import Owned
from .settings import Settings
from .slots import Ends, Handle, Held, on_device

#: Told how much of a new frame is done.
Listener = Callable[[float], object]


class Calls:
    """Calls of the model for frames of one size.

    Attributes:
        strips: how maps are cut.
    """

    def __init__(self, model: TLBVFI, settings: Settings, padding: Padding, strips: Strips) -> None:
        self.model, self.settings, self.padding, self.strips = model, settings, padding, strips

    def encode(self, frame: Tensor, empty: Tensor | None) -> Owned[FrameFeatures] | Held:
        """Features of padded frames (B, 3, H, W) in [-1, 1], on the device.

        Args:
            empty: features of the empty frame, where they are there.
        """
        return Owned(self.model.encode_frame(frame, self.settings.flow_scale, self.strips, empty))

    def seated(
        self, left: Handle, right: Handle, pairs: int
    ) -> tuple[Owned[FrameFeatures] | Held, Owned[FrameFeatures] | Held]:
        """Two ends, taken from their handles, where the next :meth:`midpoint` of so many pairs reads them."""
        return on_device(left), on_device(right)

    def midpoint(self, left: Ends, right: Ends, noise: Tensor | None, listener: Listener | None) -> Tensor:
        """The frames half-way, (B, H, W, 3) in [0, 1] on the device.

        Args:
            left, right: from :meth:`seated`, lent or handed over.
            noise: draws (steps - 1, B, C, T, h, w); None for no steps.
            listener: called within the call.
        """
        first = left.borrow() if isinstance(left, Held) else left
        last = right.borrow() if isinstance(right, Held) else right
        draws = [] if noise is None else list(noise)
        frame = self.model.midpoint(
            first, last, self.settings.sample_steps, draws, strips=self.strips, on_progress=listener
        )
        return self.finished(frame)

    def finished(self, frame: Tensor) -> Tensor:
        """What the model makes, as it is shown: (B, H, W, 3) in [0, 1], without the padding, in memory of its own, and
        marked where it is not finite (:mod:`.finite`)."""
        # A clamp leaves NaN as it is, and infinity would have been clamped by the model already.
        return mark(rearrange(self.padding.crop(frame) * 0.5 + 0.5, "b c h w -> b h w c").clamp(0.0, 1.0))

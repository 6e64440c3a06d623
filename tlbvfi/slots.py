"""Features in memory that stays where it is, so that what was captured finds them there."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from .features import FrameFeatures, OffloadedFeatures
from .rows.owned import Owned
from .transfer import HostCopies


class Slot:
    """Memory for the features of one batch of frames.

    Nobody but a :class:`Held` says what is in it, so writing to a slot is safe: who is there moves out first, and a
    copy to the host that still reads it is waited for.
    """

    def __init__(self, like: FrameFeatures, device: torch.device) -> None:
        """like: features of the same shapes, on any device."""

        def empty(tensor: Tensor) -> Tensor:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

        # A run may go on in another call of the caller's: its memory must not belong to the first one's inference mode.
        with torch.inference_mode(False):
            self.features = like.each(empty)
        self._occupant: weakref.ref[Held] | None = None
        self._leaving: weakref.ref[OffloadedFeatures] | None = None

    @property
    def occupant(self) -> Held | None:
        """Who counts on what is here."""
        return None if self._occupant is None else self._occupant()

    def clear(self, refuge: Slot | None = None) -> None:
        """Make the slot ready to be written: its occupant moves to another slot, where that is free, or into memory of
        its own."""
        occupant = self.occupant
        if occupant is not None:
            occupant.move(refuge if refuge is not None and refuge.occupant is None else None)
        leaving = None if self._leaving is None else self._leaving()
        if leaving is not None:
            leaving.release()
        self._leaving = None

    def fill(self, features: FrameFeatures | OffloadedFeatures) -> None:
        """Write features here; those of the host are used up."""
        self.clear()
        if isinstance(features, OffloadedFeatures):
            features.restore_into(self.features)
        else:
            write(self.features, features)


def write(target: FrameFeatures, source: FrameFeatures) -> None:
    """Write features over others of their shapes."""
    for to, tensor in target.beside(source):
        to.copy_(tensor)


class Held:
    """Features in a slot, until that is wanted for others: then they are somewhere else. Used like an
    :class:`.rows.owned.Owned`: they are taken once, or passed on."""

    def __init__(self, place: Slot | FrameFeatures) -> None:
        """place: that has just been written, or memory that is the features' own."""
        self._place: Slot | FrameFeatures | None = place
        self._settle()

    def _settle(self) -> None:
        if isinstance(self._place, Slot):
            self._place._occupant = weakref.ref(self)

    def is_in(self, slot: Slot | None) -> bool:
        """Whether they are in this slot."""
        return slot is not None and self._place is slot

    def borrow(self) -> FrameFeatures:
        """The features, for a look before anything else is computed; they stay here."""
        if self._place is None:
            raise RuntimeError("Features that were handed over have been taken already; they can be taken once.")
        return self._place.features if isinstance(self._place, Slot) else self._place

    def take(self) -> FrameFeatures:
        """The features in memory of their own, which is the caller's from here on."""
        features = self.borrow()
        if isinstance(self._place, Slot):
            features = features.each(torch.clone)
            self._place._occupant = None
        self._place = None
        return features

    def passed_on(self) -> Held:
        """The same features for the next one to hold; from here on there are none here."""
        self.borrow()
        place, self._place = self._place, None
        assert place is not None
        return Held(place)

    def move(self, slot: Slot | None) -> None:
        """Move into a slot, or into memory of their own."""
        features = self.borrow()
        if slot is not None:
            slot.fill(features)
        elif isinstance(self._place, Slot):
            features = features.each(torch.clone)
        if isinstance(self._place, Slot):
            self._place._occupant = None
        self._place = features if slot is None else slot
        self._settle()

    def offload(self, copies: HostCopies, apart: bool = False) -> OffloadedFeatures:
        """As :meth:`.features.FrameFeatures.offload`; the slot is not written over before the copy is made."""
        offloaded = self.borrow().offload(copies, apart)
        if isinstance(self._place, Slot):
            self._place._leaving = weakref.ref(offloaded)
        return offloaded


#: Features that are handed over once, from where they are: memory of their own, a slot, or off their device.
Handle = Owned[FrameFeatures] | Held | OffloadedFeatures
#: Features on their device, for one who reads them: lent, handed over, or wherever a slot's have gone.
Ends = FrameFeatures | Owned[FrameFeatures] | Held


def on_device(handle: Handle) -> Owned[FrameFeatures] | Held:
    """The same features on their device, taken from the handle."""
    return handle.passed_on() if isinstance(handle, Held) else Owned(handle.take())


def lent(handle: Owned[FrameFeatures] | Held) -> FrameFeatures | Held:
    """The features for one who does not take them."""
    return handle if isinstance(handle, Held) else handle.borrow()

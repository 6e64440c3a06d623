"""What one frame contributes to every pair it is in, on its device or offloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .rows.owned import Owned
from .transfer import HostCopies, Offloaded


@dataclass
class FrameFeatures:
    """What one frame contributes to every pair it is in. B frames at once; sides as the padding rule says.

    Attributes:
        image: (B, 3, H, W) float32 in [0, 1].
        flow_image: (B, 3, Hf, Wf) float32, the frame as the coarse flow takes it: in [0, 1] at flow scale 1,
            in [-1, 1] below (the published model's way).
        pyramid: feature levels 0..L, level k at 1 / 2**k; level 0 is None where nothing reads it.
        flow_pyramid: feature levels 0..3 at the flow size.
        empty: deepest features (1, C, h, w) of the empty middle frame at this size, where they are there: one tensor
            for all frames of a run, which stays on its device.
    """

    image: Tensor
    flow_image: Tensor
    pyramid: list[Tensor | None]
    flow_pyramid: list[Tensor | None]
    empty: Tensor | None = None

    def __getitem__(self, which: slice) -> FrameFeatures:
        """Some of the B frames."""
        return self.each(lambda tensor: tensor[which])

    @staticmethod
    def cat(parts: Sequence[FrameFeatures]) -> FrameFeatures:
        """The frames of several, in order."""
        levels = zip(*(part.pyramid for part in parts), strict=True)
        flow_levels = zip(*(part.flow_levels for part in parts), strict=True)
        return FrameFeatures(
            image=torch.cat([part.image for part in parts]),
            flow_image=torch.cat([part.flow_image for part in parts]),
            pyramid=[torch.cat(tensors) if (tensors := _present(level)) else None for level in levels],
            flow_pyramid=[torch.cat(tensors) for tensors in flow_levels],
            empty=next((part.empty for part in parts if part.empty is not None), None),
        )

    @property
    def deepest(self) -> Tensor:
        """The last level of :attr:`pyramid`."""
        return _present(self.pyramid[-1:])[0]

    @property
    def flow_levels(self) -> list[Tensor]:
        """The levels of :attr:`flow_pyramid`."""
        return _present(self.flow_pyramid)

    def offload(self, copies: HostCopies, apart: bool = False) -> OffloadedFeatures:
        """Start moving the features off their device, so that their memory there can be given up for a while. Where
        asked for they come back :meth:`~.transfer.HostCopies.apart`."""
        parts: list[Offloaded] = []

        def begun(tensor: Tensor) -> Tensor:
            parts.append(copies.offload(tensor, apart))
            return torch.tensor(len(parts) - 1)

        return OffloadedFeatures(self.each(begun), parts)

    def each(self, change: Callable[[Tensor], Tensor]) -> FrameFeatures:
        """Change every tensor of the frames' own, once where it serves in two places."""
        changed: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        return FrameFeatures(
            image=once(self.image),
            flow_image=once(self.flow_image),
            pyramid=[None if level is None else once(level) for level in self.pyramid],
            flow_pyramid=[once(level) for level in self.flow_levels],
            empty=self.empty,
        )

    def beside(self, others: FrameFeatures) -> Iterator[tuple[Tensor, Tensor]]:
        """Every tensor of the frames' own, once, with that in the same place of others of these shapes."""
        given: set[int] = set()
        for own, other in zip(self._places(), others._places(), strict=True):
            if id(own) not in given:
                given.add(id(own))
                yield own, other

    def _places(self) -> list[Tensor]:
        return [self.image, self.flow_image, *_present(self.pyramid), *self.flow_levels]

    def relocate(self, move: Callable[[Tensor], Tensor]) -> None:
        """Put every tensor of the frames' own elsewhere, one after the other. Small ones go first: where they were
        whole segments of an allocator are free, which make room for the large ones."""
        places: dict[int, list[tuple[Any, Any]]] = {}
        held: list[tuple[Any, Any]] = [(vars(self), "image"), (vars(self), "flow_image")]
        held += [(levels, i) for levels in (self.pyramid, self.flow_pyramid) for i in range(len(levels))]
        for holder, key in held:
            if holder[key] is not None:
                places.setdefault(id(holder[key]), []).append((holder, key))
        for same in sorted(places.values(), key=lambda same: same[0][0][same[0][1]].nbytes):
            holder, key = same[0]
            moved = move(holder[key])
            for holder, key in same:
                holder[key] = moved

    def release_flow(self) -> None:
        """Drop what only the flow reads; the flow cannot be computed again."""
        self.flow_pyramid.clear()
        self.pyramid[0] = None
        self.flow_image = self.image


def _present(levels: Sequence[Tensor | None]) -> list[Tensor]:
    return [level for level in levels if level is not None]


def own_copy(features: FrameFeatures | Owned[FrameFeatures]) -> FrameFeatures:
    """A shallow copy, in which the caller may drop one tensor after the other: that frees them where the features were
    handed over, and nothing where they are borrowed."""
    held = features.take() if isinstance(features, Owned) else features
    return replace(held, pyramid=list(held.pyramid), flow_pyramid=list(held.flow_pyramid))


class OffloadedFeatures:
    """Features off their device (see :class:`.transfer.Offloaded`)."""

    def __init__(self, numbers: FrameFeatures, parts: list[Offloaded]) -> None:
        """numbers: in the place of each tensor, which of the parts it is."""
        self._numbers, self._parts, self._released = numbers, parts, False

    def release(self) -> None:
        """To be called before the memory of the features is given up."""
        if not self._released:
            self._released = True
            for part in self._parts:
                part.release()

    def take(self) -> FrameFeatures:
        """The features again, on their device. To be called once, as of an :class:`.rows.owned.Owned`."""
        return self._numbers.each(lambda number: self._parts[int(number)].restore())

    def restore_into(self, features: FrameFeatures) -> None:
        """Write the features over others of their shapes, one tensor at a time. To be called once, instead of
        :meth:`take`."""
        for tensor, number in features.beside(self._numbers):
            tensor.copy_(self._parts[int(number)].restore())

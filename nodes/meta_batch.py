"""Videos that come in batches, one prompt each: VideoHelperSuite's Meta Batch Manager.

The manager is one object for all batches of a video. It counts them in its own `requeue` input, which is 0 in the first
prompt and one more in each that is queued after it, and knows with a batch whether it is the last one. From batch to
batch the last frame is carried over, so that the gap between two batches is interpolated as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from ..tlbvfi.numbers import whole_number
from ..tlbvfi.quoting import quoted
from ..tlbvfi.timeline import Piece
from .wanted import Wanted

log = logging.getLogger(__name__)

#: Frames of the result that come of each batch, at least, where fewer come than there were: one to show, one to hold.
_LEAST = 2
#: Of a video.
MOST_BATCHES = 2**31 - 1


@dataclass(frozen=True)
class Carried:
    """What a node keeps from one batch to the next.

    Attributes:
        batch: the number of the batch that comes next.
        wanted: which frames the video becomes, and what was seen of it until now.
        tail: a copy of the last frame (1, H, W, C).
        index: its place in the video.
        first: a copy of the video's first frame (1, H, W, C), where the video loops.
        held: a frame of the result that was held back for the next batch (1, H, W, 3), or none (0, H, W, 3).
    """

    batch: int
    wanted: Wanted
    tail: Tensor
    index: int
    first: Tensor | None
    held: Tensor


@dataclass(frozen=True)
class Batch:
    """The frames of a batch as a piece of its video.

    Attributes:
        frames: in order: the frame carried over, those of the batch and, at the end of a loop, the video's first one.
        first: the place in the video of the first of them.
        piece: what is wanted of them.
        wanted: and of all of the video.
        carried: what the next batch needs; None after the last one.
        held: the frame of the result that the batch before held back, if any: (1 or 0, H, W, 3).
    """

    frames: list[Tensor]
    first: int
    piece: Piece
    wanted: Wanted
    carried: Carried | None
    held: Tensor

    @staticmethod
    def of(images: Tensor, number: int, ends: bool, wanted: Wanted, before: Carried | None) -> Batch:
        """images: (B, H, W, C) of batch `number`, the last one if `ends`; before: what the batch before it left."""
        if before is not None:
            wanted = before.wanted
        first = before.index if before is not None else 0
        frames = [*(before.tail if before is not None else ()), *images]
        last = first + len(frames) - 1
        opening = before.first if before is not None else images[:1].clone() if wanted.timeline.loop else None
        loops = ends and opening is not None
        if loops and opening is not None:
            frames.append(opening[0])
        piece = Piece(wanted.timeline, before is None, ends, last if loops else None)
        tail = images[-1:].clone()  # a view would keep all of the batch in memory
        held = before.held if before is not None else tail.new_empty(0, *images.shape[1:3], 3, dtype=torch.float32)
        carried = None if ends else Carried(number + 1, wanted, tail, last, opening, held[:0])
        return Batch(frames, first, piece, wanted, carried, held)

    @property
    def gaps(self) -> int:
        """How many gaps are between the frames."""
        return len(self.frames) - 1

    @property
    def last(self) -> int:
        """The place in the video of the last frame that is not the loop's."""
        return self.first + self.gaps - (self.piece.loop_gap is not None)

    @property
    def new(self) -> int:
        """How many frames come of it."""
        whole = self.wanted.timeline
        before = 0 if self.piece.begins else whole.until(self.first)
        return (whole.count(self.last + 1) if self.piece.ends else whole.until(self.last)) - before

    def dealt(self, made: Tensor) -> tuple[Tensor, Carried | None]:
        """The frames of the result that belong to this batch, and what the next one needs.

        Where a batch may have no frame of its own, because fewer come than there were, each holds back its last one:
        nodes that save a video take no empty batch.

        Args:
            made: (F, H, W, 3), the one that was held back before and all of this batch.
        """
        if self.carried is None or self.wanted.frames_for_one >= 1 or len(made) < 2:
            return made, self.carried
        return made[:-1], replace(self.carried, held=made[-1:].clone())

    def check(self, frames_per_batch: int) -> None:
        """Raises ValueError, one sentence, where batches of so many frames may give no frame at all."""
        share = self.wanted.frames_for_one
        if self.carried is not None and share < 1 and frames_per_batch * share < _LEAST:
            raise ValueError(
                f"Batches of {frames_per_batch} frames are too short for {float(self.wanted.fps):g} frames per second: "
                f"set frames_per_batch of the Meta Batch Manager to {ceil(_LEAST / share)} or more."
            )


class Memory:
    """What nodes carry from batch to batch: by manager, with which it goes, and by node."""

    def __init__(self) -> None:
        self._carried: WeakKeyDictionary[Any, dict[str, Carried]] = WeakKeyDictionary()

    def take(self, manager: Any, node: str, number: int) -> Carried | None:
        """What the batch before batch `number` left for a node; None for the first one. It is forgotten here.

        Raises:
            ValueError: that is not the batch before; one sentence.
        """
        carried = self._carried.get(manager, {}).pop(node, None)
        if number == 0:
            return None
        if carried is None or carried.batch != number:
            done = "none is remembered" if carried is None else f"the one that comes next is number {carried.batch + 1}"
            raise ValueError(
                f"Batch number {number + 1} of the meta batch needs the last frame of the batch before it, but {done}; "
                "start the meta batch anew by queueing the workflow once more."
            )
        return carried

    def keep(self, manager: Any, node: str, carried: Carried | None) -> None:
        """Remember what the next batch needs, if there is one."""
        if carried is not None:
            self._carried.setdefault(manager, {})[node] = carried

    def __len__(self) -> int:
        return sum(map(len, self._carried.values()))


#: Of this process.
memory = Memory()


def number_of(manager: Any, prompt: Any) -> int:
    """The number of the batch that a prompt is for, from 0.

    Raises:
        ValueError: `manager` is none, or not of this prompt; one sentence.
    """
    name = _node_name(getattr(manager, "unique_id", None))
    entry = prompt.get(name) if isinstance(prompt, Mapping) and name is not None else None
    given = entry.get("inputs") if isinstance(entry, Mapping) else None
    if not isinstance(given, Mapping) or not hasattr(manager, "has_closed_inputs") or not _may_be_remembered(manager):
        raise ValueError(
            "meta_batch must be linked to VideoHelperSuite's Meta Batch Manager of this workflow, "
            f"not to a {quoted(type(manager).__name__)}."
        )
    number = given.get("requeue")
    return whole_number(
        "requeue of the Meta Batch Manager", 0 if number is None else number, 0, MOST_BATCHES, floats=True
    )


def _node_name(value: Any) -> str | None:
    """A node's name as a prompt has it; None for what is none."""
    return value if isinstance(value, str) else quoted(value) if isinstance(value, int) else None


def _may_be_remembered(manager: Any) -> bool:
    """Whether a manager can be a key of :class:`Memory`."""
    try:
        hash(ref(manager))
    except TypeError:
        return False
    return True


def warn_of_unlinked_manager(prompt: Any, node: str) -> None:
    """A line in the log where a node's images come in batches that it is not told of."""
    if isinstance(prompt, Mapping) and _has_manager(prompt, node):
        log.warning(
            "TLB-VFI: the images come from a node with a Meta Batch Manager: link that to meta_batch here too, or the "
            "frames between two batches are missing."
        )


def _has_manager(prompt: Mapping[str, Any], node: str) -> bool:
    """Whether a node, or one that it gets something from, has an input from a Meta Batch Manager."""
    seen, waiting = {node}, [node]
    while waiting:
        entry = prompt.get(waiting.pop())
        if not isinstance(entry, Mapping):
            continue
        if entry.get("class_type") == "VHS_BatchManager":
            return True
        given = entry.get("inputs")
        for value in given.values() if isinstance(given, Mapping) else ():
            # A link is a node's name and the number of its output.
            name = _node_name(value[0]) if isinstance(value, (list, tuple)) and value else None
            if name is not None and name not in seen:
                seen.add(name)
                waiting.append(name)
    return False

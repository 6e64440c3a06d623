"""VideoHelperSuite's Meta Batch Manager and its Load Video, as much of them as other nodes see.

The manager is one object for all batches; each batch is a prompt of its own, in which the manager's input `requeue` is
one more than in the one before. The loader takes frames from a generator that looks one frame ahead, so that the
manager knows with the last frame that there are no more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

MANAGER = "5"


class Manager:
    """What is passed along the link."""

    def __init__(self, unique_id: str, frames_per_batch: int = 16) -> None:
        self.unique_id, self.frames_per_batch = unique_id, frames_per_batch
        self.has_closed_inputs = False


def batches(video: Tensor, frames_per_batch: int) -> Iterator[tuple[Tensor, Manager, dict[str, Any]]]:
    """What a node gets in each prompt: its images, the manager, and the prompt."""
    manager = Manager(MANAGER, frames_per_batch)
    prompt: dict[str, Any] = {
        MANAGER: {"class_type": "VHS_BatchManager", "inputs": {"frames_per_batch": frames_per_batch}},
    }

    def load() -> Iterator[Tensor]:
        last = None
        for frame in video:
            if last is not None:
                yield last
            last = frame
        manager.has_closed_inputs = True
        if last is not None:
            yield last

    frames = load()
    for number in range(len(video)):
        taken = list(islice(frames, frames_per_batch))
        if not taken:
            return
        yield torch.stack(taken), manager, copy.deepcopy(prompt)
        prompt[MANAGER]["inputs"]["requeue"] = number + 1


def unlinked() -> dict[str, Any]:
    """A prompt in which a node's images come in batches, and the node is not told."""
    return {
        MANAGER: {"class_type": "VHS_BatchManager", "inputs": {"frames_per_batch": 4}},
        "6": {"class_type": "VHS_LoadVideo", "inputs": {"video": "a.mp4", "meta_batch": [MANAGER, 0]}},
        "7": {"class_type": "TLBVFI_VideoInterpolator", "inputs": {"images": ["6", 0], "multiplier": 2}},
    }

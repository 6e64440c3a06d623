"""Batches for a stage, from a step on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .options import Options
from .shards import ShardDataset
from .stages.stage import Stage
from .views import Batch, View

Seen = TypeVar("Seen")


def batches(options: Options, stage: Stage, start: int) -> Iterator[tuple[bool, View, Batch]]:
    """Batches from a step on: whether of real triplets, how the step looks at it, and what it sees. Which triplets and
    which view depends on the step alone."""
    share = 0.0 if options.clips is None else options.clip_share
    rendered = ShardDataset(options.data, stage.crop, seed=options.seed)
    real = rendered if options.clips is None else ShardDataset(options.clips, stage.crop, seed=options.seed)
    generator = torch.Generator()
    for step in itertools.count(start):
        before, after = int(step * share), int((step + 1) * share)
        view = stage.view(options.reseed(generator, step, "view"))
        source, number = (real, before) if after > before else (rendered, step - before)
        yield after > before, view, source.batch(number, options.batch, view.crop, halved=view.halved)


def prefetched(batches: Iterator[Seen]) -> Iterator[Seen]:
    """The next batch is made in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches)
        while True:
            batch = coming.result()
            coming = pool.submit(next, batches)
            yield batch

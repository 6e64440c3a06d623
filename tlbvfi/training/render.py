"""Procedurally rendered motion: three frames of a layered scene with exact flows.

A scene is a background and some layers (photographs cut by random masks, sprites, text, strokes, shadows) in a fixed
order of occlusion; :mod:`.motion` says how they move. Flows are (dx, dy) in pixels.

    python -m tlbvfi.training.render --store DIR --out DIR --count 30000 --size 256 --seed 0

renders shards for `ShardDataset`, two processes, and continues where an earlier run stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .chance import RenderConfig
from .scene_maker import SceneMaker
from .scenes import render_scene
from .shards import half_resolution, write_shard
from .store import TextureStore

log = logging.getLogger(__name__)


def render_batch(
    store: TextureStore,
    batch: int,
    size: int,
    generator: torch.Generator | int,
    config: RenderConfig | None = None,
) -> dict[str, Tensor]:
    """Renders `batch` triplets of `size` x `size`.

    Returns x0, xm, x1: float32 (B, 3, H, W) in [0, 1]; flow0, flow1: float32 (B, 2, H, W), pixels (dx, dy) from
    the middle frame: xm(p) is x0(p + flow0(p)); valid0, valid1: bool (B, 1, H, W), the same point is seen there.
    The same generator state (or seed) gives the same batch.
    """
    if isinstance(generator, int):
        seed = generator
    else:
        seed = int(torch.randint(2**62, (1,), generator=generator))
    config = config or RenderConfig()
    maker = SceneMaker(store, size, config)
    samples = []
    for number in range(batch):
        scene = maker.make(np.random.default_rng([seed, number]))
        samples.append(render_scene(scene, config.oversample))
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def _render_shard(job: tuple[str, str, int, int, int, int]) -> tuple[int, float]:
    """Renders one shard unless it is there; returns its number and the seconds it took."""
    store_folder, out, number, count, size, seed = job
    target = Path(out) / f"shard-{number:05d}"
    if target.with_suffix(".frames.npy").exists():
        return number, 0.0
    started = time.perf_counter()
    torch.set_num_threads(1)
    store = TextureStore.open(store_folder)
    frames = np.empty((count, 3, 3, size, size), np.uint8)
    flows = np.empty((count, 2, 2, size // 2, size // 2), np.float16)
    valids = np.empty((count, 2, size // 2, size // 2), np.uint8)
    maker = SceneMaker(store, size, RenderConfig())
    for i in range(count):
        sample = render_scene(maker.make(np.random.default_rng([seed, number, i])))
        for k, key in enumerate(("x0", "xm", "x1")):
            frames[i, k] = (sample[key] * 255.0).round().to(torch.uint8).numpy()
        for k in range(2):
            flow, valid = half_resolution(sample[f"flow{k}"], sample[f"valid{k}"])
            flows[i, k], valids[i, k] = flow.clamp(-1000, 1000).numpy(), valid[0].numpy()
    write_shard(target, frames, flows, valids)
    return number, time.perf_counter() - started


def prerender(
    store: Path, out: Path, count: int, size: int = 256, seed: int = 0, per_shard: int = 250, workers: int = 2
) -> None:
    """Writes shards until there are `count` triplets; shards already written with the same settings stay."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {"size": size, "seed": seed, "per_shard": per_shard}
    described = out / "shards.json"
    if described.exists() and json.loads(described.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{out} holds shards of other settings: {described.read_text(encoding='utf-8')}")
    described.write_text(json.dumps(settings), encoding="utf-8")
    numbers = range(math.ceil(count / per_shard))
    jobs = [(str(store), str(out), number, per_shard, size, seed) for number in numbers]
    done = 0
    with get_context("spawn").Pool(workers) as pool:
        for number, seconds in pool.imap_unordered(_render_shard, jobs):
            done += 1
            each = 1000 * seconds / per_shard
            log.info("shard %d, %.1f ms a triplet; %d of %d", number, each, done, len(jobs))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training.render", description="Render training triplets to shards."
    )
    parser.add_argument("--store", type=Path, required=True, help="the store written by tlbvfi.training.sources")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    if args.size % 2 or args.size < 32:
        parser.error("--size must be even and at least 32")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    prerender(args.store, args.out, args.count, args.size, args.seed, workers=args.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())

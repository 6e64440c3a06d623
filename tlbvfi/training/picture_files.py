"""Pictures in unpacked packages: found, decoded, sorted into groups."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .store import premultiply

LONG_SIDE = 1600
PANORAMA_SIDE = 3200
SPRITE_SIDE = 512
MOST_PIXELS = 40_000_000
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tga"}


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


def fit(image: Image.Image, long_side: int) -> Image.Image:
    """The picture, shrunk where its longer side is more."""
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
        image = fit(rgba.convert("RGB"), PANORAMA_SIDE if ratio > 2.4 else LONG_SIDE)
        pixels = np.asarray(image)
        if group == "sprite":
            group = "graphic"
    elif clear > 0.04 and 0.03 < float((alpha > 128).mean()) < 0.97:
        group = "sprite"
        rows, columns = np.nonzero(alpha > 16)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        straight = np.asarray(rgba.crop(box))
        premultiplied = Image.fromarray(premultiply(straight), "RGBA")
        channels = [fit(channel, SPRITE_SIDE) for channel in premultiplied.split()]
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


def fingerprint(pixels: np.ndarray) -> bytes:
    """What near duplicates of a picture (H, W, C) uint8 have in common with it."""
    small = Image.fromarray(pixels[..., :3]).convert("L").resize((8, 8), Image.Resampling.BOX)
    return (np.asarray(small) // 12).astype(np.uint8).tobytes()

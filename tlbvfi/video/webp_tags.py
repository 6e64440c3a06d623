"""Texts in a WebP file, which FFmpeg does not write: as EXIF, where ComfyUI's page looks for the workflow."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

#: EXIF's tags of camera makers and models, which pictures saved by ComfyUI have these texts under.
_TAGS = {"workflow": 0x010F, "prompt": 0x0110}
_ASCII = 2
#: Of the chunk VP8X: the file has a chunk EXIF.
_HAS_EXIF = 0x08
#: Where the flags are in a file that begins with it.
_FLAGS_AT = 20
#: Of all a RIFF file holds.
_LARGEST = 2**32 - 10


def add_tags(path: Path, metadata: Mapping[str, str]) -> None:
    """Put those of the texts that have a tag at the end of an animation; where it has no place for them, nothing."""
    texts = {tag: metadata[name] for name, tag in _TAGS.items() if name in metadata}
    with path.open("r+b") as file:
        head = file.read(_FLAGS_AT + 1)
        if not texts or len(head) <= _FLAGS_AT or head[12:16] != b"VP8X":
            return
        chunk = _chunk(b"EXIF", _exif(texts))
        size = file.seek(0, 2)
        if size + len(chunk) - 8 > _LARGEST:
            return
        file.write(chunk)
        file.seek(4)
        file.write(struct.pack("<I", size + len(chunk) - 8))
        file.seek(_FLAGS_AT)
        file.write(bytes([head[_FLAGS_AT] | _HAS_EXIF]))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _exif(texts: Mapping[int, str]) -> bytes:
    """A TIFF header and one directory of texts. Each begins with the word that its tag is called by here."""
    names = {tag: name for name, tag in _TAGS.items()}
    values = [(tag, f"{names[tag]}:{text}".encode() + b"\0") for tag, text in sorted(texts.items())]
    place = 8 + 2 + 12 * len(values) + 4
    entries = b""
    for tag, value in values:
        entries += struct.pack("<HHII", tag, _ASCII, len(value), place)
        place += len(value)
    head = b"II*\0" + struct.pack("<IH", 8, len(values))
    return head + entries + struct.pack("<I", 0) + b"".join(value for _, value in values)

"""How a stored picture lies, turned by quarters or mirrored: by a display matrix or EXIF."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

_ORIENTATION_TAG = 274
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # TIFF's BYTE, SHORT and LONG
_TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">"}
_EXIF = b"Exif\0"
_PNG, _PNG_EXIF, _PNG_OPACITY, _JPEG = b"\x89PNG\r\n\x1a\n", b"eXIf", b"tRNS", b"\xff\xd8"
#: Kinds of segments of a JPEG that have no length.
_BARE = (0x01, *range(0xD0, 0xD9))
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
_MOST = 1 << 20  # bytes of a file's EXIF that are looked at
_MATRIX = struct.Struct("9i")


@dataclass(frozen=True)
class Orientation:
    """What makes a stored picture upright.

    Attributes:
        quarter_turns: by which it is turned anticlockwise, 0 to 3.
        mirrored: left and right are exchanged then.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def is_turned(self) -> bool:
        """Whether width and height are exchanged."""
        return self.quarter_turns % 2 == 1

    def upright(self, picture: Tensor) -> Tensor:
        """The upright picture of a stored one, (H, W, ...)."""
        if self.quarter_turns:
            picture = torch.rot90(picture, self.quarter_turns, (0, 1))
        if self.mirrored:
            picture = picture.flip(1)
        return picture.contiguous()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture, of those of the stored one; and back."""
        return (height, width) if self.is_turned else (width, height)

    @property
    def _matrix(self) -> tuple[int, int, int, int]:
        """(a, b, c, d): the place (x, y) of the stored picture becomes (a x + c y, b x + d y); y goes down."""
        a, b, c, d = 1, 0, 0, 1
        for _ in range(self.quarter_turns):  # (x, y) -> (y, -x)
            a, b, c, d = b, -a, d, -c
        return (-a, b, -c, d) if self.mirrored else (a, b, c, d)


UPRIGHT = Orientation()
_ALL = [Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
#: By the numbers of TIFF and EXIF.
_BY_TAG = {
    1: UPRIGHT,
    2: Orientation(0, True),
    3: Orientation(2),
    4: Orientation(2, True),
    5: Orientation(3, True),
    6: Orientation(3),
    7: Orientation(1, True),
    8: Orientation(1),
}


def of_matrix(data: bytes) -> Orientation:
    """What a display matrix (nine numbers, as FFmpeg keeps those of MP4) comes nearest to."""
    if len(data) < _MATRIX.size:
        return UPRIGHT
    a, b, _, c, d, *_ = _MATRIX.unpack_from(data)
    return max(_ALL, key=lambda each: sum(x * y for x, y in zip(each._matrix, (a, b, c, d), strict=True)))


def of_picture(stream: BinaryIO) -> Orientation:
    """What a picture file states: in the EXIF of a JPEG, PNG or WebP, or as a TIFF; upright where that is damaged."""
    stream.seek(0)
    head = stream.read(12)
    with suppress(OSError, ValueError, IndexError, struct.error, zlib.error):
        if head[:4] in _TIFF_HEADS:
            return _of_tiff(stream)
        parts: Iterator[bytes] = iter(())
        if head.startswith(_JPEG):
            parts = _jpeg_parts(stream)
        elif head.startswith(_PNG):
            parts = _png_parts(stream)
        elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
            parts = _webp_parts(stream)
        for part in parts:
            with suppress(ValueError, IndexError, struct.error):
                return _of_tiff(io.BytesIO(part[len(_EXIF) + 1 :] if part.startswith(_EXIF) else part))
    return UPRIGHT


def _jpeg_parts(stream: BinaryIO) -> Iterator[bytes]:
    """What the segments of a JPEG hold that may be EXIF."""
    stream.seek(len(_JPEG))
    while stream.read(1) == b"\xff":
        while (kind := stream.read(1)) == b"\xff":  # filling
            pass
        if not kind or kind[0] in (_SCAN, _END):
            return
        if kind[0] in _BARE:
            continue
        size = int.from_bytes(stream.read(2), "big") - 2
        if size < 0:
            return
        after = stream.tell() + size
        if kind[0] == _APP1 and (data := stream.read(size)).startswith(_EXIF):
            yield data
        stream.seek(after)


def _png_parts(stream: BinaryIO) -> Iterator[bytes]:
    """What the chunks of a PNG hold that are EXIF, before or after the picture."""
    for kind, begin, end in _png_chunks(stream):
        if kind != _PNG_EXIF or end - begin > _MOST:
            continue
        stream.seek(begin + 4)
        kind_and_data, check = stream.read(end - begin - 8), stream.read(4)
        if zlib.crc32(kind_and_data) == int.from_bytes(check, "big"):
            yield kind_and_data[4:]


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The names of a PNG's chunks, and where they begin and end."""
    end = len(_PNG)
    stream.seek(end)
    while len(head := stream.read(8)) == 8 and (kind := head[4:]) != b"IEND":
        begin, end = end, end + int.from_bytes(head[:4], "big") + 12
        yield kind, begin, end
        stream.seek(end)


def without_png_extras(stream: BinaryIO) -> bytes | None:
    """A PNG without the chunks that the colours and the opacity of its picture do not need; None where it has none, or
    is no PNG."""
    stream.seek(0)
    if stream.read(len(_PNG)) != _PNG:
        return None
    places = [(begin, end) for kind, begin, end in _png_chunks(stream) if kind[:1].islower() and kind != _PNG_OPACITY]
    if not places:
        return None
    stream.seek(0)
    data, kept, last = stream.read(), [], 0
    for begin, end in places:
        kept.append(data[last:begin])
        last = end
    return b"".join([*kept, data[last:]])


def _webp_parts(stream: BinaryIO) -> Iterator[bytes]:
    """What the chunks of a WebP hold that are EXIF."""
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        after = stream.tell() + size + size % 2
        if head[:4] == b"EXIF" and size <= _MOST:
            yield stream.read(size)
        stream.seek(after)


def _of_tiff(stream: BinaryIO) -> Orientation:
    """What a TIFF states. Raises ValueError or struct.error where it is damaged."""
    return _BY_TAG.get(tiff_number(stream, _ORIENTATION_TAG) or 0, UPRIGHT)


def tiff_number(stream: BinaryIO, wanted: int) -> int | None:
    """The one number under a tag of the first directory of a TIFF; None where there is none.

    Raises:
        ValueError, struct.error: it is damaged, or no TIFF.
    """
    stream.seek(0)
    order = _TIFF_HEADS.get(stream.read(4))
    if order is None:
        raise ValueError("no TIFF")
    (place,) = struct.unpack(f"{order}I", stream.read(4))
    stream.seek(place)
    (count,) = struct.unpack(f"{order}H", stream.read(2))
    for _ in range(count):
        entry = stream.read(12)
        tag, kind, values = struct.unpack_from(f"{order}HHI", entry)
        if tag == wanted:
            if kind not in _NUMBERS or values != 1:
                return None
            return int(struct.unpack_from(order + _NUMBERS[kind], entry, 8)[0])
    return None

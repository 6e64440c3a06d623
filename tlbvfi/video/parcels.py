"""Frames of a video as bytes that can be sent to another machine: a plain header, and blobs.

A parcel holds the packets from which frames are decoded (:mod:`.parcel_packets`); or the frames themselves, compressed,
where they need more of the file than is certain (:mod:`.parcel_frames`). Nothing in it is run.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .colour import Colour
from .hdr import Mastering
from .pyav import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reading import VideoInfo

_MAGIC = b"TLB-VFI frames 1\n"
_HEAD = struct.Struct(">QQII")  # bytes of the header and of the blobs, and the checksums of both
#: Larger numbers in a header are absurd: sides of a picture, pixels of it, frames of a video, packets of a parcel.
MOST_SIDE, MOST_PIXELS, MOST_FRAMES = 1 << 16, 1 << 29, 1 << 31

Header = Mapping[str, Any]


@dataclass(frozen=True)
class Parcel:
    """What is in one.

    Attributes:
        kind: "packets" or "frames".
        first, count: the frames for which it was asked.
        info: what the whole video is.
        header: what else it says.
        blobs: what it holds.
    """

    kind: str
    first: int
    count: int
    info: VideoInfo
    header: Header
    blobs: Sequence[memoryview]

    @staticmethod
    def opened(data: bytes | bytearray | memoryview) -> Parcel:
        """The parcel of some bytes.

        Raises:
            VideoError: they are none, or damaged.
        """
        with reading_parcel():
            header, blobs = _taken_apart(memoryview(data).cast("B"))
            kind, first, count = header["kind"], whole(header["first"]), whole(header["count"])
            if kind not in ("packets", "frames"):
                raise ValueError(f"kind {kind!r}")
            return Parcel(kind, first, count, _info_from(header["info"]), header, blobs)


def packed(kind: str, first: int, count: int, info: VideoInfo, header: Header, blobs: Sequence[bytes]) -> bytes:
    """The bytes of a parcel."""
    said = {"kind": kind, "first": first, "count": count, "info": _info_to(info), **header}
    said["blobs"] = list(map(len, blobs))
    text, body = json.dumps(said, separators=(",", ":")).encode(), b"".join(blobs)
    return b"".join((_MAGIC, _HEAD.pack(len(text), len(body), zlib.crc32(text), zlib.crc32(body)), text, body))


def _taken_apart(data: memoryview) -> tuple[Header, list[memoryview]]:
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("they begin otherwise")
    begin = len(_MAGIC) + _HEAD.size
    if len(data) < begin:
        raise ValueError("they end early")
    of_header, of_body, check, body_check = _HEAD.unpack_from(data, len(_MAGIC))
    if len(data) != begin + of_header + of_body:
        raise ValueError(f"there are {len(data)} of {begin + of_header + of_body}")
    text, body = data[begin : begin + of_header], data[begin + of_header :]
    if zlib.crc32(text) != check or zlib.crc32(body) != body_check:
        raise ValueError("a checksum is wrong")
    header = json.loads(bytes(text))
    blobs, place = [], 0
    for size in header["blobs"]:
        blobs.append(body[place : place + whole(size)])
        place += size
    if place != of_body:
        raise ValueError("parts have other sizes")
    return header, blobs


@contextmanager
def reading_parcel() -> Iterator[None]:
    """What a parcel says wrongly becomes a sentence."""
    try:
        yield
    except VideoError:
        raise
    except (
        ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, ArithmeticError,
        struct.error, zlib.error,
    ) as error:  # fmt: skip
        why = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0] if str(error) else "odd"
        raise VideoError(
            f"These bytes are no parcel of frames, or a damaged one ({why[:200]}); pack it anew."
        ) from None


def whole(value: object, most: int = MOST_FRAMES, least: int = 0) -> int:
    """A whole number of a header.

    Raises:
        ValueError: it is none, or absurd.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is no number from {least} to {most}")
    return value


def fraction(text: object) -> Fraction:
    """A fraction of a header. Raises ValueError, ZeroDivisionError."""
    if not isinstance(text, str) or len(text) > 100 or not set(text) <= set("-0123456789/"):
        raise ValueError(f"{text!r} is no fraction")
    return Fraction(text)


def size_from(values: object) -> tuple[int, int]:
    """(H, W) of a picture. Raises ValueError."""
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(f"{values!r} is no size")
    height, width = (whole(value, MOST_SIDE, 1) for value in values)
    if height * width > MOST_PIXELS:
        raise ValueError(f"{width}x{height} is no size")
    return height, width


def _plain(value: object) -> object:
    """A value of JSON."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, tuple):
        return list(map(_plain, value))
    if isinstance(value, Colour | Mastering):
        return _values(value)
    return value


def _values(item: Any, names: Iterable[str] | None = None) -> dict[str, object]:
    return {name: _plain(getattr(item, name)) for name in names or (each.name for each in fields(item))}


def _info_to(info: VideoInfo) -> dict[str, object]:
    return _values(info)


def _info_from(values: Any) -> VideoInfo:
    from .reading import VideoInfo  # which imports this

    height, width = size_from([values["height"], values["width"]])
    colour, mastering = values["colour"], values["mastering"]
    rate = None if values["fps"] is None else fraction(values["fps"])
    if rate is not None and rate <= 0:
        raise ValueError(f"{rate} frames per second")
    return VideoInfo(
        width, height, rate,
        None if values["frame_count"] is None else whole(values["frame_count"]),
        None if values["duration"] is None else fraction(values["duration"]),
        whole(values["sound"]),
        fraction(values["pixel_aspect"]),
        Colour(
            whole(colour["matrix"], 255), whole(colour["primaries"], 255), whole(colour["transfer"], 255),
            colour["full_range"] is True, whole(colour["bits"], 16, 1),
        ),
        whole(values["quarter_turns"], 3),
        None if mastering is None else _mastering_from(mastering),
        values["alpha"] is True,
    )  # fmt: skip


def _mastering_from(values: Any) -> Mastering:
    display, light = values["display"], values["light"]
    if display is not None and len(display) != 10:
        raise ValueError("no display")
    if light is not None and len(light) != 2:
        raise ValueError("no light")
    return Mastering(
        None if display is None else tuple(map(fraction, display)),
        None if light is None else (whole(light[0], 1 << 32), whole(light[1], 1 << 32)),
    )

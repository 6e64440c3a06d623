"""Small H.264 streams, written bit by bit: frames, pairs of fields, and frames whose macroblocks are fields.

Every macroblock holds its samples as they are (I_PCM), so that a decoder gives exactly what went in.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
#: How a frame is coded.
FRAME, MIXED, TOP_FIRST, BOTTOM_FIRST = "frame", "mbaff", "top field first", "bottom field first"
_SLICE, _IDR, _SEI, _SPS, _PPS, _DELIMITER = 1, 5, 6, 7, 8, 9


class Bits:
    """Bits in their order."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def u(self, count: int, value: int) -> None:
        """An unsigned number of so many bits."""
        self._bits.append(f"{value:0{count}b}"[-count:])

    def ue(self, value: int) -> None:
        """Exp-Golomb."""
        code = f"{value + 1:b}"
        self._bits.append("0" * (len(code) - 1) + code)

    def se(self, value: int) -> None:
        """Exp-Golomb with a sign."""
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def samples(self, data: bytes) -> None:
        """Bytes, aligned."""
        length = sum(map(len, self._bits))
        self._bits.append("0" * (-length % 8))
        self._bits.append("".join(f"{byte:08b}" for byte in data))

    def done(self) -> bytes:
        """All with the closing bit."""
        text = "".join(self._bits) + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def nal(kind: int, payload: bytes, reference: int = 3) -> bytes:
    """A unit with its start code."""
    escaped, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([reference << 5 | kind]) + bytes(escaped)


@dataclass(frozen=True)
class Stream:
    """What a stream states of itself."""

    width: int
    height: int
    rate: Fraction
    mixed: bool = False
    pictures_say: bool = False  # by a message, how they are shown
    reordered: int = 0

    def head(self) -> bytes:
        """Its parameter sets."""
        bits = Bits()
        bits.u(8, 77), bits.u(8, 0), bits.u(8, 30)
        bits.ue(0), bits.ue(4), bits.ue(0), bits.ue(4)  # frame numbers and places of eight bits
        bits.ue(2), bits.u(1, 0)
        bits.ue(self.width // 16 - 1), bits.ue(self.height // 32 - 1)
        bits.u(1, 0), bits.u(1, self.mixed), bits.u(1, 1), bits.u(1, 0)
        bits.u(1, 1)  # usability
        bits.u(4, 0), bits.u(1, 1)
        bits.u(32, self.rate.denominator), bits.u(32, 2 * self.rate.numerator), bits.u(1, 1)
        bits.u(2, 0), bits.u(1, self.pictures_say), bits.u(1, 1)
        bits.u(1, 1), bits.ue(0), bits.ue(0), bits.ue(10), bits.ue(10), bits.ue(self.reordered), bits.ue(2)
        pictures = Bits()
        pictures.ue(0), pictures.ue(0), pictures.u(1, 0), pictures.u(1, 1), pictures.ue(0), pictures.ue(0)
        pictures.ue(0), pictures.u(3, 0), pictures.se(0), pictures.se(0), pictures.se(0), pictures.u(3, 0b100)
        return nal(_SPS, bits.done()) + nal(_PPS, pictures.done())

    def picture(
        self, planes: list[Plane], number: int, place: int, kind: str, key: bool, shown: int = 0
    ) -> list[bytes]:
        """A frame, in one part or in two of a field each; without parameter sets.

        Args:
            number: of the frame since the last key frame, in the order of decoding.
            place: in the order of showing, two for each frame.
            shown: the number of the way in which it is shown (pic_struct).
        """
        said = b""
        if self.pictures_say:
            bits = Bits()
            bits.u(4, shown), bits.u({0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 7: 2}.get(shown, 3), 0)
            body = bits.done()
            said = nal(_SEI, bytes([1, len(body)]) + body + b"\x80", 0)
        delimiter = nal(_DELIMITER, b"\xf0", 0)
        if kind in (FRAME, MIXED):
            return [delimiter + said + self._slice(planes, number, place, kind, key, None)]
        first = int(kind == BOTTOM_FIRST)
        return [
            delimiter
            + said
            + self._slice([plane[field::2] for plane in planes], number, place + late, kind, key and not late, field)
            for late, field in enumerate((first, 1 - first))
        ]

    def _slice(self, planes: list[Plane], number: int, place: int, kind: str, key: bool, field: int | None) -> bytes:
        bits = Bits()
        bits.ue(0), bits.ue(7), bits.ue(0), bits.u(8, number % 256)
        bits.u(1, field is not None)
        if field is not None:
            bits.u(1, field)
        if key:
            bits.ue(number % 2)
        bits.u(8, place % 256)
        if field is None:
            bits.se(1)  # the bottom field after the top one
        bits.u(2, 0) if key else bits.u(1, 0)
        bits.se(0), bits.ue(1)
        luma, *chroma = planes
        height, width = luma.shape
        if self.mixed and field is None:
            for row in range(0, height, 32):
                for column in range(0, width, 16):
                    parts = [
                        plane[row // s : (row + 32) // s, column // s : (column + 16) // s]
                        for plane, s in ((luma, 1), *((c, 2) for c in chroma))
                    ]
                    bits.u(1, kind == MIXED)
                    for half in (0, 1):
                        bits.ue(25)
                        chosen = [p[half::2] if kind == MIXED else np.split(p, 2)[half] for p in parts]
                        bits.samples(b"".join(p.tobytes() for p in chosen))
        else:
            for row in range(0, height, 16):
                for column in range(0, width, 16):
                    parts = [
                        plane[row // s : (row + 16) // s, column // s : (column + 16) // s]
                        for plane, s in ((luma, 1), *((c, 2) for c in chroma))
                    ]
                    bits.ue(25)
                    bits.samples(b"".join(p.tobytes() for p in parts))
        return nal(_IDR if key else _SLICE, bits.done())


@dataclass(frozen=True)
class Coded:
    """One frame in the order of decoding.

    Attributes:
        parts: its picture, or its two fields.
        shown: its place among those that are shown, in frames.
    """

    parts: list[bytes]
    shown: int
    key: bool


def coded(
    stream: Stream, frames: list[list[Plane]], kinds: list[str], group: int = 5, shown: list[int] | None = None
) -> list[Coded]:
    """Frames, each coded in its kind; a key frame begins every group.

    With ``stream.reordered``, pairs of frames after a key frame are decoded in the other order than shown.
    """
    order = list(range(len(frames)))
    if stream.reordered:
        for begin in range(0, len(frames), group):
            for index in range(begin + 1, min(begin + group, len(frames)) - 1, 2):
                order[index], order[index + 1] = order[index + 1], order[index]
    result, number = [], 0
    for index in order:
        begin = index // group * group
        key = index == begin
        number = 0 if key else number + 1
        parts = stream.picture(
            frames[index], number, 2 * (index - begin), kinds[index], key, shown[index] if shown else 0
        )
        if key:
            delimiter, rest = parts[0][:6], parts[0][6:]
            parts[0] = delimiter + stream.head() + rest
        result.append(Coded(parts, index, key))
    return result


def muxed(
    path: Path, stream: Stream, frames: list[Coded], apart: bool, times: list[Fraction] | None = None, sound: Any = None
) -> Path:
    """The frames in a file, by its suffix.

    Args:
        apart: a packet for each field, else one for both.
        times: when each is shown, in frames, by its place; else all are even.
        sound: packets of a sound track: made by a function of the container.
    """
    bare = path.with_suffix(".bare.h264")
    bare.write_bytes(b"".join(b"".join(each.parts) for each in frames))
    if path.suffix == ".h264":
        return bare.replace(path)
    late = stream.reordered
    formats = {".ts": "mpegts", ".mkv": "matroska", ".m2ts": "mpegts"}
    with (
        av.open(str(bare), format="h264") as pattern,
        av.open(str(path), "w", format=formats.get(path.suffix)) as container,
    ):
        video = container.add_stream_from_template(pattern.streams.video[0], opaque=True)
        with suppress(RuntimeError):  # not in PyAV before 15
            video.time_base = Fraction(1, 90000)
        clock = Fraction(90000) / stream.rate
        packets = []
        for index, each in enumerate(frames):
            place = Fraction(each.shown) if times is None else times[each.shown]
            for half, part in enumerate(each.parts if apart else [b"".join(each.parts)]):
                packet = av.Packet(part)
                packet.stream, packet.time_base = video, Fraction(1, 90000)
                step = Fraction(half, 2)
                packet.pts, packet.dts = (
                    round((place + late + step) * clock),
                    round(((Fraction(index) if times is None else times[index]) + step) * clock),
                )
                packet.duration = round(clock / (2 if apart and len(each.parts) == 2 else 1))
                packet.is_keyframe = each.key and not half
                packets.append(packet)
        packets += sound(container, late / stream.rate) if sound else []
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    bare.unlink()
    return path

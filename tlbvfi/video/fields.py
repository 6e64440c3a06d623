"""Which packets of H.264 hold the second field of a frame whose first field is in the packet before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_SLICE, _KEY_SLICE, _SEQUENCE, _PICTURES = 1, 5, 7, 8  # kinds of units
#: Profiles that state the kind of chroma.
_HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
#: Bytes of a unit that are looked at: parameter sets are short, and so is what begins a slice.
_BEGIN = 512


class SecondFields:
    """Looks at the packets of a stream in their order."""

    def __init__(self, stream: VideoStream) -> None:
        self._sequences: dict[int, tuple[bool, bool, int]] = {}  # may be fields, planes apart, bits of a number
        self._pictures: dict[int, int] = {}  # parameter sets, and those of the sequence that they belong to
        self._first: tuple[int, int] | None = None  # the number of a frame and which of its fields came
        self._is_h264 = stream.codec_context.name == "h264"
        extra = bytes(stream.codec_context.extradata or b"") if self._is_h264 else b""
        self._length = 0  # bytes that state how long a unit is; none where each has a start code
        if len(extra) > 6 and extra[0] == 1:
            self._length = (extra[4] & 3) + 1
            for unit in _configured(extra):
                self._learn(unit)
        else:
            for unit in _units(extra, 0):
                self._learn(unit)

    @property
    def possible(self) -> bool:
        """Whether there may be any, as far as is known by now."""
        return self._is_h264 and (not self._sequences or any(fields for fields, _, _ in self._sequences.values()))

    def is_second(self, packet: Packet[Any]) -> bool:
        """Whether the next packet is the second field of the frame of the one before."""
        if not self.possible:
            return False
        seen: set[tuple[int, int] | None] = set()
        for unit in _units(bytes(packet), self._length):
            kind = unit[0] & 31
            if kind in (_SEQUENCE, _PICTURES):
                self._learn(unit)
            elif kind in (_SLICE, _KEY_SLICE):
                seen.add(self._field(unit))
        before, self._first = self._first, None
        if len(seen) != 1 or (field := seen.pop()) is None:  # a whole frame, or both fields
            return False
        number, bottom = field
        if before == (number, 1 - bottom):
            return True
        self._first = field
        return False

    def _learn(self, unit: bytes) -> None:
        try:
            bits = _Bits(unit[1:])
            if unit[0] & 31 == _SEQUENCE:
                number, found = _sequence(bits)
                self._sequences[number] = found
            elif unit[0] & 31 == _PICTURES:
                number = bits.golomb()
                self._pictures[number] = bits.golomb()
        except (IndexError, ValueError):
            return  # cut short: as if it were not there

    def _field(self, unit: bytes) -> tuple[int, int] | None:
        """The number of a slice's frame and which field it belongs to; None for one of a whole frame."""
        try:
            bits = _Bits(unit[1:64])
            bits.golomb(), bits.golomb()
            fields, apart, size = self._sequences[self._pictures[bits.golomb()]]
            bits.number(2 if apart else 0)
            number = bits.number(size)
            return (number, bits.number(1)) if fields and bits.number(1) else None
        except (IndexError, KeyError, ValueError):
            return None


def _sequence(bits: _Bits) -> tuple[int, tuple[bool, bool, int]]:
    """Of a sequence's parameter set: its number; whether pictures may be fields, whether colours are coded apart, and
    the bits of a frame's number."""
    profile = bits.number(8)
    bits.number(16)
    number, apart = bits.golomb(), False
    if profile in _HIGH:
        chroma = bits.golomb()
        apart = chroma == 3 and bool(bits.number(1))
        bits.golomb(), bits.golomb(), bits.number(1)
        if bits.number(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.number(1):
                    _pass_over_scaling(bits, 16 if index < 6 else 64)
    size = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.number(1)
        bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.number(1)
    bits.golomb(), bits.golomb()
    return number, (not bits.number(1), apart, size)


def _pass_over_scaling(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.golomb()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _Bits:
    """The bits of a unit, without the bytes that keep start codes out of it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data.replace(b"\0\0\3", b"\0\0"), 0

    def number(self, count: int) -> int:
        value = 0
        for place in range(self._place, self._place + count):
            value = value << 1 | (self._data[place >> 3] >> (7 - (place & 7)) & 1)
        self._place += count
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.number(1):
            zeros += 1
            if zeros > 32:
                raise ValueError(zeros)
        return (1 << zeros) - 1 + self.number(zeros)


def _units(data: bytes, length: int) -> Iterator[bytes]:
    """The begins of a packet's units."""
    if not length:
        place = data.find(b"\0\0\1")
        while 0 <= place < len(data) - 3:
            following = data.find(b"\0\0\1", place + 3)
            end = following if following >= 0 else len(data)
            yield data[place + 3 : min(end, place + 3 + _BEGIN)]
            place = following
        return
    place = 0
    while place + length < len(data):
        size = int.from_bytes(data[place : place + length], "big")
        place += length
        if size:
            yield data[place : place + min(size, _BEGIN)]
        place += size


def _configured(extra: bytes) -> Iterator[bytes]:
    """The parameter sets that an MP4 or Matroska file states once for all packets."""
    place = 5
    for mask in (31, 255):
        if place >= len(extra):
            return
        count, place = extra[place] & mask, place + 1
        for _ in range(count):
            size = int.from_bytes(extra[place : place + 2], "big")
            if unit := extra[place + 2 : place + 2 + size]:
                yield unit
            place += 2 + size

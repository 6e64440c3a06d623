"""Film in MPEG-2 (soft telecine): frames that state that they are shown for three fields, or for two."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

#: NTSC's frames, and those of the film in them.
NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
_PICTURE, _SEQUENCE, _EXTENSION, _GROUP = 0x00, 0xB3, 0xB5, 0xB8  # start codes
_OF_SEQUENCE, _OF_PICTURE = 1, 8  # kinds of extensions
_BETWEEN = 3  # the kind of pictures that others on both sides are needed for
#: Frames per second by their numbers.
_RATES = {1: FILM, 2: Fraction(24), 3: Fraction(25), 4: NTSC, 5: Fraction(30), 6: Fraction(50), 7: 2 * NTSC,
          8: Fraction(60)}  # fmt: skip
#: Seconds that stated times are apart from counted ones at most.
_APART = 0.25


class Pulldown:
    """Looks at the packets of a stream in their order."""

    def __init__(self, stream: VideoStream) -> None:
        self._is_mpeg2 = stream.codec_context.name == "mpeg2video"
        self._rate: Fraction | None = None
        self._whole, self._closed = False, False  # of the sequence: no fields; of the group: it needs no earlier one
        self._fields: list[int] = []
        self._kinds: list[int] = []
        self._needs_earlier: set[int] = set()

    def look(self, packet: Packet[Any]) -> None:
        """At the next packet."""
        if not self._is_mpeg2:
            return
        data = bytes(packet)
        fields, kind = 2, 0
        place = data.find(b"\0\0\1")
        while 0 <= place < len(data) - 8:
            code, body = data[place + 3], data[place + 4 : place + 12]
            if code == _SEQUENCE:
                self._rate = _RATES.get(body[3] & 15, self._rate)
            elif code == _GROUP:
                self._closed = bool(body[3] & 0x40)
            elif code == _EXTENSION and body[0] >> 4 == _OF_SEQUENCE:
                self._whole = bool(body[1] & 8)
            elif code == _PICTURE:
                kind = body[1] >> 3 & 7
            elif code == _EXTENSION and body[0] >> 4 == _OF_PICTURE:
                top, repeated = bool(body[3] & 0x80), bool(body[3] & 2)
                fields = 2 + repeated * ((2 + 2 * top) if self._whole else 1)
                break  # slices follow
            place = data.find(b"\0\0\1", place + 3)
        if kind == _BETWEEN and not self._closed and sum(each != _BETWEEN for each in self._kinds) < 2:
            self._needs_earlier.add(len(self._kinds))
        self._fields.append(fields)
        self._kinds.append(kind)

    @property
    def is_film(self) -> bool:
        """Whether any frame is shown for longer than two fields."""
        return any(each > 2 for each in self._fields)

    @property
    def part(self) -> Fraction:
        """Frames for one of the sequence's rate."""
        part = Fraction(2 * len(self._fields), sum(self._fields)) if self._fields else Fraction(1)
        return Fraction(4, 5) if abs(part - Fraction(4, 5)) < Fraction(1, 50) else part

    def times(self, stated: Iterable[int | None], tick: Fraction) -> list[int | None] | None:
        """When each packet's frame is shown, counted by fields from where most of the stated times are; None for one
        that cannot be decoded. None where the stated ones are apart from that, as where the clock jumps."""
        if self._rate is None:
            return None
        order = _shown_order(self._kinds)
        begins = np.zeros(len(order))
        begins[order] = np.concatenate([[0], np.cumsum(np.array(self._fields)[order])[:-1]])
        begins *= float(1 / (2 * self._rate * tick))
        away = np.array([np.nan if each is None else each - begin for each, begin in zip(stated, begins, strict=True)])
        if np.isnan(away).all():
            return None
        offset = float(np.nanmedian(away))
        if float(np.nanmax(np.abs(away - offset))) * tick > _APART:
            return None
        times = [round(begin + offset) for begin in begins.tolist()]
        return [None if index in self._needs_earlier else time for index, time in enumerate(times)]


def _shown_order(kinds: list[int]) -> list[int]:
    """Packets as they are shown: those between others at once, others when the next one comes."""
    order: list[int] = []
    held: list[int] = []
    for index, kind in enumerate(kinds):
        if kind == _BETWEEN:
            order.append(index)
        else:
            order += held
            held = [index]
    return order + held

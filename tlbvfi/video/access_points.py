"""Packets from which on a decoder makes the same frames as one that has seen everything before, by what they hold.

What a file marks as a key frame need not be one: it may begin a refresh that takes several frames, or need a header
that came earlier. Here only that counts of which a packet itself gives proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

#: Headers that stay until others replace them, by what they are.
Headers = dict[object, bytes]

_START = b"\0\0\1"
#: H.264's kinds of units: slices, of which 5 is of a picture that needs nothing before it; and extra information.
_H264_SLICES, _H264_IDR, _H264_SEI, _H264_SPS, _H264_PPS = (1, 2, 5), 5, 6, 7, 8
_RECOVERY_POINT = 6
#: HEVC's: pictures from which decoding may begin, all pictures, and headers.
_HEVC_ACCESS, _HEVC_PICTURES, _HEVC_VPS, _HEVC_SPS, _HEVC_PPS = range(16, 22), range(32), 32, 33, 34
#: MPEG-1's and MPEG-2's codes, and the kind of a picture that needs no other; MPEG-4's.
_PICTURE, _SEQUENCE, _INTRA = 0x00, 0xB3, 1
_VOP, _VOL, _MPEG4_HEADERS = 0xB6, range(0x20, 0x30), (*range(0x30), 0xB0, 0xB2, 0xB5)
#: AV1's units.
_AV1_SEQUENCE, _AV1_FRAME_HEADER, _AV1_FRAME = 1, 3, 6
_DQT, _DHT = b"\xff\xdb", b"\xff\xc4"


class AccessPoints:
    """Looks at the packets of a stream in order, and says which of them are access points."""

    def __init__(self, context: VideoCodecContext) -> None:
        """context: of the stream."""
        self._extradata = bytes(context.extradata or b"")
        self._look = self._looker(context)
        self._current: Headers = {}
        self._fails = False

    def _looker(self, context: VideoCodecContext) -> Callable[[bytes], bool] | None:
        """What tells whether a packet is an access point; None for codecs of which none is known here."""
        name = context.name
        if name in ("h264", "hevc"):
            return self._units_of(name)
        lookers: dict[str, Callable[[bytes], bool]] = {
            "mpeg1video": _is_mpeg2,
            "mpeg2video": _is_mpeg2,
            "mpeg4": self._is_mpeg4,
            "vp8": _is_vp8,
            "vp9": _is_vp9,
            "libdav1d": _is_av1,
            "libaom-av1": _is_av1,
            "av1": _is_av1,
            "ffv1": _is_ffv1,
            "mjpeg": _is_jpeg,
            "png": _anything,
        }
        codec: Any = context.codec
        return lookers.get(name, _anything if codec.intra_only else None)

    def look(self, data: bytes) -> bool:
        """Whether the next packet is an access point."""
        if self._look is None or self._fails:
            return False
        try:
            return self._look(data)
        except (IndexError, ValueError):  # damaged: its headers are not known any more
            self._fails = True
            return False

    def _units_of(self, name: str) -> Callable[[bytes], bool]:
        """H.264 and HEVC, whose units are told apart by their lengths or by start codes."""
        length = 0
        if self._extradata[:1] == b"\1":
            length = (self._extradata[4 if name == "h264" else 21] & 3) + 1 if len(self._extradata) > 22 else 4
        header, looks = (_h264_header, _looks_h264) if name == "h264" else (_hevc_header, _looks_hevc)

        def look(data: bytes) -> bool:
            units = list(_by_length(data, length) if length else _by_start(data))
            own: Headers = {}
            for unit in units:
                if (key := header(unit)) is not None:
                    own[key] = unit.rstrip(b"\0")
            return self._has_headers(own) and looks(units)

        return look

    def _has_headers(self, own: Headers) -> bool:
        """Whether a packet's own headers are all that packets have set up to it."""
        self._current.update(own)
        return self._current == own

    def _is_mpeg4(self, data: bytes) -> bool:
        own: Headers = {}
        kind: int | None = None
        for unit in _by_start(data):
            if unit[0] == _VOP and kind is None:
                kind = unit[1] >> 6
            elif unit[0] in _MPEG4_HEADERS:
                key = "VOL" if unit[0] in _VOL else unit[0]
                own[key] = own.get(key, b"") + unit.rstrip(b"\0")
        return self._has_headers(own) and kind == 0


def _anything(_: bytes) -> bool:
    return True


def _by_length(data: bytes, length: int) -> Iterator[bytes]:
    place = 0
    while place + length < len(data):
        size = int.from_bytes(data[place : place + length], "big")
        place += length
        if size:
            yield data[place : place + size]
        place += size
    if place != len(data):
        raise ValueError("units that do not fill their packet")


def _by_start(data: bytes) -> Iterator[bytes]:
    place = data.find(_START)
    while place >= 0:
        begin = place + len(_START)
        place = data.find(_START, begin)
        unit = data[begin : place if place >= 0 else len(data)]
        if unit:
            yield unit


class _Bits:
    """The bits of a unit of H.264 or HEVC, without what keeps start codes apart."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("too few bits")
        return (self._value >> self._left) & ((1 << count) - 1)

    def number(self) -> int:
        """One in Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _h264_header(unit: bytes) -> object:
    """Which header a unit is; None for other units."""
    kind = unit[0] & 31
    if kind == _H264_SPS:
        return kind, _Bits(unit[4:24]).number()
    if kind == _H264_PPS:
        return kind, _Bits(unit[1:21]).number()
    return kind if kind in (13, 15) else None


def _looks_h264(units: list[bytes]) -> bool:
    kinds = [unit[0] & 31 for unit in units]
    slices = [kind for kind in kinds if kind in _H264_SLICES]
    if not slices:
        return False
    if all(kind == _H264_IDR for kind in slices):
        return True
    return any(_recovers(unit) for unit, kind in zip(units, kinds, strict=True) if kind == _H264_SEI)


def _recovers(unit: bytes) -> bool:
    """Whether extra information of H.264 says that all is exact from this picture on."""
    data = unit[1:].replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 2 <= len(data) and data[place:] != b"\x80":
        numbers = []
        for _ in range(2):
            number = 0
            while data[place] == 0xFF:
                number, place = number + 0xFF, place + 1
            numbers.append(number + data[place])
            place += 1
        kind, size = numbers
        if kind == _RECOVERY_POINT:
            bits = _Bits(data[place : place + size])
            frames, is_exact, is_broken = bits.number(), bits.take(1), bits.take(1)
            return frames == 0 and bool(is_exact) and not is_broken
        place += size
    return False


def _hevc_header(unit: bytes) -> object:
    kind = unit[0] >> 1 & 63
    if kind == _HEVC_VPS:
        return kind, unit[2] >> 4
    if kind == _HEVC_PPS:
        return kind, _Bits(unit[2:22]).number()
    if kind == _HEVC_SPS:
        layers = unit[2] >> 1 & 7
        bits = _Bits(unit[2:120])
        bits.take(8 + 96)
        present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        if layers:
            bits.take(2 * (8 - layers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
        return kind, bits.number()
    return None


def _looks_hevc(units: list[bytes]) -> bool:
    pictures = [kind for unit in units if (kind := unit[0] >> 1 & 63) in _HEVC_PICTURES]
    return bool(pictures) and all(kind in _HEVC_ACCESS for kind in pictures)


def _is_mpeg2(data: bytes) -> bool:
    """A sequence header, and a picture that needs no other."""
    units = list(_by_start(data))
    picture = next((unit for unit in units if unit[0] == _PICTURE), None)
    return any(unit[0] == _SEQUENCE for unit in units) and picture is not None and picture[2] >> 3 & 7 == _INTRA


def _is_vp8(data: bytes) -> bool:
    return data[0] & 0x11 == 0x10 and data[3:6] == b"\x9d\x01\x2a"


def _is_vp9(data: bytes) -> bool:
    first = data[0]
    if first & 0x30 == 0x30:  # profile 3 has a bit more before the kind
        return first & 0xCF == 0x81
    return first & 0xCE == 0x82


def _is_av1(data: bytes) -> bool:
    """A sequence header, and first a key frame that is shown."""
    place, has_header = 0, False
    while place < len(data):
        head = data[place]
        kind, extension, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        place += 1 + extension
        size = len(data) - place
        if sized:
            size = shift = 0
            while True:
                size |= (data[place] & 0x7F) << shift
                shift, place = shift + 7, place + 1
                if not data[place - 1] & 0x80:
                    break
        if kind == _AV1_SEQUENCE:
            has_header = True
            if data[place] >> 3 & 1:  # reduced_still_picture_header: its frames have another beginning
                return False
        elif kind in (_AV1_FRAME_HEADER, _AV1_FRAME):
            return has_header and data[place] & 0xF0 == 0x10  # shown now, a key frame
        place += size
    return False


def _is_ffv1(data: bytes) -> bool:
    """The first bit that the range coder gives."""
    return int.from_bytes(data[:2], "big") >= 0x7F80


def _is_jpeg(data: bytes) -> bool:
    """With tables of its own."""
    return _DQT in data[:4096] and _DHT in data[:4096]

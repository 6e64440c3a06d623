"""MPEG-2 of film as DVDs and broadcasters have it: frames, of which some are to be shown for three fields, not two."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Of frames in the order of showing: whether the top field is first, and whether that is repeated.
PULLDOWN = [(True, True), (False, False), (False, True), (True, False)]
FIELDS = Fraction(60000, 1001)
_SEQUENCE, _EXTENSION = b"\0\0\1\xb3", b"\0\0\1\xb5"
_FORMATS = {".ts": "mpegts", ".mkv": "matroska", ".m2v": "mpeg2video", ".mpg": "vob"}


def pulled_down(data: bytes, top: bool, repeated: bool, progressive: bool = True) -> bytes:
    """A coded frame that states how its fields are shown, in a sequence of 29.97 frames a second."""
    result = bytearray(data)
    place = result.find(_SEQUENCE)
    if place >= 0:
        result[place + 7] = result[place + 7] & 0xF0 | 4
    place = result.find(_EXTENSION)
    while place >= 0:
        body = place + 4
        if result[body] >> 4 == 1:
            result[body + 1] &= ~0x08 & 0xFF
        elif result[body] >> 4 == 8:
            result[body + 3] = result[body + 3] & 0x7D | top << 7 | repeated << 1
            result[body + 4] = result[body + 4] & 0x7F | progressive << 7
        place = result.find(_EXTENSION, body)
    return bytes(result)


def telecined(
    path: Path,
    pictures: list[NDArray[np.uint8]],
    pattern: list[tuple[bool, bool]] | None = None,
    reordered: int = 0,
    sound: Any = None,
    progressive: list[bool] | None = None,
) -> Path:
    """Pictures as film in a file by its suffix.

    Args:
        pattern: of each picture, as in :data:`PULLDOWN`, which is repeated else.
        reordered: frames that are decoded after later ones.
        sound: packets of a sound track: made by a function of the container.
    """
    pattern = pattern or (PULLDOWN * len(pictures))[: len(pictures)]
    shown = np.cumsum([0] + [3 if repeated else 2 for _, repeated in pattern])
    clock = 90000 / FIELDS
    with av.open(str(path), "w", format=_FORMATS[path.suffix]) as container:
        video: Any = container.add_stream("mpeg2video", rate=Fraction(30000, 1001))
        height, width, _ = pictures[0].shape
        video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", 6_000_000
        video.gop_size = 6
        video.codec_context.max_b_frames = reordered
        packets = []
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1001, 30000)
            packets += video.encode(frame)
        packets += video.encode(None)
        late = 3 if reordered else 0
        made = []
        for number, packet in enumerate(packets):
            index = round(packet.pts * packet.time_base * Fraction(30000, 1001))
            top, repeated = pattern[index]
            film = av.Packet(pulled_down(bytes(packet), top, repeated, progressive[index] if progressive else True))
            film.stream, film.time_base, film.is_keyframe = video, Fraction(1, 90000), packet.is_keyframe
            film.pts = round((int(shown[index]) + late) * clock)
            film.dts = min(film.pts, round(int(shown[number]) * clock))
            film.duration = round((3 if repeated else 2) * clock)
            made.append(film)
        made += sound(container, Fraction(late) / FIELDS) if sound else []
        for packet in sorted(made, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    return path

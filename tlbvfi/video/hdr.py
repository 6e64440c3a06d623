"""What HDR10 states of the display that a video was graded on, and of its brightest places."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .side_data import side_data

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

_RATIONALS = struct.Struct("20i2i")  # FFmpeg's AVMasteringDisplayMetadata: ten rationals and two flags
_LIGHT = struct.Struct("2I")  # its AVContentLightMetadata

#: Codecs of MP4 files, of pictures that only Dolby Vision shows right.
_DOLBY_TAGS = ("dvh1", "dvhe", "dav1")
#: Metadata for each frame or scene, by PyAV's names; they say nothing of new frames.
_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
}


def noting_dynamic(frames: Iterable[VideoFrame], name: str) -> Iterator[VideoFrame]:
    """The frames of a file called `name`; that metadata which change from frame to frame are left out is said once."""
    remaining = iter(frames)
    for first in remaining:
        for kind in sorted({_DYNAMIC[kind] for kind in side_data(first) if kind in _DYNAMIC}):
            log.warning("%s has metadata of %s for each frame, which are left out.", name, kind)
        yield first
        yield from remaining


def tell_of_own_colours(tag: str, frame: VideoFrame, name: str) -> None:
    """Say where the colours of a file are Dolby Vision's own, which nothing here converts.

    Args:
        tag: of the codec, in the file.
        frame: the first one.
    """
    data = side_data(frame).get("DOVI_METADATA")
    if tag in _DOLBY_TAGS or (data is not None and _is_profile_5(bytes(data))):
        log.warning("%s has the colours of Dolby Vision alone (profile 5), which are read as usual ones: wrong.", name)


def _is_profile_5(data: bytes) -> bool:
    """Whether FFmpeg's AVDOVIMetadata are of pictures for Dolby Vision alone."""
    (header,) = struct.unpack_from("N", data)
    profile, full = data[header + 4 : header + 5], data[header + 10 : header + 11]
    return profile == b"\0" and full == b"\1"


@dataclass(frozen=True)
class Mastering:
    """Static metadata of HDR10 (SMPTE ST 2086, CTA-861.3).

    Attributes:
        display: x and y of red, green, blue and white, then the least and the greatest luminance in cd/m2.
        light: MaxCLL and MaxFALL in cd/m2.
    """

    display: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None

    @staticmethod
    def of(frame: VideoFrame) -> Mastering | None:
        """That of a decoded frame."""
        display: tuple[Fraction, ...] | None = None
        light: tuple[int, int] | None = None
        for name, data in side_data(frame).items():
            if name == "MASTERING_DISPLAY_METADATA" and data.buffer_size >= _RATIONALS.size:
                *numbers, has_primaries, has_luminance = _RATIONALS.unpack_from(bytes(data))
                if has_primaries and has_luminance and all(numbers[1::2]):
                    display = tuple(Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True))
            elif name == "CONTENT_LIGHT_LEVEL" and data.buffer_size >= _LIGHT.size:
                light = _LIGHT.unpack_from(bytes(data))
        return Mastering(display, light) if display or light else None

    def options(self, encoder: str) -> dict[str, str]:
        """The settings by which an encoder writes it; empty where there are none."""
        if encoder == "libx264":
            return {"x264-params": ":".join(self._parts("mastering-display", "cll", exact=True))}
        if encoder == "libx265":
            return {"x265-params": ":".join(self._parts("master-display", "max-cll", exact=True))}
        if encoder == "libsvtav1":
            return {"svtav1-params": ":".join(self._parts("mastering-display", "content-light", exact=False))}
        return {}

    def _parts(self, display: str, light: str, *, exact: bool) -> list[str]:
        """exact: in the whole numbers of the standard instead of in units."""
        parts = []
        if self.display is not None:
            red, green, blue, white = (self.display[i : i + 2] for i in range(0, 8, 2))
            least, greatest = self.display[8:]

            def written(pair: tuple[Fraction, ...], unit: int) -> str:
                return ",".join(str(round(v * unit)) if exact else f"{float(v):.6f}" for v in pair)

            colours = zip(["G", "B", "R", "WP"], (green, blue, red, white), strict=True)
            text = "".join(f"{letter}({written(pair, 50000)})" for letter, pair in colours)
            parts.append(f"{display}={text}L({written((greatest, least), 10000)})")
        if self.light is not None:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return parts

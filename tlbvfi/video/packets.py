"""When packets say that they are shown, without decoding them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .pyav import readable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

#: Numbers are known of a frame, or they are this.
_UNKNOWN = np.iinfo(np.int64).min
#: By so many frames decoding is ahead of showing at most.
FARTHEST_APART = 17
#: The bit of the first byte of a VP8 packet that says whether its frame is shown.
_VP8_SHOWN = 0x10


@dataclass
class Packets:
    """What the packets of one stream say, in their order in the file; ticks of the stream's clock.

    Attributes:
        time_base: seconds of a tick.
        shown, decoded: when each is shown and decoded.
        lasts: for how long, 0 where nobody says.
        places: their places among all packets of the file.
        hidden: whether a frame is only for others to be made of.
    """

    time_base: Fraction
    shown: list[int | None] = field(default_factory=list)
    decoded: list[int | None] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)

    def times(self) -> NDArray[np.int64]:
        """When each is shown, where that is not stated when it is decoded, where that is not stated either
        :func:`is_known` is false."""
        return _numbers([d if s is None else s for s, d in zip(self.shown, self.decoded, strict=True)])

    def usual_lasts(self) -> NDArray[np.int64]:
        """How long each lasts, without the silence up to the next one that some files count to it."""
        lasts = np.array(self.lasts, np.int64)
        stated = lasts[lasts > 0]
        return np.minimum(lasts, 2 * int(np.median(stated))) if len(stated) else lasts

    def order(self) -> NDArray[np.float64]:
        """Times that rise from packet to packet while the file's clock goes on, in seconds; NaN where unknown."""
        if any(each is not None for each in self.decoded):
            numbers = _numbers(self.decoded)
        else:
            numbers = _in_order(_numbers(self.shown))
        return np.where(is_known(numbers), numbers * float(self.time_base), np.nan)


def is_known(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some times are stated."""
    return numbers != _UNKNOWN


def _numbers(values: list[int | None]) -> NDArray[np.int64]:
    return np.array([_UNKNOWN if each is None else each for each in values], np.int64)


def _in_order(shown: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times that fall no more where frames are only decoded in another order than shown."""
    known = shown[is_known(shown)]
    steps = np.diff(np.sort(known))
    farthest = FARTHEST_APART * int(np.median(steps)) if len(steps) else 0
    result, latest = shown.copy(), None
    for place in np.flatnonzero(is_known(shown)):
        time = int(shown[place])
        latest = time if latest is None or time < latest - farthest else max(latest, time)
        result[place] = latest
    return result


def all_packets(container: InputContainer, stream: VideoStream) -> Mapping[int, Packets]:
    """Of a file's main video stream, and of its sound and subtitles, by their indices; as far as it can be read."""
    streams = [stream, *container.streams.audio, *container.streams.subtitles]
    result = {each.index: Packets(each.time_base or Fraction(1)) for each in streams}
    vp8 = stream.codec_context.name == "vp8"
    for place, packet in enumerate(readable(container, streams)):
        if not packet.size:
            continue
        found = result[packet.stream.index]
        found.shown.append(packet.pts)
        found.decoded.append(packet.dts)
        found.lasts.append(packet.duration or 0)
        found.places.append(place)
        is_main = packet.stream.index == stream.index
        found.hidden.append(is_main and is_hidden(packet, vp8))
    return result


def is_hidden(packet: Packet[Any], vp8: bool) -> bool:
    """Whether the frame of a packet, perhaps one of VP8, is not shown."""
    return packet.is_discard or (vp8 and not bytes(packet)[0] & _VP8_SHOWN)

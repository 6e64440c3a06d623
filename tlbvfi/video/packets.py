"""When packets say that they are shown, without decoding them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .fields import SecondFields
from .pyav import readable
from .telecine import Pulldown

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
#: What begins a picture of MPEG-4 Part 2; DivX packs two into one packet and an empty one into the next.
_MPEG4_PICTURE = b"\0\0\1\xb6"


@dataclass
class Packets:
    """What the packets of one stream say, in their order in the file; ticks of the stream's clock.

    Attributes:
        time_base: seconds of a tick.
        shown, decoded: when each is shown and decoded.
        lasts: for how long, 0 where nobody says.
        places: their places among all packets of the file.
        hidden: whether a frame is only for others to be made of, or the second field of the one before.
        fields: how many are such second fields.
        edited: some are not shown, because of a list of edits, of which FFmpeg makes one clock.
        by_order: of which frames they are is known by their order alone: they are packed, or when they are shown is
            counted by their fields.
    """

    time_base: Fraction
    shown: list[int | None] = field(default_factory=list)
    decoded: list[int | None] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    fields: int = 0
    edited: bool = False
    by_order: bool = False

    def times(self) -> NDArray[np.int64]:
        """When each is shown, where that is not stated when it is decoded, where that is not stated either
        :func:`is_known` is false."""
        return _numbers([d if s is None else s for s, d in zip(self.shown, self.decoded, strict=True)])

    def join_fields(self) -> None:
        """The last packet is the second field of the one before: that lasts as long as both."""
        self.fields += 1
        first, second = self.shown[-2:]
        apart = 0 if first is None or second is None else second - first
        if not apart or 2 * self.lasts[-2] < 3 * apart:
            self.lasts[-2] += self.lasts[-1]

    def count_fields(self, pulldown: Pulldown) -> None:
        """Count when each is shown, where the stated times are near that."""
        times = pulldown.times(self.shown, self.time_base)
        if times is None:
            return
        self.by_order, self.decoded = True, [None] * len(self.decoded)
        self.hidden = [hidden or time is None for hidden, time in zip(self.hidden, times, strict=True)]
        self.shown = [stated if time is None else time for stated, time in zip(self.shown, times, strict=True)]

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
    pictures = Pictures(container, stream, result[stream.index])
    for place, packet in enumerate(readable(container, streams)):
        if not packet.size:
            continue
        found = result[packet.stream.index]
        found.shown.append(packet.pts)
        found.decoded.append(packet.dts)
        found.lasts.append(packet.duration or 0)
        found.places.append(place)
        found.hidden.append(packet.stream.index == stream.index and pictures.hides(packet))
    pictures.end()
    return result


class Pictures:
    """What packets of pictures say in themselves, which other packets are not asked for."""

    def __init__(self, container: InputContainer, stream: VideoStream, found: Packets) -> None:
        kind, codec = container.format.name, stream.codec_context.name
        self._found, self._fields, self._pulldown = found, SecondFields(stream), Pulldown(stream)
        self._is_vp8, self._may_pack = codec == "vp8", (kind, codec) == ("avi", "mpeg4")
        self._states_few, self._guesses = kind == "mpeg", "matroska" in kind

    def hides(self, packet: Packet[Any]) -> bool:
        """Look at the next packet, which is in the lists already; whether it is no frame that is shown."""
        found = self._found
        if self._states_few:
            self._pulldown.look(packet)
        if self._may_pack and bytes(packet).count(_MPEG4_PICTURE) > 1:
            found.by_order = True
        if packet.is_discard:
            found.edited = True
            return True
        if self._fields.is_second(packet):
            found.join_fields()
            return True
        return self._is_vp8 and not bytes(packet)[0] & _VP8_SHOWN

    def end(self) -> None:
        """All packets have been seen."""
        if self._pulldown.is_film:
            self._found.count_fields(self._pulldown)
        if self._found.fields and self._guesses:  # when fields are decoded, which Matroska does not state
            self._found.decoded = [None] * len(self._found.decoded)

"""Which frames of a damaged video are missing: the packets that were decoded, against the frames that came of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

#: Decoders of codecs in which not every packet is a frame that is shown; where such a packet has a time of its own.
_HIDING = ("vp8", "vp9", "libvpx", "libvpx-vp9")
_HIDING_TIMED = ("vp8", "libvpx")
#: Frames by which decoding is ahead of showing, at most.
_REORDERED = 16
#: Bytes of packets that are kept, at most.
_LARGEST_TAIL = 256 * 2**20


@dataclass(frozen=True)
class Damage:
    """What is wrong with a video, as far as it was decoded.

    Attributes:
        count: frames that are missing.
        times: when these would be shown, in seconds of the file's clock, where that is known.
        begin: when the first frame is shown, on that clock.
        before: frames that came before the first error.
        end: why nothing more could be decoded, although the file may go on.
    """

    count: int = 0
    times: tuple[Fraction, ...] = ()
    begin: Fraction = Fraction(0)
    before: int = 0
    end: str | None = None

    def __bool__(self) -> bool:
        return bool(self.count or self.end)

    def within(self, begin: Fraction, start: Fraction, end: Fraction | None) -> Damage:
        """What of it lies in [start, end), in seconds after `begin`; what has no known time lies anywhere."""
        found = replace(self, begin=begin)
        if not self.times:
            return found
        times = tuple(t for t in self.times if t - begin >= start and (end is None or t - begin < end))
        return replace(found, times=times, count=len(times))

    def sentence(self, name: str) -> str:
        """One line about a file of that name."""
        parts = []
        if self.count:
            where = f"after frame {self.before}"
            if self.times:
                time = min(self.times) - self.begin
                where = f"at {float(time):.6g} s" if time > 0 else "at its begin"
            alone = self.count == 1
            parts.append(
                f"{self.count} {'frame is' if alone else 'frames are'} missing, {'' if alone else 'the first '}"
            )
            parts[-1] += where
        if self.end is not None:
            parts.append(f"nothing more can be decoded after its last frame ({self.end})")
        return f"{name} is damaged: {'; '.join(parts)}."


@dataclass
class _Waiting:
    """When a packet's frame is shown, in seconds."""

    time: Fraction
    place: int  # in the order of decoding


class Account:
    """Keeps count while a video is decoded, and keeps the packets of its end.

    Several threads that decode frames give up at an error in the last packets, and with it what is good after it: these
    packets are kept, so that one thread can decode them again.

    Attributes:
        tail: the last packets, from a key frame on.
        frames: how many came.
        why: what was wrong with the first packet that could not be decoded.
        is_done: whether all packets have been decoded.
    """

    def __init__(self) -> None:
        self.start("", 1)
        self._part: tuple[Fraction, Fraction, Fraction | None] | None = None

    def start(self, codec: str, ahead: int, is_second: Callable[[Packet[Any]], bool] | None = None) -> None:
        """Begin (anew) with a decoder of that name, which may hold `ahead` packets at once.

        Args:
            is_second: asked for each packet in order, whether it is the second field of the frame before.
        """
        self._codec, self._ahead, self._is_second = codec, ahead, is_second
        self.tail: deque[Packet[Any]] = deque()
        self.frames, self.is_done = 0, False
        self.why: str | None = None
        self._sent = self._size = 0
        self._repeats = False
        self._errors: list[int] = []  # by how many packets had been sent
        self._before: int | None = None  # frames before the first of them
        self._waiting: dict[int, _Waiting] = {}  # packets of which no frame came, by their times
        self._first: tuple[int, bool] | None = None  # packet: its time, and whether it is a key frame
        self._shown: tuple[int, int] | None = None  # times of the first frame and of the latest
        self._begin = Fraction(0)
        self._end: str | None = None
        self._is_timed = True  # whether each frame has the time of a packet of its own
        self._others = 0  # frames that have no packet's time: made up by the decoder

    def look_at(self, begin: Fraction, start: Fraction, end: Fraction | None) -> None:
        """Only what lies in [start, end), in seconds after `begin`, counts."""
        self._part = begin, start, end

    def send(self, packet: Packet[Any]) -> None:
        """A packet goes to the decoder."""
        if not packet.size or packet.is_discard or self._repeats:
            return
        self._sent += 1
        second = self._is_second is not None and self._is_second(packet)
        self._is_timed = self._is_timed and (packet.pts is not None or second)
        if (time := _time(packet)) is not None and not second:
            self._waiting[time] = _Waiting(time * packet.time_base, self._sent)
            self._first = self._first or (time, packet.is_keyframe)
        if self.tail or packet.is_keyframe or self._sent == 1:
            self.tail.append(packet)
            self._size += packet.size
        if packet.is_keyframe:
            self._shorten()
        if self._size > _LARGEST_TAIL:
            self.tail.clear()
            self._size = 0

    def _shorten(self) -> None:
        """Drop what lies before a key frame that is early enough."""
        enough = len(self.tail) - self._ahead - _REORDERED
        starts = [index for index, packet in enumerate(self.tail) if packet.is_keyframe and index <= enough]
        for _ in range(starts[-1] if starts else 0):
            self._size -= self.tail.popleft().size

    def take(self, frame: VideoFrame) -> None:
        """A frame came from the decoder."""
        self.frames += 1
        time = self._key(frame)
        self._is_timed = self._is_timed and not frame.interlaced_frame  # of two packets, perhaps
        if time is None:
            self._others += 1
            return
        waiting = self._waiting.pop(time)
        if self._shown is None:
            self._begin = waiting.time
        self._shown = (self._shown[0] if self._shown else time, time)

    def _key(self, frame: VideoFrame) -> int | None:
        """By which time the packet of a frame is waiting; None where there is none."""
        return next((time for time in (frame.pts, frame.dts) if time is not None and time in self._waiting), None)

    def fail(self, why: str) -> None:
        """A packet could not be decoded."""
        self.why = self.why or why
        self._errors.append(self._sent)
        if self._before is None:
            self._before = self.frames

    def stop(self, why: str) -> None:
        """Nothing more can be read."""
        self.why, self._end = self.why or why, why

    @property
    def has_failed(self) -> bool:
        """Whether any packet could not be decoded, or not at once."""
        return self.why is not None or self._repeats

    def lacks_its_end(self) -> bool:
        """Whether packets of the end were decoded of which no frame came."""
        if self._shown is None or not self.tail:
            return False
        newest = self._sent - self._ahead - _REORDERED
        return any(time > self._shown[1] and each.place > newest for time, each in self._waiting.items())

    def again(self) -> list[Packet[Any]]:
        """The packets of the end, to be decoded again; errors in them count again."""
        begin, self._repeats = self._sent - len(self.tail), True
        self._errors = [place for place in self._errors if place <= begin]
        return list(self.tail)

    def is_new(self, frame: VideoFrame) -> bool:
        """Whether a frame that was decoded again did not come before."""
        time = self._key(frame)
        return time is not None and (self._shown is None or time > self._shown[1])

    def damage(self) -> Damage:
        """What is missing by now."""
        missing = self._missing()
        times = tuple(self._waiting[time].time for time in missing)
        count = len(times) if self._is_timed and self._codec not in _HIDING_TIMED else len(self._errors)
        found = Damage(count, times[:count], self._begin, self._before or 0, self._end)
        return found if self._part is None else found.within(*self._part)

    def _missing(self) -> list[int]:
        """The times of the packets that are frames which did not come, as far as that can be said of such a video."""
        errors = bool(self._errors)
        if not self._is_timed or self._codec in _HIDING_TIMED or (self._codec in _HIDING and not errors):
            return []
        oldest = self._sent - self._ahead - _REORDERED
        missing = sorted(time for time, each in self._waiting.items() if self.is_done or each.place <= oldest)
        begins_with_key = self._first is not None and self._first[1] and self._first[0] in self._waiting
        if not errors and not begins_with_key and self._shown is not None:
            # A file may begin inside a group of pictures; those that need earlier ones are not missing.
            missing = [time for time in missing if time > self._shown[0]]
        return missing[: max(0, len(missing) - self._others)]


def _time(packet: Packet[Any]) -> int | None:
    """By what a packet and its frame know each other."""
    return packet.pts if packet.pts is not None else packet.dts

"""The sound of one video on its way into another."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .pyav import open_input

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

log = logging.getLogger(__name__)


class Sound:
    """The sound tracks of a file, copied into another, or encoded anew where it cannot hold them, as far as its video
    has come."""

    def __init__(self, source: Path, target: OutputContainer) -> None:
        self.target = target
        self.container = open_input(source)
        video = self.container.streams.best("video")
        #: Where the video begins on the source's clock; it begins at 0 on the target's.
        self.start = (video.start_time or 0) * video.time_base if video is not None and video.time_base else Fraction(0)
        self.tracks: dict[int, AudioStream] = {}
        self.encoded: set[int] = set()
        fitting = target.supported_codecs
        for stream in self.container.streams.audio:
            if stream.codec_context is None:
                log.warning("%s: sound track %d is of an unknown kind and left out.", source.name, stream.index)
            elif stream.codec_context.name in fitting:
                self.tracks[stream.index] = target.add_stream_from_template(stream)
            else:
                codec = "libopus" if "libopus" in fitting and "aac" not in fitting else target.default_audio_codec
                rate = 48000 if codec == "libopus" else stream.codec_context.sample_rate
                self.tracks[stream.index] = cast("AudioStream", target.add_stream(codec, rate=rate))
                self.encoded.add(stream.index)
        wanted = [stream for stream in self.container.streams.audio if stream.index in self.tracks]
        self._packets = self.container.demux(wanted) if wanted else iter(())
        self._waiting: Packet[Any] | None = None

    def mux_until(self, time: Fraction | None) -> None:
        """Pass the packets on that begin before `time` (seconds from the start of the video; None: all)."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base and time is not None:
                begins = packet.pts * packet.time_base - self.start
                if begins >= time:
                    self._waiting = packet
                    return
            self._pass_on(packet)

    def _pass_on(self, packet: Packet[Any]) -> None:
        track = self.tracks[packet.stream.index]
        if packet.stream.index in self.encoded:
            for frame in cast("list[AudioFrame]", packet.decode()):
                if frame.pts is not None and frame.time_base:
                    frame.pts -= round(self.start / frame.time_base)
                self.target.mux(track.encode(frame))
            if packet.size == 0:  # the end of this track
                self.target.mux(track.encode(None))
            return
        if packet.dts is None:
            return
        shift = round(self.start / packet.time_base)
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        packet.stream = track
        self.target.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self.container.close()

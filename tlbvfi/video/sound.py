"""Sound tracks on their way into a video: copied, encoded anew, or made of samples."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from .excerpt import Excerpt
from .pyav import VideoError, import_av

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

log = logging.getLogger(__name__)

#: Channel layouts that every encoder here takes, by the number of channels.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_TICK = Fraction(1, 1000)  # no file counts in coarser ones
_MAY_REPEAT = 0x20000  # FFmpeg's AVFMT_TS_NONSTRICT: packets of a track may have the same time
_GAP = Fraction(1, 50)  # seconds of silence that are none, but a rounded time
_LOSSY = ("aac", "libopus")
_BITS_PER_CHANNEL = 96_000  # a second; enough that nobody hears it


@dataclass(frozen=True)
class Waveform:
    """Sound as samples; it begins with the video.

    Attributes:
        samples: (channels, samples), 1 being full scale.
        rate: samples per second.
    """

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] not in _LAYOUTS or self.rate <= 0:
            shape = "x".join(map(str, self.samples.shape))
            raise VideoError(
                f"Sound of {shape} samples at {self.rate} Hz cannot be written; it is (channels, samples) with 1 to "
                f"{max(_LAYOUTS)} channels and a positive rate."
            )


def read_waveform(file: Path, start: Fraction, end: Fraction) -> Waveform | None:
    """The first sound track from `start` to `end` seconds, silent where it has none there; None where there is none."""
    with import_av().open(str(file)) as container:
        if not container.streams.audio:
            return None
        track = container.streams.audio[0]
        samples = torch.zeros(track.channels, round((end - start) * track.rate))
        resampler = import_av().AudioResampler("fltp", track.layout, track.rate)
        for frame in container.decode(track):
            at = round((frame.time or 0) * track.rate) - round(start * track.rate)
            for part in resampler.resample(frame):
                values = torch.from_numpy(part.to_ndarray())
                first, last = max(at, 0), min(at + values.shape[1], samples.shape[1])
                if first < last:
                    samples[:, first:last] = values[:, first - at : last - at]
    return Waveform(samples, track.rate)


class Encoder:
    """A sound track that is encoded from frames of samples."""

    def __init__(self, target: OutputContainer, name: str, channels: int, rate: int) -> None:
        """name: FFmpeg's of the encoder.

        Raises:
            ValueError: there is no such encoder, or it does not take so many channels.
        """
        if channels not in _LAYOUTS:
            raise ValueError(f"sound of {channels} channels")
        codec = import_av().Codec(name, "w")
        rates = sorted(codec.audio_rates or ())
        if rates and rate not in rates:
            rate = next((known for known in rates if known > rate), rates[-1])
        stream = cast("AudioStream", target.add_stream(name, rate=rate))
        stream.codec_context.layout = _LAYOUTS[channels]
        if name in _LOSSY:
            stream.codec_context.bit_rate = _BITS_PER_CHANNEL * channels
        self.stream, self._target, self._layout = stream, target, _LAYOUTS[channels]

    def add(self, frame: AudioFrame | None) -> None:
        """Encode a frame; None is the end."""
        if frame is not None and "channels" in frame.layout.name:  # which channel is which is not stated
            named = import_av().AudioFrame.from_ndarray(frame.to_ndarray(), frame.format.name, self._layout)
            named.sample_rate, named.pts, named.time_base = frame.sample_rate, frame.pts, frame.time_base
            frame = named
        self._target.mux(self.stream.encode(frame))


class WaveformTrack:
    """A waveform as a sound track."""

    def __init__(self, target: OutputContainer, codec: str, waveform: Waveform) -> None:
        self._waveform, self._done = waveform, 0
        self._encoder = Encoder(target, codec, waveform.samples.shape[0], waveform.rate)

    def mux_until(self, time: Fraction | None) -> None:
        """Encode what comes before `time` (seconds; None: all)."""
        total = self._waveform.samples.shape[1]
        stop = total if time is None else min(total, round(time * self._waveform.rate))
        while self._done < stop:
            begin, self._done = self._done, min(stop, self._done + self._waveform.rate)
            samples = self._waveform.samples[:, begin : self._done].detach().cpu().float().contiguous().numpy()
            layout = _LAYOUTS[samples.shape[0]]
            frame = import_av().AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = self._waveform.rate, begin, Fraction(1, self._waveform.rate)
            self._encoder.add(frame)
        if time is None:
            self._encoder.add(None)


class CopiedTrack:
    """A track whose packets stay as they are; only their times are shifted."""

    cuts = False

    def __init__(self, target: OutputContainer, source: Any) -> None:
        """source: the stream that is copied.

        Raises:
            ValueError, FFmpegError: files of this kind do not take it, or what its file says of it is damaged.
        """
        if source.type == "audio":
            _check_head(target, source)
        self.stream = target.add_stream_from_template(source)
        self._target = target
        self._last: Fraction | None = None  # when the last packet begins

    def add(self, packet: Packet[Any], shift: Fraction) -> None:
        """Write a packet, `shift` seconds earlier; one of size 0 is the end.

        One that comes before the last one is left out: there two recordings overlap.
        """
        begins = packet.dts if packet.dts is not None else packet.pts
        if begins is None or not packet.size:
            return
        unit = packet.time_base
        ticks = round(shift / unit)
        time = (begins - ticks) * unit
        if self._last is not None and time < self._last:
            return
        if time == self._last and not self._target.format.flags & _MAY_REPEAT:
            time += max(unit, _TICK)
        self._last = time
        packet.dts = round(time / unit)
        if packet.pts is not None:
            packet.pts = max(packet.pts - ticks, packet.dts)
        packet.stream = self.stream
        errors = import_av().error
        try:
            self._target.mux(packet)
        except (errors.InvalidDataError, errors.ArgumentError, errors.PatchWelcomeError) as error:
            # What is wrong with the new file's head is raised again by the picture.
            log.debug("A packet of sound or subtitles is damaged: %s", error)


def _check_head(target: OutputContainer, source: Any) -> None:
    """Raise FFmpegError where a file like `target` with this sound could not be begun."""
    attempt = import_av().open(io.BytesIO(), "w", format=target.format.name)
    attempt.add_stream_from_template(source)
    attempt.start_encoding()
    attempt.close()


class EncodedTrack:
    """A track that is decoded and encoded anew, and can so be cut at any sample."""

    cuts = True

    def __init__(self, target: OutputContainer, codec: str, source: AudioStream, excerpt: Excerpt) -> None:
        """excerpt: the part that is kept; its start is at 0 in the new file."""
        context = source.codec_context
        self._encoder = Encoder(target, codec, context.layout.nb_channels, context.sample_rate)
        self._excerpt, self.stream = excerpt, self._encoder.stream
        self._next: int | None = None  # sample of the new file's clock

    def add(self, packet: Packet[Any], shift: Fraction) -> None:
        """Encode what a packet holds, `shift` seconds earlier; one of size 0 is the end."""
        for frame in _decoded(packet):
            rate, begins = frame.sample_rate, self._next
            if frame.pts is not None and frame.time_base:
                begins = round((frame.pts * frame.time_base - shift) * rate)
                if self._next is not None and begins < self._next - _GAP * rate:
                    late = self._next - begins  # two recordings overlap
                    if late >= frame.samples:
                        continue
                    frame = _part(frame, late, frame.samples)
                    begins = self._next
                elif self._next is not None and begins < self._next + _GAP * rate:
                    begins = self._next  # a time that is rounded
            frame.pts, frame.time_base = begins, Fraction(1, rate)
            self._next = None if begins is None else begins + frame.samples
            if (kept := self._cut(frame)) is not None:
                self._encoder.add(kept)
        if not packet.size:
            self._encoder.add(None)

    def _cut(self, frame: AudioFrame) -> AudioFrame | None:
        """The part of a frame that lies in the excerpt."""
        if self._excerpt.is_whole or frame.pts is None:
            return frame
        first = max(0, -frame.pts) if self._excerpt.start else 0
        last = frame.samples
        if self._excerpt.end is not None:
            last = min(last, round((self._excerpt.end - self._excerpt.first) * frame.sample_rate) - frame.pts)
        if (first, last) == (0, frame.samples):
            return frame
        if first >= last:
            return None
        part = _part(frame, first, last)
        part.time_base, part.pts = frame.time_base, frame.pts + first
        return part


def _part(frame: AudioFrame, first: int, last: int) -> AudioFrame:
    """Some samples of a frame, without a time."""
    count = 1 if frame.format.is_planar else frame.layout.nb_channels
    samples = np.ascontiguousarray(frame.to_ndarray()[:, first * count : last * count])
    part = cast("AudioFrame", import_av().AudioFrame.from_ndarray(samples, frame.format.name, frame.layout.name))
    part.sample_rate = frame.sample_rate
    return part


def _decoded(packet: Packet[Any]) -> Iterator[AudioFrame]:
    """The frames of a packet; none where it is damaged."""
    try:
        yield from cast("list[AudioFrame]", packet.decode())
    except import_av().error.FFmpegError as error:
        log.debug("A packet of sound cannot be decoded: %s", error)

"""What goes along from one video into another: sound, subtitles, chapters, attachments, title."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .animation import animation_of
from .containers import Container
from .covers import Covers
from .excerpt import Excerpt
from .pyav import File, VideoError, import_av, is_cover, main_stream, name_of, opened, readable
from .sound import CopiedTrack, EncodedTrack, Waveform, WaveformTrack
from .subtitles import ConvertedSubtitles
from .times import times_of

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

log = logging.getLogger(__name__)

#: What describes the file that it stood in and not the video.
_OF_THE_FILE = {"encoder", "duration", "major_brand", "minor_version", "compatible_brands", "handler_name", "vendor_id"}
#: Kinds of files in which AAC cannot be decoded without what its head says.
_HEADED = ("mov", "matroska")
#: Codes of languages for which QuickTime knows the other one of their two.
_IN_MOV = {
    "fre": "fra", "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "rum": "ron",
    "cze": "ces", "slo": "slk", "hye": "arm", "kat": "geo", "bod": "tib", "mya": "bur", "msa": "may", "cym": "wel",
    "eus": "baq", "mkd": "mac",
}  # fmt: skip
#: How far before the first frame sound may begin: encoders put a little silence first.
_LEAD = Fraction(1, 10)


@dataclass(frozen=True)
class PassedOn:
    """What goes along into a new video.

    Attributes:
        file: the video whose sound, subtitles, chapters, attachments and metadata go along; None for none. Pictures,
            in a folder or animated, have none of these.
        start, end: the part of it that the new video shows, in seconds from its first frame; None is its begin or end.
        waveform: sound as samples, in place of the file's; not cut.
    """

    file: File | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    waveform: Waveform | None = None

    @property
    def source(self) -> File | None:
        """The file, where anything can be in it."""
        is_folder = isinstance(self.file, Path) and self.file.is_dir()
        if self.file is None or is_folder or animation_of(self.file) is not None:
            return None
        return self.file

    @property
    def excerpt(self) -> Excerpt:
        """The part."""
        return Excerpt(self.start, self.end)

    def has_tracks(self) -> bool:
        """Whether there is anything to hear or read."""
        if self.waveform is not None:
            return True
        if self.source is None:
            return False
        with opened(self.source) as (source, _):
            return any(stream.type in ("audio", "subtitle") for stream in source.streams)

    def metadata_names(self) -> set[str]:
        """The names of the metadata that goes along."""
        if self.source is None:
            return set()
        with opened(self.source) as (source, _):
            return set(_metadata(source))


class Track(Protocol):
    """One track of the new file.

    Attributes:
        stream: PyAV's.
        cuts: whether it takes packets that only partly lie in the excerpt, and cuts them.
    """

    stream: Any
    cuts: bool

    def add(self, packet: Packet[Any], shift: Fraction) -> None:
        """Take the source's next packet, `shift` seconds earlier; one of size 0 is the end."""
        ...


class Passing:
    """What goes along into a file, as far as its video has come."""

    def __init__(self, target: OutputContainer, kind: Container) -> None:
        self._target, self._kind = target, kind
        self._tracks: dict[int, Track] = {}
        self._waveform: WaveformTrack | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        self._covers = Covers(target, kind)
        self._waiting: Packet[Any] | None = None
        self._zero, self._excerpt = Fraction(0), Excerpt()

    @property
    def _shift(self) -> Fraction:
        """By how much the new file's clock is behind the source's."""
        return self._zero + self._excerpt.first

    def mux_until(self, time: Fraction | None) -> None:
        """Pass on what begins before `time` (seconds from the start of the new video; None: all)."""
        self._covers.mux()
        if self._waveform is not None:
            self._waveform.mux_until(time)
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            begins = _begin(packet)
            if time is not None and begins is not None and begins - self._shift >= time:
                self._waiting = packet
                return
            self._pass_on(packet, begins)

    def _pass_on(self, packet: Packet[Any], begins: Fraction | None) -> None:
        track = self._tracks[packet.stream.index]
        if begins is not None:
            time = begins - self._zero
            if packet.stream.type == "subtitle" and packet.duration and time < self._excerpt.first:
                late = round((self._excerpt.first - time) / packet.time_base)
                if packet.duration <= late or packet.pts is None:
                    return
                packet.duration -= late  # begins before the excerpt, and is still seen in it
                packet.pts = packet.dts = packet.pts + late
                time = self._excerpt.first
            if track.cuts:
                time += (packet.duration or 0) * packet.time_base + _LEAD  # what comes before helps the decoder
            if time < (self._excerpt.start or -_LEAD) or self._excerpt.is_after(begins - self._zero):
                return
        track.add(packet, self._shift)

    def take_waveform(self, waveform: Waveform) -> None:
        """Add samples as a sound track."""
        self._waveform = WaveformTrack(self._target, self._kind.sound, waveform)

    def take_from(self, source: InputContainer, file: File, excerpt: Excerpt, *, sound: bool) -> list[str]:
        """Add what goes along from a file; returns what does not."""
        self._excerpt = excerpt
        main = main_stream(source)
        times = times_of(file)
        self._zero = times.zero
        left = []
        for other in source.streams.video:
            if other is not main and not (is_cover(other) and self._covers.take(other, file)):
                left.append(f"{'cover' if is_cover(other) else 'video track'} {other.index}")
        for stream in source.streams:
            if stream is main or stream.type == "video" or (stream.type == "audio" and not sound):
                continue
            try:
                track = self._track(stream)
            except (ValueError, VideoError, AttributeError, import_av().error.FFmpegError):
                left.append(_named(stream))
                continue
            if track is not None:
                _describe(track.stream, stream, self._kind)
                self._tracks[stream.index] = track
        self._take_chapters(source)
        self._target.metadata.update(_metadata(source))
        wanted = [stream for stream in source.streams if stream.index in self._tracks]
        if wanted:
            if excerpt.start and not times.clock.jumps:
                source.seek(int(self._shift * 1_000_000), backward=True)
            self._packets = times.clock.retimed(readable(source, wanted))
        return left

    def _track(self, stream: Any) -> Track | None:
        """The track of the new file that takes a stream.

        Raises:
            ValueError, FFmpegError: there can be none.
        """
        target, kind = self._target, self._kind
        if stream.type == "attachment" and kind.format == "matroska":
            _describe(target.add_stream_from_template(stream), stream, kind)
            return None
        if stream.codec_context is None or stream.type not in ("audio", "subtitle"):
            raise ValueError(stream.type)
        if stream.type == "audio" and not (
            stream.codec_context.sample_rate and stream.codec_context.layout.nb_channels
        ):  # damaged, or it begins too late to be known
            raise ValueError("sound of an unknown kind")
        name = stream.codec_context.name
        if _lacks_head(stream):
            raise ValueError("sound without its head")
        unfit = name.startswith(kind.refused) or name not in target.supported_codecs
        if stream.type == "audio":
            if self._excerpt.start and name.startswith("pcm_") and not unfit:  # whose packets may be long
                return EncodedTrack(target, name, stream, self._excerpt)
            return EncodedTrack(target, kind.sound, stream, self._excerpt) if unfit else CopiedTrack(target, stream)
        return ConvertedSubtitles(target, kind.subtitles, stream) if unfit else CopiedTrack(target, stream)

    def _take_chapters(self, source: InputContainer) -> None:
        chapters: list[Any] = []
        for chapter in source.chapters() if hasattr(source, "chapters") else ():  # a newer PyAV has them
            unit = chapter["time_base"] or Fraction(1, 1000)
            begin = max(chapter["start"] * unit - self._zero, self._excerpt.first)
            end = chapter["end"] * unit - self._zero
            end = end if self._excerpt.end is None else min(end, self._excerpt.end)
            if begin < end:
                first, last = (round((time - self._excerpt.first) * 1000) for time in (begin, end))
                chapters.append({**chapter, "start": first, "end": last, "time_base": Fraction(1, 1000)})
        if chapters:
            self._target.set_chapters(chapters)


@contextmanager
def passing(passed_on: PassedOn | None, target: OutputContainer, kind: Container, name: str) -> Iterator[Passing]:
    """What goes along into `target`, called `name`; its tracks are added after the video's.

    What cannot go along is said in one line of the log.
    """
    result = Passing(target, kind)
    passed_on = passed_on or PassedOn()
    if passed_on.waveform is not None:
        result.take_waveform(passed_on.waveform)
    if (file := passed_on.source) is None:
        yield result
        return
    with opened(file) as (source, _):
        left = result.take_from(source, file, passed_on.excerpt, sound=passed_on.waveform is None)
        if left:
            log.warning("%s cannot hold all of %s: left out are %s.", name, name_of(file), ", ".join(left))
        yield result


def _metadata(source: InputContainer) -> dict[str, str]:
    """What a file says of its video."""
    return {key.lower(): value for key, value in source.metadata.items() if key.lower() not in _OF_THE_FILE}


def _begin(packet: Packet[Any]) -> Fraction | None:
    """When a packet begins, in seconds of its file's clock; None where that is unknown, and for the last, empty one."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return None if ticks is None or not packet.size else ticks * packet.time_base


def _describe(new: Any, old: Any, kind: Container) -> None:
    """Language, title and flags of a track."""
    for key in ("language", "filename", "mimetype"):
        if (value := old.metadata.get(key, "und")) != "und":
            new.metadata[key] = _IN_MOV.get(value, value) if kind.format == "mov" else value
    title = old.metadata.get("title") or old.metadata.get("name")  # MP4's word for it
    if title:
        new.metadata["title"] = title
        if kind.is_iso:
            new.metadata["handler_name"] = title  # where many players look
    try:
        new.disposition = getattr(old.disposition, "value", old.disposition)
    except AttributeError:
        log.debug("This PyAV cannot mark a track as the default one.")


def _lacks_head(stream: Any) -> bool:
    """Whether sound cannot be decoded, because what its file says of it first is missing or damaged."""
    head = stream.codec_context.extradata or b""
    name = stream.codec_context.name
    if name in ("opus", "libopus"):
        return not (head.startswith(b"OpusHead") and len(head) >= 19 and head[8] < 16)
    return name == "aac" and not head and stream.container.format.name.startswith(_HEADED)


def _named(stream: Any) -> str:
    """A track in a few words."""
    kind = {"audio": "sound track", "subtitle": "subtitle track", "attachment": "attachment"}.get(
        stream.type, f"{stream.type} track"
    )
    context = stream.codec_context
    details = [
        context.name if context is not None else stream.metadata.get("filename"),
        stream.metadata.get("language"),
    ]
    return f"{kind} {stream.index} ({', '.join(d for d in details if d) or 'unknown'})"

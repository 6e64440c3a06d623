"""Text subtitles of one kind made into another."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.subtitles.stream import SubtitleStream

_TEXT = {"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"}
_TICK = Fraction(1, 1000)


class ConvertedSubtitles:
    """A track of text subtitles that is encoded anew."""

    cuts = False

    def __init__(self, target: OutputContainer, encoder: str, source: SubtitleStream) -> None:
        """
        Raises:
            ValueError: they are no text, or this PyAV cannot convert them.
        """
        context = cast(Any, source.codec_context)
        if context.name not in _TEXT or not hasattr(context, "decode2"):
            raise ValueError(f"subtitles of the kind {context.name}")
        if not hasattr(context, "encode_subtitle"):
            raise ValueError("this PyAV does not encode subtitles")
        context.open(strict=False)
        self.stream = cast(Any, target.add_stream(encoder))
        self.stream.time_base = self.stream.codec_context.time_base = _TICK
        self.stream.codec_context.subtitle_header = context.subtitle_header
        self._target, self._source = target, context

    def add(self, packet: Packet[Any], shift: Fraction) -> None:
        """Write the subtitle of a packet, `shift` seconds earlier; one of size 0 is the end."""
        if not packet.size or packet.pts is None:
            return
        begins, lasts = packet.pts * packet.time_base - shift, (packet.duration or 0) * packet.time_base
        found = self._source.decode2(packet)
        if found is None or not len(found):
            return
        written = self.stream.codec_context.encode_subtitle(found)
        written.pts = written.dts = round(begins / _TICK)
        written.duration, written.time_base = round(lasts / _TICK), _TICK
        written.stream = self.stream
        self._target.mux(written)

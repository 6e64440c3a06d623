"""Covers: single pictures that belong to a file, on their way into another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .containers import Container
from .pyav import ATTACHED_PICTURE, File, opened

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

#: By the names of their codecs, the kind of picture as files and the Internet call it.
_KINDS = {"mjpeg": ("jpg", "jpeg"), "png": ("png", "png"), "bmp": ("bmp", "bmp"), "gif": ("gif", "gif"),
          "webp": ("webp", "webp")}  # fmt: skip
#: Those that MP4 has a place for, if its metadata is not written under free names.
_IN_MP4 = ("mjpeg", "png", "bmp")


class Covers:
    """The covers of a new file."""

    def __init__(self, target: OutputContainer, kind: Container) -> None:
        self._target, self._kind = target, kind
        self._waiting: list[Packet[Any]] = []

    def take(self, stream: Any, file: File) -> bool:
        """Add the cover that a stream of `file` is; False where the new file cannot hold it."""
        context = stream.codec_context
        name = context.name if context is not None and context.width and context.height else ""
        cover = _picture(stream, file) if name in _KINDS else None
        if cover is None:
            return False
        if self._kind.format == "matroska" and hasattr(self._target, "add_attachment"):
            suffix, mime = _KINDS[name]
            self._target.add_attachment(f"cover.{suffix}", f"image/{mime}", bytes(cover))
            return True
        free_names = "use_metadata_tags" in self._target.options.get("movflags", "")
        if self._kind.format != "mp4" or free_names or name not in _IN_MP4:
            return False
        try:
            new: Any = self._target.add_stream_from_template(stream)
            new.disposition = ATTACHED_PICTURE
        except (ValueError, AttributeError):
            return False
        cover.pts = cover.dts = 0
        cover.stream = new
        self._waiting.append(cover)
        return True

    def mux(self) -> None:
        """Write those that are not written yet; after that no track can be added."""
        for cover in self._waiting:
            self._target.mux(cover)
        self._waiting.clear()


def _picture(stream: Any, file: File) -> Packet[Any] | None:
    with opened(file) as (again, _):
        return next((packet for packet in again.demux(again.streams[stream.index]) if packet.size), None)

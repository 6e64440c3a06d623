"""What comes with a decoded frame beside its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from .pyav import import_av

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

#: FFmpeg's kinds of side data that PyAV may not know yet have numbers below this.
_KINDS = 48


def side_data(frame: VideoFrame) -> Mapping[str, Any]:
    """PyAV's side data of a frame, by the names of their kinds; those of which PyAV knows no name are left out."""
    try:
        return _named(frame)
    except ValueError:  # PyAV gives none where there is one that it does not know
        return _named(_without_unknown(frame))


def _named(frame: VideoFrame) -> dict[str, Any]:
    return {data.type.name: data for data in cast("Iterable[Any]", frame.side_data)}


def _without_unknown(frame: VideoFrame) -> VideoFrame:
    """The same frame without side data of kinds that PyAV does not know."""
    av = import_av()
    from av.sidedata.sidedata import Type

    graph = av.filter.Graph()
    last = entry = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base or Fraction(1)
    )
    for kind in range(max(each.value for each in cast("Iterable[Any]", Type)) + 1, _KINDS):
        last.link_to(removal := graph.add("sidedata", f"mode=delete:type={kind}"))
        last = removal
    last.link_to(end := graph.add("buffersink"))
    graph.configure()
    entry.push(frame)
    return cast("VideoFrame", end.pull())

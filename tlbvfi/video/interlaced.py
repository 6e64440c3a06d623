"""Frames that are two fields, of two times: made whole pictures of one time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .pyav import import_av

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: Which field of all frames comes first, as FFmpeg's filters name it; or each frame says whether it is interlaced.
TOP_FIRST, BOTTOM_FIRST, AS_FRAMES_SAY = "tff", "bff", "auto"
#: By FFmpeg's numbers of what a file states (AVFieldOrder).
_ORDERS = {2: TOP_FIRST, 3: BOTTOM_FIRST, 4: TOP_FIRST, 5: BOTTOM_FIRST}
#: Codecs whose frames do not say it: what the file states counts.
_SILENT = (
    "huffyuv", "ffvhuff", "magicyuv", "lagarith", "utvideo", "mjpeg", "jpeg2000", "png", "qtrle", "ffv1", "cfhd",
    "v210", "v308", "v410",
)  # fmt: skip
#: Codecs of which FFmpeg gives each field as a frame of half the height.
_FIELDS_APART = ("hevc",)


def order_of(stream: VideoStream) -> str:
    """How the frames of a stream are interlaced, if they are."""
    context = stream.codec_context
    if context.name not in _SILENT:
        return AS_FRAMES_SAY
    return _ORDERS.get(int(getattr(context, "field_order", 0) or 0), AS_FRAMES_SAY)  # not in older PyAV


def deinterlaced(
    frames: Iterable[VideoFrame], name: str, order: str = AS_FRAMES_SAY, codec: str = ""
) -> Iterator[VideoFrame]:
    """As many frames, at the same times; of one that is interlaced, the picture at the time of its first field.

    Others are handed through as they are, without any delay up to the first one that is interlaced. That there is one
    is said once, with the `name` of the file.

    Args:
        order: :data:`TOP_FIRST` or :data:`BOTTOM_FIRST` where all frames are interlaced, whatever they say.
        codec: FFmpeg's name of the one they come from.
    """
    remaining = iter(frames)
    work: _Deinterlacer | None = None
    before: VideoFrame | None = None
    for frame in remaining:
        if work is None and order == AS_FRAMES_SAY and not frame.interlaced_frame:
            before = frame
            yield frame
            continue
        if work is None and codec in _FIELDS_APART:
            log.warning("%s is interlaced: each of its fields is taken as a frame of half the height.", name)
            yield frame
            yield from remaining
            return
        if work is None:
            log.warning("%s is interlaced: it is deinterlaced.", name)
        elif not work.takes(frame):
            yield from work.end()
            work, before = None, None
        if work is None:
            work = _Deinterlacer(frame, order)
            if before is not None and work.takes(before):
                work.lead(before)
        yield from work.add(frame)
    if work is not None:
        yield from work.end()


class _Deinterlacer:
    """FFmpeg's filter. It gives a frame when it has the next one, which it looks at."""

    def __init__(self, like: VideoFrame, order: str) -> None:
        av = import_av()
        self._all = order != AS_FRAMES_SAY
        self._waiting: deque[VideoFrame | None] = deque()  # None: given already
        self._kind = (like.width, like.height, like.format.name)
        graph = av.filter.Graph()
        self._entry = graph.add_buffer(
            width=like.width, height=like.height, format=like.format.name, time_base=like.time_base or Fraction(1, 1000)
        )
        work = graph.add("bwdif", f"mode=send_frame:parity={order}:deint={'all' if self._all else 'interlaced'}")
        self._exit = graph.add("buffersink")
        self._entry.link_to(work)
        work.link_to(self._exit)
        graph.configure()
        self._graph = graph
        self._began = False
        self._only: VideoFrame | None = None  # the first one, as long as it is alone

    def takes(self, frame: VideoFrame) -> bool:
        """Whether it is of the size and format that it was made for."""
        return (frame.width, frame.height, frame.format.name) == self._kind

    def lead(self, frame: VideoFrame) -> None:
        """Show it the frame before the first one, which has been given."""
        self._waiting.append(None)
        self._push(frame)

    def add(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """The frames that are finished with the next one."""
        self._waiting.append(frame)
        self._push(frame)
        yield from self._finished()

    def end(self) -> Iterator[VideoFrame]:
        """The rest."""
        if self._only is not None:  # of which the filter would make nothing
            self._waiting.append(None)
            self._push(self._only)
        self._entry.push(None)
        yield from self._finished()

    def _push(self, frame: VideoFrame) -> None:
        self._only = None if self._began else frame
        self._began = True
        self._entry.push(frame)

    def _finished(self) -> Iterator[VideoFrame]:
        av = import_av()
        while True:
            try:
                made: Any = self._exit.pull()
            except (BlockingIOError, av.error.EOFError):
                return
            stored = self._waiting.popleft()
            if stored is None:
                continue
            if not (self._all or stored.interlaced_frame):
                yield stored
                continue
            made.pts = stored.pts
            if stored.time_base is not None:
                made.time_base = stored.time_base
            made.colorspace, made.color_range = stored.colorspace, stored.color_range
            yield made

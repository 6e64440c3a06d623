"""Video files, encoded as frames come; whole or absent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ..files import atomic, is_special
from .blame import made, writing
from .colour import LIMITED, Colour
from .containers import container_of, suffix_of
from .encoding import Codec, Encoding, pixel_format
from .gif import write_gif
from .passing import PassedOn, Passing, passing
from .pyav import File, VideoError, import_av, name_of
from .reading import VideoInfo
from .samples import resampled, to_frame, to_rgb_frame
from .slots import writable
from .webp_tags import add_tags

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: By more frames than this no encoder's decoding is ahead of showing.
_LONGEST_DELAY = 1000
#: Metadata for which MP4 has a place of its own, where players look; with other names, all are written another way.
_KNOWN_TO_MP4 = {"title", "artist", "album_artist", "album", "comment", "genre", "copyright", "date", "composer"}


def write_video(
    file: File,
    frames: Iterable[Tensor],
    fps: Fraction,
    *,
    like: VideoInfo | None = None,
    passed_on: PassedOn | None = None,
    encoding: Encoding | None = None,
    suffix: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Encode frames as they come.

    Args:
        file: where it goes; what an open file gets before an error stays there.
        frames: (H, W, 3) in [0, 1], all of one size; or (H, W, 4), with opacity, where :meth:`.Encoding.holds_alpha`.
        fps: frames per second, exact.
        like: the video they come from; its colours, depth and pixel aspect are kept.
        passed_on: what goes along from another video: copied where the new file's kind can hold it, else encoded anew.
        encoding: how they are encoded; 4:2:0, or 4:4:4 where a side is odd, which keeps the size.
        suffix: the kind of video, one of :data:`.containers.SUFFIXES`; by default the file's own suffix.
        metadata: put into the file, over what is passed on.

    Returns:
        The number of frames written.

    Raises:
        VideoError: the file cannot be written, or there are no frames. No file is left then.
    """
    fps = writable(fps)
    kind, encoding = container_of(file, suffix), encoding or Encoding()
    codec = encoding.chosen(suffix_of(file, suffix))
    if kind.is_animation:
        _note_tracks(passed_on, name_of(file))
        passed_on = None
        if kind.format == "gif":
            return write_gif(file, frames, fps)
    with new_file(file, suffix, fps, metadata, passed_on) as container:
        remaining = made(frames)
        first = next(remaining, None)
        if first is None:
            raise VideoError(f"{name_of(file)} was not written, because there are no frames.")
        encoder = _Encoder(container, codec, encoding, first, fps, like)
        with passing(passed_on, container, kind, name_of(file)) as along:
            container.metadata.update(metadata or {})
            encoder.add(first, along)
            del first
            for frame in remaining:
                encoder.add(frame, along)
            encoder.finish(along)
        return encoder.count


def _note_tracks(passed_on: PassedOn | None, name: str) -> None:
    """Say, where it is so, that nothing goes along into a file of pictures."""
    if passed_on is not None and passed_on.has_tracks():
        log.warning("%s holds pictures only: sound and subtitles are left out.", name)


@contextmanager
def new_file(
    file: File, suffix: str | None, fps: Fraction, metadata: Mapping[str, str] | None, passed_on: PassedOn | None
) -> Iterator[OutputContainer]:
    """The file opened for writing; at its path it appears at the end.

    Raises:
        VideoError: something of FFmpeg or of the system fails.
    """
    av, kind = import_av(), container_of(file, suffix)
    options = dict(kind.options)
    if kind.is_iso:
        clock = fps.numerator
        while clock < 10_000:
            clock *= 2
        options |= {"movie_timescale": str(clock)}  # a clock on which frame times are whole numbers
        flags = "+use_metadata_tags" if _has_free_metadata(metadata, passed_on) else ""
        if isinstance(file, Path) and not is_special(file):
            flags += "+faststart"  # the index first, for players that stream; FFmpeg opens the file again
        if flags:
            options["movflags"] = flags
    with writing(name_of(file)):
        if isinstance(file, Path):
            with atomic(file) as partial:
                with av.open(str(partial.absolute()), "w", format=kind.format, options=options) as container:
                    yield container
                if kind.format == "webp" and not is_special(file):
                    add_tags(partial, metadata or {})
        else:
            with av.open(file, "w", format=kind.format, options=options) as container:
                yield container


def _has_free_metadata(metadata: Mapping[str, str] | None, passed_on: PassedOn | None) -> bool:
    """Whether there are names for which MP4 has no place of its own."""
    names = set(metadata or {}) | (passed_on.metadata_names() if passed_on is not None else set())
    return not names <= _KNOWN_TO_MP4


class _Encoder:
    """The video track of a file being written."""

    def __init__(
        self,
        container: OutputContainer,
        codec: Codec,
        encoding: Encoding,
        first: Tensor,
        fps: Fraction,
        like: VideoInfo | None,
    ) -> None:
        height, width, channels = first.shape
        codec.check_size(height, width)
        self.container = container
        self.size, self.channels = (height, width), channels
        self.time_base = 1 / fps
        self.count = 0
        colour = like.colour if like is not None else Colour.usual(height)
        wanted = encoding.bits or colour.bits
        pixels, bits = pixel_format(codec, wanted, height % 2 == 0 and width % 2 == 0, channels == 4)
        if bits < wanted:
            log.warning("%s does not encode %d bits here: the video gets %d.", codec.encoder, wanted, bits)
        self.colour = replace(colour, bits=bits)
        self.stream = cast("VideoStream", container.add_stream(codec.encoder, rate=fps))
        context = self.stream.codec_context
        self.is_rgb = import_av().VideoFormat(pixels).is_rgb
        context.width, context.height, context.pix_fmt = width, height, pixels
        context.time_base = self.time_base
        context.framerate = fps
        options = encoding.options(codec, pixels)
        if like is not None and like.mastering is not None:
            written = like.mastering.options(codec.encoder)
            if not written:
                log.warning("%s does not keep what HDR10 states of the mastering display.", codec.encoder)
            for key, value in written.items():
                options[key] = f"{options[key]}:{value}" if key in options else value
        context.options = options
        if not self.is_rgb:
            context.color_range = LIMITED
            context.colorspace = self.colour.matrix
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer
        if codec.family == "hevc" and container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the one that players of Apple take
        if like is not None and like.pixel_aspect != 1:
            context.sample_aspect_ratio = like.pixel_aspect

    def add(self, picture: Tensor, along: Passing) -> None:
        """Encode the next frame, and pass on what belongs before its end."""
        frame = self._frame(picture)
        frame.pts, frame.time_base = self.count, self.time_base
        self.count += 1
        self._mux(frame)
        along.mux_until(self.count * self.time_base)

    def finish(self, along: Passing) -> None:
        """What the encoder still holds, and the rest of what goes along."""
        self._mux(None)
        along.mux_until(None)

    def _mux(self, frame: VideoFrame | None) -> None:
        """Write what the encoder gives for the next frame; None is the end."""
        for packet in self.stream.encode(frame):
            if packet.dts is None or packet.pts is None or not -_LONGEST_DELAY <= packet.dts <= packet.pts:
                packet.dts = packet.pts  # x265 does not set it where there are but one or two frames
            self.container.mux(packet)

    def _frame(self, picture: Tensor) -> VideoFrame:
        """The picture as the encoder takes it."""
        if tuple(picture.shape) != (*self.size, self.channels):
            height, width = self.size
            rows, columns, *colours = picture.shape
            found = "x".join(map(str, (columns, rows, *colours)))
            raise VideoError(
                f"A frame is {found} (width x height x colours) instead of {width}x{height}x{self.channels}."
            )
        pixels = self.stream.codec_context.pix_fmt or ""
        if self.is_rgb:
            return to_rgb_frame(picture, pixels)
        full = "yuv444p" if self.channels == 3 else "yuva444p"
        name = full if self.colour.bits == 8 else f"{full}{self.colour.bits}le"
        frame = resampled(to_frame(picture, self.colour, name), pixels, False)
        frame.colorspace = self.colour.matrix  # what ProRes goes by
        with suppress(AttributeError):  # not in older PyAV
            frame.color_primaries, frame.color_trc = self.colour.primaries, self.colour.transfer
        return frame

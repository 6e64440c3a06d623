"""Video files, encoded as frames come; whole or absent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ..files import atomic, unwritable
from .colour import LIMITED, Colour
from .pyav import File, VideoError, import_av, name_of, reason
from .reading import VideoInfo
from .samples import resampled, to_frame
from .sound import Sound

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: Video files that can be written, and their encoders.
ENCODERS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
#: Names of the containers, for open files, which have no name that says it.
_CONTAINERS = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
#: Constant quality of the encoders; lower is better and larger.
DEFAULT_CRF = 17


def check_target(path: Path, source: Path | None = None) -> None:
    """Raise VideoError where a video, or a folder of pictures if `path` has no suffix, cannot be written at `path`."""
    import_av()
    if path.suffix and path.suffix.lower() not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise VideoError(f"{path} is no kind of video that can be written ({known}, or a folder for pictures).")
    if (obstacle := unwritable(path)) is not None:
        raise VideoError(f"{path} cannot be written, because {obstacle}.")
    if path.exists() and path.is_dir() == bool(path.suffix):
        raise VideoError(f"{path} is {'a folder' if path.is_dir() else 'a file'} already; choose another name.")
    if path.is_dir() and any(path.iterdir()):
        raise VideoError(f"The folder {path} is not empty; choose another.")
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise VideoError(f"{path} is the source itself; choose another name.")


def write_video(
    file: File,
    frames: Iterable[Tensor],
    fps: Fraction,
    *,
    like: VideoInfo | None = None,
    sound_from: Path | None = None,
    crf: int = DEFAULT_CRF,
    suffix: str | None = None,
) -> int:
    """Encode frames as they come: H.264 (VP9 for .webm), 4:2:0, or 4:4:4 where a side is odd, which keeps the size.

    Args:
        file: where it goes; what an open file gets before an error stays there.
        frames: (H, W, 3) in [0, 1], all of one size.
        fps: frames per second, exact.
        like: the video they come from; its colours, depth and pixel aspect are kept.
        sound_from: a video whose sound goes along: copied where the new file's kind can hold it, else encoded anew.
        crf: constant quality of the encoder.
        suffix: the kind of video, one of :data:`ENCODERS`; by default the file's own suffix.

    Returns:
        The number of frames written.

    Raises:
        VideoError: the file cannot be written, or there are no frames. No file is left then.
    """
    av, name = import_av(), name_of(file)
    kind = (suffix or (file.suffix if isinstance(file, Path) else "")).lower()
    if kind not in ENCODERS:
        raise VideoError(f"{name} is no kind of video that can be written ({', '.join(ENCODERS)}).")
    try:
        with _output(file, kind, fps) as container:
            remaining = iter(frames)
            first = next(remaining, None)
            if first is None:
                raise VideoError(f"{name} was not written, because there are no frames.")
            encoder = _Encoder(container, ENCODERS[kind], first, fps, like, crf, sound_from)
            try:
                encoder.add(first)
                del first
                for frame in remaining:
                    encoder.add(frame)
                encoder.finish()
            finally:
                encoder.close()
            count = encoder.count
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{name} cannot be written ({reason(error)}).") from None
    return count


@contextmanager
def _output(file: File, kind: str, fps: Fraction) -> Iterator[OutputContainer]:
    """The file opened for writing; at its path it appears at the end."""
    av, options = import_av(), {}
    if kind in (".mp4", ".m4v", ".mov"):
        clock = fps.numerator
        while clock < 10_000:
            clock *= 2
        options = {"movie_timescale": str(clock)}  # a clock on which frame times are whole numbers
    if not isinstance(file, Path):
        with av.open(file, "w", format=_CONTAINERS[kind], options=options) as container:
            yield container
        return
    if options:
        options["movflags"] = "+faststart"  # the index first, for players that stream; FFmpeg opens the file again
    with atomic(file) as partial, av.open(str(partial.absolute()), "w", options=options) as container:
        yield container


class _Encoder:
    """The streams of a file being written."""

    def __init__(
        self,
        container: OutputContainer,
        codec: str,
        first: Tensor,
        fps: Fraction,
        like: VideoInfo | None,
        crf: int,
        sound_from: Path | None,
    ) -> None:
        height, width, _ = first.shape
        self.container = container
        self.colour = like.colour if like is not None else Colour.usual(height)
        self.size = (height, width)
        self.time_base = 1 / fps
        self.count = 0
        self.stream = cast("VideoStream", container.add_stream(codec, rate=fps))
        context = self.stream.codec_context
        chroma = "420" if height % 2 == 0 and width % 2 == 0 else "444"
        depth = "" if self.colour.bits == 8 else f"{self.colour.bits}le"
        if f"yuv{chroma}p{depth}" not in [known.name for known in context.codec.video_formats or ()]:
            log.warning("%s does not encode %d bits here: the video gets 8.", codec, self.colour.bits)
            self.colour, depth = replace(self.colour, bits=8), ""
        context.width, context.height, context.pix_fmt = width, height, f"yuv{chroma}p{depth}"
        context.time_base = self.time_base
        context.framerate = fps
        context.options = {"crf": str(crf)}
        if codec == "libvpx-vp9":
            context.options |= {"b": "0", "row-mt": "1", "cpu-used": "3"}
        context.color_range = LIMITED
        context.colorspace = self.colour.matrix
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer
        if like is not None and like.pixel_aspect != 1:
            context.sample_aspect_ratio = like.pixel_aspect
        self.sound = Sound(sound_from, container) if sound_from is not None else None

    def add(self, picture: Tensor) -> None:
        """Encode the next frame, and pass the sound on that belongs before its end."""
        frame = self._frame(picture)
        frame.pts, frame.time_base = self.count, self.time_base
        self.count += 1
        self.container.mux(self.stream.encode(frame))
        if self.sound is not None:
            self.sound.mux_until(self.count * self.time_base)

    def finish(self) -> None:
        """What the encoder still holds, and the rest of the sound."""
        self.container.mux(self.stream.encode(None))
        if self.sound is not None:
            self.sound.mux_until(None)

    def close(self) -> None:
        """Close what the sound comes from."""
        if self.sound is not None:
            self.sound.close()

    def _frame(self, picture: Tensor) -> VideoFrame:
        """The picture as the encoder takes it."""
        if tuple(picture.shape) != (*self.size, 3):
            height, width = self.size
            rows, columns, *colours = picture.shape
            found = "x".join(map(str, (columns, rows, *colours)))
            raise VideoError(f"A frame is {found} (width x height x colours) instead of {width}x{height}x3.")
        name = "yuv444p" if self.colour.bits == 8 else f"yuv444p{self.colour.bits}le"
        return resampled(to_frame(picture, self.colour, name), self.stream.codec_context.pix_fmt or name, False)

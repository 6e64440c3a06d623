"""Where the engine's frames go (see :class:`.engine.Target`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from .video import Encoding, File, PassedOn, VideoError, VideoInfo, write_pictures, write_video, write_y4m


@dataclass(frozen=True)
class VideoTarget:
    """A video file, which appears whole or not at all, or a video written into an open, seekable binary file.

    Attributes:
        file: the file.
        like: the video that the frames come from; its colours, depth and pixel aspect are kept.
        passed_on: the sound, subtitles, chapters and metadata that go along.
        encoding: codec and quality.
        suffix: says what kind of video goes into an open file, such as ``".mp4"``.
        metadata: put into the file, over what is passed on.
    """

    file: File
    like: VideoInfo | None = None
    passed_on: PassedOn | None = None
    encoding: Encoding = Encoding()
    suffix: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        """Returns the number of frames written.

        Raises:
            VideoError: the file cannot be written, or there are no frames or no rate.
        """
        if fps is None:
            raise VideoError("A video needs a frame rate, and its source has none.")
        return write_video(
            self.file,
            frames,
            fps,
            like=self.like,
            passed_on=self.passed_on,
            encoding=self.encoding,
            suffix=self.suffix,
            metadata=self.metadata,
        )


@dataclass(frozen=True)
class Y4mTarget:
    """Raw frames into a binary stream that need not be seekable, such as ``sys.stdout.buffer``: YUV4MPEG2.

    Attributes:
        stream: left open; that its reader leaves (BrokenPipeError) passes through.
        like: the video that the frames come from; its depth and pixel aspect are kept.
    """

    stream: BinaryIO
    like: VideoInfo | None = None

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        """Returns the number of frames written.

        Raises:
            VideoError: there are no frames or no rate.
        """
        if fps is None:
            raise VideoError("A stream of raw frames needs a frame rate, and its source has none.")
        return write_y4m(self.stream, frames, fps, self.like)


@dataclass(frozen=True)
class PictureTarget:
    """A new or an empty folder of numbered pictures, which is filled wholly or not at all.

    Attributes:
        folder: the folder.
        like: the video or pictures that the frames come from; with more than 8 bits a sample, the new ones have 16.
    """

    folder: Path
    like: VideoInfo | None = None

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        """Returns the number of pictures written.

        Raises:
            VideoError: they cannot be written, or there are none.
        """
        return write_pictures(self.folder, frames, deep=self.like is not None and self.like.colour.bits > 8)


@dataclass(frozen=True)
class BatchTarget:
    """Memory that is there already: (N, H, W, 3) float32, one place for every frame that will come."""

    result: Tensor

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> Tensor:
        """Returns the memory, filled."""
        for place, frame in zip(self.result, frames, strict=True):
            place.copy_(frame)
        return self.result

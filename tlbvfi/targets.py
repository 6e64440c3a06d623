"""Where the engine's frames go (see :class:`.engine.Target`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from .video import DEFAULT_CRF, File, VideoError, VideoInfo, write_pictures, write_video


@dataclass(frozen=True)
class VideoTarget:
    """A video file, which appears whole or not at all, or a video written into an open, seekable binary file.

    Attributes:
        file: the file.
        like: the video that the frames come from; its colours, depth and pixel aspect are kept.
        sound_from: a video whose sound goes along.
        crf: constant quality of the encoder; lower is better and larger.
        suffix: says what kind of video goes into an open file, such as ``".mp4"``.
    """

    file: File
    like: VideoInfo | None = None
    sound_from: Path | None = None
    crf: int = DEFAULT_CRF
    suffix: str | None = None

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        """Returns the number of frames written.

        Raises:
            VideoError: the file cannot be written, or there are no frames or no rate.
        """
        if fps is None:
            raise VideoError("A video needs a frame rate, and its source has none.")
        return write_video(
            self.file, frames, fps, like=self.like, sound_from=self.sound_from, crf=self.crf, suffix=self.suffix
        )


@dataclass(frozen=True)
class PictureTarget:
    """A new folder of numbered pictures, which appears whole or not at all."""

    folder: Path

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> int:
        """Returns the number of pictures written.

        Raises:
            VideoError: they cannot be written, or there are none.
        """
        return write_pictures(self.folder, frames)


@dataclass(frozen=True)
class BatchTarget:
    """Memory that is there already: (N, H, W, 3) float32, one place for every frame that will come."""

    result: Tensor

    def write(self, frames: Iterable[Tensor], fps: Fraction | None) -> Tensor:
        """Returns the memory, filled."""
        for place, frame in zip(self.result, frames, strict=True):
            place.copy_(frame)
        return self.result

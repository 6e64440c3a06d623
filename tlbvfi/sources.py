"""Where the engine's frames come from (see :class:`.engine.Source`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property

from torch import Tensor

from .video import File, VideoInfo, probe, read_frames


class FileSource:
    """A video file, a folder of pictures, or a video in an open, seekable binary file.

    Attributes:
        taken: how many frames have been read.
    """

    def __init__(self, file: File) -> None:
        self._file, self.taken = file, 0

    @cached_property
    def info(self) -> VideoInfo:
        """Raises VideoError, one sentence, for what is no video."""
        return probe(self._file)

    def frames(self) -> Iterator[Tensor]:
        for frame in read_frames(self._file):
            self.taken += 1
            yield frame


class BatchSource:
    """Frames that are there, such as a batch (N, H, W, 3) in [0, 1]."""

    def __init__(
        self,
        frames: Tensor | Sequence[Tensor],
        fps: Fraction | None = None,
        convert: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """convert: makes a frame (H, W, 3) in [0, 1] of each of `frames` when it is asked for."""
        self._frames, self._convert = frames, convert
        height, width = frames[0].shape[:2]
        self.info = VideoInfo(width, height, fps, len(frames))

    def frames(self) -> Iterator[Tensor]:
        return iter(self._frames) if self._convert is None else map(self._convert, self._frames)

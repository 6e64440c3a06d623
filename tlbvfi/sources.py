"""Where the engine's frames come from (see :class:`.engine.Source`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import BinaryIO

from torch import Tensor

from .video import Excerpt, File, VideoInfo, count_frames, probe, read_header, read_marked, read_y4m
from .video.reading import is_transparent_soon
from .video.y4m import Header


class FileSource:
    """A video file, a folder of pictures, or a video in an open, seekable binary file.

    Attributes:
        taken: how many frames have been read.
        is_damaged: whether it was said, after the last of them, that some are missing.
    """

    def __init__(
        self,
        file: File,
        start: Fraction | None = None,
        end: Fraction | None = None,
        fps: Fraction | None = None,
        *,
        deinterlace: bool = True,
        alpha: bool = False,
    ) -> None:
        """
        Args:
            start, end: only the frames that are shown in [start, end), in seconds from the first one.
            fps: frames per second in place of the file's own, or for a folder of pictures.
            deinterlace: frames that are interlaced; else they come as they are.
            alpha: with their opacity, where any of the first ones is partly transparent.

        Raises:
            VideoError: an excerpt that can hold nothing.
        """
        self._file, self._excerpt, self._fps, self.taken = file, Excerpt(start, end), fps, 0
        self._deinterlace, self._alpha, self.is_damaged = deinterlace, alpha, False
        self._again: set[int] = set()

    @cached_property
    def info(self) -> VideoInfo:
        """What will be read. Raises VideoError, one sentence, for what is no video."""
        info = probe(self._file, self._excerpt, self._fps)
        transparent = self._alpha and is_transparent_soon(self._file, self._excerpt, self._fps)
        return replace(info, alpha=True) if transparent else info

    @property
    def rate(self) -> Fraction | None:
        """Frames per second in place of the file's own, as given."""
        return self._fps

    def count(self) -> int:
        """The exact number of frames: all of them are decoded for it."""
        return count_frames(self._file, self._excerpt, self._fps)

    def frames(self, first: int = 0) -> Iterator[Tensor]:
        """The frames from some index on; those before it are decoded and no more."""
        self.taken, self.is_damaged = first, False
        frames = read_marked(
            self._file, self._excerpt, self._fps, first, self._note_damage,
            deinterlace=self._deinterlace, alpha=self._alpha and self.info.alpha,
        )  # fmt: skip
        for index, (frame, again) in enumerate(frames, first):
            if again:
                self._again.add(index)
            self.taken += 1
            yield frame

    def _note_damage(self, _: object) -> None:
        self.is_damaged = True

    def holds_after(self, index: int) -> bool:
        """Whether the frame after that index, which has been read, is the same once more because it lasts longer."""
        return index + 1 in self._again


class Y4mSource:
    """Raw frames out of a binary stream that need not be seekable, such as ``sys.stdin.buffer``: YUV4MPEG2.

    Attributes:
        taken: how many frames have been read.
    """

    def __init__(self, stream: BinaryIO, *, deinterlace: bool = True) -> None:
        """deinterlace: frames that are interlaced; else they come as they are."""
        self._stream, self._deinterlace, self.taken = stream, deinterlace, 0

    @cached_property
    def _header(self) -> Header:
        return read_header(self._stream)

    @property
    def info(self) -> VideoInfo:
        """What the stream states; waits for its first line. Raises VideoError for what is no stream of raw frames."""
        return self._header.info

    def frames(self) -> Iterator[Tensor]:
        for frame in read_y4m(self._stream, self._header, deinterlace=self._deinterlace):
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

"""Where the engine's frames come from (see :class:`.engine.Source`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import BinaryIO

from torch import Tensor

from .video import Excerpt, File, VideoError, VideoInfo, count_frames, probe, read_header, read_marked, read_y4m
from .video.packing import opened_parcel, pack, unpack
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
        """The frames from some index on, as by reading all; those before it are decoded where that is needed."""
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

    def parcel(self, first: int, count: int) -> bytes:
        """The frames [first, first + count), or as many of them as there are, for a :class:`ParcelSource`.

        Raises:
            VideoError: they cannot be read.
        """
        if first < 0 or count < 1:
            raise ValueError(f"A parcel has at least one frame from 0 on, not {count} from {first} on.")
        alpha = self._alpha and self.info.alpha
        return pack(
            self._file, first, count, self.info, self._excerpt, self._fps, deinterlace=self._deinterlace, alpha=alpha
        )

    def _note_damage(self, _: object) -> None:
        self.is_damaged = True

    def holds_after(self, index: int) -> bool:
        """Whether the frame after that index, which has been read, is the same once more because it lasts longer."""
        return index + 1 in self._again


class ParcelSource:
    """Frames of a video out of a parcel, without its file. Their indices are those in the whole video.

    Attributes:
        first, count: the frames for which it was asked.
        info: what the whole video is.
        taken: up to which frame all have been read.
    """

    is_damaged = False  # those before and after what is damaged come as they do from the file

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Raises VideoError, one sentence, for what is no parcel, or a damaged one."""
        self._parcel = opened_parcel(data)
        self.first, self.count, self.info = self._parcel.first, self._parcel.count, self._parcel.info
        self.taken = self.first
        self._again: set[int] = set()

    def frames(self, first: int | None = None) -> Iterator[Tensor]:
        """The frames from some index on, by default all, up to the last one in the parcel.

        Raises:
            VideoError: they are not in it, or cannot be decoded.
        """
        begin = self.first if first is None else first
        if not self.first <= begin <= self.first + self.count:
            raise VideoError(
                f"The frame {begin} is not in this parcel, which holds those from {self.first} to "
                f"{self.first + self.count - 1}."
            )
        self.taken = begin
        skipped = begin - self.first
        for index, (frame, again) in enumerate(islice(unpack(self._parcel), skipped, None), begin):
            if again:
                self._again.add(index)
            self.taken += 1
            yield frame

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

"""Animated pictures, GIF, APNG and WebP, as videos of a constant rate."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from .pyav import File, VideoError, decoded, name_of, opened, reason
from .samples import noting_alpha, to_tensor

log = logging.getLogger(__name__)

#: Rates that an animation with rounded times most likely has: whole ones, then those of NTSC.
_LIKELY = [Fraction(n) for n in range(1, 241)] + [Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)]
_PNG, _ACTL, _FCTL, _IDAT = b"\x89PNG\r\n\x1a\n", b"acTL", b"fcTL", b"IDAT"
_ANIMATED = 0x02  # in the flags of a WebP


@dataclass(frozen=True)
class Animation:
    """An animated picture.

    Attributes:
        kind: "gif", "apng" or "webp".
        durations: of its frames, in seconds.
        tick: what they are rounded to; None where they are exact.
    """

    kind: str
    durations: tuple[Fraction, ...]
    tick: Fraction | None

    @property
    def fps(self) -> Fraction:
        """Frames per second: of all frames where they last equally long up to rounding, else of the shortest."""
        total, count = sum(self.durations, Fraction(0)), len(self.durations)
        if len(set(self.durations)) == 1:
            return 1 / self.durations[0]
        if self._is_even(count / total):
            return next((rate for rate in _LIKELY if self._is_even(rate)), count / total)
        return 1 / min(self.durations)

    def _is_even(self, rate: Fraction) -> bool:
        """Whether each frame comes when it would at this rate, up to rounding."""
        ends = accumulate(self.durations)
        return self.tick is not None and all(abs(end - k / rate) <= self.tick / 2 for k, end in enumerate(ends, 1))

    def repeats(self) -> list[int]:
        """How often each frame comes at the rate, so that it lasts as long as it should."""
        fps = self.fps
        if self._is_even(fps) or len(set(self.durations)) == 1:
            return [1] * len(self.durations)
        places = [round(time * fps) for time in accumulate(self.durations, initial=Fraction(0))]
        return [max(1, after - before) for before, after in pairwise(places)]


def animation_of(file: File) -> Animation | None:
    """What an animated picture is; None for any other file.

    Raises:
        VideoError: it is one, and damaged.
    """
    if isinstance(file, Path) and not file.is_file():
        return None
    with _bytes_of(file) as stream:
        start = stream.read(30)
        found: Animation | None = None
        if start.startswith(_PNG):
            found = Animation("apng", tuple(_png_durations(stream)), None)
        elif start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and len(start) > 20 and start[20] & _ANIMATED:
            found = Animation("webp", tuple(_webp_durations(stream)), Fraction(1, 1000))
    if start.startswith((b"GIF87a", b"GIF89a")):
        found = Animation("gif", tuple(_gif_durations(file)), Fraction(1, 100))
    if found is not None and not found.durations:
        if found.kind == "apng":  # a single picture
            return None
        raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
    return found


def animation_frames(file: File, animation: Animation, *, alpha: bool = False) -> Iterator[Tensor]:
    """Its frames at its rate, (H, W, 3) in [0, 1], or (H, W, 4) with alpha, decoded as they are asked for.

    Raises:
        VideoError: it cannot be read, or not further.
    """
    for picture, times in zip(_pictures(file, animation.kind, alpha), animation.repeats(), strict=False):
        for _ in range(times):
            yield picture


def _pictures(file: File, kind: str, alpha: bool) -> Iterator[Tensor]:
    if kind == "webp":  # which FFmpeg does not decode
        yield from _webp_pictures(file, alpha)
        return
    with opened(file) as (container, stream):
        frames = decoded(container, stream, file)
        for frame in frames if alpha else noting_alpha(frames, name_of(file)):
            yield to_tensor(frame, alpha=alpha)


@contextmanager
def _bytes_of(file: File) -> Iterator[BinaryIO]:
    """The file from its begin; an open one is left where it was."""
    if isinstance(file, Path):
        try:
            with file.open("rb") as stream:
                yield stream
        except OSError as error:
            raise VideoError(f"{file} cannot be read ({reason(error)}).") from None
        return
    position = file.tell()
    file.seek(0)
    try:
        yield file
    finally:
        file.seek(position)


def _png_durations(stream: BinaryIO) -> Iterator[Fraction]:
    """Of the frames that a PNG states; none for one that is not animated."""
    stream.seek(len(_PNG))
    animated = False
    while len(head := stream.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == _IDAT and not animated:
            return
        animated = animated or name == _ACTL
        if name == _FCTL:
            body = stream.read(size)
            # At 20 and 22: numerator and denominator, of which 0 means 100.
            shown = Fraction(int.from_bytes(body[20:22], "big"), int.from_bytes(body[22:24], "big") or 100)
            yield shown or Fraction(1, 10)
            size = 0
        stream.seek(size + 4, io.SEEK_CUR)


def _webp_durations(stream: BinaryIO) -> Iterator[Fraction]:
    """Of the frames that a WebP states."""
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"ANMF":
            yield Fraction(int.from_bytes(stream.read(16)[12:15], "little") or 100, 1000)
            size -= 16
        stream.seek(size + size % 2, io.SEEK_CUR)


def _gif_durations(file: File) -> Iterator[Fraction]:
    """Of the frames of a GIF."""
    with opened(file) as (container, stream):
        for packet in container.demux(stream):
            if packet.size and packet.duration:
                yield packet.duration * packet.time_base


def _webp_pictures(file: File, alpha: bool) -> Iterator[Tensor]:
    try:
        from PIL import Image
    except ImportError:
        raise VideoError(
            f"{name_of(file)} is an animated WebP, which needs Pillow, which is not installed: pip install pillow."
        ) from None
    with _bytes_of(file) as stream:
        data = io.BytesIO(stream.read())  # compressed; another reader may move an open file's position
    noted, index = False, 0
    try:
        with Image.open(data) as animation:
            for index in range(cast(Any, animation).n_frames):
                animation.seek(index)
                pixels = np.asarray(animation.convert("RGBA"))
                if not (noted or alpha) and pixels[..., 3].min() < 255:
                    noted = True
                    log.warning("%s is partly transparent, which is left out.", name_of(file))
                yield torch.from_numpy(pixels[..., : 4 if alpha else 3].astype(np.float32)) / 255.0
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{name_of(file)} cannot be decoded after frame {index} ({reason(error)}).") from None

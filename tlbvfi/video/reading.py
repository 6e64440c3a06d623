"""What a video is, and its frames, decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from .colour import BT601, Colour
from .pictures import PICTURES, pictures_in, read_picture
from .pyav import File, VideoError, decoded, name_of, opened
from .samples import colour_of, is_yuv, quarter_turns, to_tensor

if TYPE_CHECKING:
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as it will be read.

    Attributes:
        width, height: of the upright picture.
        fps: frames per second; None for a folder of pictures.
        frame_count: as the file says, or from its duration; may be off by a few, and None where nothing is known.
        duration: seconds that the frames are shown, None where it is unknown.
        sound: number of sound tracks.
        pixel_aspect: width to height of a pixel.
        colour: how it is stored, and how to store what belongs to it.
        quarter_turns: by which the stored picture is turned anticlockwise to be upright.
    """

    width: int
    height: int
    fps: Fraction | None
    frame_count: int | None
    duration: Fraction | None = None
    sound: int = 0
    pixel_aspect: Fraction = Fraction(1)
    colour: Colour = Colour(BT601)
    quarter_turns: int = 0


def probe(file: File) -> VideoInfo:
    """What a video, in a file or an open one, or a folder of pictures is; its first frame is decoded.

    Raises:
        VideoError: it is missing, is no video, or its first frame cannot be decoded.
    """
    if isinstance(file, Path) and file.is_dir():
        files = pictures_in(file)
        height, width, _ = read_picture(files[0]).shape
        return VideoInfo(width, height, None, len(files), colour=Colour.usual(height))
    if isinstance(file, Path) and file.suffix.lower() in PICTURES:
        raise VideoError(f"{file} is a single picture; give a video or a folder of pictures.")
    with opened(file) as (container, stream):
        fps = _frame_rate(stream)
        duration = None
        if stream.duration and stream.time_base:
            duration = stream.duration * stream.time_base
        elif container.duration:
            duration = Fraction(container.duration, 1_000_000)
        count = stream.frames or (round(duration * fps) if duration and fps else None)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        sound = len(container.streams.audio)
        first = next(decoded(container, stream, file), None)
        if first is None:
            raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
        turns = quarter_turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        context = stream.codec_context
        stated = colour_of(first)
        colour = Colour(
            stated.matrix if is_yuv(first) else Colour.usual(first.height).matrix,
            int(context.color_primaries),
            int(context.color_trc),
            bits=10 if stated.bits > 8 else 8,
        )
        return VideoInfo(width, height, fps, count, duration, sound, 1 / aspect if turns % 2 else aspect, colour, turns)


def _frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second such that the frames take as long as they do in the file."""
    average, nominal = stream.average_rate, stream.guessed_rate
    if average and nominal and abs(average / nominal - 1) < Fraction(1, 1000):
        average = nominal  # 30000/1001 rather than 359/12, for a cut piece of such a video
    rate = Fraction(average or nominal or 0)
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    if stream.time_base == Fraction(1, 1000) and abs(rate - ntsc) < rate * Fraction(8, 10_000_000):
        return ntsc  # Matroska states whole nanoseconds
    return rate or None


def read_frames(file: File) -> Iterator[Tensor]:
    """The frames of a video, in a file or an open one, or of a folder of pictures: in order, upright, and decoded as
    they are asked for.

    Raises:
        VideoError: the file cannot be read, or not further.
    """
    if isinstance(file, Path) and file.is_dir():
        yield from map(read_picture, pictures_in(file))
        return
    with opened(file) as (container, stream):
        for frame in decoded(container, stream, file):
            yield to_tensor(frame)

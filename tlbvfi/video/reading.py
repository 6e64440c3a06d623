"""What a video is, and its frames, decoded as they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import compress, islice, tee
from operator import itemgetter
from pathlib import Path

from torch import Tensor

from .animation import animation_frames, animation_of
from .checking import check_source
from .colour import BT601, LUMA, Colour
from .containers import PICTURES
from .damage import Account, Damage
from .excerpt import Excerpt, seconds
from .fitting import Fitting, converted
from .hdr import Mastering, noting_dynamic, tell_of_own_colours
from .pictures import picture_info, pictures_in, read_pictures, stored_picture
from .pyav import File, VideoError, decoded, name_of, opened
from .samples import (
    colour_of,
    is_transparent,
    is_yuv,
    noting_alpha,
    orientation_of,
    to_tensor,
    upright_size,
)  # fmt: skip
from .seeking import frames_within, marked, marked_within
from .times import times_of

log = logging.getLogger(__name__)

WHOLE = Excerpt()
#: Frames that are looked at for transparency.
_SOON = 24


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
        quarter_turns: by which the stored picture is turned anticlockwise to be upright; it may also be mirrored.
        mastering: what HDR10 states of it.
        alpha: its frames come with their opacity.
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
    mastering: Mastering | None = None
    alpha: bool = False


def probe(file: File, excerpt: Excerpt = WHOLE, fps: Fraction | None = None) -> VideoInfo:
    """What a video, in a file or an open one, or a folder of pictures is; its first frame is decoded.

    Args:
        excerpt: the part of it that will be read.
        fps: a rate in place of the video's own, or for pictures.

    Raises:
        VideoError: it is missing, is no video, or its first frame cannot be decoded; the excerpt is empty.
    """
    info = _probed(file, fps)
    rate = info.fps or fps
    if excerpt.is_whole:
        duration = info.duration
        count = info.frame_count
    else:
        if rate is None:
            raise VideoError(f"{name_of(file)} has no frame rate, so that no excerpt can be taken; give one.")
        count = excerpt.count(rate, info.frame_count) or None
        if count is None and next(read_frames(file, excerpt, fps), None) is None:  # what a file says may be wrong
            lasts = info.duration or (info.frame_count or 0) / rate
            raise VideoError(f"{name_of(file)} has no frame in the excerpt: it lasts {seconds(lasts)}.")
        duration = None if count is None else count / rate
    if fps is not None:
        duration = None if count is None else count / fps
    return replace(info, fps=fps or info.fps, frame_count=count, duration=duration)


def _probed(file: File, fps: Fraction | None) -> VideoInfo:
    if isinstance(file, Path):
        check_source(file)
    if isinstance(file, Path) and file.is_dir():
        files = pictures_in(file)
        width, height, bits = picture_info(files[0])
        colour = replace(Colour.usual(height), bits=10 if bits > 8 else 8)
        return VideoInfo(width, height, None, len(files), colour=colour)
    if (animation := animation_of(file)) is not None:
        first = next(animation_frames(file, animation, alpha=True), None)
        if first is None:
            raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
        height, width, _ = first.shape
        fps, length = animation.fps, sum(animation.repeats())
        return VideoInfo(width, height, fps, length, length / fps, colour=Colour.usual(height))
    if isinstance(file, Path) and file.suffix.lower() in PICTURES:
        raise VideoError(f"{file} is a single picture; give a video or a folder of pictures.")
    with opened(file) as (container, stream):
        times = times_of(file)
        rate = times.rate
        duration = None
        if stream.duration and stream.time_base:
            duration = stream.duration * stream.time_base
        elif container.duration:
            duration = Fraction(container.duration, 1_000_000)
        count = (times.is_even and stream.frames) or (round(duration * rate) if duration and rate else None)
        if times.count is not None and rate is not None and not times.end_before(duration):
            count, duration = (times.count, times.count / rate) if fps is None else (times.frames, duration)
        if fps is None:
            times.tell(name_of(file))
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        sound = len(container.streams.audio)
        shown = next(decoded(container, stream, file), None)
        if shown is None:
            raise VideoError(f"{name_of(file)} has no frame that can be decoded.")
        if not is_yuv(shown):
            converted(shown, name_of(file))  # whether it can be
        orientation, (height, width) = orientation_of(shown), upright_size(shown)
        context = stream.codec_context
        tell_of_own_colours(context.codec_tag, shown, name_of(file))
        stated = colour_of(shown)
        colour = Colour(
            stated.matrix if is_yuv(shown) and stated.matrix in LUMA else Colour.usual(shown.height).matrix,
            int(context.color_primaries),
            int(context.color_trc),
            bits=10 if stated.bits > 8 else 8,
        )
        aspect = 1 / aspect if orientation.is_turned else aspect
        turns, mastering = orientation.quarter_turns, Mastering.of(shown)
        return VideoInfo(width, height, rate, count, duration, sound, aspect, colour, turns, mastering)


def read_frames(
    file: File,
    excerpt: Excerpt = WHOLE,
    fps: Fraction | None = None,
    skipped: int = 0,
    *,
    deinterlace: bool = True,
    alpha: bool = False,
) -> Iterator[Tensor]:
    """The frames of a video, in a file or an open one, or of a folder of pictures: in order, upright, and decoded as
    they are asked for. They come at a constant rate: one that lasts longer comes several times.

    Args:
        excerpt: which of them, by the times at which they are shown.
        fps: the rate of pictures; of a video in place of its own, every frame once.
        skipped: of these, so many are left out at the begin; not decoded where the others can be without them.
        deinterlace: frames that are interlaced; else they come as they are.
        alpha: with their opacity, (H, W, 4); else it is said where some is left out.

    Raises:
        VideoError: the file cannot be read, or not further.
    """
    marked = read_marked(file, excerpt, fps, skipped, deinterlace=deinterlace, alpha=alpha)
    yield from map(itemgetter(0), marked)


def read_marked(
    file: File,
    excerpt: Excerpt = WHOLE,
    fps: Fraction | None = None,
    skipped: int = 0,
    on_damage: Callable[[Damage], object] | None = None,
    *,
    deinterlace: bool = True,
    alpha: bool = False,
) -> Iterator[tuple[Tensor, bool]]:
    """The same frames, each with whether it is the one before once more.

    Args:
        on_damage: called at the end if frames of a video are missing, which is said in one line of the log, too.
    """
    if isinstance(file, Path) and file.is_dir():
        files = pictures_in(file)
        wanted = _counted(len(files), excerpt, fps, file)
        chosen = islice(compress(files, wanted), skipped, None)
        yield from ((picture, False) for picture in read_pictures(chosen, name_of(file), alpha=alpha))
        return
    if (animation := animation_of(file)) is not None:
        wanted = _counted(sum(animation.repeats()), excerpt, animation.fps, file)
        pictures = compress(animation_frames(file, animation, alpha=alpha), wanted)
        yield from islice(marked(pictures), skipped, None)
        return
    account = Account()
    size = None if excerpt.is_whole and not skipped else _first_size(file)
    convert = Fitting(name_of(file), size, partial(to_tensor, alpha=True) if alpha else None)
    frames, again = tee(marked_within(file, excerpt, fps, account, skipped, deinterlace=deinterlace))
    noted = noting_dynamic(map(itemgetter(0), frames), name_of(file))
    for frame, is_again in zip(
        noted if alpha else noting_alpha(noted, name_of(file)), map(itemgetter(1), again), strict=True
    ):
        yield convert(frame), is_again
    if damage := account.damage():
        log.warning("%s", damage.sentence(name_of(file)))
        if on_damage is not None:
            on_damage(damage)


def _first_size(file: File) -> tuple[int, int] | None:
    """(H, W) of a video's first frame, upright."""
    with opened(file) as (container, stream):
        first = next(decoded(container, stream, file), None)
        return None if first is None else upright_size(first)


def is_transparent_soon(file: File, excerpt: Excerpt = WHOLE, fps: Fraction | None = None) -> bool:
    """Whether any of the first frames of :func:`read_frames` is partly transparent.

    Raises:
        VideoError: the file cannot be read.
    """
    frames: Iterator[bool]
    if isinstance(file, Path) and file.is_dir():
        pictures = pictures_in(file)
        wanted = _counted(len(pictures), excerpt, fps, file)
        frames = map(is_transparent, map(stored_picture, compress(pictures, wanted)))
    elif animation_of(file) is not None:
        frames = (bool(frame[..., 3].min() < 1) for frame in read_frames(file, excerpt, fps, alpha=True))
    else:
        with opened(file) as (container, stream):
            shown = next(decoded(container, stream, file), None)
        if shown is None or not any(part.is_alpha for part in shown.format.components):
            return False
        frames = map(is_transparent, frames_within(file, excerpt, fps))
    return any(islice(frames, _SOON))


def count_frames(file: File, excerpt: Excerpt = WHOLE, fps: Fraction | None = None) -> int:
    """How many frames :func:`read_frames` gives; those of a video are decoded for it.

    Raises:
        VideoError: the file cannot be read, or not to its end.
    """
    if isinstance(file, Path) and file.is_dir():
        return sum(_counted(len(pictures_in(file)), excerpt, fps, file))
    if (animation := animation_of(file)) is not None:
        return sum(_counted(sum(animation.repeats()), excerpt, animation.fps, file))
    return sum(1 for _ in frames_within(file, excerpt, fps))


def _counted(count: int, excerpt: Excerpt, fps: Fraction | None, file: File) -> list[bool]:
    """Which of so many frames that have no times lie in an excerpt."""
    if excerpt.is_whole:
        return [True] * count
    if fps is None:
        raise VideoError(f"{name_of(file)} has no times, so that no excerpt can be taken; give a frame rate.")
    return [not (excerpt.is_before(index / fps) or excerpt.is_after(index / fps)) for index in range(count)]

"""Picture files, and folders of them, which are videos without a frame rate."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..files import atomic, atomic_folder
from .blame import made, writing
from .colour import BT601, FULL, UNKNOWN, Colour
from .containers import PICTURES
from .fitting import converted
from .orientation import Orientation, of_picture, tiff_number, without_png_extras
from .pyav import VideoError, check_file, import_av, name_of, reason
from .samples import is_yuv, noting_alpha, to_frame, to_rgb_frame, to_tensor
from .wholeness import check_whole, picture_frame

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

#: Pictures that can be written: encoder and pixel format.
_PICTURE_ENCODERS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".jpeg": ("mjpeg", "yuvj444p")}
#: By the number of channels, and whether samples have 16 bits.
_PNG_FORMATS = {(3, False): "rgb24", (3, True): "rgb48be", (4, False): "rgba", (4, True): "rgba64be"}
_TIFF_COMPRESSION = 259  # a tag
_JPEG_IN_TIFF = (6, 7)  # of which FFmpeg makes black pictures


def read_picture(path: Path) -> Tensor:
    """A picture file, upright, (H, W, 3) float32 in [0, 1].

    Raises:
        VideoError: it cannot be read, or not all of it.
    """
    return _upright(stored_picture(path), path)


def read_pictures(paths: Iterable[Path], name: str, *, alpha: bool = False) -> Iterator[Tensor]:
    """Picture files of a folder called `name`, read as they are asked for.

    Args:
        alpha: with their opacity, (H, W, 4); else it is said once that it is left out.
    """
    paths, again = tee(paths)
    frames = map(stored_picture, paths)
    for frame, path in zip(frames if alpha else noting_alpha(frames, name), again, strict=True):
        yield _upright(frame, path, alpha=alpha)


def _upright(frame: VideoFrame, path: Path, *, alpha: bool = False) -> Tensor:
    return converted(frame, name_of(path), lambda stored: to_tensor(stored, _orientation(path), alpha=alpha))


def picture_info(path: Path) -> tuple[int, int, int]:
    """Width, height and bits a sample of a picture file, upright.

    Raises:
        VideoError: it cannot be read, or not all of it.
    """
    frame = stored_picture(path)
    return *_orientation(path).size(frame.width, frame.height), frame.format.components[0].bits


def stored_picture(path: Path) -> VideoFrame:
    """A picture file as it is stored."""
    check_file(path)  # a pipe would be waited for
    if _compression(path) in _JPEG_IN_TIFF:
        raise VideoError(f"{name_of(path)} is a TIFF compressed as JPEG, which cannot be read; save it without that.")
    check_whole(path)
    frame = _stored(path)
    if is_yuv(frame) and frame.colorspace == UNKNOWN:  # a TIFF, which means what JPEG does
        frame.colorspace, frame.color_range = BT601, FULL
    return frame


def _stored(path: Path) -> VideoFrame:
    try:
        return picture_frame(path, name_of(path))
    except VideoError:
        with suppress(OSError), path.open("rb") as stream:
            if (rest := without_png_extras(stream)) is not None:  # which FFmpeg refuses where they are damaged
                return picture_frame(io.BytesIO(rest), name_of(path))
        raise


def _compression(path: Path) -> int | None:
    """How a TIFF is compressed, by TIFF's number; None for other files."""
    with suppress(OSError, ValueError, struct.error), path.open("rb") as stream:
        return tiff_number(stream, _TIFF_COMPRESSION)
    return None


def _orientation(path: Path) -> Orientation:
    """How a picture file lies."""
    try:
        with path.open("rb") as stream:
            return of_picture(stream)
    except OSError as error:
        raise VideoError(f"{name_of(path)} cannot be read ({reason(error)}).") from None


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, numbers in their names in numerical order.

    Raises:
        VideoError: there are none, or the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if _is_picture(each)]
    except OSError as error:
        raise VideoError(f"{name_of(folder)} cannot be read ({reason(error)}).") from None
    if not names:
        raise VideoError(f"{name_of(folder)} holds no pictures ({', '.join(PICTURES)}).")

    def natural(name: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"(\d+)", name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name

    return [folder / name for name in sorted(names, key=natural)]


def _is_picture(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return not hidden and os.path.splitext(entry.name)[1].lower() in PICTURES and not entry.is_dir()


def check_picture(path: Path) -> None:
    """Raise VideoError where `path` is no kind of picture that can be written."""
    if path.suffix.lower() not in _PICTURE_ENCODERS:
        raise VideoError(f"{name_of(path)} is no kind of picture that can be written ({', '.join(_PICTURE_ENCODERS)}).")


def write_picture(path: Path, frame: Tensor, *, deep: bool = False) -> None:
    """Write a (H, W, 3) frame in [0, 1] as .png or .jpg; one with opacity, (H, W, 4), as .png.

    Args:
        deep: a .png of 16 bits a sample instead of 8.

    Raises:
        VideoError: another kind of file, or it cannot be written. No file is left then.
    """
    check_picture(path)
    with writing(name_of(path)):
        data = _encoded(path, frame, deep)
        with atomic(path) as partial:
            partial.write_bytes(data)


def _encoded(path: Path, frame: Tensor, deep: bool) -> bytes:
    """The bytes of a picture file of that name."""
    av = import_av()
    codec, name = _PICTURE_ENCODERS[path.suffix.lower()]
    height, width, channels = frame.shape
    if codec == "png":
        name = _PNG_FORMATS[channels, deep]
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = width, height, name, Fraction(1)
    if codec == "png":
        picture = to_rgb_frame(frame, name)
    else:
        context.color_range = FULL
        context.options = {"qmin": "2", "qmax": "2"}
        picture = to_frame(frame, Colour(BT601, full_range=True), name)
        picture.color_range = FULL
    picture.pts, picture.time_base = 0, Fraction(1)
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])


def write_pictures(folder: Path, frames: Iterable[Tensor], *, deep: bool = False) -> int:
    """Write frames as 00000000.png and so on into a new or an empty folder; returns their number.

    Args:
        deep: with 16 bits a sample instead of 8.

    Raises:
        VideoError: they cannot be written, or there are none. No folder is left then, or an empty one as before.
    """
    count = 0
    with writing(name_of(folder)), atomic_folder(folder) as partial:
        for frame in made(frames):
            path = partial / f"{count:08d}.png"
            path.write_bytes(_encoded(path, frame, deep))
            count += 1
        if not count:
            raise VideoError(f"{name_of(folder)} was not written, because there are no frames.")
    return count

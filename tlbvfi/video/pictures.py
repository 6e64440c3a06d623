"""Picture files, and folders of them, which are videos without a frame rate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..files import atomic, atomic_folder
from .blame import made, writing
from .colour import BT601, FULL, Colour
from .containers import PICTURES
from .fitting import converted
from .pyav import VideoError, import_av, name_of, reason
from .samples import to_frame
from .wholeness import check_whole, picture_frame

#: Pictures that can be written: encoder and pixel format.
_PICTURE_ENCODERS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".jpeg": ("mjpeg", "yuvj444p")}


def read_picture(path: Path) -> Tensor:
    """A picture file, (H, W, 3) float32 in [0, 1].

    Raises:
        VideoError: it cannot be read, or not all of it.
    """
    check_whole(path)
    return converted(picture_frame(path, name_of(path)), name_of(path))


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


def write_picture(path: Path, frame: Tensor) -> None:
    """Write a (H, W, 3) frame in [0, 1] as .png or .jpg.

    Raises:
        VideoError: another kind of file, or it cannot be written. No file is left then.
    """
    check_picture(path)
    with writing(name_of(path)):
        data = _encoded(path, frame)
        with atomic(path) as partial:
            partial.write_bytes(data)


def _encoded(path: Path, frame: Tensor) -> bytes:
    """The bytes of a picture file of that name."""
    av = import_av()
    codec, name = _PICTURE_ENCODERS[path.suffix.lower()]
    height, width, _ = frame.shape
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = width, height, name, Fraction(1)
    if name == "rgb24":
        array = (frame.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().contiguous().numpy()
        picture = av.VideoFrame.from_ndarray(array, format="rgb24")
    else:
        context.color_range = FULL
        context.options = {"qmin": "2", "qmax": "2"}
        picture = to_frame(frame, Colour(BT601, full_range=True), name)
        picture.color_range = FULL
    picture.pts, picture.time_base = 0, Fraction(1)
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])


def write_pictures(folder: Path, frames: Iterable[Tensor]) -> int:
    """Write frames as 00000000.png and so on into a new or an empty folder; returns their number.

    Raises:
        VideoError: they cannot be written, or there are none. No folder is left then, or an empty one as before.
    """
    count = 0
    with writing(name_of(folder)), atomic_folder(folder) as partial:
        for frame in made(frames):
            path = partial / f"{count:08d}.png"
            path.write_bytes(_encoded(path, frame))
            count += 1
        if not count:
            raise VideoError(f"{name_of(folder)} was not written, because there are no frames.")
    return count

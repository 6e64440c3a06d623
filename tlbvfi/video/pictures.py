"""Picture files, and folders of them, which are videos without a frame rate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..files import atomic
from .blame import made, writing
from .colour import BT601, FULL, Colour
from .fitting import converted
from .pyav import VideoError, import_av
from .samples import to_frame
from .wholeness import check_whole, picture_frame

#: Pictures that can be read.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
#: Pictures that can be written: encoder and pixel format.
_PICTURE_ENCODERS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".jpeg": ("mjpeg", "yuvj444p")}


def read_picture(path: Path) -> Tensor:
    """A picture file, (H, W, 3) float32 in [0, 1].

    Raises:
        VideoError: it cannot be read, or not all of it.
    """
    check_whole(path)
    return converted(picture_frame(path, str(path)), str(path))


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, numbers in their names in numerical order.

    Raises:
        VideoError: there are none.
    """
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    if not files:
        raise VideoError(f"{folder} holds no pictures ({', '.join(PICTURES)}).")

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted(files, key=natural)


def write_picture(path: Path, frame: Tensor) -> None:
    """Write a (H, W, 3) frame in [0, 1] as .png or .jpg.

    Raises:
        VideoError: another kind of file, or it cannot be written. No file is left then.
    """
    av = import_av()
    if path.suffix.lower() not in _PICTURE_ENCODERS:
        raise VideoError(f"{path} is no kind of picture that can be written ({', '.join(_PICTURE_ENCODERS)}).")
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
    with writing(str(path)):
        data = b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
        with atomic(path) as partial:
            partial.write_bytes(data)


def write_pictures(folder: Path, frames: Iterable[Tensor]) -> int:
    """Write frames as 00000000.png and so on into a new folder; returns their number.

    Raises:
        VideoError: they cannot be written, or there are none. No folder is left then.
    """
    count = 0
    with writing(str(folder)), atomic(folder) as partial:
        partial.mkdir()
        for frame in made(frames):
            write_picture(partial / f"{count:08d}.png", frame)
            count += 1
        if not count:
            raise VideoError(f"{folder} was not written, because there are no frames.")
        if folder.is_dir():
            folder.rmdir()
    return count

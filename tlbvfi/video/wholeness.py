"""Whether a picture file is all there, where FFmpeg makes up what is missing."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

from ..device_memory import free_memory
from .pyav import File, VideoError, decoded, opened, reason

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _SCAN, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
#: Two ways to go on with coefficients that are not there.
_PADDINGS = (bytes(64), b"\x55" * 64)
#: What a picture takes until it is a tensor.
_BYTES_PER_PIXEL = 32


class _TooLarge(VideoError):
    """A picture that would take more memory than there is."""


def picture_frame(file: File, name: str) -> VideoFrame:
    """The frame of a picture file.

    Raises:
        VideoError: there is none, or a JPEG ends before its last row.
    """
    try:
        with opened(file) as (container, stream):
            _check_memory(stream, name)
            if stream.codec_context.name == "mjpeg":  # which otherwise makes up what is not there
                stream.codec_context.options = {"err_detect": "explode"}
            frame = next(decoded(container, stream, file), None)
    except _TooLarge:
        raise
    except VideoError as error:
        if isinstance(file, Path) and not file.is_file():
            raise
        raise VideoError(f"{name} is a damaged or incomplete picture, or none.") from error
    if frame is None:
        raise VideoError(f"{name} has no picture in it.")
    return frame


def _check_memory(stream: VideoStream, name: str) -> None:
    """Raise VideoError where a picture is too large to be decoded here."""
    width, height = stream.codec_context.width, stream.codec_context.height
    needed, free = width * height * _BYTES_PER_PIXEL, free_memory(torch.device("cpu"))
    if free is not None and needed > free:
        raise _TooLarge(
            f"{name} is a picture of {width}x{height}, which takes {needed / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free; make it smaller."
        )


def check_whole(path: Path) -> None:
    """Raise VideoError for a PNG with a part that is needed and not as its checksum says, and for a JPEG that ends
    within its last blocks.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_PNG))
            if start == _PNG:
                _check_png(stream, path)
            elif start.startswith(_JPEG):
                _check_jpeg(start + stream.read(), path)
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({reason(error)}).") from None


def _check_png(stream: BinaryIO, path: Path) -> None:
    while len(head := stream.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name[:1].islower():  # may be left out
            stream.seek(size + 4, io.SEEK_CUR)
            continue
        found, left = zlib.crc32(name), size
        while left and (part := stream.read(min(left, 1 << 20))):
            found, left = zlib.crc32(part, found), left - len(part)
        if left or found.to_bytes(4, "big") != stream.read(4):
            raise VideoError(f"{path} is a damaged or incomplete picture (its part {name.decode('latin-1')!r}).")
        if name == b"IEND":
            return


def _check_jpeg(data: bytes, path: Path) -> None:
    if data.rfind(_END) > data.rfind(_SCAN):
        return
    # Without its end it is complete if nothing depends on what comes after it.
    whole = data.rstrip(b"\xff")
    pictures = [picture_frame(io.BytesIO(whole + padding + _END), str(path)) for padding in _PADDINGS]
    if len({frame.to_ndarray(format="rgb24").tobytes() for frame in pictures}) > 1:
        raise VideoError(f"{path} is a damaged or incomplete picture: it ends before its last row does.")

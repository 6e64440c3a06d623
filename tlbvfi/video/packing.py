"""Parcels of a video's frames: made of a file, and read without it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

from torch import Tensor

from .animation import animation_of
from .excerpt import Excerpt
from .parcel_frames import check_frames, pack_frames, unpack_frames
from .parcel_packets import check_packets, pack_packets, unpack_packets
from .parcels import Parcel, packed, reading_parcel
from .pyav import File
from .reading import VideoInfo, read_marked


def pack(
    file: File,
    first: int,
    count: int,
    info: VideoInfo,
    excerpt: Excerpt,
    fps: Fraction | None,
    *,
    deinterlace: bool,
    alpha: bool,
) -> bytes:
    """The bytes of the frames [first, first + count) of an excerpt, or of as many as there are.

    Args:
        info: what the excerpt is.
        fps, deinterlace, alpha: as for :func:`.reading.read_frames`.

    Raises:
        VideoError: the file cannot be read.
    """
    has_packets = not (isinstance(file, Path) and file.is_dir()) and fps is None and animation_of(file) is None
    if has_packets:
        data = pack_packets(file, excerpt, first, count, info, deinterlace=deinterlace, alpha=alpha)
        if data is not None:
            return data
    marked = read_marked(file, excerpt, fps, first, deinterlace=deinterlace, alpha=alpha)
    said, blobs = pack_frames(islice(marked, count))
    return packed("frames", first, count, info, said, blobs)


def opened_parcel(data: bytes | bytearray | memoryview) -> Parcel:
    """The parcel of some bytes, whose header makes sense.

    Raises:
        VideoError: they are none, or damaged.
    """
    parcel = Parcel.opened(data)
    with reading_parcel():
        (check_packets if parcel.kind == "packets" else check_frames)(parcel)
    return parcel


def unpack(parcel: Parcel) -> Iterator[tuple[Tensor, bool]]:
    """The frames of a parcel, each with whether it is the one before once more.

    Raises:
        VideoError: it is damaged, or its frames cannot be decoded here.
    """
    return unpack_packets(parcel) if parcel.kind == "packets" else unpack_frames(parcel)

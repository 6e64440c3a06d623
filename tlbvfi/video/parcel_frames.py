"""Parcels of the frames themselves, compressed without loss."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .parcels import Header, Parcel, reading_parcel, size_from, whole

#: Ways to store values, each exact where it is used: as integers up to a greatest value, or as they are.
_INTEGERS: dict[str, tuple[int, str]] = {"8": (255, "<u1"), "16": (65535, "<u2")}
_PLAIN = "float"


def pack_frames(marked: Iterable[tuple[Tensor, bool]]) -> tuple[Header, list[bytes]]:
    """Header and blobs of frames (H, W, channels) in [0, 1], each with whether it is the one before once more."""
    said: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for frame, again in marked:
        if again and said:
            said.append({"again": True})
            continue
        kind, data = _stored(frame)
        said.append({"again": again, "shape": list(frame.shape), "values": kind})
        blobs.append(zlib.compress(data, 1))
    return {"frames": said}, blobs


def _stored(frame: Tensor) -> tuple[str, bytes]:
    for kind, (greatest, dtype) in _INTEGERS.items():
        numbers = (frame * float(greatest)).round()
        if torch.equal(numbers / float(greatest), frame):
            return kind, _by_bytes(numbers.numpy().astype(dtype))
    return _PLAIN, _by_bytes(frame.numpy().astype("<f4"))


def _by_bytes(values: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """First bytes first, which compresses better."""
    return np.ascontiguousarray(values.reshape(-1, 1).view(np.uint8).T).tobytes()


def unpack_frames(parcel: Parcel) -> Iterator[tuple[Tensor, bool]]:
    """The frames of a parcel.

    Raises:
        VideoError: it is damaged.
    """
    blobs = iter(parcel.blobs)
    before: Tensor | None = None
    for said in parcel.header["frames"]:
        with reading_parcel():
            if before is None or "shape" in said:
                before = _restored(said, next(blobs, memoryview(b"")))
            again = said["again"] is True
        yield before, again


def check_frames(parcel: Parcel) -> None:
    """Raise ValueError, KeyError or TypeError where a parcel's frames cannot be what it says."""
    said = parcel.header["frames"]
    if not isinstance(said, list) or len(said) > parcel.count:
        raise ValueError("it holds more frames than it should")
    stored = [each for each in said if "shape" in each]
    if len(stored) != len(parcel.blobs) or (said and "shape" not in said[0]):
        raise ValueError("frames are missing")
    for each in stored:
        _shape(each)


def _shape(said: Header) -> tuple[int, int, int]:
    *size, channels = said["shape"]
    if said["values"] not in (*_INTEGERS, _PLAIN):
        raise ValueError(f"values {said['values']!r}")
    return *size_from(size), whole(channels, 4, 3)


def _restored(said: Header, blob: memoryview) -> Tensor:
    shape = _shape(said)
    greatest, dtype = _INTEGERS.get(said["values"], (1, "<f4"))
    depth, values = np.dtype(dtype).itemsize, int(np.prod(shape))
    work = zlib.decompressobj()
    data = work.decompress(blob, depth * values + 1)
    if len(data) != depth * values or not work.eof:
        raise ValueError("a frame has another size")
    array = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(depth, values).T).view(dtype)
    frame = torch.from_numpy(array.reshape(shape).astype(np.float32))
    return frame if said["values"] == _PLAIN else frame / float(greatest)

"""A file's bytes where the system maps them, and tensors of them that are made when they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

#: Dimensions that a weight may have, and numbers along one.
_MOST_DIMENSIONS, _LONGEST_SIDE = 16, 1 << 48


@dataclass(frozen=True)
class Entry:
    """An entry of a weight file, whose numbers are not read before they are asked for.

    Attributes:
        shape: as the file says.
        kind: the name of its dtype, or of what it is instead.
        read: gives its tensor, which may be mapped from the file; None where it is not of floating point.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], Tensor] | None = None


class MappedFile:
    """A file's bytes, mapped: what is read of them is in memory once, and may be dropped from it.

    It stays mapped for as long as a tensor of it is there.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self.size = file.seek(0, 2)
            # Copied where it is written to: PyTorch knows no tensors that are only read.
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.size else b""

    def read(self, begin: int, end: int) -> bytes:
        """Bytes from `begin` to `end`, or to the file's own."""
        return self._bytes[begin:end]

    def tensor(self, dtype: torch.dtype, begin: int, end: int, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
        """The tensor whose numbers are the bytes from `begin` on, to `end` at most.

        Raises:
            ValueError: they do not suffice, or no tensor is so shaped; a clause.
        """
        count = 0 if 0 in shape else 1 + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
        if not 0 <= begin <= begin + count * dtype.itemsize <= min(end, self.size):
            raise ValueError("it goes beyond the bytes that there are for it")
        if not count:
            return torch.empty(tuple(shape), dtype=dtype)
        if begin % dtype.itemsize:
            found = torch.frombuffer(bytearray(self.read(begin, begin + count * dtype.itemsize)), dtype=dtype)
        else:
            found = torch.frombuffer(self._bytes, dtype=dtype, count=count, offset=begin)
        return found.as_strided(tuple(shape), tuple(stride))


def sides(found: object) -> tuple[int, ...]:
    """A shape, or strides, that a file gives.

    Raises:
        ValueError: it is none; a clause.
    """
    if not isinstance(found, (list, tuple)) or len(found) > _MOST_DIMENSIONS:
        raise ValueError(f"its shape is no list of up to {_MOST_DIMENSIONS} numbers")
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 <= side < _LONGEST_SIDE for side in found):
        raise ValueError("its shape has a side that is no number or too large")
    return tuple(found)


def in_rows(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(prod(shape[place + 1 :]) for place in range(len(shape)))

"""The header of a safetensors file: what entries it has and where, checked against the file's length."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from math import prod
from typing import Any

import torch

from .mapped_file import Entry, MappedFile, in_rows, sides
from .quoting import named, quoted

#: Bytes that a header may have, and entries: those of the published weights have 250,000 for 2,000.
_LONGEST, _MOST = 1 << 21, 20_000
#: Digits of a number in it.
_MOST_DIGITS = 20
#: What the dtypes of the format are, and the bits of a number.
_KINDS = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8", 8), "F8_E5M2": ("float8", 8), "F8_E8M0": ("float8", 8), "F8_E4M3FNUZ": ("float8", 8),
    "F8_E5M2FNUZ": ("float8", 8), "F6_E2M3": ("float6", 6), "F6_E3M2": ("float6", 6), "F4": ("float4", 4),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8), "U64": ("uint64", 64),
    "U32": ("uint32", 32), "U16": ("uint16", 16), "U8": ("uint8", 8), "BOOL": ("bool", 8), "C64": ("complex64", 64),
}  # fmt: skip
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class HeaderError(ValueError):
    """A header that is damaged; a clause."""


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """For :func:`json.loads`: a dictionary, if it names nothing twice."""
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError("a name is there twice")
    return found


def short_number(digits: str) -> int:
    """For :func:`json.loads`: a whole number, if it is none that takes long to read."""
    if len(digits) > _MOST_DIGITS:
        raise HeaderError(f"a number has more than {_MOST_DIGITS} digits")
    return int(digits)


def parsed(text: str) -> Any:
    """The JSON of a stranger.

    Raises:
        ValueError: it is none; a clause.
    """
    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=short_number)
    except RecursionError:
        raise HeaderError("its JSON is nested too deeply") from None


def read_header(file: MappedFile) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata of a safetensors file, and its entries.

    Raises:
        ValueError: the header is damaged, or the file has another length than it says; a clause.
    """
    if file.size < 8:
        raise HeaderError(f"it has {file.size} bytes, which is no header")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > file.size - 8:
        raise HeaderError("its header is longer than the file")
    if length > _LONGEST:
        raise HeaderError(f"its header of {length} bytes is longer than {_LONGEST}, which no weight file needs")
    try:
        header = parsed(file.read(8, 8 + length).decode("utf-8"))
    except UnicodeDecodeError:
        raise HeaderError("its header is no text") from None
    except json.JSONDecodeError as error:
        raise HeaderError(f"its header is no JSON: {error.msg}") from None
    if not isinstance(header, dict):
        raise HeaderError("its header is no dictionary")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("its metadata is not text")
    if len(header) > _MOST:
        raise HeaderError(f"it has {len(header)} entries, more than {_MOST}")
    entries, ends = {}, []
    for name, said in header.items():
        try:
            entries[name], place = _entry(said, file, 8 + length)
        except ValueError as error:
            raise HeaderError(f"{named(name)} is damaged: {error}") from None
        ends.append(place)
    position = 0
    for begin, end in sorted(ends):
        if begin != position:
            raise HeaderError("its entries overlap, or leave gaps")
        position = end
    if position != file.size - 8 - length:
        raise HeaderError(f"it has {file.size} bytes, but its header tells of {position + 8 + length}")
    return metadata, entries


def _entry(said: object, file: MappedFile, start: int) -> tuple[Entry, tuple[int, int]]:
    """An entry as the header has it, and from where to where it is in the bytes that begin at `start`."""
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise HeaderError("it does not have a dtype, a shape and offsets")
    if not isinstance(said["dtype"], str) or said["dtype"] not in _KINDS:
        raise HeaderError(f"its dtype {quoted(said['dtype'], 20)} is not known")
    kind, bits = _KINDS[said["dtype"]]
    shape, offsets = sides(said["shape"]), sides(said["data_offsets"])
    if len(offsets) != 2 or 8 * (offsets[1] - offsets[0]) != prod(shape) * bits:
        raise HeaderError("its shape and its offsets do not go together")
    begin, end = (start + offset for offset in offsets)
    dtype = _FLOATS.get(said["dtype"])
    read = None if dtype is None else partial(file.tensor, dtype, begin, end, shape, in_rows(shape))
    return Entry(shape, kind, read), (offsets[0], offsets[1])

"""The files of torch.save, as zip archives and as they were before PyTorch 1.6, read without :func:`torch.load`."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .inert_pickle import LONGEST, Global, Made, PickleError, Stored, read_pickle
from .mapped_file import Entry, MappedFile, sides
from .quoting import quoted

#: Where the bytes of a storage are in the file, from and to, by its key.
Places = Callable[[str], tuple[int, int]]

#: What a storage's numbers are, and the bytes of one, by the name of its type.
_KINDS = {
    "DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1),
    "ComplexDoubleStorage": ("complex128", 16), "ComplexFloatStorage": ("complex64", 8), "QUInt8Storage": ("quint8", 1),
    "QInt8Storage": ("qint8", 1), "QInt32Storage": ("qint32", 4), "QUInt4x2Storage": ("quint4x2", 1),
    "QUInt2x4Storage": ("quint2x4", 1), "UntypedStorage": ("untyped", 1),
}  # fmt: skip
#: What weights are stored in, by their names.
_FLOATS = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip
#: Who makes plain tensors.
_REBUILDERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
#: With which numbers the old files begin.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
#: Bytes that an archive's directory may have, which is 100 for each storage.
_LONGEST_DIRECTORY = 1 << 22


class ArchiveError(ValueError):
    """A zip archive that torch.save did not write; a clause."""


class _SmallReads(io.FileIO):
    """A file of which little is read at once, so that an archive's directory is no larger either."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(_LONGEST_DIRECTORY + 1 if size is None or size < 0 else min(size, _LONGEST_DIRECTORY + 1))
        if len(found) > _LONGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory is larger than {_LONGEST_DIRECTORY} bytes")
        return found


def read_archive(path: Path, file: MappedFile) -> tuple[Any, Places]:
    """What a zip archive of torch.save holds, and where its storages are.

    Raises:
        ArchiveError: it is the archive of something else.
        PickleError, zipfile.BadZipFile, ValueError: it is damaged.
    """
    with _SmallReads(path) as small, zipfile.ZipFile(small) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise ArchiveError("an archive that has several files of one name")
    pickles = [name for name in records if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ArchiveError("an archive of something else")
    folder = pickles[0].removesuffix("data.pkl")

    def place(name: str) -> tuple[int, int]:
        record = records.get(folder + name)
        if record is None:
            raise ValueError(f"the archive has no {quoted(name)}")
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise ValueError(f"{quoted(name)} is compressed in the archive, which torch.save does not do")
        head = file.read(record.header_offset, record.header_offset + 30)
        if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
            raise ValueError(f"{quoted(name)} is not where the archive says")
        begin = record.header_offset + 30 + sum(struct.unpack("<HH", head[26:]))
        return begin, begin + record.file_size

    if folder + "byteorder" in records and file.read(*place("byteorder"))[:6] != b"little":
        raise ValueError("it was written on a machine of another byte order")
    begin, end = place("data.pkl")
    if end - begin > LONGEST:
        raise PickleError(f"its pickle is larger than {LONGEST} bytes")
    return read_pickle(file.read(begin, end)).value, lambda key: place(f"data/{key}")


def read_old_file(file: MappedFile) -> tuple[Any, Places]:
    """What a file of torch.save without an archive holds, and where its storages are.

    Raises:
        PickleError, ValueError: it is damaged, or another kind of pickle.
    """
    data = file.read(0, LONGEST)
    magic = read_pickle(data)
    if magic.value != _MAGIC:
        raise PickleError("it is a pickle, but not one of torch.save")
    version = read_pickle(data, magic.end)
    if version.value != _VERSION:
        raise PickleError(f"it has version {quoted(version.value)} of the format, not {_VERSION}")
    system = read_pickle(data, version.end)
    if isinstance(system.value, dict) and system.value.get("little_endian") is False:
        raise ValueError("it was written on a machine of another byte order")
    content = read_pickle(data, system.end)
    keys = read_pickle(data, content.end)
    if not isinstance(keys.value, list):
        raise PickleError("it has no list of its storages")
    kinds = {}
    for stored in content.stored:
        kind, key, _, _ = _storage(stored)
        kinds[key] = kind
    places: dict[str, tuple[int, int]] = {}
    position = keys.end
    for key in keys.value:
        if not isinstance(key, str) or key not in kinds or key in places:
            raise PickleError("its list of storages is not that of its tensors")
        head = file.read(position, position + 8)
        begin = position + 8
        position = begin + (struct.unpack("<q", head)[0] * _KINDS[kinds[key]][1] if len(head) == 8 else -1)
        if not begin <= position <= file.size:
            raise ValueError("it ends early")
        places[key] = begin, position

    def place(key: str) -> tuple[int, int]:
        if key not in places:
            raise ValueError(f"the file has no storage {quoted(key)}")
        return places[key]

    return content.value, place


def _storage(stored: object) -> tuple[str, str, int, int]:
    """The name of a storage's type, its key, how many numbers it has, and which of them is the first.

    Raises:
        PickleError: this is none.
    """
    said = stored.identity if isinstance(stored, Stored) else None
    if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] != "storage":
        raise PickleError("it has a storage of no known form")
    _, kind, key, _, count, *rest = said
    if not isinstance(kind, Global) or kind.name not in _KINDS or not isinstance(key, str):
        raise PickleError("it has a storage of no known type")
    first = 0
    if rest and isinstance(rest[0], tuple) and len(rest[0]) == 3:  # a part of it
        _, first, count = rest[0]
    count, first = sides([count, first])
    return kind.name, key, count, first


def entry_of(made: Made, file: MappedFile, places: Places) -> Entry:
    """The tensor that a pickle wants to be made.

    Raises:
        ValueError: it is damaged; a clause.
    """
    if str(made.by) not in _REBUILDERS or len(made.arguments) < 4:
        return Entry((), made.by.name)
    storage, offset, shape, stride = made.arguments[:4]
    (offset,), shape, stride = sides([offset]), sides(shape), sides(stride)
    if len(shape) != len(stride):
        raise ValueError("its shape and its strides are of different lengths")
    storage_type, key, count, first = _storage(storage)
    kind, size = _KINDS[storage_type]
    if kind not in _FLOATS:
        return Entry(shape, kind)

    def read() -> torch.Tensor:
        begin, end = places(key)
        begin += first * size
        return file.tensor(_FLOATS[kind], begin + offset * size, min(end, begin + count * size), shape, stride)

    return Entry(shape, kind, read)


def entries_of(state: Mapping[Any, Any], file: MappedFile, places: Places) -> dict[Any, Entry]:
    """The tensors of a state dict as a pickle has it; what is none is left out.

    Raises:
        ValueError: one is damaged; a clause.
    """
    found = {}
    for key, made in state.items():
        if isinstance(made, Made) and "_rebuild" in made.by.name:
            try:
                found[key] = entry_of(made, file, places)
            except ValueError as error:
                raise ValueError(f"{quoted(key)} is damaged: {error}") from None
    return found

"""A reader of the pickles of torch.save that calls nothing: what a pickle asks to be made is only noted down.

It takes a time and a memory that follow from the pickle's length, whatever it says: Python's own unpickler makes
objects, and the one that PyTorch restricts still allocates tensors and storages as large as a file says they are, and
hashes keys that may take for ever.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .quoting import quoted

#: Bytes and operations that a pickle may have. That of the published weights has 2,000 tensors in 70,000 operations.
LONGEST, _MOST = 1 << 23, 400_000
#: What tensors, and what is kept beside them, are made of, by its module. Nothing of it is called.
_INERT = {
    "torch": r"\w*Storage|\w*Tensor|Size|device|strided|sparse_\w+|per_\w+|(b?float|q?u?int|complex|bool|bits)\w*",
    "torch.cuda": r"\w*Storage|\w*Tensor",
    "torch.storage": r"\w*Storage",
    "torch._utils": r"_rebuild\w*",
    "torch._tensor": r"_rebuild_from_type_v2",
    "torch.nn.parameter": r"Parameter",
    "torch.serialization": r"_get_layout",
    "collections": r"OrderedDict|Counter",
    "_codecs": r"encode",
    "builtins": r"set|complex|bytearray",
    "__builtin__": r"set|complex|bytearray",
}
_DICTIONARY, _BYTES = "collections.OrderedDict", "_codecs.encode"
#: Those who wrap a tensor: it is their first argument.
_WRAPPERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")

#: Operations that push a number of fixed size.
_NUMBERS = {
    pickle.BININT: struct.Struct("<i"),
    pickle.BININT1: struct.Struct("<B"),
    pickle.BININT2: struct.Struct("<H"),
    pickle.BINFLOAT: struct.Struct(">d"),
}
_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}
_BYTE, _WORD, _LONG = struct.Struct("<B"), struct.Struct("<I"), struct.Struct("<Q")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _old_text(data: bytes) -> str:
    return data.decode("latin-1")


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


#: Operations that push so many bytes, and what these are.
_COUNTED: dict[bytes, tuple[struct.Struct, Callable[[bytes], object]]] = {
    pickle.BINUNICODE: (_WORD, _text),
    pickle.SHORT_BINUNICODE: (_BYTE, _text),
    pickle.BINUNICODE8: (_LONG, _text),
    pickle.BINSTRING: (_WORD, _old_text),
    pickle.SHORT_BINSTRING: (_BYTE, _old_text),
    pickle.BINBYTES: (_WORD, bytes),
    pickle.SHORT_BINBYTES: (_BYTE, bytes),
    pickle.BINBYTES8: (_LONG, bytes),
    pickle.BYTEARRAY8: (_LONG, bytes),
    pickle.LONG1: (_BYTE, _integer),
    pickle.LONG4: (_WORD, _integer),
}


class PickleError(ValueError):
    """A pickle that is damaged, or of a kind that torch.save does not write. A clause, without a full stop."""


class ForeignError(PickleError):
    """A pickle that asks for something other than tensors and plain containers, such as code."""


@dataclass(frozen=True)
class Global:
    """Something that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, repr=False, eq=False)
class Made:
    """What a pickle wants to be made by a call, which nobody makes."""

    by: Global
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        return str(self.by)


@dataclass(frozen=True, repr=False, eq=False)
class Stored:
    """What lies outside of the pickle, by what the pickle says of it."""

    identity: Any


class _Reader:
    """The bytes, and a machine of the pickle's kind: a stack, those below the marks, and a memory."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memory: dict[int, Any] = {}
        self.stored: list[Stored] = []

    def bytes(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise PickleError("it ends early, or is longer than any")
        found = self.data[self.position : end]
        self.position = end
        return found

    def number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self.bytes(kind.size))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 500)
        if end < 0:
            raise PickleError("it ends early, or has a name of more than 500 letters")
        found = self.data[self.position : end]
        self.position = end + 1
        return _text(found)

    def pop(self) -> Any:
        if not self.stack:
            raise PickleError("it takes more than it has")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """What is above the last mark."""
        if not self.below:
            raise PickleError("it has no mark where one is needed")
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self) -> Any:
        if not self.stack:
            raise PickleError("it takes more than it has")
        return self.stack[-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, place: int) -> None:
        self.memory[place] = self.top()

    def recall(self, place: int) -> None:
        if place not in self.memory:
            raise PickleError("it refers to what it does not have")
        self.push(self.memory[place])


class Said(NamedTuple):
    """What a pickle says.

    Attributes:
        value: numbers, text, bytes, lists (sets too), tuples and dictionaries; :class:`Made`, :class:`Global` and
            :class:`Stored` for the rest. It may contain itself.
        stored: all that lies outside of the pickle.
        end: where the pickle ends.
    """

    value: Any
    stored: list[Stored]
    end: int


def read_pickle(data: bytes, position: int = 0) -> Said:
    """What the pickle at a position of the bytes says.

    Raises:
        PickleError: it is damaged, or too long.
        ForeignError: it names something that no tensor is made of.
    """
    reader = _Reader(data, position)
    for _ in range(_MOST):
        code = reader.bytes(1)
        if code == pickle.STOP:
            return Said(reader.pop(), reader.stored, reader.position)
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise PickleError(f"it has the operation {code!r}, which torch.save does not write")
        operation(reader)
    raise PickleError(f"it has more than {_MOST} operations")


def _push_number(kind: struct.Struct) -> Callable[[_Reader], None]:
    return lambda reader: reader.push(reader.number(kind))


def _push_constant(value: object) -> Callable[[_Reader], None]:
    return lambda reader: reader.push(value)


def _push_counted(kind: struct.Struct, made: Callable[[bytes], object]) -> Callable[[_Reader], None]:
    """Pushes what is made of so many bytes as a number before them says."""

    def push(reader: _Reader) -> None:
        try:
            reader.push(made(reader.bytes(reader.number(kind))))
        except UnicodeDecodeError:
            raise PickleError("its text is damaged") from None

    return push


def _mark(reader: _Reader) -> None:
    reader.below.append(reader.stack)
    reader.stack = []


def _extend(reader: _Reader, items: list[Any]) -> None:
    target = reader.top()
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Made):
        raise PickleError("it appends to what is no list")


def _set_items(reader: _Reader, items: list[Any]) -> None:
    target = reader.top()
    if len(items) % 2 or not isinstance(target, (dict, Made)):
        raise PickleError("it sets items of what is no dictionary")
    if isinstance(target, dict):
        _fill(target, items[::2], items[1::2])


def _fill(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    for key, value in zip(keys, values, strict=True):
        # Nothing that is deep, nor numbers of which very many have one hash.
        if not (isinstance(key, (str, bytes, type(None))) or (isinstance(key, int) and abs(key) < 1 << 63)):
            raise PickleError(f"a dictionary in it has the key {quoted(key, 40)}, which is neither text nor a number")
        target[key] = value


def _append(reader: _Reader) -> None:
    _extend(reader, [reader.pop()])


def _set_item(reader: _Reader) -> None:
    value, key = reader.pop(), reader.pop()
    _set_items(reader, [key, value])


def _tuple(count: int) -> Callable[[_Reader], None]:
    def push(reader: _Reader) -> None:
        if len(reader.stack) < count:
            raise PickleError("it takes more than it has")
        reader.stack[-count:] = [tuple(reader.stack[-count:])]

    return push


def _global(reader: _Reader, module: str, name: str) -> None:
    allowed = _INERT.get(module)
    if allowed is None or not re.fullmatch(allowed, name):
        raise ForeignError(f"it names {quoted(f'{module}.{name}')}")
    reader.push(Global(module, name))


def _stack_global(reader: _Reader) -> None:
    name, module = reader.pop(), reader.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise PickleError("it names something without a name")
    _global(reader, module, name)


def _call(reader: _Reader) -> None:
    arguments, called = reader.pop(), reader.pop()
    if not isinstance(called, Global) or not isinstance(arguments, tuple):
        raise PickleError("it calls what cannot be called")
    if str(called) == _DICTIONARY:
        made: dict[Any, Any] = {}
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            raise PickleError("a dictionary in it is not made of pairs")
        _fill(made, [key for key, _ in pairs], [value for _, value in pairs])
        reader.push(made)
    elif str(called) == _BYTES and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        reader.push(arguments[0].encode("latin-1", "replace"))
    elif str(called) in _WRAPPERS and arguments:
        reader.push(arguments[0])
    else:
        reader.push(Made(called, arguments))


def _build(reader: _Reader) -> None:
    """Attributes of an object: none is of use here."""
    reader.pop()
    reader.top()


def _store(reader: _Reader) -> None:
    reader.push(Stored(reader.pop()))
    reader.stored.append(reader.top())


def _pop(reader: _Reader) -> None:
    if reader.stack:
        reader.pop()
    else:
        reader.marked()


_OPERATIONS: dict[bytes, Callable[[_Reader], object]] = {
    **{code: _push_number(kind) for code, kind in _NUMBERS.items()},
    **{code: _push_constant(value) for code, value in _CONSTANTS.items()},
    **{code: _push_counted(*kind) for code, kind in _COUNTED.items()},
    pickle.PROTO: lambda reader: reader.bytes(1),
    pickle.FRAME: lambda reader: reader.bytes(8),
    pickle.MARK: _mark,
    pickle.POP: _pop,
    pickle.POP_MARK: lambda reader: reader.marked(),
    pickle.DUP: lambda reader: reader.push(reader.top()),
    pickle.EMPTY_LIST: lambda reader: reader.push([]),
    pickle.EMPTY_SET: lambda reader: reader.push([]),
    pickle.EMPTY_DICT: lambda reader: reader.push({}),
    pickle.APPEND: _append,
    pickle.APPENDS: lambda reader: _extend(reader, reader.marked()),
    pickle.ADDITEMS: lambda reader: _extend(reader, reader.marked()),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: lambda reader: _set_items(reader, reader.marked()),
    pickle.TUPLE: lambda reader: reader.push(tuple(reader.marked())),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.GLOBAL: lambda reader: _global(reader, reader.line(), reader.line()),
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _call,
    pickle.NEWOBJ: _call,
    pickle.BUILD: _build,
    pickle.BINPERSID: _store,
    pickle.BINGET: lambda reader: reader.recall(reader.number(_BYTE)),
    pickle.LONG_BINGET: lambda reader: reader.recall(reader.number(_WORD)),
    pickle.BINPUT: lambda reader: reader.remember(reader.number(_BYTE)),
    pickle.LONG_BINPUT: lambda reader: reader.remember(reader.number(_WORD)),
    pickle.MEMOIZE: lambda reader: reader.remember(len(reader.memory)),
}

"""What has come of a large file, kept beside its place until it is whole, so that another run can go on with it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .files import atomic, create, is_special, lock, put, remove_left_behind, resolved, settle

#: NAME.<first digits of its SHA-256>.incomplete
_SUFFIX, _DIGITS = ".incomplete", 16
_NAME = re.compile(rf"\.[0-9a-f]{{{_DIGITS}}}{re.escape(_SUFFIX)}")
#: Bytes of the file's name that go into this one's, which may not become too long.
_LONGEST = 200
#: Less than so many bytes are not kept.
_LEAST = 1 << 20
#: After so many bytes the system is asked to have them on the disk.
_SYNC = 16 << 20
#: Zeros at the end that are taken for what a power failure left of bytes that were not on the disk yet.
_ZEROS = bytes(4096)


class BusyError(Exception):
    """Another run is fetching the same file; with the name of what it writes."""


class Incomplete:
    """Where a file is written until it is whole: a context, at whose proper end it takes its place.

    One whose SHA-256 is known has a name that says so, is locked while it is written, and stays if there is no proper
    end, for another run. Any other is a partial file as of :func:`.files.atomic`, and so is one whose name is taken
    by something else, or that cannot be locked.
    """

    def __init__(self, target: Path) -> None:
        """
        Raises:
            OSError: the target cannot be one.
        """
        self._special = is_special(target)
        self._target = target if self._special else resolved(target)
        self._unkept = ExitStack()
        self._path: Path | None = None
        self._stream: BinaryIO | None = None
        self._unsynced = 0
        self.folder = self._target.parent

    def __enter__(self) -> Incomplete:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._stream is not None and self._path is None:
            self._stream.close()
        self._unkept.__exit__(kind, error, at)
        if self._stream is None or self._path is None:
            if error is None:
                self._remove_others()
            return
        try:
            if error is None:
                self._put(self._stream, self._path)
        finally:
            self._leave()

    def _put(self, stream: BinaryIO, path: Path) -> None:
        if os.name == "nt":  # where a file that is open cannot be renamed
            stream.close()
        put(path, self._target)
        self._path = None
        self._remove_others()

    def _remove_others(self) -> None:
        """Remove what is left of the file, now that it is whole."""
        for other in [] if self._special else _found(self._target):
            with suppress(BlockingIOError):
                if (there := _opened(other)) is not None:
                    _unlink(there, other)

    def _leave(self) -> None:
        """Close the file, and remove it where it is not worth keeping. The lock goes at last."""
        stream, path = self._stream, self._path
        self._stream = self._path = None
        if stream is None:
            return
        if path is not None and not stream.closed and os.fstat(stream.fileno()).st_size < _LEAST:
            _unlink(stream, path)
        stream.close()

    def take_up(self, begins: tuple[bytes, ...]) -> BinaryIO | None:
        """What an earlier run has left, to be read from its beginning to its end; None where there is nothing.

        Args:
            begins: first bytes of such a file, one of these.

        Raises:
            BusyError: another run is at it.
        """
        if self._special:
            return None
        remove_left_behind(self.folder, self._target)
        for path in _found(self._target):
            try:
                stream = _opened(path)
            except BlockingIOError:
                self._leave()
                raise BusyError(path.name) from None
            if stream is None:
                continue
            if self._stream is None and _is_worth_it(stream, begins):
                self._stream, self._path = stream, path
            else:
                _unlink(stream, path)
        return self._stream

    def has(self, sha256: str | None) -> bool:
        """Whether what is written to may be the file of a SHA-256. Once it is not one that is kept, it may be any."""
        return self._path is None or (sha256 is not None and self._path == self._named(sha256))

    def _named(self, sha256: str) -> Path:
        return self._target.with_name(f"{_stem(self._target)}.{sha256[:_DIGITS]}{_SUFFIX}")

    def begin(self, sha256: str | None) -> None:
        """Write to an empty file from now on, of which that is known; what was written to before goes.

        Raises:
            BusyError: another run is at it.
            OSError: it cannot be made.
        """
        if not self.has(sha256):
            self.drop()
        if self._stream is None and sha256 is not None and not self._special:
            path = self._named(sha256)
            try:
                self._stream = _created(path, self._target)
            except BlockingIOError:
                raise BusyError(path.name) from None
            self._path = path if self._stream is not None else None
        if self._stream is None:
            partial = self._unkept.enter_context(atomic(self._target))
            self._stream = partial.open("r+b", buffering=0)
        self.clear()

    def clear(self) -> None:
        """Have nothing in it."""
        if self._stream is not None:
            self._unsynced = 0
            self._stream.seek(0)
            self._stream.truncate()

    def drop(self) -> None:
        """Remove what has come: it is not the file."""
        if self._stream is None or self._path is None:
            self.clear()
        else:
            _unlink(self._stream, self._path)
            self._stream = self._path = None

    def let_go(self) -> None:
        """Leave what has come as it is, if it is kept, and write elsewhere from now on."""
        if self._path is None:
            self.clear()
        else:
            self._leave()

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: they cannot be written. All before them are.
        """
        assert self._stream is not None
        left = memoryview(data)
        while left:
            left = left[self._stream.write(left) :]
        self._unsynced += len(data)
        if self._path is not None and self._unsynced >= _SYNC:
            settle(self._path)
            self._unsynced = 0


def is_kept(target: Path) -> bool:
    """Whether there is something of a file that another run would go on with."""
    try:
        found = list(_found(resolved(target)))
    except OSError:
        return False
    for path in found:
        with suppress(OSError):
            if (stream := _opened(path)) is not None:
                with stream:
                    if os.fstat(stream.fileno()).st_size >= _LEAST:
                        return True
    return False


def _stem(target: Path) -> str:
    return os.fsencode(target.name)[:_LONGEST].decode(errors="ignore")


def _found(target: Path) -> Iterator[Path]:
    """What is called like something of a file, the newest first."""
    stem = _stem(target)
    found: list[tuple[float, Path]] = []
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(stem) and _NAME.fullmatch(entry.name[len(stem) :]):
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    return (path for _, path in sorted(found, reverse=True))


def _opened(path: Path) -> BinaryIO | None:
    """A file that is there, locked until it is closed; None where it is none of ours, or cannot be locked.

    Raises:
        BlockingIOError: another has it.
    """
    try:
        if not _is_ours(path.lstat(), path):
            return None
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(path, flags), "r+b", buffering=0)
    except OSError:
        return None
    try:
        state = os.fstat(stream.fileno())
        if lock(stream.fileno()) and _is_ours(state, path) and os.path.samestat(state, path.lstat()):
            return stream
    except BlockingIOError:
        stream.close()
        raise
    except OSError:  # it is gone
        pass
    stream.close()
    return None


def _is_ours(state: os.stat_result, path: Path) -> bool:
    """Whether it is a file with this name alone, and whoever owns it is us, or may do as he likes here anyway."""
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        return False
    if os.name == "nt" or state.st_uid == os.geteuid():
        return True
    folder = path.parent.stat()
    return state.st_uid == folder.st_uid and not folder.st_mode & stat.S_ISVTX


def _created(path: Path, target: Path) -> BinaryIO | None:
    """A file, new or what is left of an older one, locked until it is closed; None where that is not possible.

    Raises:
        BlockingIOError: another has it.
        OSError: it cannot be made.
    """
    while True:
        new: os.stat_result | None = None
        with suppress(FileExistsError, FileNotFoundError):
            create(path, target)
            new = path.lstat()
        if (stream := _opened(path)) is not None:
            return stream
        try:
            there = path.lstat()
        except FileNotFoundError:  # another has removed it before it was locked
            continue
        if new is not None and os.path.samestat(new, there):  # there are no locks here
            path.unlink(missing_ok=True)
        return None


def _unlink(stream: BinaryIO, path: Path) -> None:
    """Remove an open file, under its lock where the system allows that."""
    if os.name == "nt":
        stream.close()
    with suppress(OSError):
        path.unlink()
    stream.close()


def _is_worth_it(stream: BinaryIO, begins: tuple[bytes, ...]) -> bool:
    """Whether a file holds enough, and begins as it should; zeros at its end are cut off, where enough is left."""
    try:
        size = left = os.fstat(stream.fileno()).st_size
        if size < _LEAST or not stream.read(max(map(len, begins))).startswith(begins):
            return False
        while left >= max(size - 2 * _SYNC, _LEAST):
            stream.seek(left - len(_ZEROS))
            block = stream.read(len(_ZEROS))
            if block != _ZEROS:
                if left < size:
                    stream.truncate(left - len(block) + len(block.rstrip(b"\0")))
                break
            left -= len(_ZEROS)
        stream.seek(0)
    except OSError:  # a disk that is damaged
        return False
    return True

"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .quoting import escaped

log = logging.getLogger(__name__)

#: Bytes of a file's name that go into its partial one's, which may not become too long.
_LONGEST_STEM, _LONGEST_SUFFIX = 40, 20
#: Names of partial files and folders. What is in the middle is chance: several may write the same at once.
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{12}\.partial(\..*)?", re.DOTALL)
#: Seconds that a pipe waits for a program that reads from it.
_PATIENCE = 10.0
#: What a file system's own folder may hold from the start.
_ALWAYS_THERE = ("lost+found",)
#: Which byte of a file is locked where locks are of bytes.
_LOCKED_BYTE = 1 << 40


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file to; it becomes `path` at the end, and is removed if there is no proper end.

    Where `path` is a link, what it points to is replaced, and has the rights of what was there; a pipe or a device is
    written to directly. What runs that were killed have left of the same file is removed.

    Raises:
        OSError: it cannot be written. What was there stays.
    """
    if is_special(path):
        with _read_by_somebody(path):
            yield path
        return
    path = resolved(path)
    remove_left_behind(path.parent, path)
    with _partial(path, lambda partial: create(partial, path)) as partial:
        yield partial
        put(partial, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As :func:`atomic`, an empty folder that becomes `path` at the end.

    An empty folder that is there already stays the same one, such as a mounted one or the current one: what was written
    moves into it at the end.
    """
    path = resolved(path)
    inside = path.is_dir()
    remove_left_behind(path if inside else path.parent, path)
    with _partial(path / path.name if inside else path, os.mkdir) as partial:
        yield partial
        if inside:
            _move_into(partial, path)
        else:
            os.rename(partial, path)


def put(partial: Path, path: Path) -> None:
    """Have a finished file become `path`, with the rights of the file that it replaces.

    Raises:
        OSError: it cannot. What was there stays.
    """
    before = _state(path)
    settle(partial)
    if before is not None:
        _like(partial, before)
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV) or not path.is_file():
            raise
        _copy_into(partial, path)  # a file that is mounted by itself, as containers have them
        partial.unlink()


class Lock:
    """A folder that one run has for itself until it releases it, or until its process ends in whatever way."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            BlockingIOError: another has it.
            OSError: it is not there.
        """
        descriptor = _lock(resolved(folder))
        self._release = None if descriptor is None else weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Leave it to others; again and again, if need be."""
        if self._release is not None:
            self._release()


def settle(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    if path.is_dir() and os.name == "nt":  # which cannot be asked for folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # this file system does not know how
            raise
    finally:
        os.close(descriptor)


def resolved(path: Path) -> Path:
    """Where a path leads through all links.

    Raises:
        OSError: nowhere, because links lead in a circle, or the name is not possible.
    """
    try:
        return path.resolve()
    except (RuntimeError, ValueError) as error:  # of Python before 3.13; a zero in the name
        code = errno.ELOOP if isinstance(error, RuntimeError) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path)) from None


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder, but a device or a pipe."""
    state = _state(path)
    return state is not None and not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode))


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty, apart from what a run that was killed may have left.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return not any(
            entry.name not in _ALWAYS_THERE and not (_PARTIAL.fullmatch(entry.name) and _is_left_behind(entry))
            for entry in entries
        )


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


@contextmanager
def _partial(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new, locked partial file or folder beside `path`; removed at the end, if it is still there."""
    while True:
        partial = path.with_name(f"{_begin(path)}{secrets.token_hex(6)}.partial{_end(path)}")
        create(partial)
        try:
            lock = _lock(partial)
            break
        except BlockingIOError:  # somebody has taken it for one that was left behind, and removes it
            continue
        except FileNotFoundError:
            continue
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise
    finally:
        if lock is not None:
            os.close(lock)
    _remove(partial)


def _begin(path: Path) -> str:
    stem = path.stem.encode(errors="surrogateescape")[:_LONGEST_STEM].decode(errors="ignore")
    return f".{stem}."


def _end(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""


def _remove(partial: Path) -> None:
    with suppress(OSError):  # such as where the folder is gone
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def create(partial: Path, path: Path) -> None:
    """A new file, no more open to others than the one that it will replace."""
    before = _state(path)
    mode = 0o666 if before is None else stat.S_IMODE(before.st_mode) & 0o777
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def _like(partial: Path, before: os.stat_result) -> None:
    """Give a file the owner, where that is possible, and the rights of another."""
    state = partial.stat()
    if sys.platform != "win32" and (state.st_uid, state.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):
            os.chown(partial, before.st_uid, before.st_gid)
    with suppress(OSError):
        partial.chmod(stat.S_IMODE(before.st_mode) & 0o777)


def _copy_into(partial: Path, path: Path) -> None:
    """Write a file's bytes into another file, once there is room for them."""
    with partial.open("rb") as source, path.open("r+b") as target:
        size, before = os.fstat(source.fileno()).st_size, os.fstat(target.fileno()).st_size
        if sys.platform == "linux" and size > before:
            try:
                os.posix_fallocate(target.fileno(), before, size - before)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                    target.truncate(before)
                    raise
        try:
            shutil.copyfileobj(source, target, 1 << 20)
            target.truncate(size)
            target.flush()
            os.fsync(target.fileno())
        except BaseException:
            os.ftruncate(target.fileno(), 0)
            raise


def _move_into(partial: Path, folder: Path) -> None:
    """Move what is in a folder into another one, which is empty: all of it or nothing."""
    try:
        lock = _lock(folder)  # of two that come at once, the second finds the files of the first
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another run is writing into the folder", str(folder)) from None
    moved: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            others = [each.name for each in entries if each.name != partial.name and each.name not in _ALWAYS_THERE]
        if any(not _PARTIAL.fullmatch(name) for name in others):
            raise OSError(errno.ENOTEMPTY, "the folder was empty and no longer is", str(folder))
        for path in sorted(partial.iterdir()):
            moved.append(folder / path.name)
            os.rename(path, folder / path.name)
        partial.rmdir()
    except BaseException:
        for path in moved:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that locks a file or a folder until it is closed; None where there is nothing of the kind.

    Raises:
        BlockingIOError: another has it.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        locked = lock(descriptor)
        os.stat(path, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        locked = False
    if not locked:
        os.close(descriptor)
        return None
    return descriptor


def lock(descriptor: int) -> bool:
    """Lock an open file, or where folders can be opened a folder, until it is closed; False where there are no locks.

    Raises:
        BlockingIOError: another has it.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)  # far behind the end, because nobody else may read it
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # this file system has none
        return False
    return True


def _is_left_behind(entry: os.DirEntry[str]) -> bool:
    """Whether nobody writes to a partial file or folder any more."""
    if entry.is_symlink():
        return False
    try:
        lock = _lock(Path(entry.path))
    except OSError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is not None


def remove_left_behind(folder: Path, path: Path) -> None:
    """Remove partial files and folders of `path` that runs which were killed have left."""
    begin, end = _begin(path), _end(path)
    try:
        with os.scandir(folder) as entries:
            left = [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(begin)
                and entry.name.endswith(f".partial{end}")
                and _PARTIAL.fullmatch(entry.name)
            ]
    except OSError:
        return
    for each in left:
        try:
            held = _lock(each)
        except OSError:
            held = None
        if held is None:  # somebody writes to it, or it is a link
            continue
        log.info("%s, which a run that was ended by force has left, is removed.", escaped(str(each), 300))
        _remove(each)
        os.close(held)  # only now, so that nobody who has just made it takes it for his own


@contextmanager
def _read_by_somebody(path: Path) -> Iterator[None]:
    """A pipe that somebody reads from, who is waited for a while; a device is as it is.

    Raises:
        OSError: nobody does.
    """
    if not path.is_fifo():
        yield
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "no program reads from this pipe", str(path)) from None
            time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)

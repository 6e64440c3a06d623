"""Whose fault an error is: the file's that is being written, or that of whoever makes its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .pyav import VideoError, import_av, reason

Item = TypeVar("Item")


class _MakersError(Exception):
    """An error of what makes the frames, on its way past whoever writes them."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def made(frames: Iterable[Item]) -> Iterator[Item]:
    """The frames; what is raised in making them is not taken for an error of the file that they go into."""
    errors = import_av().error
    try:
        yield from frames
    except (errors.FFmpegError, OSError) as error:
        raise _MakersError(error) from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Errors of FFmpeg or of the system in here are those of writing a file called `name`; those out of :func:`made`
    pass through as they were.

    Raises:
        VideoError: the file cannot be written.
    """
    errors = import_av().error
    try:
        yield
    except _MakersError as error:
        raise error.error from None
    except (errors.FFmpegError, OSError) as error:
        raise VideoError(f"{name} cannot be written ({reason(error)}).") from None

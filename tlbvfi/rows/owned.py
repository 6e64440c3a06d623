"""Handing something over, so that its last reader can free it."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Owned(Generic[T]):
    """Something that one reader takes for its own.

    A function that is given an :class:`Owned` takes the content, and no frame of its callers keeps it alive: it is
    freed as soon as that function drops it. A function that is given the content itself borrows it.
    """

    def __init__(self, content: T) -> None:
        self._held = [content]

    def take(self) -> T:
        """The content, which is the caller's from here on. Raises RuntimeError where it was taken before."""
        self._check()
        return self._held.pop()

    def borrow(self) -> T:
        """The content, for a look; it stays here. Raises RuntimeError where it was taken before."""
        self._check()
        return self._held[0]

    def _check(self) -> None:
        if not self._held:
            raise RuntimeError("What was handed over has been taken already; it can be taken once.")

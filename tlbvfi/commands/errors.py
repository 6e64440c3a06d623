"""How a command fails, in one sentence. Other errors are :class:`ValueError`, for what cannot be, and OSError."""

from __future__ import annotations


class WrongCall(Exception):
    """A command line that is not in the grammar: a sentence, and an example of one that is."""


class RunError(RuntimeError):
    """Something that went wrong on the way, in one sentence."""


def printable(text: str) -> str:
    """The text in one line: of names and words that are quoted, line feeds and the like are written as Python does."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

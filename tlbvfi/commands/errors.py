"""How a command fails, in one sentence. Other errors are :class:`ValueError`, for what cannot be, and OSError."""

from __future__ import annotations


class WrongCall(Exception):
    """A command line that is not in the grammar: a sentence, and an example of one that is."""


class RunError(RuntimeError):
    """Something that went wrong on the way, in one sentence."""

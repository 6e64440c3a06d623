"""How a command fails, in one sentence. Other errors are :class:`ValueError`, for what cannot be, and OSError."""

from __future__ import annotations

from ..quoting import escaped


class WrongCall(Exception):
    """A command line that is not in the grammar: a sentence, and an example of one that is."""


class RunError(RuntimeError):
    """Something that went wrong on the way, in one sentence."""


def told(error: BaseException) -> str:
    """An error as one line; of the system's, what failed and where."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{escaped(str(error.filename), 300)}: {error.strerror}."
    return escaped(str(error).strip(), 1500)

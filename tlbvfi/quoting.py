"""Text from strangers in our messages: one line, without control characters, and cut. Needs no PyTorch."""

from __future__ import annotations

import re
import reprlib
from typing import Any

#: What stands for the rest of a text that was cut.
_CUT = "..."
#: Ends of lines of all kinds, and tabs, with the blanks around them.
_BREAKS = re.compile(r"[ ]*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")
#: Names of entries that need no quotation marks.
_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,80}")


def escaped(text: str, limit: int = 80) -> str:
    """The text with its control characters as escape sequences, cut at about `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(limit - len(_CUT), 0)] + _CUT


def quoted(value: object, limit: int = 80) -> str:
    """A value as Python writes it, on one line and cut at about `limit` characters: text in quotation marks.

    However large or deep it is, and whatever its own `__repr__` does, this is quick and raises nothing.
    """
    if isinstance(value, (str, bytes)):
        shown = repr(value[: limit + 1])
        mark = shown[-1]
        return shown if len(shown) <= limit + 2 else shown[: max(limit - len(_CUT), 1)] + _CUT + mark
    if isinstance(value, int) and value.bit_length() > 4 * limit:
        return f"a number of more than {int(value.bit_length() * 0.3)} digits"
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother, brief.maxlong = 3, limit, limit, limit
    try:
        return escaped(brief.repr(value), limit)
    except Exception:
        return f"a {escaped(type(value).__name__, limit)}"


def named(key: Any) -> str:
    """The name of an entry as it is where it is a plain one, otherwise :func:`quoted`."""
    return key if isinstance(key, str) and _PLAIN.fullmatch(key) else quoted(key)


def sentence(text: object, limit: int = 500) -> str:
    """Text, or an error's, as one line without control characters, cut at about `limit` characters."""
    try:
        whole = str(text)
    except Exception:
        whole = type(text).__name__
    return escaped(_BREAKS.sub(" ", whole[: 4 * limit].strip()), limit)

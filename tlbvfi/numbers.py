"""Numbers from callers, widgets, links and command lines, checked in one place."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from fractions import Fraction
from numbers import Real
from typing import Any

from .quoting import quoted

#: Frames per second that a video may have.
LOWEST_RATE, HIGHEST_RATE = Fraction(1, 1000), Fraction(100_000)
#: How far a rate may be written from that of NTSC that it means, as 29.97 is.
_NTSC_TOLERANCE = Fraction(1, 50_000)


def whole_number(
    name: str, value: Any, lowest: int | None = None, highest: int | None = None, *, floats: bool = False
) -> int:
    """The value as an int from `lowest` to `highest`; NumPy's and one-element tensors of whole numbers too.

    Args:
        name: of the setting, for the sentence.
        floats: whether 3.0 counts as 3, as from a node that computes.

    Raises:
        ValueError: it is none, or out of range; one sentence.
    """
    if floats and isinstance(value, float) and value.is_integer():
        value = int(value)
    number = None
    if not _is_bool(value):
        with suppress(Exception):  # no number, or a tensor of floats, of several numbers, or without values
            number = int(value.__index__())
    if number is None or (lowest is not None and number < lowest) or (highest is not None and number > highest):
        allowed = "" if lowest is None else f" of at least {lowest}"
        allowed = allowed if highest is None else f" between {lowest} and {highest}"
        raise ValueError(f"{name} must be a whole number{allowed}, not {quoted(value)}.")
    return number


def _is_bool(value: Any) -> bool:
    """Whether a value is a truth value, which counts as a number in Python: Python's own, NumPy's or a tensor's."""
    with suppress(Exception):  # whatever a stranger's object says of itself
        return isinstance(value, bool) or str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"
    return False


def switch(name: str, value: Any) -> bool:
    """The value as a bool: one of Python's or NumPy's, or the number 0 or 1.

    Args:
        name: of the setting, for the sentence.

    Raises:
        ValueError: it is something else; one sentence.
    """
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1):
        with suppress(Exception):
            if value in (0, 1):
                return bool(value)
    raise ValueError(f"{name} must be on or off (true or false), not {quoted(value)}.")


def share(name: str, value: Any) -> float:
    """The value as a number in [0, 1], of which 0 stands for off.

    Args:
        name: of the setting, for the sentence.

    Raises:
        ValueError: it is none; one sentence.
    """
    number = math.nan
    if isinstance(value, Real) and not _is_bool(value):
        with suppress(OverflowError):
            number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be a number between 0 (off) and 1, not {quoted(value)}.")
    return number


def frame_rate(name: str, value: Any) -> Fraction:
    """Frames per second as an exact fraction: of a number, or of text such as ``"25"``, ``"29.97"``, ``"24000/1001"``.

    A number that is one of NTSC's rates n * 1000 / 1001 to its last digits, such as 23.976, is taken for that. Other
    floats are taken for what they are printed as.

    Args:
        name: of the setting, for the sentence.

    Raises:
        ValueError: it is no rate between :data:`LOWEST_RATE` and :data:`HIGHEST_RATE`; one sentence.
    """
    rate = _fraction(value)
    if rate is None or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{name} must be frames per second between {float(LOWEST_RATE):g} and {float(HIGHEST_RATE):g}, "
            f"such as 25, 29.97 or 24000/1001, not {quoted(value)}."
        )
    exact = isinstance(value, Fraction) or (isinstance(value, str) and "/" in value)
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    return ntsc if not exact and ntsc and abs(rate - ntsc) <= ntsc * _NTSC_TOLERANCE else rate


def _fraction(value: Any) -> Fraction | None:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,15})?)\s*(?:[/:]\s*(\d{1,12}(?:\.\d{1,15})?)\s*)?", value)
        if match is None or (match[2] is not None and not Fraction(match[2])):
            return None
        return Fraction(match[1]) / Fraction(match[2] or 1)
    if _is_bool(value) or isinstance(value, (bytes, bytearray)):
        return None
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    with suppress(Exception):  # whatever a tensor without values, or of several, says
        number = float(value)  # NumPy's, and tensors of one element
        if math.isfinite(number):
            return Fraction(repr(number))
    return None

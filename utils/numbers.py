"""Whole numbers from widgets and links."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def whole_number(name: str, value: Any, lowest: int | None = None, highest: int | None = None) -> int:
    """The value as an int from `lowest` to `highest`. Links bring NumPy's too, and whole floats, as from a node that
    computes.

    Raises:
        ValueError: it is none; one sentence with the input's name.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with suppress(TypeError):  # a tensor of floats
            number = value.__index__()
    if number is None or (lowest is not None and number < lowest) or (highest is not None and number > highest):
        allowed = "" if lowest is None else f" of at least {lowest}"
        allowed = allowed if highest is None else f" between {lowest} and {highest}"
        raise ValueError(f"{name} must be a whole number{allowed}, not {value!r}.")
    return number

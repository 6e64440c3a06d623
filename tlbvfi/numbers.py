"""Whole numbers from callers, widgets and links, checked in one place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


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
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        with suppress(TypeError):  # a tensor of floats
            number = value.__index__()
    if number is None or (lowest is not None and number < lowest) or (highest is not None and number > highest):
        allowed = "" if lowest is None else f" of at least {lowest}"
        allowed = allowed if highest is None else f" between {lowest} and {highest}"
        raise ValueError(f"{name} must be a whole number{allowed}, not {value!r}.")
    return int(number)

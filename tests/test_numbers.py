"""Numbers from outside: what is a boolean, or a float where whole numbers are asked for, is none."""

from __future__ import annotations

from typing import Any

import pytest

from tlbvfi.numbers import frame_rate, whole_number
from utils.memory import too_little_for


@pytest.mark.parametrize("value", [True, False, 2.0, 1.5, "2", None])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^it must be a whole number between 0 and 9, not .*\.$"):
        whole_number("it", value, 0, 9)


def test_whole_floats_where_they_are_taken() -> None:
    assert whole_number("it", 2.0, 0, 9, floats=True) == 2
    with pytest.raises(ValueError, match="not True"):
        whole_number("it", True, 0, 9, floats=True)


@pytest.mark.parametrize("value", [True, False, None, "1/0"])
def test_what_is_no_rate(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^it must be frames per second .*\.$"):
        frame_rate("it", value)


def test_a_result_that_just_fits() -> None:
    assert too_little_for(5, 5) is None
    assert too_little_for(6, 5) is not None

"""Inputs that nobody thought of: Hypothesis drives the doors and the arithmetic. What once failed stays as an example.

`python -m pytest` tries the same few in every run; `python tasks.py fuzz` tries many, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import settings

#: In the environment: how many cases are tried in all.
CASES = "TLBVFI_FUZZ_CASES"
_FEW = 500


def cases(hundredths: int) -> Callable[[Any], Any]:
    """The settings of a test that tries so many hundredths of all cases."""
    return settings(max_examples=max(1, int(os.environ.get(CASES, _FEW)) * hundredths // 100))

"""What is measured: one setting of a run."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import TLBVFI
from ..padding import padding_for
from ..planning import Plan


@dataclass(frozen=True)
class Case:
    """One setting to measure: frames of height x width, 2**times - 1 new ones a gap.

    Attributes:
        strip_rows: rows of the padded frame evaluated at a time, in the frugal way; None for whole maps.
    """

    height: int
    width: int
    times: int = 1
    flow_scale: float = 0.5
    sample_steps: int = 10
    batch_size: int = 1
    strip_rows: int | None = None


def fixed_plan(
    model: TLBVFI, size: tuple[int, int], strip_rows: int | None, batch_size: int = 1, graphs: bool = True
) -> Plan:
    """A run on frames of `size` (height, width) in whole maps or in strips, whatever memory that takes."""
    padded = padding_for(*size, multiple=model.multiple).padded
    return Plan(padded, 0, 0, strip_rows or padded[0], batch_size, graphs)

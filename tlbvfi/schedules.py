"""Which timesteps the bridge visits: schedules by name, and lists that somebody wrote. Needs no PyTorch.

A schedule is a function from a number S of steps, and m_t of the T timesteps, to S timesteps that fall strictly from
T - 1 to 0. A new one is a function and its line in :data:`SCHEDULES`.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from .numbers import whole_number
from .quoting import quoted
from .ranges import MIN_STEPS

#: (steps, m_t of every timestep, rising) -> timesteps.
Spacing = Callable[[int, Sequence[float]], list[int]]

#: By so much the higher of two neighbours must be nearer: a tie does not depend on a machine's rounding.
_TIE = 1e-6
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")


def linear(steps: int, m: Sequence[float]) -> list[int]:
    """t_i = T - 1 - ceil(i (T - 1) / (S - 2)) for i = 0 .. S - 3, then 1 and 0.

    The published sampler's, with which the published figures were made. (For S beyond (T - 1) / 2 + 2, that is 501 of
    1000, the 1 comes twice.)
    """
    top, spread = len(m) - 1, steps - 2
    return [top - -(-i * top // spread) for i in range(spread)] + [1, 0]


def cosine(steps: int, m: Sequence[float]) -> list[int]:
    """The t whose m_t is nearest to m_0 + (m_(T-1) - m_0) (1 + cos(pi i / (S - 1))) / 2, i = 0 .. S - 1.

    Steps are short at both ends and long in the middle. The published code offers a cosine of the timesteps,
    T (1 + cos(pi i / S)) / 2, which begins at T, one past the last timestep, and so cannot be run; this one is a
    spacing of the m_t that the model was trained with.
    """
    return _nearest([m[0] + (m[-1] - m[0]) * (1 + math.cos(math.pi * i / (steps - 1))) / 2 for i in range(steps)], m)


def uniform(steps: int, m: Sequence[float]) -> list[int]:
    """The t whose m_t is nearest to m_(T-1) - (m_(T-1) - m_0) i / (S - 1), i = 0 .. S - 1.

    All steps are alike in m_t, the share of y in the state (paper section 3.3), to the last one: where m_t is a
    straight line, as the published one, this is `linear` without its short last step from 1 to 0.
    """
    return _nearest([m[-1] - (m[-1] - m[0]) * i / (steps - 1) for i in range(steps)], m)


SCHEDULES: dict[str, Spacing] = {"linear": linear, "cosine": cosine, "uniform": uniform}
#: What stands for a list that somebody writes.
CUSTOM = "custom"


def most_steps(count: int) -> int:
    """Steps that every schedule can spread over `count` timesteps without visiting one twice."""
    return count // 2


def check_steps(steps: int, count: int) -> int:
    """The number of steps of a schedule over `count` timesteps.

    Raises:
        ValueError: there cannot be so many or so few, in one sentence.
    """
    return whole_number("steps", steps, MIN_STEPS, most_steps(count), floats=True)


def timesteps(name: str, steps: int, m: Sequence[float]) -> list[int]:
    """The timesteps of a schedule.

    Args:
        name: of :data:`SCHEDULES`.
        steps: how many.
        m: m_t of every timestep, rising.

    Raises:
        ValueError: there is no such schedule, or it cannot have so many steps; one sentence.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"schedule must be {' or '.join(SCHEDULES)}, not {quoted(name)}.")
    return SCHEDULES[name](check_steps(steps, len(m)), m)


def listed(name: str, text: str, top: int) -> list[int]:
    """The timesteps of a text such as ``"999, 749, 500, 1, 0"``, apart by commas, semicolons or blanks.

    Args:
        name: of the setting, for the sentence.
        top: the highest timestep.

    Raises:
        ValueError: it is no such list, or one that the bridge cannot follow; one sentence.
    """
    entries = [entry for entry in re.split(r"[\s,;]+", text) if entry] if isinstance(text, str) else []
    if not entries:
        raise ValueError(f"{name} must be a list of timesteps such as {_example(top)}, not {quoted(text)}.")
    for entry in entries:
        if not _WHOLE.fullmatch(entry):
            raise ValueError(
                f"{name} must be whole numbers from {top} down such as {_example(top)}, not {quoted(entry)}."
            )
    steps = [int(entry) for entry in entries]
    check_falling(name, steps, top)
    return steps


def check_falling(name: str, steps: Sequence[int], top: int) -> None:
    """Raises ValueError, one sentence, where timesteps do not fall strictly from `top` or lower to 0.

    A step from a timestep to itself would divide by zero, and only the step at 0 gives a frame.
    """
    fault = None
    if steps[0] > top:
        fault = f"begin with {quoted(steps[0])}"
    elif pair := next(((a, b) for a, b in itertools.pairwise(steps) if not a > b), None):
        fault = f"have {quoted(pair[1])} after {quoted(pair[0])}"
    elif steps[-1] != 0:
        fault = f"end with {quoted(steps[-1])}"
    if fault is not None:
        raise ValueError(
            f"{name} must fall strictly from at most {top} to 0, such as {_example(top)}, and not {fault}."
        )


def _example(top: int) -> str:
    return f"{top}, {top // 2}, 0"


def _nearest(wanted: Iterable[float], m: Sequence[float]) -> list[int]:
    """The timesteps with the m_t nearest to falling ones; where two would be the same, the next lower that is free."""
    wanted = list(wanted)
    taken: list[int] = []
    lowest = len(m)
    for left, value in zip(range(len(wanted) - 1, -1, -1), wanted, strict=True):
        above = min(max(bisect_left(m, value), 1), len(m) - 1)
        nearest = above - (not m[above] - value + _TIE < value - m[above - 1])
        lowest = max(min(nearest, lowest - 1), left)
        taken.append(lowest)
    return taken

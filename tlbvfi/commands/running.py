"""The part of a command that is the long work: its errors, and how far it is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ..device_memory import DeviceMemoryError, is_out_of_memory
from .errors import RunError, told

#: Seconds between two lines of a log.
_SECONDS_A_LINE = 10


@contextmanager
def running() -> Iterator[None]:
    """What goes wrong in here is no longer a wrong request.

    Raises:
        RunError: for a ValueError, an OSError and where memory does not suffice.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (DeviceMemoryError, ValueError, OSError) as error:
        raise RunError(told(error)) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).split(". ")[0].splitlines()[0].rstrip(".")
        hint = "use --dtype float16, a smaller --flow-scale or a smaller size"
        raise RunError(f"the memory does not suffice ({first}); {hint}.") from None


class _Lines(io.StringIO):
    """What draws over a line of a terminal becomes lines of a log."""

    def write(self, text: str) -> int:
        for line in filter(None, map(str.rstrip, text.splitlines())):
            sys.stderr.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def progress_bar(total: int | None, name: str, done: int = 0) -> Iterator[Callable[[object], None]]:
    """Frames, frames per second and time left: a bar on a terminal, otherwise now and then a line on stderr.

    Args:
        done: frames of an earlier run.

    Yields:
        What is to be called with every frame.
    """
    with bar(total, name, done) as drawn:

        def on_frame(_: object) -> None:
            drawn.update()

        yield on_frame


def bar(total: int | None, name: str, done: int = 0) -> Any:
    """The same, as it is drawn; what its ``postfix`` says comes last."""
    terminal = sys.stderr.isatty()
    amount = "{n_fmt} frames" if total is None else "{n_fmt} of {total_fmt} frames, {percentage:.0f}%"
    left = "" if total is None else ", {remaining} left"
    return tqdm(
        total=total,
        desc=name,
        initial=done,
        unit=" frames",
        dynamic_ncols=terminal,
        file=None if terminal else _Lines(),
        mininterval=0.1 if terminal else _SECONDS_A_LINE,
        maxinterval=_SECONDS_A_LINE,
        bar_format=None if terminal else f"{{desc}}: {amount}, {{rate_fmt}}{left}{{postfix}}",
    )

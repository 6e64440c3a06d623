"""How a process of ours ends when it is asked to: quickly while it starts, and cleaning up once it works."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

#: What is said of an interruption.
INTERRUPTED = "interrupted, nothing was left half-written."
#: Ctrl-C, a request to end, a terminal that is closed.
_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Within so many seconds a second request is the first one again, which must not break off the cleaning up.
_SAME = 2.0


def leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """A handler for a time in which nothing has been written: an exception would be lost or shown by imports."""
    if number == signal.SIGINT:
        with suppress(OSError):
            os.write(2, f"\ntlbvfi: {INTERRUPTED}\n".encode())
    os._exit(128 + number)


class Ending:
    """A handler that has a command end by an exception."""

    def __init__(self) -> None:
        self._last = -_SAME

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last < _SAME:
            return
        self._last = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


def handle(handler: Any) -> None:
    """Have signals handled so, apart from those that are ignored, as nohup has it; in the main thread alone."""
    for number in _NUMBERS:
        with suppress(ValueError):  # another thread
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def starting() -> Iterator[None]:
    """Around imports that take long: in a process of our own, a request to end is followed at once."""
    own = {number: handler for number in _NUMBERS if isinstance(handler := signal.getsignal(number), Ending)}
    for number in own:
        signal.signal(number, leave_at_once)
    try:
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)

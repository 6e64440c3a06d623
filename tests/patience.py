"""Waiting in tests: as long as something happens, never for so many seconds that a busy machine would miss them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds in which nothing happens, on a machine that is not busy, until that is taken for the end.
QUIET = 120.0
#: Seconds of processor time that a process may take from one sign to the next; more is a loop without an end.
WORK = 1200.0
#: Processor time that shows that a process works: one that only waits for requests takes less while it is QUIET.
_WORKING = 1.0
#: Seconds in which an interpreter starts on a machine that is not busy, amply.
_USUAL_START = 0.2


class Stalled(AssertionError):
    """Nothing happens any more. One sentence."""


class Patience:
    """How long to wait for something that other processes do: until they do nothing more.

        patience = Patience(process.pid)
        while not file.exists():
            patience.wait("the file")

    What counts is their processor time, which does not depend on how busy the machine is. Where that cannot be known,
    or nothing is being computed, it is :data:`QUIET`, as much longer as an interpreter takes to start at that time.
    """

    def __init__(self, *processes: int) -> None:
        """processes: their numbers; none where it is a thread of this one that is waited for."""
        self._processes = processes
        self.mark()

    def mark(self) -> None:
        """There was a sign: an answer, an event, a file."""
        self._quiet_since, self._worked, self._marked = now(), *([self._used()] * 2)

    def check(self, what: str) -> None:
        """Raises :class:`Stalled` where waiting for `what` is in vain."""
        used = self._used()
        if used - self._marked > WORK:
            raise Stalled(f"{what}: there is no sign of it after {used - self._marked:.0f} s of processor time.")
        if used - self._worked >= _WORKING:
            self._quiet_since, self._worked = now(), used
        quiet = now() - self._quiet_since
        if quiet > QUIET and quiet > (limit := QUIET * slowness()):
            raise Stalled(f"{what}: nothing has happened for {quiet:.0f} s, the limit being {limit:.0f} s.")

    def wait(self, what: str, seconds: float = 0.05) -> None:
        """A moment, then :meth:`check`."""
        time.sleep(seconds)
        self.check(what)

    def result(self, call: Callable[[], T], what: str) -> T:
        """What a call gives that may block: it is made in a thread, which is left behind where that is in vain."""
        found: list[T] = []
        errors: list[BaseException] = []

        def made() -> None:
            try:
                found.append(call())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=made, daemon=True)
        thread.start()
        self.joined(thread, what)
        if errors:
            raise errors[0]
        return found[0]

    def joined(self, thread: threading.Thread, what: str) -> None:
        """Wait for the end of a thread."""
        while thread.is_alive():
            thread.join(0.2)
            self.check(what)

    def _used(self) -> float:
        return sum(map(processor_time, self._processes))


def ended(process: subprocess.Popen[Any], what: str = "the end of the process") -> tuple[Any, Any]:
    """Wait for a process: what it printed, as of `communicate`. It is killed where that is in vain."""
    patience = Patience(process.pid)
    while True:
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            try:
                patience.check(what)
            except Stalled:
                process.kill()
                raise


def now() -> float:
    return time.monotonic()


def processor_time(process: int) -> float:
    """Seconds that a process, and its children that have ended, have computed; 0 where that cannot be known."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / float(os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def slowness() -> float:
    """How many times as long as usual an interpreter takes to start now; 1 at least."""
    begin = now()
    subprocess.run([sys.executable, "-c", "pass"], check=True, stdin=subprocess.DEVNULL)
    return max(1.0, (now() - begin) / _USUAL_START)

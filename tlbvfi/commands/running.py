"""The part of a command that is the long work: its errors, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..device_memory import DeviceMemoryError, is_out_of_memory
from .errors import RunError


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
        raise RunError(str(error)) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).split(". ")[0].splitlines()[0].rstrip(".")
        hint = "use --dtype float16, a smaller --flow-scale or a smaller size"
        raise RunError(f"the memory does not suffice ({first}); {hint}.") from None


@contextmanager
def progress_bar(total: int | None, name: str) -> Iterator[Callable[[object], None]]:
    """A bar on stderr; what is given is to be called with every frame."""
    terminal = sys.stderr.isatty()
    with tqdm(total=total, desc=name, unit=" frames", mininterval=0.1 if terminal else 10, dynamic_ncols=True) as bar:

        def on_frame(_: object) -> None:
            bar.update()

        yield on_frame

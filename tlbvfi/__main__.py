"""``python -m tlbvfi``, and the installed command."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import takes a while, in which nothing catches an interruption
if TYPE_CHECKING:
    from typing import NoReturn


def start() -> NoReturn:
    """Run the command line of this process. An interruption is no error to be shown, even before there is a command."""
    try:
        from .commands.signals import handle, leave_at_once

        handle(leave_at_once)
        from .commands.main import entry
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    entry()


if __name__ == "__main__":
    start()

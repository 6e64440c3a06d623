"""The weight file that a command line names."""

from __future__ import annotations

from pathlib import Path

from ..known_models import BUILT_IN, CheckpointError, built_in_path, resolve_source

#: What ``--model`` takes, for its help.
MODEL_HELP = f"a weight file or {', '.join(BUILT_IN)}; None: the built-in one"


def weight_file(model: str | None) -> Path:
    """The file of ``--model``; None is the built-in model.

    Raises:
        CheckpointError: there is none.
    """
    if model is None and not built_in_path(next(iter(BUILT_IN))).is_file():
        raise CheckpointError(
            "this installation has no built-in weights; give a weight file with --model "
            "(python -m tlbvfi download fetches the published one)."
        )
    return resolve_source(model)

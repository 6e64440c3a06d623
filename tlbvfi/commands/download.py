"""``download``: the published weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY
from . import grammar
from .errors import RunError


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "download", run, f"Fetch the published weights ({PUBLISHED_FILE}, from {PUBLISHED_REPOSITORY}).", "."
    )
    command.add_argument(
        "folder", metavar="DIR", type=grammar.file, nargs="?", default=Path(), help="where to put the file"
    )


def run(options: argparse.Namespace) -> None:
    """Fetch the file, after a word on its licence."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(
            "downloading needs the package huggingface-hub, which is not installed: pip install huggingface-hub."
        ) from None
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is not a folder.")
    print(
        f"{PUBLISHED_FILE} from {PUBLISHED_REPOSITORY} on Hugging Face. Its authors do not state a licence for these "
        "weights; whether you may use them is for you to judge."
    )
    try:
        path = hf_hub_download(PUBLISHED_REPOSITORY, PUBLISHED_FILE, local_dir=options.folder)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RunError(f"{PUBLISHED_FILE} could not be downloaded ({reason}).") from None
    target = Path(path)
    print(f"{target}\nFor faster loading: python -m tlbvfi convert {target} {target.with_suffix('.safetensors')}")

"""``download``: the published weights."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY, PUBLISHED_REVISION
from ..obstacles import unwritable_file
from ..quoting import escaped, quoted
from . import grammar
from .errors import RunError
from .signals import starting


def add(commands: grammar.Commands) -> None:
    """Declare the command."""
    command = grammar.add_command(
        commands, "download", run, f"Fetch the published weights ({PUBLISHED_FILE}, from {PUBLISHED_REPOSITORY}).", "."
    )
    command.add_argument(
        "folder", metavar="DIR", type=grammar.file, nargs="?", default=Path(), help="where to put the file"
    )
    command.add_argument(
        "--revision",
        type=_revision,
        default=PUBLISHED_REVISION,
        metavar="NAME",
        help="a branch, tag or commit of the repository",
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")


@grammar.checked
def _revision(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}", text) or ".." in text:
        raise ValueError(f"must be the name of a branch or tag, or a commit, not {quoted(text)}.")
    return text


def run(options: argparse.Namespace) -> None:
    """Fetch the file, after a word on its licence."""
    folder: Path = options.folder
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder.")
    target = folder / PUBLISHED_FILE
    if (obstacle := unwritable_file(target)) is not None:
        raise ValueError(f"{target} cannot be written, because {obstacle}.")
    if target.exists() and not options.force:
        raise ValueError(f"{target} is there already; give --force to fetch it anew.")
    with starting():
        from ..incomplete import is_kept
        from ..published import GOES_ON, LICENCE, DownloadError, address, download
    url = address(options.revision)
    with starting():
        from tqdm import tqdm
    print(f"{PUBLISHED_FILE} from {PUBLISHED_REPOSITORY} on Hugging Face. {LICENCE}", flush=True)
    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, desc=PUBLISHED_FILE, disable=None) as bar:

        def on_bytes(count: int, size: int | None) -> None:
            bar.total = size
            bar.update(count - bar.n)

        try:
            download(url, target, on_bytes)
        except DownloadError as error:
            raise RunError(str(error)) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*([f"interrupted; {GOES_ON}."] if is_kept(target) else [])) from None
    shown = escaped(str(target), 300)
    print(f"{shown}\nFor faster loading: python -m tlbvfi convert {shown} {Path(shown).with_suffix('.safetensors')}")

"""``download``: the published weights."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from ..known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY
from ..obstacles import unwritable_file
from ..quoting import escaped, quoted
from . import grammar
from .errors import RunError
from .signals import starting

#: Of the repository, where no other is asked for.
_REVISION = "main"
#: Hugging Face, or what takes its place.
_HUB, _HUB_VARIABLE = "https://huggingface.co", "HF_ENDPOINT"
#: Variables that forbid it, as Hugging Face's own packages read them.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
#: First bytes of what torch.save writes: a ZIP archive, or a pickle.
_BEGINS = (b"PK\x03\x04", b"\x80\x02")


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
        default=_REVISION,
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
    for name in _OFFLINE:
        if os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise ValueError(f"{name} is set, so that nothing may be downloaded; unset it for this.")
    url = f"{_hub()}/{PUBLISHED_REPOSITORY}/resolve/{quote(options.revision, safe='')}/{quote(PUBLISHED_FILE)}"
    with starting():
        from tqdm import tqdm

        from ..fetching import FetchError, fetch
    print(
        f"{PUBLISHED_FILE} from {PUBLISHED_REPOSITORY} on Hugging Face. Its authors do not state a licence for these "
        "weights; whether you may use them is for you to judge.",
        flush=True,
    )
    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, desc=PUBLISHED_FILE, disable=None) as bar:

        def on_bytes(count: int, size: int | None) -> None:
            bar.total = size
            bar.update(count - bar.n)

        try:
            fetch(url, target, _BEGINS, on_bytes)
        except FetchError as error:
            raise RunError(f"{PUBLISHED_FILE} could not be downloaded: {error}.") from None
        except OSError as error:
            raise RunError(f"{target} cannot be written ({error.strerror or error}).") from None
    shown = escaped(str(target), 300)
    print(f"{shown}\nFor faster loading: python -m tlbvfi convert {shown} {Path(shown).with_suffix('.safetensors')}")


def _hub() -> str:
    """The address of the hub.

    Raises:
        ValueError: the variable for it holds none.
    """
    text = os.environ.get(_HUB_VARIABLE, "").strip().rstrip("/") or _HUB
    try:
        parts = urlsplit(text)
        possible = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        possible = False
    if not possible or not re.fullmatch(r"[!-~]+", text) or "?" in text or "#" in text or "@" in text:
        raise ValueError(f"{_HUB_VARIABLE} is {quoted(text)}, which is no address such as {_HUB}.")
    return text

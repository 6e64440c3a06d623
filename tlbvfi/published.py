"""Fetching the published weights: from where, whether it is allowed, and in which words it fails. Needs no PyTorch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from .fetching import FetchError, fetch
from .incomplete import is_kept
from .known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY, PUBLISHED_REVISION
from .quoting import escaped, quoted

#: What has to be said of them.
LICENCE = "Its authors do not state a licence for these weights; whether you may use them is for you to judge."
#: Hugging Face, or what takes its place.
_HUB, _HUB_VARIABLE = "https://huggingface.co", "HF_ENDPOINT"
#: Variables that forbid it, as Hugging Face's own packages read them.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
#: First bytes of what torch.save writes: a ZIP archive, or a pickle.
_BEGINS = (b"PK\x03\x04", b"\x80\x02")

#: What is said of a download that was broken off and is kept.
GOES_ON = "the next run goes on where it stopped"


class DownloadError(RuntimeError):
    """The weights cannot be had, or not be written. One sentence."""


def address(revision: str = PUBLISHED_REVISION) -> str:
    """Where the file is. Asks nobody.

    Raises:
        ValueError: nothing may be downloaded, or the hub's variable holds no address; one sentence.
    """
    for name in _OFFLINE:
        if os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            raise ValueError(f"{name} is set, so that nothing may be downloaded; unset it for this.")
    return f"{_hub()}/{PUBLISHED_REPOSITORY}/resolve/{quote(revision, safe='')}/{quote(PUBLISHED_FILE)}"


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


def download(url: str, target: Path, on_bytes: Callable[[int, int | None], object], besides: int = 0) -> None:
    """Fetch the file from its address; arguments as of :func:`.fetching.fetch`.

    Raises:
        DownloadError: it cannot be had or not be written. What was at `target` stays. The sentence says whether the
            next run goes on.
    """
    try:
        fetch(url, target, _BEGINS, on_bytes, besides=besides)
    except FetchError as error:
        raise DownloadError(f"{PUBLISHED_FILE} could not be downloaded: {error}{_rest(target)}.") from None
    except OSError as error:
        raise DownloadError(
            f"{escaped(str(target), 300)} cannot be written ({error.strerror or error}){_rest(target)}."
        ) from None


def _rest(target: Path) -> str:
    return f"; {GOES_ON}" if is_kept(target) else ""

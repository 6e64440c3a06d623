"""A large file over HTTP, by Python's own means: there whole and checked, or not at all, within a bounded time.

What came in a run that was broken off is taken up by the next one (:mod:`.incomplete`).
"""

from __future__ import annotations

import hashlib
import http.client
import queue
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from .incomplete import BusyError, Incomplete
from .quoting import quoted, sentence

_CHUNK = 1 << 18
#: Bytes that have to come before failures are counted anew.
_PROGRESS = 1 << 20
#: Longest wait that a server may ask for, in seconds.
_LONGEST_WAIT = 30.0
#: Seconds within which the caller hears from us, whether or not anything comes.
_TICK = 0.2
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchError(Exception):
    """A file that cannot be had. One sentence."""


class _Broken(Exception):
    """What another try may mend, as part of a sentence; `wait` is what the server asks for, in seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class _PastEnd(_Broken):
    """There is less of the file than has come of it."""


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    Attributes:
        answer: seconds until a server answers.
        window, slowest: in so many seconds come so many bytes at least.
        tries: failures in a row without much between them.
        pause: seconds before the second try; twice as long before each further one.
    """

    answer: float = 30.0
    window: float = 30.0
    slowest: int = 300_000
    tries: int = 4
    pause: float = 1.0


@dataclass(frozen=True)
class _Facts:
    """What a server says of the file, and where the bytes that follow belong."""

    begin: int
    size: int | None
    sha256: str | None


def fetch(
    url: str,
    target: Path,
    begins: tuple[bytes, ...],
    on_bytes: Callable[[int, int | None], object] = lambda count, size: None,
    patience: Patience | None = None,
    besides: int = 0,
) -> None:
    """Fetch a file. A connection that breaks is taken up where it broke, and so is what an earlier call has left.

    Args:
        url: of a hub: its first answer may state size and SHA-256 (``X-Linked-Size``, ``X-Linked-Etag``) and lead on.
        begins: first bytes of such a file, one of these.
        on_bytes: called with the number of bytes that are there, and that of the whole file, several times a second
            even where nothing comes. What it raises passes through, and ends the fetching.
        besides: bytes that have to be free on the disk beside those of the file.

    Raises:
        FetchError: it cannot be had.
        OSError: it cannot be written.

    Whatever is raised, :func:`.incomplete.is_kept` says whether the next call goes on.
    """
    host = urlsplit(url).hostname or url
    try:
        with Incomplete(target) as file:
            _Fetch(url, host, file, begins, on_bytes, patience or Patience(), besides).run()
    except BusyError as error:
        raise FetchError(
            f"another run is downloading it just now, into {quoted(str(error), 300)}; wait for its end"
        ) from None


class _Fetch:
    def __init__(
        self,
        url: str,
        host: str,
        file: Incomplete,
        begins: tuple[bytes, ...],
        on_bytes: Callable[[int, int | None], object],
        patience: Patience,
        besides: int,
    ) -> None:
        self._url, self._host, self._file, self._besides = url, host, file, besides
        self._begins, self._on_bytes, self._patience = begins, on_bytes, patience
        self._size: int | None = None
        self._sha256: str | None = None
        self._start_over()

    def _start_over(self) -> None:
        self._count, self._digest, self._resumed = 0, hashlib.sha256(), False

    def run(self) -> None:
        self._take_up()
        self._come_to_the_end()
        if self._is_wrong() and self._resumed:  # something has happened to it between the runs
            self._file.drop()
            self._start_over()
            self._come_to_the_end()
        if self._is_wrong():
            self._file.drop()
            raise FetchError(
                f"what came from {self._host} is not the file (its SHA-256 is {self._digest.hexdigest()[:16]}..., "
                f"the hub states {str(self._sha256)[:16]}...)"
            )

    def _is_wrong(self) -> bool:
        return self._sha256 is not None and self._digest.hexdigest() != self._sha256

    def _take_up(self) -> None:
        """Go on with what an earlier run has left."""
        stream = self._file.take_up(self._begins)
        if stream is None:
            return
        self._resumed = True
        while data := _read(stream):
            self._digest.update(data)
            self._count += len(data)
            self._tell()
        if data is None:
            self._file.drop()
            self._start_over()

    def _come_to_the_end(self) -> None:
        failures, counted_from = 0, self._count
        while True:
            try:
                self._attempt()
                break
            except _Broken as error:
                if isinstance(error, _PastEnd):
                    self._file.drop()
                    self._start_over()
                if self._count - counted_from >= _PROGRESS:
                    failures = 0
                failures, counted_from = failures + 1, self._count
                if failures >= self._patience.tries:
                    raise FetchError(f"{self._host} {error}") from None
                pause = self._patience.pause * 2 ** (failures - 1)
                self._rest(max(pause, min(error.wait, _LONGEST_WAIT)))

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._tell()
            time.sleep(min(left, _TICK))

    def _tell(self) -> None:
        self._on_bytes(self._count, self._size)

    def _attempt(self) -> None:
        """Read to the end of the file, or raise."""
        puller = _Puller(self._url, self._count, self._patience.answer)
        try:
            self._take(puller.items)
        finally:
            puller.stopped.set()

    def _take(self, items: queue.Queue[_Facts | bytes | Exception]) -> None:
        patience = self._patience
        answered = False
        begin, in_window = time.monotonic(), 0
        while True:
            now = time.monotonic()
            left = begin + (patience.window if answered else patience.answer) - now
            if left <= 0:
                if not answered:
                    raise _Broken(f"does not answer within {patience.answer:g} seconds")
                if in_window < patience.slowest:
                    raise _Broken(f"is too slow ({in_window} bytes in {patience.window:g} seconds)")
                begin, in_window = now, 0
                continue
            try:
                item = items.get(timeout=min(left, _TICK))
            except queue.Empty:
                self._tell()
                continue
            if isinstance(item, Exception):
                raise item
            if isinstance(item, _Facts):
                answered, begin = True, time.monotonic()
                self._begin(item)
            elif item:
                in_window += len(item)
                self._write(item)
            else:
                break
        if self._size is not None and self._count < self._size:
            raise _Broken(f"broke off after {self._count} of {self._size} bytes")

    def _begin(self, facts: _Facts) -> None:
        """Compare what the server says with what it said before."""
        if facts.size == 0:
            raise FetchError(f"{self._host} has an empty file in its place")
        if facts.size is None and facts.sha256 is None:
            raise FetchError(f"{self._host} does not say how large the file is")
        if self._count and not self._is_same(facts):
            if facts.sha256 is None:
                self._file.let_go()
            else:
                self._file.drop()
            self._start_over()
            raise _Broken("changed the file meanwhile")
        self._size, self._sha256 = facts.size, facts.sha256
        if facts.begin != self._count:
            if facts.begin:
                raise FetchError(f"{self._host} sends another part of the file than it is asked for")
            self._start_over()
        if not self._count:
            self._file.begin(self._sha256)
        if self._size is not None:
            free = shutil.disk_usage(self._file.folder).free
            if free < (needed := self._size - self._count + self._besides):
                raise FetchError(f"it takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there")

    def _is_same(self, facts: _Facts) -> bool:
        """Whether what has come is of that file."""
        if (self._size, self._sha256) != (None, None):
            return (self._size, self._sha256) == (facts.size, facts.sha256)
        return self._file.has(facts.sha256) and (facts.size is None or self._count <= facts.size)

    def _write(self, data: bytes) -> None:
        if not self._count and not data.startswith(self._begins):
            raise FetchError(f"{self._host} sends something else than the file (it begins with {quoted(data, 24)})")
        self._count += len(data)
        if self._size is not None and self._count > self._size:
            self._file.drop()
            raise FetchError(f"{self._host} sends more than the {self._size} bytes of the file")
        self._digest.update(data)
        self._file.write(data)
        self._tell()


def _read(stream: BinaryIO) -> bytes | None:
    """The next bytes of a file, none at its end; None where the disk does not give them."""
    try:
        return stream.read(_CHUNK)
    except OSError:
        return None


class _Puller(threading.Thread):
    """Reads an answer: first what is said of the file, then its bytes, none at the end; or an error.

    A thread, because not everything in a connection can be given a time.
    """

    def __init__(self, url: str, begin: int, timeout: float) -> None:
        super().__init__(daemon=True)
        self._url, self._begin, self._timeout = url, begin, timeout
        self.items: queue.Queue[_Facts | bytes | Exception] = queue.Queue(maxsize=16)
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        host = urlsplit(self._url).hostname or self._url
        try:
            self._pull()
        except (_Broken, FetchError) as error:
            self._put(error)
        except Exception as error:
            self._put(_known(error, host))

    def _put(self, item: _Facts | bytes | Exception) -> None:
        while not self.stopped.is_set():
            with suppress(queue.Full):
                self.items.put(item, timeout=0.2)
                return

    def _pull(self) -> None:
        redirects = _Redirects()
        headers = {"User-Agent": "tlbvfi", "Accept-Encoding": "identity"}
        if self._begin:
            headers["Range"] = f"bytes={self._begin}-"
        request = urllib.request.Request(self._url, headers=headers)
        try:
            opened = urllib.request.build_opener(redirects).open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            facts = _facts(error.code, error.headers, redirects.stated)
            error.close()
            if facts.begin != self._begin:
                raise _PastEnd("has a shorter file by now (416)") from None
            self._put(facts)  # all of it is there
            self._put(b"")
            return
        with opened as answer:
            if answer.headers.get_content_type() == "text/html":
                host = urlsplit(answer.url).hostname
                raise FetchError(f"{host} answers with a page instead of the file (a proxy, or a login, in between?)")
            self._put(_facts(answer.status, answer.headers, redirects.stated))
            while not self.stopped.is_set():
                data = answer.read1(_CHUNK)
                self._put(data)
                if not data:
                    return


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to other servers, and keeps what the first ones say of the file."""

    max_redirections = 5

    def __init__(self) -> None:
        self.stated: dict[str, str] = {}

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        begin, end = urlsplit(req.full_url), urlsplit(newurl)
        if end.scheme not in ("http", "https") or (begin.scheme == "https" and end.scheme == "http"):
            raise FetchError(f"{begin.hostname} leads on to an address that is not followed ({quoted(newurl)})")
        self.stated = {**_lowered(headers), **self.stated}
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type,unused-ignore]


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in headers.items() if name.lower().startswith("x-linked-")}


def _facts(status: int, headers: Message, stated: Mapping[str, str]) -> _Facts:
    stated = {**_lowered(headers), **stated}
    begin, size = 0, _number(headers.get("Content-Length"))
    if status == http.client.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", headers.get("Content-Range", ""))
        if found is None:
            raise FetchError("the server sends a part of the file without saying which")
        begin, size = int(found[1]), int(found[2])
    elif status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        found = re.fullmatch(r"bytes \*/(\d{1,18})", headers.get("Content-Range", ""))
        size = None if found is None else int(found[1])
    linked = _number(stated.get("x-linked-size"))
    if None not in (linked, size) and linked != size:
        raise FetchError(f"the server offers {size} bytes instead of the {linked} that the hub states")
    size = size if linked is None else linked
    if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        begin = size or 0
    etag = (stated.get("x-linked-etag") or headers.get("ETag") or "").removeprefix("W/").strip('"').lower()
    return _Facts(begin, size, etag if _SHA256.fullmatch(etag) else None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text.strip()) else None


def _known(error: Exception, host: str) -> Exception:
    """What an error of Python's library is to us."""
    if isinstance(error, urllib.error.HTTPError):
        return _answered(error, host)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(f"the certificate of {host} is not trusted ({sentence(cause.verify_message, 200)})")
    if isinstance(cause, TimeoutError):
        return _Broken("does not answer in time")
    if isinstance(cause, (OSError, http.client.HTTPException)):
        said = getattr(cause, "strerror", None) or cause
        return _Broken(f"cannot be reached ({sentence(said, 200).rstrip('.') or type(cause).__name__})")
    return FetchError(f"{host} answers with something that is not understood ({sentence(cause, 200).rstrip('.')})")


def _answered(error: urllib.error.HTTPError, host: str) -> Exception:
    code = error.code
    error.close()
    if code in (301, 302, 303, 307, 308):
        return FetchError(f"{host} leads in a circle, or to an address that is not followed ({code})")
    if code == 404:
        return FetchError(f"{host} has no such file (404)")
    if code in (401, 403, 451):
        return FetchError(f"{host} does not give it out ({code})")
    if code in (408, 425, 429) or code >= 500:
        wait = _number(error.headers.get("Retry-After")) or 0
        return _Broken(f"is too busy ({code})" if code == 429 else f"fails ({code})", float(wait))
    return FetchError(f"{host} refuses it ({code})")

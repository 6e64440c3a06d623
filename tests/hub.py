"""A hub on this machine that has every fault, for tests of what is downloaded."""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

WEIGHTS = b"PK\x03\x04" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
Answer = Callable[[Any], None]


class Hub(BaseHTTPRequestHandler):
    """Answers as Hugging Face does: the first answer states size and hash, and leads on to the file."""

    protocol_version = "HTTP/1.1"
    weights = WEIGHTS
    fault: Answer | None = None
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
        self.close_connection = True
        if "/resolve/" not in self.path:
            self.file()
        elif self.fault is not None:
            self.fault()
        else:
            self.lead_on()

    def send(self, code: int, body: bytes = b"", **headers: object) -> None:
        self.send_response(code)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def lead_on(self, size: int | None = None, digest: str | None = None, to: str = "/cdn") -> None:
        size = len(self.weights) if size is None else size
        digest = self.sha256() if digest is None else digest
        self.send(302, Location=to, X_Linked_Size=size, X_Linked_Etag=f'"{digest}"')

    def sha256(self) -> str:
        return hashlib.sha256(self.weights).hexdigest()

    def stall(self) -> None:
        """Send some bytes, and then no more."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.weights)))
        self.send_header("ETag", self.sha256())
        self.end_headers()
        self.wfile.write(self.weights[:4000])

    def begin(self) -> int:
        return int(self.headers.get("Range", "bytes=0-")[6:-1])

    def file(self) -> None:
        begin = self.begin()
        if begin and begin >= len(self.weights):
            return self.send(416, Content_Range=f"bytes */{len(self.weights)}")
        place = f"bytes {begin}-{len(self.weights) - 1}/{len(self.weights)}" if begin else None
        return self.send(206 if begin else 200, self.weights[begin:], Content_Range=place)

    def part(self, count: int) -> None:
        """Break off after so many bytes of what is asked for."""
        begin = self.begin()
        place = f"bytes {begin}-{len(self.weights) - 1}/{len(self.weights)}" if begin else None
        some, left = self.weights[begin : begin + count], len(self.weights) - begin
        self.send(206 if begin else 200, some, Content_Range=place, Content_Length=left, ETag=self.sha256())

    def once(self, code: int, **headers: object) -> None:
        if len(type(self).asked) == 1:
            self.send(code, **headers)
        else:
            self.lead_on()

    def drip(self, text: bytes) -> None:
        for byte in text:
            time.sleep(0.01)
            self.wfile.write(bytes([byte]))

    def chunked(self, whole: bool) -> None:
        self.send(200, ETag=self.sha256(), Content_Length=None, Transfer_Encoding="chunked")
        end = b"0\r\n\r\n" if whole else b"400\r\nPK"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(self.weights), self.weights) + end)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    """The hub, as a server of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.02), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def use(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, fetching: Any) -> None:
    """Have downloads ask a hub without faults, not patiently, until the test ends.

    Args:
        fetching: the module :mod:`tlbvfi.fetching` that is to ask it.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(fetching, "Patience", functools.partial(fetching.Patience, 0.8, 0.3, 5000, 3, 0.01))
    monkeypatch.setattr(Hub, "fault", None)
    monkeypatch.setattr(Hub, "asked", [], raising=False)
    monkeypatch.setattr(Hub, "weights", WEIGHTS)

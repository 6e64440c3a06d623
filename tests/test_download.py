"""``download`` against a hub on this machine that has every fault: one sentence, soon, and nothing half-written."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.hub import SHA256, WEIGHTS, Answer, Hub, serving, use
from tlbvfi import fetching
from tlbvfi.commands.main import main

Runner = functools.partial[tuple[int, str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with serving() as server:
        yield server


@pytest.fixture
def run(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Runner:
    """Downloads into a folder from the hub on this machine: exit code, stdout, stderr."""
    use(server, monkeypatch, fetching)

    def running(*words: object) -> tuple[int, str, str]:
        code = main(["download", str(tmp_path), *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return functools.partial(running)


def test_the_file_and_a_word_on_its_licence(run: Runner, tmp_path: Path) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "do not state a licence" in out and str(tmp_path / "vimeo_unet.pth") in out
    assert (tmp_path / "vimeo_unet.pth").read_bytes() == WEIGHTS
    assert Hub.asked == ["/ucfzl/TLBVFI/resolve/main/vimeo_unet.pth", "/cdn"]
    code, _, err = run()
    assert (code, "there already" in err) == (2, True)
    assert run("--force", "--revision", "v1/2")[0] == 0
    assert Hub.asked[2] == "/ucfzl/TLBVFI/resolve/v1%2F2/vimeo_unet.pth"


@pytest.mark.parametrize(
    "fault",
    [
        lambda hub: hub.part(4000),
        lambda hub: hub.once(503),
        lambda hub: hub.once(429, Retry_After=0),
        lambda hub: hub.once(500),
        lambda hub: hub.chunked(True),
        lambda hub: hub.send(200, WEIGHTS),
        lambda hub: None if len(Hub.asked) == 1 else hub.lead_on(),
        lambda hub: hub.part(99) if len(Hub.asked) == 1 else hub.send(200, WEIGHTS, ETag=SHA256),
    ],
    ids=["broken off", "503", "429", "500", "chunked", "no redirect", "closed", "no ranges"],
)
def test_what_another_try_mends(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Answer) -> None:
    monkeypatch.setattr(Hub, "fault", fault)
    code, _, err = run()
    assert (code, err) == (0, "")
    assert (tmp_path / "vimeo_unet.pth").read_bytes() == WEIGHTS
    assert [path.name for path in tmp_path.iterdir()] == ["vimeo_unet.pth"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda hub: hub.part(10), "broke off after 30 of"),
        (lambda hub: hub.part(0), "broke off after 0 of"),
        (lambda hub: time.sleep(1), "does not answer"),
        (lambda hub: hub.part(4) or hub.drip(WEIGHTS[:200]), "too slow"),
        (lambda hub: hub.drip(b"HTTP/1.1 200 " + b"K" * 200), "does not answer"),
        (lambda hub: hub.chunked(False), "cannot be reached"),
        (lambda hub: hub.lead_on(to=hub.path), "leads in a circle"),
        (lambda hub: hub.lead_on(to="file:///etc/passwd"), "not followed"),
        (lambda hub: hub.lead_on(to="ftp://127.0.0.1/a"), "not followed"),
        (lambda hub: hub.send(200, b"<html>" * 99, Content_Type="text/html; charset=utf-8"), "a page instead"),
        (lambda hub: hub.send(200, b"<html>" * 99), "something else than the file"),
        (lambda hub: hub.send(200, b"version https://git-lfs.github.com/spec/v1\n"), "something else than the file"),
        (lambda hub: hub.send(200), "an empty file"),
        (lambda hub: hub.send(200, WEIGHTS, Content_Length=None), "does not say how large"),
        (lambda hub: hub.lead_on(size=len(WEIGHTS) + 1), "offers 10244 bytes instead of the 10245"),
        (lambda hub: hub.lead_on(digest="0" * 64), "is not the file"),
        (lambda hub: hub.send(200, b"PK\x03\x04", Content_Length=10**17), "GB are free"),
        (lambda hub: hub.send(404), "no such file (404)"),
        (lambda hub: hub.send(401), "does not give it out (401)"),
        (lambda hub: hub.send(403), "does not give it out (403)"),
        (lambda hub: hub.send(410), "refuses it (410)"),
        (lambda hub: hub.send(429), "too busy (429)"),
        (lambda hub: hub.send(503), "fails (503)"),
        (lambda hub: hub.send(206, WEIGHTS[5:], Content_Range="bytes 5-9/10244"), "another part"),
        (lambda hub: hub.wfile.write(b"SSH-2.0-\x1b[31m\r\n"), "cannot be reached"),
    ],
)
def test_what_nothing_mends_is_one_sentence(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Answer, said: str
) -> None:
    old = tmp_path / "vimeo_unet.pth"
    old.write_bytes(b"old")
    monkeypatch.setattr(Hub, "fault", fault)
    code, _, err = run("--force")
    assert (code, len(err.splitlines())) == (1, 1)
    assert err.startswith("tlbvfi download: vimeo_unet.pth could not be downloaded: ") and err.endswith(".\n")
    assert said in err and err[:-1].isprintable()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("vimeo_unet.pth", b"old")]


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"HF_HUB_OFFLINE": "1"}, 2, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "huggingface.co"}, 2, "no address"),
        ({"HF_ENDPOINT": "file:///etc"}, 2, "no address"),
        ({"HF_ENDPOINT": "http://[::1"}, 2, "no address"),
        ({"HF_ENDPOINT": "http://a:99999"}, 2, "no address"),
        ({"HF_ENDPOINT": "http://a b\x1b"}, 2, "no address"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "127.0.0.1 cannot be reached (Connection refused)"),
        ({"HF_ENDPOINT": "http://hub.invalid", "http_proxy": "http://127.0.0.1:9"}, 1, "hub.invalid cannot be reached"),
        ({"HF_ENDPOINT": "https://hub.invalid", "https_proxy": "http://127.0.0.1:PORT"}, 1, "Tunnel connection failed"),
        ({"HF_ENDPOINT": "https://127.0.0.1:PORT"}, 1, "cannot be reached"),
    ],
)
def test_where_there_is_no_hub(
    run: Runner,
    server: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    code: int,
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PORT", str(server.server_port)))
    found, _, err = run()
    assert (found, len(err.splitlines()), said in err) == (code, 1, True), err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching._Fetch, "_write", full)
    code, _, err = run()
    target = tmp_path / "vimeo_unet.pth"
    assert (code, err) == (1, f"tlbvfi download: {target} cannot be written (No space left on device).\n")
    assert list(tmp_path.iterdir()) == []

"""A real ComfyUI server for tests: started, talked to over HTTP and WebSocket, and stopped.

    with ComfyServer(installation, workspace, packs={"Some-Pack": repository}) as server:
        run = server.run(graph)

Everything a server reads or writes (models, input, output, temp, user, custom_nodes, database, log) lies in
its workspace folder, so that two servers share nothing but ComfyUI's code. `ComfyServer` ends only the
process that it started itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import websocket
from pathspec import PathSpec

from tests.patience import Patience, Stalled

logger = logging.getLogger(__name__)

Json = dict[str, Any]
Graph = Mapping[str, Mapping[str, Any]]  # ComfyUI's API format: node id -> {"class_type", "inputs"}

LOOPBACK = "127.0.0.1"
#: Seconds that a socket is silent until the server is looked at (:class:`tests.patience.Patience`).
LOOK_TIMEOUT = 1.0
#: Seconds until a server that was asked to end is made to; nothing fails by it.
STOP_TIMEOUT = 20.0

FOLDERS = ("input", "output", "temp", "user", "models", "custom_nodes")
FINAL_EVENTS = ("execution_success", "execution_error", "execution_interrupted")


class Installed(Protocol):
    """What `ComfyServer` needs to know of an installation."""

    @property
    def python(self) -> Path: ...

    @property
    def comfyui(self) -> Path: ...


class ServerError(RuntimeError):
    """The server did not start, died, or did not answer; the message ends with the tail of its log."""


class PromptRejected(RuntimeError):
    """ComfyUI refused a graph before running it."""

    def __init__(self, error: Json, node_errors: Json) -> None:
        super().__init__(f"{error.get('message')}: {json.dumps(node_errors)[:2000]}")
        self.error = error
        self.node_errors = node_errors


@dataclass
class Event:
    """One WebSocket message about a prompt."""

    type: str
    data: Json


@dataclass
class Run:
    """What happened to one prompt, in the order in which the server told it."""

    prompt_id: str
    events: list[Event] = field(default_factory=list)
    outputs: Json = field(default_factory=dict)  # node id -> what its `ui` was, from the history

    @property
    def status(self) -> str:
        """`success`, `error`, `interrupted`, or `running` while it has not ended."""
        for event in reversed(self.events):
            if event.type in FINAL_EVENTS:
                return event.type.removeprefix("execution_")
        return "running"

    @property
    def error(self) -> Json:
        """The data of `execution_error`; empty where there was none."""
        return next((event.data for event in self.events if event.type == "execution_error"), {})

    def of(self, kind: str, node: str | None = None) -> list[Json]:
        """The data of every event of one type, of one node if named."""
        data = [event.data for event in self.events if event.type == kind]
        return [entry for entry in data if node is None or entry.get("node") == node]

    @property
    def executed(self) -> list[str]:
        """The nodes that ran rather than being taken from the cache, in order."""
        return [data["node"] for data in self.of("executing") if data.get("node") is not None]


class ComfyServer:
    """One ComfyUI process on a free loopback port, with a workspace of its own.

    `packs` maps a folder name in `custom_nodes` to a directory whose shipped files go there: symbolic links
    where the system allows them, copies elsewhere. `models` maps a path below `models/`, such as
    `interpolation/vimeo_unet.pth`, to the file that is to be found there.
    """

    def __init__(
        self,
        installation: Installed,
        workspace: Path,
        *,
        packs: Mapping[str, Path] | None = None,
        models: Mapping[str, Path] | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.installation = installation
        self.workspace = workspace
        self.packs = dict(packs or {})
        self.models = dict(models or {})
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.port = 0
        self.startup_log = ""  # everything printed until the server answered, lines possibly twice
        self._process: subprocess.Popen[bytes] | None = None

    # Starting and stopping

    def __enter__(self) -> ComfyServer:
        for folder in FOLDERS:
            self.workspace.joinpath(folder).mkdir(parents=True, exist_ok=True)
        for name, source in self.packs.items():
            install_pack(source, self.workspace / "custom_nodes" / name)
        for place, source in self.models.items():
            target = self.workspace / "models" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source, target)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self.port = free_port()
        command: list[str | Path] = [
            self.installation.python,
            self.installation.comfyui / "main.py",
            "--cpu",
            "--listen",
            LOOPBACK,
            "--port",
            str(self.port),
            "--base-directory",
            self.workspace,
            "--database-url",
            f"sqlite:///{(self.workspace / 'user' / 'comfyui.db').as_posix()}",
            "--disable-auto-launch",
            "--disable-api-nodes",
            *self.arguments,
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment.update(PYTHONNOUSERSITE="1", PYTHONUTF8="1", PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1")
        environment.update(self.environment)
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.workspace,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        with self.patience() as patience:
            while True:
                if self._process.poll() is not None:
                    code = self._process.returncode
                    raise ServerError(f"ComfyUI ended with code {code} while starting\n{self.tail()}")
                with contextlib.suppress(OSError):  # HTTPError is one
                    self.get("/system_stats")
                    break
                patience.wait(f"an answer of ComfyUI on port {self.port}", 0.2)
        # `print` of ComfyUI's process stays in a buffer that the file does not see; ComfyUI keeps a copy
        kept = self.get("/internal/logs/raw")["entries"]
        self.startup_log = self.log + "".join(entry["m"] for entry in kept)
        logger.info("ComfyUI is up on port %d", self.port)

    def stop(self) -> None:
        """End the server's process; does nothing where it has not been started or has ended."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def patience(self) -> Iterator[Patience]:
        """For what the server does; where that is in vain, the error ends with the tail of the log."""
        assert self._process is not None
        try:
            yield Patience(self._process.pid)
        except Stalled as error:
            raise ServerError(f"{error}\n{self.tail()}") from None

    def finish(self) -> None:
        """Wait until nothing is queued and nothing runs, as where prompts queue others."""
        before: Any = None
        with self.patience() as patience:
            while any((queue := self.get("/queue")).values()):
                if queue != before:
                    before = queue
                    patience.mark()
                patience.wait("the end of the queue", 0.2)

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def resident_bytes(self) -> int:
        """Resident memory of the process; only where there is /proc."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    # The log

    @property
    def log_file(self) -> Path:
        """Where the server's log goes, and what it prints as far as that is not in a buffer."""
        return self.workspace / "comfyui.log"

    @property
    def log(self) -> str:
        """What has been logged until now."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log.splitlines()[-lines:])

    # HTTP

    @property
    def url(self) -> str:
        """Where the server is, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def request(self, path: str, body: Any = None) -> bytes:
        """GET, or POST `body` as JSON; an answer that is not a success is an `HTTPError`."""
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        # the loopback interface is never behind a proxy
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answered() -> bytes:
            with opener.open(request) as answer:
                content: bytes = answer.read()
            return content

        with self.patience() as patience:
            return patience.result(answered, f"an answer of ComfyUI for {path}")

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return json.loads(self.request(path))

    def object_info(self, node: str | None = None) -> Json:
        """What the front end is told of every node, or of one; empty for a node that is not there."""
        if node is None:
            return dict(self.get("/object_info"))
        return dict(self.get(f"/object_info/{urllib.parse.quote(node)}").get(node, {}))

    def history(self, prompt_id: str) -> Json:
        """What the server keeps of an ended prompt; empty where it does not know it."""
        return dict(self.get(f"/history/{prompt_id}").get(prompt_id, {}))

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancel what is running, or only the prompt that is named."""
        self.request("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def free(self) -> None:
        """Have all models unloaded and all cached results dropped; done when this returns."""
        self.request("/free", {"unload_models": True, "free_memory": True})
        self.forget()  # what was asked for is done after this prompt at the latest

    def forget(self) -> None:
        """Have all cached results dropped, so that the same graph runs again; models stay where they are."""
        blank = {"width": 16, "height": 16, "batch_size": 1, "color": 0}
        self.run(
            {
                "blank": {"class_type": "EmptyImage", "inputs": blank},
                "shown": {"class_type": "PreviewImage", "inputs": {"images": ["blank", 0]}},
            }
        )

    # Running graphs

    def run(self, graph: Graph, on_event: Callable[[Run, Event], None] | None = None) -> Run:
        """Queue a graph in API format and follow it to its end, whatever that is.

        `on_event` sees every event as it arrives, and may call the server, for instance to interrupt. A graph
        that ComfyUI does not accept raises `PromptRejected`.
        """
        client = uuid.uuid4().hex
        with self._socket(client) as messages, self.patience() as patience:
            run = Run(self._queue(graph, client))
            for event in self._events(messages, patience):
                if event.data.get("prompt_id") == run.prompt_id:
                    patience.mark()
                    run.events.append(event)
                    if on_event is not None:
                        on_event(run, event)
                    if event.type == "executing" and event.data.get("node") is None:
                        break  # the history is complete when this one is sent
        run.outputs = self.history(run.prompt_id).get("outputs", {})
        return run

    def output_files(self, run: Run, node: str) -> list[Path]:
        """The files a saving node of a run has written, in the order in which it names them."""
        named = [
            entry
            for entries in run.outputs.get(node, {}).values()
            for entry in entries
            if isinstance(entry, dict) and "filename" in entry
        ]
        folder = self.workspace
        return [folder / entry["type"] / entry.get("subfolder", "") / entry["filename"] for entry in named]

    @contextlib.contextmanager
    def _socket(self, client: str) -> Iterator[websocket.WebSocket]:
        address = f"ws://{LOOPBACK}:{self.port}/ws?clientId={client}"
        messages = websocket.create_connection(address, http_no_proxy=[LOOPBACK])
        messages.settimeout(LOOK_TIMEOUT)
        try:
            yield messages
        finally:
            messages.close()

    def _events(self, messages: websocket.WebSocket, patience: Patience) -> Iterator[Event]:
        while True:
            try:
                message = messages.recv()
            except websocket.WebSocketTimeoutException:
                patience.check("the next event of the prompt")
                continue
            except (OSError, websocket.WebSocketException) as error:
                raise ServerError(f"no word from ComfyUI: {error}\n{self.tail()}") from error
            if isinstance(message, bytes):
                continue  # a preview picture
            if not message:
                raise ServerError(f"ComfyUI closed the connection\n{self.tail()}")
            parsed = json.loads(message)
            yield Event(parsed["type"], parsed.get("data") or {})

    def _queue(self, graph: Graph, client: str) -> str:
        try:
            answer = self.request("/prompt", {"prompt": graph, "client_id": client})
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            refusal = json.load(error)
            raise PromptRejected(refusal["error"], refusal["node_errors"]) from None
        return str(json.loads(answer)["prompt_id"])


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to `source`, or a copy where the system has no links for us."""
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except (OSError, NotImplementedError):
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def install_pack(source: Path, target: Path) -> None:
    """Make `target` a real folder with what a user gets of `source`: no dot files, and nothing that its
    `.comfyignore` names."""
    ignore = source / ".comfyignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    _install_folder(source, target, PathSpec.from_lines("gitignore", [*lines, ".*"]))


def _install_folder(source: Path, target: Path, ignored: PathSpec, below: str = "") -> None:
    """`ignored` has patterns of paths in the pack, `below` is the way to `source` in it."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        name = f"{below}{entry.name}/" if entry.is_dir() else f"{below}{entry.name}"
        if entry.name == "__pycache__" or ignored.match_file(name):
            continue
        if entry.is_dir() and any(ignored.match_file(f"{name}{found}") for found in _inside(entry)):
            _install_folder(entry, target / entry.name, ignored, name)
        else:
            link_or_copy(entry, target / entry.name)


def _inside(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        yield path.relative_to(folder).as_posix() + "/" * path.is_dir()

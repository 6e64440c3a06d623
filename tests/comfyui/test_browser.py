"""The shipped graphs in ComfyUI's own page, in a real browser.

TLBVFI_BROWSER names a Chromium or Chrome; without it these tests are skipped. It runs without a window, and is
spoken to by its own protocol over a WebSocket.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui import graphs
from tests.comfyui.blueprints import SMOOTH
from tests.comfyui.make_workflows import FIRST, LONG, STUDY, WHOLE
from tests.comfyui.test_workflows_live import ELSEWHERE, EXAMPLE, FPS, FRAMES, LITTLE, PACK, WORKFLOWS, Video, talkie
from tests.patience import Patience

if TYPE_CHECKING:
    import websocket

    from tests.comfyui.server import ComfyServer

__all__ = ["talkie"]

#: Seconds that the browser's socket is silent until the browser is looked at.
LOOK_TIMEOUT = 1.0
VIDEO, FILE = "TLBVFI_VideoInterpolator", "TLBVFI_InterpolateVideo"


class Page:
    """A page in a browser of its own, without a window."""

    def __init__(self, browser: str, profile: Path) -> None:
        self._process = subprocess.Popen(
            [
                browser,
                "--headless=new",
                "--no-sandbox",  # the tests' containers run as root
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--window-size=1920,1080",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self.errors: list[str] = []  # what the page's console has shown in red
        try:
            self._socket = self._connected(profile / "DevToolsActivePort")
        except BaseException:
            self._process.kill()
            raise

    def _connected(self, address: Path) -> websocket.WebSocket:
        import websocket

        patience = Patience(self._process.pid)
        while not (address.is_file() and len(lines := address.read_text().splitlines()) == 2):
            if self._process.poll() is not None:
                raise RuntimeError("the browser does not start")
            patience.wait("the browser's address", 0.1)
        socket = websocket.create_connection(
            f"ws://127.0.0.1:{lines[0]}{lines[1]}", suppress_origin=True, http_no_proxy=["127.0.0.1"]
        )
        socket.settimeout(LOOK_TIMEOUT)
        self._socket, self._session = socket, None
        (target,) = [each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        return socket

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        import websocket

        number, patience = next(self._numbers), Patience(self._process.pid)
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        while True:
            try:
                answer = json.loads(self._socket.recv())
            except websocket.WebSocketTimeoutException:
                patience.check(f"the browser's answer to {method}")
                continue
            if "method" in answer:
                self._note(answer["method"], answer["params"])
            elif answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def _note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.errors.append(json.dumps([each.get("value", each.get("description")) for each in said["args"]]))

    def open(self, url: str) -> None:
        """Load a page; returns at once."""
        self._call("Runtime.enable")
        self._call("Log.enable")
        self._call("Page.navigate", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an asynchronous function returns; `a` is the list of the arguments."""
        expression = f"(async (a) => {{ {script} }})({json.dumps(arguments)})"
        result = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def wait(self, condition: str, server: ComfyServer) -> None:
        """Until an expression is true, as long as the server does anything."""
        with server.patience() as patience:
            while not self.run(f"return Boolean({condition})"):
                patience.wait(f"{condition} in the browser", 0.2)

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def page(comfy: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """ComfyUI's page, with all nodes known to it."""
    browser = os.environ.get("TLBVFI_BROWSER")
    if not browser:
        pytest.skip("TLBVFI_BROWSER names no Chromium")
    page = Page(browser, tmp_path_factory.mktemp("browser"))
    try:
        page.open(comfy.url)
        page.wait(f"window.app?.graph && window.LiteGraph?.registered_node_types['{VIDEO}']", comfy)
        yield page
    finally:
        page.close()


def load(page: Page, name: str) -> None:
    """Open a graph as the template browser does."""
    page.run(
        "const answer = await app.api.fetchApi(`/workflow_templates/${a[0]}/${encodeURIComponent(a[1])}.json`);"
        "await app.loadGraphData(await answer.json(), true, true, a[1])",
        PACK,
        name,
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_opens(page: Page, comfy: ComfyServer, path: Path) -> None:
    """No node of ours or of this ComfyUI is missing, no link is lost, and each value is in the widget it is for."""
    load(page, path.stem)
    saved, info = graphs.read(path), comfy.object_info()
    shown = page.run(
        "return app.graph.nodes.map(node => ({id: node.id, type: node.type, known: node.type in "
        "LiteGraph.registered_node_types, title: node.title, widgets: (node.widgets ?? []).map(each => [each.name, "
        "each.value])}))"
    )
    assert {node["type"] for node in shown} == {node["type"] for node in saved["nodes"]}
    assert all(node["known"] or node["type"].startswith(ELSEWHERE) for node in shown)
    assert page.run("return [...app.graph.links.values()].length") == len(saved["links"])
    nodes = {node["id"]: node for node in saved["nodes"]}
    for node in shown:
        if node["type"] in info:
            expected = graphs.widget_values(nodes[node["id"]], info[node["type"]])
            assert {name: value for name, value in node["widgets"] if name in expected} == expected
            controls = [value for name, value in node["widgets"] if name == "control_after_generate"]
            assert controls == ["fixed"] * ("seed" in expected)


@pytest.mark.parametrize("name", ["Slow motion between two frames", FIRST, LONG, WHOLE, "Compare two qualities"])
def test_queues_what_the_tests_queue(page: Page, comfy: ComfyServer, name: str) -> None:
    """The prompt that the page makes of a graph is the one that `graphs.to_prompt` makes."""
    load(page, name)
    prompt = page.run("return (await app.graphToPrompt()).output")
    queued = {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for number, node in prompt.items()
        if node["class_type"] not in graphs.NOTES
    }
    (path,) = [path for path in WORKFLOWS if path.stem == name]
    expected = graphs.to_prompt(graphs.read(path), comfy.object_info())
    for node in queued.values():
        node["inputs"].pop("upload", None)  # the button's
    assert queued == expected


@pytest.mark.parametrize(("kind", "name"), [(VIDEO, "source_fps"), (VIDEO, "target_fps"), (FILE, "target_fps")])
def test_a_rate_is_typed_or_linked(page: Page, kind: str, name: str) -> None:
    """A rate has a text widget, and takes a number and a text, but no pictures."""
    node, widget, numbers, pictures = page.run(
        "app.graph.clear();"
        "const add = kind => { const node = LiteGraph.createNode(kind); app.graph.add(node); return node; };"
        "const ours = add(a[0]), numbers = add('GetVideoComponents');"
        "const slot = ours.findInputSlot(a[1]);"
        "const pictures = Boolean(numbers.connect(0, ours, slot));"
        "return [ours.inputs[slot].type, ours.widgets.find(each => each.name === a[1]).type,"
        "Boolean(numbers.connect(2, ours, slot)), pictures]",
        kind,
        name,
    )
    assert (node, widget) == ("STRING,FLOAT,INT", "text")
    assert numbers and not pictures


#: Errors of a ComfyUI without this pack. It asks the registry about packs, which its own policy forbids where it has no
#: API nodes; shows the file that a graph names, which is not there before somebody chooses one; and here has neither
#: templates of its own nor files of a user.
USUAL = (
    "https://api.comfy.org/", "/api/view?", "/templates/index.json", "core workflow templates", "/userdata",
    "/user.css", "/favicon.ico", "properties of undefined (reading 'id')",
)  # fmt: skip


def test_nothing_is_wrong_in_the_console(page: Page) -> None:
    """While all graphs open, one after another, no error but those."""
    page.errors.clear()
    for path in WORKFLOWS:
        load(page, path.stem)
    page.run("console.error('this one is')")
    assert [error for error in page.errors if not any(usual in error for usual in USUAL)] == ['["this one is"]']


#: Follows what a prompt that the page queues does, in `seen`.
WATCHING = (
    "window.seen = {bar: [], pictures: 0, results: {}, error: null, done: false};"
    "const on = (kind, act) => app.api.addEventListener(kind, event => act(event.detail));"
    "if (!window.watched) {"
    "on('progress', each => seen.bar.push([each.value, each.max]));"
    "on('b_preview', () => { seen.pictures += 1; });"
    "on('executed', each => { if (each.output) seen.results[each.node] = each.output; });"
    "on('execution_error', each => { seen.error = each.exception_message; seen.done = true; });"
    "on('execution_success', () => { seen.done = true; }); window.watched = true; }"
    "await app.queuePrompt(0);"
)
#: Makes the example clip small.
LITTLE_CLIP = (
    f"const clip = app.graph.nodes.find(node => node.type === '{EXAMPLE}');"
    "for (const [name, value] of Object.entries(a[0])) clip.widgets.find(each => each.name === name).value = value;"
)
#: All nodes with their widgets' values, but a file that is to be chosen.
STATE = (
    "JSON.stringify(app.graph.nodes.map(node => [node.id, node.type, node.widgets?.map(each => each.value)]).sort())"
)


def test_the_blueprint_is_a_node_of_the_library(page: Page, comfy: ComfyServer) -> None:
    """Found by its name, put on the canvas by a click, its widgets with the values of the file, and queued."""
    page.run("app.graph.clear(); document.querySelector('.node-library-tab-button').click()")
    page.wait("document.querySelector('.comfy-vue-side-bar-body input, .sidebar-content-container input')", comfy)
    page.run(
        "const box = document.querySelector('.comfy-vue-side-bar-body input, .sidebar-content-container input');"
        "Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(box, a[0]);"
        "box.dispatchEvent(new Event('input', {bubbles: true}))",
        SMOOTH,
    )
    found = (
        f"[...document.querySelectorAll('.node-label, .tree-node *')].find(e => e.textContent.trim() === '{SMOOTH}')"
    )
    page.wait(found, comfy)
    page.run(f"({found}).click()")
    page.wait("app.graph.nodes.length === 1", comfy)
    page.run("document.querySelector('.node-library-tab-button').click()")
    values = page.run("return app.graph.nodes[0].widgets.map(each => each.value)")
    saved = graphs.read(Path(__file__).resolve().parents[2] / "subgraphs" / f"{SMOOTH}.json")
    assert values == saved["nodes"][0]["widgets_values"]
    page.run(
        "const [box] = app.graph.nodes;"
        "const add = kind => { const node = LiteGraph.createNode(kind); app.graph.add(node); return node; };"
        f"add('{EXAMPLE}').connect(2, box, 0); box.connect(0, add('SaveVideo'), 0);"
        "box.widgets.find(each => each.name === 'mode').value = 'target fps';"
        f"box.widgets.find(each => each.name === 'target_fps').value = '50';{LITTLE_CLIP}{WATCHING}",
        LITTLE,
    )
    page.wait("seen.done", comfy)
    seen = page.run("return seen")
    assert seen["error"] is None
    ((result,),) = [output["images"] for output in seen["results"].values()]
    video = Video(comfy.workspace / result["type"] / result["subfolder"] / result["filename"])
    assert (video.rate, len(video.frames)) == (50, 6) and video.seconds_of_sound


@pytest.mark.parametrize(
    ("name", "kind"), [(FIRST, "video/mp4"), ("Loop without a jump", "image/webp"), (STUDY, "image/png")]
)
def test_what_is_saved_and_dropped_restores_the_graph(page: Page, comfy: ComfyServer, name: str, kind: str) -> None:
    """All nodes with the values that they had, from the file alone."""
    load(page, name)
    page.run(
        "const pair = app.graph.nodes.find(node => node.type === 'FramePairSlicer');"
        f"if (pair) pair.widgets[0].value = 1;{LITTLE_CLIP}window.state = {STATE};{WATCHING}",
        LITTLE,
    )
    page.wait("seen.done", comfy)
    before, error, results = page.run("return [state, seen.error, seen.results]")
    assert error is None
    saved = [each for output in results.values() for each in output.get("images", [])]
    restored = (
        "app.graph.clear(); const {filename, subfolder, type} = a[0];"
        "const answer = await app.api.fetchApi(`/view?${new URLSearchParams({filename, subfolder, type})}`);"
        "const content = await answer.blob(), carried = new DataTransfer();"
        "carried.items.add(new File([content], filename, {type: content.type}));"
        "document.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: carried}));"
        "return content.type"
    )
    assert page.run(restored, next(each for each in saved if Path(each["filename"]).suffix[1:] in kind)) == kind
    page.wait(f"{STATE} === state", comfy)
    assert page.run(f"return {STATE}") == before


def test_a_run_shows_itself(page: Page, comfy: ComfyServer, talkie: Path) -> None:
    """Queued from the page, a graph moves the bar, shows frames on the way, and gives a video."""
    shutil.copy2(talkie, comfy.workspace / "input")
    load(page, WHOLE)
    page.run(
        f"app.graph.nodes.find(node => node.type === 'LoadVideo').widgets[0].value = a[0];{WATCHING}",
        talkie.name,
    )
    page.wait("seen.done", comfy)
    seen = page.run("return seen")
    assert seen["error"] is None
    assert seen["bar"][-1] == [2 * FRAMES, 2 * FRAMES] and seen["bar"] == sorted(seen["bar"])
    assert seen["pictures"] > 0
    ((result,),) = [output["images"] for output in seen["results"].values()]
    video = Video(comfy.workspace / result["type"] / result["subfolder"] / result["filename"])
    assert (video.rate, len(video.frames)) == (2 * FPS, 2 * FRAMES)

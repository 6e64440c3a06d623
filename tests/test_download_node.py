"""The published model fetched by a node, or by a run that asks for it: whole or not at all, and only then."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests import fake_host, hub
from tests.fake_host import FakeHost, Interrupted
from tests.hub import Answer, Hub
from tests.smallest import PARAMS
from tests.tiny import frames
from tlbvfi.fetching import Patience
from tlbvfi.model import TLBVFI

NAME = "tlbvfi-pack-of-download-tests"
ENTRY = "vimeo_unet.pth (download)"
ASKED = ["/ucfzl/TLBVFI/resolve/main/vimeo_unet.pth", "/cdn"]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with hub.serving() as server:
        yield server


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with fake_host.loaded_pack(NAME, tmp_path_factory.mktemp("models")) as pack:
        yield pack


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """A small model as torch.save writes it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = TLBVFI(PARAMS).state_dict()
    file = io.BytesIO()
    torch.save({"model": state}, file)
    return file.getvalue()


def part(name: str) -> Any:
    """A module of the loaded pack."""
    return sys.modules[f"{NAME}.{name}"]


@pytest.fixture
def host(
    pack: ModuleType, server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHost]:
    """ComfyUI with no model, and the hub; a published model is a small one here."""
    hub.use(server, monkeypatch, part("tlbvfi.fetching"))
    params = part("tlbvfi.config").params_from_dict(PARAMS.to_dict(), "smallest")
    monkeypatch.setattr(part("tlbvfi.weight_file"), "load_params", lambda name: params)
    monkeypatch.setattr(part("nodes.published"), "ModelParams", lambda: params)
    host = fake_host.install(FakeHost(tmp_path / "models"), monkeypatch)
    part("nodes.models").loaded.clear()
    yield host
    part("nodes.models").loaded.clear()


@pytest.fixture
def folder(host: FakeHost) -> Path:
    """Of the interpolation models; not there yet."""
    return host.models / "interpolation"


Download = Callable[..., tuple[str, str]]


@pytest.fixture
def download(pack: ModuleType, host: FakeHost) -> Download:
    """Run the node: the name that it gives, and what it says."""
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_DownloadModel"]

    def run(convert: bool = False) -> tuple[str, str]:
        assert node.VALIDATE_INPUTS(convert=convert) is True
        with torch.inference_mode():
            done = node().download(convert)
        return done["result"][0], done["ui"]["text"][0]

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_file_comes_once(
    pack: ModuleType, host: FakeHost, folder: Path, download: Download, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_DownloadModel"]
    before = node.IS_CHANGED(convert=False)
    assert Hub.asked == [] and not folder.exists()
    name, said = download()
    assert name == "vimeo_unet.pth" and str(folder) in said and "downloaded" in said and said in caplog.text
    assert "do not state a licence" in caplog.text
    assert (folder / name).read_bytes() == hub.WEIGHTS
    assert Hub.asked == ASKED
    assert host.progress[-1] == (len(hub.WEIGHTS), len(hub.WEIGHTS))
    assert node.IS_CHANGED(convert=False) == before  # so that nothing behind it is done again
    Hub.asked.clear()
    for convert in (False, True):
        if convert:
            (folder / "vimeo_unet.pth").rename(folder / "vimeo_unet.safetensors")
        assert "there already" in download(convert)[1]
    assert Hub.asked == [] and node.IS_CHANGED(convert=False) != before


def test_where_no_node_is_run_nobody_is_asked(pack: ModuleType, host: FakeHost) -> None:
    """The lists, validation and what decides whether a node runs again."""
    for node in pack.NODE_CLASS_MAPPINGS.values():
        node.INPUT_TYPES()
        if hasattr(node, "VALIDATE_INPUTS"):
            node.VALIDATE_INPUTS(**({"model_name": ENTRY} if "model_name" in node.INPUT_TYPES()["required"] else {}))
        if hasattr(node, "IS_CHANGED"):
            node.IS_CHANGED(model_name=ENTRY)
    assert Hub.asked == [] and not host.models.exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda hub: hub.send(404), "no such file (404)"),
        (lambda hub: hub.part(10), "broke off after 30 of"),
        (lambda hub: hub.lead_on(digest="0" * 64), "is not the file"),
        (lambda hub: hub.part(4) or hub.drip(hub.weights[:200]), "too slow"),
        (lambda hub: hub.send(200, b"<html>", Content_Type="text/html"), "a page instead"),
        (lambda hub: hub.send(503), "fails (503)"),
        (lambda hub: hub.send(200, b"PK\x03\x04", Content_Length=10**17), "takes 100000000.0 GB, and"),
    ],
)
@pytest.mark.parametrize("way", ["node", "run"])
def test_a_fault_is_one_sentence_and_leaves_nothing(
    pack: ModuleType,
    folder: Path,
    download: Download,
    monkeypatch: pytest.MonkeyPatch,
    fault: Answer,
    said: str,
    way: str,
) -> None:
    monkeypatch.setattr(Hub, "fault", fault)
    with pytest.raises(RuntimeError, match=r"^vimeo_unet\.pth could not be downloaded: [^\n]{1,200}\.$") as error:
        download() if way == "node" else interpolate(pack)
    assert said in str(error.value) and names(folder) == []


@pytest.mark.parametrize("where", ["fetching._Fetch._write", "files.settle"])
def test_a_full_disk(folder: Path, download: Download, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    module, *rest = where.split(".")
    owner = part(f"tlbvfi.{module}")
    for name in rest[:-1]:
        owner = getattr(owner, name)
    monkeypatch.setattr(owner, rest[-1], full)
    with pytest.raises(RuntimeError, match=r"cannot be written \(No space left on device\)\.$"):
        download()
    assert names(folder) == []


@pytest.mark.parametrize("convert", [False, True])
def test_room_for_both_files_is_asked_for_first(
    folder: Path, download: Download, monkeypatch: pytest.MonkeyPatch, convert: bool
) -> None:
    disk = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=len(hub.WEIGHTS) + 1000))
    monkeypatch.setattr(part("tlbvfi.fetching"), "shutil", disk)
    monkeypatch.setattr(part("nodes.published"), "weight_bytes", lambda params: 10**9)
    refused = pytest.raises(RuntimeError, match=r": it takes 1\.0 GB, and 0\.0 GB are free there\.$")
    with refused if convert else contextlib.nullcontext():
        download(convert)
    assert names(folder) == ([] if convert else ["vimeo_unet.pth"])


@pytest.mark.parametrize("way", ["silent", "amid", "resting"])
def test_cancel_waits_for_nobody(
    host: FakeHost, folder: Path, download: Download, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Neither for a hub that answers nothing, nor for one that stops, nor between two tries."""
    patience = Patience(300.0, 300.0, 1, 4, 300.0)
    monkeypatch.setattr(part("tlbvfi.fetching"), "Patience", lambda: patience)
    released, waits = threading.Event(), list[bool]()
    faults: dict[str, Answer] = {
        "silent": lambda hub: waits.append(released.wait(20)),
        "amid": lambda hub: hub.stall() or waits.append(released.wait(20)),
        "resting": lambda hub: hub.send(503),
    }
    monkeypatch.setattr(Hub, "fault", lambda hub: faults[way](hub))
    asked: list[bool] = []

    def check() -> None:
        asked.append(bool(Hub.asked))
        host.interrupt = sum(asked) > 3

    host.on_check = check
    with pytest.raises(Interrupted):
        download()
    assert not waits and names(folder) == [] and len(Hub.asked) == 1
    released.set()


def test_what_has_come_is_kept_when_cancelled(
    pack: ModuleType,
    host: FakeHost,
    folder: Path,
    download: Download,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Under a name that no list of models shows; the next run, of any way, asks for the rest."""
    caplog.set_level(logging.INFO)
    whole = hub.WEIGHTS[:4] + bytes(range(1, 255)) * 10_000
    monkeypatch.setattr(Hub, "weights", whole)
    monkeypatch.setattr(part("tlbvfi.fetching"), "Patience", Patience)
    left = f"vimeo_unet.pth.{hashlib.sha256(whole).hexdigest()[:16]}.incomplete"
    host.on_check = lambda: setattr(host, "interrupt", bool(host.progress) and host.progress[-1][0] > 1_200_000)
    monkeypatch.setattr(part("nodes.published"), "_BAR_PAUSE", 0.0)
    with pytest.raises(Interrupted):
        download()
    assert names(folder) == [left] and "end; the next run goes on where it stopped." in caplog.text
    assert (size := (folder / left).stat().st_size) > 1_200_000
    listed = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"].INPUT_TYPES()["required"]["model_name"][0]
    assert listed[-1] == ENTRY and not any("incomplete" in name for name in listed)
    host.interrupt, host.on_check = False, lambda: None
    Hub.asked.clear()
    assert download()[0] == "vimeo_unet.pth" and Hub.asked == [f"{each} bytes={size}-" for each in ASKED]
    assert names(folder) == ["vimeo_unet.pth"] and (folder / "vimeo_unet.pth").read_bytes() == whole


@pytest.mark.parametrize(
    ("variable", "value", "said"), [("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE"), ("HF_ENDPOINT", "ftp://a", "no address")]
)
def test_what_is_not_allowed_is_refused_before_anything_runs(
    pack: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_DownloadModel"]
    interpolator = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]
    for refusal in (node.VALIDATE_INPUTS(convert=False), interpolator.VALIDATE_INPUTS(model_name=ENTRY)):
        assert isinstance(refusal, str) and said in refusal
    with pytest.raises(ValueError, match=said):
        node().download(False)
    assert not folder.exists() and Hub.asked == []
    folder.mkdir(parents=True)
    (folder / "vimeo_unet.safetensors").write_bytes(b"")
    assert node.VALIDATE_INPUTS(convert=False) is True
    assert interpolator.VALIDATE_INPUTS(model_name=ENTRY) is True
    assert node().download(False)["result"] == ("vimeo_unet.safetensors",)


# Converted


def weights(path: Path) -> dict[str, Any]:
    model = part("tlbvfi").load_model(path)
    return dict(model.state_dict())


@pytest.mark.parametrize("before", [False, True], ids=["fetched", "there before"])
def test_converted(
    host: FakeHost, folder: Path, download: Download, monkeypatch: pytest.MonkeyPatch, checkpoint: bytes, before: bool
) -> None:
    """What was fetched goes, what was there stays; the weights are the same."""
    monkeypatch.setattr(Hub, "weights", checkpoint)
    if before:
        folder.mkdir(parents=True)
        (folder / "vimeo_unet.pth").write_bytes(checkpoint)
    name, said = download(True)
    assert name == "vimeo_unet.safetensors" and ("kept" in said) is before and ("removed" in said) is not before
    assert names(folder) == [*(["vimeo_unet.pth"] if before else []), name]
    assert bool(Hub.asked) is not before
    (host.models / "again.pth").write_bytes(checkpoint)
    there, expected = weights(folder / name), weights(host.models / "again.pth")
    assert there.keys() == expected.keys() and all(torch.equal(there[key], expected[key]) for key in there)


@pytest.mark.parametrize("fault", ["no model", "written otherwise", "full", "cancelled"])
def test_what_cannot_be_converted_stays(
    host: FakeHost, folder: Path, download: Download, monkeypatch: pytest.MonkeyPatch, checkpoint: bytes, fault: str
) -> None:
    conversion = part("tlbvfi.conversion")
    save = conversion.save_file

    def spoilt(tensors: dict[str, Any], *args: Any) -> None:
        if fault == "full":
            raise OSError(28, "No space left on device")
        name = next(iter(tensors))
        save({**tensors, name: tensors[name] + 1}, *args)

    content = hub.WEIGHTS if fault == "no model" else checkpoint
    monkeypatch.setattr(Hub, "weights", content)
    if fault == "cancelled":
        host.on_check = lambda: setattr(host, "interrupt", (folder / "vimeo_unet.pth").exists())
    elif fault != "no model":
        monkeypatch.setattr(conversion, "save_file", spoilt)
    with pytest.raises((ValueError, RuntimeError, Interrupted)) as raised:
        download(True)
    assert names(folder) == ["vimeo_unet.pth"] and (folder / "vimeo_unet.pth").read_bytes() == content
    said = {"no model": "vimeo_unet.pth: ", "written otherwise": "cannot be written", "full": "No space left"}
    assert isinstance(raised.value, Interrupted) if fault == "cancelled" else said[fault] in str(raised.value)


# Where to


def test_the_folder_that_takes_it(host: FakeHost, folder: Path, tmp_path: Path, download: Download) -> None:
    """The first one that is there and can be written to; one that is not there is not made, but ComfyUI's own."""
    folders = sys.modules["folder_paths"]
    taken = tmp_path / "taken"
    (taken / "vimeo_unet.pth").mkdir(parents=True)
    for path in (tmp_path / "unplugged", taken, tmp_path / "last"):
        folders.add_model_folder_path("interpolation", str(path))
    (tmp_path / "last").mkdir()
    assert str(tmp_path / "last") in download()[1]
    assert names(tmp_path / "last") == ["vimeo_unet.pth"] and not folder.exists()
    shutil.rmtree(tmp_path / "last")
    assert str(folder) in download()[1]
    assert not (tmp_path / "unplugged").exists() and not (tmp_path / "last").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_no_folder_takes_it(host: FakeHost, folder: Path, download: Download) -> None:
    for name, make, said in (
        ("vimeo_unet.pth", Path.mkdir, "vimeo_unet.pth cannot be written, because it is a folder."),
        ("vimeo_unet.safetensors", Path.mkdir, "vimeo_unet.safetensors cannot be written, because it is a folder."),
        ("vimeo_unet.pth", os.mkfifo, "vimeo_unet.pth cannot be written, because it is a device or a pipe."),
    ):
        folder.mkdir(parents=True)
        make(folder / name)
        with pytest.raises(ValueError, match=re.escape(said)):
            download(True)
        shutil.rmtree(folder)
    folder.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"cannot be made, because it is a link that leads nowhere\.$"):
        download()
    folder.unlink()
    shutil.rmtree(host.models)
    host.models.write_text("")
    with pytest.raises(ValueError, match=r"cannot be made, because [^\n]+ is no folder\.$"):
        download()
    assert Hub.asked == []


# By a run


def interpolate(pack: ModuleType, **inputs: Any) -> Any:
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]
    declared = node.INPUT_TYPES()["required"]
    defaults = {name: options["default"] for name, (_, options) in declared.items() if "default" in options}
    pair = torch.stack(frames(2, 24, 40))
    given = {"prev_frame": pair[:1], "next_frame": pair[1:], "model_name": ENTRY, **defaults, **inputs}
    with torch.inference_mode():
        return node().interpolate(**given)[0]


def test_a_run_fetches_what_its_model_name_says(
    pack: ModuleType,
    host: FakeHost,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Hub, "weights", checkpoint)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]
    for wrong in ({"gpu_id": 7}, {"sample_steps": 2}, {"use_fp16": "maybe"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            interpolate(pack, quality="custom", **wrong)
    assert Hub.asked == []  # what is wrong is said before
    before = node.IS_CHANGED(model_name=ENTRY)
    first = interpolate(pack)
    assert Hub.asked == ASKED and names(folder) == ["vimeo_unet.pth"] and node.IS_CHANGED(model_name=ENTRY) == before
    assert "vimeo_unet.pth loaded in" in caplog.text
    caplog.clear()
    assert torch.equal(interpolate(pack, model_name="vimeo_unet.pth"), first)
    assert len(Hub.asked) == 2 and "loaded" not in caplog.text
    loader = pack.NODE_CLASS_MAPPINGS["TLBVFI_ModelLoader"]
    assert loader().load(ENTRY, "fast", False, True, 10, 0.5, 0) and len(Hub.asked) == 2


# The cache


def test_models_are_freed(
    pack: ModuleType,
    host: FakeHost,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folder.mkdir(parents=True)
    (folder / "a.pth").write_bytes(checkpoint)
    node = pack.NODE_CLASS_MAPPINGS["TLBVFI_ClearModelCache"]
    loader = pack.NODE_CLASS_MAPPINGS["TLBVFI_ModelLoader"]
    models, trigger = part("nodes.models").loaded, object()
    (held,) = loader().load("a.pth", "fast", False, False, 10, 0.5, 0)
    result = node().clear(trigger)
    assert result["result"][0] is trigger and len(models) == 0
    assert re.match(r"0 models freed, 0\.0 MB of weights; 1 model, [1-9]\.\d MB, still in use", result["ui"]["text"][0])
    del held
    loader().load("a.pth", "fast", False, False, 10, 0.5, 0)
    (size,) = (model.weight_bytes for model in models._models.values())
    emptied = host.caches_emptied
    result = node().clear()
    assert result == {"ui": {"text": [f"1 model freed, {size / 1e6:.1f} MB of weights."]}, "result": (None,)}
    assert result["ui"]["text"][0] in caplog.text and host.caches_emptied == emptied + 1
    assert node().clear()["ui"]["text"] == ["No model was in memory."]
    changed = node.IS_CHANGED(trigger=trigger)
    assert changed != changed


def test_types_that_fit(pack: ModuleType) -> None:
    """As ComfyUI compares them: equal unless they are said to be unlike."""
    clearer, downloader = (pack.NODE_CLASS_MAPPINGS[f"TLBVFI_{key}"] for key in ("ClearModelCache", "DownloadModel"))
    trigger = clearer.INPUT_TYPES()["optional"]["trigger"][0]
    for kind in (trigger, *clearer.RETURN_TYPES, *downloader.RETURN_TYPES):
        others: list[Any] = ["IMAGE", "STRING", ["a", "b"]]
        assert [kind != other for other in others] + [other != kind for other in others[:2]] == [False] * 5
        assert hash(kind) == hash(str(kind))


def test_text_on_the_node(pack: ModuleType, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ComfyUI can show some."""
    shown: list[tuple[str, str]] = []
    server = SimpleNamespace(send_progress_text=lambda text, node: shown.append((text, node)), last_node_id="7")
    module = ModuleType("server")
    module.PromptServer = SimpleNamespace(instance=server)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server", module)
    pack.NODE_CLASS_MAPPINGS["TLBVFI_ClearModelCache"]().clear()
    assert shown == [("No model was in memory.", "7")]

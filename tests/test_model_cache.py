"""The cache of models: what it keeps, what it drops, and when it loads."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from pathlib import Path

import pytest

from utils.model_cache import FileIdentity, ModelCache


class Model:
    """Something that can be told apart and seen to go."""


@pytest.fixture
def file(tmp_path: Path) -> FileIdentity:
    path = tmp_path / "model.pth"
    path.write_bytes(b"weights")
    return FileIdentity.of(path)


def other(file: FileIdentity, name: str) -> FileIdentity:
    return FileIdentity(f"{file.path}.{name}", file.size, file.mtime_ns)


def fail() -> Model:
    raise AssertionError("loaded although it is there")


def test_identity_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"weights")
    before = FileIdentity.of(path)
    monkeypatch.chdir(tmp_path)
    assert FileIdentity.of("model.pth") == before
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns + 1_000_000))
    touched = FileIdentity.of(path)
    path.write_bytes(b"others!!")
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    assert len({before, touched, FileIdentity.of(path)}) == 3
    with pytest.raises(FileNotFoundError):
        FileIdentity.of(tmp_path / "absent.pth")


def test_each_file_and_variant_is_loaded_once(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=4)
    keys = [(f, v) for f in (file, other(file, "b")) for v in (("cpu", "float32"), ("cpu", "float16"))]
    models = [cache.get(*key, Model) for key in keys]
    assert len({id(model) for model in models}) == 4
    assert [cache.get(*key, fail) for key in keys] == models


def test_least_recently_used_goes_first(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=2)
    a = cache.get(file, "a", Model)
    b = weakref.ref(cache.get(file, "b", Model))
    cache.get(file, "a", fail)
    cache.get(file, "c", Model)
    assert len(cache) == 2
    assert cache.get(file, "a", fail) is a
    assert b() is None


def test_room_is_made_before_loading(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=2)
    alive = weakref.WeakSet[Model]()

    def load() -> Model:
        assert len(alive) < 2
        model = Model()
        alive.add(model)
        return model

    for variant in range(5):
        cache.get(file, variant, load)
    assert len(alive) == len(cache) == 2


def test_models_of_a_replaced_file_go(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=4)
    old = [weakref.ref(cache.get(file, variant, Model)) for variant in ("a", "b")]
    bystander = cache.get(other(file, "c"), "a", Model)
    replaced = FileIdentity(file.path, file.size, file.mtime_ns + 1)
    cache.get(replaced, "a", Model)
    gc.collect()
    assert [ref() for ref in old] == [None, None]
    assert cache.get(other(file, "c"), "a", fail) is bystander
    assert len(cache) == 2


def test_a_failed_load_leaves_nothing(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=2)

    def broken() -> Model:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            cache.get(file, "a", broken)
        assert len(cache) == 0
    model = cache.get(file, "a", Model)
    assert cache.get(file, "a", fail) is model


def test_threads_share_one_load(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=2)
    loads: list[Model] = []
    found: list[Model] = []

    def slow() -> Model:
        time.sleep(0.02)
        loads.append(Model())
        return loads[-1]

    threads = [threading.Thread(target=lambda: found.append(cache.get(file, "a", slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert found == loads * 8


def test_clear_and_capacity(file: FileIdentity) -> None:
    cache: ModelCache[Model] = ModelCache(capacity=1)
    cache.get(file, "a", Model)
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="capacity"):
        ModelCache(capacity=0)

"""Use the pack as it lies in a folder, alone: run in a fresh interpreter, `python -I probe.py FOLDER FAKE_HOST NAME…`.

FAKE_HOST is the file of what stands in for ComfyUI, the names are packages that must not be needed. Prints what was
found, as JSON. Knows nothing of the checkout, whose own `tlbvfi` must not be what is used.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class _Without(importlib.abc.MetaPathFinder):
    """A finder of modules to which some packages are not there."""

    def __init__(self, finder: Any, names: Sequence[str]) -> None:
        self._finder, self._names = finder, frozenset(names)

    def find_spec(self, name: str, *others: Any) -> Any:
        return None if name.partition(".")[0] in self._names else self._finder.find_spec(name, *others)


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def probe(folder: Path, fake_host: Path) -> dict[str, Any]:
    sys.modules.update(load("_fake_host", fake_host).FakeHost(folder / "no models").modules())
    name = str(folder)  # as ComfyUI names it
    pack = load(name, folder / "__init__.py")
    keys = sorted(pack.NODE_CLASS_MAPPINGS)
    inputs = {key: sorted(node.INPUT_TYPES()) for key, node in pack.NODE_CLASS_MAPPINGS.items()}
    pages = [key for key in keys if (folder / pack.WEB_DIRECTORY / "docs" / f"{key}.md").is_file()]
    return {"keys": keys, "inputs": inputs, "pages": pages, **frames(name)}


def frames(name: str) -> dict[str, Any]:
    """A frame by each built-in model, with the settings of a preset."""
    import torch

    package = sys.modules[f"{name}.tlbvfi"]
    settings = sys.modules[f"{name}.tlbvfi.settings"]
    made = {}
    for model in package.BUILT_IN:
        pair = [torch.full((32, 32, 3), value) for value in (0.25, 0.5)]
        made[model] = [list(frame.shape) for frame in package.interpolate_frames(package.load_model(model), pair)]
    return {"frames": made, "presets": sorted(settings.presets())}


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.meta_path[:] = [_Without(finder, ("tlbvfi", "tests", *sys.argv[3:])) for finder in sys.meta_path]
    print(json.dumps(probe(Path(sys.argv[1]), Path(sys.argv[2]))))

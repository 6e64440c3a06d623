"""The texts of the nodes in other languages, as ComfyUI's front end reads them (`locales/<language>/nodeDefs.json`).

The English ones are those of the node classes: `python -m tests.locales` writes them. The others are translated from
there, with the same keys.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests import fake_host
from tests.fake_host import REPOSITORY

Json = dict[str, Any]
FOLDER = REPOSITORY / "locales"
ENGLISH = FOLDER / "en" / "nodeDefs.json"


def english(models: Path) -> Json:
    """Names, descriptions and tooltips of all nodes; `models` is ComfyUI's folder of models, empty."""
    with pytest.MonkeyPatch.context() as patch:
        fake_host.install(fake_host.FakeHost(models), patch)
        pack = fake_host.load_pack("_pack_of_the_locales")
        names = pack.NODE_DISPLAY_NAME_MAPPINGS
        try:
            return {key: {"display_name": names[key], **_told(node)} for key, node in pack.NODE_CLASS_MAPPINGS.items()}
        finally:
            fake_host.forget_pack("_pack_of_the_locales")


def _told(node: Any) -> Json:
    inputs: Json = {}
    types = node.INPUT_TYPES()
    for group in ("required", "optional"):
        for name, (_, *options) in types.get(group, {}).items():
            inputs[name] = {"name": name} | {
                key: text for key, text in (options or [{}])[0].items() if key == "tooltip"
            }
    tooltips = getattr(node, "OUTPUT_TOOLTIPS", ())
    outputs = {
        str(index): {"name": name} | ({"tooltip": tooltips[index]} if index < len(tooltips) else {})
        for index, name in enumerate(getattr(node, "RETURN_NAMES", ()))
    }
    description = getattr(node, "DESCRIPTION", "")
    return {**({"description": description} if description else {}), "inputs": inputs, "outputs": outputs}


def text_of(values: Json) -> str:
    """As it lies in a file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        ENGLISH.parent.mkdir(parents=True, exist_ok=True)
        ENGLISH.write_text(text_of(english(Path(empty))), encoding="utf-8")

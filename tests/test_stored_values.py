"""The front end's part of older graphs: `web/stored_values.js`, run by Node.js on nodes that behave as the front end's.

Where there is no Node.js these are skipped; what the migration makes of the same values is tested everywhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fake_host import REPOSITORY
from tests.old_graphs import MEANT, STORED

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")

#: As LGraphNode.configure: a list is given to the widgets by position, then comes onConfigure.
PROGRAM = """
import { extension } from "./scripts/app.js";
import "./extensions/pack/stored_values.js";
const { nodes } = JSON.parse(process.argv[2]);
const results = nodes.map(({ name, input, widgets, stored }) => {
  class NodeType {}
  NodeType.prototype.onConfigure = function () { this.before = true; };
  extension.beforeRegisterNodeDef(NodeType, { name, input });
  const node = new NodeType();
  Object.assign(node, { comfyClass: name, type: name, widgets });
  if (stored) for (let i = 0; i < stored.length; ++i) if (widgets[i]) widgets[i].value = stored[i];
  node.onConfigure({ widgets_values: stored });
  if (!node.before && stored !== undefined) throw new Error("the one before was not called");
  return Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
});
console.log(JSON.stringify(results));
"""
INPUT = {
    "required": {"prev_frame": ["IMAGE", {}], "next_frame": ["IMAGE", {}], "model_name": [["a.pth", "b.pth"], {}]},
    "optional": {
        "times_to_interpolate": ["INT", {"default": 0}],
        "use_fp16": ["BOOLEAN", {"default": True}],
        "enable_tf32": ["BOOLEAN", {"default": True}],
        "sample_steps": [[10, 20, 50], {"default": 10}],
        "flow_scale": ["FLOAT", {"default": 0.5}],
        "cpu_offload": ["BOOLEAN", {"default": True}],
        "gpu_id": ["INT", {"default": 0}],
        "seed": ["INT", {"default": 0}],
        "compile": ["BOOLEAN", {"default": False}],
        "quality": [["fast", "custom"], {"default": "custom"}],
    },
}


def opened(tmp_path: Path, stored: list[Any], name: str = "TLBVFI_Interpolator_V2") -> list[dict[str, Any]]:
    """The values of the widgets of nodes that were stored so."""
    (tmp_path / "extensions" / "pack").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "web" / "stored_values.js", tmp_path / "extensions" / "pack")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "scripts" / "app.js").write_text(
        "export let extension; export const app = { registerExtension(it) { extension = it; } };"
    )
    (tmp_path / "program.js").write_text(PROGRAM)
    nodes = [{"name": name, "input": INPUT, "widgets": widgets(), "stored": each} for each in stored]
    program = [str(NODE), "program.js", json.dumps({"nodes": nodes})]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def widgets() -> list[dict[str, Any]]:
    """Those of a new node, which a front end draws a seed for at every run."""
    made = []
    for section in INPUT.values():
        for name, (kind, options) in section.items():
            if kind == "IMAGE":
                continue
            choices = {"values": kind} if isinstance(kind, list) else {}
            made.append({"name": name, "value": options.get("default", "a.pth"), "options": choices})
            if name == "seed":
                made.append({"name": "control_after_generate", "value": "randomize", "options": {}})
    return made


def test_older_orders_open_with_the_values_meant(tmp_path: Path) -> None:
    results = opened(tmp_path, list(STORED.values()))
    for form, result in zip(STORED, results, strict=True):
        assert result == MEANT[form], form


@pytest.mark.parametrize("name", ["TLBVFI_Interpolator_V2", "Other"])
def test_what_is_not_of_an_older_order_stays(tmp_path: Path, name: str) -> None:
    """The present order, too few values, none; and other packs' nodes whatever they store."""
    present = ["b.pth", 2, False, True, 20, 0.75, False, 1, 7, "increment", True, "fast"]
    others = [["b.pth", 2, False], [], None, ["b.pth", 2, False, 10], [1, "x", {}, None, 5, 6, 7, 8]]
    if name == "Other":
        others += list(STORED.values())
    results = opened(tmp_path, [present, *others], name)
    assert list(results[0].values()) == present
    for stored, result in zip(others, results[1:], strict=True):
        plain = {widget["name"]: widget["value"] for widget in widgets()}
        plain |= dict(zip(plain, stored if isinstance(stored, list) else [], strict=False))
        assert result == plain

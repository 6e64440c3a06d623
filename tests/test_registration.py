"""What ComfyUI finds when it loads the pack, and that loading it does nothing else."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import fake_host
from tests.fake_host import REPOSITORY, FakeHost

NAME = "/somewhere/custom_nodes/ComfyUI-TLBVFI-TF32"
_HOW = ["quality", "use_fp16", "enable_tf32", "seed", "scene_cut", "loop", "hold_last", "batch_size"]
_CUSTOM = ["sample_steps", "flow_scale", "still_threshold", "multipliers", "interpolation_states", "schedule"]
_DEVICE = ["cpu_offload", "gpu_id", "compile"]
INPUTS = {
    "FramePairSlicer": ["images", "pair_index"],
    "TLBVFI_ClearModelCache": ["trigger"],
    "TLBVFI_DownloadModel": ["convert"],
    "TLBVFI_BatchInterpolator_V2": [
        "images", "model_name", "times_to_interpolate", "enable_tf32", "sample_steps", "flow_scale", "cpu_offload",
        "gpu_id", "include_source_frames",
    ],
    "TLBVFI_FrameFromBatch": ["images", "index", "clamp_index"],
    "TLBVFI_ExampleClip": ["frame_count", "width", "first_frame"],
    "TLBVFI_FramePairSlicer": ["images", "pair_index"],
    "TLBVFI_Interpolator": [
        "frame_pair", "model_name", "times_to_interpolate", "gpu_id", "is_last_pair", "save_images",
    ],
    "TLBVFI_Interpolator_V2": [
        "prev_frame", "next_frame", "model_name", "times_to_interpolate", "use_fp16", "enable_tf32", "sample_steps",
        "flow_scale", "cpu_offload", "gpu_id", "seed", "compile", "quality", "schedule",
    ],
    "TLBVFI_InterpolateVideo": [
        "video", "model_name", "mode", "multiplier", "target_fps", *_HOW, "filename_prefix", "format", "codec", "crf",
        *_CUSTOM, *_DEVICE,
    ],
    "TLBVFI_VFI_TF32": ["images", "model_name", "times_to_interpolate", "gpu_id"],
    "TLBVFI_VideoInterpolator": [
        "images", "model_name", "mode", "multiplier", "source_fps", "target_fps", *_HOW, *_CUSTOM, "meta_batch",
        *_DEVICE,
    ],
    "TLBVFI_Schedule": ["kind", "steps", "timesteps"],
    "TLBVFI_SchedulePreview": ["schedule"],
    "TLBVFI_ModelLoader": ["model_name", "quality", "use_fp16", "enable_tf32", "sample_steps", "flow_scale", "seed"],
}  # fmt: skip
KEYS = sorted(INPUTS)


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    fake_host.install(FakeHost(tmp_path / "models"), monkeypatch)
    yield fake_host.load_pack(NAME)
    fake_host.forget_pack(NAME)


# What is registered


def test_keys_and_names(pack: ModuleType) -> None:
    assert sorted(pack.NODE_CLASS_MAPPINGS) == KEYS
    names = pack.NODE_DISPLAY_NAME_MAPPINGS
    assert sorted(names) == KEYS
    assert len(set(names.values())) == len(KEYS)
    deprecated = [key for key, node in pack.NODE_CLASS_MAPPINGS.items() if getattr(node, "DEPRECATED", False)]
    assert deprecated == [
        "TLBVFI_BatchInterpolator_V2",
        "TLBVFI_FrameFromBatch",
        "TLBVFI_FramePairSlicer",
        "TLBVFI_Interpolator",
        "TLBVFI_VFI_TF32",
    ]


@pytest.mark.parametrize("key", KEYS)
def test_a_node_is_complete(pack: ModuleType, key: str) -> None:
    node = pack.NODE_CLASS_MAPPINGS[key]
    sections = node.INPUT_TYPES()
    hidden = sections.pop("hidden", {})
    assert list(sections) in (["required"], ["required", "optional"])
    inputs = {name: spec for section in sections.values() for name, spec in section.items()}
    assert list(inputs) == INPUTS[key]
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    assert list(parameters)[1:] == [*INPUTS[key], *hidden]
    for name, (_, options) in sections.get("optional", {}).items():  # a prompt of an older graph may lack it
        assert parameters[name].default == options.get("default"), name
    for name, (kind, options) in inputs.items():
        assert len(options["tooltip"]) > 20, name
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], name
        if isinstance(kind, list) and "default" in options:
            assert options["default"] in kind, name
    assert callable(getattr(node(), node.FUNCTION))
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
    assert node.CATEGORY == "frame_interpolation/TLBVFI-TF32"
    assert node.DESCRIPTION and node.SEARCH_ALIASES


def test_compile_is_a_switch_that_is_off(pack: ModuleType) -> None:
    kind, options = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"].INPUT_TYPES()["optional"]["compile"]
    assert kind == "BOOLEAN" and options["default"] is False


@pytest.mark.parametrize("key", KEYS)
def test_a_node_has_a_help_page(pack: ModuleType, key: str) -> None:
    page = REPOSITORY / pack.WEB_DIRECTORY / "docs" / f"{key}.md"
    text = page.read_text(encoding="utf-8")
    node = pack.NODE_CLASS_MAPPINGS[key]
    for name in () if getattr(node, "DEPRECATED", False) else (*INPUTS[key], *node.RETURN_NAMES):
        assert f"`{name}`" in text, name


def test_folder_is_registered_when_the_list_is_asked_for(pack: ModuleType, tmp_path: Path) -> None:
    folders = sys.modules["folder_paths"].folder_names_and_paths
    assert folders == {}
    pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"].INPUT_TYPES()
    paths, suffixes = folders["interpolation"]
    assert paths == [str(tmp_path / "models" / "interpolation")]
    assert {".safetensors", ".pth", ".ckpt"} <= suffixes
    assert not (tmp_path / "models").exists()


# What loading it does not do


PROBE = """
import logging, sys
import torch

def state():
    backends = torch.backends
    return (
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(), torch.get_default_dtype(), torch.is_grad_enabled(),
        torch.get_num_threads(), torch.random.get_rng_state().sum().item(), torch.cuda.is_initialized(),
        list(sys.path), list(sys.meta_path), list(logging.root.handlers), logging.root.level,
    )

before = state()
from tests.fake_host import load_pack
pack = load_pack("/somewhere/custom_nodes/ComfyUI-TLBVFI-TF32")
assert pack.NODE_CLASS_MAPPINGS
assert state() == before
assert "folder_paths" not in sys.modules and not any(m.split(".")[0] == "comfy" for m in sys.modules)
assert not {"tlbvfi", "nodes", "utils"} & set(sys.modules)
"""


def test_loading_does_no_work(tmp_path: Path) -> None:
    """Nothing printed or logged, no flag, generator or path changed, no file made, ComfyUI's code left alone."""
    (tmp_path / "folder_paths.py").write_text("raise AssertionError('imported while loading')\n")
    place = tmp_path / "cwd"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(place.iterdir()) == []


def test_outside_comfyui_nothing_is_registered() -> None:
    module = fake_host.load_pack("not-in-comfyui")
    try:
        assert module.NODE_CLASS_MAPPINGS == module.NODE_DISPLAY_NAME_MAPPINGS == {}
        assert "not-in-comfyui.nodes" not in sys.modules
    finally:
        fake_host.forget_pack("not-in-comfyui")


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
@pytest.mark.parametrize("folder", ["ComfyUI-TLBVFI-TF32", "pack"])
@pytest.mark.parametrize("host", [True, False], ids=["in ComfyUI", "alone"])
def test_collection_survives_the_root(tmp_path: Path, mode: str, folder: str, host: bool) -> None:
    """pytest started in a folder whose root is ours, whether or not ComfyUI can be imported."""
    root = tmp_path / folder
    (root / "tests").mkdir(parents=True)
    (root / "nodes").mkdir()
    (root / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(REPOSITORY / "__init__.py", root)
    (root / "nodes" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = NODE_DISPLAY_NAME_MAPPINGS = {'a': int}\n")
    (root / "tests" / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    if host:
        (tmp_path / "folder_paths.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--import-mode={mode}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


# Who may import whom


OURS = {"tlbvfi", "nodes", "utils", "tests"}
HOST = {"comfy", "folder_paths", "server", "execution", "comfy_execution", "comfy_api", "app", "api_server"}
#: Folder -> folders of the repository that it may import, besides itself.
MAY_IMPORT: dict[str, set[str]] = {"": {"nodes"}, "nodes": {"tlbvfi", "utils"}, "utils": set(), "tlbvfi": set()}
SHIPPED = [
    path.relative_to(REPOSITORY)
    for folder in MAY_IMPORT
    for path in sorted((REPOSITORY / folder).glob("**/*.py" if folder else "__init__.py"))
]


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports, anywhere in it: names of the repository's modules as ("", "nodes", "host"), others whole."""
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = node.module.split(".") if node.module else []
            if node.level:
                assert node.level <= len(path.parts), f"{path} imports from above the repository"
                yield from (("", *path.parts[: -node.level], *name, alias.name) for alias in node.names)
            else:
                yield tuple(name)


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    """Only relative ones between our own modules; ComfyUI's code in nodes/host.py alone; a library by itself."""
    room = path.parts[0] if len(path.parts) > 1 else ""
    for name in imports(path):
        shown = f"{path} imports {'.'.join(name)}"
        if name[0] == "":
            assert name[1] in MAY_IMPORT[room] | {room}, shown
        elif path.parts[:2] != ("tlbvfi", "training"):  # programs for the developer, not loaded by anything else
            assert name[0] not in OURS, shown
        if path != Path("nodes/host.py"):
            assert name[0] not in HOST, shown
        if room == "utils" and name[0]:
            assert name[0] == "torch" or name[0] in sys.stdlib_module_names, shown


def test_imports_are_seen() -> None:
    """The check above is not blind."""
    assert ("comfy", "utils") in set(imports(Path("nodes/host.py")))
    assert ("", "nodes", "host") in set(imports(Path("nodes/models.py")))
    assert ("", "utils", "images", "check_batch") in set(imports(Path("nodes/slicer.py")))


def test_no_page_names_what_is_not_there() -> None:
    """Every page under web/docs belongs to a node."""
    pages = [path.stem for path in (REPOSITORY / "web" / "docs").glob("*.md")]
    assert sorted(pages) == KEYS
    for path in (REPOSITORY / "web" / "docs").glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (path.parent / link).exists(), link

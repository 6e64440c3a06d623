"""As much of ComfyUI as the nodes use, for tests without it; and the pack, loaded as ComfyUI loads it.

The fakes do what the nodes may rely on, and record it. That the real ComfyUI behaves so is for tests/comfyui to show.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


class VideoFromFile:
    """ComfyUI's VIDEO that is in a file, or in a part of one."""

    def __init__(self, file: Any, *, start_time: float = 0, duration: float = 0) -> None:
        self.file, self.window = file, (float(start_time), float(duration))

    def get_stream_source(self) -> Any:
        return self.file

    def get_active_trim_window(self) -> tuple[float, float]:
        return self.window

    def get_dimensions(self) -> tuple[int, int]:
        import av

        with av.open(self.file) as container:
            return container.streams.video[0].width, container.streams.video[0].height

    def get_components(self) -> Any:
        raise AssertionError("a video in a file is not decoded as a whole")


@dataclass
class VideoFromComponents:
    """ComfyUI's VIDEO that is in memory."""

    components: Any

    def get_components(self) -> Any:
        return self.components


@dataclass
class FakeHost:
    """What the fake ComfyUI was told and asked.

    Attributes:
        models: its `models` folder.
        own_device: the device it runs on.
        fp16, bf16: whether it deems these right for a device that is not the CPU.
        progress: (value, total) of every progress event.
        loads: (load device, memory required, force_full_load) of every request.
        free: bytes that are free on a type of device.
        reserved: bytes of a card that are left to other programs (`--reserve-vram`).
        rooms: (memory required, device, models that stay) of every request to unload others.
        caches_emptied, garbage_collected: how often.
        interrupt: set to cancel; the check that sees it clears it.
        on_check: called at every check for an interrupt.
        novram: leave the weights where they are.
        pictures: every picture shown beside the progress bar.
        temp, output: the folders of temporary files and of results.
        disable_metadata: ComfyUI's option of that name.
    """

    models: Path
    own_device: torch.device = torch.device("cpu")
    fp16: bool = False
    bf16: bool = False
    progress: list[tuple[int, int]] = field(default_factory=list)
    loads: list[tuple[torch.device, int, bool]] = field(default_factory=list)
    free: dict[str, int] = field(default_factory=lambda: {"cpu": 2**40})
    reserved: int = 400 * 2**20
    rooms: list[tuple[int, torch.device, list[Any]]] = field(default_factory=list)
    caches_emptied: int = 0
    garbage_collected: int = 0
    interrupt: bool = False
    on_check: Callable[[], None] = lambda: None
    novram: bool = False
    pictures: list[Any] = field(default_factory=list)
    temp: Path = Path()
    output: Path = Path()
    disable_metadata: bool = False
    managed: list[weakref.ref[Any]] = field(default_factory=list)

    def check(self) -> None:
        self.on_check()
        if self.interrupt:
            self.interrupt = False
            raise Interrupted

    def modules(self) -> dict[str, ModuleType]:
        """The fake modules by name."""
        comfy, folder_paths = ModuleType("comfy"), _folder_paths(self)
        management, patcher, utils = (ModuleType(f"comfy.{n}") for n in ("model_management", "model_patcher", "utils"))
        host = self

        class ModelPatcher:
            def __init__(self, model: torch.nn.Module, load_device: torch.device, offload_device: torch.device) -> None:
                self.model, self.load_device, self.offload_device = model, load_device, offload_device
                assert all(p.device == offload_device for p in model.parameters())
                model.device = offload_device  # type: ignore[assignment]

            def model_dtype(self) -> torch.dtype:
                return self.model.get_dtype()  # type: ignore[operator, no-any-return]

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None, preview: object = None) -> None:
                host.check()
                host.progress.append((value, self.total))
                if preview is not None:
                    host.pictures.append(preview)

        def load_models_gpu(
            models: list[ModelPatcher], memory_required: int = 0, force_full_load: bool = False
        ) -> None:
            for model in models:
                if not host.novram:
                    model.model.to(model.load_device)
                model.model.device = model.load_device  # type: ignore[assignment]
                host.managed.append(weakref.ref(model))
                host.loads.append((model.load_device, memory_required, force_full_load))

        class LoadedModel:
            def __init__(self, model: ModelPatcher) -> None:
                self.model = model

        def free_memory(memory_required: int, device: torch.device, keep_loaded: Sequence[LoadedModel] = ()) -> None:
            assert device.type != "cpu"
            host.rooms.append((memory_required, device, [loaded.model.model.model for loaded in keep_loaded]))

        def soft_empty_cache() -> None:
            host.caches_emptied += 1

        def known(folder: str) -> Any:
            return lambda device: device.type != "cpu" and getattr(host, folder)

        patcher.ModelPatcher = ModelPatcher  # type: ignore[attr-defined]
        utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
        vars(management).update(
            LoadedModel=LoadedModel,
            OOM_EXCEPTION=torch.cuda.OutOfMemoryError,
            extra_reserved_memory=lambda: self.reserved,
            free_memory=free_memory,
            get_free_memory=lambda device: self.free[device.type],
            load_models_gpu=load_models_gpu,
            soft_empty_cache=soft_empty_cache,
            throw_exception_if_processing_interrupted=self.check,
            get_torch_device=lambda: self.own_device,
            unet_offload_device=lambda: torch.device("cpu"),
            should_use_fp16=known("fp16"),
            should_use_bf16=known("bf16"),
        )
        vars(comfy).update(model_management=management, model_patcher=patcher, utils=utils)
        arguments, api, latest = (ModuleType(n) for n in ("comfy.cli_args", "comfy_api", "comfy_api.latest"))
        arguments.args = SimpleNamespace(disable_metadata=self.disable_metadata)  # type: ignore[attr-defined]
        latest.InputImpl = SimpleNamespace(  # type: ignore[attr-defined]
            VideoFromFile=VideoFromFile, VideoFromComponents=VideoFromComponents
        )
        latest.Types = SimpleNamespace(VideoComponents=SimpleNamespace)  # type: ignore[attr-defined]
        vars(api).update(latest=latest)
        return {m.__name__: m for m in (arguments, api, latest, comfy, management, patcher, utils, folder_paths)}


def _folder_paths(host: FakeHost) -> ModuleType:
    """Folders of models: each has paths and a set of suffixes, of which the empty one stands for every file."""
    module = ModuleType("folder_paths")
    folders: dict[str, tuple[list[str], set[str]]] = {}

    def add_model_folder_path(name: str, path: str, is_default: bool = False) -> None:
        paths, _ = folders.setdefault(name, ([], set()))
        if path not in paths:
            paths.append(path)

    def get_filename_list(name: str) -> list[str]:
        paths, suffixes = folders[name]
        found = {file.relative_to(path) for path in paths for file in Path(path).rglob("*") if file.is_file()}
        return sorted(str(file) for file in found if not suffixes or file.suffix.lower() in suffixes)

    def get_full_path(name: str, file: str) -> str | None:
        inside = os.path.relpath(os.path.join("/", file), "/")
        candidates = [os.path.join(path, inside) for path in folders[name][0]]
        return next(filter(os.path.isfile, candidates), None)

    def get_save_image_path(prefix: str, root: str, width: int, height: int) -> tuple[str, str, int, str, str]:
        """The folder, the name, the next number of such a name, and the folder below the root."""
        subfolder, name = os.path.split(os.path.normpath(prefix.replace("%width%", str(width))))
        folder = Path(root, subfolder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [file.name[len(name) + 1 :].split("_")[0] for file in folder.glob(f"{name}_*")]
        return str(folder), name, max([0, *(int(n) for n in numbers if n.isdigit())]) + 1, subfolder, prefix

    vars(module).update(
        get_temp_directory=lambda: str(host.temp),
        get_output_directory=lambda: str(host.output),
        get_save_image_path=get_save_image_path,
        models_dir=str(host.models),
        folder_names_and_paths=folders,
        filename_list_cache={},
        add_model_folder_path=add_model_folder_path,
        get_filename_list=get_filename_list,
        get_full_path=get_full_path,
    )
    return module


def install(host: FakeHost, monkeypatch: Any) -> FakeHost:
    """Put the fakes in the place of ComfyUI's modules, until the test ends."""
    for name, module in host.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return host


def load_pack(name: str) -> ModuleType:
    """Import the repository's root by its path under a name, as ComfyUI does with a folder in custom_nodes."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def loaded_pack(name: str, models: Path) -> Iterator[ModuleType]:
    """The pack under a name, beside a fake ComfyUI while it loads."""
    import pytest  # not at the top: what is shipped is tried without it

    with pytest.MonkeyPatch.context() as patch:
        install(FakeHost(models), patch)
        pack = load_pack(name)
    yield pack
    forget_pack(name)


def forget_pack(name: str) -> None:
    """Undo :func:`load_pack`."""
    for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
        del sys.modules[module]

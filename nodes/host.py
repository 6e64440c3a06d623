"""Everything the nodes ask of ComfyUI, and nothing else; the only module that imports its code.

ComfyUI's modules are imported when a function needs them, so that importing the nodes does no work.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ..tlbvfi import TLBVFI
from ..tlbvfi.numbers import frame_rate
from ..tlbvfi.quoting import quoted, sentence
from ..tlbvfi.video import Waveform

log = logging.getLogger(__name__)

#: ComfyUI's name for the folder of interpolation models, and its name under `models/`.
MODEL_FOLDER = "interpolation"

#: Seconds after which the bar moves within a step, and between two pictures.
SLOW_STEP, PICTURE_PAUSE = 2.0, 0.5
#: Pixels of a picture's longer side, at most.
PICTURE_SIDE = 512
_ROUNDING = 1e-6
#: Characters of a file's name with its folders: no file system takes more.
LONGEST_PREFIX = 1000

_told: set[tuple[str, torch.dtype]] = set()


def model_folders(suffixes: Collection[str]) -> list[str]:
    """The folders in which ComfyUI looks for interpolation models; `models/interpolation` is always among them.

    Registers the folder with ComfyUI, so that files with one of `suffixes` are listed. Creates nothing on disk.
    """
    import folder_paths

    known = MODEL_FOLDER in folder_paths.folder_names_and_paths
    folder_paths.add_model_folder_path(MODEL_FOLDER, own_model_folder())
    paths, listed = folder_paths.folder_names_and_paths[MODEL_FOLDER][:2]
    # An empty set stands for every file. The set may be shared with other folders, so it is replaced, not changed.
    every_file = known and not listed
    if not every_file and not set(suffixes) <= set(listed):
        folder_paths.folder_names_and_paths[MODEL_FOLDER] = (paths, {*listed, *suffixes})
        getattr(folder_paths, "filename_list_cache", {}).pop(MODEL_FOLDER, None)
    return list(paths)


def own_model_folder() -> str:
    """The one of :func:`model_folders` that is ComfyUI's own; it need not be there."""
    import folder_paths

    return os.path.join(folder_paths.models_dir, MODEL_FOLDER)


def model_files(suffixes: Collection[str]) -> list[str]:
    """The model files with one of `suffixes` by their names relative to the folders (subfolders too), sorted."""
    import folder_paths

    model_folders(suffixes)
    names = folder_paths.get_filename_list(MODEL_FOLDER)
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in suffixes)


def model_path(name: str, suffixes: Collection[str]) -> str | None:
    """The file of a name as :func:`model_files` gives them, in any system's spelling; None where there is none."""
    import folder_paths

    model_folders(suffixes)
    if os.path.splitext(name)[1].lower() not in suffixes:
        return None
    for spelling in (name, name.replace("\\", "/")):
        path: str | None = folder_paths.get_full_path(MODEL_FOLDER, spelling)
        if path is not None:
            return os.path.abspath(path)
    return None


def device(gpu_id: int) -> torch.device:
    """The device of a number: 0 is the one that ComfyUI itself uses.

    Raises:
        ValueError: there is no such device.
    """
    import comfy.model_management as management

    own = torch.device(management.get_torch_device())
    if gpu_id == 0:
        return own
    count = getattr(getattr(torch, own.type, None), "device_count", lambda: 1)()
    if not 0 < gpu_id < count:
        allowed = f"between 0 and {count - 1}" if count > 1 else "0"
        raise ValueError(
            f"gpu_id {quoted(gpu_id)} does not exist: ComfyUI runs on {own.type} and finds {count} such "
            f"device{'s' * (count != 1)}, so it must be {allowed}."
        )
    return torch.device(own.type, gpu_id)


def precision(device: torch.device, use_fp16: bool) -> torch.dtype:
    """float32, or with `use_fp16` the half precision that ComfyUI deems right for the device, if any.

    What becomes of the wish is said in the log, once per device and dtype.
    """
    import comfy.model_management as management

    if not use_fp16:
        return torch.float32
    dtype = torch.float32
    if device.type != "cpu":
        if management.should_use_fp16(device):
            dtype = torch.float16
        elif management.should_use_bf16(device):
            dtype = torch.bfloat16
    if (str(device), dtype) not in _told:
        _told.add((str(device), dtype))
        name = str(dtype).removeprefix("torch.")
        reason = "" if dtype == torch.float16 else ", where float16 is not a good choice"
        log.info("TLB-VFI: %s on %s%s.", name, device, reason)
    return dtype


class TLBVFIModel(nn.Module):
    """A model as ComfyUI can manage it: bookkeeping, a device among it, is written on the module it is given."""

    def __init__(self, model: TLBVFI) -> None:
        super().__init__()
        self.model = model
        self.device: torch.device | None = None


class ManagedModel:
    """A model whose weights ComfyUI moves to `device` for a run and may take away in between.

    ComfyUI keeps weak references only: the weights live as long as this object.
    """

    def __init__(self, model: TLBVFI, device: torch.device) -> None:
        """model: with its weights on :func:`offload_device`."""
        import comfy.model_patcher

        self.model = model
        self.device = device
        self._patcher: Any = comfy.model_patcher.ModelPatcher(
            TLBVFIModel(model), load_device=device, offload_device=offload_device(device)
        )

    def make_room(self, wanted: int) -> int | None:
        """Have ComfyUI unload others until the device has `wanted` bytes for the weights and a run, or all it can give,
        besides what it reserves for others (`--reserve-vram`).

        Returns:
            The bytes that there are for weights and run then, the reserve among them; None where ComfyUI cannot tell.
        """
        import comfy.model_management as management

        tensors = (*self.model.parameters(), *self.model.buffers())
        there = sum(t.numel() * t.element_size() for t in tensors if t.device == self.device)
        own = management.LoadedModel(self._patcher)
        if self.device.type != "cpu":
            management.free_memory(wanted - there + reserved_memory(self.device), self.device, keep_loaded=[own])
        free = free_memory(self.device)
        return None if free is None else free + there

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, wherever they are."""
        return sum(t.numel() * t.element_size() for t in (*self.model.parameters(), *self.model.buffers()))

    @property
    def ready(self) -> bool:
        """Whether all weights are on the device."""
        return all(tensor.device == self.device for tensor in (*self.model.parameters(), *self.model.buffers()))

    def load(self, memory_required: int = 0) -> TLBVFI:
        """The model with all its weights on its device, and room made for `memory_required` bytes besides them.

        To be called before every run: ComfyUI may have moved some or all of the weights since.
        """
        import comfy.model_management as management

        management.load_models_gpu([self._patcher], memory_required=memory_required, force_full_load=True)
        if not self.ready:
            # With --novram ComfyUI leaves on the host what it cannot move piece by piece.
            self.model.to(self.device)
        return self.model


def as_model(module: nn.Module, device: torch.device) -> Any:
    """What ComfyUI's nodes take for a model that runs on a device: a ModelPatcher, here of a module without weights."""
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(module, load_device=device, offload_device=offload_device(device))


def offload_device(device: torch.device) -> torch.device:
    """Where the weights of a model for `device` wait between runs."""
    import comfy.model_management as management

    offload = torch.device(management.unet_offload_device())
    return offload if offload.type == "cpu" else device


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device or, for the CPU, in the computer's memory; None where ComfyUI cannot tell."""
    import comfy.model_management as management

    if device.type == "privateuseone":  # DirectML, for which ComfyUI has a fixed number
        return None
    return int(management.get_free_memory(device))


def reserved_memory(device: torch.device) -> int:
    """Bytes of a device that ComfyUI leaves to other programs: what `--reserve-vram` says, or some by itself."""
    import comfy.model_management as management

    return 0 if device.type in ("cpu", "privateuseone") else int(management.extra_reserved_memory())


def swap_memory() -> int:
    """Bytes that are free in the computer's swap space; 0 where that is not known."""
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.swap_memory().free)


def make_room(device: torch.device, wanted: int) -> None:
    """Have ComfyUI unload models until `wanted` bytes are free on a device that is not the CPU."""
    import comfy.model_management as management

    if device.type != "cpu":
        management.free_memory(wanted, device)


def check_interrupted() -> None:
    """Raise ComfyUI's interrupt where the user has cancelled the run."""
    import comfy.model_management as management

    management.throw_exception_if_processing_interrupted()


class Progress:
    """ComfyUI's progress bar with the newest frame beside it, and its cancel button."""

    def __init__(self, total: int) -> None:
        import comfy.utils

        self._bar = comfy.utils.ProgressBar(total)
        self._total, self._shown = total, 0.0
        self._waiting: Tensor | None = None  # to be shown with the next move
        self._moved = self._pictured = time.monotonic()

    def at(self, done: float) -> None:
        """Show that so many steps are done, a part of one only where steps take long; raises ComfyUI's interrupt where
        the user cancelled."""
        check_interrupted()
        whole = float(round(done)) if abs(done - round(done)) < _ROUNDING else float(math.floor(done))
        slow = time.monotonic() - self._moved >= SLOW_STEP
        self._move(done if slow and whole <= self._shown < done else whole)

    def show(self, frame: Tensor) -> None:
        """Show a frame (H, W, 3) in [0, 1] when the bar moves next, unless one was shown just now; raises ComfyUI's
        interrupt where the user cancelled."""
        check_interrupted()
        if time.monotonic() - self._pictured >= PICTURE_PAUSE:
            self._pictured = time.monotonic()
            step = max(1, max(frame.shape[:2]) // PICTURE_SIDE)
            self._waiting = frame[::step, ::step].clone()

    def show_at_once(self, picture: Tensor) -> None:
        """Show a picture (H, W, 3) in [0, 1] as it is; the last one stays."""
        self._waiting = picture
        self._tell()

    def _move(self, to: float) -> None:
        if to > self._shown:
            self._shown, self._moved = min(to, float(self._total)), time.monotonic()
            self._tell()

    def _tell(self) -> None:
        picture, self._waiting = self._waiting, None
        shown = None if picture is None else ("JPEG", _picture(picture), max(picture.shape[:2]))
        done = int(self._shown) if self._shown.is_integer() else self._shown
        self._bar.update_absolute(done, self._total, shown)


def _picture(frame: Tensor) -> Any:
    """A frame (H, W, 3) in [0, 1] as Pillow has it."""
    from PIL import Image

    return Image.fromarray((frame.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).contiguous().cpu().numpy())


def show_text(text: str) -> None:
    """Show a text on the node that runs, where ComfyUI can."""
    instance = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    send, node = getattr(instance, "send_progress_text", None), getattr(instance, "last_node_id", None)
    if callable(send) and node is not None:
        send(text, node)


def temporary_picture(picture: Tensor, name: str) -> dict[str, str]:
    """Save a picture (H, W, 3) in [0, 1] where ComfyUI shows it from until its next start.

    Returns:
        The file, as an entry of a node's `ui` result.
    """
    import folder_paths

    height, width = picture.shape[:2]
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
        name, folder_paths.get_temp_directory(), width, height
    )
    file = f"{stem}_{counter:05}_.png"
    _picture(picture).save(os.path.join(folder, file), compress_level=1)
    return {"filename": file, "subfolder": subfolder, "type": "temp"}


@dataclass(frozen=True)
class SavedFile:
    """A file that a node saves.

    Attributes:
        path: where.
        shown: the same as an entry of a node's `ui` result.
    """

    path: Path
    shown: dict[str, str]


def output_file(prefix: str, suffix: str, width: int, height: int) -> SavedFile:
    """The next free name for a file of the output folder, as ComfyUI's own nodes number them; makes its folder.

    Raises:
        ValueError: a prefix that leads out of the output folder, or of which no file's name can be made; one sentence.
    """
    import folder_paths

    if not isinstance(prefix, str):
        raise ValueError(f"filename_prefix must be a text, not {quoted(prefix)}.")
    if len(prefix) > LONGEST_PREFIX:
        raise ValueError(f"filename_prefix must be of at most {LONGEST_PREFIX} characters, not {quoted(prefix)}.")
    root = os.path.abspath(folder_paths.get_output_directory())
    try:
        folder = os.path.abspath(os.path.join(root, os.path.dirname(os.path.normpath(prefix))))
        inside = "\0" not in prefix and os.path.commonpath((root, folder)) == root
    except ValueError:  # another drive
        inside = False
    if not inside:
        raise ValueError(f"filename_prefix {quoted(prefix)} leads out of ComfyUI's output folder; leave out the '..'.")
    try:
        os.fsencode(prefix)
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    except (OSError, ValueError) as error:  # too long a name, or characters that are none for the system
        raise ValueError(
            f"filename_prefix {quoted(prefix)} makes no file's name here ({sentence(error, 200)}); choose another."
        ) from None
    file = f"{stem}_{counter:05}_{suffix}"
    return SavedFile(Path(folder, file), {"filename": file, "subfolder": subfolder, "type": "output"})


def workflow_metadata(prompt: Any, extra_pnginfo: Any) -> dict[str, str]:
    """What ComfyUI's own nodes write into a video, so that dropping it on the canvas restores the graph."""
    from comfy.cli_args import args

    if args.disable_metadata:
        return {}
    entries = dict(extra_pnginfo) if isinstance(extra_pnginfo, Mapping) else {}
    if prompt is not None:
        entries["prompt"] = prompt
    try:
        return {str(name): json.dumps(value) for name, value in entries.items()}
    except (TypeError, ValueError, RecursionError) as error:
        log.warning("TLB-VFI: the workflow is not saved in the file: %s", sentence(error, 200))
        return {}


@dataclass(frozen=True)
class VideoParts:
    """A VIDEO by its parts.

    Attributes:
        file: that it is in, a path or an open file; None where it is in memory.
        start, end: seconds of the part of the file that it is; None is the end.
        size: (width, height); where the file's is another, the VIDEO is more than a part of it.
        components: gives its images (N, H, W, C), its sound if any, and its frames per second.
    """

    file: str | BinaryIO | None
    start: Fraction
    end: Fraction | None
    size: tuple[int, int] | None
    components: Callable[[], tuple[Tensor, Any, Fraction]]


def video_parts(video: Any) -> VideoParts:
    """What a VIDEO, ComfyUI's or another one's, is.

    Raises:
        ValueError: it is none, or cannot be read; one sentence. So does `components`.
    """
    from comfy_api.latest import InputImpl

    with _reading_a_video():
        given = not isinstance(video, type) and callable(getattr(video, "get_components", None))
    if not given:
        raise ValueError(f"video must be a VIDEO, such as from Load Video, not {quoted(type(video).__name__)}.")

    def components() -> tuple[Tensor, Any, Fraction]:
        with _reading_a_video():
            parts = video.get_components()
            images, audio, rate = parts.images, parts.audio, parts.frame_rate
        return images, audio, frame_rate("The frame rate of video", rate)

    if type(video) is not InputImpl.VideoFromFile:  # others may show the file's frames otherwise
        return VideoParts(None, Fraction(0), None, None, components)
    window = getattr(video, "get_active_trim_window", None)
    with _reading_a_video():
        if callable(window):
            start, duration = window()
        else:  # ComfyUI before it had this method, and before it could trim
            start, duration = (getattr(video, f"_VideoFromFile__{name}", 0) for name in ("start_time", "duration"))
        if start < 0:  # from the end
            return VideoParts(None, Fraction(0), None, None, components)
        begin = Fraction(str(start))
        end = begin + Fraction(str(duration)) if duration else None
        width, height = video.get_dimensions()
        return VideoParts(video.get_stream_source(), begin, end, (width, height), components)


@contextmanager
def _reading_a_video() -> Iterator[None]:
    """What a VIDEO raises while it is asked for what is in it becomes one sentence; interrupts pass through."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        said = sentence(error, 200).rstrip(".") or type(error).__name__
        raise ValueError(f"video cannot be read: {said}; load another.") from error


def video_file(path: Path) -> Any:
    """A file as a VIDEO; it is not opened."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def video_of(images: Tensor, fps: Fraction, sound: Waveform | None) -> Any:
    """Frames (N, H, W, 3) and their sound as a VIDEO."""
    from comfy_api.latest import InputImpl, Types

    audio = None if sound is None else {"waveform": sound.samples[None], "sample_rate": sound.rate}
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=fps))


def free_unused_memory() -> None:
    """Collect garbage and give cached, unused device memory back."""
    import comfy.model_management as management

    gc.collect()
    management.soft_empty_cache()

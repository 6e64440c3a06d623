"""The nodes that stand for older ones, as far as a graph stores them, and how older graphs stored the older ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Steps to choose from, as the nodes have them.
STEPS = (10, 20, 50)
#: The values that a front end stores after a seed; that of a node which had none.
FIXED = "fixed"
CONTROLS = (FIXED, "increment", "decrement", "randomize")

SLICER, OLD_SLICER = "FramePairSlicer", "TLBVFI_FramePairSlicer"
PAIR, OLD_PAIR = "TLBVFI_Interpolator_V2", "TLBVFI_Interpolator"
OLD_VIDEO, OLD_BATCH = "TLBVFI_VFI_TF32", "TLBVFI_BatchInterpolator_V2"
PROCESSOR, SAVER = "TLBVFI_ChunkProcessor", "TLBVFI_ChunkVideoSaver"
JOINERS = ("TLBVFI_VideoConcatenator", "VideoConcatenator")


@dataclass(frozen=True)
class Input:
    """An input of a node.

    Attributes:
        widget: it has one, with this default; otherwise it is linked only.
    """

    name: str
    type: str
    default: Any = None
    widget: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Kind:
    """A node that stands for older ones.

    Attributes:
        outputs: names and types.
        size: of its box.
        pack: the registry's name of the pack that it is in, where that is another.
        by_name: its front end stores the values of widgets by name.
    """

    key: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    pack: str | None = None
    by_name: bool = False

    def fit(self, name: str, value: Any) -> bool:
        """Whether an input can have a value."""
        types = {each.name: each.type.split(",") for each in self.inputs}
        return name not in types or any(_FITS.get(kind, _is_text)(value) for kind in types[name])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_choice(value: Any) -> bool:
    return _is_text(value) or _is_int(value)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "INT": _is_int,
    "FLOAT": _is_number,
    "BOOLEAN": _is_bool,
    "COMBO": _is_choice,
}


def _socket(name: str, type: str, optional: bool = False) -> Input:
    return Input(name, type, widget=False, optional=optional)


_RATE = "STRING,FLOAT,INT"
VIDEO_KIND = Kind(
    "TLBVFI_VideoInterpolator",
    (
        _socket("images", "IMAGE"),
        Input("model_name", "COMBO", ""),
        Input("mode", "COMBO", "multiplier"),
        Input("multiplier", "INT", 2),
        Input("source_fps", _RATE, "24"),
        Input("target_fps", _RATE, "60"),
        Input("quality", "COMBO", "fast"),
        Input("use_fp16", "BOOLEAN", True),
        Input("enable_tf32", "BOOLEAN", True),
        Input("seed", "INT", 0),
        Input("scene_cut", "FLOAT", 0.0),  # no older node looked for cuts, or for frames that are the same
        Input("loop", "BOOLEAN", False),
        Input("hold_last", "BOOLEAN", False),
        Input("batch_size", "INT", 0),
        Input("sample_steps", "COMBO", 10, optional=True),
        Input("flow_scale", "FLOAT", 0.5, optional=True),
        Input("still_threshold", "FLOAT", 0.0, optional=True),
        Input("multipliers", "STRING,INT,FLOAT", "", optional=True),
        _socket("interpolation_states", "INTERPOLATION_STATES", optional=True),
        _socket("schedule", "TLBVFI_SCHEDULE", optional=True),
        _socket("meta_batch", "VHS_BatchManager", optional=True),
        Input("cpu_offload", "BOOLEAN", True, optional=True),
        Input("gpu_id", "INT", 0, optional=True),
        Input("compile", "BOOLEAN", False, optional=True),
    ),
    (("frames", "IMAGE"), ("fps", "FLOAT"), ("frame_count", "INT"), ("cut_indices", "STRING")),
    (330, 830),
)
PAIR_KIND = Kind(
    PAIR,
    (
        _socket("prev_frame", "IMAGE"),
        _socket("next_frame", "IMAGE"),
        Input("model_name", "COMBO", ""),
        Input("times_to_interpolate", "INT", 0, optional=True),
        Input("use_fp16", "BOOLEAN", True, optional=True),
        Input("enable_tf32", "BOOLEAN", True, optional=True),
        Input("sample_steps", "COMBO", 10, optional=True),
        Input("flow_scale", "FLOAT", 0.5, optional=True),
        Input("cpu_offload", "BOOLEAN", True, optional=True),
        Input("gpu_id", "INT", 0, optional=True),
        Input("seed", "INT", 0, optional=True),
        Input("compile", "BOOLEAN", False, optional=True),
        Input("quality", "COMBO", "custom", optional=True),
        _socket("schedule", "TLBVFI_SCHEDULE", optional=True),
    ),
    (("interpolated_frames", "IMAGE"),),
    (330, 330),
)
SLICER_KIND = Kind(
    SLICER,
    (_socket("images", "IMAGE"), Input("pair_index", "INT", 0, optional=True)),
    (
        ("frame_pair", "IMAGE"),
        ("pair_index", "INT"),
        ("total_pairs", "INT"),
        ("is_last_pair", "BOOLEAN"),
        ("prev_frame", "IMAGE"),
        ("next_frame", "IMAGE"),
    ),
    (270, 170),
)
COMBINE_KIND = Kind(
    "VHS_VideoCombine",
    (
        _socket("images", "IMAGE"),
        _socket("audio", "AUDIO", optional=True),
        _socket("meta_batch", "VHS_BatchManager", optional=True),
        _socket("vae", "VAE", optional=True),
        Input("frame_rate", "FLOAT", 8),
        Input("loop_count", "INT", 0),
        Input("filename_prefix", "STRING", "tlbvfi"),
        Input("format", "COMBO", "video/h264-mp4"),
        Input("pingpong", "BOOLEAN", False),
        Input("save_output", "BOOLEAN", True),
    ),
    (("Filenames", "VHS_FILENAMES"),),
    (330, 640),
    pack="comfyui-videohelpersuite",
    by_name=True,
)
#: Of VideoHelperSuite's node for a coded video: what codecs are called, whether by a card; the format, and its inputs.
FORMATS: Sequence[tuple[tuple[str, ...], bool, str, Mapping[str, Any]]] = (
    (("265", "hevc"), True, "nvenc_hevc-mp4", {"pix_fmt": "yuv420p", "bitrate": 10, "megabit": True}),
    (("av1",), True, "nvenc_av1-mp4", {"pix_fmt": "yuv420p", "bitrate": 10, "megabit": True}),
    (("264", "avc", "nvenc"), True, "nvenc_h264-mp4", {"pix_fmt": "yuv420p", "bitrate": 10, "megabit": True}),
    (("265", "hevc"), False, "h265-mp4", {"pix_fmt": "yuv420p10le", "crf": 22}),
    (("av1",), False, "av1-webm", {"pix_fmt": "yuv420p10le", "crf": 23, "input_color_depth": "8bit"}),
    (("vp9", "vp8", "webm", "vpx"), False, "webm", {"pix_fmt": "yuv420p", "crf": 20, "trim_to_audio": False}),
    (("264", "avc", "mp4"), False, "h264-mp4", {"pix_fmt": "yuv420p", "crf": 19, "trim_to_audio": False}),
)

Order = Sequence[tuple[str, Callable[[Any], bool]]]


#: The widgets of older nodes in their order. A value of another kind belongs to the one after it.
ORDERS: Mapping[str, Order] = {
    OLD_SLICER: (("pair_index", _is_int),),
    OLD_PAIR: (
        ("model_name", _is_text), ("times_to_interpolate", _is_int), ("gpu_id", _is_int), ("is_last_pair", _is_bool),
        ("save_images", _is_bool),
    ),
    OLD_VIDEO: (("model_name", _is_text), ("times_to_interpolate", _is_int), ("gpu_id", _is_int)),
    OLD_BATCH: (
        ("model_name", _is_text), ("times_to_interpolate", _is_int), ("enable_tf32", _is_bool),
        ("sample_steps", _is_number), ("flow_scale", _is_number), ("cpu_offload", _is_bool), ("gpu_id", _is_int),
        ("include_source_frames", _is_bool),
    ),
    PROCESSOR: (
        ("model_name", _is_text), ("times_to_interpolate", _is_int), ("fps", _is_number), ("codec", _is_text),
        ("bitrate", _is_choice), ("gpu_id", _is_int), ("session_id", _is_text), ("save_debug_images", _is_bool),
        ("enable_tf32", _is_bool), ("sample_steps", _is_int), ("flow_scale", _is_number), ("tile_size", _is_int),
        ("cpu_offload", _is_bool), ("debug", _is_bool),
    ),
    SAVER: (
        ("chunk_id", _is_int), ("fps", _is_number), ("session_id", _is_text), ("output_dir", _is_text),
        ("source_video_path", _is_text), ("codec", _is_text), ("quality", _is_int),
    ),
    **dict.fromkeys(
        JOINERS,
        (
            ("session_id", _is_text), ("output_dir", _is_text), ("output_filename", _is_text),
            ("cleanup_chunks", _is_bool), ("return_frames", _is_bool),
        ),
    ),
}  # fmt: skip

_BEFORE = ("model_name", "times_to_interpolate", "enable_tf32", "sample_steps", "flow_scale")
_AFTER = ("cpu_offload", "gpu_id")
#: A node that stores more values than this has been loaded since it has a seed.
_MOST_OLD_VALUES = 8


def older_pair(values: Sequence[Any]) -> dict[str, Any] | None:
    """The values of a :data:`PAIR` by name, where they are in an older order, which has a number of steps fourth."""
    if len(values) < 7 or not (_is_int(values[1]) and _is_bool(values[2]) and all(map(_is_number, values[3:5]))):
        return None
    order: tuple[str, ...]
    if _is_bool(values[5]) and _is_number(values[6]):
        order = (*_BEFORE, *_AFTER)
    elif len(values) > 7 and _is_number(values[5]) and _is_bool(values[6]) and _is_number(values[7]):
        order = (*_BEFORE, "tile_size", *_AFTER)
    else:
        return None
    named = dict(zip(order, values, strict=False))
    if len(values) > _MOST_OLD_VALUES:  # loaded into the wrong widgets, and stored again: these were right
        named |= dict(zip(("seed", "control_after_generate", "compile", "quality"), values[8:], strict=False))
    return named


def present_pair(values: Sequence[Any]) -> dict[str, Any]:
    """The values of a :data:`PAIR` by name, in the present order."""
    names = []
    for each in PAIR_KIND.inputs:
        if each.widget:
            names += [each.name, "control_after_generate"] if each.name == "seed" else [each.name]
    return dict(zip(names, values, strict=False))


def by_name(key: str, values: Sequence[Any], linked_only: set[str]) -> dict[str, Any]:
    """The values that an older node stored, by name.

    Args:
        linked_only: inputs that have no widget in this graph.
    """
    if key == PAIR:
        return older_pair(values) or present_pair(values)
    order = [each for each in ORDERS.get(key, ()) if each[0] not in linked_only]
    texts = sum(fits is _is_text for _, fits in order)
    if key in (SAVER, *JOINERS) and sum(map(_is_text, values)) < texts:
        order = [each for each in order if each[0] != "session_id"]
    named: dict[str, Any] = {}
    rest = list(values)
    for name, fits in order:
        if rest and fits(rest[0]):
            named[name] = rest.pop(0)
    return named


def nearest_steps(value: Any) -> int:
    """The number of steps to choose that is nearest, of two equally near ones the larger; the first for no number."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if not _is_number(value):
        return STEPS[0]
    return min(reversed(STEPS), key=lambda steps: abs(steps - value))

"""Values of TLBVFI_Interpolator_V2 as graphs have stored them, and what they mean in its present widgets."""

from __future__ import annotations

from typing import Any

_OLD = ["b.pth", 3, False, 20, 0.75]
_MEANT: dict[str, Any] = {
    "model_name": "b.pth",
    "times_to_interpolate": 3,
    "use_fp16": True,
    "enable_tf32": False,
    "sample_steps": 20,
    "flow_scale": 0.75,
    "cpu_offload": False,
    "gpu_id": 1,
    "seed": 0,
    "control_after_generate": "fixed",
    "compile": False,
    "quality": "custom",
}
_BY_NAME = {
    "model_name": "b.pth", "times_to_interpolate": 3, "enable_tf32": False, "sample_steps": 20, "flow_scale": 0.75,
    "cpu_offload": False, "gpu_id": 1,
}  # fmt: skip
#: Form -> what is stored.
STORED: dict[str, Any] = {
    "seven values": [*_OLD, False, 1],
    "eight values, with tile_size": [*_OLD, 512, False, 1],
    "a tile_size that is none": [*_OLD, 0, False, 1],
    "by name": _BY_NAME,
    "by name, with tile_size": {**_BY_NAME, "tile_size": 512},
    "by name, present": {**_BY_NAME, "use_fp16": False, "seed": 7, "compile": True, "quality": "fast"},
    "whole numbers for fractions": [*_OLD[:4], 1, False, 1],
    "steps between two": ["b.pth", 3, False, 18, 0.75, False, 1],
    "steps in the middle of two": ["b.pth", 3, False, 15, 0.75, False, 1],
    "fewest steps": ["b.pth", 3, False, 1, 0.75, False, 1],
    "loaded wrongly and stored again": [*_OLD, False, 1, 0, 7, "increment", True, "fast"],
    "loaded wrongly and stored again, with tile_size": [*_OLD, 64, False, 1, 7, "increment", True, "fast"],
}
_TAIL = {"seed": 7, "control_after_generate": "increment", "compile": True, "quality": "fast"}
#: Form -> the widgets' values.
MEANT: dict[str, dict[str, Any]] = {
    **dict.fromkeys(STORED, _MEANT),
    "by name, present": {**_MEANT, **_TAIL, "control_after_generate": "fixed", "use_fp16": False},
    "whole numbers for fractions": {**_MEANT, "flow_scale": 1},
    "steps in the middle of two": _MEANT,
    "fewest steps": {**_MEANT, "sample_steps": 10},
    "loaded wrongly and stored again": {**_MEANT, **_TAIL},
    "loaded wrongly and stored again, with tile_size": {**_MEANT, **_TAIL},
}

"""The built-in model in faster types against its own float32, on frames of a real clip and on a smooth motion."""

from __future__ import annotations

import logging
from itertools import islice

import numpy as np
import torch
from torch import Tensor

import tlbvfi
from tests.cuda.report import Sheet
from tests.cuda.setting import PLAIN, ROOT, Setting, Way, decibels
from tlbvfi.bench.measuring import moving_frames
from tlbvfi.model import TLBVFI
from tlbvfi.precision import tf32

log = logging.getLogger(__name__)

#: Decibels wanted of the new frames, of a peak of 1.
WANTED_DB = {"TF32": 50.0, "float16": 50.0, "bfloat16": 45.0}
_TYPES = {"TF32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: Where OpenCV cannot read the clip: three frames of it, 384 x 256 of their pixels.
_STORED = ROOT / "tests" / "cuda" / "frames.npz"
_CLIP, _FIRST, _COUNT = ROOT / "docs" / "demo.mp4", 6, 3


def run(setting: Setting, sheet: Sheet) -> None:
    usual, clips = setting.ways()[0], _clips(setting)
    rows = {name: sheet.row("Built-in model against its float32, PSNR in dB", frames=name) for name in clips}
    with tf32(False):
        exact = tlbvfi.load_model(device=setting.device)
        expected = {name: _made(setting, exact, PLAIN, clip) for name, clip in clips.items()}
    for called, dtype in _TYPES.items():
        model = tlbvfi.load_model(device=setting.device, dtype=dtype)
        for name, clip in clips.items():
            setting.go_on()
            with tf32(True):
                made = _made(setting, model, usual, clip)
            value = min(decibels(a, b, peak=1.0) for a, b in zip(made, expected[name], strict=True))
            rows[name][called] = value
            wanted = WANTED_DB[called]
            sheet.check(value >= wanted, f"{called} on {name}: {value:.1f} dB, {wanted:g} wanted")
    setting.clean()


def _made(setting: Setting, model: TLBVFI, way: Way, clip: list[Tensor]) -> list[Tensor]:
    """The new frames between those of a clip."""
    size = clip[0].shape[0], clip[0].shape[1]
    return list(setting.new_frames(model, size, way, source=iter(clip)))


def _clips(setting: Setting) -> dict[str, list[Tensor]]:
    """Frames (H, W, 3) in [0, 1] by what they are called."""
    smooth = list(islice(moving_frames(*setting.small), 3))
    if setting.rehearse:
        return {"smooth motion": smooth, "clip": [frame[:64, :64] for frame in _stored()]}
    return {"smooth motion": smooth, "docs/demo.mp4": _decoded() or _stored()}


def _stored() -> list[Tensor]:
    with np.load(_STORED) as content:
        return [torch.from_numpy(frame).float() / 255 for frame in content["frames"]]


def _decoded() -> list[Tensor] | None:
    """Frames of the clip, where OpenCV is there to read them."""
    try:
        import cv2
    except ImportError:
        return None
    video = cv2.VideoCapture(str(_CLIP))
    read = [video.read() for _ in range(_FIRST + _COUNT)][_FIRST:]
    if not all(there for there, _ in read):
        log.warning("OpenCV cannot read %s: stored frames are taken.", _CLIP.name)
        return None
    return [torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).float() / 255 for _, frame in read]

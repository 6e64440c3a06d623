"""The frames of one video as tensors of one size, whatever becomes of its size and its colours on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..device_memory import free_memory
from .pyav import VideoError, import_av, reason
from .samples import to_tensor

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

#: Pixels of a frame that the memory is looked at for, and bytes that converting takes for each.
_LARGE, _BYTES = 1 << 24, 24


class Fitting:
    """Makes tensors of a video's frames; those of another size are scaled to the first one's, which is said once."""

    def __init__(
        self, name: str, size: tuple[int, int] | None = None, convert: Callable[[VideoFrame], Tensor] | None = None
    ) -> None:
        """
        Args:
            name: what sentences call the video.
            size: (H, W) of its first frame; by default that of the first one that comes.
            convert: makes the upright picture of a frame; :func:`.samples.to_tensor` by default.
        """
        self._name, self._size, self._convert, self._is_told = name, size, convert, False

    def __call__(self, frame: VideoFrame) -> Tensor:
        """The upright picture of a frame, (H, W, channels) float32 in [0, 1].

        Raises:
            VideoError: its colours cannot be converted.
        """
        picture = converted(frame, self._name, self._convert)
        height, width, _ = picture.shape
        self._size = self._size or (height, width)
        if self._size == (height, width):
            return picture
        if not self._is_told:
            self._is_told = True
            wanted = f"{self._size[1]}x{self._size[0]}"
            log.warning(
                "%s changes its size from %s to %dx%d: its frames of another size are scaled to %s.",
                self._name, wanted, width, height, wanted,
            )  # fmt: skip
        return fitted(picture, *self._size)


def converted(frame: VideoFrame, name: str, convert: Callable[[VideoFrame], Tensor] | None = None) -> Tensor:
    """The upright picture of a frame of the video called `name`, as `convert` makes it.

    Raises:
        VideoError: its colours cannot be converted, or it is larger than the memory.
    """
    pixels = frame.width * frame.height
    if pixels > _LARGE and (free := free_memory(torch.device("cpu"))) is not None and pixels * _BYTES > free:
        raise VideoError(
            f"{name} is {frame.width}x{frame.height}, which takes {pixels * _BYTES / 2**30:.1f} GiB to convert, and "
            f"{free / 2**30:.1f} GiB of memory are free; make it smaller."
        )
    try:
        return (convert or to_tensor)(frame)
    except (import_av().error.FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f"{name} stores its colours in a way that cannot be converted to RGB here ({frame.format.name}, "
            f"matrix {int(frame.colorspace)} of ITU-T H.273: {reason(error)})."
        ) from None


def fitted(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture (H, W, channels) scaled into another size; where its shape differs, between black bars."""
    rows, columns, _ = picture.shape
    scale = min(height / rows, width / columns)
    # By less than two pixels it is rounding that differs.
    inner_height = height if height - rows * scale < 2 else round(rows * scale)
    inner_width = width if width - columns * scale < 2 else round(columns * scale)
    planes = rearrange(picture, "h w c -> 1 c h w")
    size = (max(1, inner_height), max(1, inner_width))
    scaled = F.interpolate(planes, size, mode="bicubic", antialias=True).clamp_(0.0, 1.0)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    padded = F.pad(scaled, (left, width - size[1] - left, top, height - size[0] - top))
    return rearrange(padded, "1 c h w -> h w c").contiguous()

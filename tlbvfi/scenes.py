"""Scene cuts in a video, found as its frames stream by: from what was seen before, never from what comes later.

A frame is reduced to a small picture once. Two small pictures are of one scene where the blocks of each are found
again in the other, not far from their place, up to one tone curve per colour for the whole picture: motion, shake,
zoom, exposure and flashes leave that so, a cut does not. Where the brightness changes, the light may also differ from
place to place.
"""

from __future__ import annotations

import math
from collections import deque

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .cut_strip import CutStrip

__all__ = ["DEFAULT_THRESHOLD", "CutStrip", "SceneDetector", "difference", "is_still", "small_picture"]

#: Chosen by `python -m tests.scene_figures`; docs/SCENES.md has the figures.
DEFAULT_THRESHOLD = 0.5

# A small picture
_CELLS, _LONGEST = 48 * 27, 96  # its cells, and those of its longer side, at most
_SAMPLES = 6  # pixels that are read for a cell, in each direction, about
_BAR = 0.03  # what is darker in both pictures, at their edges, is a bar and no part of them
# Contrast: mean absolute deviation from the mean, summed over the colours
_NOISE = 0.02  # what grain may make of a plain picture
_FLAT = 0.02  # below it a picture is of one colour
_WHITE = 0.7  # the mean of such a picture, from which on it may be a flash
# Difference of two small pictures
_REACH = 1 / 6  # how far blocks are looked for, of the picture's side
_BLOCK = 6  # cells of a block's side
_UNLIKE = 0.5  # parts of the contrast by which a block differs that is not found at all
_CURVE = 1.3  # what a match through tone curves costs more than one without
_LIGHT = 1.5  # and one through a light that differs from place to place
_LIT = 0.06  # looked for where the brightness changes by this
_SPREAD = 0.3  # parts of the sides over which such a light is even
_JUMP = 2.0  # what a change of brightness counts where one picture is flat
_ALIKE = 0.2  # below it nothing better is looked for
# Frames that are still
_STILL_BLOCK = 16  # pixels of a block's side
_STRIP = 8 * _STILL_BLOCK  # rows that are looked at in one go
# What was before
_REMEMBERED = 3  # pictures: a flash is of two at most
_RECENT = 2  # differences that tell how restless a shot is
_RESTLESS = 0.7  # the part of them that says nothing


class SceneDetector:
    """Tells where scenes of a video begin, as its frames (H, W, 3), floating point in [0, 1], stream by.

    What it has seen it keeps as a few small pictures and numbers; a deep copy goes on alike.

    Attributes:
        score: of the last pair, in [0, 1]; a cut is where it reaches the threshold.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        """
        Args:
            threshold: more finds fewer cuts.

        Raises:
            ValueError: it is not above 0 and at most 1.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"The threshold of scene cuts must be above 0 and at most 1, not {threshold!r}.")
        self.threshold = threshold
        self.score = 0.0
        self._pictures: deque[Tensor] = deque(maxlen=_REMEMBERED)
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def start(self, frame: Tensor) -> None:
        """Begin with a video's first frame, and forget what was before."""
        self.score = 0.0
        self._recent.clear()
        self._pictures.clear()
        self._pictures.append(small_picture(frame))

    def cut_before(self, frame: Tensor) -> bool:
        """Whether a scene begins with this frame, the next after the last one given."""
        picture = small_picture(frame)
        found = 0.0 if _is_white(picture) else difference(self._pictures[-1], picture)
        self.score = self._beyond_usual(found)
        for earlier in list(self._pictures)[-2::-1]:  # a flash is over
            if self.score < self.threshold:
                break
            found = min(found, difference(earlier, picture))
            self.score = self._beyond_usual(found)
        cut = self.score >= self.threshold
        if cut:
            self._pictures.clear()
        self._recent.append(found * _RESTLESS if cut else found)
        self._pictures.append(picture)
        return cut

    def _beyond_usual(self, found: float) -> float:
        """A difference, less what is usual in a restless shot; 1 stays 1."""
        usual = _RESTLESS * max(self._recent, default=0.0)
        return max(0.0, (found - usual) / (1 - usual))


def is_still(before: Tensor, after: Tensor, threshold: float) -> bool:
    """Whether nothing moves from one frame (H, W, 3) to the next, in no small part of it either.

    Args:
        threshold: what the blocks of 16 x 16 pixels may differ by, each on average over its pixels and colours;
            at 0 only equal frames are still.
    """
    if before.shape != after.shape:
        return False
    if torch.equal(before, after):
        return True
    if threshold <= 0:
        return False
    for one, other in zip(before.split(_STRIP), after.split(_STRIP), strict=True):
        apart = (one.float() - other.float()).abs().mean(2)
        means = F.avg_pool2d(apart[None], _STILL_BLOCK, ceil_mode=True, count_include_pad=False)
        if not float(means.max()) <= threshold:
            return False
    return True


def small_picture(frame: Tensor) -> Tensor:
    """A frame (H, W, 3) as (h, w, 3), a few thousand numbers on the CPU: a copy, of a frame that is no larger, too."""
    height, width = frame.shape[:2]
    scale = min(1.0, math.sqrt(_CELLS / (height * width)))
    rows, columns = (min(_LONGEST, max(1, round(side * scale))) for side in (height, width))
    if (rows, columns) == (height, width):
        return frame.detach().to("cpu", torch.float32, copy=True).contiguous()
    down, across = (max(1, side // (cells * _SAMPLES)) for side, cells in ((height, rows), (width, columns)))
    samples = frame.detach()[down // 2 :: down, across // 2 :: across].to("cpu", torch.float32)
    planes = rearrange(samples, "h w c -> 1 c h w").contiguous()
    return rearrange(F.adaptive_avg_pool2d(planes, (rows, columns)), "1 c h w -> h w c").contiguous()


def difference(before: Tensor, after: Tensor) -> float:
    """How little two small pictures of one size have in common, in [0, 1]."""
    x, y = _without_bars(*(rearrange(picture, "h w c -> c h w").contiguous() for picture in (before, after)))
    contrast = min(float(_contrast(picture)) for picture in (x, y))
    if contrast < _FLAT:
        return min(1.0, _JUMP * float((x - y).abs().mean()))
    scale = _UNLIKE * (contrast + _NOISE)
    unmoved = _share(_blocks((x - y).abs().sum(0)), scale)
    if unmoved < _ALIKE:
        return unmoved
    lit = abs(float(x.mean() - y.mean())) > _LIT
    ways = []
    for source, target in ((x, y), (y, x)):
        unlike = _unlike(source, target, scale)
        if unlike >= _ALIKE:
            unlike = min(unlike, _CURVE * _unlike(_toned(source, target), target, scale))
        if unlike >= _ALIKE and lit:
            unlike = min(unlike, _LIGHT * _unlike(_relit(source, target), target, scale))
        ways.append(unlike)
    return sum(ways) / 2


def _is_white(picture: Tensor) -> bool:
    """Whether it shows nothing but light."""
    return float(picture.mean()) > _WHITE and float(_contrast(rearrange(picture, "h w c -> c h w"))) < _FLAT


def _contrast(picture: Tensor) -> Tensor:
    """Of (3, h, w)."""
    return (picture - picture.mean((1, 2), keepdim=True)).abs().sum(0).mean()


def _share(differences: Tensor, scale: float) -> float:
    """The part of the blocks that is not found; those that differ by less than the scale count in part."""
    return float((differences / scale).clamp_(max=1).mean())


def _blocks(values: Tensor) -> Tensor:
    """Means over the blocks of (..., h, w)."""
    down, across = (max(1, round(side / _BLOCK)) for side in values.shape[-2:])
    return F.adaptive_avg_pool2d(values[None], (down, across))[0]


def _without_bars(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two pictures (3, h, w) without what is dark in both at the edges; pictures that are dark as they are."""
    seen = torch.maximum(x, y).amax(0) > _BAR
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return x, y
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return x[:, top:bottom, left:right], y[:, top:bottom, left:right]


def _toned(x: Tensor, like: Tensor) -> Tensor:
    """x with the histogram of another picture, colour by colour."""
    flat = rearrange(x, "c h w -> c (h w)")
    values = rearrange(like, "c h w -> c (h w)").sort(dim=1).values
    return torch.empty_like(flat).scatter_(1, flat.argsort(dim=1, stable=True), values).view_as(x)


def _relit(x: Tensor, like: Tensor) -> Tensor:
    """x as bright as another picture, place by place, as a camera flash makes it."""
    window = [max(1, round(side * _SPREAD)) | 1 for side in x.shape[1:]]
    down, across = (side // 2 for side in window)
    bright, wanted = (
        F.avg_pool2d(F.pad(p.mean(0)[None, None], (across, across, down, down), mode="replicate"), window, 1)[0]
        for p in (x, like)
    )
    return (x * ((wanted + _NOISE) / (bright + _NOISE)).clamp_(0.25, 4)).clamp_(0, 1)


def _unlike(x: Tensor, y: Tensor, scale: float) -> float:
    """The part of the blocks of y that is not found in x, not far from their place.

    x may lie anywhere between its cells, too: values up to those halfway to its neighbours fit.
    """
    height, width = y.shape[1:]
    up, side = (max(1, round(length * _REACH)) if length > 1 else 0 for length in (height, width))
    low, high = (F.pad(b[None], (side, side, up, up), mode="replicate")[0] for b in _bounds(x))
    best = None
    for shift in range(2 * up + 1):
        lows, highs = (b[:, shift : shift + height].unfold(2, width, 1) for b in (low, high))  # c h s w
        here = y[:, :, None]
        apart = torch.maximum(lows - here, here - highs).clamp_(min=0).sum(0)
        found = _blocks(rearrange(apart, "h s w -> s h w")).amin(0)
        best = found if best is None else torch.minimum(best, found)
    assert best is not None
    return _share(best, scale)


def _bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and greatest values within half a cell of every cell."""
    padded = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
    beside = torch.stack([padded[:, 1:-1, :-2], padded[:, 1:-1, 2:], padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]])
    halves = torch.cat([x[None], (x + beside) / 2])
    return halves.amin(0), halves.amax(0)

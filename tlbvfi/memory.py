"""What a run needs of the device's memory: predicted for plans, and counted exactly where that is asked for."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .config import ModelParams
from .model import TLBVFI, check_dtype, convert_precision
from .modules.autoencoder import FLOW_LEVELS
from .modules.flow import LEAST_ROWS, REACH
from .padding import PaddingMode, flow_size, padding_for
from .rows.cuts import WHOLE, Strips, wide_cuts
from .rows.tuning import Tuning


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and their peak, while it is active.

    Every storage that an operation returns counts once, from then until its last reference goes; those of `apart`,
    such as a model's weights, do not.
    """

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}
        self._apart = {tensor.untyped_storage()._cdata for tensor in apart}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._apart:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.finalize(storage, self._release, key, size)
        self.current += size
        self.peak = max(self.peak, self.current)

    def _release(self, key: int, size: int) -> None:
        self._alive.pop(key, None)
        self.current -= size


@dataclass(frozen=True)
class Plan:
    """How a run at a size will go.

    Attributes:
        padded_size: (height, width) that the model sees.
        peak_bytes: weights and live activations at the peak. Allocator overhead and library workspaces are extra.
        weight_bytes: the weights alone.
        strip_rows: rows of the padded frame evaluated at a time; the padded height where it goes whole.
        batch_size: pairs evaluated at a time.
    """

    padded_size: tuple[int, int]
    peak_bytes: int
    weight_bytes: int
    strip_rows: int
    batch_size: int

    @property
    def strips(self) -> Strips:
        """How the model's maps are cut: not at all, or as :attr:`strip_rows` says."""
        height, width = self.padded_size
        return WHOLE if self.strip_rows >= height else Strips(self.strip_rows * width, frugal=True)


def plan(
    height: int,
    width: int,
    dtype: torch.dtype = torch.float16,
    flow_scale: float = 0.5,
    budget: int | None = None,
    *,
    params: ModelParams | None = None,
    padding: PaddingMode = "tight",
) -> Plan:
    """The fastest way to interpolate video of height x width, and the memory that it takes.

    Args:
        height, width: of the source frames.
        dtype: the model's.
        flow_scale: as for :func:`tlbvfi.interpolate_frames`.
        budget: bytes that may be used, weights included; None for no limit.
        params: the model's parameters (``model.params``); the published model's by default.
        padding: as for :func:`tlbvfi.interpolate_frames`.

    Raises:
        ValueError: a size, flow scale or dtype that cannot be, or a budget in which nothing fits; names the smallest
            that would do.
    """
    if budget is not None and not 0 <= budget < math.inf:
        raise ValueError(f"budget must be a number of bytes, or None for no limit, not {budget}.")
    found = candidates(height, width, dtype, flow_scale, params, padding)
    if budget is None:
        return found[0]
    fitting = next((candidate for candidate in found if candidate.peak_bytes <= budget), None)
    if fitting is None:
        least = found[-1].peak_bytes
        raise ValueError(
            f"{width}x{height} at flow scale {flow_scale} in {str(dtype).removeprefix('torch.')} needs "
            f"{amount(least)} at least, more than the {amount(budget)} given; use a smaller size, "
            "a smaller flow scale or float16, or free memory."
        )
    return _batched(fitting, budget)


def amount(count: float) -> str:
    """Bytes as a person reads them."""
    gib = count / 2**30
    return f"{gib:.2f} GiB" if gib >= 0.095 else f"{gib:.4f} GiB"


def candidates(
    height: int,
    width: int,
    dtype: torch.dtype,
    flow_scale: float,
    params: ModelParams | None = None,
    padding: PaddingMode = "tight",
) -> list[Plan]:
    """Ways to go for one pair at a time, fastest first, each taking less memory than the one before."""
    check_dtype(dtype)
    params = params or ModelParams()
    padded = padding_for(height, width, padding, params.autoencoder.multiple).padded
    weights = _weight_bytes(params, dtype)
    found: list[Plan] = []
    for rows in (padded[0], *(rows for rows in _STRIP_ROWS if rows < padded[0])):
        strips = Plan(padded, 0, 0, rows, 1).strips
        peak = weights + round(max(_stages(params, padded, dtype.itemsize, float(flow_scale), strips).values()))
        if not found or peak < found[-1].peak_bytes:
            found.append(Plan(padded, peak, weights, rows, 1))
    return found


#: Of a device's free memory the larger of this share and this many bytes stays unplanned: a plan counts tensors, and
#: the allocator's gaps, the libraries' workspaces and what other programs take meanwhile come on top.
_RESERVED_SHARE, _RESERVED_BYTES = 0.05, 512 * 2**20


def usable(free: int) -> int:
    """What may be planned of `free` bytes of a device; 0 where all of them are reserved."""
    return max(0, free - max(round(free * _RESERVED_SHARE), _RESERVED_BYTES))


#: Strip heights that are tried. Fewer rows save little more: some around each strip are computed twice.
_STRIP_ROWS = (512, 256, 128, 64, 32, 16)
#: Pixels of a batch of frames up to which some 7,000 kernels cost a device more than their work, and pairs at most.
_BATCH_PIXELS, _MOST_PAIRS = 1 << 21, 8


def _batched(found: Plan, budget: int) -> Plan:
    """The plan with as many pairs at a time as are worth it and fit."""
    if found.strips.frugal:
        return found
    activations = found.peak_bytes - found.weight_bytes
    pairs = min(
        (budget - found.weight_bytes) // activations,
        _BATCH_PIXELS // (found.padded_size[0] * found.padded_size[1]),
        _MOST_PAIRS,
    )
    if pairs < 2:
        return found
    return replace(found, batch_size=pairs, peak_bytes=found.weight_bytes + pairs * activations)


@lru_cache(maxsize=8)
def _weight_bytes(params: ModelParams, dtype: torch.dtype) -> int:
    with torch.device("meta"):
        model = convert_precision(TLBVFI(params).finalize(), dtype)
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


@torch.no_grad()  # as in a run: with gradients nothing is cut in pieces
def _stages(
    params: ModelParams, padded: tuple[int, int], size: int, flow_scale: float, strips: Strips
) -> dict[str, float]:
    """Live bytes, weights apart, at the peak of each stage of a pair: what is kept, what is stored, and what a strip
    (or the whole map) takes while it is computed.

    Args:
        size: bytes of an element of the model's dtype.

    The numbers of maps were read off the code and hold within a tenth of what is counted (see the tests).
    """
    auto = params.autoencoder
    widths = auto.pyramid_widths
    height, width = padded
    pixels = height * width
    flow_height, flow_width = flow_size(height, width, flow_scale)
    flow_pixels = flow_height * flow_width
    same = flow_pixels == pixels
    maps = [size * channels * pixels / 4**level for level, channels in enumerate(widths)]
    image, flow = 12 * pixels, 16 * pixels
    # Kept of a frame: the image, the levels, and for the flow the small image and its levels.
    levels = sum(maps[1:])
    flow_levels = size * sum(channels / 4**level for level, channels in enumerate(widths[:FLOW_LEVELS]))
    for_flow = maps[0] if same else (12 + flow_levels) * flow_pixels
    frame = image + levels + for_flow
    small_flows = flow * (1 / 4 + 1 / 16 + 1 / 64)

    def strip(level: int, least: int = 1, around: int = 2, wide: bool = False) -> float:
        """Positions of a strip of a level's map, with the rows around it; `wide`: of a piece of one, if smaller."""
        rows, columns = height >> level, width >> level
        shape = (1, 1, rows, columns)
        cut = (wide_cuts(shape, strips, _DEVICE) if wide else strips.cuts(shape, least=least))[0]
        return min(cut[1] + (around if cut[1] < rows else 0), rows) * columns

    cut = strips.cuts((1, 1, flow_height, flow_width), least=LEAST_ROWS)[0][1]
    flow_strip = min(cut + 2 * REACH, flow_height) * flow_width if cut < flow_height else flow_pixels
    coarse = 90 + (10 * size if size < 4 else 0) + size * params.autoencoder.flow_widths[-1] / 4
    own = size * widths[0]
    sampled = min(flow_strip, Tuning.of(_DEVICE).gathered_positions) * ((2 if size == 4 else 3) * own + _SAMPLED)
    banded = maps[0] / 4 * (1.1 + 2 * min(1.0, 4 * strip(0) / pixels))
    stages = {
        "wavelet branch": 2 * frame + max(_WAVELET * strip(0, around=4, wide=True) + 1.1 * maps[0] / 4, banded),
        "encoder": frame + 2 * image + maps[0] * (1 + same) + maps[1],
        "coarse flow": 2 * frame + coarse * flow_pixels,
        "refinement, cosines": 2 * frame + 4 * own * flow_strip + sampled,
        "refinement": 2 * frame + (6 * own + 18 * size + _REFINED) * flow_strip,
    }
    first = widths[1] * size
    if strips.frugal:
        stages["encoder"] += 2 * own * strip(0, around=4)
        for name in ("refinement, cosines", "refinement"):
            stages[name] += 40 * flow_pixels
        after_flow = 2 * frame - for_flow + flow + small_flows
        stages["decoder, result of a block"] = (
            after_flow - sum(maps[2:]) + (widths[2] * size + 2 * first) * pixels / 4 + 3 * first * strip(1)
        )
        stages["decoder, level 0"] = after_flow - sum(maps[2:]) + first * pixels / 2 + 13 * first * strip(1, wide=True)
        stages["decoder, level 1"] = (
            after_flow - sum(maps[3:]) + widths[2] * size * pixels / 8 + 13 * widths[2] * size * strip(2, wide=True)
        )
        stages["head"] = 2 * frame - for_flow - levels + flow + image + first * pixels + 2 * first * strip(0, around=4)
    else:
        stages["encoder"] += maps[0]
        piece = strip(1, wide=True) / (pixels / 4)
        stages["decoder"] = 2 * frame + flow + small_flows + min(14.0, 5.6 + 10.5 * piece) * first * pixels / 4
        stages["head"] = 2 * frame + flow + max(2 * first + 3, _HEAD) * pixels
    return stages


#: What plans are made for; the CPU takes less, as its pieces are smaller.
_DEVICE = torch.device("cuda")
#: float32 bytes for each pixel of the bands and what they are made of.
_WAVELET = 197
#: Bytes for each position of the refinement: positions and flows; and of those sampled at a time, taps and cosines.
_REFINED, _SAMPLED = 49, 329
#: float32 bytes for each pixel of the warped frames and their blend.
_HEAD = 77


@contextmanager
def counting(model: TLBVFI | None = None) -> Iterator[LiveBytes]:
    """Count live bytes of real or fake tensors in the block, a model's weights apart."""
    counter = LiveBytes([] if model is None else [*model.parameters(), *model.buffers()])
    with counter:
        yield counter

"""Plans: how to go at a size so that a run fits a budget of memory."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch

from .config import ModelParams
from .device_memory import free_memory
from .footprint import Way, need, weight_bytes
from .model import TLBVFI, check_dtype
from .padding import padding_for
from .ranges import PaddingMode, check_flow_scale
from .rows.cuts import WHOLE, Strips
from .rows.tuning import Tuning
from .settings import Settings


@dataclass(frozen=True)
class Plan:
    """How a run at a size will go.

    Attributes:
        padded_size: (height, width) that the model sees.
        peak_bytes: what the device has to have, weights included. On a graphics card: what PyTorch's allocator can be
            held to, gaps and the libraries' workspaces included; it keeps more where it may. On the CPU: the tensors
            that are alive at the peak, in a card's pieces (its own are smaller); gaps and workspaces are extra.
        weight_bytes: the weights alone.
        strip_rows: rows of the padded frame evaluated at a time; the padded height where it goes whole.
        batch_size: pairs evaluated at a time.
        graphs: a CUDA card may replay captured model calls (:mod:`.graphs`), which keep their memory, where maps go
            whole.
        way: what is counted for other batch sizes; None for a plan that was not counted.
    """

    padded_size: tuple[int, int]
    peak_bytes: int
    weight_bytes: int
    strip_rows: int
    batch_size: int
    graphs: bool = True
    way: Way | None = field(default=None, repr=False, compare=False)

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
    device: torch.device | None = None,
) -> Plan:
    """The fastest way to interpolate video of height x width, and the memory that it takes.

    Args:
        height, width: of the source frames.
        dtype: the model's.
        flow_scale: as for :func:`tlbvfi.interpolate_frames`.
        budget: bytes that may be used, weights included; None for no limit.
        params: the model's parameters (``model.params``); the published model's by default.
        padding: as for :func:`tlbvfi.interpolate_frames`.
        device: where the run will be; a graphics card by default.

    Raises:
        ValueError: a size, flow scale or dtype that cannot be, or a budget in which nothing fits; names the smallest
            that would do.
    """
    if budget is not None and not 0 <= budget < math.inf:
        raise ValueError(f"budget must be a number of bytes, or None for no limit, not {budget}.")
    whole = _whole(height, width, dtype, flow_scale, params, padding, device)
    captured = _captured(whole)
    if budget is None:
        return captured or whole
    if captured is not None and captured.peak_bytes <= budget:
        return _batched(captured, budget)
    if whole.peak_bytes <= budget:
        return _batched(whole, budget)
    rows = _strip_rows(whole)
    # Fewer rows take less: the first that fit are found without counting all.
    place = bisect_left(rows, True, key=lambda count: _in_strips(whole, count).peak_bytes <= budget)
    if place < len(rows):
        return _in_strips(whole, rows[place])
    least = _in_strips(whole, rows[-1]).peak_bytes if rows else whole.peak_bytes
    raise ValueError(
        f"{width}x{height} at flow scale {flow_scale} in {str(dtype).removeprefix('torch.')} needs "
        f"{amount(least)} at least, more than the {amount(budget)} given; use a smaller size, "
        "a smaller flow scale or float16, or free memory."
    )


def plan_for(
    model: TLBVFI,
    size: tuple[int, int],
    settings: Settings,
    free: int | None,
    budget: int | None = None,
    device: torch.device | None = None,
    reserved: int = 0,
) -> Plan | None:
    """The plan of a run.

    Args:
        size: (height, width) of the source frames.
        free: bytes of the device that weights and run may take together (see :func:`available`), of which some are kept
            in reserve; None where that is not known.
        budget: bytes that may be used instead, weights included and nothing in reserve.
        device: where the run will be; by default where the model is.
        reserved: as for :func:`usable`.

    Returns:
        None where it is not known what there is: the run goes whole then, and in strips where that is refused.

    Raises:
        ValueError: not even the smallest run fits, in one sentence.
    """
    if budget is None and free is None:
        return None
    device = device or model.device
    found = plan(
        *size,
        model.dtype,
        settings.flow_scale,
        budget=usable(free or 0, device, reserved) if budget is None else budget,
        params=model.params,
        padding=settings.padding,
        device=device,
    )
    # One pair keeps a CPU busy: its memory is left to others, unless it is there to be used.
    return batched(found, 1) if device.type == "cpu" and budget is None else found


def available(model: TLBVFI) -> int | None:
    """Bytes that are free on a model's device, and those that its weights take there; None where that is not known."""
    free = free_memory(model.device)
    return None if free is None else free + sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


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
    device: torch.device | None = None,
) -> Sequence[Plan]:
    """Ways to go for one pair at a time, fastest first, in maps that get smaller and smaller; CUDA graphs are not among
    them. What one takes is counted when it is looked at."""
    return _Ways(_whole(height, width, dtype, flow_scale, params, padding, device))


class _Ways(Sequence[Plan]):
    """Whole maps, and strips from large to small."""

    def __init__(self, whole: Plan) -> None:
        self._whole, self._rows = whole, _strip_rows(whole)

    def __len__(self) -> int:
        return 1 + len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Plan: ...

    @overload
    def __getitem__(self, index: slice) -> list[Plan]: ...

    def __getitem__(self, index: int | slice) -> Plan | list[Plan]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return _in_strips(self._whole, self._rows[place - 1]) if place else self._whole


def _whole(
    height: int,
    width: int,
    dtype: torch.dtype,
    flow_scale: float,
    params: ModelParams | None,
    padding: PaddingMode,
    device: torch.device | None,
) -> Plan:
    """One pair at a time in whole maps."""
    check_dtype(dtype)
    check_flow_scale(flow_scale)
    params = params or ModelParams()
    padded = padding_for(height, width, padding, params.autoencoder.multiple).padded
    device = device or torch.device("meta")
    on_card, graphs = device.type != "cpu", device.type in ("cuda", "meta")
    with torch.no_grad():  # as in a run
        tuning = Tuning.of(device) if on_card else _CPU
    way = Way(params, padded, dtype, float(flow_scale), WHOLE, 1, tuning, on_card, graphs)
    return Plan(padded, need(way).least, weight_bytes(params, dtype), padded[0], 1, graphs=False, way=way)


def _in_strips(whole: Plan, rows: int) -> Plan:
    """The same in strips."""
    return _counted(replace(whole, strip_rows=rows), 1)


def _captured(whole: Plan) -> Plan | None:
    """The same in CUDA graphs; None where there are none."""
    assert whole.way is not None
    return _counted(replace(whole, graphs=True), 1) if whole.way.graphs else None


def _counted(chosen: Plan, pairs: int) -> Plan:
    """The same plan with so many pairs at a time, counted."""
    assert chosen.way is not None
    way = replace(chosen.way, strips=chosen.strips, pairs=pairs)
    found = need(way)
    peak = found.captured if chosen.graphs else found.least
    return replace(chosen, peak_bytes=peak, batch_size=pairs, way=way)


def _strip_rows(whole: Plan) -> list[int]:
    """The strip heights that there are, from large to small."""
    return [rows for rows in _STRIP_ROWS if whole.strip_rows / _MOST_STRIPS <= rows < whole.strip_rows]


#: Of the CPU's free memory the larger of this share and this many bytes is not planned for: a plan counts tensors, and
#: gaps, the libraries' workspaces and what other programs take meanwhile come on top.
_RESERVED_SHARE, _RESERVED_BYTES = 0.05, 512 * 2**20
#: The same of a card's, where the gaps and the workspaces are counted: for the libraries' code, which is loaded when it
#: is first needed, and for what other programs take meanwhile.
_CARD_SHARE, _CARD_BYTES = 0.02, 256 * 2**20


def usable(free: int, device: torch.device | None = None, reserved: int = 0) -> int:
    """What may be planned of `free` bytes of a device, a graphics card by default: all but a reserve, which is at least
    `reserved`; 0 where there is no more."""
    on_cpu = device is not None and device.type == "cpu"
    share, least = (_RESERVED_SHARE, _RESERVED_BYTES) if on_cpu else (_CARD_SHARE, _CARD_BYTES)
    return max(0, free - max(round(free * share), least, reserved))


#: How a run on the CPU is counted: in a card's pieces, which are larger and fewer, by the path that it takes.
_CPU = Tuning()
#: Strip heights that are tried, and how many strips there are at most: more save next to nothing, as the halo of each
#: is computed twice.
_STRIP_ROWS, _MOST_STRIPS = (512, 256, 128, 64, 32, 16), 40
#: Where a pair has few pixels, starting its kernels takes longer than their work, so pairs go together: up to this many
#: pixels, and this many pairs.
_BATCH_PIXELS, _MOST_PAIRS = 1 << 21, 8


def _batched(found: Plan, budget: int) -> Plan:
    """The plan with as many pairs at a time as save time and fit."""
    pairs = min(_BATCH_PIXELS // (found.padded_size[0] * found.padded_size[1]), _MOST_PAIRS)
    return batched(found, pairs, budget)


def batched(chosen: Plan, pairs: int, budget: int | None = None) -> Plan:
    """The same plan with so many pairs at a time: fewer where they do not fit the budget, one in strips."""
    if chosen.strips.frugal or pairs < 2:
        return _with_pairs(chosen, 1)
    if budget is not None:
        pairs = bisect_right(range(2, pairs + 1), budget, key=lambda count: _with_pairs(chosen, count).peak_bytes) + 1
    return _with_pairs(chosen, pairs)


def repeated(found: Plan, rows: int, pairs: int) -> Plan:
    """The plan with the strips and the pairs at a time of an earlier one for the same size, which decide the last bits
    of the frames."""
    if (rows, pairs) == (found.strip_rows, found.batch_size):
        return found
    return _counted(replace(found, strip_rows=rows, graphs=found.graphs and rows >= found.padded_size[0]), pairs)


def _with_pairs(chosen: Plan, pairs: int) -> Plan:
    if pairs == chosen.batch_size:
        return chosen
    if chosen.way is not None:
        return _counted(chosen, pairs)
    activations = (chosen.peak_bytes - chosen.weight_bytes) // chosen.batch_size
    return replace(chosen, batch_size=pairs, peak_bytes=chosen.weight_bytes + pairs * activations)

"""Plans: how to go at a size so that a run fits a budget of memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from .config import ModelParams
from .device_memory import free_memory
from .footprint import stages, weight_bytes
from .model import TLBVFI, check_dtype
from .padding import padding_for
from .ranges import PaddingMode
from .rows.cuts import WHOLE, Strips
from .settings import Settings


@dataclass(frozen=True)
class Plan:
    """How a run at a size will go.

    Attributes:
        padded_size: (height, width) that the model sees.
        peak_bytes: weights and live activations at the peak. Allocator overhead and library workspaces are extra.
        weight_bytes: the weights alone.
        strip_rows: rows of the padded frame evaluated at a time; the padded height where it goes whole.
        batch_size: pairs evaluated at a time.
        graphs: a CUDA card may replay captured model calls (:mod:`.graphs`), where maps go whole.
    """

    padded_size: tuple[int, int]
    peak_bytes: int
    weight_bytes: int
    strip_rows: int
    batch_size: int
    graphs: bool = True

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


def plan_for(
    model: TLBVFI,
    size: tuple[int, int],
    settings: Settings,
    free: int | None,
    budget: int | None = None,
    device: torch.device | None = None,
) -> Plan | None:
    """The plan of a run.

    Args:
        size: (height, width) of the source frames.
        free: bytes of the device that weights and run may take together (see :func:`available`), of which some are kept
            in reserve; None where that is not known.
        budget: bytes that may be used instead, weights included and nothing in reserve.
        device: where the run will be; by default where the model is.

    Returns:
        None where it is not known what there is: the run goes whole then, and in strips where that is refused.

    Raises:
        ValueError: not even the smallest run fits, in one sentence.
    """
    if budget is None and free is None:
        return None
    found = plan(
        *size,
        model.dtype,
        settings.flow_scale,
        budget=usable(free or 0) if budget is None else budget,
        params=model.params,
        padding=settings.padding,
    )
    # One pair keeps a CPU busy: its memory is left to others, unless it is there to be used.
    return batched(found, 1) if (device or model.device).type == "cpu" and budget is None else found


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
) -> list[Plan]:
    """Ways to go for one pair at a time, fastest first, each taking less memory than the one before."""
    check_dtype(dtype)
    params = params or ModelParams()
    padded = padding_for(height, width, padding, params.autoencoder.multiple).padded
    weights = weight_bytes(params, dtype)
    found: list[Plan] = []
    for rows in (padded[0], *(rows for rows in _STRIP_ROWS if rows < padded[0])):
        strips = Plan(padded, 0, 0, rows, 1).strips
        needed = stages(params, padded, dtype, float(flow_scale), strips)
        peak = weights + round(max(stage.bytes for stage in needed))
        if not found or peak < found[-1].peak_bytes:
            found.append(Plan(padded, peak, weights, rows, 1))
    return found


#: Of a device's free memory the larger of this share and this many bytes is not planned for: a plan counts tensors, and
#: the allocator's fragmentation, the libraries' workspaces and what other programs take meanwhile come on top.
_RESERVED_SHARE, _RESERVED_BYTES = 0.05, 512 * 2**20


def usable(free: int) -> int:
    """What may be planned of `free` bytes of a device; 0 where all of them are reserved."""
    return max(0, free - max(round(free * _RESERVED_SHARE), _RESERVED_BYTES))


#: Strip heights that are tried. Fewer rows save little more: the halo of each strip is computed twice.
_STRIP_ROWS = (512, 256, 128, 64, 32, 16)
#: A pair is some 7,000 kernels. Where it has few pixels, starting them takes longer than their work, so pairs go
#: together: up to this many pixels, and this many pairs.
_BATCH_PIXELS, _MOST_PAIRS = 1 << 21, 8


def _batched(found: Plan, budget: int) -> Plan:
    """The plan with as many pairs at a time as save time and fit."""
    pairs = min(_BATCH_PIXELS // (found.padded_size[0] * found.padded_size[1]), _MOST_PAIRS)
    return batched(found, pairs, budget)


def batched(chosen: Plan, pairs: int, budget: int | None = None) -> Plan:
    """The same plan with so many pairs at a time: fewer where they do not fit the budget, one in strips."""
    activations = (chosen.peak_bytes - chosen.weight_bytes) // chosen.batch_size
    if budget is not None:
        pairs = min(pairs, (budget - chosen.weight_bytes) // activations)
    if chosen.strips.frugal or pairs < 2:
        pairs = 1
    return replace(chosen, batch_size=pairs, peak_bytes=chosen.weight_bytes + pairs * activations)

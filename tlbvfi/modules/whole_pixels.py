"""Cosines along a flow by products with whole pixels, for cards without kernels of our own, in half precision.

A vector between four pixels is a sum of theirs, so its product with another vector is the same sum of their products,
and its squared length a sum of the products of neighbours. The nine neighbours of a position lie between sixteen
pixels. Their sixteen products, four at a time by a batched matrix product, take the place of nine sampled copies of the
map, each of which would be made, multiplied, squared and summed.
"""

from __future__ import annotations

import logging
from threading import Lock

import torch
from torch import Tensor

log = logging.getLogger(__name__)

#: Pixels along the square that the neighbours of a position lie between.
SIDE = 4
#: Bytes of pixels that are gathered at a time, and vectors that are multiplied with four pixels each in one batch. For
#: other shapes than this cuBLAS has kernels that take no more than 65,535.
_GATHERED, _BATCH = 1 << 28, 1 << 19
#: As in the lengths of whole vectors: never zero.
_LEAST = 1e-12
#: Whether cards that were tried have products in batches.
_found: dict[torch.device, bool] = {}
_lock = Lock()


def cosines(table: Tensor, width: int, first: Tensor, shares: tuple[Tensor, Tensor], vectors: Tensor) -> Tensor:
    """The cosine of each vector with the nine neighbours of its position.

    Args:
        table: pixels (N, C) of maps, row by row. The last row and the last column of each map are zero.
        width: pixels of a row.
        first: (P,) the upper left pixel of each position's square.
        shares: (x, y), each (P,) float32 in [0, 1]: how far the position lies from the square's second column, and row,
            on the way to its third.
        vectors: (P, C).

    Returns:
        (P, 9) float32, row by row.
    """
    channels = table.shape[1]
    runs = _runs(table)
    runs_of_products = _runs(_neighbouring_products(table, width))
    steps = torch.arange(0, SIDE * width, width, device=first.device, dtype=first.dtype)[:, None]
    found = vectors.new_empty(len(vectors), 9, dtype=torch.float32)
    size = min(max(1, _GATHERED // (SIDE * channels * table.element_size())), _BATCH)
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        (x, y), target, places = (share[part, None] for share in shares), vectors[part], first[part] + steps
        # What is gathered for a row is gone before the next one's is there.
        products = torch.stack(
            [_products(runs.index_select(0, row).unflatten(1, (SIDE, channels)), target) for row in places]
        )
        products = torch.lerp(products[..., :-1], products[..., 1:], x)
        products = torch.lerp(products[:-1], products[1:], y)
        pairs = runs_of_products.index_select(0, places.flatten()).view(*places.shape, SIDE, 4)
        across = _squared(pairs[..., :-1, :2], pairs[..., :-1, 2:], pairs[..., 1:, :2], x[..., None])
        lengths = _squared(across[:-1, ..., 0], across[:-1, ..., 1], across[1:, ..., 0], y).clamp_min_(_LEAST).sqrt_()
        lengths *= torch.linalg.vector_norm(target, dim=1, keepdim=True, dtype=torch.float32).clamp_min_(_LEAST**0.5)
        torch.div(products.transpose(0, 1), lengths.transpose(0, 1), out=found[part].view(-1, 3, 3))
    return found


def usable(device: torch.device) -> bool:
    """Whether a device has products of half precision that give float32, of large batches. A card is tried once."""
    if "dtype" not in torch.ops.aten.bmm.overloads() or torch.version.hip is not None:
        return False
    if device.type != "cuda":
        return True
    with _lock:
        if device not in _found:
            _found[device] = _tried(device)
        return _found[device]


def _tried(device: torch.device) -> bool:
    pixels = torch.ones(_BATCH // 4, SIDE, 8, dtype=torch.float16, device=device)
    try:
        if torch.equal(_products(pixels, pixels[:, 0]), torch.full(pixels.shape[:2], 8.0, device=device)):
            return True
        reason = "a sum came out wrong"
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
    log.warning("Products in batches do not work on %s, maps are sampled instead: %s", device, reason)
    return False


def _runs(table: Tensor) -> Tensor:
    """Each row of a table (N, C) with those after it, (N - 3, 4 C): a view, whose rows overlap."""
    channels = table.shape[1]
    return table.as_strided((len(table) - SIDE + 1, SIDE * channels), (channels, 1))


def _neighbouring_products(table: Tensor, width: int) -> Tensor:
    """Of each pixel with itself, with the one below it and with the one to its right, and the mean of both diagonals of
    the square that it begins: (N, 4) float32."""
    runs = _runs(table).unflatten(1, (SIDE, table.shape[1]))
    found = table.new_zeros(len(table), 4, dtype=torch.float32)  # the last row, of zeros, has none
    for start in range(0, len(runs) - width, _BATCH):
        stop = min(start + _BATCH, len(runs) - width)
        own, after, below = table[start:stop], table[start + 1 : stop + 1], runs[start + width : stop + width]
        found[start:stop, ::2] = _products(runs[start:stop], own)[:, :2]
        found[start:stop, 1::2] = _products(below, own)[:, :2]
        found[start:stop, 3:].lerp_(_products(below, after)[:, :1], 0.5)
    return found


def _products(pixels: Tensor, vectors: Tensor) -> Tensor:
    """Of pixels (P, 4, C) with vectors (P, C): (P, 4) float32."""
    if pixels.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):  # where a model learns, its sums are no less exact
            return torch.bmm(pixels.float(), vectors.float()[:, :, None])[..., 0]
    return torch.bmm(pixels, vectors[:, :, None], out_dtype=torch.float32)[..., 0]


def _squared(first: Tensor, both: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """The squared length of (1 - s) a + s b, from a a, a b and b b."""
    change = (first + last).sub_(both, alpha=2.0).mul_(torch.addcmul(share, share, share, value=-1.0))
    return torch.lerp(first, last, share).sub_(change)

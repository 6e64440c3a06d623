"""The nearest code of a codebook, without a matrix of distances."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import ceil_div, operator

#: Codes that a program compares: small maps have few positions, and want many programs.
_CODES = 512
_BLOCK_P, _BLOCK_N = 32, 64
#: Positions that a program merges the parts of.
_MERGED = 128


def nearest_code(z: Tensor, codes: Tensor, norms: Tensor) -> Tensor:
    """The index of the nearest code at each position, the lowest on a tie.

    Distances are |z|^2 + |e|^2 - 2 z.e, float32, each channel's product rounded by itself.

    Args:
        z: (B, C, ...) float32.
        codes: (n, C) float32.
        norms: |e|^2, (n,) float32.

    Returns:
        (B, ...) int64.
    """
    result: Tensor = _nearest_code(z.contiguous(), codes.contiguous(), norms)
    return result


def _shape(z: Tensor, codes: Tensor, norms: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], *z.shape[2:], dtype=torch.int64)


def _launch(z: Tensor, codes: Tensor, norms: Tensor) -> Tensor:
    from .device.codes import merge_kernel, nearest_kernel

    out = _shape(z, codes, norms)
    positions, (count, channels) = out.numel(), codes.shape
    parts = ceil_div(count, _CODES)
    found = z.new_empty(parts, positions, dtype=torch.int32)
    distances = z.new_empty(parts, positions)
    nearest_kernel[(ceil_div(positions, _BLOCK_P), parts)](
        z, codes, norms, found, distances, positions, positions // z.shape[0], channels, count,
        CODES=_CODES, BLOCK_P=_BLOCK_P, BLOCK_N=_BLOCK_N, enable_fp_fusion=False,
    )  # fmt: skip
    merge_kernel[(ceil_div(positions, 128),)](
        found, distances, out, positions, parts, BLOCK=128, enable_fp_fusion=False
    )
    return out


_nearest_code = operator("nearest_code(Tensor z, Tensor codes, Tensor norms) -> Tensor", _shape, _launch)

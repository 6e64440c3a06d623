"""What suits a device: sizes and choices that change time, memory and rounding, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch

from ..kernels.availability import usable


@dataclass(frozen=True)
class Tuning:
    """Sizes and choices for a device; the defaults are a graphics card's, which wants long kernels.

    Attributes:
        few_operations: take what is fewest operations, each over a whole map, though it rounds in another way; where
            there is no gradient.
        piece_positions: positions of a piece of a layer that is several times wider than its map.
        most_pieces: pieces of a whole map, at most; None for any number.
        piece_rows: rows of such a piece, at least, where its halo is computed twice.
        summed_elements: elements of a channels-last map that are summed at a time, without `few_operations`; longer
            sums lose digits.
        ones: positions that a product with ones sums, which is faster than a sum on some devices; 0 for no products.
        half_sums_in_parts: sum maps in half precision part by part, where PyTorch would copy them to float32 first.
        own_half_norm: norm maps in half precision by PyTorch's kernel: what it loses does not show there.
        linear_pointwise: 1x1 convolutions as linear maps, which do not copy their input; on a card they add their bias,
            which takes another pass after a convolution.
        attention_logits: logits of a slice of attention, where PyTorch's kernel keeps them.
        attention_products: logits of a slice of attention that is computed by matrix products.
        bfloat16_products: attention in bfloat16 by matrix products.
        float32_products: keys, from and to, of attention in float32 by matrix products.
        gathered_bytes: bytes of features gathered at a time along a flow, but see `gathered_positions`.
        gathered_positions: positions gathered at a time, at least.
        fused_gather: `embedding_bag` sums weighted rows in one pass.
        whole_pixels: with `few_operations`, cosines along a flow in half precision by products with whole pixels.
        distance_positions: latent positions whose distances to all codes are there together (of 2048 positions to
            8192 codes they take 64 MiB).
        kernels: call kernels of our own (:mod:`..kernels`), where there is no gradient.
    """

    few_operations: bool = True
    piece_positions: int = 1 << 17
    most_pieces: int | None = 4
    piece_rows: int = 16
    summed_elements: int = 1 << 19
    ones: int = 0
    half_sums_in_parts: bool = False
    own_half_norm: bool = False
    linear_pointwise: bool = True
    attention_logits: int = 1 << 26
    attention_products: int = 1 << 24
    bfloat16_products: bool = False
    float32_products: tuple[int, int] = (1024, 6144)
    gathered_bytes: int = 0
    gathered_positions: int = 1 << 20
    fused_gather: bool = True
    whole_pixels: bool = True
    distance_positions: int = 2048
    kernels: bool = False

    def for_strips(self) -> Tuning:
        """The same for layers in strips of rows, which are there to save memory."""
        if self.kernels or not self.few_operations:
            return self
        sizes = {name: getattr(_LEARNING, name) for name in ("piece_positions", "most_pieces", "gathered_positions")}
        return replace(self, few_operations=False, **sizes)

    @staticmethod
    def of(device: torch.device) -> Tuning:
        """What :func:`tuned` says, or the device's own. The ``meta`` device has a CUDA card's: what is counted there is
        what a card does."""
        # A compiler can look neither at what is said here nor at the number of threads.
        compiling = torch.compiler.is_compiling()
        said = None if compiling else _said.get()
        if said is not None:
            return said
        if device.type == "cpu":
            single = not compiling and torch.get_num_threads() == 1
            return _ONE_THREAD if single else _CPU
        if device.type in ("cuda", "meta"):
            if torch.is_grad_enabled() or compiling:
                return _LEARNING
            return _KERNELS if usable(device) else _CUDA
        return _OTHER


_said: ContextVar[Tuning | None] = ContextVar("tuning", default=None)


@contextmanager
def tuned(tuning: Tuning) -> Iterator[None]:
    """All layers take this tuning while the block runs, whatever their device."""
    token = _said.set(tuning)
    try:
        yield
    finally:
        _said.reset(token)


_CUDA = Tuning()
#: With gradients, or compiled.
_LEARNING = replace(
    _CUDA,
    few_operations=False,
    piece_positions=1 << 16,
    most_pieces=None,
    gathered_positions=1 << 18,
    linear_pointwise=False,
    float32_products=(1, 0),
)
#: What the kernels leave to PyTorch is small.
_KERNELS = replace(_LEARNING, few_operations=True, kernels=True)
_OTHER = replace(_LEARNING, fused_gather=False)
#: Pieces and chunks stay in the processor's cache.
_CPU = replace(
    _LEARNING,
    piece_positions=1 << 14,
    ones=32,
    half_sums_in_parts=True,
    own_half_norm=True,
    bfloat16_products=True,
    gathered_bytes=1 << 20,
    gathered_positions=1 << 12,
)
_ONE_THREAD = replace(_CPU, linear_pointwise=True)

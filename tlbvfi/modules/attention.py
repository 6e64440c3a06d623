"""Scaled dot-product attention, whole or in exact slices of the queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rows.tuning import Tuning


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, tuning: Tuning | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
        q: (N, heads, Lq, d).
        k, v: (N, heads, Lk, d).
        bias: broadcastable to (N, heads, Lq, Lk), or None.
        tuning: None for the device's own.

    Long queries go in slices: each row of the softmax still sees every key, so the result is the same.
    """
    tuning = tuning or Tuning.of(q.device)
    products = _products_are_faster(q, k, bias, tuning)
    most = tuning.attention_products if products else tuning.attention_logits
    attend = _by_products if products else F.scaled_dot_product_attention
    length = max(1, most // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
    if bias is not None or length >= q.shape[2]:
        return attend(q, k, v, bias)
    return torch.cat([attend(part, k, v) for part in q.split(length, dim=2)], dim=2)


def _products_are_faster(q: Tensor, k: Tensor, bias: Tensor | None, tuning: Tuning) -> bool:
    """On the CPU PyTorch's kernel does not use the processor's bfloat16; its matrix products do. On a card its float32
    kernel keeps few multiprocessors busy where queries are few; where they are many the logits are too much memory to
    move."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or q.shape[1] > 1:
        return False
    if q.dtype == torch.bfloat16:
        return tuning.bfloat16_products
    least, most = tuning.float32_products
    return q.dtype == torch.float32 and bias is None and len(q) == 1 and least <= k.shape[2] <= most


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same as two matrix products, for one head: the logits exist."""
    q, k, v = q.squeeze(1), k.squeeze(1), v.squeeze(1)
    like, beta = (q.new_empty(1, 1, 1), 0.0) if bias is None else (bias.squeeze(1), 1.0)
    logits = torch.baddbmm(like, q, k.transpose(1, 2), beta=beta, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(logits.softmax(dim=-1), v).unsqueeze(1)

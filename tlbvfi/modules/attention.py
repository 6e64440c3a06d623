"""Scaled dot-product attention, whole or in exact slices of the queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Elements of logits that a slice may hold where the kernel keeps them (the mathematical fallback).
MAX_LOGITS = 1 << 26


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
        q: (N, heads, Lq, d).
        k, v: (N, heads, Lk, d).
        bias: broadcastable to (N, heads, Lq, Lk), or None.

    Long queries go in slices: each row of the softmax still sees every key, so the result is the same.
    """
    rows = max(1, MAX_LOGITS // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
    if bias is not None or rows >= q.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return torch.cat([F.scaled_dot_product_attention(part, k, v) for part in q.split(rows, dim=2)], dim=2)

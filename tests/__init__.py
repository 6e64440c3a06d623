"""Tests. What they start with: on a machine without a card, Triton's kernels are interpreted, which is settled when
Triton is first imported, and PyTorch's counter of operations imports it."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

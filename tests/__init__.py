"""Tests. Where there is no card Triton interprets its kernels, which is settled when anything imports Triton first."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

"""Kernels of our own for graphics cards: operators of PyTorch, written in Triton.

Each module beside this one defines some operators and says in their docstrings what they compute; their shapes are
known on the ``meta`` device, so that what a card does is counted without one. The device code is in :mod:`.device` and
is imported when an operator first runs: Triton is never required. Whether these operators are called is said by
:class:`..rows.tuning.Tuning`; where they are not, the layers' own path in plain PyTorch is taken, which is their
reference.

They compute without gradients, in float32 whatever the maps' dtype, and sum in a fixed order: results do not change
from run to run.
"""

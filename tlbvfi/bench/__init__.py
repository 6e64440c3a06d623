"""Speed and memory of the model, in figures that survive a change of machine, and what to compare them with.

Wall time is also given in units of (seconds x the machine's float32 GEMM rate in TFLOP/s), the rate measured before and
after each case: a run that does F TFLOP per frame as fast as the machine multiplies matrices takes F of that unit.
What is measured how, and what came out: docs/PERFORMANCE.md.
"""

from ..known_models import STAND_IN
from .cases import Case
from .clock import gemm_rate
from .comparing import as_peer, compare
from .measuring import Result, flops_per_frame, measure, peak_bytes
from .stages import stage_times
from .stand_in import random_weights, stand_in_model
from .work import Work, total, work_per_frame

__all__ = [
    "STAND_IN",
    "Case",
    "Result",
    "Work",
    "as_peer",
    "compare",
    "flops_per_frame",
    "gemm_rate",
    "measure",
    "peak_bytes",
    "random_weights",
    "stage_times",
    "stand_in_model",
    "total",
    "work_per_frame",
]

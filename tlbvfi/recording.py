"""Work of a device that is captured once and replayed: CUDA graphs."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import torch

from .device_memory import is_asynchronous, is_out_of_memory
from .kernels.availability import usable
from .kernels.device.started import by_address

log = logging.getLogger(__name__)


class Recording(Protocol):
    """Work that was captured."""

    def replay(self) -> object:
        """Do it again, after the device's work so far; the host goes on at once."""
        ...


class Recorder(Protocol):
    """What captures work on a device. All of its recordings use one memory for what exists while they run."""

    def record(self, work: Callable[[], None]) -> Recording:
        """Do some work, so that everything that it needs is loaded, and capture it.

        It is the same work at every call, on the same tensors, and keeps none of the tensors that it makes. What it
        raises passes through.
        """
        ...


def recorder_for(device: torch.device) -> Recorder | None:
    """What captures work on a device; None where nothing does."""
    if device.type != "cuda" or not hasattr(torch._C, "_CUDAGraph") or torch.cuda.is_current_stream_capturing():
        return None
    if is_asynchronous() and usable(device) and not by_address():
        log.info(
            "No CUDA graphs with cudaMallocAsync and this version of Triton, so small frames take longer: ComfyUI has "
            "them with --disable-cuda-malloc, or with Triton 3.3 or newer."
        )
        return None
    return CudaRecorder(device)


class CudaRecorder:
    """Captures into CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pool: Any = None

    def record(self, work: Callable[[], None]) -> Recording:
        stream = _capture_stream(self.device)
        with _capturing, torch.cuda.device(self.device), torch.inference_mode(False), torch.no_grad():
            if self._graphs and not is_asynchronous():
                # What a capture needs is there since the first one: a second warm-up would only take memory. By
                # cudaMallocAsync a capture that fails ends the process, so there each is warmed up.
                try:
                    recording = self._captured(work, stream)
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                else:
                    recording.replay()
                    return recording
            torch.cuda.empty_cache()  # what earlier calls left is not there beside what this one takes
            current = torch.cuda.current_stream(self.device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                work()  # kernels are loaded, and libraries allocate what they keep for this stream
            current.wait_stream(stream)
            return self._captured(work, stream)

    def _captured(self, work: Callable[[], None], stream: torch.cuda.Stream) -> Recording:
        if not self._graphs:  # a pool goes with the last graph in it
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        refused: list[Exception] = []
        try:
            # This waits for the device and empties PyTorch's cache first: the warm-up's memory is used for the graph's.
            # Other threads may go on using the device meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                try:
                    work()
                except Exception as error:
                    refused.append(error)
                    raise
        except Exception:
            # A capture that is broken off may fail again as it ends; the reason is the first failure.
            if refused and is_out_of_memory(refused[0]):
                raise refused[0] from None
            raise
        self._graphs.add(graph)
        return graph


#: PyTorch captures one graph at a time with some of its allocators, and the stream below is everybody's.
_capturing = Lock()


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device on which graphs are captured. Always the same, as libraries keep memory for each."""
    return torch.cuda.Stream(device)

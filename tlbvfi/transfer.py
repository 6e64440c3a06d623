"""Copies between host and device that neither waits for: pinned memory, a side stream, events.

On devices other than CUDA the copies are ordinary, blocking ones.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host."""

    def __init__(self, tensor: Tensor, arrived: torch.cuda.Event | None = None) -> None:
        self._tensor, self._arrived = tensor, arrived

    def wait(self) -> Tensor:
        """The tensor on the host, after the device has finished writing it; the caller may keep it."""
        if self._arrived is None:
            return self._tensor.cpu()
        self._arrived.synchronize()
        # Pinned memory is scarce and PyTorch uses it again: what is kept is ordinary memory.
        return self._tensor.clone()


class HostCopies:
    """Copies of frames to and from one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; the host goes on at once, and the device's work before it is not waited for."""
        if self._stream is None or tensor.device.type != "cpu":
            return tensor.to(self.device)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            on_device = tensor.pin_memory().to(self.device, non_blocking=True)
        current.wait_stream(self._stream)
        on_device.record_stream(current)
        return on_device

    def to_host(self, tensor: Tensor) -> HostCopy:
        """Start copying to the host, after the device's work so far and beside what comes next."""
        if self._stream is None:
            return HostCopy(tensor.cpu())
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            pinned.copy_(tensor, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        tensor.record_stream(self._stream)
        return HostCopy(pinned, arrived)

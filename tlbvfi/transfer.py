"""Copies between host and device that neither waits for, and putting tensors aside.

Copies go through pinned memory, a side stream and events; on devices other than CUDA they are ordinary, blocking ones.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable

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


def put_aside(tensor: Tensor) -> Callable[[], Tensor]:
    """Free a tensor's memory on its device for a while.

    It waits on the host; where the device is the host, in an unnamed temporary file, or in memory where there is no
    room for that. The call returned, to be made once, gives the same tensor back: values, layout and device.
    """
    if tensor.device.type != "cpu":
        device, on_host = tensor.device, tensor.cpu()
        return lambda: on_host.to(device)
    try:
        return _Filed(tensor).read
    except OSError:
        return lambda: tensor


class _Filed:
    """A CPU tensor's bytes in a temporary file that goes with this object."""

    def __init__(self, tensor: Tensor) -> None:
        self._last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        rows = (tensor.permute(0, 2, 3, 1) if self._last else tensor).contiguous()
        self._shape, self._dtype = rows.shape, rows.dtype
        self._file = tempfile.TemporaryFile(prefix="tlbvfi-", buffering=0)  # noqa: SIM115
        self._close = weakref.finalize(self, self._file.close)
        view = rows.view(torch.uint8).numpy().reshape(-1).data
        while view:
            view = view[self._file.write(view) :]

    def read(self) -> Tensor:
        rows = torch.empty(self._shape, dtype=self._dtype)
        view = rows.view(torch.uint8).numpy().reshape(-1).data
        self._file.seek(0)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise OSError("a temporary file with features of a frame ended early")
            view = view[count:]
        self._close()
        return rows.permute(0, 3, 1, 2) if self._last else rows

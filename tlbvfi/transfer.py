"""Copies between host and device that neither waits for, and tensors offloaded for a while.

On CUDA, copies go through pinned memory, on one side stream for each direction, ordered by events. On other devices
they are ordinary, blocking ones.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

#: Bytes offloaded into pinned memory at a time, at most: the system cannot page them out.
MOST_PINNED = 1 << 30


class Arrival(Protocol):
    """What says that a copy is finished: a CUDA event."""

    def synchronize(self) -> object: ...


class HostCopy:
    """A tensor on its way to the host.

    Attributes:
        timely: waiting for it leaves the device with something to do: it has come, or another copy follows it.
    """

    def __init__(self, tensor: Tensor, arrived: Arrival | None = None) -> None:
        self._tensor, self._arrived = tensor, arrived
        self.timely = arrived is None

    def wait(self, which: int) -> Tensor:
        """One of the tensor's parts on the host, after the device has finished writing; the caller may keep it."""
        if self._arrived is None:
            return self._tensor[which].cpu()
        self._arrived.synchronize()
        # Pinned memory is scarce and PyTorch uses it again: what is kept is ordinary memory.
        return self._tensor[which].clone()


class HostCopies:
    """Copies of frames to and from one device, and of what has to wait on the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._latest: HostCopy | None = None
        self._pinned: weakref.WeakSet[_Pinned] = weakref.WeakSet()
        if device.type == "cuda":
            self._in, self._out, self._apart = _streams(device)

    def to_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; the host goes on at once, and the device's work before it is not waited for."""
        if self.device.type != "cuda" or tensor.device.type != "cpu":
            return tensor.to(self.device)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._in):
            on_device = pinned_like(tensor).copy_(tensor).to(self.device, non_blocking=True)
        current.wait_stream(self._in)
        on_device.record_stream(current)
        return on_device

    def apart(self, tensor: Tensor) -> Tensor:
        """The tensor in memory that only such tensors use: what stays for long leaves no gaps there between what comes
        and goes."""
        return self._place_apart(tensor).copy_(tensor) if self._has_apart else tensor

    @property
    def _has_apart(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.get_allocator_backend() == "native"

    def _place_apart(self, like: Tensor) -> Tensor:
        """Memory of the device for a tensor in its layout, as :meth:`apart` has it."""
        # PyTorch's allocator has memory for each stream. All work on the tensor is the current stream's.
        with torch.cuda.stream(self._apart):
            return self._place(like)

    def _place(self, like: Tensor) -> Tensor:
        """Memory of the device for a tensor in its layout."""
        return torch.empty_like(like, device=self.device, pin_memory=False)

    def to_host(self, tensor: Tensor) -> HostCopy:
        """Start copying to the host, after the device's work so far and beside what comes next."""
        copy = self._begun(tensor)
        if self._latest is not None:
            self._latest.timely = True
        self._latest = None if copy.timely else copy
        return copy

    def _begun(self, tensor: Tensor) -> HostCopy:
        if self.device.type != "cuda":
            return HostCopy(tensor.cpu())
        tensor = tensor.contiguous()
        on_host, arrived = _copied(tensor, self._out)
        tensor.record_stream(self._out)
        return HostCopy(on_host, arrived)

    def offload(self, tensor: Tensor, apart: bool = False) -> Offloaded:
        """Start moving a tensor of the device to the host, or, where the device is the host, to an unnamed temporary
        file (it stays in memory where there is no room for that). Where asked for it comes back :meth:`apart`."""
        place = self._place_apart if apart and self._has_apart else self._place
        if (
            self.device.type == "cuda"
            and sum(other.size for other in self._pinned) + pinned_size(tensor) <= MOST_PINNED
        ):
            pinned = _Pinned(tensor, self._out, place)
            self._pinned.add(pinned)
            return pinned
        if self.device.type != "cpu":
            return _Kept(tensor.cpu(), place)
        try:
            return _Filed(tensor)
        except OSError:
            return _Kept(tensor, lambda like: like)


@lru_cache
def _streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream, torch.cuda.Stream]:
    """The side streams of a device, to it, from it, and one for its memory alone. Always the same, as each keeps memory
    of its own."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device), torch.cuda.Stream(device)


def pinned_size(tensor: Tensor) -> int:
    """Bytes of pinned memory that a tensor takes: PyTorch rounds them up to a power of two."""
    return 1 << (tensor.numel() * tensor.element_size() - 1).bit_length()


def pinned_like(tensor: Tensor) -> Tensor:
    """Empty host memory for a tensor, dense and in its layout; pinned unless the system has no more of that."""
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(tensor, device="cpu")


def _copied(tensor: Tensor, stream: torch.cuda.Stream) -> tuple[Tensor, torch.cuda.Event]:
    """A copy on the host, begun on a side stream after the current one's work so far; and its end."""
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        on_host = pinned_like(tensor)
        on_host.copy_(tensor, non_blocking=on_host.is_pinned())
        return on_host, stream.record_event()


class Offloaded(Protocol):
    """A tensor off its device."""

    def release(self) -> None:
        """To be called before the tensor's memory is given up, in failure too: the device's next work comes after the
        copy."""

    def restore(self) -> Tensor:
        """The same tensor again: values, layout and device. To be called once."""
        ...


class _Pinned:
    """In pinned memory. Nothing here waits: the streams wait for each other."""

    def __init__(self, tensor: Tensor, stream: torch.cuda.Stream, place: Callable[[Tensor], Tensor]) -> None:
        """place: gives memory of the device for a tensor."""
        self._device, self.size, self._place = tensor.device, pinned_size(tensor), place
        self._tensor, self._copied = _copied(tensor, stream)

    def release(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._copied)

    def restore(self) -> Tensor:
        self.release()
        return self._place(self._tensor).copy_(self._tensor, non_blocking=True)


class _Kept:
    """In ordinary memory."""

    def __init__(self, tensor: Tensor, place: Callable[[Tensor], Tensor]) -> None:
        """place: gives memory of the device for a tensor."""
        self._tensor, self._place = tensor, place

    def release(self) -> None:
        pass

    def restore(self) -> Tensor:
        place = self._place(self._tensor)
        return place if place is self._tensor else place.copy_(self._tensor)


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

    def release(self) -> None:
        pass

    def restore(self) -> Tensor:
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

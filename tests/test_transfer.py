"""Copies between host and device: none where it would be waited for, and in an order that keeps the device at work.

There is no graphics card here. Model calls are made on the ``meta`` device, where every copy from the host shows and
whatever needs a value on the host fails; the order of a run is that of copies which only arrive when they are waited
for.
"""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

import tlbvfi
from tests.tiny import TINY, frames, tiny_model
from tlbvfi import interpolate
from tlbvfi.counting import counting
from tlbvfi.features import FrameFeatures
from tlbvfi.model import TLBVFI, convert_precision
from tlbvfi.padding import padding_for
from tlbvfi.planning import candidates
from tlbvfi.rows.cuts import WHOLE, Strips
from tlbvfi.transfer import HostCopies, HostCopy, Offloaded, _Filed, pinned_size

#: What makes a tensor of numbers of the host, or numbers of a tensor.
_FROM_NUMBERS = {"torch.tensor", "torch.as_tensor", "torch.from_numpy", "torch.Tensor.new_tensor"}
_TO_NUMBERS = {f"torch.Tensor.{name}" for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__")}


class Crossings(TorchFunctionMode):
    """The functions through which something goes between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = resolve_name(func)
        tensors = [t for t in (*args, *(kwargs or {}).values(), result) if isinstance(t, Tensor) and t.ndim]
        if len({t.device for t in tensors}) > 1 or name in _FROM_NUMBERS | _TO_NUMBERS:
            self.names.append(name)
        return result


@pytest.mark.parametrize(
    "crossing",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x * torch.tensor([1.0], device=x.device),
        lambda x: torch.arange(4).to(x.device),
        lambda x: x.copy_(torch.zeros(4)),
    ],
)
def test_crossings_are_seen(crossing: Callable[[Tensor], Tensor]) -> None:
    with Crossings() as crossings:
        crossing(torch.empty(4, device="meta"))
    assert crossings.names


@pytest.mark.parametrize("strips", [WHOLE, Strips(64 * 256)])
@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("size", [(200, 130), (20, 200)])
def test_no_model_call_waits_for_the_host(size: tuple[int, int], scale: float, strips: Strips) -> None:
    padding = padding_for(*size, multiple=128)
    with torch.no_grad():
        model = convert_precision(TLBVFI(TINY).finalize(), torch.float16).to("meta")
        frame = torch.empty(2, 3, *size, device="meta")
        noise = [torch.empty(2, *model.latent_shape(*padding.padded), device="meta") for _ in range(9)]
        with Crossings() as crossings:
            empty = model.encode_empty(*padding.padded, strips)
            ends = [model.encode_frame(padding.pad(frame), scale, strips, empty) for _ in range(2)]
            padding.crop(model.midpoint(*ends, 10, noise, strips=strips))
    assert crossings.names == []


class Slow(HostCopies):
    """Copies that come when they are waited for; what is offloaded is copied when it is released."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.begun = 0
        logs.append([])
        self.log = logs[-1]

    def _begun(self, tensor: Tensor) -> HostCopy:
        number = self.begun
        self.begun += 1
        self.log.append(f"begin {number}")
        return HostCopy(tensor, Event(lambda: self.log.append(f"wait {number}")))

    def offload(self, tensor: Tensor, apart: bool = False) -> Offloaded:
        return Later(tensor)


logs: list[list[str]] = []


class Event:
    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize


class Later:
    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)

    def release(self) -> None:
        tensor = self._tensor()
        assert tensor is not None, "given up before it was released"
        self._copy = tensor.clone()

    def restore(self) -> Tensor:
        return self.__dict__.pop("_copy")


@pytest.mark.parametrize("rows", [None, 64])
@pytest.mark.parametrize(
    ("times", "batch_size", "offload"), [(1, 1, True), (2, 1, True), (3, 1, True), (1, 2, True), (2, 2, True),
                                         (2, 1, False), (1, 2, False)],
)  # fmt: skip
def test_a_frame_is_waited_for_when_the_device_has_more_to_do(
    times: int, batch_size: int, offload: bool, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = tiny_model(), frames(4, 40, 56)
    plan = None
    if rows is not None:
        plan = next(way for way in candidates(40, 56, torch.float32, 0.5, TINY) if way.strip_rows <= rows)

    def run() -> list[Tensor]:
        return list(
            tlbvfi.interpolate_frames(
                model, source, times, sample_steps=3, batch_size=batch_size, offload=offload, plan=plan
            )
        )

    expected = run()
    monkeypatch.setattr(interpolate, "HostCopies", Slow)
    logs.clear()
    found = run()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    (log,) = logs
    begun = [line for line in log if line.startswith("begin")]
    for number in range(len(begun) - 1):
        waits = [place for place, line in enumerate(log) if line == f"wait {number}"]
        assert waits and min(waits) > log.index(f"begin {number + 1}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_offloaded_is_restored_the_same(dtype: torch.dtype, layout: torch.memory_format) -> None:
    tensor = torch.randn(2, 5, 6, 7).to(dtype).contiguous(memory_format=layout)
    with counting() as counter:
        copy = tensor.clone()
        offloaded = HostCopies(tensor.device).offload(copy)
        offloaded.release()
        del copy
        assert counter.current == 0
        again = offloaded.restore()
    assert torch.equal(again, tensor) and again.stride() == tensor.stride() and again.dtype == dtype


def test_offloaded_features_keep_what_they_share() -> None:
    model = tiny_model()
    with torch.no_grad():
        empty = model.encode_empty(128, 128)
        features = model.encode_frame(torch.zeros(1, 3, 128, 128), 1.0, empty=empty)
    again = features.offload(HostCopies(model.device)).take()
    assert again.pyramid[0] is again.flow_pyramid[0] and again.image is again.flow_image
    assert again.image is not features.image and again.empty is empty  # which all frames share
    assert all(torch.equal(a, b) for a, b in zip(again.flow_pyramid, features.flow_pyramid, strict=True))


def test_features_move_one_tensor_after_the_other_and_keep_what_they_share() -> None:
    shared = torch.rand(1, 4, 2, 2)
    image, deep = torch.rand(1, 3, 4, 4), torch.rand(1, 8, 1, 1)
    features = FrameFeatures(image, image, [None, shared, deep], [shared])
    gone: list[weakref.ref[Tensor]] = []
    sizes: list[int] = []
    before = [image.clone(), shared.clone(), deep.clone()]
    del image, shared, deep

    def move(tensor: Tensor) -> Tensor:
        assert all(one() is None for one in gone)  # what was moved before is given up
        gone.append(weakref.ref(tensor))
        sizes.append(tensor.nbytes)
        return tensor.clone()

    features.relocate(move)
    assert len(gone) == 3 and sizes == sorted(sizes)
    assert features.flow_image is features.image and features.flow_pyramid[0] is features.pyramid[1]
    for tensor, value in zip((features.image, *features.pyramid[1:]), before, strict=True):
        assert tensor is not None and torch.equal(tensor, value)


class Hesitant:
    """A file that gives and takes three bytes at a time, and `left` of them at all."""

    def __init__(self, file: Any, left: int) -> None:
        self._file, self._left = file, left

    def seek(self, offset: int) -> int:
        return int(self._file.seek(offset))

    def readinto(self, view: memoryview) -> int:
        count = int(self._file.readinto(view[: min(3, self._left)]))
        self._left -= count
        return count


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_temporary_file_is_read_to_its_end_or_its_early_end_is_said(layout: torch.memory_format) -> None:
    tensor = torch.randn(1, 3, 2, 5).to(memory_format=layout)
    filed = _Filed(tensor)
    filed._file = Hesitant(filed._file, tensor.nbytes)  # type: ignore[assignment]
    assert torch.equal(filed.restore(), tensor)
    filed = _Filed(tensor)
    filed._file = Hesitant(filed._file, tensor.nbytes - 1)  # type: ignore[assignment]
    with pytest.raises(OSError, match="ended early"):
        filed.restore()
    filed = _Filed(tensor)
    filed._file.truncate(7)
    with pytest.raises(OSError, match="ended early"):
        filed.restore()


def test_a_temporary_file_that_takes_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow:
        def __init__(self, **_: object) -> None:
            self._file = real(buffering=0)
            self.close, self.seek, self.readinto = self._file.close, self._file.seek, self._file.readinto

        def write(self, view: memoryview) -> int:
            return self._file.write(view[:3]) or 0

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", Narrow)
    tensor = torch.randn(2, 5)
    assert torch.equal(_Filed(tensor).restore(), tensor)


def test_where_there_is_no_room_for_a_temporary_file_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    tensor = torch.randn(2, 5)
    assert torch.equal(HostCopies(torch.device("cpu")).offload(tensor.clone()).restore(), tensor)


@pytest.mark.parametrize(("size", "taken"), [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_pinned_memory_is_a_power_of_two(size: int, taken: int) -> None:
    assert pinned_size(torch.empty(size, dtype=torch.uint8)) == taken

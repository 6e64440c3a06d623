"""Bytes counted while they are alive."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tiny import tiny_model
from tlbvfi.allocator import Event
from tlbvfi.counting import FusedAttention, LiveBytes, Recording, channels_last, counting


def test_live_bytes_follow_allocation_and_release() -> None:
    with LiveBytes() as counter:
        a = torch.zeros(1000)  # 4,000 bytes
        view = a[10:20]
        b = a + 1
        assert counter.current == 8000
        del a
        assert counter.current == 8000  # the view holds it
        del view, b
        c = torch.zeros(500, dtype=torch.float16)
        assert counter.current == 1000
        del c
    assert (counter.current, counter.peak) == (0, 8000)


def test_a_model_s_weights_are_excluded() -> None:
    model = tiny_model()
    weight = model.vqgan.encoder.conv_in.weight
    with counting(model) as counter:
        view = weight.permute(0, 2, 3, 1)
        assert counter.current == 0
        del view


def test_the_empty_frame_needs_no_memory_for_gradients() -> None:
    """It is encoded as the run begins, wherever that is."""
    peaks = []
    for enabled in (False, True):
        model = tiny_model()
        with torch.set_grad_enabled(enabled), counting(model) as counter:
            model.encode_empty(256, 256)
        peaks.append(counter.peak)
    assert peaks[0] == peaks[1]


def sizes(events: list[Event]) -> list[int]:
    """Bytes that come, and that go with a minus."""
    came = {event.key: event.size for event in events if event.size}
    return [event.size or -came[event.key] for event in events]


def test_a_recording_says_what_comes_and_goes() -> None:
    x = torch.empty(1000, device="meta")
    with Recording([x]) as recording:
        y = x + 1
        y.mul_(2)
        view = y[:10]
        del y
        host = torch.ones(5)
        z = view.to(torch.float16) + host.to("meta", torch.float16)[0]
        recording.stream = 1
        pair = torch.var_mean(x)
        del view, z
    assert sizes(recording.events) == [4000, 20, 10, 20, -20, -10, 4, 4, -4000, -20]
    assert [event.stream for event in recording.events if event.size] == [0, 0, 0, 0, 1, 1]
    assert sizes(recording.ended())[-2:] == [-4, -4]
    assert len(pair) == 2


def test_operations_are_asked_once_for_each_shape() -> None:
    """And give the same the second time, where that has other arguments too."""

    def run() -> list[Tensor]:
        x = torch.empty(2, 3, 4, 5, device="meta").contiguous(memory_format=torch.channels_last)
        counts = torch.empty(7, dtype=torch.int64, device="meta")
        parts = [counts + 1, counts + 1.0, counts * True, x + 1, x.permute(3, 2, 1, 0) + 1, *torch.var_mean(x, 1)]
        return [*parts, x.clone(), torch.empty_like(x).copy_(x), x.clone().unsqueeze_(0), torch.cat([x, x]), x[0] * 2]

    plain = run()
    with Recording():
        first, second = run(), run()
    for expected, *others in zip(plain, first, second, strict=True):
        for other in others:
            assert (other.shape, other.stride(), other.dtype) == (expected.shape, expected.stride(), expected.dtype)


def test_what_an_operation_has_beside_its_result() -> None:
    x = torch.empty(100, device="meta")
    with Recording([x], lambda func, args, result: 64 * (func is torch.ops.aten.add.Tensor)) as recording:
        y = x + x
        del y
    assert sizes(recording.events) == [400, 64, -64, -400]


@pytest.mark.parametrize("weight_last", [False, True])
@pytest.mark.parametrize("map_last", [False, True])
def test_convolutions_have_a_device_s_layout(map_last: bool, weight_last: bool) -> None:
    x, weight = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    layouts = {False: torch.contiguous_format, True: torch.channels_last}
    x, weight = x.contiguous(memory_format=layouts[map_last]), weight.contiguous(memory_format=layouts[weight_last])
    with Recording():
        counted = F.conv2d(x.to("meta"), weight.to("meta"))
    assert channels_last(counted) == (map_last or weight_last)
    assert counted.shape == (2, 4, 6, 6)


def test_attention_is_fused() -> None:
    q, k, v = (torch.empty(2, 3, length, 8, device="meta") for length in (100, 50, 50))
    with FusedAttention(), Recording() as recording:
        result = F.scaled_dot_product_attention(q, k, v)
    assert result.shape == q.shape
    assert max(sizes(recording.events)) == result.nbytes

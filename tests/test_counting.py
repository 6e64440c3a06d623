"""Bytes counted while they are alive."""

from __future__ import annotations

import torch

from tests.tiny import tiny_model
from tlbvfi.counting import LiveBytes, counting


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

"""Counted bytes, and plans made of them."""

from __future__ import annotations

import pytest
import torch

import tlbvfi
from tests.tiny import TINY, tiny_model
from tlbvfi.memory import LiveBytes, counting


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


def test_weights_are_counted_apart() -> None:
    model = tiny_model()
    weight = model.vqgan.encoder.conv_in.weight
    with counting(model) as counter:
        view = weight.permute(0, 2, 3, 1)
        assert counter.current == 0
        del view


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_plan_is_what_a_run_takes(dtype: torch.dtype, scale: float) -> None:
    """Predicted from a small count, within a tenth of what a real pair of another size and shape allocates."""
    found = tlbvfi.plan(250, 500, dtype, scale, params=TINY)
    assert found.padded_size == (256, 512)
    model = tiny_model(dtype=dtype)
    x = torch.zeros(1, 3, 256, 512)
    with torch.no_grad():
        model.encode_empty(256, 512)
        with counting(model) as counter:
            features = [model.encode_frame(x, scale), model.encode_frame(x, scale)]
            model.midpoint(*features, 3)
    assert found.weight_bytes == sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert found.peak_bytes - found.weight_bytes == pytest.approx(counter.peak, rel=0.1)


def test_half_precision_is_the_default_and_takes_less() -> None:
    half, full = tlbvfi.plan(300, 300, params=TINY), tlbvfi.plan(300, 300, torch.float32, params=TINY)
    assert half == tlbvfi.plan(300, 300, torch.float16, params=TINY)
    assert half.peak_bytes < full.peak_bytes  # much float32 in a model as narrow as this


def test_a_budget_too_small_is_one_sentence() -> None:
    needed = tlbvfi.plan(300, 300, params=TINY).peak_bytes
    assert tlbvfi.plan(300, 300, budget=needed, params=TINY).peak_bytes == needed
    with pytest.raises(
        ValueError, match=r"^300x300 at flow scale 0.5 in float16 needs .* GiB, more than .*; use a smaller size"
    ):
        tlbvfi.plan(300, 300, budget=needed - 1, params=TINY)


def test_impossible_plans() -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        tlbvfi.plan(0, 10, params=TINY)
    with pytest.raises(ValueError, match="flow_scale must be"):
        tlbvfi.plan(10, 10, flow_scale=2.0, params=TINY)

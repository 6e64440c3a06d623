"""Any size, multiple, mode and flow scale."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import cases
from tlbvfi.padding import FLOW_MULTIPLE, Padding, flow_size, padding_for

modes = st.sampled_from(["tight", "published"])
sides = st.integers(1, 70_000)


@cases(15)
@given(sides, sides, st.integers(1, 1024), modes)
@example(256, 512, 256, "published")
@example(1, 1, 1, "published")
def test_the_padded_size_is_the_least_of_its_rule(height: int, width: int, multiple: int, mode: str) -> None:
    padding = padding_for(height, width, mode, multiple)  # type: ignore[arg-type]
    assert padding_for(*padding.padded, mode, multiple).padded == padding.padded  # type: ignore[arg-type]
    for side, padded in zip((height, width), padding.padded, strict=True):
        unit = multiple if mode == "tight" else 2 * multiple
        least = next(n * unit for n in (side // unit, side // unit + 1) if n * unit >= side)
        assert padded == (side if mode == "published" and least == 2 * side else least)
        assert padded % multiple == 0


@cases(8)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    multiple=st.integers(1, 40),
    mode=modes,
    lead=st.lists(st.integers(1, 2), max_size=3),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
)
@example(size=(1, 1), multiple=40, mode="published", lead=[], channels_last=False, dtype=torch.float16)
@example(size=(20, 40), multiple=40, mode="published", lead=[2], channels_last=False, dtype=torch.float32)
def test_what_is_padded_is_reflected_and_cropped_again(
    size: tuple[int, int], multiple: int, mode: str, lead: list[int], channels_last: bool, dtype: torch.dtype
) -> None:
    shape = (*lead, *size)
    frame = torch.arange(np.prod(shape, dtype=int)).remainder(251).reshape(shape).to(dtype)
    if channels_last and frame.ndim == 4:
        frame = frame.contiguous(memory_format=torch.channels_last)
    before = frame.clone()
    padding = padding_for(*size, mode, multiple)  # type: ignore[arg-type]
    padded = padding.pad(frame)
    around = [(0, 0)] * len(lead) + [(0, big - side) for side, big in zip(size, padding.padded, strict=True)]
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded.double().numpy(), np.pad(frame.double().numpy(), around, "reflect"))
    cropped = padding.crop(padded)
    assert torch.equal(cropped, before) and torch.equal(frame, before)
    assert cropped.untyped_storage().data_ptr() == padded.untyped_storage().data_ptr()
    assert Padding(size, size).pad(frame).shape == frame.shape


@cases(5)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.1, 1.0))
@example(1, 1, 0.1)
@example(4, 4, 1.0)
@example(4, 4, 0.9999)
def test_the_flow_size_is_the_nearest_that_the_flow_takes(rows: int, columns: int, scale: float) -> None:
    size = rows * 64, columns * 64
    for found, side in zip(flow_size(*size, scale), size, strict=True):
        assert found % FLOW_MULTIPLE == 0 and FLOW_MULTIPLE <= found <= side
        others = (abs(n * FLOW_MULTIPLE - side * scale) for n in range(1, side // FLOW_MULTIPLE + 1))
        assert abs(found - side * scale) == min(others)

"""Sizes: the multiples, the reflection, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tlbvfi
from tlbvfi.padding import FLOW_MULTIPLE, Padding, check_flow_scale, flow_size, padding_for

sides = st.integers(1, 2000)
multiples = st.sampled_from([32, 128, 256])
modes = st.sampled_from(["tight", "published"])


@given(sides, sides, modes, multiples)
def test_padded_sides_are_multiples_and_hold_the_frame(height: int, width: int, mode: str, multiple: int) -> None:
    padding = padding_for(height, width, mode, multiple)  # type: ignore[arg-type]
    assert padding.size == (height, width)
    for side, padded in zip(padding.size, padding.padded, strict=True):
        assert padded % multiple == 0
        assert padded >= side
        if mode == "tight":
            assert padded - side < multiple
        else:
            assert padded == side or padded % (2 * multiple) == 0


@given(sides, sides, modes)
def test_a_padded_size_is_not_padded_again(height: int, width: int, mode: str) -> None:
    padded = padding_for(height, width, mode).padded  # type: ignore[arg-type]
    assert padding_for(*padded, mode).padded == padded  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "tight", "published"),
    [
        ((1, 1), (256, 256), (512, 512)),
        ((256, 256), (256, 256), (256, 256)),
        ((257, 255), (512, 256), (512, 512)),
        ((320, 448), (512, 512), (512, 512)),
        ((480, 720), (512, 768), (512, 1024)),
        ((512, 1024), (512, 1024), (512, 1024)),
        ((768, 1280), (768, 1280), (1024, 1536)),
        ((1080, 1920), (1280, 2048), (1536, 2048)),
        ((2160, 3840), (2304, 3840), (2560, 4096)),
    ],
)
def test_sizes_of_the_published_model(
    size: tuple[int, int], tight: tuple[int, int], published: tuple[int, int]
) -> None:
    assert padding_for(*size).padded == tight
    assert padding_for(*size, "published").padded == published
    assert tlbvfi.padding_for(*size) == padding_for(*size)


def check_reflection(size: tuple[int, int], padded: tuple[int, int]) -> None:
    """Against NumPy, whose reflection goes back and forth as often as it takes and repeats a single pixel."""
    frame = torch.arange(size[0] * size[1], dtype=torch.float32).reshape(1, 1, *size)
    padding = Padding(size, padded)
    result = padding.pad(frame)
    below, right = padded[0] - size[0], padded[1] - size[1]
    assert result.shape == (1, 1, *padded)
    np.testing.assert_array_equal(
        result[0, 0].numpy(), np.pad(frame[0, 0].numpy(), ((0, below), (0, right)), "reflect")
    )
    assert torch.equal(padding.crop(result), frame)


@given(side=st.integers(1, 2000), other=st.integers(1, 12), multiple=st.sampled_from([4, 32, 256]), tall=st.booleans())
@settings(max_examples=60, deadline=None)
@example(side=1, other=1, multiple=256, tall=True)
@example(side=2, other=1, multiple=256, tall=False)
@example(side=128, other=12, multiple=256, tall=True)
@example(side=129, other=3, multiple=256, tall=True)
def test_reflection_and_the_way_back(side: int, other: int, multiple: int, tall: bool) -> None:
    size = (side, other) if tall else (other, side)
    padded = padding_for(*size, "tight", multiple).padded
    check_reflection(size, padded)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 90), st.integers(0, 90))
@settings(deadline=None)
def test_any_pad_of_any_small_frame(height: int, width: int, below: int, right: int) -> None:
    check_reflection((height, width), (height + below, width + right))


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7), (2, 1, 3, 5, 7)])
@pytest.mark.parametrize("padded", [(5, 7), (8, 8), (32, 32)])
def test_leading_dimensions_and_dtypes_are_kept(shape: tuple[int, ...], padded: tuple[int, int]) -> None:
    for dtype in (torch.float32, torch.float64):
        frame = torch.rand(shape).to(dtype)
        padding = Padding((5, 7), padded)
        result = padding.pad(frame)
        assert result.shape == (*shape[:-2], *padded)
        assert result.dtype == dtype
        assert torch.equal(padding.crop(result), frame)


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Expected a frame of 7x5, got 9x6\.$"):
        Padding((5, 7), (8, 8)).pad(torch.zeros(1, 6, 9))


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_frame_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"^A frame needs at least 1x1 pixels, not {width}x{height}\.$"):
        padding_for(height, width)


def test_a_side_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sides must be whole numbers, not 5 wide and 7\.5 high\.$"):
        padding_for(7.5, 5)  # type: ignore[arg-type]


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="tight, published"):
        padding_for(5, 5, "none")  # type: ignore[arg-type]


@given(sides, sides, st.floats(0.1, 1.0))
def test_flow_sizes_are_near_and_fit(height: int, width: int, scale: float) -> None:
    padded = padding_for(height, width).padded
    size = flow_size(*padded, scale)
    for flow, side in zip(size, padded, strict=True):
        assert flow % FLOW_MULTIPLE == 0
        assert FLOW_MULTIPLE <= flow <= side
        assert abs(flow - side * scale) <= FLOW_MULTIPLE / 2


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((256, 256), 1.0, (256, 256)),
        ((256, 512), 0.5, (128, 256)),
        ((256, 256), 0.1, (32, 32)),
        ((1280, 2048), 0.3, (384, 608)),
    ],
)
def test_flow_sizes(size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert flow_size(*size, scale) == expected


@pytest.mark.parametrize("scale", [0.0, 0.0999, 1.0001, -1.0, float("nan"), float("inf")])
def test_flow_scales_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"between 0\.1 and 1\.0"):
        check_flow_scale(scale)
    with pytest.raises(ValueError, match=r"between 0\.1 and 1\.0"):
        flow_size(256, 256, scale)

"""Means over squares, by both ways in which devices make them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.test_modules import generator
from tlbvfi.modules.squares import mean_around
from tlbvfi.rows.tuning import Tuning, tuned

CARD, PROCESSOR = Tuning(), Tuning(few_operations=False)


@pytest.mark.parametrize("tuning", [CARD, PROCESSOR])
@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(9, 13, 5), (3, 40, 7), (40, 3, 7), (1, 1, 7), (20, 20, 1), (30, 17, 15), (64, 65, 33)],
)
def test_what_is_beyond_the_map_does_not_count(tuning: Tuning, height: int, width: int, side: int) -> None:
    x = torch.rand(2, 3, height, width, generator=generator(height))
    before = x.clone()
    with tuned(tuning):
        means = mean_around(x, side)
    expected = F.avg_pool2d(x.double(), side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(means, expected.float(), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("tuning", [CARD, PROCESSOR])
@pytest.mark.parametrize("side", [3, 7, 13])
def test_rows_of_a_part_are_those_of_the_whole(tuning: Tuning, side: int) -> None:
    """To the bit: what works in strips gives what it gives in one."""
    x = torch.rand(1, 2, 60, 44, generator=generator(side))
    with tuned(tuning):
        whole, part = mean_around(x, side), mean_around(x[:, :, 11:50], side)
    reach = side // 2
    assert torch.equal(whole[:, :, 11 + reach : 50 - reach], part[:, :, reach : 39 - reach])

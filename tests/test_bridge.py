"""The schedule's mathematics and the sampler, with a denoiser of three lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.schedule_buffers import schedule_buffers
from tlbvfi import bridge
from tlbvfi.bridge import Schedule, generator_at
from tlbvfi.config import BridgeParams

SCHEDULE = Schedule(BridgeParams())


def test_buffers_are_those_of_the_checkpoint() -> None:
    expected = schedule_buffers()
    buffers = SCHEDULE.buffers()
    assert set(buffers) == set(expected)
    assert all(np.array_equal(buffers[name], expected[name]) for name in expected)


@pytest.mark.parametrize("count", [3, 4, 6, 7, 10, 20, 50, 100, 333, 999, 1000])
def test_timesteps(count: int) -> None:
    steps = SCHEDULE.timesteps(count)
    assert len(steps) == count
    assert steps[:-2] == [999 - math.ceil(i * 999 / (count - 2) - 1e-9) for i in range(count - 2)]
    assert steps[-2:] == [1, 0]


def test_ten_steps_are_the_published_list() -> None:
    assert SCHEDULE.timesteps(10) == [999, 874, 749, 624, 499, 374, 249, 124, 1, 0]


@pytest.mark.parametrize("steps", [0, 2, 1001, -5, [], [5, 3], [1000, 0], [5, 5, 0], [0, 3]])
def test_impossible_steps_are_named(steps: int | list[int]) -> None:
    with pytest.raises(ValueError, match="sample_steps must"):
        SCHEDULE.timesteps(steps)


def test_a_perfect_denoiser_gives_the_latent() -> None:
    """Where the denoiser knows x_t - x_0, the bridge ends at x_0 whatever the noise."""
    x_0, y = torch.randn(2, 3, 3, 4, 4), torch.randn(2, 3, 3, 4, 4)
    result = bridge.sample(lambda x, y, t: x - x_0, y, SCHEDULE, SCHEDULE.timesteps(10), generator_at(1))
    assert (result - x_0).abs().max() < 1e-5


def test_states_follow_the_bridge() -> None:
    """With a perfect denoiser the state at t has mean (1 - m_t) x_0 + m_t y and variance v_t."""
    x_0, y = torch.full((1, 3, 3, 64, 64), 2.0), torch.full((1, 3, 3, 64, 64), -1.0)
    seen: dict[int, Tensor] = {}

    def denoiser(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        seen[int(t[0])] = x
        return x - x_0

    steps = [999, 700, 400, 100, 1, 0]
    bridge.sample(denoiser, y, SCHEDULE, steps, generator_at(3))
    for t in steps[1:]:
        m, v = float(SCHEDULE.m[t]), float(SCHEDULE.variance[t])
        assert seen[t].mean().item() == pytest.approx((1 - m) * 2.0 - m, abs=0.02)
        assert seen[t].var().item() == pytest.approx(v, rel=0.05, abs=1e-3)


def test_noise_may_be_a_list_or_a_generator() -> None:
    y = torch.randn(1, 3, 3, 2, 2)
    denoiser = lambda x, y, t: 0.3 * x - 0.1 * y  # noqa: E731
    listed = [torch.randn(y.shape, generator=g) for g in [generator_at(9)] for _ in range(4)]
    steps = SCHEDULE.timesteps(5)
    assert torch.equal(
        bridge.sample(denoiser, y, SCHEDULE, steps, listed),
        bridge.sample(denoiser, y, SCHEDULE, steps, generator_at(9)),
    )
    with pytest.raises(ValueError, match="4 tensors"):
        bridge.sample(denoiser, y, SCHEDULE, steps, listed[:3])
    with pytest.raises(ValueError, match="shaped"):
        bridge.sample(denoiser, y, SCHEDULE, steps, [n[..., :1] for n in listed])


def test_places_have_unrelated_noise() -> None:
    drawn = {
        tuple(torch.randn(3, generator=generator_at(*p)).tolist()) for p in [(0, 0, 1, 1), (0, 1, 1, 1), (1, 0, 1, 1)]
    }
    assert len(drawn) == 3
    assert torch.equal(torch.randn(3, generator=generator_at(5, 2)), torch.randn(3, generator=generator_at(5, 2)))


def test_whole_steps_are_those_of_the_sampler() -> None:
    """Where the denoiser makes them itself; the last one ends at x_0."""
    y, steps = torch.randn(2, 3, 3, 4, 4), SCHEDULE.timesteps(6)
    noise = [torch.randn(y.shape) for _ in range(5)]
    numbers = []

    def step(x: Tensor, number: int, factors: bridge.Factors, drawn: Tensor) -> Tensor:
        a, b, c, d, m, e = factors
        x_0 = x - (0.3 * x - 0.1 * y)
        numbers.append(number)
        return a * x_0 + b * y + c * (x - d * x_0 - m * y) + e * drawn

    whole = bridge.sample_by(step, y, SCHEDULE, steps, noise)
    assert numbers == list(range(6))
    assert torch.equal(whole, bridge.sample(lambda x, y, t: 0.3 * x - 0.1 * y, y, SCHEDULE, steps, noise))
    with pytest.raises(ValueError, match="5 tensors"):
        bridge.sample_by(step, y, SCHEDULE, steps, noise[:4])


@pytest.mark.parametrize(("count", "max_var"), [(10, 1.0), (17, 1000.0), (18, 0.001), (37, 1.0), (9999, 1.0)])
def test_other_schedules_have_factors(count: int, max_var: float) -> None:
    """A variance that is zero may be rounded to less, whose root is none."""
    schedule = Schedule(BridgeParams(count, max_var))
    steps = schedule.timesteps(10)
    pairs = [*zip(steps, steps[1:], strict=False), *((t, t - 1) for t in range(1, min(count, 100)))]
    assert all(math.isfinite(factor) for t, n in pairs for factor in schedule.factors(t, n))


def test_the_largest_variance_of_a_configuration_counts() -> None:
    wide = Schedule(BridgeParams(max_var=2.0))
    np.testing.assert_allclose(wide.variance, 2 * SCHEDULE.variance, rtol=1e-6)


def test_a_list_may_begin_where_the_bridge_does() -> None:
    assert SCHEDULE.timesteps([999, 0]) == [999, 0]


def test_noise_is_the_same_for_good() -> None:
    """A seed gives the frames that it gave before; these are numbers of ours, the draws are PyTorch's."""
    assert generator_at(0, 0, 1, 1).initial_seed() == 2206715424566519654
    assert generator_at(2**64 - 1, 7, 3, 2).initial_seed() == 902565827704201449

"""The Brownian bridge between the latent of a clip with its middle frame and the latent without (paper section 3.3).

Symbols are the paper's: m_t runs from 0.001 to 0.999 over T timesteps, the variance is v_t = 2 (m_t - m_t^2);
y is the latent of (x0, zeros, x1), x_t the state, x_0 the latent wanted.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from . import schedules
from .config import BridgeParams
from .quoting import quoted
from .ranges import MIN_STEPS

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Step = Callable[[Tensor, int, "Factors", Tensor], Tensor]
Noise = Sequence[Tensor] | torch.Generator | None


class Factors(NamedTuple):
    """What one step from t to n multiplies (paper eq. 8, eta = 1), with d = 1 - m_t and m = m_t.

    x_n = a x_0 + b y + c (x_t - d x_0 - m y) + e noise.
    """

    a: float
    b: float
    c: float
    d: float
    m: float
    e: float


#: Of a step that ends at x_0.
LAST = Factors(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Schedule:
    """m_t and v_t of every timestep, computed in float64 and rounded to float32."""

    def __init__(self, params: BridgeParams) -> None:
        self.num_timesteps = params.num_timesteps
        m = np.linspace(0.001, 0.999, params.num_timesteps)
        variance = 2.0 * (m - m**2) * params.max_var
        self.m = m.astype(np.float32)
        self.variance = variance.astype(np.float32)
        self._float64 = (m, variance)

    def buffers(self) -> dict[str, np.ndarray]:
        """The six schedule buffers that the published checkpoint stores, float32 (T,) each, by their names."""
        m, variance = self._float64
        m_prev, variance_prev = np.concatenate([[0.0], m[:-1]]), np.concatenate([[0.0], variance[:-1]])
        step = variance - variance_prev * ((1.0 - m) / (1.0 - m_prev)) ** 2
        values = {
            "m_t": m,
            "m_tminus": m_prev,
            "variance_t": variance,
            "variance_tminus": variance_prev,
            "variance_t_tminus": step,
            "posterior_variance_t": step * variance_prev / variance,
        }
        return {name: value.astype(np.float32) for name, value in values.items()}

    def timesteps(self, sample_steps: int | Sequence[int]) -> list[int]:
        """The timesteps a sampler visits, from T - 1 down to 0.

        Args:
            sample_steps: a number S >= 3 of steps, as :func:`.schedules.linear` spreads them; or the list itself.

        Raises:
            ValueError: neither of both, fewer than 3 or more than T steps, or a list that does not fall from below T
                to 0.
        """
        if _is_whole(sample_steps):
            sample_steps = int(sample_steps)
            if not MIN_STEPS <= sample_steps <= self.num_timesteps:
                raise ValueError(
                    f"sample_steps must be between {MIN_STEPS} and {self.num_timesteps}, not {quoted(sample_steps)}."
                )
            return schedules.linear(sample_steps, self.m.tolist())
        steps: list[Any] = []
        with suppress(TypeError):  # what is no list, or a tensor of one number
            steps = [] if isinstance(sample_steps, str) else [*cast("Sequence[Any]", sample_steps)]
        if not steps:
            raise ValueError(f"sample_steps must be a whole number or a list of them, not {quoted(sample_steps)}.")
        if not all(map(_is_whole, steps)):
            raise ValueError(f"sample_steps must be whole numbers, not {quoted(steps)}.")
        steps = [int(t) for t in steps]
        schedules.check_falling("sample_steps", steps, self.num_timesteps - 1)
        return steps

    def factors(self, t: int, n: int) -> Factors:
        """Of the step from t to n, computed in float32."""
        one, zero = np.float32(1.0), np.float32(0.0)
        m_t, m_n, v_t, v_n = self.m[t], self.m[n], self.variance[t], self.variance[n]
        sigma2 = (v_t - v_n * (one - m_t) ** 2 / (one - m_n) ** 2) * v_n / v_t
        # Of schedules other than the published one, a zero may be rounded to less.
        c, e = np.sqrt(np.maximum((v_n - sigma2) / v_t, zero)), np.sqrt(np.maximum(sigma2, zero))
        return Factors(float(one - m_n), float(m_n), float(c), float(one - m_t), float(m_t), float(e))


def _is_whole(value: object) -> TypeGuard[int | np.integer[Any]]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def draws(noise: Noise, count: int, like: Tensor) -> Iterator[Tensor]:
    """`count` standard normal tensors shaped as `like` on its device, from a list, a generator or torch's default.

    Raises:
        ValueError: a list of the wrong length, or a draw of the wrong shape.
    """
    if noise is None or isinstance(noise, torch.Generator):
        device = noise.device if noise is not None else torch.device("cpu")
        for _ in range(count):
            drawn = torch.randn(like.shape, generator=noise, device=device, dtype=torch.float32)
            yield drawn.to(like.device, non_blocking=like.device.type == "cuda")
        return
    if len(noise) != count:
        raise ValueError(f"noise must hold {count} tensors (one fewer than the steps), not {len(noise)}.")
    for tensor in noise:
        if tensor.shape != like.shape:
            raise ValueError(f"noise must be shaped {tuple(like.shape)}, not {tuple(tensor.shape)}.")
        yield tensor.to(device=like.device, dtype=torch.float32)


def sample(denoiser: Denoiser, y: Tensor, schedule: Schedule, timesteps: Sequence[int], noise: Noise = None) -> Tensor:
    """Run the reverse bridge from y.

    Args:
        denoiser: (x_t, y, t (B,)) -> x_t - x_0, all (B, C, T, h, w).
        y: (B, C, T, h, w) float32, start and condition.
        timesteps: as from :meth:`Schedule.timesteps`.
        noise: len(timesteps) - 1 draws (see :func:`draws`).

    Returns:
        x_0, float32.
    """
    x = x0 = y
    for t, n, drawn in _steps(y, timesteps, noise):
        steps = torch.full((y.shape[0],), t, device=y.device, dtype=torch.float32)
        x0 = x - denoiser(x, y, steps)
        if drawn is not None:
            a, b, c, d, m, e = schedule.factors(t, n)
            x = a * x0 + b * y + c * (x - d * x0 - m * y) + e * drawn
    return x0


def sample_by(step: Step, y: Tensor, schedule: Schedule, timesteps: Sequence[int], noise: Noise = None) -> Tensor:
    """:func:`sample` where the denoiser makes whole steps.

    Args:
        step: (x_t, the step's number from 0 on, its factors, noise) -> x_n. The last step's factors are :data:`LAST`,
            and its noise is x_t.
        y, schedule, timesteps, noise: as for :func:`sample`.
    """
    x = y
    for number, (t, n, drawn) in enumerate(_steps(y, timesteps, noise)):
        if drawn is None:
            return step(x, number, LAST, x)
        x = step(x, number, schedule.factors(t, n), drawn)
    return x


def _steps(y: Tensor, timesteps: Sequence[int], noise: Noise) -> Iterator[tuple[int, int, Tensor | None]]:
    """Of every step the timestep, the next one and a draw; none after the last."""
    source = draws(noise, len(timesteps) - 1, y)
    for t, n in itertools.pairwise(timesteps):
        yield t, n, next(source)
    yield timesteps[-1], 0, None


def generator_at(seed: int, *place: int) -> torch.Generator:
    """The generator of one place in a video: unrelated draws for different seeds and places, always the same."""
    digest = hashlib.blake2b(repr((int(seed), *map(int, place))).encode(), digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator

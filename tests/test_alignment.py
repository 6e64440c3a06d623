"""Steps of Lucas and Kanade on frames whose motion is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.test_modules import generator
from tlbvfi.modules import alignment
from tlbvfi.modules.alignment import aligned
from tlbvfi.rows.cuts import Strips

HEIGHT, WIDTH = 48, 64


def texture(dx: float, dy: float) -> Tensor:
    """A smooth one, (1, 3, H, W) in [0, 1], moved to the right and down."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) - dy, torch.arange(WIDTH) - dx, indexing="ij")
    waves = [torch.sin(x / 2.1 + y / 5.3), torch.sin(y / 2.7 - x / 7.9), torch.sin((x + y) / 3.3)]
    return torch.stack(waves)[None] * 0.25 + 0.5


def moved(dx: float, dy: float) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Frames that lie (dx, dy) before and behind the new one, and the flow to them."""
    flow = torch.tensor([-dx, -dy, dx, dy])[:, None, None].expand(1, 4, HEIGHT, WIDTH)
    return (texture(-dx, -dy), texture(dx, dy)), flow.clone()


def mean_error(flow: Tensor, truth: Tensor) -> float:
    return float((flow - truth)[..., 6:-6, 6:-6].abs().mean())


@pytest.mark.parametrize(("dx", "dy"), [(0.4, 0.0), (0.0, -0.5), (-0.3, 0.45)])
def test_frames_meet(dx: float, dy: float) -> None:
    frames, truth = moved(dx, dy)
    start = torch.zeros_like(truth)
    once, twice = aligned(start, frames, 1), aligned(start, frames, 2)
    assert mean_error(once, truth) < 0.35 * mean_error(start, truth)
    assert mean_error(twice, truth) < 0.9 * mean_error(once, truth)


def test_where_they_meet_already_nothing_moves() -> None:
    frames, truth = moved(1.0, -2.0)
    assert mean_error(aligned(truth.clone(), frames, 1), truth) < 0.02


def test_without_steps_nothing_changes() -> None:
    frames, truth = moved(0.4, 0.2)
    flow = torch.rand_like(truth)
    assert aligned(flow, frames, 0) is flow


def test_where_the_frames_tell_nothing_nothing_moves() -> None:
    """On plain surfaces that grow brighter."""
    frames = torch.full((1, 3, HEIGHT, WIDTH), 0.4), torch.full((1, 3, HEIGHT, WIDTH), 0.6)
    flow = torch.full((1, 4, HEIGHT, WIDTH), 2.5)
    torch.testing.assert_close(aligned(flow.clone(), frames, 3), flow)


def test_both_flows_move_alike_and_no_farther_than_a_pixel() -> None:
    """Towards a motion of more than that."""
    frames, truth = moved(2.0, -1.5)
    step = aligned(torch.zeros_like(truth), frames, 1)
    torch.testing.assert_close(step[:, :2], -step[:, 2:])
    assert float(step.abs().max()) == 1.0


def test_what_one_frame_hides_counts_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the second frame is covered: beside that the motion is found all the same."""
    (first, last), truth = moved(0.4, 0.2)
    last = last.clone()
    last[..., WIDTH // 2 :] = texture(17.0, 5.0)[..., WIDTH // 2 :]
    beside = (..., slice(6, -6), slice(WIDTH // 2 - 3, WIDTH // 2))

    def error() -> float:
        return float((aligned(torch.zeros_like(truth), (first, last), 1) - truth)[beside].abs().mean())

    with_weights = error()
    monkeypatch.setattr(alignment, "_DIFFERENT", 1e3)
    assert with_weights < 0.75 * error()


@pytest.mark.parametrize("rows", [2, 6, 16, 40])
def test_in_strips_as_whole(rows: int) -> None:
    frames = torch.rand(2, 2, 3, HEIGHT, WIDTH, generator=generator(3)).unbind()
    flow = torch.randn(2, 4, HEIGHT, WIDTH, generator=generator(4)) * 2
    whole = aligned(flow.clone(), (frames[0], frames[1]), 2)
    cut = aligned(flow.clone(), (frames[0], frames[1]), 2, Strips(rows * 2 * WIDTH))
    torch.testing.assert_close(cut, whole, rtol=0.0, atol=1e-4)


def test_strips_need_all_of_their_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.rand(2, 1, 3, HEIGHT, WIDTH, generator=generator(3)).unbind()
    flow = torch.randn(1, 4, HEIGHT, WIDTH, generator=generator(4)) * 2
    whole = aligned(flow.clone(), (frames[0], frames[1]), 1)
    monkeypatch.setattr(alignment, "REACH", alignment.REACH - 1)
    cut = aligned(flow.clone(), (frames[0], frames[1]), 1, Strips(16 * WIDTH))
    assert float((cut - whole).abs().max()) > 1e-4


def test_gradients_pass_as_if_the_steps_were_given() -> None:
    frames, truth = moved(0.4, 0.2)
    flow = torch.zeros_like(truth).requires_grad_()
    aligned(flow, frames, 2).sum().backward()
    assert flow.grad is not None and torch.equal(flow.grad, torch.ones_like(flow))

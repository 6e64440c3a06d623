"""What stands still before something that moves: it stays whole, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tlbvfi
from tests.tiny import TINY, last_stage
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.model import TLBVFI
from tlbvfi.modules.stills import Stills, _uncovered
from tlbvfi.modules.warp import warp
from tlbvfi.quality import psnr
from tlbvfi.rows.cuts import WHOLE, Strips

SIDE = 256
WITHIN = 0.055
#: Pixels that what moves goes from frame to frame.
MOTION = 12


def texture(seed: int = 0) -> Tensor:
    """(1, 3, SIDE, 2 SIDE) in [0, 1], soft patches of some ten pixels."""
    noise = torch.rand(1, 3, SIDE // 8, SIDE // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(SIDE, 2 * SIDE), mode="bicubic").clamp(0.0, 0.9)


def panned(at: int) -> Tensor:
    return texture()[..., SIDE // 2 + at : SIDE // 2 + at + SIDE]


def caption() -> Tensor:
    """Where strokes of three pixels are, as of large letters: (1, 1, SIDE, SIDE) bool."""
    where = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    for x in range(40, 216, 16):
        where[..., 180:204, x : x + 3] = True
        where[..., 180 + x % 3 * 10 : 183 + x % 3 * 10, x : x + 11] = True
    return where


def captioned(frame: Tensor) -> Tensor:
    return frame.masked_fill(caption(), 0.95)


def ball(at: int) -> Tensor:
    """A disc of 22 pixels before a background at rest."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (x - SIDE // 2 - at).square() + (y - SIDE // 2).square() < 121


def flow_of(dx: Tensor) -> Tensor:
    """From motion (H, W) along x between the frames: (1, 4, H, W)."""
    half = dx.float()[None] / 2
    zero = torch.zeros_like(half)
    return torch.stack([-half, zero, half, zero], dim=1)


def plain(frames: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    return (warp(frames[0], flow[:, :2]) + warp(frames[1], flow[:, 2:])) / 2


def blended(frames: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    mask = torch.full((1, 1, *flow.shape[2:]), 0.5)
    height = flow.shape[2]
    return Stills(frames, flow, WITHIN, [(0, height)]).blended(mask, torch.zeros(1, 3, *flow.shape[2:]), 0, height)


def decibels(got: Tensor, want: Tensor, where: Tensor | None = None) -> float:
    got, want = (x[0] if where is None else x[0][:, where[0, 0]] for x in (got, want))
    return psnr(got, want)


@pytest.mark.parametrize("noise", [0.0, 0.006])
def test_a_caption_over_what_moves(noise: float) -> None:
    half = MOTION // 2
    first, truth, last = (captioned(panned(at)) for at in (half, 0, -half))
    seeds = torch.Generator().manual_seed(1)
    first, last = (x + noise * torch.randn(x.shape, generator=seeds) for x in (first, last))
    flow = flow_of(torch.full((SIDE, SIDE), MOTION))
    around = F.max_pool2d(caption().float(), 25, 1, 12) > 0
    got = blended((first, last), flow)
    assert decibels(got, truth, caption()) > 35.0
    for worse in ((first + last) / 2, plain((first, last), flow)):
        assert decibels(got, truth, around) > decibels(worse, truth, around) + 3.0


def test_what_letters_and_their_outline_make_up_between_them_is_not_uncovered() -> None:
    """Beside what stands still one frame shows 0.5 and the other black: uncovered where 0.5 stands still, and hardly
    where white and black do side by side, whose mean is 0.5."""

    def votes_against(still: Tensor) -> float:
        first, last = (torch.cat([still, torch.full((1, 3, 32, 32), beside)], dim=3) for beside in (0.5, 0.0))
        return float(_uncovered((first, last), WITHIN)[1].sum())

    rows = (torch.arange(32) // 2 % 2).float().mul(0.9).add(0.05)[:, None].expand(1, 3, 32, 32)
    assert votes_against(rows) < 0.3 * votes_against(torch.full((1, 3, 32, 32), 0.5))


def test_beside_a_caption_a_flow_that_explains_nothing_is_not_followed() -> None:
    """It is right above, and around the caption it leads the other way: there the mean, and nothing of it above."""
    half = MOTION // 2
    first, last = captioned(panned(half)), captioned(panned(-half))
    rows = torch.arange(SIDE)[:, None].expand(SIDE, SIDE)
    flow = flow_of(torch.where(rows < 150, MOTION, -2 * MOTION))
    got, mean = blended((first, last), flow), (first + last) / 2
    beside = F.max_pool2d(caption().float(), 9, 1, 4) > 0
    assert decibels(got, mean, beside) > 30.0
    assert decibels(plain((first, last), flow), mean, beside) < 20.0
    torch.testing.assert_close(got[:, :, :100], plain((first, last), flow)[:, :, :100])


@pytest.mark.parametrize("step", [8, 24, 60])
def test_a_ball_over_what_is_at_rest(step: int) -> None:
    """Its place in the middle is empty in both frames, and it must not vanish."""
    background, half = panned(0), step // 2
    first, truth, last = (background.masked_fill(ball(at), 0.1) for at in (-half, 0, half))
    flow = flow_of(torch.where(ball(0), step, 0))
    assert decibels(blended((first, last), flow), truth) > decibels(plain((first, last), flow), truth) - 0.05


def test_what_moves_alone_is_left_as_it_is() -> None:
    frames, flow = (panned(6), panned(-6)), flow_of(torch.full((SIDE, SIDE), MOTION))
    assert decibels(blended(frames, flow), plain(frames, flow)) > 60.0


def test_what_is_at_rest_is_the_mean() -> None:
    frames, flow = (panned(0), panned(0) + 0.004), flow_of(torch.full((SIDE, SIDE), 0.4))
    torch.testing.assert_close(blended(frames, flow), frames[0] + 0.002, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cubic", [0.0, 1.0])
@pytest.mark.parametrize(("height", "width"), [(90, 63), (33, 64), (2, 3)])
def test_strips_change_rounding_alone(height: int, width: int, cubic: float) -> None:
    params = replace(TINY, autoencoder=replace(TINY.autoencoder, still_within=WITHIN, cubic=cubic))
    model = TLBVFI(params)
    random_weights(model)
    decoder = model.finalize().vqgan.decoder
    frames = (captioned(panned(at))[..., -height - 50 : -50, :width] for at in (3, -3))
    first, last = (frame.expand(2, -1, -1, -1) for frame in frames)
    flow = flow_of(torch.full((height, width), 6.0)).expand(2, -1, -1, -1).contiguous()

    with torch.no_grad():
        whole = last_stage(decoder, (first, last), flow, WHOLE)
        assert psnr(last_stage(decoder, (first, last), flow, Strips(16 * width * 2)), whole) > 125.0
        decoder.still_within = 0.0
        assert height < 30 or psnr(last_stage(decoder, (first, last), flow, WHOLE), whole) < 60.0


def test_gradients_reach_blend_and_residual() -> None:
    flow = flow_of(torch.full((SIDE, SIDE), MOTION))
    with torch.no_grad():
        stills = Stills((captioned(panned(6)), captioned(panned(-6))), flow, WITHIN, [(0, SIDE)])
    mask, residual = (torch.full((1, n, SIDE, SIDE), 0.4, requires_grad=True) for n in (1, 3))
    stills.blended(mask, residual, 0, SIDE).sum().backward()
    for tensor in (mask, residual):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all()) and bool(tensor.grad.any())


def test_the_built_in_model_keeps_captions() -> None:
    """A caption over a texture that moves by twelve pixels, against the mean of the frames and without the step."""
    model = tlbvfi.load_model(None)
    first, truth, last = (captioned(panned(at))[0].permute(1, 2, 0) for at in (6, 0, -6))
    around = (F.max_pool2d(caption().float(), 25, 1, 12) > 0)[0, 0]

    def band(frame: Tensor) -> float:
        return psnr(frame[around], truth[around])

    with_it = band(list(tlbvfi.interpolate_frames(model, [first, last]))[1])
    model.vqgan.decoder.still_within = 0.0
    without = band(list(tlbvfi.interpolate_frames(model, [first, last]))[1])
    assert with_it > without + 3.0
    assert with_it > band((first + last) / 2) + 1.0

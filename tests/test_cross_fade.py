"""Where no motion was found the new frame is the mean of the two, and nowhere else."""

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
from tlbvfi.modules.cross_fade import CrossFade
from tlbvfi.modules.warp import warp
from tlbvfi.quality import psnr
from tlbvfi.rows.cuts import WHOLE, Strips

SHARE = 0.7
SIDE = 256


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """(1, 3, height, width) in [0, 1], patches of some ten pixels."""
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(height, width), mode="bicubic").clamp(0.0, 1.0)


def panned(motion: float, height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor, Tensor]:
    """Two frames that a texture crosses by so many pixels, and the flow that leads there."""
    half = round(motion / 2)
    wide = texture(height, width + 2 * half)
    flow = torch.zeros(1, 4, height, width)
    flow[:, 0], flow[:, 2] = -half, half
    return wide[..., :width], wide[..., 2 * half :], -flow


def along(frames: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    return (warp(frames[0], flow[:, :2]) + warp(frames[1], flow[:, 2:])) / 2


def faded(frames: tuple[Tensor, Tensor], flow: Tensor, frame: Tensor) -> Tensor:
    return CrossFade(frames, flow, SHARE).blended(frame, 0, flow.shape[2])


@pytest.mark.parametrize("size", [(SIDE, SIDE), (640, 1088)])
def test_frames_that_meet_along_the_flow_are_left_as_they_are(size: tuple[int, int]) -> None:
    """To the bit: of what is found nothing may change."""
    first, last, flow = panned(12, *size)
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(faded((first, last), flow, frame), frame)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (640, 1088)])
@pytest.mark.parametrize("wrong", [0.0, 20.0, -40.0])
def test_frames_that_have_nothing_in_common_are_cross_faded(size: tuple[int, int], wrong: float) -> None:
    first, last = texture(*size), texture(*size, seed=1)
    flow = torch.full((1, 4, *size), wrong)
    frame = along((first, last), flow)
    inside = (..., slice(40, -40), slice(40, -40))  # both ends of a flow that leads out lie at the border
    torch.testing.assert_close(faded((first, last), flow, frame)[inside], ((first + last) / 2)[inside])


def test_a_part_alone_is_cross_faded() -> None:
    """The left half moves and is found, the right half is another in the second frame."""
    first, last, flow = panned(12, SIDE, 2 * SIDE)
    last = torch.cat([last[..., :SIDE], texture(SIDE, SIDE, seed=5)], dim=3)
    frame = along((first, last), flow)
    got, mean = faded((first, last), flow, frame), (first + last) / 2
    assert torch.equal(got[..., : SIDE - 48], frame[..., : SIDE - 48])
    torch.testing.assert_close(got[..., SIDE + 48 :], mean[..., SIDE + 48 :])


def test_what_one_frame_hides_of_the_other_is_not_cross_faded() -> None:
    """Beside a bar that moves by its width no flow makes the frames alike."""
    background, bar = texture(SIDE, SIDE), texture(SIDE, 16, seed=3)
    first, last, flow = background.clone(), background.clone(), torch.zeros(1, 4, SIDE, SIDE)
    first[..., 112:128], last[..., 128:144] = bar, bar
    flow[:, 0, :, 120:136], flow[:, 2, :, 120:136] = -8.0, 8.0
    frame = along((first, last), flow)
    assert psnr(faded((first, last), flow, frame), frame) > 60.0


def test_grain_is_no_sign_of_missed_motion() -> None:
    """Nothing moves: what differs, differs along any flow as much."""
    first, last, flow = panned(0)
    seeds = torch.Generator().manual_seed(1)
    first, last, frame = (x + 0.02 * torch.randn(x.shape, generator=seeds) for x in (first, last, first))
    assert torch.equal(faded((first, last), flow, frame), frame)


@pytest.mark.parametrize(("height", "width"), [(90, 63), (33, 64), (2, 3)])
def test_strips_change_rounding_alone(height: int, width: int) -> None:
    model = TLBVFI(replace(TINY, autoencoder=replace(TINY.autoencoder, fade_from=SHARE)))
    random_weights(model)
    decoder = model.finalize().vqgan.decoder
    first, last = (torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
    flow = torch.full((2, 4, height, width), 3.0)

    with torch.no_grad():
        whole = last_stage(decoder, (first, last), flow, WHOLE)
        assert psnr(last_stage(decoder, (first, last), flow, Strips(16 * width * 2)), whole) > 125.0
        if height > 30:
            torch.testing.assert_close(whole, (first + last) / 2)


def test_gradients_reach_what_is_not_faded() -> None:
    first, last, flow = panned(12)
    frame = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    faded((first, last), flow, frame).sum().backward()
    assert frame.grad is not None and bool((frame.grad == 1.0).all())


def test_the_built_in_model_fades_between_pictures_of_different_things() -> None:
    model = tlbvfi.load_model(None)
    first, last = (texture(SIDE, SIDE, seed)[0].permute(1, 2, 0) for seed in (7, 8))
    made = list(tlbvfi.interpolate_frames(model, [first, last]))[1]
    assert psnr(made, (first + last) / 2) > 25.0

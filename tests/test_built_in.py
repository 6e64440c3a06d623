"""The built-in model: it interpolates, and it keeps its promises about size, precision, padding and steps.

Quality is measured on the clip of the demo, which no training saw: every second frame is given, the others are the
truth. The floors are below what the weights reach by a margin for rounding only, so that worse weights fail.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import tlbvfi
from tlbvfi import demo, video
from tlbvfi.config import ModelParams, load_params
from tlbvfi.known_models import BUILT_IN, built_in_path
from tlbvfi.model import TLBVFI
from tlbvfi.peers import average
from tlbvfi.planning import plan
from tlbvfi.quality import psnr, ssim

Interpolate = Callable[..., list[Tensor]]
NAME = next(iter(BUILT_IN))
FLOOR = 32.5  # dB
#: Live bytes of the published code for a pair at 512 x 512 in float32: its weights and its activations.
PUBLISHED_BYTES = 178 * 2**20 + 1.35 * 2**30


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tlbvfi.load_model(None)


@pytest.fixture(scope="module")
def clip() -> list[Tensor]:
    """Seven frames of 640 x 360 out of the middle of the clip."""
    return list(islice(video.read_frames(demo.CLIP), 8, 15))


@pytest.fixture(scope="module")
def new(model: TLBVFI, clip: list[Tensor]) -> list[Tensor]:
    """The three frames in the gaps, in float32 with the default settings."""
    return list(tlbvfi.interpolate_frames(model, clip[::2]))[1::2]


def mean_psnr(frames: list[Tensor], truths: list[Tensor]) -> float:
    return sum(psnr(f, t) for f, t in zip(frames, truths, strict=True)) / len(frames)


class TestFile:
    def test_it_is_small_and_carries_its_configuration(self, model: TLBVFI) -> None:
        assert built_in_path(NAME).stat().st_size <= 12 * 2**20
        assert model.params == load_params(NAME)

    def test_a_tenth_of_the_published_model(self) -> None:
        """Operations of a pair at 512 x 512, and memory of the published code; of its networks here a quarter."""
        flops = []
        for params in (load_params(NAME), ModelParams()):
            with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
                frame = torch.empty(1, 3, 512, 512)
                TLBVFI(params).finalize().sample(frame, frame)
            flops.append(counter.get_total_flops())
        assert flops[0] <= flops[1] / 10
        small, large = (
            plan(512, 512, torch.float32, 0.5, params=params, device=torch.device("cpu"))
            for params in (load_params(NAME), ModelParams())
        )
        assert small.peak_bytes <= PUBLISHED_BYTES / 10
        # The widest maps are a quarter as wide: not a tenth of what this implementation needs.
        assert small.peak_bytes <= large.peak_bytes / 4


class TestQuality:
    def test_on_a_real_clip(self, clip: list[Tensor], new: list[Tensor]) -> None:
        truths = clip[1::2]
        reached, blended = mean_psnr(new, truths), mean_psnr(average(clip[::2]), truths)
        assert reached >= FLOOR
        assert reached >= blended + 2.0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, clip: list[Tensor], new: list[Tensor], dtype: torch.dtype) -> None:
        half = list(tlbvfi.interpolate_frames(tlbvfi.load_model(None, dtype=dtype), clip[::2]))[1::2]
        assert mean_psnr(half, new) > 40.0
        for frame, full, truth in zip(half, new, clip[1::2], strict=True):
            assert ssim(frame, full) > 0.99
            assert ssim(frame, truth) > ssim(full, truth) * 0.99

    def test_more_steps(self, model: TLBVFI, clip: list[Tensor], new: list[Tensor]) -> None:
        truths = clip[1::2][:1]
        base = mean_psnr(new[:1], truths)
        for steps in (20, 50):
            frames = list(tlbvfi.interpolate_frames(model, clip[:3:2], sample_steps=steps))
            assert mean_psnr(frames[1:2], truths) > base - 0.3

    def test_padding_does_not_show(self, model: TLBVFI, clip: list[Tensor]) -> None:
        """A part whose sides the model takes as they are, and the same less a few rows and columns."""
        assert model.multiple == 128
        whole = [frame[:256, :512] for frame in clip[:3:2]]
        cut = [frame[:243, :499] for frame in whole]
        a, b = (list(tlbvfi.interpolate_frames(model, frames))[1] for frames in (whole, cut))
        truth = clip[1]
        assert abs(psnr(a[:243, :499], truth[:243, :499]) - psnr(b, truth[:243, :499])) < 0.5
        assert psnr(a[:200, :440], b[:200, :440]) > 35.0


class TestMotion:
    def test_a_static_scene_is_static(self, model: TLBVFI, clip: list[Tensor]) -> None:
        still = clip[0][:256, :256]
        frames = list(tlbvfi.interpolate_frames(model, [still, still], times=3))
        assert all(psnr(frame, still) > 38.0 for frame in frames[1:-1])
        assert all((a - b).abs().mean() < 1.5 / 255 for a, b in pairwise(frames))

    @pytest.mark.parametrize(("dx", "dy"), [(8, 0), (-4, 6), (16, 8)])
    def test_a_translation_is_a_translation(self, model: TLBVFI, clip: list[Tensor], dx: int, dy: int) -> None:
        """A window that moves over a still picture: what comes in at the border apart, the middle is known."""
        picture = clip[0]

        def window(share: float) -> Tensor:
            x, y = 160 + round(dx * share), 60 + round(dy * share)
            return picture[y : y + 256, x : x + 256]

        first, truth, last = window(0.0), window(0.5), window(1.0)
        middle = list(tlbvfi.interpolate_frames(model, [first, last]))[1]
        inner = slice(24, -24)
        reached = psnr(middle[inner, inner], truth[inner, inner])
        assert reached > 32.0
        assert reached > psnr(((first + last) / 2)[inner, inner], truth[inner, inner]) + 3.0

    def test_a_cut(self, model: TLBVFI, clip: list[Tensor]) -> None:
        other = torch.rand(clip[0].shape, generator=torch.Generator().manual_seed(0))
        frames = list(tlbvfi.interpolate_frames(model, [clip[0], other, 1 - clip[0]]))
        assert all(bool(frame.isfinite().all()) and 0 <= frame.min() and frame.max() <= 1 for frame in frames)

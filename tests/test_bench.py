"""The bench's figures and its peers, on small pictures."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import frames, tiny_model
from tlbvfi import bench
from tlbvfi.bench import Case, compare, measure
from tlbvfi.peers import average, minterpolate
from tlbvfi.quality import psnr


def test_a_case_has_all_its_figures() -> None:
    result = measure(tiny_model(), Case(64, 64, times=2, sample_steps=3), repeats=1)
    assert result.normalised == pytest.approx(result.seconds * result.gemm_tflops)
    assert result.gemm_share == pytest.approx(result.tflop / result.normalised)
    assert result.tflop > 0 and result.peak_bytes > 0
    assert sum(result.stages.values()) == pytest.approx(1.0)
    assert "| 64x64 | 2 | 0.5 | float32 |" in bench.table([result])
    assert "bridge" in bench.stage_table(result)


def test_metrics() -> None:
    picture = frames(1, 40, 50)[0]
    assert psnr(picture, picture) == math.inf
    assert psnr(picture, (picture + 0.1)) == pytest.approx(20.0, abs=0.01)


def test_peers_give_the_middle_of_a_pan() -> None:
    """A texture that moves 4 pixels a frame: motion compensation finds it, and at the right time."""
    noise = torch.rand((30, 120, 3), generator=torch.Generator().manual_seed(1))
    texture = torch.nn.functional.interpolate(noise.permute(2, 0, 1)[None], scale_factor=4.0, mode="bicubic")
    texture = 0.4 + 0.2 * texture[0].permute(1, 2, 0)  # of more contrast, the filter sees cuts
    clip = [texture[:, 4 * i : 4 * i + 160] for i in range(7)]
    inner = (slice(16, -16), slice(16, -16))
    given, truths = clip[::2], clip[1::2]
    found = [psnr(made[inner], truth[inner]) for made, truth in zip(minterpolate(given), truths, strict=True)]
    mixed = [psnr(made[inner], truth[inner]) for made, truth in zip(average(given), truths, strict=True)]
    assert len(found) == len(mixed) == 3
    assert min(found) > max(mixed) + 4


def test_comparison_lists_ours_beside_the_peers() -> None:
    scores = compare(tiny_model(), frames(5, 48, 64))
    assert {"average of the two frames", "FFmpeg minterpolate", "TLB-VFI at flow scale 0.5"} <= set(scores)
    assert all(math.isfinite(value) for score in scores.values() for value in score.values())
    assert "| FFmpeg minterpolate |" in bench.peer_table(scores)

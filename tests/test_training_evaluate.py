"""The measures, and that FFmpeg's frames are compared with the moment they show."""

from __future__ import annotations

import io
import math
import pickle

import av
import numpy as np
import pytest
import torch

from tlbvfi.peers import minterpolated
from tlbvfi.quality import psnr
from tlbvfi.training.measured_clips import Clip, to_rgb
from tlbvfi.training.methods import average_frames, minterpolate_frames, previous_frames
from tlbvfi.training.metrics import LPIPS, read_arrays
from tlbvfi.training.reports import contact_sheet


def test_psnr_of_a_known_error() -> None:
    truth = torch.full((8, 9, 3), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    assert psnr(truth, truth) == math.inf


def test_arrays_are_read_and_nothing_else() -> None:
    arrays = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    loaded = read_arrays(io.BytesIO(pickle.dumps(arrays, protocol=3)))
    assert (loaded["layer"]["kernel"] == arrays["layer"]["kernel"]).all()
    for harmful in (print, np.load, np.lib.format.open_memmap, pickle.loads):
        with pytest.raises(pickle.UnpicklingError):
            read_arrays(io.BytesIO(pickle.dumps(harmful)))


def test_lpips_is_a_symmetric_distance_of_frames() -> None:
    """With random weights: the arithmetic of the measure, not its values."""
    model = LPIPS()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.4)
        for head in model.heads:
            head.clamp_(min=0)
    a, b = torch.rand(2, 2, 3, 64, 72, generator=generator)
    assert torch.equal(model(a, a), torch.zeros(2))
    assert torch.allclose(model(a, b), model(b, a)) and bool((model(a, b) > 0).all())
    assert torch.allclose(model(a, b)[1:], model(a[1:], b[1:]), rtol=1e-4)


def pan(count: int, step: int, height: int = 96, width: int = 160) -> list[av.VideoFrame]:
    """Frames of a smooth picture going left by `step` pixels each; of low contrast, or the filter sees cuts."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0 : width + count * step]
    wide = sum(
        np.sin(x * rng.uniform(0.05, 0.35) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.05, 0.35)) for _ in range(12)
    )
    grey = ((wide - wide.min()) / (wide.max() - wide.min()) * 90 + 80).round().astype(np.uint8)
    pictures = [np.repeat(grey[:, k * step : k * step + width, None], 3, 2) for k in range(count)]
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="rgb24") for p in pictures]
    return [frame.reformat(format="yuv420p") for frame in frames]


def test_minterpolate_is_aligned_in_time() -> None:
    """Given every second frame of a pan, its frame at an odd place is like the hidden frame and no other."""
    frames = pan(18, 3)
    found = minterpolated(frames[:17:2])
    wanted = range(1, 16, 2)
    assert set(wanted) <= set(found)
    inside = (slice(16, -16), slice(24, -24))
    for place in wanted:
        made = to_rgb(found[place])[inside]
        scores = {k: psnr(made, to_rgb(frames[place + k])[inside]) for k in (-2, -1, 0, 1, 2)}
        assert max(scores, key=scores.__getitem__) == 0
        if place < 15:  # the last pair has no frame after it
            assert scores[0] > scores[-1] + 6 and scores[0] > scores[1] + 6
    for place in range(0, 16, 2):
        assert psnr(to_rgb(found[place]), to_rgb(frames[place])) > 50


def test_baselines_fill_the_gaps() -> None:
    native = pan(5, 2)
    clip = Clip("pan", native, [to_rgb(frame) for frame in native])
    assert torch.equal(previous_frames(clip)[1], clip.frames[2])
    assert torch.allclose(average_frames(clip)[0], (clip.frames[0] + clip.frames[2]) / 2)
    made = minterpolate_frames(clip)
    assert len(made) == 2 and made[0].shape == clip.frames[0].shape
    sheet = contact_sheet(clip, {"average": average_frames(clip)}, [0, 1])
    assert sheet.size == (3 * 160, 2 * (96 + 14))

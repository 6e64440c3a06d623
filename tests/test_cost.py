"""Exact counts of work: floating-point operations on tensors without data, and model calls of a video."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import tlbvfi
from tests.tiny import frames, tiny_model
from tlbvfi.model import TLBVFI


@pytest.fixture(scope="module")
def counted() -> dict[tuple[int, int, float], tuple[float, float]]:
    """TFLOP of encoding a frame and of a midpoint, by padded size and flow scale, for the published model."""
    figures = {}
    with FakeTensorMode(), torch.no_grad():
        model = TLBVFI().finalize()
        for height, width, scale in [(512, 512, 0.5), (512, 512, 1.0), (768, 1280, 0.5)]:
            frame = torch.empty(1, 3, height, width)
            empty = model.encode_empty(height, width)  # once per run
            with FlopCounterMode(display=False) as encoding:
                features = model.encode_frame(frame, scale, empty=empty)
            with FlopCounterMode(display=False) as meeting:
                model.midpoint(features, features, [0])
            latent = torch.empty(1, *model.latent_shape(height, width))
            with FlopCounterMode(display=False) as step:
                model.denoise_fn(latent, latent, torch.zeros(1))
            figures[height, width, scale] = (
                encoding.get_total_flops() / 1e12,
                (meeting.get_total_flops() + 9 * step.get_total_flops()) / 1e12,
            )
    return figures


@pytest.mark.parametrize(
    ("size", "times", "most"),
    [
        ((512, 512, 0.5), 1, 0.47),
        ((512, 512, 0.5), 3, 0.42),
        ((768, 1280, 0.5), 1, 1.77),
        ((512, 512, 1.0), 1, 0.86),
    ],
)
def test_flops_per_new_frame(
    counted: dict[tuple[int, int, float], tuple[float, float]], size: tuple[int, int, float], times: int, most: float
) -> None:
    """A gap takes 2^(times - 1) encodings (one source, and the new frames that are ends again) for its new frames."""
    encoding, meeting = counted[size]
    new, encoded = 2**times - 1, 2 ** (times - 1)
    assert meeting + encoding * encoded / new <= most


@pytest.mark.parametrize(("times", "encodings", "midpoints"), [(1, 1, 1), (2, 2, 3), (3, 4, 7)])
def test_each_frame_is_encoded_once(
    monkeypatch: pytest.MonkeyPatch, times: int, encodings: int, midpoints: int
) -> None:
    calls: Counter[str] = Counter()
    model = tiny_model()

    def counting(name: str) -> None:
        original = getattr(model, name)

        def counted(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(model, name, counted)

    for name in ("encode_frame", "midpoint", "encode_empty"):
        counting(name)
    list(tlbvfi.interpolate_frames(model, frames(4, 20, 20), times, sample_steps=3))
    assert calls == {"encode_frame": 3 * encodings + 1, "midpoint": 3 * midpoints, "encode_empty": 1}

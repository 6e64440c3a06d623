"""Exact counts of work: operations on tensors without data, floating-point and other, and model calls of a video."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import tlbvfi
from tests.tiny import TINY, frames, tiny_model
from tlbvfi.bench.cases import Case
from tlbvfi.bench.work import STAGES, Work, WorkCounter, total, work_per_frame
from tlbvfi.config import ModelParams, load_params
from tlbvfi.model import TLBVFI

# ---- What a graphics card may be given to do for a new frame of the published model in float16, flow scale 0.5. ----
# These are what is counted now, rounded up: whoever lowers a count lowers its ceiling here.
#: Padded (height, width) -> operations and GB with kernels of our own.
MOST_WORK = {
    (512, 512): (998, 3.3),
    (768, 1280): (1_010, 11.8),
    (1280, 2048): (1_022, 31.1),
    (2304, 3840): (1_056, 104.9),
}
#: The same without them, where there is no Triton.
MOST_PLAIN_WORK = {
    (512, 512): (3_995, 9.3),
    (1280, 2048): (4_496, 98.7),
    (2304, 3840): (5_133, 360.9),
}
#: Operations of 2048x1280 for each one of 512x512, with kernels of our own: the two flows of large maps are refined one
#: after the other, and nothing is cut in pieces.
MOST_GROWTH = 1.03
# ----


@pytest.fixture(scope="module")
def counted() -> dict[tuple[int, int, float], tuple[float, float]]:
    """TFLOP of encoding a frame and of a midpoint, by padded size and flow scale, for the published model."""
    figures = {}
    with FakeTensorMode(), torch.no_grad():
        model = TLBVFI().finalize()
        for height, width, scale in [(512, 512, 0.5), (512, 512, 1.0)]:
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


@cache
def work(size: tuple[int, int], kernels: bool) -> dict[str, Work]:
    return work_per_frame(ModelParams(), Case(*size), torch.float16, kernels=kernels)


@pytest.mark.parametrize(
    ("size", "kernels", "most"),
    [
        *((size, True, most) for size, most in MOST_WORK.items()),
        *((size, False, most) for size, most in MOST_PLAIN_WORK.items()),
    ],
)
def test_work_of_a_card(size: tuple[int, int], kernels: bool, most: tuple[float, float]) -> None:
    done = total(work(size, kernels))
    assert done.operations <= most[0] and done.bytes / 1e9 <= most[1], done


def test_larger_frames_are_no_more_operations() -> None:
    small, large = (total(work(size, True)).operations for size in ((512, 512), (1280, 2048)))
    assert large <= MOST_GROWTH * small


def test_what_counts_as_work() -> None:
    """Reads and writes, once for each operation; views, and memory that is asked for, are none."""
    x = torch.empty(2, 8, device="meta", dtype=torch.float16)
    with WorkCounter() as counter:
        y = x.view(4, 4).t()[1:].unsqueeze(0).chunk(2)[0]
        torch.empty_like(y)
        assert not counter.operations
        x.add_(x)  # one map, read and written
        x + 1
        x.float()
    assert counter.by_stage()["decoder"] == Work(3, 32 + (32 + 32) + (32 + 64))


@pytest.mark.parametrize(("strip_rows", "flow_scale"), [(None, 0.5), (64, 1.0)])
def test_work_of_every_stage(strip_rows: int | None, flow_scale: float) -> None:
    done = work_per_frame(TINY, Case(256, 128, flow_scale=flow_scale, sample_steps=3, strip_rows=strip_rows))
    assert tuple(done) == STAGES
    assert all(part.operations > 0 and part.bytes > 0 for part in done.values())


def test_work_of_a_new_frame() -> None:
    """At times 2 three new frames take two encodings; a batch takes each operation once for all of its frames."""
    once, twice, batch = (
        work_per_frame(TINY, Case(128, 128, times, sample_steps=3, batch_size=size))
        for times, size in ((1, 1), (2, 1), (1, 2))
    )
    assert twice["encode_frame"].operations == pytest.approx(once["encode_frame"].operations * 2 / 3)
    assert twice["bridge"] == once["bridge"]
    assert total(batch).operations < 0.7 * total(once).operations
    assert total(batch).bytes == pytest.approx(total(once).bytes, rel=0.3)


@pytest.mark.parametrize(("size", "most"), [((512, 512), (2_093, 2.31)), ((2160, 3840), (2_603, 68.1))])
def test_work_of_a_card_by_the_built_in_model(size: tuple[int, int], most: tuple[float, float]) -> None:
    """Its own steps, that the published model has not, are a few operations of any size too."""
    done = total(work_per_frame(load_params("tlbvfi-small"), Case(*size), torch.float16, kernels=True))
    assert done.operations <= most[0] and done.bytes / 1e9 <= most[1], done

"""Bisection over pairs: order, places, sizes, memory, errors."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

import tlbvfi
from tests.fuzz.stand_in import stand_in
from tests.tiny import TINY, frames, tiny_model
from tlbvfi.counting import counting
from tlbvfi.holds import Skipped
from tlbvfi.interpolate import DeviceMemoryError, interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.planning import Plan, candidates
from tlbvfi.settings import Settings
from tlbvfi.timeline import Multiplier, TargetRate, Timeline


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tiny_model()


def run(model: TLBVFI, source: list[Tensor], *args: object, **kwargs: object) -> list[Tensor]:
    kwargs.setdefault("sample_steps", 3)
    return list(tlbvfi.interpolate_frames(model, source, *args, **kwargs))  # type: ignore[arg-type]


@pytest.mark.parametrize("times", range(6))
def test_counts_and_sources_bit_for_bit(model: TLBVFI, times: int) -> None:
    source = frames(3, 40, 56)
    result = run(model, source, times)
    assert len(result) == 2 * 2**times + 1
    for frame in result:
        assert frame.shape == (40, 56, 3) and frame.dtype == torch.float32 and frame.device.type == "cpu"
        assert 0 <= frame.min() and frame.max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(source, result[:: 2**times], strict=True))


def test_a_frame_is_the_same_at_every_depth(model: TLBVFI) -> None:
    source = frames(3, 33, 64)
    shallow, deep = run(model, source, 1), run(model, source, 3)
    assert all(torch.equal(a, b) for a, b in zip(shallow, deep[::4], strict=True))


def test_a_frame_depends_on_its_pair_and_place_alone(model: TLBVFI) -> None:
    source = frames(4, 30, 30)
    whole = run(model, source, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole[4:9], run(model, source[1:3], 2, first_gap=1), strict=True))
    again = run(model, source, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert not torch.equal(whole[5], run(model, source[1:3], 2)[1])  # another place, other noise
    assert not torch.equal(whole[1], run(model, source[:2], 2, seed=1)[1])
    kept = run(model, source, 2, offload=False)
    assert all(torch.equal(a, b) for a, b in zip(whole, kept, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (2, 3), (63, 65), (64, 64), (130, 5), (97, 31)])
@pytest.mark.parametrize("padding", ["tight", "published"])
def test_any_size(model: TLBVFI, size: tuple[int, int], padding: str) -> None:
    result = run(model, frames(2, *size), 1, padding=padding)
    assert result[1].shape == (*size, 3)
    assert torch.isfinite(result[1]).all()


@pytest.mark.parametrize("scale", [0.1, 0.13, 0.25, 0.3, 0.5, 0.77, 0.99, 1.0])
def test_any_flow_scale(model: TLBVFI, scale: float) -> None:
    assert torch.isfinite(run(model, frames(2, 70, 130), 1, scale)[1]).all()


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.01, -1.0, float("nan")])
def test_impossible_flow_scale(model: TLBVFI, scale: float) -> None:
    with pytest.raises(ValueError, match="flow_scale must be between 0.1 and 1.0"):
        tlbvfi.interpolate_frames(model, frames(2, 8, 8), 1, scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_source_dtypes_are_widened_exactly(model: TLBVFI, dtype: torch.dtype) -> None:
    source = [frame.to(dtype) for frame in frames(2, 16, 16)]
    result = run(model, source, 1)
    assert torch.equal(result[0], source[0].float()) and torch.equal(result[2], source[1].float())


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (torch.zeros(8, 8, 4), r"must be \(height, width, 3\)"),
        (torch.zeros(1, 8, 8, 3), r"must be \(height, width, 3\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "floating point"),
        (torch.full((8, 8, 3), float("nan")), "NaN or infinity"),
        (torch.full((8, 8, 3), float("inf")), "NaN or infinity"),
        (torch.full((8, 8, 3), 255.0), r"must be in \[0, 1\]"),
        (torch.zeros(8, 9, 3), "9x8, but those before it are 8x8"),
        ("frame", "must be a tensor"),
    ],
)
def test_bad_frames_are_named(model: TLBVFI, frame: Tensor, sentence: str) -> None:
    source = [torch.zeros(8, 8, 3), frame]
    with pytest.raises(ValueError, match=rf"^Frame 1 .*{sentence}"):
        run(model, source, 1)


@pytest.mark.parametrize("times", [-1, 11, 1.5, True, "2"])
def test_bad_times(model: TLBVFI, times: int) -> None:
    with pytest.raises(ValueError, match="times must be a whole number"):
        tlbvfi.interpolate_frames(model, [], times)


def test_values_a_little_outside_are_clamped_for_the_new_frame(model: TLBVFI) -> None:
    inside = frames(2, 20, 20)
    outside = [f * 1.2 - 0.1 for f in inside]
    result = run(model, outside, 1)
    assert torch.equal(result[0], outside[0])
    assert torch.equal(result[1], run(model, [f.clamp(0, 1) for f in outside], 1)[1])


def test_frames_are_taken_one_at_a_time(model: TLBVFI) -> None:
    taken = []

    def source() -> Iterator[Tensor]:
        for i in itertools.count():
            taken.append(i)
            yield frames(1, 10, 10, seed=i)[0]

    result = tlbvfi.interpolate_frames(model, source(), 1, sample_steps=3)
    for expected in (1, 2, 2, 3, 3):
        next(result)
        assert len(taken) == expected


@pytest.fixture(scope="module")
def built_in() -> TLBVFI:
    """A trained bridge comes to the same codes whatever the rounding; one of random weights need not."""
    return tlbvfi.load_model()


@pytest.mark.parametrize(("times", "batch_size"), [(1, 2), (1, 7), (3, 2), (2, 4)])
def test_batches_of_gaps_give_the_same_frames(built_in: TLBVFI, times: int, batch_size: int) -> None:
    source = frames(5 - times, 40, 56)
    alone, together = run(built_in, source, times), run(built_in, source, times, batch_size=batch_size)
    assert len(alone) == len(together)
    assert all(torch.equal(a, b) for a, b in zip(source, together[:: 2**times], strict=True))
    for a, b in zip(alone, together, strict=True):
        assert (a - b).abs().max() < 1e-4


def test_no_frames_and_one_frame(model: TLBVFI) -> None:
    assert run(model, [], 2) == []
    single = frames(1, 9, 9)
    assert torch.equal(run(model, single, 2)[0], single[0])


@pytest.mark.parametrize("batch_size", [0, -1, True, 1.5])
def test_bad_batch_size(model: TLBVFI, batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        tlbvfi.interpolate_frames(model, [], batch_size=batch_size)


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_peak_memory_is_flat_in_length_and_depth(scale: float, strips: bool) -> None:
    def peak(count: int, times: int) -> int:
        model = tiny_model()
        chosen = candidates(128, 128, torch.float32, scale, TINY)[1] if strips else None
        model.encode_empty(128, 128, chosen.strips if chosen else None)
        with counting(model) as counter:
            source = (frames(1, 64, 64, seed=i)[0] for i in range(count))
            for _ in tlbvfi.interpolate_frames(model, source, times, scale, sample_steps=3, plan=chosen):
                pass
        return counter.peak

    short = peak(4, 1)
    assert peak(12, 1) == short
    # Deeper, the few new frames of a gap that wait for their turn to be shown come on top: 48 KiB each here.
    assert peak(3, 2) <= short + 2 * 64 * 64 * 3 * 4 + 1024
    assert peak(3, 4) <= short + 4 * 64 * 64 * 3 * 4 + 1024


@pytest.mark.parametrize("times", [1, 2])
def test_a_plan_changes_rounding_alone(model: TLBVFI, times: int) -> None:
    source = frames(3, 250, 130)
    whole = run(model, source, times)
    smallest = candidates(250, 130, torch.float32, 0.5, TINY)[-1]
    assert smallest.strip_rows < smallest.padded_size[0]
    strips = list(tlbvfi.interpolate_frames(model, source, times, sample_steps=3, plan=smallest))
    assert len(strips) == len(whole)
    for a, b in zip(whole, strips, strict=True):
        assert (a - b).abs().max() < 1e-4


class Refusing:
    """Makes a model's device refuse memory at some of its calls."""

    def __init__(self, model: TLBVFI, monkeypatch: pytest.MonkeyPatch, refused: set[int], error: Exception) -> None:
        self.calls, self.strips = 0, []
        midpoint = TLBVFI.midpoint

        def refusing(*args: object, **settings: object) -> torch.Tensor:
            self.calls += 1
            self.strips.append(settings["strips"])
            if self.calls in refused:
                raise error
            return midpoint(*args, **settings)  # type: ignore[arg-type]

        monkeypatch.setattr(TLBVFI, "midpoint", refusing)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (torch.cuda.OutOfMemoryError("no"), {1}),
        (torch.cuda.OutOfMemoryError("no"), {2, 3}),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), {4}),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), {1}),
    ],
)
def test_out_of_memory_goes_on_in_smaller_strips(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, error: Exception, refused: set[int],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    source = frames(3, 250, 130)
    expected = run(model, source, 2)
    refusing = Refusing(model, monkeypatch, refused, error)
    found = run(model, source, 2)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-4
    assert refusing.calls > 6
    assert refusing.strips[-1].pixels is not None
    assert "short: going on in strips of" in caplog.text


@pytest.mark.parametrize("refused", [{2}, {3}, {2, 4}])
@pytest.mark.parametrize("times", [1, 2])
def test_a_gap_begun_again_has_its_own_frames(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, times: int, refused: set[int]
) -> None:
    """Although the source has used its memory again, and the caller has written on what it was given."""
    source = frames(4, 250, 130)
    expected = run(model, source, times)

    def again() -> Iterator[Tensor]:
        buffer = torch.empty_like(source[0])
        for frame in source:
            yield buffer.copy_(frame)

    Refusing(model, monkeypatch, refused, torch.cuda.OutOfMemoryError("no"))
    found = []
    for frame in tlbvfi.interpolate_frames(model, again(), times, sample_steps=3):
        found.append(frame.clone())
        frame.zero_()
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 1e-4


@pytest.mark.parametrize("refused", [{2, -1}, {3}])
@pytest.mark.parametrize(
    ("timeline", "batch_size"),
    [
        (Multiplier(2), 4),
        (Multiplier(2, loop=True), 1),
        (Multiplier(2, hold_last=True), 1),
        (TargetRate(Fraction(10), Fraction(15), loop=True), 1),
    ],
    ids=["batch", "loop", "held", "rate and loop"],
)
def test_later_gaps_begun_again(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, timeline: Timeline, batch_size: int, refused: set[int]
) -> None:
    """Of other timelines; -1 is the last call. Gaps in batches need frames of their own."""
    source = frames(4, 130, 70)

    def given() -> Iterator[Tensor]:
        buffer = torch.empty_like(source[0])
        for frame in source:
            yield buffer.copy_(frame) if batch_size == 1 else frame.clone()
        buffer.zero_()

    def run() -> list[Tensor]:
        found = []
        for output in interpolate_timeline(model, given(), timeline, Settings(sample_steps=3), batch_size=batch_size):
            found.append(output.frame.clone())
            output.frame.fill_(0.5)
        return found

    with monkeypatch.context() as patch:
        calls = Refusing(model, patch, set(), RuntimeError())
        expected = run()
    numbers = {number if number > 0 else calls.calls for number in refused}
    Refusing(model, monkeypatch, numbers, torch.cuda.OutOfMemoryError("no"))
    found = run()
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().mean() < 1e-2  # strips round otherwise, and a code may be another one


def test_giving_up_a_batch_is_not_called_strips(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Refusing(model, monkeypatch, {1}, torch.cuda.OutOfMemoryError("no"))
    assert len(run(model, frames(4, 40, 56), 1, batch_size=3)) == 7
    assert "short: going on with one gap at a time" in caplog.text and "strips" not in caplog.text


def test_out_of_memory_in_the_smallest_strips_is_one_sentence(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    Refusing(model, monkeypatch, set(range(100)), torch.cuda.OutOfMemoryError("no"))
    with pytest.raises(
        DeviceMemoryError, match=r"^130x250 does not fit the memory of cpu, .* use a smaller flow_scale, .*\.$"
    ):
        run(model, frames(2, 250, 130), 1)


def test_other_errors_and_interrupts_pass_through(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt(BaseException):
        pass

    for error in (RuntimeError("something else"), Interrupt()):
        with monkeypatch.context() as patch:
            refusing = Refusing(model, patch, {1}, error)  # type: ignore[arg-type]
            with pytest.raises(type(error)):
                run(model, frames(2, 250, 130), 1)
            assert refusing.calls == 1


def test_what_on_step_raises_ends_the_run(model: TLBVFI) -> None:
    """Whatever it says."""
    calls = []

    def ending(done: int) -> None:
        calls.append(done)
        raise RuntimeError("out of memory: mine")

    with pytest.raises(RuntimeError, match="mine"):
        list(tlbvfi.interpolate_frames(model, frames(2, 250, 130), 1, sample_steps=3, on_step=ending))
    assert len(calls) == 1


@pytest.mark.parametrize("call", range(1, 6))
def test_a_cancelled_run_gives_its_memory_back_at_once(model: TLBVFI, call: int) -> None:
    """Without waiting for the garbage collector: nothing holds on to itself."""
    calls = itertools.count(1)

    def ending(done: int) -> None:
        if next(calls) == call:
            raise RuntimeError("cancelled")

    def cancelled() -> None:
        with pytest.raises(RuntimeError, match="cancelled"):
            list(tlbvfi.interpolate_frames(model, frames(3, 40, 56), 2, sample_steps=3, on_step=ending))

    gc.collect()
    gc.disable()
    try:
        with counting(model) as counter:
            run(model, frames(3, 40, 56), 2)
            kept = counter.current  # the empty frame's features
            assert kept <= 2048
            cancelled()
            assert counter.current == kept
    finally:
        gc.enable()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_caller_may_change_what_it_was_given(model: TLBVFI, batch_size: int) -> None:
    expected = run(model, frames(4, 40, 56), 1, batch_size=batch_size)
    found = []
    for frame in tlbvfi.interpolate_frames(model, frames(4, 40, 56), 1, sample_steps=3, batch_size=batch_size):
        found.append(frame.clone())
        frame.mul_(0.5)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_source_may_use_its_memory_again(model: TLBVFI) -> None:
    source = frames(4, 40, 56)

    def again() -> Iterator[Tensor]:
        buffer = torch.empty_like(source[0])
        for frame in source:
            yield buffer.copy_(frame)

    found = [frame.clone() for frame in tlbvfi.interpolate_frames(model, again(), 1, sample_steps=3)]
    assert all(torch.equal(a, b) for a, b in zip(run(model, source, 1), found, strict=True))


def test_the_default_dtype_does_not_matter(model: TLBVFI) -> None:
    source = frames(2, 40, 56)
    expected = run(model, source, 2)
    try:
        torch.set_default_dtype(torch.float64)
        found = run(model, source, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("flow_scale", "0.5"), ("flow_scale", None), ("flow_scale", float("nan")), ("flow_scale", torch.tensor(0.5)),
        ("sample_steps", 10.0), ("sample_steps", None), ("sample_steps", "10"), ("sample_steps", [999, 1.5, 0]),
        ("sample_steps", ["a"]), ("seed", None), ("seed", 1.5), ("seed", "a"), ("first_gap", 1.5), ("first_gap", None),
    ],
)  # fmt: skip
def test_settings_are_checked_at_the_call(model: TLBVFI, setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{setting} must .*\.$"):
        tlbvfi.interpolate_frames(model, frames(2, 16, 16), **{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [502, 1000])
def test_every_number_of_steps_goes(model: TLBVFI, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 502 on the schedule's last evenly spread step is 1 already, and 1 comes twice."""
    monkeypatch.setattr(type(model.denoise_fn), "forward", lambda self, x, y, t: x - y)
    assert model.schedule.timesteps(steps)[-3:] == [1, 1, 0]
    assert len(run(model, frames(2, 16, 16), 1, sample_steps=steps)) == 3


def test_steps_may_come_from_anything_that_counts(model: TLBVFI) -> None:
    source = frames(3, 16, 16)
    once = run(model, source, 1, sample_steps=iter([900, 30, 0]))
    assert all(torch.equal(a, b) for a, b in zip(once, run(model, source, 1, sample_steps=[900, 30, 0]), strict=True))


@pytest.mark.parametrize(("scale", "low"), [(1.0, 0.0), (0.99, -1.0), (0.97, -1.0), (0.5, -1.0)])
def test_range_of_what_the_coarse_flow_sees(model: TLBVFI, scale: float, low: float) -> None:
    """[0, 1] at flow scale 1 alone, even where a smaller one comes to the same size."""
    with torch.no_grad():
        features = model.encode_frame(torch.full((1, 3, 256, 256), -1.0), scale)
    assert features.flow_image.min() == low


def test_whole_numbers_of_numpy_are_whole_numbers(model: TLBVFI) -> None:
    source = frames(2, 16, 16)
    settings = {"sample_steps": np.int64(3), "seed": np.int64(5), "first_gap": np.int32(2), "batch_size": np.int64(1)}
    found = list(tlbvfi.interpolate_frames(model, source, np.int64(1), np.float32(0.5), **settings))  # type: ignore[arg-type]
    assert torch.equal(found[1], run(model, source, 1, seed=5, first_gap=2)[1])


def test_abandoned_run_leaves_nothing(model: TLBVFI) -> None:
    """A caller that stops in the middle, or fails, gets the same frames from the next run."""
    source = frames(2, 40, 40)
    expected = run(model, source, 2)
    half = tlbvfi.interpolate_frames(model, source, 2, sample_steps=3)
    next(half), next(half)
    half.close()  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(expected, run(model, source, 2), strict=True))


def test_global_random_state_is_left_alone(model: TLBVFI) -> None:
    before = torch.random.get_rng_state()
    run(model, frames(2, 16, 16), 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_sample_refuses_what_it_cannot_take(model: TLBVFI) -> None:
    good = torch.zeros(1, 3, 128, 128)
    for x0, x1, sentence in [
        (good, torch.zeros(1, 3, 128, 256), "one shape"),
        (torch.zeros(1, 3, 60, 64), torch.zeros(1, 3, 60, 64), "multiples of 128"),
        (torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), r"\(B, 3, H, W\)"),
        (good.int(), good.int(), "floating point"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            model.sample(x0, x1)
    with pytest.raises(ValueError, match="flow_scale"):
        model.sample(good, good, scale=0.01)
    with pytest.raises(ValueError, match="sample_steps"):
        model.sample(good, good, sample_steps=2)


def test_batches_are_pairs_alone(model: TLBVFI) -> None:
    x = torch.stack([f.permute(2, 0, 1) for f in frames(4, 128, 256)]) * 2 - 1
    noise = [torch.randn(3, 3, 3, 4, 8) for _ in range(3)]
    batch = model.sample(x[:3], x[1:], sample_steps=4, noise=noise)
    for i in range(3):
        alone = model.sample(x[i : i + 1], x[i + 1 : i + 2], sample_steps=4, noise=[n[i : i + 1] for n in noise])
        assert (batch[i] - alone[0]).abs().max() < 1e-4


def test_tiny_is_the_size_it_says() -> None:
    assert TINY.autoencoder.multiple == 128


def test_held_gaps_go_one_by_one() -> None:
    """A frame that is held in a batch may have been given out before, and written over."""
    source, model = frames(5, 8, 8), stand_in()
    held = Skipped(Multiplier(2), lambda index: index in (1, 2))
    expected = [output.frame for output in interpolate_timeline(model, source, held, batch_size=4)]
    found = []
    for output in interpolate_timeline(model, frames(5, 8, 8), held, batch_size=4):
        found.append(output.frame.clone())
        output.frame.zero_()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_batches_are_one_gap_in_strips() -> None:
    model, sizes = stand_in(), []
    method = model.midpoint

    def midpoint(*arguments: object, **named: object) -> Tensor:
        frame = method(*arguments, **named)  # type: ignore[arg-type]
        sizes.append(len(frame))
        return frame

    model.midpoint = midpoint  # type: ignore[method-assign]
    for rows, together in ((64, [3]), (32, [1, 1, 1])):
        sizes.clear()
        plan = Plan((64, 64), 0, 0, rows, 3, graphs=False)
        list(interpolate_timeline(model, frames(4, 8, 8), Multiplier(2), plan=plan))
        assert sizes == together


def test_frames_that_are_shown_often_are_apart() -> None:
    outputs = list(interpolate_timeline(stand_in(), frames(1, 8, 8), Multiplier(4, hold_last=True)))
    assert len({output.frame.data_ptr() for output in outputs}) == len(outputs) == 4

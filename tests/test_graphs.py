"""Model calls that are captured and replayed: the same frames, in bounded memory, and without them where they fail.

On the CPU a recorder does the captured work again at every replay, on the very tensors of its first time: what a call
leaves in memory that is not its own, or reads from it too late, shows. The last tests need a card.
"""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tlbvfi
from tests.smallest import PARAMS, smallest_model
from tests.test_timeline import Listed
from tests.tiny import frames
from tlbvfi import graphs
from tlbvfi.calls import Calls
from tlbvfi.compilation import compiled_parts
from tlbvfi.counting import counting
from tlbvfi.features import FrameFeatures
from tlbvfi.graphs import GraphCalls
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.padding import padding_for
from tlbvfi.pairwise import PairwiseModel
from tlbvfi.planning import Plan, plan
from tlbvfi.recording import CudaRecorder, recorder_for
from tlbvfi.rows.owned import Owned
from tlbvfi.settings import Settings
from tlbvfi.slots import Held, Slot
from tlbvfi.timeline import AFTER, BEFORE, Multiplier, Timeline
from tlbvfi.transfer import HostCopies

QUICK = Settings(sample_steps=3)
HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)
SIZE = (40, 56)


class Again:
    """Captured work, done again at every replay."""

    def __init__(self, recorder: Recorder, work: Callable[[], None]) -> None:
        self._recorder, self._work = recorder, work

    def replay(self) -> None:
        self._recorder.replayed += 1
        error = self._recorder.errors.pop(("replay", self._recorder.replayed), None)
        if error is not None:
            raise error
        self._work()


class Recorder:
    """Records by keeping the work.

    Attributes:
        recorded: recordings made so far, as far as they live.
        errors: what the recordings and replays of these numbers, from 1, raise.
    """

    def __init__(self) -> None:
        self.recorded: list[weakref.ref[Again]] = []
        self.replayed = 0
        self.errors: dict[tuple[str, int], Exception] = {}
        self.works: list[Callable[[], None]] = []
        self.keep_works = False

    def record(self, work: Callable[[], None]) -> Again:
        work()
        recording = Again(self, work)
        self.recorded.append(weakref.ref(recording))
        if self.keep_works:
            self.works.append(work)
        error = self.errors.pop(("record", len(self.recorded)), None)
        if error is not None:
            raise error
        return recording

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(recording() is not None for recording in self.recorded)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Every run captures with this one, from the second call of a kind on."""
    made = Recorder()
    monkeypatch.setattr(graphs, "recorder_for", lambda device: made)
    monkeypatch.setattr(graphs, "UNCAPTURED_CALLS", 1)
    return made


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return smallest_model()


def planned(on: bool, batch_size: int = 1, strip_rows: int | None = None) -> Plan:
    padded = padding_for(*SIZE, multiple=PARAMS.autoencoder.multiple).padded
    return Plan(padded, 0, 0, strip_rows or padded[0], batch_size, graphs=on)


def run(
    model: TLBVFI,
    timeline: Timeline,
    settings: Settings = QUICK,
    *,
    on: bool = True,
    count: int = 5,
    batch_size: int = 1,
    **keywords: Any,
) -> list[Tensor]:
    outputs = interpolate_timeline(
        model, frames(count, *SIZE), timeline, settings, plan=planned(on, batch_size), **keywords
    )
    return [output.frame.clone() for output in outputs]


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


THREE_QUARTERS = Fraction(3, 4)
TIMELINES = {
    "times 1": (Multiplier(2), QUICK, 1),
    "times 2": (Multiplier(4), QUICK, 1),
    "times 3": (Multiplier(8), QUICK, 1),
    "loop": (Multiplier(2, loop=True), QUICK, 1),
    "flow scale 1": (Multiplier(4), replace(QUICK, flow_scale=1.0), 1),
    "nearly 1": (Multiplier(2), replace(QUICK, flow_scale=0.99), 1),
    "one step": (Multiplier(2), replace(QUICK, sample_steps=[0]), 1),
    "on the device": (Multiplier(4), replace(QUICK, offload=False), 1),
    "batches": (Multiplier(2), QUICK, 2),
    "batches of two": (Multiplier(4), QUICK, 2),
    "holds": (
        Listed([(HALF, AFTER), (BEFORE, AFTER), (HALF, HALF, AFTER), (AFTER,), (), (HALF, AFTER), (HALF, AFTER)]),
        QUICK, 1,
    ),
    "places": (
        Listed([(QUARTER,), (THREE_QUARTERS, AFTER), (QUARTER, THREE_QUARTERS), (Fraction(5, 8),), (HALF, AFTER),
                (QUARTER, HALF), (Fraction(3, 8), Fraction(5, 8), AFTER)]), QUICK, 1
    ),
    "batches that change": (
        Listed([(HALF, AFTER)] * 3 + [(QUARTER, AFTER)] * 3 + [(BEFORE,)] + [(HALF, AFTER)] * 2), QUICK, 2
    ),
}  # fmt: skip


def frames_for(name: str) -> int:
    timeline = TIMELINES[name][0]
    if isinstance(timeline, Listed):
        return len(timeline.places) + 1
    return {"times 1": 6, "times 3": 3, "batches": 9, "batches of two": 7}.get(name, 4)


@pytest.mark.parametrize("name", TIMELINES)
def test_frames_are_the_same(model: TLBVFI, recorder: Recorder, name: str) -> None:
    timeline, settings, batch_size = TIMELINES[name]
    count = frames_for(name)
    keywords = {"count": count, "batch_size": batch_size}
    expected = run(model, timeline, settings, on=False, **keywords)
    assert not recorder.recorded
    assert same(run(model, timeline, settings, **keywords), expected)
    assert len(recorder.recorded) >= 2 and recorder.replayed >= 2
    assert recorder.alive == 0  # the run is over


def test_captured_once_and_only_where_it_pays(
    model: TLBVFI, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "UNCAPTURED_CALLS", 3)
    run(model, Multiplier(2), count=3)
    assert not recorder.recorded
    run(model, Multiplier(2), count=7)  # 7 frames encoded, 6 computed
    assert len(recorder.recorded) == 2 and recorder.replayed == (7 - 4) + (6 - 4)


@pytest.mark.parametrize("way", ["plan", "strips", "compiled", "gradients of a device without"])
def test_where_nothing_is_captured(
    model: TLBVFI, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    chosen = planned(on=way != "plan", strip_rows=32 if way == "strips" else None)
    if way == "compiled":
        monkeypatch.setattr(compiled_parts(model)[0], "_compiled_call_impl", lambda *_: None)
    padding = padding_for(*SIZE, multiple=model.multiple)
    if way.startswith("gradients"):
        monkeypatch.setattr(graphs, "recorder_for", recorder_for)
        assert recorder_for(torch.device("meta")) is None
    assert graphs.graph_calls(model, QUICK, padding, chosen) is None


def test_without_a_plan_too(model: TLBVFI, recorder: Recorder) -> None:
    source = frames(5, *SIZE)
    expected = run(model, Multiplier(2), on=False)
    assert same(list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3)), expected)
    assert len(recorder.recorded) == 2


def test_sizes_may_change_between_runs(model: TLBVFI, recorder: Recorder) -> None:
    for size in [(40, 56), (70, 30), (40, 56)]:
        source = frames(4, *size)
        off = planned(on=False)
        off = replace(off, padded_size=padding_for(*size, multiple=model.multiple).padded)
        off = replace(off, strip_rows=off.padded_size[0])
        expected = list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3, plan=off))
        found = list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3, plan=replace(off, graphs=True)))
        assert same(found, expected)
    assert len(recorder.recorded) == 6


@pytest.mark.parametrize("how", ["moved", "changed"])
def test_weights_elsewhere_are_captured_anew(recorder: Recorder, how: str) -> None:
    model = smallest_model()
    calls = itertools.count(1)
    weight = model.vqgan.encoder.conv_in.weight

    def on_step(done: int) -> None:
        if next(calls) == 9:
            if how == "moved":
                weight.data = weight.data.clone()
            else:
                weight.mul_(1.0)

    expected = run(model, Multiplier(2), on=False, count=8)
    assert same(run(model, Multiplier(2), count=8, on_step=on_step), expected)
    assert len(recorder.recorded) == 4


@pytest.mark.parametrize("call", ["record", "replay"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_where_memory_is_short_a_run_goes_on_without(
    model: TLBVFI,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
    batch_size: int,
) -> None:
    expected = run(model, Multiplier(2), on=False, count=9, batch_size=batch_size)
    recorder.errors[call, number] = torch.cuda.OutOfMemoryError("no")
    found = run(model, Multiplier(2), count=9, batch_size=batch_size)
    if batch_size == 1:
        assert same(found, expected)
    else:  # what is left goes one gap at a time, which some processors multiply in another order
        assert all((a - b).abs().max() < 1e-4 for a, b in zip(found, expected, strict=True))
    assert not recorder.errors and recorder.alive == 0
    assert [record.message for record in caplog.records] == [
        "The memory of cpu is short: going on without CUDA graphs."
    ]


def test_where_memory_is_shorter_the_next_plan_comes(
    model: TLBVFI, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = frames(5, 130, 40)
    expected = list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3))
    recorder.errors["replay", recorder.replayed + 2] = torch.cuda.OutOfMemoryError("no")
    midpoint, strips = TLBVFI.midpoint, []

    def refusing(*args: Any, **settings: Any) -> Tensor:
        strips.append(settings["strips"])
        if not recorder.errors and len(recorder.recorded) == 4 and strips[-1].pixels is None:
            raise torch.cuda.OutOfMemoryError("no")
        return midpoint(*args, **settings)

    monkeypatch.setattr(TLBVFI, "midpoint", refusing)
    found = list(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3))
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(found, expected, strict=True))
    messages = [record.message for record in caplog.records if record.name == "tlbvfi.interpolate"]
    assert "without CUDA graphs" in messages[0] and "in strips of" in messages[1]
    assert strips[-1].frugal


@pytest.mark.parametrize(("call", "number"), [("record", 1), ("record", 2), ("replay", 1), ("replay", 2)])
def test_where_capturing_fails_the_model_goes_without_and_says_so_once(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, call: str, number: int
) -> None:
    model = smallest_model()
    expected = run(model, Multiplier(4), on=False, count=3)
    recorder.errors[call, number] = RuntimeError("operation not permitted when stream is capturing\nand more")
    for _ in range(2):
        assert same(run(model, Multiplier(4), count=3), expected)
    assert recorder.alive == 0 and not recorder.errors
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (
            logging.WARNING,
            "CUDA graphs do not work on cpu, going on without them: operation not permitted when stream is capturing",
        )
    ]
    made = len(recorder.recorded)
    assert same(run(smallest_model(), Multiplier(4), count=3), expected)
    assert len(recorder.recorded) == made + 2  # another model is tried


@pytest.mark.parametrize("call", range(2, 12))
def test_a_cancel_takes_effect_at_the_next_call_and_leaves_nothing(
    model: TLBVFI, recorder: Recorder, call: int
) -> None:
    calls = itertools.count(1)

    def ending(done: int) -> None:
        if next(calls) == call:
            raise RuntimeError("cancelled")

    def cancelled() -> None:
        with pytest.raises(RuntimeError, match="cancelled"):
            run(model, Multiplier(4), count=4, on_step=ending)

    gc.collect()
    gc.disable()
    try:
        with counting(model) as counter:
            run(model, Multiplier(2), count=2)
            kept = counter.current  # what the layers keep for this size
            assert kept <= 2048
            cancelled()
            assert counter.current == kept
    finally:
        gc.enable()
    assert next(calls) == call + 1


def test_progress_rises(model: TLBVFI, recorder: Recorder) -> None:
    told: list[float] = []
    run(model, Multiplier(4), on_progress=told.append)
    assert told == sorted(told) and told[0] == 0 and 3 < told[-1] < 4
    assert len(set(told)) > 4 * 3 * 2


def test_graphs_go_with_the_run(recorder: Recorder) -> None:
    model = smallest_model()
    outputs = interpolate_timeline(model, frames(9, *SIZE), Multiplier(2), QUICK)
    for _ in range(8):
        next(outputs)
    assert recorder.alive == 2
    outputs.close()  # type: ignore[attr-defined]
    assert recorder.alive == 0
    gone = weakref.ref(model)
    del model, outputs
    gc.collect()
    assert gone() is None


def test_the_number_of_graphs_is_bounded(model: TLBVFI, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "UNCAPTURED_CALLS", 0)
    most = 0

    def on_step(done: int) -> None:
        nonlocal most
        most = max(most, recorder.alive)

    places: list[Sequence[Fraction]] = []
    for length in (1, 2, 3, 1, 2):
        places += [*[(HALF, AFTER)] * length, (BEFORE, AFTER)]
    expected = run(model, Listed(places), on=False, count=len(places) + 1, batch_size=len(places))
    found = run(model, Listed(places), count=len(places) + 1, batch_size=len(places), on_step=on_step)
    assert same(found, expected)
    assert 2 < most <= 2 * graphs.MOST_BATCH_SIZES < len(recorder.recorded)


@pytest.mark.parametrize(("times", "scale"), [(1, 0.5), (2, 0.5), (2, 1.0)])
def test_memory_beside_that_of_a_run_without(model: TLBVFI, recorder: Recorder, times: int, scale: float) -> None:
    settings = replace(QUICK, flow_scale=scale)

    def peak(on: bool, count: int) -> int:
        with counting(model) as counter:
            source = (frames(1, *SIZE, seed=index)[0] for index in range(count))
            for _ in interpolate_timeline(model, source, Multiplier(2**times), settings, plan=planned(on)):
                pass
        return counter.peak

    padded = planned(on=True).padded_size
    with torch.no_grad():
        features = model.encode_frame(torch.zeros(1, 3, *padded), scale)
    one = sum(tensor.nbytes for tensor, _ in features.beside(features))
    run(model, Multiplier(2), settings, count=2)
    count = 6 // times
    without, captured = peak(False, count), peak(True, count)
    pictures, noise = 2 * 3 * padded[0] * padded[1] * 4, 2 * prod(model.latent_shape(*padded)) * 4
    assert captured <= without + one + pictures + noise
    assert peak(True, count + 2) == captured


class Reads(TorchDispatchMode):
    """The memory that operations read and did not make themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Any] = {}  # kept, so that no other memory is taken for it
        self.outside: dict[int, tuple[str, torch.Size]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.made:
                self.outside[tensor.untyped_storage()._cdata] = (str(func), tensor.shape)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.outside:
                self.made[storage._cdata] = storage
        return result


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_captured_work_reads_only_what_stays(recorder: Recorder, device: str) -> None:
    """A card runs what ``meta`` counts: that nothing else is kept somewhere in the layers."""
    recorder.keep_works = True
    model = smallest_model().to(device)
    padding = padding_for(*SIZE, multiple=model.multiple)
    calls = GraphCalls(model, QUICK, padding, recorder)
    with torch.no_grad():
        empty = model.encode_empty(*padding.padded)
        frame = torch.zeros(1, 3, *padding.padded, device=device)
        noise = torch.zeros(2, 1, *model.latent_shape(*padding.padded), device=device)
        for _ in range(3):
            ends = calls.seated(calls.encode(frame, empty), calls.encode(frame, empty), 1)
            calls.midpoint(*ends, noise, None)
        assert len(recorder.works) == 2
        (stage,) = calls._stages.values()
        kept = [empty, *model.parameters(), *model.buffers(), stage.picture, stage.noise_like(noise)]
        kept += [tensor for slot in (stage.left, stage.right) for tensor, _ in slot.features.beside(slot.features)]
        stays = {tensor.untyped_storage()._cdata for tensor in kept}
        for work in recorder.works:
            with Reads() as reads:
                work()
            assert [what for storage, what in reads.outside.items() if storage not in stays] == []


class Here:
    """Weights that are on their device."""

    ready = True

    def __init__(self, model: TLBVFI) -> None:
        self.model = model

    def plan(self, size: tuple[int, int]) -> Plan:
        return plan(*size, torch.float32, params=PARAMS)

    def load(self, plan: Plan) -> TLBVFI:
        return self.model


def test_pair_by_pair(model: TLBVFI, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [frame.permute(2, 0, 1)[None] for frame in frames(6, *SIZE)]

    def pairs() -> list[Tensor]:
        pairwise = PairwiseModel(Here(model), QUICK, lambda: None)
        states = [pairwise.extract_features(image) for image in images]
        found = []
        for index in range(5):
            cache = {"img0": states[index], "img1": states[index + 1]}
            found.append(pairwise.forward_multi_timestep(images[index], images[index + 1], [0.25, 0.5], cache))
        return found

    found = pairs()
    assert len(recorder.recorded) == 2 and recorder.alive == 0
    monkeypatch.setattr(graphs, "recorder_for", lambda device: None)
    assert same(found, pairs())


def features_of(value: float) -> FrameFeatures:
    image = torch.full((1, 3, 4, 4), value)
    return FrameFeatures(image, image, [None, torch.full((1, 2, 2, 2), value)], [torch.full((1, 2, 2, 2), value)])


def slot_with(value: float) -> tuple[Slot, Held]:
    slot = Slot(features_of(0.0), torch.device("cpu"))
    slot.fill(features_of(value))
    return slot, Held(slot)


def is_full_of(held: Held, value: float) -> bool:
    features = held.borrow()
    return all(bool((tensor == value).all()) for tensor, _ in features.beside(features))


def test_who_is_in_a_slot_moves_out_before_it_is_written() -> None:
    slot, held = slot_with(1.0)
    refuge = Slot(features_of(0.0), torch.device("cpu"))
    slot.clear(refuge)
    assert held.is_in(refuge) and is_full_of(held, 1.0)
    slot.fill(features_of(2.0))
    second = Held(slot)
    slot.clear(refuge)  # which is taken
    slot.fill(features_of(3.0))
    assert not second.is_in(slot) and is_full_of(second, 2.0) and is_full_of(held, 1.0)
    assert slot.occupant is None
    second.move(refuge)
    assert is_full_of(held, 1.0) and is_full_of(second, 2.0) and second.is_in(refuge)


def test_what_is_taken_or_passed_on_is_gone() -> None:
    slot, held = slot_with(1.0)
    passed = held.passed_on()
    assert slot.occupant is passed
    with pytest.raises(RuntimeError, match="taken already"):
        held.borrow()
    taken = passed.take()
    assert slot.occupant is None
    slot.fill(features_of(2.0))
    assert bool((taken.image == 1.0).all()) and taken.image is taken.flow_image
    with pytest.raises(RuntimeError, match="taken already"):
        passed.take()


def test_a_copy_to_the_host_is_waited_for_before_a_slot_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        """Copied when it is released, and not a second time."""

        def __init__(self, tensor: Tensor, apart: bool) -> None:
            self._tensor: Tensor | None = tensor

        def release(self) -> None:
            assert self._tensor is not None
            self._copy, self._tensor = self._tensor.clone(), None

        def restore(self) -> Tensor:
            return self._copy

    copies = HostCopies(torch.device("cpu"))
    monkeypatch.setattr(copies, "offload", Late)
    slot, held = slot_with(1.0)
    offloaded = held.offload(copies)
    del held
    slot.fill(features_of(2.0))
    offloaded.release()
    slot.fill(offloaded)
    assert is_full_of(Held(slot), 1.0)


def test_the_plain_calls_hand_over_what_they_are_given(model: TLBVFI) -> None:
    calls = Calls(model, QUICK, padding_for(*SIZE, multiple=model.multiple), planned(on=False).strips)
    handle = Owned(features_of(1.0))
    left, _ = calls.seated(handle, Owned(features_of(2.0)), 1)
    with pytest.raises(RuntimeError, match="taken already"):
        handle.take()
    assert isinstance(left, Owned)


needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA card")


@pytest.fixture
def eagerly_captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What is captured on a card, from the second call of a kind on."""
    made: list[object] = []
    record = CudaRecorder.record

    def noted(self: CudaRecorder, work: Callable[[], None]) -> object:
        made.append(record(self, work))
        return made[-1]

    monkeypatch.setattr(CudaRecorder, "record", noted)
    monkeypatch.setattr(graphs, "UNCAPTURED_CALLS", 1)
    yield made
    made.clear()
    torch.cuda.empty_cache()


@needs_card
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_card_gives_the_same_frames(eagerly_captured: list[object], name: str, dtype: torch.dtype) -> None:
    model = tlbvfi.load_model(device="cuda", dtype=dtype)
    timeline, settings, batch_size = TIMELINES[name]
    count = frames_for(name)
    padded = padding_for(*SIZE, multiple=model.multiple).padded

    def made(on: bool) -> list[Tensor]:
        chosen = Plan(padded, 0, 0, padded[0], batch_size, graphs=on)
        outputs = interpolate_timeline(model, frames(count, *SIZE), timeline, settings, plan=chosen)
        return [output.frame.clone() for output in outputs]

    expected = made(False)
    assert not eagerly_captured
    assert same(made(True), expected)
    assert len(eagerly_captured) >= 2
    with torch.inference_mode():
        inside = made(True)
    assert same(inside, expected) and same(made(True), expected)


@needs_card
def test_a_card_gets_its_memory_back(eagerly_captured: list[object]) -> None:
    model = tlbvfi.load_model(device="cuda", dtype=torch.float16)
    source = frames(8, 256, 256)
    list(tlbvfi.interpolate_frames(model, source, 1))
    eagerly_captured.clear()
    torch.cuda.empty_cache()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    for _ in range(3):
        list(tlbvfi.interpolate_frames(model, source, 2))
        assert len(eagerly_captured) == 2
        eagerly_captured.clear()
        torch.cuda.empty_cache()
        assert torch.cuda.memory_allocated() <= before + (1 << 16)
        assert torch.cuda.mem_get_info()[0] >= free - (64 << 20)


@needs_card
def test_a_card_captures_weights_that_moved_anew(eagerly_captured: list[object]) -> None:
    model = tlbvfi.load_model(device="cuda", dtype=torch.float16)
    source = frames(8, 128, 128)
    off = Plan(padding_for(128, 128, multiple=model.multiple).padded, 0, 0, 1 << 20, 1, graphs=False)
    expected = list(tlbvfi.interpolate_frames(model, source, 1, plan=off))
    calls = itertools.count(1)

    def on_step(done: int) -> None:
        if next(calls) == 9:
            model.to("cpu")
            model.to("cuda")

    assert same(list(tlbvfi.interpolate_frames(model, source, 1, on_step=on_step)), expected)
    assert len(eagerly_captured) >= 2


@needs_card
def test_a_card_without_memory_for_graphs_goes_on(
    eagerly_captured: list[object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tlbvfi.load_model(device="cuda", dtype=torch.float16)
    source = frames(6, 128, 128)
    off = Plan(padding_for(128, 128, multiple=model.multiple).padded, 0, 0, 1 << 20, 1, graphs=False)
    expected = list(tlbvfi.interpolate_frames(model, source, 1, plan=off))
    midpoint = TLBVFI.midpoint

    def refused(*args: Any, **settings: Any) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            torch.empty(1 << 45, device="cuda")
        return midpoint(*args, **settings)

    monkeypatch.setattr(TLBVFI, "midpoint", refused)
    assert same(list(tlbvfi.interpolate_frames(model, source, 1)), expected)
    assert "going on without CUDA graphs" in caplog.text
    torch.ones(4, device="cuda").sum().item()  # the device works


@needs_card
def test_a_card_that_does_not_capture_goes_on(
    eagerly_captured: list[object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tlbvfi.load_model(device="cuda", dtype=torch.float16)
    source = frames(6, 128, 128)
    off = Plan(padding_for(128, 128, multiple=model.multiple).padded, 0, 0, 1 << 20, 1, graphs=False)
    expected = list(tlbvfi.interpolate_frames(model, source, 1, plan=off))
    midpoint = TLBVFI.midpoint

    def waiting(*args: Any, **settings: Any) -> Tensor:
        result = midpoint(*args, **settings)
        result.sum().item()
        return result

    monkeypatch.setattr(TLBVFI, "midpoint", waiting)
    assert same(list(tlbvfi.interpolate_frames(model, source, 1)), expected)
    assert "CUDA graphs do not work" in caplog.text

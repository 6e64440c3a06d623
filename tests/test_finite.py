"""New frames with NaN or infinity: found wherever it began, said in one sentence, and no file left."""

from __future__ import annotations

import itertools
import re
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tlbvfi
from tests.smallest import smallest_model
from tests.test_graphs import QUICK, Here, Recorder, planned, recorder  # noqa: F401
from tests.tiny import frames
from tlbvfi.commands import interpolate_run
from tlbvfi.commands.main import main
from tlbvfi.finite import NonFiniteFrameError, mark, pass_on
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI, convert_precision
from tlbvfi.pairwise import PairwiseModel
from tlbvfi.rows.tuning import Tuning, tuned
from tlbvfi.timeline import Multiplier
from tlbvfi.video import Encoding, write_video

SOURCE = frames(3, 24, 40)
#: A weight of every part of the model.
PARTS = (
    "vqgan.encoder.conv_in.weight",
    "vqgan.quant_conv.weight",
    "denoise_fn.input_blocks.0.0.weight",
    "vqgan.decoder.flownet.block2.conv1.weight",
    "vqgan.decoder.refinenet.rf_block1.flow_head.2.weight",
    "vqgan.post_quant_conv.weight",
    "vqgan.decoder.moduleout.6.weight",
)


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return smallest_model()


def with_weight(model: TLBVFI, name: str, value: float, dtype: torch.dtype = torch.float32) -> TLBVFI:
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight[(0,) * weight.ndim] = value
    return convert_precision(model, dtype)


def run(model: TLBVFI, **keywords: Any) -> list[Tensor]:
    return list(tlbvfi.interpolate_frames(model, SOURCE, 1, sample_steps=3, **keywords))


@pytest.mark.parametrize("tuning", [None, Tuning()], ids=["here", "as on a card"])
@pytest.mark.parametrize("name", PARTS)
def test_nan_is_found_wherever_it_begins(name: str, tuning: Tuning | None) -> None:
    with (
        pytest.raises(
            NonFiniteFrameError, match=r"^The new frame at 0.5, after source frame 0, [^\n]*float32[^\n]*\.$"
        ),
        tuned(tuning) if tuning else nullcontext(),
    ):
        run(with_weight(smallest_model(), name, float("nan")))


@pytest.mark.parametrize(
    ("dtype", "value", "remedy"),
    [
        (torch.float16, 1e6, "use bfloat16 or float32"),
        (torch.bfloat16, 3e38, "use float32"),
        (torch.float32, 3e38, "the weight file is damaged"),
    ],
)
def test_a_finite_weight_that_overflows(dtype: torch.dtype, value: float, remedy: str) -> None:
    with pytest.raises(NonFiniteFrameError, match=remedy):
        run(with_weight(smallest_model(), "vqgan.decoder.conv_in.weight", value, dtype))


def test_what_hides_nan_passes_it_on() -> None:
    codes, chosen_by, flow = torch.rand(2, 3, 3, 2, 2) - 0.5, torch.rand(2, 3, 3, 2, 2), torch.rand(2, 4, 8, 8) * -1e6
    kept = codes.clone()
    assert torch.equal(pass_on(codes, chosen_by, flow), kept) and torch.equal(codes, kept)
    for value in (float("nan"), float("inf"), 1e30):
        wrong = chosen_by.clone()
        wrong[0, 1, 2, 0, 1] = value
        assert pass_on(kept.clone(), wrong, flow).isnan().nonzero().tolist() == [[0, 1, 2, 0, 1]]
    flow[1, 3, 7, 7] = -float("inf")
    assert pass_on(codes, chosen_by, flow).isnan().flatten(1).all(1).tolist() == [False, True]


def test_one_value_tells_of_all() -> None:
    pictures = torch.rand(3, 5, 4, 3)
    kept = pictures.clone()
    assert torch.equal(mark(pictures), kept)
    pictures[1, 4, 3, 2] = float("nan")
    assert mark(pictures)[:, 0, 0, 0].isnan().tolist() == [False, True, False]


class Spoiling:
    """Makes one value of a new frame NaN, of the gap of this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gap: int) -> None:
        counted, midpoint = itertools.count(), TLBVFI.midpoint

        def spoiling(*args: Any, **keywords: Any) -> Tensor:
            frame = midpoint(*args, **keywords)
            for each in frame:
                if next(counted) == gap:
                    each[2, 7, 9] = float("nan")
            return frame

        monkeypatch.setattr(TLBVFI, "midpoint", spoiling)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("on", [True, False])
def test_the_frame_is_named_and_those_before_it_are_given(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, batch_size: int, offload: bool, on: bool  # noqa: F811
) -> None:  # fmt: skip
    Spoiling(monkeypatch, 1)
    plan = planned(on, batch_size)
    outputs = interpolate_timeline(
        model, SOURCE, Multiplier(2), tlbvfi.Settings(sample_steps=3, offload=offload), plan=plan
    )
    got = []
    with pytest.raises(NonFiniteFrameError, match="at 1.5, after source frame 1"):
        got.extend(output.position for output in outputs)
    assert got == [0, Fraction(1, 2), 1]


def test_pair_by_pair(model: TLBVFI, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [frame.permute(2, 0, 1)[None] for frame in SOURCE]
    pairwise = PairwiseModel(Here(model), QUICK, lambda: None)
    for wrong in (float("nan"), float("inf")):
        broken = images[1].clone()
        broken[0, 1, 2, 3] = wrong
        with pytest.raises(ValueError, match=r"^The frame after holds NaN or infinity; repair .*\.$"):
            pairwise.forward_multi_timestep(images[0], broken, [0.5])
        with pytest.raises(ValueError, match=r"^The frame before holds NaN or infinity; repair .*\.$"):
            pairwise.forward(broken, images[0])
    Spoiling(monkeypatch, 0)
    with pytest.raises(NonFiniteFrameError):
        pairwise.forward_multi_timestep(images[0], images[1], [0.5])


@pytest.mark.parametrize("target", ["out.mp4", "pictures", "out.mkv"])
def test_a_command_ends_with_a_sentence_and_no_file(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    clip = tmp_path / "clip.mkv"
    write_video(clip, SOURCE, Fraction(25), encoding=Encoding("ffv1"))
    monkeypatch.setattr(interpolate_run, "load", lambda *_: model)
    Spoiling(monkeypatch, 1)
    words = ["interpolate", clip, tmp_path / target, "--device", "cpu", "--steps", "3", "--memory", "1"]
    assert main(list(map(str, words))) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"tlbvfi interpolate: The new frame at 1\.5, .*\.", said)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


def test_a_source_frame_is_named_when_it_is_read(model: TLBVFI) -> None:
    source = [frame.clone() for frame in SOURCE]
    source[2][3, 4, 1] = float("nan")
    got: list[Tensor] = []
    with pytest.raises(ValueError, match=r"^Frame 2 holds NaN or infinity; repair the node or file it comes from\.$"):
        got.extend(tlbvfi.interpolate_frames(model, source, 1, sample_steps=3))
    assert len(got) == 3

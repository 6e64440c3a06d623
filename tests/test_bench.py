"""The bench's figures and its peers, on small pictures."""

from __future__ import annotations

import functools
import json
import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from tests.tiny import TINY, frames, tiny_model
from tlbvfi import video
from tlbvfi.bench import measuring, reports, stand_in
from tlbvfi.bench.cases import Case
from tlbvfi.bench.comparing import as_peer, compare
from tlbvfi.bench.measuring import Result, flop_counter, flops_per_frame, measure, peak_bytes, run_batches
from tlbvfi.bench.reports import peer_table, plot, plot_scores, stage_table, table, work_table
from tlbvfi.bench.stages import stage_times
from tlbvfi.bench.work import STAGES, Work, total
from tlbvfi.checkpoint import without_counters
from tlbvfi.commands import bench_run as bench_command
from tlbvfi.commands import models
from tlbvfi.commands.main import main, parser
from tlbvfi.config import BridgeParams
from tlbvfi.interpolate import interpolate_timeline
from tlbvfi.model import TLBVFI
from tlbvfi.peers import PEERS, Peer, average, dis_flow, minterpolate
from tlbvfi.quality import psnr, ssim
from tlbvfi.rows.cuts import WHOLE, Strips
from tlbvfi.settings import Settings, preset, presets
from tlbvfi.timeline import Multiplier

QUICK = Settings(sample_steps=3)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's GEMM rate is not measured."""
    monkeypatch.setattr(measuring, "gemm_rate", lambda device: 0.5)


def a_result(**changes: object) -> Result:
    values: dict[str, object] = {
        "model": "tiny", "case": Case(48, 64), "dtype": "float32", "seconds": 2.0, "gemm_tflops": 0.5,
        "normalised": 1.0, "tflop": 0.4, "gemm_share": 0.4, "peak_bytes": 2**29,
        "stages": {"bridge": 0.75, "rest": 0.25}, "work": {"bridge": Work(1300.0, 2e9)},
    }  # fmt: skip
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def test_a_case_has_all_its_figures() -> None:
    result = measure(tiny_model(), Case(64, 64, times=2, sample_steps=3), repeats=1, name="tiny")
    assert result.normalised == pytest.approx(result.seconds * result.gemm_tflops)
    assert result.gemm_share == pytest.approx(result.tflop / result.normalised)
    assert result.tflop > 0 and result.peak_bytes > 0
    assert sum(result.stages.values()) == pytest.approx(1.0)
    assert "| tiny | 64x64 | 2 | 0.5 | float32 | whole |" in table([result])
    assert "| bridge |" in stage_table(result)
    assert tuple(result.work) == STAGES and total(result.work).operations > 0
    assert work_table(result).count("| refinement | ") == 1


@pytest.mark.parametrize(("rows", "flow_scale"), [(None, 0.5), (32, 1.0)])
def test_every_stage_is_met_and_the_model_is_as_before(rows: int | None, flow_scale: float) -> None:
    model = tiny_model()
    before = [dict(vars(module)) for module in model.modules()]
    batches = run_batches(model, Case(100, 120, flow_scale=flow_scale, sample_steps=3, strip_rows=rows))
    next(batches)
    with stage_times(model) as spent:
        next(batches)
    assert min(spent.values()) > 0
    assert {"encoder level 4", "wavelets", "bridge", "refinement level 0", "decoder enlarging", "rest"} <= set(spent)
    assert all(vars(module) == old for module, old in zip(model.modules(), before, strict=True))


def test_compiled_parts_are_timed_compiled_and_counted_as_they_are() -> None:
    model, calls = tiny_model(), []

    def compiled(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(len(arguments))
        return model.denoise_fn._call_impl(*arguments)

    model.denoise_fn._compiled_call_impl = compiled
    case = Case(64, 64, sample_steps=3)
    expected = flops_per_frame(tiny_model(), case)
    assert flops_per_frame(model, case) == expected
    assert not calls
    batches = run_batches(model, case)
    next(batches)
    with stage_times(model) as spent:
        next(batches)
    assert calls and spent["bridge"] > 0
    assert model.denoise_fn._compiled_call_impl is compiled


def test_attention_counts_among_the_operations() -> None:
    q = torch.zeros(1, 2, 48, 16)
    with torch.no_grad(), flop_counter() as counter:
        F.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * 2 * 2 * 48 * 48 * 16


def test_strips_take_less_memory_and_give_the_same_frames() -> None:
    model, size = tiny_model(), (512, 128)
    whole, strips = (as_peer(model, size, QUICK, rows)(frames(2, *size))[0] for rows in (None, 64))
    assert psnr(whole, strips) > 40
    frugal, plain = Case(*size, sample_steps=3, strip_rows=64), Case(*size, sample_steps=3)
    assert peak_bytes(model, frugal) < 0.9 * peak_bytes(model, plain)


def test_a_strip_is_so_many_rows_of_the_padded_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny_model(), []
    midpoint = TLBVFI.midpoint

    def spying(self: TLBVFI, *features: object, strips: Strips, **options: object) -> torch.Tensor:
        asked.append(strips)
        return midpoint(self, *features, strips=strips, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TLBVFI, "midpoint", spying)
    for rows in (None, 32):
        next(run_batches(model, Case(40, 200, sample_steps=3, strip_rows=rows)))  # padded to 128x256
    assert asked == [WHOLE, Strips(32 * 256, frugal=True)]


def test_operations_are_those_of_the_steady_state() -> None:
    """A new frame at times 2 takes two encodings for three, one at times 1; the midpoint is the same."""
    model = tiny_model()
    once, twice = (flops_per_frame(model, Case(64, 64, times, sample_steps=3)) for times in (1, 2))
    with torch.no_grad(), flop_counter() as counter:
        model.encode_frame(torch.zeros(1, 3, 128, 128))
    assert once - twice == pytest.approx(counter.get_total_flops() / 3)


def test_metrics() -> None:
    picture = frames(1, 40, 50)[0]
    assert psnr(picture, picture) == math.inf
    assert psnr(picture, (picture + 0.1)) == pytest.approx(20.0, abs=0.01)
    assert ssim(picture, picture) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="11x11"):
        ssim(picture[:10], picture[:10])


def test_similarity_of_known_pictures() -> None:
    """A constant offset leaves the luminance term alone: (2 a b + c) / (a^2 + b^2 + c)."""
    dark, bright = torch.full((16, 20, 3), 0.25), torch.full((16, 20, 3), 0.75)
    assert ssim(dark, bright) == pytest.approx((2 * 0.1875 + 1e-4) / (0.0625 + 0.5625 + 1e-4))


def test_similarity_is_scikit_image_s() -> None:
    picture = frames(1, 40, 50)[0]
    noisy = (picture + 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    expected = structural_similarity(
        picture.double().numpy(), noisy.double().numpy(), data_range=1.0, channel_axis=-1, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(picture, noisy) == pytest.approx(expected, abs=1e-9)


def test_peers_give_the_middle_of_a_pan() -> None:
    """A texture that moves 4 pixels a frame: motion compensation finds it, and at the right time."""
    noise = torch.rand((30, 120, 3), generator=torch.Generator().manual_seed(1))
    texture = torch.nn.functional.interpolate(noise.permute(2, 0, 1)[None], scale_factor=4.0, mode="bicubic")
    texture = 0.4 + 0.2 * texture[0].permute(1, 2, 0)  # of more contrast, the filter sees cuts
    clip = [texture[:, 4 * i : 4 * i + 160] for i in range(7)]
    inner = (slice(16, -16), slice(16, -16))
    given, truths = clip[::2], clip[1::2]
    mixed = [psnr(made[inner], truth[inner]) for made, truth in zip(average(given), truths, strict=True)]
    for peer in (minterpolate, dis_flow):
        found = [psnr(made[inner], truth[inner]) for made, truth in zip(peer(given), truths, strict=True)]
        assert len(found) == len(mixed) == 3
        assert min(found) > max(mixed) + 4, peer


def test_comparison_lists_ours_beside_the_peers() -> None:
    model = tiny_model()
    scores = compare(frames(6, 48, 64), {**PEERS, "ours": as_peer(model, (48, 64), QUICK)})
    assert set(scores) == {*PEERS, "ours"}
    assert all(math.isfinite(value) for score in scores.values() for value in score.values())
    assert all({"seconds", "psnr", "ssim"} == set(score) for score in scores.values())
    assert "| FFmpeg minterpolate |" in peer_table(scores)


def test_the_model_beside_others_is_as_in_a_run() -> None:
    model, given = tiny_model(), frames(4, 48, 64)
    settings = Settings(flow_scale=0.25, sample_steps=4, seed=3, padding="published")
    expected = list(interpolate_timeline(model, given, Multiplier(2), settings))[1::2]
    made = as_peer(model, (48, 64), settings)(given)
    assert [torch.equal(a, b.frame) for a, b in zip(made, expected, strict=True)] == [True] * 3


def test_a_method_without_its_library_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def missing(given: object) -> list[torch.Tensor]:
        raise ImportError("No module named 'cv2'")

    scores = compare(frames(3, 48, 64), {"average": average, "optical flow": missing})
    assert set(scores) == {"average"}
    assert "optical flow is left out: No module named 'cv2'." in caplog.text


class TestFigures:
    def test_time_and_stages(self) -> None:
        results = [
            a_result(),
            a_result(case=Case(48, 64, strip_rows=32), stages={f"stage {i}": 0.04 for i in range(25)}),
        ]
        assert plot(results).startswith(b"\x89PNG")

    def test_quality_against_time(self) -> None:
        scores = {"average": {"seconds": 0.01, "psnr": 30.0, "ssim": 0.9}}
        assert b"<svg" in plot_scores(scores, ".SVG")


Runner = functools.partial[tuple[int, str, str]]


@pytest.fixture
def run(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Runs `bench` in this process: exit code, stdout, stderr. MODEL stands for a very small model."""

    def running(*arguments: object) -> tuple[int, str, str]:
        words = [str(tiny_checkpoint) if argument == "MODEL" else str(argument) for argument in arguments]
        code = main(["bench", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return functools.partial(running)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    video.write_video(path, frames(7, 32, 48), Fraction(25))
    return path


@pytest.mark.usefixtures("quick")
class TestCommandLine:
    def test_a_row_for_each_setting(self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def measured(model: TLBVFI, case: Case, repeats: int, name: str) -> Result:
            asked.append((case.width, case.times, case.flow_scale, case.strip_rows, model.dtype, repeats, name))
            return a_result(case=case, model=name)

        monkeypatch.setattr(bench_command, "measure", measured)
        settings = ["--size", "64x48", "100x48", "--times", 1, 2, "--flow-scale", 0.5, 1, "--strips", "whole", 32]
        target = tmp_path / "out.json"
        code, out, err = run("--model", "MODEL", *settings, "--dtype", "fp32", "bf16", "--repeats", 5, "--json", target)
        assert (code, err) == (0, "")
        assert len(asked) == len(set(asked)) == 32
        assert {row[3] for row in asked} == {None, 32}
        assert {row[4:] for row in asked} == {
            (dtype, 5, "tiny.safetensors") for dtype in (torch.float32, torch.bfloat16)
        }
        assert len(out.split("| model |")[-1].splitlines()) == 2 + 32
        content = json.loads(target.read_text(encoding="utf-8"))
        assert content["threads"] == torch.get_num_threads()
        assert len(content["results"]) == 32
        assert content["results"][1]["case"]["strip_rows"] == 32
        assert content["results"][1]["work"] == {"bridge": {"operations": 1300.0, "bytes": 2e9}}
        assert out.count("| bridge | 1,300 | 2.00 |") == 32
        assert [path.name for path in tmp_path.iterdir()] == ["out.json"]

    def test_whole_against_strips(self, run: Runner) -> None:
        code, out, _ = run("--model", "MODEL", "--size", "64x128", "--strips", "whole", 64, "--repeats", 1)
        assert code == 0
        rows = [line.split(" | ") for line in out.split("| model |")[-1].splitlines()[2:]]
        assert [(row[1], row[5]) for row in rows] == [("64x128", "whole"), ("64x128", "64")]
        assert "| bridge |" in out

    def test_models_of_one_name_stay_apart(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        other = tmp_path / tiny_checkpoint.name
        other.write_bytes(tiny_checkpoint.read_bytes())
        options = parser().parse_args(["bench", "--model", str(tiny_checkpoint), str(other)])
        names = [
            bench_command._loaded(options, torch.device("cpu"), source, "float32", options.model)[1]
            for source in options.model
        ]
        assert names == [str(tiny_checkpoint), str(other)]

    def test_a_clip(self, run: Runner, clip: Path, tmp_path: Path) -> None:
        target = tmp_path / "scores.json"
        code, out, _ = run(
            "--clip", clip, "--max-frames", 4, "--model", "MODEL", "--flow-scale", 0.5, 1, "--json", target
        )
        assert code == 0
        results = json.loads(target.read_text(encoding="utf-8"))["results"]
        methods = [score["method"] for score in results]
        assert methods[:2] == ["average of the two frames", "FFmpeg minterpolate"]
        assert methods[-2:] == [f"tiny.safetensors, flow scale {scale}, float32" for scale in ("0.5", "1")]
        assert all(f"| {method} |" in out for method in methods)
        assert all(set(score) == {"method", "seconds", "psnr", "ssim"} for score in results)

    def test_presets_on_a_clip(
        self, run: Runner, clip: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row for each model and preset, by name, beside the classical methods; each with the preset's settings."""
        other, target, asked = tmp_path / "other.safetensors", tmp_path / "scores.json", []
        other.write_bytes(tiny_checkpoint.read_bytes())

        def spied(model: TLBVFI, size: tuple[int, int], settings: Settings, rows: int | None) -> Peer:
            asked.append((settings, rows))
            return as_peer(model, size, settings, rows)

        monkeypatch.setattr(bench_command, "as_peer", spied)
        names = ["quality", "fast", "balanced", "fast"]
        code, out, err = run(
            "--clip", clip, "--max-frames", 3, "--model", "MODEL", other, "--quality", *names, "--json", target
        )
        assert (code, err) == (0, "")
        assert asked == [(preset(name), None) for name in ("quality", "fast", "balanced")] * 2
        results = {row.pop("method"): row for row in json.loads(target.read_text(encoding="utf-8"))["results"]}
        assert [name for name in results if name not in PEERS] == [
            f"{model}, {name}, float32"
            for model in ("tiny.safetensors", "other.safetensors")
            for name in ("quality", "fast", "balanced")
        ]
        assert "average of the two frames" in results
        assert all(f"| {method} |" in out for method in results)
        ours = [results[f"tiny.safetensors, {name}, float32"]["psnr"] for name in presets()]
        assert len(set(ours)) == 3, "each preset makes other frames"

    def test_without_presets_it_is_ten_steps(self, run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Settings] = []
        monkeypatch.setattr(bench_command, "as_peer", lambda model, size, settings, rows: asked.append(settings))
        monkeypatch.setattr(bench_command, "compare", lambda *_: {})
        assert run("--clip", clip, "--model", "MODEL", "--flow-scale", 0.25, 1)[0] == 0
        assert asked == [Settings(flow_scale=scale, sample_steps=10) for scale in (0.25, 1)]

    @pytest.mark.parametrize("frames_wanted", [3, 4, 7])
    def test_only_the_first_frames_of_a_clip(
        self, run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch, frames_wanted: int
    ) -> None:
        seen = []

        def compared(given: list[torch.Tensor], methods: object) -> dict[str, dict[str, float]]:
            seen.append(len(given))
            return {}

        monkeypatch.setattr(bench_command, "compare", compared)
        assert run("--clip", clip, "--max-frames", frames_wanted, "--model", "MODEL")[0] == 0
        assert seen == [frames_wanted] * 2

    def test_equal_frames_have_no_number_in_json(
        self, run: Runner, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores = {"average": {"seconds": 0.1, "psnr": math.inf, "ssim": 1.0}}
        monkeypatch.setattr(bench_command, "compare", lambda given, methods: dict(scores))
        target = tmp_path / "scores.json"
        assert run("--clip", clip, "--model", "MODEL", "--json", target)[0] == 0
        assert json.loads(target.read_text(encoding="utf-8"))["results"][0]["psnr"] is None

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--model", "no.safetensors"], "no.safetensors does not exist"),
            (["--strips", "0"], "must be a number of rows such as 256, or whole"),
            (["--strips", "half"], "must be a number of rows such as 256, or whole"),
            (["--max-frames", "2"], "must be a whole number between 3"),
            (["--clip", "no.mp4"], "no.mp4 does not exist"),
            (["--quality", "fast"], "--quality compares presets on a video; name one with --clip."),
            (["--clip", "no.mp4", "--quality", "best"], "invalid choice: 'best'"),
            (["--clip", "no.mp4", "--quality"], "expected at least one argument"),
            (["--clip", "no.mp4", "--quality", "fast", "--flow-scale", "1"], "not allowed with argument"),
            (["--json", "no/where.json"], "no does not exist"),
            (["--json", "."], "is a folder"),
            (["--json", f"{'a' * 300}.json"], "its name is not possible here"),
            (["--json", "a.svg", "--plot", "./a.svg"], "are the same file"),
            (["--size", "512x512", "999999x999999"], "GiB at least, more than"),
            (["--model", "stand-in", "--size", "4096x4096", "--dtype", "bf16", "fp32"], "in float32 needs"),
        ],
    )
    def test_a_wrong_request_is_one_sentence(
        self, run: Runner, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench_command, "measure", lambda *_: pytest.fail("long work"))
        monkeypatch.setattr(bench_command, "compare", lambda *_: pytest.fail("long work"))
        monkeypatch.setattr(bench_command, "free_memory", lambda device: 8 * 2**30)
        code, _, err = run(*arguments)
        assert code == 2
        assert sentence in err
        refusal, *example = err.splitlines()
        wrong_call = refusal.startswith("python -m tlbvfi bench: ")
        assert wrong_call or refusal.startswith("tlbvfi bench: ")
        assert len(example) == wrong_call

    def test_steps_that_a_model_does_not_have_are_found_first(
        self, run: Runner, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = replace(TINY, bridge=BridgeParams(num_timesteps=40))
        monkeypatch.setattr(bench_command, "check_entries", lambda path: few)
        monkeypatch.setattr(bench_command, "compare", lambda *_: pytest.fail("long work"))
        code, out, err = run("--clip", clip, "--model", "MODEL", "--quality", "fast", "quality")
        assert (code, out) == (2, "")
        assert err == "tlbvfi bench: sample_steps must be between 3 and 40, not 50.\n"

    @pytest.mark.parametrize("clip", [[], ["--clip", "CLIP"]])
    def test_a_bad_file_among_several_is_found_first(
        self, run: Runner, tmp_path: Path, clip: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench_command, "measure", lambda *_: pytest.fail("long work"))
        monkeypatch.setattr(bench_command, "compare", lambda *_: pytest.fail("long work"))
        bad, source = tmp_path / "bad.pth", tmp_path / "clip.mp4"
        bad.write_text("no weights")
        video.write_video(source, frames(3, 32, 48), Fraction(25))
        code, _, err = run("--model", "MODEL", bad, *(source if word == "CLIP" else word for word in clip))
        assert code == 2
        assert "bad.pth" in err and len(err.splitlines()) == 1

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_a_file_that_was_cut_off_is_found_first(
        self, run: Runner, tmp_path: Path, tiny_checkpoint: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench_command, "measure", lambda *_: pytest.fail("long work"))
        cut = tmp_path / f"cut.{suffix}"
        if suffix == "pth":
            torch.save({"model": {"a": torch.zeros(1000)}}, cut)
        else:
            cut.write_bytes(tiny_checkpoint.read_bytes())
        cut.write_bytes(cut.read_bytes()[:-100])
        code, _, err = run("--model", "MODEL", cut)
        assert code == 2
        assert f"cut.{suffix}: not a readable" in err and len(err.splitlines()) == 1

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("changed", ["another model", "another shape"])
    def test_a_file_of_another_model_is_found_first(
        self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, changed: str
    ) -> None:
        """By its names and shapes, whose values nobody has read then."""
        monkeypatch.setattr(bench_command, "measure", lambda *_: pytest.fail("long work"))
        monkeypatch.setattr(bench_command, "load", lambda *_: pytest.fail("a model was loaded"))
        state = {"layer.weight": torch.zeros(2, 3)}
        if changed == "another shape":
            state = {key: torch.zeros(1) for key in without_counters(TLBVFI().state_dict())}
        other = tmp_path / f"other.{suffix}"
        if suffix == "pth":
            torch.save({"model": state}, other)
        else:
            save_file(state, other)
        code, out, err = run("--model", "MODEL", other, "--size", "64x48")
        assert (code, out) == (2, "")
        assert other.name in err and ("not a TLB-VFI checkpoint" in err or "another shape" in err)
        assert len(err.splitlines()) == 1

    def test_each_file_is_loaded_once(self, run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[Path] = []
        load_model = models.load_model

        def spied(source: Path, **options: Any) -> TLBVFI:
            loaded.append(source)
            return load_model(source, **options)

        monkeypatch.setattr(models, "load_model", spied)
        monkeypatch.setattr(bench_command, "measure", lambda *_: a_result())
        assert run("--model", "MODEL")[0] == 0
        assert len(loaded) == 1

    def test_what_was_measured_before_a_failure_is_kept(
        self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measured(model: TLBVFI, case: Case, *_: object) -> Result:
            if case.width == 100:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried. More.")
            return a_result(case=case)

        monkeypatch.setattr(bench_command, "measure", measured)
        target = tmp_path / "out.json"
        code, _, err = run("--model", "MODEL", "--size", "64x48", "100x48", "--json", target)
        assert code == 1
        assert err.startswith("tlbvfi bench: the memory does not suffice (") and len(err.splitlines()) == 1
        assert [result["case"]["width"] for result in json.loads(target.read_text())["results"]] == [64]

    def test_stand_in_weights_are_always_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stand_in, "load_params", lambda name: TINY)
        first, second = (stand_in.stand_in_model(torch.device("cpu")).state_dict() for _ in range(2))
        assert all(torch.equal(value, second[key]) for key, value in first.items())

    def test_clips_that_cannot_be_compared(self, run: Runner, tmp_path: Path) -> None:
        short, small = tmp_path / "short.mp4", tmp_path / "small.mp4"
        video.write_video(short, frames(2, 32, 48), Fraction(25))
        video.write_video(small, frames(3, 8, 48), Fraction(25))
        for path, sentence in ((short, "fewer than three frames"), (small, "SSIM needs 11x11")):
            code, _, err = run("--clip", path, "--model", "MODEL")
            assert code == 2
            assert sentence in err
            assert len(err.splitlines()) == 1

    def test_pictures_of_several_sizes_are_no_clip(self, run: Runner, tmp_path: Path) -> None:
        for index, width in enumerate((48, 50, 48)):
            video.write_picture(tmp_path / f"{index}.png", frames(1, 32, width)[0])
        code, _, err = run("--clip", tmp_path, "--model", "MODEL")
        assert code == 2
        assert "Frame 1 is 50x32, but those before it are 48x32" in err and len(err.splitlines()) == 1

    def test_a_figure_that_cannot_be_drawn_is_refused_at_once(
        self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as .pgf, which needs TeX."""

        def failing(*_: object) -> bytes:
            raise RuntimeError("xelatex not found\nMore.")

        monkeypatch.setattr(reports, "_drawn", failing)
        monkeypatch.setattr(bench_command, "measure", lambda *_: pytest.fail("long work"))
        code, _, err = run("--plot", tmp_path / "out.pgf")
        assert code == 2
        assert err == "tlbvfi bench: .pgf files cannot be drawn here (xelatex not found); use .png or .svg.\n"

    def test_a_figure_without_matplotlib_is_refused_at_once(
        self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setattr(bench_command, "_loaded", lambda *_: pytest.fail("long work"))
        code, _, err = run("--plot", tmp_path / "out.png")
        assert code == 2
        assert err == "tlbvfi bench: --plot needs matplotlib, which is not installed: pip install matplotlib.\n"

    def test_a_figure_of_no_kind(self, run: Runner, tmp_path: Path) -> None:
        code, _, err = run("--plot", tmp_path / "out.docx")
        assert code == 2
        assert "out.docx is no kind of picture that --plot can write" in err

    def test_a_figure(self, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bench_command, "measure", lambda *_: a_result())
        target = tmp_path / "out.svg"
        assert run("--model", "MODEL", "--size", "64x48", "--plot", target)[0] == 0
        assert "<svg" in target.read_text(encoding="utf-8")
        assert [path.name for path in tmp_path.iterdir()] == ["out.svg"]

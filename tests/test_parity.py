"""The published model's frames and intermediates, recorded from the published code with stand-in weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import tlbvfi
from tlbvfi.model import TLBVFI

HERE = Path(__file__).resolve().parent / "parity" / "cases"
CASES = sorted(HERE.glob("*.safetensors"))
#: Every intermediate and the output must agree to this.
FLOOR_DB = 120.0


def psnr(value: Tensor, expected: Tensor, peak: float | None = None) -> float:
    """Decibels; the peak is the range of the expected values unless given."""
    assert value.shape == expected.shape
    peak = peak or float(expected.max() - expected.min())
    error = (value.double() - expected.double()).square().mean().item()
    return 10 * math.log10(peak**2 / max(error, 1e-30))


@pytest.fixture(scope="module")
def model(official_checkpoint: Path) -> TLBVFI:
    return tlbvfi.load_model(official_checkpoint)


class Case:
    def __init__(self, path: Path) -> None:
        self.tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            self.metadata = file.metadata()
        self.steps = int(self.metadata["sample_steps"])
        self.scale = float(self.metadata["flow_scale"])
        self.noise = [self.tensors[f"noise.{i}"] for i in range(self.steps - 1)]
        first, second = (self.tensors[name].float() / 255 * 2 - 1 for name in ("frame0", "frame1"))
        mode = "published" if self.metadata["padded"] else "tight"
        self.padding = tlbvfi.padding_for(first.shape[-2], first.shape[-1], mode)
        self.frames = self.padding.pad(first), self.padding.pad(second)


def test_cases_are_here() -> None:
    assert [path.name.split("_")[0] for path in CASES] == ["batch2", "padded", "pair", "pair"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_case(model: TLBVFI, path: Path) -> None:
    case = Case(path)
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        features = [model.encode_frame(frame, case.scale) for frame in case.frames]
        output = model.midpoint(*features, case.steps, case.noise, record)
    assert model.schedule.timesteps(case.steps) == eval_list(case.metadata["step_list"])
    record["features_32"] = torch.stack([f.pyramid[-1] for f in features], dim=1).flatten(0, 1)
    record["code_indices"] = record["code_indices"].flatten(0, 1)
    assert torch.equal(record["code_indices"], case.tensors["code_indices"])
    names = [n for n in case.tensors if n in record and n != "code_indices"]
    assert {"features_32", "latent", "bridge", "coarse_flow"} <= set(names)
    figures = {name: psnr(record[name], case.tensors[name]) for name in names}
    figures["output"] = psnr(case.padding.crop(output), case.tensors["output"], peak=2.0)
    assert all(value > FLOOR_DB for value in figures.values()), figures


def eval_list(text: str) -> list[int]:
    return [int(item) for item in text.strip("[]").split(",")]


def test_sample_is_midpoint_of_encoded_frames(model: TLBVFI) -> None:
    """`sample` on a batch gives each pair what it gets alone, and what the recorded case has."""
    case = Case(HERE / "pair_256x256_scale05.safetensors")
    x0, x1 = case.frames
    noise = [torch.cat([n, -n]) for n in case.noise]
    both = model.sample(torch.cat([x0, x1]), torch.cat([x1, x0]), case.scale, case.steps, noise)
    assert psnr(both[:1], case.tensors["output"], peak=2.0) > FLOOR_DB
    alone = model.sample(x1, x0, case.scale, case.steps, [-n for n in case.noise])
    assert psnr(both[1:], alone, peak=2.0) > 110
    explicit = model.sample(x0, x1, case.scale, model.schedule.timesteps(case.steps), case.noise)
    assert psnr(explicit, case.tensors["output"], peak=2.0) > FLOOR_DB


@pytest.mark.parametrize(("dtype", "floor"), [(torch.bfloat16, 25.0), (torch.float16, 32.0)])
def test_half_precision(official_checkpoint: Path, dtype: torch.dtype, floor: float) -> None:
    """Half-precision models run on the CPU and stay near, although random weights amplify rounding."""
    case = Case(HERE / "pair_256x256_scale05.safetensors")
    half = tlbvfi.load_model(official_checkpoint, dtype=dtype)
    assert half.dtype == dtype
    record: dict[str, Tensor] = {}
    with torch.no_grad():
        features = [half.encode_frame(frame, case.scale) for frame in case.frames]
        output = half.midpoint(*features, case.steps, case.noise, record)
    assert output.dtype == torch.float32
    assert all(record[name].dtype == torch.float32 for name in ("latent", "bridge", "coarse_flow", "flow"))
    assert psnr(output, case.tensors["output"], peak=2.0) > floor

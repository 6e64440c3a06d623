"""The recorded cases of the published model, in float32 without TF32: every intermediate and the frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import tlbvfi
from tests.cuda.report import Sheet
from tests.cuda.setting import PLAIN, ROOT, Setting, Way, decibels
from tests.parity.schedule_buffers import schedule_buffers
from tests.parity.weights import state_dict
from tests.tiny import tiny_model
from tlbvfi.kernel_compilation import compile_kernels
from tlbvfi.model import TLBVFI
from tlbvfi.precision import tf32
from tlbvfi.settings import Settings

#: As in tests/test_parity.py.
FLOOR_DB = 120.0
CASES = sorted((ROOT / "tests" / "parity" / "cases").glob("*.safetensors"))
_MIDDLES = ("features_32", "latent", "bridge", "coarse_flow", "refined_flow", "flow")


def run(setting: Setting, sheet: Sheet) -> None:
    with tf32(False), torch.no_grad():
        model = _published(setting)
        for path in CASES[: 1 if setting.rehearse else None]:
            case = _Case(path, setting)
            compile_kernels(model, tuple(case.frames[0].shape[2:]), 1, Settings(case.scale, tf32=False))
            if setting.rehearse:
                case.record(model, setting)
            for way in setting.ways():
                setting.go_on()
                try:
                    with setting.taking(way):
                        _compare(case, way, _made(case, model, way, setting), sheet)
                except Exception as error:  # whatever a card or a compiler raises
                    sheet.check(False, f"{case.name} by {way.name}: {type(error).__name__}: {error}")
    setting.clean()


def _published(setting: Setting) -> TLBVFI:
    """The model of the recorded cases; a tiny one in a rehearsal."""
    if setting.rehearse:
        return tiny_model()
    path = setting.out / "recorded-model.pth"
    buffers = {name: torch.from_numpy(values) for name, values in schedule_buffers().items()}
    torch.save({"model": {**state_dict(0), **buffers}}, path)
    try:
        return tlbvfi.load_model(path, device=setting.device)
    finally:
        path.unlink()


class _Case:
    """A recorded case: its inputs on the device, and what is expected."""

    def __init__(self, path: Any, setting: Setting) -> None:
        self.name, tensors = path.stem, load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        self.steps, self.scale = int(metadata["sample_steps"]), float(metadata["flow_scale"])
        self.noise = [tensors[f"noise.{i}"].to(setting.device) for i in range(self.steps - 1)]
        first, second = (tensors[name].float() / 255 * 2 - 1 for name in ("frame0", "frame1"))
        mode = "published" if metadata["padded"] else "tight"
        self.padding = tlbvfi.padding_for(first.shape[-2], first.shape[-1], mode)
        self.frames = [self.padding.pad(frame).to(setting.device) for frame in (first, second)]
        self.expected = {name: tensors[name] for name in (*_MIDDLES, "code_indices", "output") if name in tensors}

    def record(self, model: TLBVFI, setting: Setting) -> None:
        """Expect what another model makes now, of smaller frames."""
        self.padding = tlbvfi.padding_for(128, 128, "tight", model.multiple)
        self.frames = [frame[:, :, :128, :128].clone() for frame in self.frames]
        shape = len(self.frames[0]), *model.latent_shape(128, 128)
        self.noise = [torch.randn(shape) for _ in self.noise]
        with setting.taking(PLAIN):
            self.expected = self.made(model)

    def made(self, model: TLBVFI) -> dict[str, Tensor]:
        """The intermediates and the frame, as they are named in the case."""
        record: dict[str, Tensor] = {}
        ends = [model.encode_frame(frame, self.scale) for frame in self.frames]
        output = model.midpoint(*ends, self.steps, self.noise, record)
        deepest = torch.stack([end.deepest for end in ends], dim=1)
        record["features_32"] = rearrange(deepest, "b t c h w -> (b t) c h w")
        record["code_indices"] = rearrange(record["code_indices"], "b t h w -> (b t) h w")
        return {**record, "output": self.padding.crop(output)}


def _made(case: _Case, model: TLBVFI, way: Way, setting: Setting) -> dict[str, Tensor]:
    """What the model makes of a case, called as it is or out of a graph."""
    call: Callable[[], dict[str, Tensor]] = lambda: case.made(model)  # noqa: E731
    if not way.graphs:
        return call()
    replay, results = setting.captured(call)
    replay()
    setting.finish()
    return results


def _compare(case: _Case, way: Way, made: dict[str, Tensor], sheet: Sheet) -> None:
    codes, expected = made["code_indices"].cpu(), case.expected["code_indices"].cpu()
    others = [name for name in case.expected if name != "code_indices"]
    figures = {
        name: decibels(made[name], case.expected[name], peak=2.0 if name == "output" else None) for name in others
    }
    equal = (codes.reshape(expected.shape) == expected).double().mean().item()
    least = min(figures, key=figures.__getitem__)
    sheet.row(
        "Recorded cases, float32 without TF32, dB",
        **{"case": case.name, "way": way.name, "output": figures["output"], "least of all": figures[least]},
        **{"of it": least, "codes equal %": 100 * equal},
    )
    sheet.details.setdefault("decibels", []).append({"case": case.name, "way": way.name, **figures})
    low = {name: round(value, 1) for name, value in figures.items() if value <= FLOOR_DB}
    sheet.check(not low, f"{case.name} by {way.name}: {low} dB, {FLOOR_DB:g} wanted")
    sheet.check(equal == 1.0, f"{case.name} by {way.name}: {100 * (1 - equal):.3g} % of the codes differ")

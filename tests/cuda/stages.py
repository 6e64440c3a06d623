"""Where the time of a new frame goes: each stage out of a CUDA graph, beside the time that its bytes take at the card's
rate of copying; and the kernels that take the most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.cuda.report import Sheet
from tests.cuda.setting import Setting, Way
from tlbvfi.bench.cases import Case
from tlbvfi.bench.work import STAGES, total, work_per_frame
from tlbvfi.modules.warp import resize_flow
from tlbvfi.padding import padding_for
from tlbvfi.precision import tf32

_SIZES = ("512x512", "1080p")
_REPLAYS, _TOP = 10, 25
Stages = dict[str, Callable[[], Any]]


def run(setting: Setting, sheet: Sheet) -> None:
    rate = _copy_rate(setting)
    sheet.notes.append(f"Copies within the card's memory move {rate / 1e9:,.0f} GB/s (read and written).")
    sheet.details["copied bytes per second"] = rate
    ways = [Way("kernels", True, True), Way("plain", True, False)]
    ways = [way for way in ways if way.kernels in {there.kernels for there in setting.ways()}]
    for size in _SIZES:
        for way in ways:
            setting.go_on(needed=3.0)
            with torch.no_grad(), tf32(True), setting.taking(way):
                stages = _stages(setting, size)
                taken = _times(setting, stages, f"{size}, {way.name}", sheet)
                if way == ways[0]:
                    _profile(setting, size, stages, sheet)
                del stages
            setting.clean()
            _beside_bytes(setting, size, way, taken, rate, sheet)


def _copy_rate(setting: Setting) -> float:
    """Bytes read and written per second in a copy of a gigabyte."""
    source = torch.ones(1 << (20 if setting.rehearse else 30), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = setting.seconds_of(lambda: [target.copy_(source) for _ in range(10)]) / 10
    return 2 * source.numel() / seconds


def _stages(setting: Setting, size: str) -> Stages:
    """What is done for a new frame, stage by stage, each with its inputs in place; and all of it."""
    model, device, steps = setting.model(), setting.device, setting.sample_steps
    height, width = padding_for(*setting.sizes[size], multiple=model.multiple).padded
    generator = torch.Generator(device).manual_seed(0)
    frames = [torch.rand(1, 3, height, width, device=device, generator=generator) * 2 - 1 for _ in range(2)]
    shape = (1, *model.latent_shape(height, width))
    noise = [torch.randn(shape, device=device, generator=generator) for _ in range(steps - 1)]
    empty, vqgan, decoder = model.encode_empty(height, width), model.vqgan, model.vqgan.decoder
    first, last = (model.encode_frame(frame, empty=empty) for frame in frames)
    images = first.image, last.image
    latent = model.latent((first.deepest, empty, last.deepest), *images)
    denoised = model.denoise(latent, steps, noise)
    coarse = decoder.flownet(first.flow_image, last.flow_image)
    refined = decoder.refinenet(first.flow_levels, last.flow_levels, coarse)

    def decode() -> torch.Tensor:
        codes = vqgan.quantize.lookup(vqgan.quantize.code_indices(denoised))
        flow = resize_flow(refined, (height, width))
        return model.decode(codes, images, (list(first.pyramid), list(last.pyramid)), flow)

    def step() -> torch.Tensor:
        return model.midpoint(first, model.encode_frame(frames[1], empty=empty), steps, noise)

    calls: tuple[Callable[[], Any], ...] = (
        lambda: model.encode_frame(frames[1], empty=empty),
        lambda: model.latent((first.deepest, empty, last.deepest), *images),
        lambda: model.denoise(latent, steps, noise),
        lambda: decoder.flownet(first.flow_image, last.flow_image),
        lambda: decoder.refinenet(first.flow_levels, last.flow_levels, coarse),
        decode,
    )
    return {**dict(zip(STAGES, calls, strict=True)), "all": step}


def _times(setting: Setting, stages: Stages, called: str, sheet: Sheet) -> dict[str, tuple[float, float]]:
    """Milliseconds of each stage out of a graph, and called as it is."""
    taken = {}
    for name, stage in stages.items():
        setting.go_on()
        stage()
        eager = setting.seconds(stage, repeats=3)
        try:
            replayed = _replayed(setting, stage)
        except RuntimeError as error:
            sheet.check(False, f"{called}, {name} could not be captured: {error}")
            replayed = float("nan")
        taken[name] = 1e3 * replayed, 1e3 * eager
    return taken


def _replayed(setting: Setting, stage: Callable[[], Any]) -> float:
    """Seconds of a stage out of a graph."""
    replay, _results = setting.captured(stage)
    return setting.seconds_of(lambda: [replay() for _ in range(_REPLAYS)]) / _REPLAYS


def _beside_bytes(
    setting: Setting, size: str, way: Way, taken: dict[str, tuple[float, float]], rate: float, sheet: Sheet
) -> None:
    """Rows of the table: times, what was counted, and the time that the bytes take at that rate."""
    model = setting.model()
    case = Case(*setting.sizes[size], sample_steps=setting.sample_steps)
    work = work_per_frame(model.params, case, model.dtype, kernels=way.kernels)
    work["all"] = total(work)
    for name, (replayed, eager) in taken.items():
        floor = 1e3 * work[name].bytes / rate
        sheet.row(
            f"{size}, {way.name}: milliseconds by stage", stage=name, graph=replayed, eager=eager,
            operations=int(work[name].operations), GB=work[name].bytes / 1e9,
            **{"bytes at the rate of copying, ms": floor, "of it reached %": 100 * floor / replayed},
        )  # fmt: skip


def _profile(setting: Setting, size: str, stages: Stages, sheet: Sheet) -> None:
    """The kernels of one whole step by their time, for JSON."""
    from torch.profiler import ProfilerActivity, profile

    on_card = setting.device.type == "cuda"
    setting.finish()
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as profiler:
        stages["all"]()
        setting.finish()
    times = {event: _own_time(event, on_card) for event in profiler.key_averages()}
    kernels = [
        {"ms": microseconds / 1e3, "launches": event.count, "kernel": event.key[:200]}
        for event, microseconds in times.items()
        if microseconds > 0
    ]
    kernels.sort(key=lambda kernel: -kernel["ms"])
    sheet.details[f"kernels of a step at {size}"] = {
        "launches": sum(kernel["launches"] for kernel in kernels),
        "ms": sum(kernel["ms"] for kernel in kernels),
        "most time": kernels[:_TOP],
    }


def _own_time(event: Any, on_card: bool) -> float:
    """Microseconds of a profiler's event, by the names of different versions of PyTorch."""
    names = ("self_device_time_total", "self_cuda_time_total") if on_card else ("self_cpu_time_total",)
    return float(next((getattr(event, name) for name in names if hasattr(event, name)), 0.0))

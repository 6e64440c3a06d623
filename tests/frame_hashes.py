"""Hashes of the frames of a fixed set of runs on the CPU, to show that a change of the code changes no bit of them.

    python -m tests.frame_hashes before.json            # on the code as it was
    python -m tests.frame_hashes after.json before.json # on the code as it is; says what differs, exit code 1 then

Bits are those of one processor and one PyTorch: the two files have to come from the same machine. Each run's peak of
counted live bytes stands beside its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tlbvfi
from tests import fake_host
from tests.tiny import frames, tiny_model
from tlbvfi import video
from tlbvfi.bench import stand_in_model
from tlbvfi.commands.main import main as command_line
from tlbvfi.counting import counting

CPU = torch.device("cpu")
Run = Callable[[], Iterable[Tensor]]


def video_runs() -> Iterator[tuple[str, tlbvfi.TLBVFI, Run]]:
    small = {name: tlbvfi.load_model(dtype=getattr(torch, name)) for name in ("float32", "bfloat16", "float16")}
    for name, model in small.items():
        yield f"built-in {name}, times 2", model, lambda m=model: tlbvfi.interpolate_frames(m, frames(3, 90, 130), 2)
        yield (
            f"built-in {name}, strips of 64 rows, times 2",
            model,
            lambda m=model: tlbvfi.interpolate_frames(m, frames(2, 300, 270), 2, plan=in_strips(m, 300, 270, 64)),
        )
    for options in (
        {"flow_scale": 1.0, "times": 1},
        {"flow_scale": 0.97, "times": 1},
        {"flow_scale": 0.2, "times": 1, "sample_steps": 5},
        {"padding": "published", "times": 1},
        {"times": 3, "seed": 7, "first_gap": 5, "offload": False},
        {"times": 1, "batch_size": 3, "sample_steps": [900, 400, 1, 0]},
        {"times": 2, "batch_size": 2},
        {"times": 0},
    ):
        model = small["float32"]
        yield (
            f"built-in {options}",
            model,
            lambda m=model, o=options: tlbvfi.interpolate_frames(m, frames(4, 70, 200, seed=3), **o),
        )
    for side in (1, 3, 257):
        model = small["float32"]
        yield f"built-in {side}x2", model, lambda m=model, s=side: tlbvfi.interpolate_frames(m, frames(2, 2, s))
    for dtype in (torch.float32, torch.bfloat16):
        large = stand_in_model(CPU, dtype)
        yield f"stand-in {dtype}", large, lambda m=large: tlbvfi.interpolate_frames(m, frames(2, 256, 300), 2)
        yield (
            f"stand-in {dtype}, strips of 16 rows",
            large,
            lambda m=large: tlbvfi.interpolate_frames(m, frames(2, 256, 300), 1, 1.0, plan=in_strips(m, 256, 300, 16)),
        )
    tiny = tiny_model()
    x0, x1 = (torch.stack(frames(2, 128, 256, seed)).permute(0, 3, 1, 2) * 2 - 1 for seed in (0, 5))
    for scale in (0.5, 1.0):
        yield (
            f"tiny sample of a batch at {scale}",
            tiny,
            lambda m=tiny, s=scale: [m.sample(x0, x1, s, 10, torch.Generator().manual_seed(1))],
        )


def in_strips(model: tlbvfi.TLBVFI, height: int, width: int, rows: int) -> tlbvfi.Plan:
    padded = tlbvfi.padding_for(height, width, multiple=model.multiple).padded
    return tlbvfi.Plan(padded, 0, 0, rows, 1)


def command_run() -> Iterable[Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in", Path(folder) / "out"
        video.write_pictures(source, frames(3, 60, 80))
        assert command_line(["interpolate", str(source), str(target), "--device", "cpu"]) == 0
        yield from video.read_frames(target)  # pictures: x264 does not give the same bits every time


def node_run(times: int) -> Iterable[Tensor]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        fake_host.install(fake_host.FakeHost(Path(folder)), patch)
        pack = fake_host.load_pack("hashed_pack")
        try:
            node = pack.NODE_CLASS_MAPPINGS["TLBVFI_Interpolator_V2"]()
            first, second = torch.stack(frames(3, 60, 80)), torch.stack(frames(3, 60, 80, seed=2))
            second[0] = first[1]
            inputs = node.INPUT_TYPES()
            values = {name: spec[1]["default"] for part in inputs.values() for name, spec in part.items()
                      if len(spec) > 1 and "default" in spec[1]}  # fmt: skip
            values |= {"model_name": inputs["required"]["model_name"][0][0], "times_to_interpolate": times}
            yield from node.interpolate(first, second, **values)[0]
        finally:
            fake_host.forget_pack("hashed_pack")


def digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:24]


def measured() -> dict[str, dict[str, object]]:
    results: dict[str, dict[str, object]] = {}
    for threads in (2, 1):
        torch.set_num_threads(threads)
        for name, model, run in video_runs():
            begin = time.perf_counter()
            with counting(model) as counter:
                found = digest(run())
            seconds = round(time.perf_counter() - begin, 2)
            results[f"{threads} threads: {name}"] = {"frames": found, "peak": counter.peak, "seconds": seconds}
    for name, made in (("command line", command_run), ("node, times 0", lambda: node_run(0)),
                       ("node, times 2", lambda: node_run(2))):  # fmt: skip
        results[name] = {"frames": digest(made())}
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    options = parser.parse_args()
    results = measured()
    options.result.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.before is None:
        return 0
    before = json.loads(options.before.read_text(encoding="utf-8"))
    differing = [name for name in before if results.get(name, {}).get("frames") != before[name]["frames"]]
    for name, was in before.items():
        peak, old = results.get(name, {}).get("peak"), was.get("peak")
        note = " DIFFERENT FRAMES" if name in differing else ""
        if note or peak != old:
            print(f"{name}: peak {old} -> {peak}{note}")
    print(f"{len(before) - len(differing)} of {len(before)} runs have the same frames")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())

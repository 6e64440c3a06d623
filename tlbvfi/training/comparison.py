"""Everything that docs/COMPARISON.md measures: classical methods, RIFE and the built-in model on the same frames.

    python -m tlbvfi.training.comparison --clips DIR --fetch --out docs --json OUT

Clips and scores are those of :mod:`.evaluate`. Given is every second frame of the first 61, then every fourth, eighth
and sixteenth of the first 33. Seconds are processor time of this process per new frame, on one thread, which other work
on the machine lengthens less than the time of the clock: a method fills a clip as a whole, after one gap that does not
count, and the rounds take turns with the other methods. RIFE is compared where its packages are installed
(:mod:`.rife`); a method whose package is not there is left out, which is said.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .comparison_pictures import chart, sheet
from .evaluate import each_score, mean
from .measured_clips import FRAMES, SIZES, Clip, load_clip
from .methods import Method, average_frames, flow_frames, minterpolate_frames, model_method
from .metrics import LPIPS
from .packages import LPIPS_SDIST, WHEEL, fetch_evaluation
from .rife import rife_39, rife_425

log = logging.getLogger(__name__)

#: How many frames are looked at where every second one is given, and where fewer are.
COUNTS = {2: FRAMES, 4: 33, 8: 33, 16: 33}

#: What makes each method, in the order of the tables.
MAKERS: dict[str, Callable[[], Method]] = {
    "average": lambda: average_frames,
    "FFmpeg minterpolate": lambda: minterpolate_frames,
    "OpenCV DIS": lambda: flow_frames,
    "RIFE 3.9": rife_39,
    "RIFE 4.25": rife_425,
    "ours @0.5": partial(model_method, None, 0.5, None, torch.float32),
    "ours @1": partial(model_method, None, 1.0, None, torch.float32),
    "ours @0.5, cuts held": partial(model_method, None, 0.5, None, torch.float32, cuts=True),
    "ours @1, cuts held": partial(model_method, None, 1.0, None, torch.float32, cuts=True),
}
#: As nodes and commands go; in pictures they would hide those without, from which they differ at cuts alone.
_HELD = ", cuts held"


@dataclass
class Filled:
    """What a method made of a clip: the new frames, the scores of each, and seconds per frame in each round."""

    frames: list[Tensor]
    scores: list[dict[str, float]]
    seconds: list[float]


#: clip -> method -> what came of it
Results = dict[str, dict[str, Filled]]


def methods(makers: dict[str, Callable[[], Method]] = MAKERS) -> dict[str, Method]:
    """All whose libraries are there."""
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except ImportError as error:
            log.warning("%s is left out: %s.", name, error)
    return made


def compare(clips: list[Clip], chosen: dict[str, Method], lpips: LPIPS, rounds: int) -> Results:
    """Every method on every clip, `rounds` times."""
    results: Results = {}
    for clip in clips:
        made = results[clip.name] = {}
        for method in chosen.values():
            method(clip.first(1))
        for turn in range(rounds):
            for name, method in chosen.items():
                begin = time.process_time()
                frames = method(clip)
                seconds = (time.process_time() - begin) / len(frames)
                if not turn:
                    made[name] = Filled(frames, each_score(frames, clip.truths, lpips), [])
                made[name].seconds.append(seconds)
                log.info("%s, %d apart, %s: %.3f s, %s", clip.name, clip.apart, name, seconds, mean(made[name].scores))
    return results


def means(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """method -> clip, and "mean" of the clips -> scores, and the least and most seconds per frame."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for clip, by_method in results.items():
        for name, filled in by_method.items():
            seconds = {"least": min(filled.seconds), "most": max(filled.seconds)}
            found.setdefault(name, {})[clip] = mean(filled.scores) | seconds
    for by_clip in found.values():
        by_clip["mean"] = mean(list(by_clip.values()))
    return found


def score_table(found: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """Markdown: PSNR and LPIPS of every method and clip."""
    clips = list(next(iter(found.values())))
    yield "| PSNR dB / LPIPS | " + " | ".join(clips) + " |"
    yield "|---|" + "---|" * len(clips)
    for name, by_clip in found.items():
        yield f"| {name} | " + " | ".join(f"{s['psnr']:.2f} / {s['lpips']:.4f}" for s in by_clip.values()) + " |"


def seconds_table(found: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """Markdown: seconds per new frame of every method and clip, the least and the most."""
    clips = [clip for clip in next(iter(found.values())) if clip != "mean"]
    yield "| seconds a new frame | " + " | ".join(clips) + " |"
    yield "|---|" + "---|" * len(clips)
    for name, by_clip in found.items():
        yield f"| {name} | " + " | ".join(_span(by_clip[clip]) for clip in clips) + " |"


def _span(scores: dict[str, float]) -> str:
    least, most = (f"{scores[key]:.3g}" for key in ("least", "most"))
    return least if least == most else f"{least} to {most}"


def stored(results: Results) -> dict[str, dict[str, dict[str, object]]]:
    """What is kept of the results as JSON: all but the frames."""
    return {
        clip: {name: {"scores": filled.scores, "seconds": filled.seconds} for name, filled in by_method.items()}
        for clip, by_method in results.items()
    }


def draw(clips: list[Clip], results: Results, folder: Path) -> None:
    """The chart, and a sheet for each clip."""
    results = {
        clip: {name: filled for name, filled in by_method.items() if not name.endswith(_HELD)}
        for clip, by_method in results.items()
    }
    found = means(results)
    (folder / "comparison.png").write_bytes(chart(found))
    for clip in clips:
        by_method = results[clip.name]
        frames = {name: filled.frames for name, filled in by_method.items()}
        picture = sheet(clip, frames, {name: filled.scores for name, filled in by_method.items()})
        picture.save(folder / f"comparison-{clip.name}.webp", quality=82, method=6)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training.comparison",
        description="Classical methods, RIFE and the built-in model on the same hidden frames.",
    )
    parser.add_argument("--clips", type=Path, required=True, help=f"folder with {WHEEL} and {LPIPS_SDIST}")
    parser.add_argument("--fetch", action="store_true", help="download those two into the folder first")
    parser.add_argument("--apart", type=int, nargs="+", choices=list(COUNTS), default=list(COUNTS), help="given frames")
    parser.add_argument("--rounds", type=int, default=2, help="how often time is measured where every second is given")
    parser.add_argument("--frames", type=int, help="so many frames of each clip instead, one more than 2, 4 or 8 times")
    parser.add_argument("--only", nargs="+", choices=list(SIZES), default=list(SIZES), help="clips")
    parser.add_argument("--out", type=Path, help="folder for the chart and the sheets (one in 2 given)")
    parser.add_argument("--json", type=Path, help="write the scores of every frame here")
    args = parser.parse_args(argv)
    if args.frames is not None and any(args.frames <= apart or (args.frames - 1) % apart for apart in args.apart):
        parser.error(f"--frames {args.frames} does not end on a given frame: one more than a multiple of --apart does")
    if torch.cuda.is_available():
        parser.error("RIFE would run on the graphics card: hide it (CUDA_VISIBLE_DEVICES=)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for folder in (args.out, args.json and args.json.parent):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    if args.fetch:
        fetch_evaluation(args.clips)
    torch.set_num_threads(1)
    chosen, lpips = methods(), LPIPS.from_sdist(args.clips / LPIPS_SDIST)
    kept = {}
    for apart in args.apart:
        clips = [load_clip(args.clips, name, args.frames or COUNTS[apart], apart) for name in args.only]
        results = compare(clips, chosen, lpips, args.rounds if apart == 2 else 1)
        sys.stdout.write(f"\nOne in {apart} frames given:\n\n")
        for line in (*score_table(means(results)), "", *seconds_table(means(results))):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        kept[apart] = stored(results)
        if args.json:
            args.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        if args.out and apart == 2:
            draw(clips, results, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How well scene cuts are found, in videos of `tests.scene_videos`; docs/SCENES.md has what it prints.

    python -m tests.scene_figures [CLIP...] [--plot docs/scenes.png]

The clips must be among those whose own cuts `scene_videos.CLIPS` knows. Without arguments it takes those that the
tests' ComfyUI brings along, and the demo's. The threshold is chosen on the clips of one half and reported on the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from tests.scene_videos import CLIPS, HALVES, Case, all_cases
from tlbvfi import scenes
from tlbvfi.scenes import DEFAULT_THRESHOLD, SceneDetector, difference, small_picture

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".cache" / "comfyui" / "clips"
USUAL = (LOCAL / "bikes.mp4", LOCAL / "carphone_pristine.mp4", LOCAL / "bigbuckbunny.mp4", ROOT / "docs" / "demo.mp4")
THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))
SIZES = ((96, 54), (640, 360), (1920, 1080), (3840, 2160))


@dataclass(frozen=True)
class Count:
    """Frames looked at, cuts in them, and what was found.

    Attributes:
        false: cuts that are none.
    """

    frames: int = 0
    cuts: int = 0
    found: int = 0
    false: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.frames + other.frames, self.cuts + other.cuts, self.found + other.found, self.false + other.false
        )

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else 1.0

    @property
    def recall(self) -> float:
        return self.found / self.cuts if self.cuts else 1.0

    @property
    def f1(self) -> float:
        wrong = self.cuts - self.found + self.false
        return 2 * self.found / (2 * self.found + wrong) if self.found + wrong else 1.0

    def row(self, name: str) -> str:
        shares = [f"{share:.3f}" for share in (self.precision, self.recall, self.f1)] if self.cuts else ["", "", ""]
        return table_row(name, self.frames, self.cuts, self.found, self.cuts - self.found, self.false, *shares)


HEADER = ("", "frames", "cuts", "found", "missed", "false", "precision", "recall", "F1")


@dataclass(frozen=True)
class Result:
    """What each threshold found in a case; without its frames."""

    kind: str
    half: str
    is_trap: bool
    counts: dict[float, Count]


def table_row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def heading(*cells: object) -> str:
    return table_row(*cells) + "\n" + table_row("---", *("---:" for _ in cells[1:]))


def remembered(compared: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float]:
    """The same function, which compares no two pictures twice."""
    known: dict[tuple[bytes, bytes], float] = {}

    def compare(before: Tensor, after: Tensor) -> float:
        key = before.numpy().tobytes(), after.numpy().tobytes()
        if key not in known:
            known[key] = compared(before, after)
        return known[key]

    return compare


def result(case: Case) -> Result:
    pictures = [small_picture(frame) for frame in case.frames()]
    counts = {}
    with patch.object(scenes, "difference", remembered(difference)):
        for threshold in {*THRESHOLDS, DEFAULT_THRESHOLD}:
            found = set(cuts(pictures, threshold))
            right = len(found & set(case.cuts))
            counts[threshold] = Count(len(pictures), len(case.cuts), right, len(found) - right)
    return Result(case.kind, case.half, case.is_trap, counts)


def cuts(frames: Iterable[Tensor], threshold: float = DEFAULT_THRESHOLD) -> Iterator[int]:
    """Frames that begin a scene."""
    detector = SceneDetector(threshold)
    for index, frame in enumerate(frames):
        if index == 0:
            detector.start(frame)
        elif detector.cut_before(frame):
            yield index


def totalled(results: Iterable[Result], half: str, threshold: float) -> Count:
    return sum((r.counts[threshold] for r in results if r.half == half), Count())


def kinds_table(results: Sequence[Result], half: str) -> Iterator[str]:
    yield heading(*HEADER)
    chosen = sorted((r for r in results if r.half == half), key=lambda r: (r.is_trap, r.kind))
    for kind, group in groupby(chosen, key=lambda r: r.kind):
        yield sum((r.counts[DEFAULT_THRESHOLD] for r in group), Count()).row(kind)
    yield totalled(results, half, DEFAULT_THRESHOLD).row("all")


def sweep_table(results: Sequence[Result]) -> Iterator[str]:
    columns = ("missed", "false", "precision", "recall", "F1")
    yield heading("threshold", *(f"{half}: {column}" for half in HALVES for column in columns))
    for threshold in THRESHOLDS:
        cells: list[object] = [threshold]
        for half in HALVES:
            count = totalled(results, half, threshold)
            cells += [count.cuts - count.found, count.false]
            cells += [f"{share:.3f}" for share in (count.precision, count.recall, count.f1)]
        yield table_row(*cells)


def cost_table() -> Iterator[str]:
    """Milliseconds on one core: to make a frame small, and to judge one that moves and one that begins a scene."""
    torch.set_num_threads(1)
    yield heading("size", "make small, ms", "compare frames that move, ms", "a cut, ms")
    chance = torch.Generator().manual_seed(0)
    for width, height in SIZES:
        low = torch.rand(2, 3, 40, 70, generator=chance)
        large = torch.nn.functional.interpolate(low, (height, width), mode="bicubic").clamp(0, 1)
        one, other = (picture.permute(1, 2, 0).contiguous() for picture in large)
        moved = one.roll((height // 20, width // 20), (0, 1))
        first, second, third = (small_picture(picture) for picture in (one, moved, other))
        works: tuple[Callable[[], object], ...] = (
            lambda one=one: small_picture(one),
            lambda a=first, b=second: difference(a, b),
            lambda a=first, b=third: difference(a, b),
        )
        yield table_row(f"{width}x{height}", *(f"{milliseconds(work):.1f}" for work in works))


def milliseconds(work: Callable[[], object], times: int = 15) -> float:
    """Of the processor, the least of several times."""
    taken = []
    for _ in range(times + 2):
        begin = time.process_time()
        work()
        taken.append((time.process_time() - begin) * 1e3)
    return min(taken[2:])


def plot(results: Sequence[Result], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), dpi=90, layout="constrained")
    for axes, half in zip(figure.subplots(1, 2, sharey=True), HALVES, strict=True):
        counts = [totalled(results, half, threshold) for threshold in THRESHOLDS]
        for name in ("precision", "recall", "f1"):
            axes.plot(THRESHOLDS, [getattr(count, name) for count in counts], label=name.replace("f1", "F1"))
        axes.axvline(DEFAULT_THRESHOLD, color="0.7", linestyle=":")
        axes.set(title=f"clips of the half \u201c{half}\u201d", xlabel="threshold")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(loc="lower left")
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="*", default=USUAL)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if unknown := [clip.name for clip in options.clips if clip.name not in CLIPS]:
        parser.error(f"the cuts of {', '.join(unknown)} are not marked in tests/scene_videos.py")
    results = [result(case) for case in all_cases(options.clips)]
    for half in HALVES:
        print(f"\nThreshold {DEFAULT_THRESHOLD}, half \u201c{half}\u201d\n", *kinds_table(results, half), sep="\n")
    print("\nThresholds\n", *sweep_table(results), sep="\n")
    best = max(THRESHOLDS, key=lambda threshold: totalled(results, HALVES[0], threshold).f1)
    print(f"\nBest on \u201c{HALVES[0]}\u201d: {best}\n", *cost_table(), sep="\n")
    if options.plot:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

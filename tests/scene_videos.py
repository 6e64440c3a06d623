"""Videos made of real clips for the detection of scene cuts: such with known cuts, and traps without any."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from tlbvfi import video

Change = Callable[[Tensor, int], Tensor]  # of a frame and its number


@dataclass(frozen=True)
class Marked:
    """What was seen in a clip.

    Attributes:
        cuts: frames that begin a shot, the first one left out.
        half: to which it belongs.
        again: it shows what another one shows; the two are not joined.
    """

    cuts: tuple[int, ...]
    half: str
    again: bool = False


#: The threshold is chosen on the clips of the first and reported on those of the second.
HALVES = ("choice", "report")
#: By file name.
CLIPS = {
    "bikes.mp4": Marked((30, 76, 137, 187, 242), "choice"),
    "carphone_pristine.mp4": Marked((), "choice"),
    "issue-195-aspect-ratio.mp4": Marked((70, 170, 301, 421, 484), "choice"),
    "chaplin.mp4": Marked((), "choice"),
    "issue-236-split-copy.mkv": Marked((19,), "choice"),
    "bigbuckbunny.mp4": Marked((), "report"),
    "demo.mp4": Marked((), "report", again=True),
    "big_buck_bunny_0_30.webm": Marked((283, 376, 551), "report"),
    "goldeneye-vfr-drop3.mp4": Marked((60, 140), "report"),
    "testvideo.mp4": Marked((30, 180), "report"),
    "fire2.mp4": Marked((), "report"),
}
WIDTHS = (400, 128)
#: Frames of a clip that are kept, at most.
KEPT = 720


@dataclass(frozen=True)
class Case:
    """A video and the frames that begin a shot in it.

    Attributes:
        kind: the row of the table that it counts for.
        half: see :class:`Marked`.
        frames: makes its frames, (H, W, 3) in [0, 1].
    """

    kind: str
    half: str
    cuts: tuple[int, ...]
    frames: Callable[[], Iterable[Tensor]]

    @property
    def is_trap(self) -> bool:
        return self.kind.startswith("trap")


@dataclass(frozen=True)
class Shot:
    """Frames without a cut, (N, H, W, 3) of 8 bits, and one of them in the clip's own size."""

    frames: Tensor
    large: Tensor

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be seen but a plain ground, or a line of text on it."""
        return float(self.large.float().std() / 255) < 0.05


def scaled(frame: Tensor, width: int, height: int | None = None) -> Tensor:
    """A frame, of 8 bits or in [0, 1], in another size and in [0, 1]."""
    if frame.dtype == torch.uint8:
        frame = frame.float() / 255
    height = height or max(1, round(frame.shape[0] * width / frame.shape[1]))
    planes = F.interpolate(rearrange(frame, "h w c -> 1 c h w"), (height, width), mode="area")
    return rearrange(planes, "1 c h w -> h w c")


def eight_bits(frame: Tensor) -> Tensor:
    return (frame.clamp(0, 1) * 255).round().to(torch.uint8)


def shots_of(clip: Path) -> list[Shot]:
    kept, large = [], []
    for index, frame in enumerate(video.read_frames(clip)):
        if index == KEPT:
            break
        kept.append(eight_bits(scaled(frame, min(WIDTHS[0], frame.shape[1]))))
        large.append(eight_bits(frame) if index % 10 == 5 else None)
    bounds = [0, *(cut for cut in CLIPS[clip.name].cuts if cut < len(kept)), len(kept)]
    found = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        still = next((picture for picture in large[begin:end] if picture is not None), None)
        found.append(Shot(torch.stack(kept[begin:end]), kept[begin] if still is None else still))
    return found


# Videos with cuts


def as_it_is(clip: Path, shots: Sequence[Shot]) -> Iterator[Case]:
    """The clip itself in its own size, and smaller with frames left out."""
    marked = CLIPS[clip.name]
    yield Case("clips as they are", marked.half, marked.cuts, lambda: video.read_frames(clip))
    for width, step in ((400, 2), (400, 4), (128, 1), (128, 4), (48, 2)):
        parts = [list(shot.frames[::step]) for shot in shots]
        yield joined(f"clips, 1 of {step} frames" if step > 1 else "clips, 128 wide", marked.half, parts, width)


def joined(kind: str, half: str, parts: Sequence[Sequence[Tensor]], width: int, change: Change | None = None) -> Case:
    """Parts of shots one after another, in the size of the first."""
    parts = [part for part in parts if part]
    height = round(parts[0][0].shape[0] * width / parts[0][0].shape[1])
    cuts, count = [], 0
    for part in parts:
        cuts.append(count)
        count += len(part)

    def frames() -> Iterator[Tensor]:
        for index, frame in enumerate(frame for part in parts for frame in part):
            small = scaled(frame, width, height)
            yield small if change is None else change(small, index)

    return Case(kind, half, tuple(cuts[1:]), frames)


def joins(half: str, shots: Sequence[Shot], seed: int) -> Iterator[Case]:
    """Random parts of random shots, in several guises."""
    chance = random.Random(seed)

    def parts(count: int, shortest: int, longest: int, step: int = 1) -> list[list[Tensor]]:
        """No shot twice in a row; parts of a picture count as other shots where there are few."""
        found: list[list[Tensor]] = []
        before = None
        while len(found) < count:
            choice = (chance.randrange(len(shots)), chance.randrange(5))
            if before is not None and choice[0] == before[0] and (len(shots) > 3 or choice[1] == before[1]):
                continue
            shot = shots[choice[0]]
            length = min(chance.randint(shortest, longest), len(shot.frames) // step)
            if length < 3:
                continue
            begin = chance.randint(0, len(shot.frames) - length * step)
            frames = [quarter(frame, choice[1]) for frame in shot.frames[begin : begin + length * step : step]]
            if min(float(frame.float().std() / 255) for frame in frames) >= 0.05:
                found.append(frames)
                before = choice
        return found

    for width in WIDTHS:
        yield joined("joined", half, parts(12, 6, 24), width)
        yield joined("joined, 1 of 2 frames", half, parts(12, 6, 16, 2), width)
        yield joined("joined, 1 of 4 frames", half, parts(8, 4, 8, 4), width)
        yield joined("3 frames apart", half, parts(16, 3, 3), width)
        yield joined("dark (15 %)", half, parts(12, 4, 16), width, lambda x, _: quantized(x * 0.15))
        yield joined("low contrast", half, parts(12, 4, 16), width, lambda x, _: quantized(0.4 + 0.2 * x))
        yield joined("grain 0.08", half, parts(12, 4, 16), width, lambda x, i: grain(x, 0.08, i))
        yield joined("letterbox", half, parts(12, 4, 16), width, lambda x, _: letterbox(x))
        yield joined("grey", half, parts(12, 4, 16), width, lambda x, _: x.mean(-1, keepdim=True).expand(-1, -1, 3))
        yield compressed(joined("H.264, coarse", half, parts(12, 6, 16), width))


def quarter(frame: Tensor, which: int) -> Tensor:
    """One of the four quarters, or all of it."""
    if which == 4:
        return frame
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    top, left = which // 2 * height, which % 2 * width
    return frame[top : top + height, left : left + width]


def similar(half: str, shot: Shot, width: int) -> Iterator[Case]:
    """Cuts between pictures of the same things: mirrored, nearer."""
    frames = list(shot.frames[:30])
    third = len(frames) // 3
    if third < 3:
        return
    begin, middle, end = frames[:third], frames[third : 2 * third], frames[2 * third :]
    yield joined("similar: mirrored", half, [begin, [f.flip(1) for f in middle], end], width)
    yield joined("similar: nearer", half, [begin, [quarter(f, 3) for f in middle], end], width)


def quantized(frame: Tensor) -> Tensor:
    return eight_bits(frame).float() / 255


def grain(frame: Tensor, sigma: float, seed: int) -> Tensor:
    noise = torch.randn(frame.shape[:2], generator=torch.Generator().manual_seed(seed))
    return quantized(frame + sigma * noise[..., None])


def letterbox(frame: Tensor) -> Tensor:
    bar = round(frame.shape[0] * 0.14)
    boxed = torch.zeros_like(frame)
    boxed[bar:-bar] = frame[bar:-bar]
    return boxed


def compressed(case: Case) -> Case:
    def frames() -> Iterator[Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "coarse.mp4"
            even = (f[: f.shape[0] // 2 * 2, : f.shape[1] // 2 * 2] for f in case.frames())
            video.write_video(path, even, Fraction(25), crf=38)
            yield from video.read_frames(path)

    return Case(case.kind, case.half, case.cuts, frames)


# Traps: videos without a cut


def traps(half: str, shot: Shot, width: int) -> Iterator[Case]:
    still = scaled(shot.large, max(width, min(shot.large.shape[1], 3 * width)))
    moving = [scaled(frame, width) for frame in shot.frames[:24]]

    def case(kind: str, frames: Sequence[Tensor]) -> Case:
        return Case(f"trap: {kind}", half, (), lambda: frames)

    for length in (1, 2):
        flashes = range(len(moving) // 2, len(moving) // 2 + length)
        for kind, flash in FLASHES.items():
            yield case(f"{kind}, {length}", [flash(f) if i in flashes else f for i, f in enumerate(moving)])
    yield case("fade out and in", [f * abs(i / 12 - 1) for i, f in enumerate(moving)])
    yield case("quick fade", [f * min(1, abs(i - 10) / 6) for i, f in enumerate(moving)])
    other = still[: moving[0].shape[0], : moving[0].shape[1]].flip(1)
    yield case("dissolve", [torch.lerp(f, other, min(1, max(0, (i - 6) / 12))) for i, f in enumerate(moving)])
    yield case("exposure", [(f * (1.3 if i // 6 % 2 else 1.0)).clamp(0, 1) for i, f in enumerate(moving)])
    yield case("grain 0.08", [grain(f, 0.08, i) for i, f in enumerate(moving)])
    for percent in (2, 5, 10, 15):
        yield case(f"pan {percent} %", list(windows(still, [percent / 100] * 30)))
    yield case("whip pan", list(windows(still, [0.0] * 3 + [0.02, 0.06, 0.12, 0.18, 0.2, 0.18, 0.12, 0.06, 0.0], True)))
    yield case("shake", list(windows(still, [0.04 * math.sin(2.4 * i) for i in range(24)])))
    for percent in (2, 5, 10):
        yield case(f"zoom {percent} %", list(zoomed(still, width, percent / 100)))
    for speed in (0.05, 0.1):
        yield case(f"object {speed:.0%} a frame", list(crossed(moving, speed)))
    for step in (2, 4):
        yield case(f"1 of {step} frames", [scaled(f, width) for f in shot.frames[::step][:24]])


def lightning(frame: Tensor) -> Tensor:
    return (frame * 1.8 + 0.15).clamp(0, 1)


def camera_flash(frame: Tensor) -> Tensor:
    """Bright in the middle, fading to the sides."""
    height, width = frame.shape[:2]
    y, x = torch.linspace(-1, 1, height)[:, None, None], torch.linspace(-1, 1, width)[None, :, None]
    return (frame * (1 + 1.5 * torch.exp(-1.5 * (x * x + y * y)))).clamp(0, 1)


def white(frame: Tensor) -> Tensor:
    return torch.ones_like(frame)


def whitish(frame: Tensor) -> Tensor:
    return 0.85 + 0.15 * frame


FLASHES = {"flash": lightning, "camera flash": camera_flash, "white flash": white, "whitish flash": whitish}


def windows(still: Tensor, moves: Sequence[float], blurred: bool = False) -> Iterator[Tensor]:
    """A window of 40 % of a large picture that moves by these parts of its own width, and turns back at the edges."""
    height, width = (round(side * 0.4) for side in still.shape[:2])
    room, left, way = still.shape[1] - width, 0.0, 1
    top = (still.shape[0] - height) // 2
    for move in moves:
        if not 0 <= left + way * move * width <= room:
            way = -way
        before, left = left, min(max(left + way * move * width, 0.0), float(room))
        count = max(1, round(abs(left - before))) if blurred else 1
        exposures = [round(left + (before - left) * 0.5 * i / count) for i in range(count)]
        yield sum(still[top : top + height, x : x + width] for x in exposures) / count


def zoomed(still: Tensor, width: int, rate: float) -> Iterator[Tensor]:
    """Nearer and nearer to the middle of a picture, to a third of it."""
    part = 1.0
    height = round(still.shape[0] * width / still.shape[1])
    while part > 1 / 3:
        h, w = (round(side * part) for side in still.shape[:2])
        top, left = (still.shape[0] - h) // 2, (still.shape[1] - w) // 2
        yield scaled(still[top : top + h, left : left + w], width, height)
        part /= 1 + rate


def crossed(frames: Sequence[Tensor], speed: float) -> Iterator[Tensor]:
    """A textured object, as wide as 40 % of the picture and 80 % high, crosses at this part of the width per frame."""
    height, width = frames[0].shape[:2]
    thing = frames[0].flip(0).flip(1)[: round(height * 0.8), : round(width * 0.4)] * 0.7 + 0.1
    for index, frame in enumerate(frames):
        left = round(width * (speed * index - 0.4))
        begin, end = max(left, 0), min(left + thing.shape[1], width)
        changed = frame.clone()
        if begin < end:
            changed[height - thing.shape[0] :, begin:end] = thing[:, begin - left : end - left]
        yield changed


def all_cases(clips: Sequence[Path]) -> Iterator[Case]:
    halves: dict[str, list[Shot]] = {}
    for clip in clips:
        shots, half = shots_of(clip), CLIPS[clip.name].half
        yield from as_it_is(clip, shots)
        shots = [shot for shot in shots if not shot.empty]
        if not CLIPS[clip.name].again:
            halves.setdefault(half, []).extend(shots)
        for width in WIDTHS:
            yield from similar(half, shots[0], width)
            for shot in shots[:3]:
                yield from traps(half, shot, width)
    for half, shots in halves.items():
        for seed in range(2):
            yield from joins(half, shots, seed)

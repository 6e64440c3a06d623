"""The command line: ``python -m tlbvfi COMMAND``; ``--help`` on each says what it does.

Exit codes: 0 done, 1 failed on the way, 2 asked for something that cannot be (one sentence on stderr, before any
long work), 130 interrupted. A file being written is there whole or not at all.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice, product
from pathlib import Path
from typing import NoReturn, TypeVar, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from . import __version__, bench, demo, video
from .bridge import MIN_STEPS
from .checkpoint import (
    BUILT_IN,
    PUBLISHED_FILE,
    PUBLISHED_REPOSITORY,
    CheckpointError,
    built_in_path,
    load_model,
    resolve_source,
)
from .compilation import compile_model
from .config import BridgeParams, ModelParams
from .conversion import convert
from .files import unwritable, whole
from .interpolate import MAX_TIMES, DeviceMemoryError, check_frame, interpolate_frames, is_out_of_memory
from .model import TLBVFI
from .padding import PaddingMode, check_flow_scale
from .peers import PEERS
from .planning import Plan, amount, candidates, plan, usable
from .quality import SSIM_WINDOW
from .video import VideoError

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32,
    "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip

T = TypeVar("T")


class RunError(RuntimeError):
    """Something that went wrong on the way, in one sentence."""


class _Parser(argparse.ArgumentParser):
    """One sentence for a wrong call, without the usage around it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _checked(convert_text: Callable[[str], T]) -> Callable[[str], T]:
    """An argparse type whose ValueError sentence is shown."""

    def checked(text: str) -> T:
        try:
            return convert_text(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _number_between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text.strip()) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number between {low} and {high}, not {text!r}.")
        return int(text)

    return _checked(number)


def _flow_scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"must be a number such as 0.5, not {text!r}.") from None
    check_flow_scale(value)
    return value


def _size(text: str) -> tuple[int, int]:
    """(height, width)."""
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text.strip())
    if match is None or 0 in (size := (int(match[2]), int(match[1]))):
        raise ValueError(f"a size is WIDTHxHEIGHT, such as 1920x1080, not {text!r}.")
    return size


def _dtype(text: str) -> torch.dtype:
    if text not in DTYPES:
        raise ValueError(f"must be one of {', '.join(DTYPES)}, not {text!r}.")
    return DTYPES[text]


def _rows(text: str) -> int | str:
    if text == "whole":
        return text
    if not re.fullmatch(r"\d{1,6}", text) or int(text) < 1:
        raise ValueError(f"must be a number of rows such as 256, or whole, not {text!r}.")
    return int(text)


def _gigabytes(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"must be a number of GiB such as 8, not {text!r}.")
    return round(value * 2**30)


def _device(name: str) -> torch.device:
    """The device of that name; "auto" is the first graphics card, else the CPU.

    Raises:
        ValueError: there is none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        device = torch.device("meta")
    if device.type == "meta":
        raise ValueError(f"there is no device {name!r} here (auto, cpu, cuda, cuda:1, mps, xpu).")
    return device


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = _Parser(prog="python -m tlbvfi", description="Video frame interpolation with TLB-VFI.")
    root.add_argument("--version", action="version", version=f"tlbvfi {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("interpolate", _interpolate, "Put new frames between the frames of a video; the sound goes along.")
    sub.add_argument("source", metavar="IN", type=Path, help="a video, or a folder of pictures")
    sub.add_argument(
        "target", metavar="OUT", type=Path, help=f"a video ({' '.join(video.ENCODERS)}), or a new folder for pictures"
    )
    sub.add_argument(
        "--times",
        type=_number_between(0, MAX_TIMES),
        default=1,
        metavar="N",
        help="halve each gap N times: 2^N times the fps",
    )
    sub.add_argument(
        "--flow-scale", type=_checked(_flow_scale), default=0.5, metavar="S",
        help="size at which motion is estimated, 0.1 to 1; smaller for larger motion",
    )  # fmt: skip
    steps = _number_between(MIN_STEPS, BridgeParams().num_timesteps)
    sub.add_argument("--steps", type=steps, default=10, metavar="N", help="steps of the diffusion")
    sub.add_argument(
        "--seed", type=_number_between(0, 2**64 - 1), default=0, metavar="N", help="same seed, same frames"
    )
    sub.add_argument("--model", metavar="FILE", help=f"a weight file or {', '.join(BUILT_IN)}; None: the built-in one")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu")
    sub.add_argument(
        "--dtype", default="auto", type=_checked(lambda text: text if text == "auto" else _dtype(text)),
        help="float32, float16 or bfloat16; auto: float16 on CUDA, else float32",
    )  # fmt: skip
    sub.add_argument(
        "--padding", choices=get_args(PaddingMode), default="tight", help="published pads as the published code does"
    )
    sub.add_argument(
        "--crf", type=_number_between(0, 51), default=video.DEFAULT_CRF, metavar="N",
        help="quality of the encoded video; lower is better and larger",
    )  # fmt: skip
    sub.add_argument(
        "--memory", type=_checked(_gigabytes), metavar="GIB",
        help="memory of the device that may be used; None: what is free on a graphics card, or on Linux for the CPU",
    )  # fmt: skip

    sub = command("plan", _plan, "Say how much memory a size takes.")
    sub.add_argument("size", metavar="WIDTHxHEIGHT", type=_checked(_size), help="of the video, such as 3840x2160")
    sub.add_argument("--dtype", type=_checked(_dtype), help="float32, float16 or bfloat16; None: the first two")
    sub.add_argument("--flow-scale", type=_checked(_flow_scale), default=0.5, metavar="S", help="0.1 to 1")
    sub.add_argument("--padding", choices=get_args(PaddingMode), default="tight", help="as for interpolate")
    sub.add_argument("--vram", type=_checked(_gigabytes), metavar="GIB", help="memory of the graphics card")

    sub = command("convert", _convert, "Write a weight file as safetensors without duplicates, which loads faster.")
    sub.add_argument("source", metavar="SOURCE", type=Path, help="a weight file, such as vimeo_unet.pth")
    sub.add_argument("target", metavar="TARGET", type=Path, help="the .safetensors file to write")
    sub.add_argument("--dtype", type=_checked(_dtype), default="float32", help="float32, or float16 for half the size")
    sub.add_argument("--no-ema", action="store_true", help="not the averaged (ema) weights, where the file has any")

    sub = command("demo", _demo, "Interpolate a short clip and show a new frame beside its neighbours.")
    sub.add_argument("--model", metavar="FILE", help="a weight file; None: the built-in model")
    sub.add_argument("--output", metavar="DIR", type=Path, default=Path("demo"), help="where the results go")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu")

    sub = command("bench", _bench, "Measure speed and memory, per new frame of a video in its steady state.")
    sub.add_argument(
        "--model", metavar="FILE", nargs="+",
        help=f"one or more: a weight file, {', '.join(BUILT_IN)}, or {bench.STAND_IN} (the published model's networks "
        "with random weights: its time, not its frames); None: the built-in model",
    )  # fmt: skip
    sub.add_argument(
        "--size", metavar="WIDTHxHEIGHT", type=_checked(_size), nargs="+", default=[(512, 512)], help="of the video"
    )
    sub.add_argument("--dtype", type=_checked(_dtype), nargs="+", default=[torch.float32], help="one or more")
    sub.add_argument("--times", type=_number_between(1, 4), nargs="+", default=[1], metavar="N", help="one or more")
    sub.add_argument(
        "--flow-scale", type=_checked(_flow_scale), nargs="+", default=[0.5], metavar="S", help="one or more"
    )
    sub.add_argument(
        "--strips", type=_checked(_rows), nargs="+", default=["whole"], metavar="ROWS",
        help="rows of the padded frame evaluated at a time, or whole; one or more",
    )  # fmt: skip
    sub.add_argument("--batch-size", type=_number_between(1, 64), default=1, metavar="N", help="gaps at a time")
    sub.add_argument("--repeats", type=_number_between(1, 1000), default=3, metavar="N", help="the median is taken")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps or xpu")
    sub.add_argument("--compile", action="store_true", help="with torch.compile")
    sub.add_argument(
        "--clip", type=Path, metavar="VIDEO",
        help="instead, drop every second frame of this video and predict it, by the models and by classical methods "
        "(no --size, --times, --batch-size and --repeats then)",
    )  # fmt: skip
    sub.add_argument(
        "--max-frames", type=_number_between(3, 100_000), default=31, metavar="N", help="first frames of the clip"
    )
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    sub.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw time and stages, or quality against time (needs matplotlib)"
    )

    sub = command(
        "download", _download, f"Fetch the published weights ({PUBLISHED_FILE}, from {PUBLISHED_REPOSITORY})."
    )
    sub.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path(), help="where to put the file")
    return root


def main(arguments: Sequence[str] | None = None, own_process: bool = False) -> int:
    """Run the command line; returns the exit code. In a process of its own it may set how that keeps memory."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    options.own_process = own_process
    name = f"tlbvfi {options.command}"
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted, nothing was left half-written.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has left. What is still to be flushed goes nowhere, so that nothing fails at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except RunError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def entry() -> NoReturn:
    """The installed command. A termination request, or a terminal that is closed, cleans up like an interruption."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(main(own_process=True))


def _keep_freed_memory() -> None:
    """Have glibc use large blocks again instead of returning them to the system, for this process of ours alone.

    Otherwise every large tensor on the CPU comes as fresh pages, which the kernel zeroes first: a fifth of the time.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)


@contextmanager
def _running() -> Iterator[None]:
    """What goes wrong in here is no longer a wrong request."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (DeviceMemoryError, ValueError, OSError) as error:
        raise RunError(str(error)) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).split(". ")[0].splitlines()[0].rstrip(".")
        hint = "use --dtype float16, a smaller --flow-scale or a smaller size"
        raise RunError(f"the memory does not suffice ({first}); {hint}.") from None


def _load(model: str | None, device: torch.device, dtype: torch.dtype | str) -> TLBVFI:
    if model is None and not built_in_path(next(iter(BUILT_IN))).is_file():
        raise CheckpointError(
            "this installation has no built-in weights; give a weight file with --model "
            "(python -m tlbvfi download fetches the published one)."
        )
    if isinstance(dtype, str):
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    return load_model(model, device=device, dtype=dtype)


def _with_bar(frames: Iterable[Tensor], total: int | None, name: str) -> Iterator[Tensor]:
    """The same frames, counted on stderr as they come."""
    terminal = sys.stderr.isatty()
    with tqdm(total=total, desc=name, unit=" frames", mininterval=0.1 if terminal else 10, dynamic_ncols=True) as bar:
        for frame in frames:
            yield frame
            bar.update()


def _interpolate(options: argparse.Namespace) -> None:
    video.check_target(options.target, options.source)
    device = _device(options.device)
    info = video.probe(options.source)
    if info.fps is None and options.target.suffix:
        raise VideoError(f"pictures have no frame rate for {options.target.name}; give a folder as OUT.")
    if options.model is not None:
        resolve_source(options.model)
    model = _load(options.model, device, options.dtype)
    factor = 2**options.times
    chosen = _planned(model, info.height, info.width, options.flow_scale, options.memory, options.padding)
    if options.own_process and (device.type != "cpu" or _room_for_gaps(chosen, options.memory or _free_memory(device))):
        _keep_freed_memory()
    source = _Counted(video.read_frames(options.source))
    frames = interpolate_frames(
        model,
        source,
        options.times,
        options.flow_scale,
        options.steps,
        options.seed,
        padding=options.padding,
        plan=chosen,
    )
    total = (info.frame_count - 1) * factor + 1 if info.frame_count else None
    with _running():
        shown = _with_bar(frames, total, options.target.name)
        if not options.target.suffix:
            count = video.write_pictures(options.target, shown)
            print(f"{options.target}: {count} pictures of {info.width}x{info.height}")
            _warn_of_early_end(options.source, source.count, info.frame_count)
            return
        assert info.fps is not None
        fps = info.fps * factor
        sound = options.source if info.sound else None
        count = video.write_video(options.target, shown, fps, like=info, sound_from=sound, crf=options.crf)
    print(f"{options.target}: {count} frames of {info.width}x{info.height} at {_rate(fps)} fps")
    _warn_of_early_end(options.source, source.count, info.frame_count)


class _Counted:
    """Frames, and how many have been taken."""

    def __init__(self, frames: Iterable[Tensor]) -> None:
        self._frames, self.count = frames, 0

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._frames:
            self.count += 1
            yield frame


def _warn_of_early_end(source: Path, found: int, stated: int | None) -> None:
    """A file that was cut short says of more frames than there are; by a few it may be wrong anyway."""
    if stated is not None and found < 0.9 * stated - 2:
        print(f"{source} ended after {found} of {stated} frames: it may be cut short or damaged.", file=sys.stderr)


def _rate(fps: Fraction) -> str:
    return str(fps) if fps.denominator == 1 else f"{fps} = {float(fps):.3f}"


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a device has left, where that is known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and _MEMINFO.is_file():
        found = re.search(r"^MemAvailable: *(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None
    return None


#: What Linux says of the computer's memory.
_MEMINFO = Path("/proc/meminfo")


def _planned(
    model: TLBVFI, height: int, width: int, flow_scale: float, memory: int | None, padding: PaddingMode
) -> Plan | None:
    """The plan that fits the memory given, or else what is free; None where that is not known.

    Raises:
        ValueError: not even the smallest one fits, in one sentence.
    """
    budget, free = memory, _free_memory(model.device)
    if budget is None and free is not None:
        budget = usable(free) + sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if budget is None:
        return None
    size = height, width, model.dtype, flow_scale
    chosen = plan(*size, budget, params=model.params, padding=padding)
    if model.device.type != "cpu" or memory is not None:
        return chosen
    # Several pairs at a time are for devices that one pair does not keep busy.
    single = candidates(*size, model.params, padding)
    return next(each for each in single if each.strip_rows == chosen.strip_rows)


def _room_for_gaps(chosen: Plan | None, memory: int | None) -> bool:
    """Whether a process that keeps its freed memory, gaps and all, stays within `memory` bytes."""
    return chosen is None or memory is None or _WITH_GAPS * chosen.peak_bytes <= memory


#: Up to 2.6 times the planned memory was resident.
_WITH_GAPS = 3


def _plan(options: argparse.Namespace) -> None:
    height, width = options.size
    heads = ["dtype", "padded to", "weights", "peak", "rows at once", "pairs at once"]
    heads += [f"fits {options.vram / 2**30:g} GiB"] if options.vram else []
    print(f"{width}x{height}, flow scale {options.flow_scale:g}, {options.padding} padding, published model")
    print("  ".join(f"{head:>14}" for head in heads))
    refusals: list[str] = []
    for dtype in [options.dtype] if options.dtype is not None else [torch.float32, torch.float16]:
        found = candidates(height, width, dtype, options.flow_scale, padding=options.padding)
        chosen = None
        if options.vram:
            try:
                chosen = plan(height, width, dtype, options.flow_scale, options.vram, padding=options.padding)
                found = [chosen if line.strip_rows == chosen.strip_rows else line for line in found]
            except ValueError as error:
                refusals.append(str(error))
        for line in found:
            fits = "chosen" if line == chosen else "yes" if line.peak_bytes <= (options.vram or 0) else "no"
            cells = [
                str(dtype).removeprefix("torch."),
                f"{line.padded_size[1]}x{line.padded_size[0]}",
                amount(line.weight_bytes),
                amount(line.peak_bytes),
                str(line.strip_rows),
                str(line.batch_size),
            ]
            print("  ".join(f"{cell:>14}" for cell in [*cells, *([fits] if options.vram else [])]))
    print("Every line gives the same frames; fewer rows at once take a little longer.")
    print("peak: weights and live tensors on the device; allocator overhead and library workspaces come on top.")
    for refusal in refusals:
        print(refusal)


def _bench(options: argparse.Namespace) -> None:
    device = _device(options.device)
    for path in (options.json, options.plot):
        reason = path and (unwritable(path) or (path.is_dir() and "it is a folder"))
        if reason:
            raise ValueError(f"{path} cannot be written, because {reason}.")
    if options.plot is not None:
        if options.json is not None and options.json.resolve() == options.plot.resolve():
            raise ValueError(f"--json and --plot are the same file, {options.plot}; give two names.")
        bench.check_plot(options.plot)
    sources = dict.fromkeys(options.model or [None])
    _check_benched(options, device, sources)
    strips = [None if rows == "whole" else rows for rows in options.strips]
    if options.own_process:
        _keep_freed_memory()
    machine = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()), end="\n\n", flush=True)
    if options.clip is not None:
        frames = list(islice(video.read_frames(options.clip), options.max_frames))
        scores = _compared(options, device, sources, strips, frames)
        print(bench.peer_table(scores))
        finite = [{k: v if math.isfinite(v) else None for k, v in score.items()} for score in scores.values()]
        content = [{"method": name, **score} for name, score in zip(scores, finite, strict=True)]
        _write_results(options, machine, content, lambda kind: bench.plot_scores(scores, kind))
        return
    results: list[bench.Result] = []
    try:
        for source, dtype in product(sources, options.dtype):
            model, name = _benched(options, device, source, dtype, sources)
            for (height, width), times, scale, rows in product(options.size, options.times, options.flow_scale, strips):
                case = bench.Case(height, width, times, scale, batch_size=options.batch_size, strip_rows=rows)
                with _running():
                    results.append(bench.measure(model, case, options.repeats, name))
                print(bench.table(results[-1:]), bench.stage_table(results[-1]), sep="\n\n", end="\n\n", flush=True)
            del model
        if len(results) > 1:
            print(bench.table(results))
    finally:
        # What was measured is kept, whatever came after.
        if results:
            _write_results(options, machine, [r.to_dict() for r in results], lambda kind: bench.plot(results, kind))


def _check_benched(options: argparse.Namespace, device: torch.device, sources: Iterable[str | None]) -> None:
    """Every weight file, and every size against the memory there is, before the first is measured.

    Raises:
        ValueError: one of them cannot be measured, in one sentence.
    """
    for source in sources:
        if source not in (None, bench.STAND_IN):
            resolve_source(source)
    free = _free_memory(device)
    for source in sources:
        stand_in = source == bench.STAND_IN
        params = ModelParams() if stand_in else _load(source, torch.device("cpu"), torch.float32).params
        if options.clip is None and free is not None:
            for dtype, (height, width), scale in product(options.dtype, options.size, options.flow_scale):
                plan(height, width, dtype, scale, usable(free), params=params)


def _benched(
    options: argparse.Namespace,
    device: torch.device,
    source: str | None,
    dtype: torch.dtype,
    sources: Iterable[str | None],
) -> tuple[TLBVFI, str]:
    """A model to measure, and its name among those of all sources."""
    model = bench.stand_in_model(device, dtype) if source == bench.STAND_IN else _load(source, device, dtype)
    if options.compile:
        compile_model(model)
    if source is None:
        return model, next(iter(BUILT_IN))
    alike = [other for other in sources if other is not None and Path(other).name == Path(source).name]
    return model, Path(source).name if len(alike) == 1 else source


def _compared(
    options: argparse.Namespace,
    device: torch.device,
    sources: Iterable[str | None],
    strips: Sequence[int | None],
    frames: Sequence[Tensor],
) -> dict[str, dict[str, float]]:
    """The classical methods and all models asked for, on a clip."""
    if len(frames) < 3:
        raise ValueError(f"{options.clip} has fewer than three frames, which a comparison needs.")
    size = (frames[0].shape[0], frames[0].shape[1])
    if min(size) < SSIM_WINDOW:
        raise ValueError(f"{options.clip} is {size[1]}x{size[0]}; SSIM needs {SSIM_WINDOW}x{SSIM_WINDOW} at least.")
    for index, frame in enumerate(frames):
        check_frame(frame, index, size)
    with _running():
        scores = bench.compare(frames, PEERS)
    for source, dtype in product(sources, options.dtype):
        model, name = _benched(options, device, source, dtype, sources)
        methods = {}
        for scale, rows in product(options.flow_scale, strips):
            cut = "" if rows is None else f", {rows} rows at a time"
            label = f"{name}, flow scale {scale:g}, {str(dtype).removeprefix('torch.')}{cut}"
            methods[label] = bench.as_peer(model, size, scale, rows)
        with _running():
            scores |= bench.compare(frames, methods)
        if name == bench.STAND_IN:
            print("The stand-in's weights are random: its time is real, its quality is not.", end="\n\n")
    return scores


def _write_results(
    options: argparse.Namespace,
    machine: dict[str, object],
    results: Sequence[Mapping[str, object]],
    draw: Callable[[str], bytes],
) -> None:
    with _running():
        if options.json is not None:
            text = json.dumps({**machine, "results": results}, indent=1)
            with whole(options.json) as file:
                file.write_text(f"{text}\n", encoding="utf-8")
        if options.plot is not None:
            picture = draw(options.plot.suffix)
            with whole(options.plot) as file:
                file.write_bytes(picture)


def _convert(options: argparse.Namespace) -> None:
    resolve_source(options.source)
    if (reason := unwritable(options.target)) is not None:
        raise ValueError(f"{options.target} cannot be written, because {reason}.")
    try:
        convert(options.source, options.target, options.dtype, ema=not options.no_ema)
    except OSError as error:
        raise RunError(f"{options.target} cannot be written ({error.strerror or error}).") from None
    for label, path in (("source", options.source), ("converted", options.target)):
        start = time.perf_counter()
        load_model(path, ema=not options.no_ema)
        seconds = time.perf_counter() - start
        print(f"{label:>9}: {path.stat().st_size / 1e6:7.1f} MB, loads in {seconds:.2f} s  {path}")


def _demo(options: argparse.Namespace) -> None:
    device = _device(options.device)
    clip = demo.find_clip()
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file already; choose another --output.")
    if options.own_process:
        _keep_freed_memory()
    model = _load(options.model, device, torch.float32)
    plain = demo.Plan.for_model(model, built_in=options.model is None)
    with _running():
        folder.mkdir(parents=True, exist_ok=True)
        result = demo.run(model, clip, folder, plain, lambda frames, total: _with_bar(frames, total, "demo"))
    print(f"{result.video}: {result.frames} frames at {_rate(result.fps)} fps, {result.new} of them new")
    print(f"{result.picture}: frame before | new frame | frame after | average of the two, for comparison")


def _download(options: argparse.Namespace) -> None:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(
            "downloading needs the package huggingface-hub, which is not installed: pip install huggingface-hub."
        ) from None
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is not a folder.")
    print(
        f"{PUBLISHED_FILE} from {PUBLISHED_REPOSITORY} on Hugging Face. Its authors do not state a licence for these "
        "weights; whether you may use them is for you to judge."
    )
    try:
        path = hf_hub_download(PUBLISHED_REPOSITORY, PUBLISHED_FILE, local_dir=options.folder)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RunError(f"{PUBLISHED_FILE} could not be downloaded ({reason}).") from None
    target = Path(path)
    print(f"{target}\nFor faster loading: python -m tlbvfi convert {target} {target.with_suffix('.safetensors')}")

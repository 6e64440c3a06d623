"""Run the parts and write what they found: `python -m tests.cuda.check`, or `python tasks.py cuda`.

Parts whose figures are times run one by one. Then the others run in processes of their own, where memory of one is not
found by another: all at once where the card has room for them, because most of their time is compiling.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.cuda import budgets, endurance, equality, kernel_tests, others, precision, speed, stages
from tests.cuda.report import Report, Sheet
from tests.cuda.setting import GIB, ROOT, OutOfTime, Setting, machine, read_json, warnings_said


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        title: of its tables.
        run: fills its sheet; what it raises is a failure of it.
        seconds: that it may take, at most.
        timed: its figures are times, so that nothing else may run beside it, and it runs in this process.
        environment: of its process.
    """

    title: str
    run: Callable[[Setting, Sheet], None]
    seconds: float
    timed: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


#: In the order in which they are run: the most telling first.
PARTS = {
    "3": Part("Speed", speed.run, 80, timed=True),
    "4": Part("Stages", stages.run, 60, timed=True),
    "8": Part("Others", others.run, 20, timed=True),
    "1": Part("Recorded cases", equality.run, 150),
    "5": Part("Budgets", budgets.run, 150),
    "5b": Part("Budgets by another allocator", budgets.run_other, 150, environment=budgets.OTHER_ALLOCATOR),
    "7": Part("Kernels", kernel_tests.run, 150),
    "2": Part("Precision", precision.run, 150),
    "6": Part("Endurance", endurance.run, 150),
}
_MINUTES = 3.9
#: Memory of a card, in GiB, that all untimed parts share.
_ROOM_FOR_ALL = 40
#: Seconds that a process may take beyond its part, to begin and to end.
_LATE = 20


def run_part(name: str, setting: Setting, report: Report, most: float | None = None) -> Sheet:
    """Run one part within its time, `most` seconds where those are fewer; its sheet is in the report whatever comes."""
    part = PARTS[name]
    sheet = report.sheets[name] = Sheet(part.title)
    begin = time.monotonic()
    limit = min(part.seconds, part.seconds if most is None else most)
    try:
        with warnings_said() as said, _within(limit, setting):
            part.run(setting, sheet)
    except OutOfTime:
        sheet.failures.append(f"was not done after {limit:.0f} s")
    except Exception as error:  # whatever a card raises: the other parts go on
        sheet.failures.append(f"{type(error).__name__}: {error}")
        sheet.details["traceback"] = traceback.format_exc()
    for sentence in dict.fromkeys(said):
        fails = "do not work" in sentence and not setting.rehearse
        (sheet.failures if fails else sheet.notes).append(f"the log says: {sentence}")
    sheet.seconds = time.monotonic() - begin
    report.save()
    return sheet


def run_apart(names: Sequence[str], setting: Setting, report: Report, together: int, until: float) -> Iterator[str]:
    """Run parts in processes of their own, so many together, until a time by `time.monotonic`; gives each part's name
    when its sheet is in the report."""
    setting.deadline = math.inf
    with ThreadPoolExecutor(together) as pool:
        sheets = [pool.submit(_run_process, name, setting, until) for name in names]
        for name, sheet in zip(names, sheets, strict=True):
            report.sheets[name] = sheet.result()
            report.save()
            yield name


def _run_process(name: str, setting: Setting, until: float) -> Sheet:
    """Run a part in a process of its own, and what it found."""
    part, folder, begin = PARTS[name], setting.out / f"part-{name}", time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    seconds = min(part.seconds, max(0.0, until - begin))
    words = ["-m", "tests.cuda.check", "--here", "--parts", name, "--out", str(folder)]
    words += ["--minutes", f"{seconds / 60:.3f}", *(["--rehearse"] if setting.rehearse else [])]
    code = setting.call(*words, name=f"part-{name}", most=seconds + _LATE, **part.environment)
    found = read_json(folder / "report.json")["parts"].get(name) if (folder / "report.json").is_file() else None
    sheet = Sheet(**found) if found else Sheet(part.title)
    sheet.check(code is not None, f"its process did not end in {seconds + _LATE:.0f} s, see part-{name}.txt")
    sheet.check(found is not None or code is None, f"its process ended with {code}, see part-{name}.txt")
    sheet.seconds = time.monotonic() - begin
    return sheet


def _together(device: torch.device) -> int:
    """How many parts may share the card."""
    if device.type != "cuda":
        return 1
    room = torch.cuda.get_device_properties(device).total_memory
    return len(PARTS) if room >= _ROOM_FOR_ALL * GIB else 1


@contextmanager
def _within(seconds: float, setting: Setting) -> Iterator[None]:
    """The setting's deadline is so many seconds from now; where the system has alarms, one ends the block then."""
    setting.deadline = time.monotonic() + seconds

    def ring(*_: object) -> None:
        raise OutOfTime

    alarms = hasattr(signal, "setitimer")
    before = signal.signal(signal.SIGALRM, ring) if alarms else None
    try:
        if alarms:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01) + 1)
        yield
    finally:
        if alarms:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tasks.py cuda",
        description="Check this version on the graphics card of this machine, in under four minutes.",
        epilog="; ".join(f"{name}: {part.title.lower()}" for name, part in PARTS.items()),
    )
    folder = ROOT / ".cache" / "cuda"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help="for report.json and report.md")
    parser.add_argument("--parts", type=_parts, default=None, metavar="1,3", help="only these, in the usual order")
    parser.add_argument("--minutes", type=float, default=_MINUTES, metavar="N", help="for all of them together")
    parser.add_argument("--rehearse", action="store_true", help="go through all of it on the CPU, very small")
    parser.add_argument("--here", action="store_true", help="every part in this process")
    return parser


def _parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(unknown)}, only {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def main(arguments: list[str] | None = None) -> int:
    begin = time.monotonic()
    options = parser().parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print("There is no graphics card that PyTorch can use; --rehearse goes through all of it on the CPU.")
        return 2
    device = torch.device("cpu") if options.rehearse else torch.device("cuda", torch.cuda.current_device())
    report = Report(options.out.resolve(), machine(device))
    setting = Setting(device, options.out.resolve(), options.rehearse)
    names = options.parts or list(PARTS)

    until = begin + 60 * options.minutes
    here = [name for name in names if options.here or PARTS[name].timed]
    for name in here:
        run_part(name, setting, report, max(0.0, until - time.monotonic()))
        print(f"{name} {report.sheets[name].markdown()}\n", flush=True)
    setting.clean()
    apart = [name for name in names if name not in here]
    for name in run_apart(apart, setting, report, _together(device), until):
        print(f"{name} {report.sheets[name].markdown()}\n", flush=True)
    print(f"{report.markdown}: {time.monotonic() - begin:.0f} s, {len(report.failures)} failures")
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())

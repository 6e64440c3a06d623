"""Run the parts and write what they found: `python -m tests.cuda.check`, or `python tasks.py cuda`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.cuda import budgets, endurance, equality, kernel_tests, others, precision, speed, stages
from tests.cuda.report import Report, Sheet
from tests.cuda.setting import ROOT, OutOfTime, Setting, machine, warnings_said


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        title: of its tables.
        run: fills its sheet; what it raises is a failure of it.
        seconds: that it may take, at most.
        usual: whether it is run where nobody says which.
    """

    title: str
    run: Callable[[Setting, Sheet], None]
    seconds: float
    usual: bool = True


#: In the order in which they are run: the most telling first.
PARTS = {
    "1": Part("Recorded cases", equality.run, 60),
    "3": Part("Speed", speed.run, 80),
    "4": Part("Stages", stages.run, 60),
    "7": Part("Kernels", kernel_tests.run, 62),
    "5": Part("Budgets", budgets.run, 70),
    "2": Part("Precision", precision.run, 30),
    "6": Part("Endurance", endurance.run, 40),
    "8": Part("Others", others.run, 20),
    "5b": Part("Budgets by another allocator", budgets.run_small, 50, usual=False),
}
_MINUTES = 3.7


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
        epilog="; ".join(f"{name}: {part.title.lower()}" for name, part in PARTS.items() if part.usual),
    )
    folder = ROOT / ".cache" / "cuda"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help="for report.json and report.md")
    parser.add_argument("--parts", type=_parts, default=None, metavar="1,3", help="only these, in the usual order")
    parser.add_argument("--minutes", type=float, default=_MINUTES, metavar="N", help="for all of them together")
    parser.add_argument("--rehearse", action="store_true", help="go through all of it on the CPU, very small")
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
    names = options.parts or [name for name, part in PARTS.items() if part.usual]
    for name in names:
        left = 60 * options.minutes - (time.monotonic() - begin)
        sheet = run_part(name, setting, report, max(0.0, left))
        print(f"{name} {sheet.markdown()}\n", flush=True)
    print(f"{report.markdown}: {time.monotonic() - begin:.0f} s, {len(report.failures)} failures")
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())

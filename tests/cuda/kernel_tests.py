"""The tests of our own kernels, on the card instead of Triton's interpreter: each file in a process of its own, all at
once, because most of their time is compiling."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cuda.report import Sheet
from tests.cuda.setting import ROOT, Setting

_MOST_SECONDS = 115


def run(setting: Setting, sheet: Sheet) -> None:
    files = sorted((ROOT / "tests").glob("test_kernels_*.py"))
    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        tested = [(path, pool.submit(_tested, setting, path)) for path in files[: 1 if setting.rehearse else None]]
        for path, code in tested:
            _told(setting, sheet, path, code.result())


def _tested(setting: Setting, path: Path) -> int | None:
    return setting.call(
        "-m", "pytest", "-q", "--tb=short", "--durations=5", "-p", "no:cacheprovider", "-o", "minversion=1",
        path.relative_to(ROOT).as_posix(), name=path.stem, most=_MOST_SECONDS,
    )  # fmt: skip


def _told(setting: Setting, sheet: Sheet, path: Path, code: int | None) -> None:
    output = (setting.out / f"{path.stem}.txt").read_text(encoding="utf-8", errors="replace")
    summary = (re.findall(r"^.*\b(?:passed|failed|skipped|error)\b.*$", output, re.MULTILINE) or [""])[-1]
    sheet.row("Tests of kernels", file=path.stem, result=summary or "did not end", **{"exit code": code})
    sheet.details.setdefault("failed", []).extend(re.findall(r"^(?:FAILED|ERROR) .*$", output, re.MULTILINE))
    sheet.check(code is not None, f"{path.name} did not end in {_MOST_SECONDS} s, see {path.stem}.txt")
    sheet.check(code in (0, None), f"{path.name} failed ({summary}), see {path.stem}.txt")

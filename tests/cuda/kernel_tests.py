"""The tests of our own kernels, on the card instead of Triton's interpreter."""

from __future__ import annotations

import re

from tests.cuda.report import Sheet
from tests.cuda.setting import ROOT, Setting

_MOST_SECONDS = 60


def run(setting: Setting, sheet: Sheet) -> None:
    files = sorted((ROOT / "tests").glob("test_kernels_*.py"))
    names = [path.relative_to(ROOT).as_posix() for path in files]
    if setting.rehearse:
        names = names[:1]
    code = setting.call(
        "-m", "pytest", "-q", "--tb=short", "--durations=5", "-p", "no:cacheprovider", "-o", "minversion=1",
        *names, name="kernel-tests", most=_MOST_SECONDS,
    )  # fmt: skip
    output = (setting.out / "kernel-tests.txt").read_text(encoding="utf-8", errors="replace")
    summary = (re.findall(r"^.*\b(?:passed|failed|skipped|error)\b.*$", output, re.MULTILINE) or [""])[-1]
    sheet.row("Tests of kernels", files=len(names), result=summary or "none ended", **{"exit code": code})
    sheet.details["failed"] = re.findall(r"^(?:FAILED|ERROR) .*$", output, re.MULTILINE)
    sheet.check(code is not None, f"the tests of kernels did not end in {_MOST_SECONDS} s, see kernel-tests.txt")
    sheet.check(code in (0, None), f"the tests of kernels failed ({summary}), see kernel-tests.txt")

"""Apply the mutants one by one to a copy of the repository, and see that their tests fail. Called by tasks.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import ROOT, Mutant, listed

#: What a copy does not need.
_LEFT_OUT = (".*", "__pycache__", "demo", "build", "dist")
#: A mutant is killed too where its tests take so many times as long as they did, and this many seconds.
_TIMES, _SECONDS = 10, 60.0


def copied(place: Path) -> None:
    """The repository, without what git ignores and its own folder."""
    shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for hidden in (".comfyignore", ".gitignore"):
        shutil.copy2(ROOT / hidden, place)


def passes(place: Path, tests: Sequence[str], seconds: float | None = None) -> bool:
    """Whether tests pass in a copy, of a mutant in so many seconds."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    if seconds is not None:  # what is compiled of a mutant must not be taken for what its file is compiled to
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (0, 1, 2):  # no tests, or a wrong command
        raise SystemExit(said.decode(errors="replace"))
    return process.returncode == 0


def chosen(mutants: Sequence[Mutant], words: Sequence[str]) -> list[Mutant]:
    """Those of some files, folders or names; all of them where nothing is asked for."""
    unknown = [w for w in words if not any(m.name == w or _lies_in(m.file, w) for m in mutants)]
    if unknown:
        raise SystemExit(f"There is no mutant of {', '.join(unknown)}; tests/mutants has their names and files.")
    return [m for m in mutants if not words or any(m.name == w or _lies_in(m.file, w) for w in words)]


def _lies_in(file: str, place: str) -> bool:
    return file == place or file.startswith(f"{place.rstrip('/')}/")


def outcome(mutant: Mutant, place: Path, seconds: float) -> str:
    """What becomes of a mutant; the copy is as it was afterwards."""
    path = place / mutant.file
    changed = mutant.applied(path.read_text(encoding="utf-8")) if path.is_file() else None
    if changed is None:
        return "does not apply"
    path.write_text(changed, encoding="utf-8")
    try:
        return "SURVIVED" if passes(place, mutant.tests, seconds) else "killed"
    finally:
        shutil.copy2(ROOT / mutant.file, path)


def main(words: Sequence[str]) -> int:
    found = chosen(listed(), words)
    mutants = [mutant for mutant in found if not mutant.equivalent]
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="tlbvfi-mutants-") as folder:
        place = Path(folder) / "tlbvfi-copy"  # a name that hides no module
        copied(place)
        usual: dict[tuple[str, ...], float] = {}
        for mutant in mutants:
            if mutant.tests not in usual:
                begin = time.monotonic()
                if not passes(place, mutant.tests):
                    print(f"{' '.join(mutant.tests)} fail without a mutant; nothing can be said.")
                    return 1
                usual[mutant.tests] = time.monotonic() - begin
            result = outcome(mutant, place, _SECONDS + _TIMES * usual[mutant.tests])
            counts[result] = counts.get(result, 0) + 1
            print(f"{result:>14}  {mutant.name}  ({mutant.file})", flush=True)
            if result != "killed":
                print(f"{'':>16}{mutant.why}", flush=True)
    summary = ", ".join(f"{count} {result}" for result, count in counts.items())
    print(f"{len(mutants)} mutants: {summary or 'nothing to do'}; {len(found) - len(mutants)} equivalent, not run.")
    return int(set(counts) - {"killed"} != set())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Everything a fresh clone needs, in one command each; run again, they take up where they left off.

    python tasks.py demo           set up, then interpolate a short clip into demo/
    python tasks.py test           set up, then check style and types and run all tests
    python tasks.py test ARGS...   only pytest with these arguments, such as tests/test_commands.py -k plan
    python tasks.py cuda           check speed, memory and frames on this machine's graphics card, in four minutes;
                                   --out FOLDER for the report, --parts 1,3 for some of it, --rehearse without a card
    python tasks.py fuzz           set up, then try 10,000 generated inputs, others each time; --cases N, --seed N
    python tasks.py mutants        set up, then break the code on purpose, in a copy, one line at a time, and see that
                                   the tests notice; FILE... or NAME... for some of it
    python tasks.py release --check
                                   set up, then build what the ComfyUI registry would get, and say what it lacks

Needs Python 3.10 or newer and nothing else. All of it stays in this folder: the environment in .venv, and the
ComfyUI that the end-to-end tests run in .cache (or in the folder named by TLBVFI_COMFYUI).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "tlbvfi-installed.txt"
#: The extras of pyproject.toml that the tasks install; each has all of those before it.
EXTRAS = ("demo", "dev")
OLDEST_PYTHON = (3, 10)
#: Processes that run tests, at most: each has a ComfyUI and some gigabytes.
MOST_WORKERS = 4
#: What the check on a graphics card imports. Where this Python has all of it, it runs by this Python: the environment
#: of the tests may have a PyTorch that knows no card.
CARD_PACKAGES = ("torch", "numpy", "safetensors", "einops", "omegaconf", "pytest")


class TaskError(RuntimeError):
    """One sentence that says why a task cannot go on."""


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def call(*command: str | Path, **environment: str) -> int:
    """Run a command in this folder, its output shown; returns its exit code."""
    return subprocess.call([str(word) for word in command], cwd=ROOT, env={**os.environ, **environment})


def set_up(extra: str) -> None:
    """Bring .venv to what the extra pins, unless it is there already."""
    content = f"{sys.version}\n{hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}\n"
    enough = [content + name for name in EXTRAS[EXTRAS.index(extra) :]]
    if PYTHON.is_file() and STAMP.is_file() and STAMP.read_text(encoding="utf-8") in enough:
        return
    if not STAMP.is_file() or not STAMP.read_text(encoding="utf-8").startswith(f"{sys.version}\n"):
        say("making .venv")
        if call(sys.executable, "-m", "venv", "--clear", VENV):
            raise TaskError(f"{sys.executable} cannot make an environment (on Debian, install python3-venv).")
    say("installing what pyproject.toml pins into .venv; the first time takes a few minutes")
    if call(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f".[{extra}]"):
        raise TaskError("pip could not install what is needed; its message is above.")
    STAMP.write_text(content + extra, encoding="utf-8")


def set_up_comfyui() -> None:
    """The ComfyUI of the end-to-end tests. Without it they are skipped, or fail if TLBVFI_REQUIRE_COMFYUI is set."""
    say("setting up the ComfyUI of the end-to-end tests")
    if call(PYTHON, Path("tests", "comfyui", "install.py")):
        if os.environ.get("TLBVFI_REQUIRE_COMFYUI"):
            raise TaskError("the ComfyUI of the end-to-end tests is required, but could not be set up.")
        say("going on without it: the end-to-end tests will be skipped")


def link_for_mypy() -> None:
    """A link to this folder by the one name under which mypy knows the pack, whatever the folder is called."""
    link = ROOT / ".cache" / "mypy" / "tlbvfi_pack"
    if link.exists():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():  # to where the folder was before
        link.unlink()
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(link))  # needs no privilege, unlike a symbolic link
    else:
        link.symlink_to(Path("..", ".."), target_is_directory=True)


def wants_comfyui(arguments: list[str]) -> bool:
    """Whether these pytest arguments include the end-to-end tests: no path at all, or one that holds them."""
    if "--ignore=tests/comfyui" in arguments:
        return False
    paths = [ROOT / argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    paths = [path for path in paths if path.exists()]
    end_to_end = ROOT / "tests" / "comfyui"
    return not paths or any(path in (end_to_end, *end_to_end.parents) or end_to_end in path.parents for path in paths)


def demo(arguments: list[str]) -> int:
    set_up("demo")
    return call(PYTHON, "-m", "tlbvfi", "demo", *arguments)


def test(arguments: list[str]) -> int:
    set_up("dev")
    failed = []
    if wants_comfyui(arguments):
        set_up_comfyui()
    if not arguments:
        link_for_mypy()
        for check in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
            say(" ".join(check))
            if call(PYTHON, "-m", *check):
                failed.append(" ".join(check))
    say(f"pytest{''.join(f' {argument}' for argument in arguments)}")
    if failed:
        say(f"FAILED before: {', '.join(failed)}")
    if arguments:
        return call(PYTHON, "-m", "pytest", *arguments)
    # A process for each core, one thread each: two of PyTorch's at once would wait for each other's threads. Files stay
    # whole, as their tests share what they make; the first ones take the longest.
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    words = ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder")
    return call(PYTHON, "-m", "pytest", *words, OMP_NUM_THREADS="1") or int(bool(failed))


def cuda(arguments: list[str]) -> int:
    here = all(importlib.util.find_spec(name) for name in CARD_PACKAGES)
    if not here:
        set_up("dev")
    return call(sys.executable if here else PYTHON, "-m", "tests.cuda.check", *arguments)


def fuzz(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tasks.py fuzz")
    parser.add_argument("--cases", type=int, default=10_000, help="how many inputs are tried, about")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="the same seed tries the same inputs")
    options, others = parser.parse_known_args(arguments)
    set_up("dev")
    say(f"about {options.cases} cases, seed {options.seed}")
    os.environ |= {"TLBVFI_FUZZ_CASES": str(options.cases), "TLBVFI_HYPOTHESIS_PROFILE": "fuzz"}
    where = [] if any(not word.startswith("-") for word in others) else ["tests/fuzz"]
    return call(PYTHON, "-m", "pytest", "-q", f"--hypothesis-seed={options.seed}", *where, *others)


def mutants(arguments: list[str]) -> int:
    set_up("dev")
    return call(PYTHON, "-m", "tests.mutants.run", *arguments)


def release(arguments: list[str]) -> int:
    set_up("dev")
    return call(PYTHON, "-m", "tests.release", *arguments)


def main() -> int:
    tasks = {"demo": demo, "test": test, "cuda": cuda, "fuzz": fuzz, "mutants": mutants, "release": release}
    if len(sys.argv) < 2 or sys.argv[1] not in tasks:
        print(__doc__.strip())
        return 0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2
    if sys.version_info < OLDEST_PYTHON:
        print("tasks.py: Python {}.{} or newer is needed, this is {}.{}.".format(*OLDEST_PYTHON, *sys.version_info[:2]))
        return 2
    try:
        return tasks[sys.argv[1]](sys.argv[2:])
    except TaskError as error:
        print(f"tasks.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

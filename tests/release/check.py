"""Whether what would go to the registry is whole: what is in it, what it says of itself, and that it works alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import archive, metadata, scanner, stamps
from .archive import ROOT

#: What has to be in the archive, whatever else is. Built-in weights and help pages are looked for by using it.
_WANTED = ("__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "configs/vimeo_unet.yaml")
#: What the top of an archive may have.
_TOPS = {
    "__init__.py", "nodes", "utils", "tlbvfi", "configs", "workflows", "subgraphs", "web", "locales",
    "pyproject.toml", "requirements.txt", "README.md", "LICENSE",
}  # fmt: skip
#: Of everything, packed. A registry's archive is fetched whole at every update.
_LARGEST = 32_000_000
#: What is there without being in requirements.txt: PyTorch and what comes with it, ComfyUI and what it requires.
_GIVEN = {"torch", "triton", "comfy", "comfy_api", "folder_paths", "av", "PIL", "psutil"}
#: Imported where somebody asks for it on the command line, and said to be missing otherwise.
_OPTIONAL = {
    ("tlbvfi/peers.py", "cv2"),
    ("tlbvfi/bench/reports.py", "matplotlib"),
    ("tlbvfi/cluster/connection.py", "ray"),
}
#: Packages for the tests, which must not be needed.
_DEV_ALONE = (
    "pytest", "_pytest", "hypothesis", "cv2", "skimage", "scipy", "matplotlib", "pathspec", "ray", "websocket",
)  # fmt: skip
_PROBE, _FAKE_HOST = Path(__file__).with_name("probe.py"), Path(__file__).parents[1] / "fake_host.py"
_SECONDS = 300


@dataclass
class Report:
    """What :func:`check` found.

    Attributes:
        missing: what keeps the pack from being released, a sentence each.
        placeholders: values that only the owner knows, and those that stand there now.
        notes: what is no fault.
        allowed: what the scanner found and lets pass, with the reasons.
    """

    size: int = 0
    names: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    placeholders: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)


def check(root: Path = ROOT, *, use: bool = True, new: bool = False) -> Report:
    """Everything, of a checkout.

    Args:
        use: load what is packed and make frames with it, which takes seconds.
        new: as if all that is here were in git.

    Raises:
        NotInGit: it is no checkout.
    """
    report = Report()
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        packed = Path(folder, "node.zip")
        report.names = archive.build(packed, root, new=new)
        report.size = packed.stat().st_size
        report.missing += contents(report.names, report.size)
        report.missing += [
            f"{name} is empty." for name in _WANTED if name in report.names and not (root / name).stat().st_size
        ]
        report.missing += [f"{name} is in git, and not here." for name in archive.absent(root)]
        others = sorted(set(archive.shipped(root, new=True)) - set(report.names))
        report.missing += [f"{name} is here, and not in git; it would not be in the archive." for name in others]
        values = _metadata(report, root)
        known = archive.tracked(root, new=new)
        report.missing += [f"{name} is not in git." for name in metadata.pictures(values) if name not in known]
        _scanned(report, root)
        report.missing += undeclared_imports(report.names, values, root)
        report.missing += version(values, root)
        report.notes += uncommitted(root)
        if use and "__init__.py" in report.names:
            alone = Path(folder, "custom_nodes", "pack")
            zipfile.ZipFile(packed).extractall(alone)
            keys = _used(report, alone)
            report.missing += graphs(root, keys, values) if keys else []
    return report


def contents(names: Sequence[str], size: int) -> Iterator[str]:
    """What is wrong with the list of what is packed."""
    for name in _WANTED:
        if name not in names:
            yield f"{name} is not in the archive (is it in git, or does .comfyignore leave it out?)."
    for top in sorted({name.partition("/")[0] for name in names} - _TOPS):
        yield f"{top} is in the archive, and belongs to the development; .comfyignore is to leave it out."
    for name in names:
        if name.startswith("tlbvfi/training/") or "__pycache__" in name or name.endswith(".pyc"):
            yield f"{name} is in the archive, and is not for users."
        if not re.fullmatch(r"[ -!#-\[\]-~]+", name):
            yield f"{name!r}: comfy-cli leaves out files whose names are not plain ASCII."
    if size > _LARGEST:
        yield f"the archive has {size / 1e6:.1f} MB, more than {_LARGEST / 1e6:.0f} MB."


def _metadata(report: Report, root: Path) -> dict[str, Any]:
    try:
        values = metadata.read(root)
    except (OSError, ValueError) as error:
        report.missing.append(f"pyproject.toml cannot be read: {error}.")
        return {}
    report.missing += metadata.problems(values, root)
    if list(metadata.of_another_type(values)):
        return {}
    report.placeholders = {path: metadata.value_of(values, path) for path in metadata.placeholders(values)}
    return values


def _scanned(report: Report, root: Path) -> None:
    findings = scanner.scan(report.names, root)
    report.missing += [f"{found}: the registry does not allow it." for found in scanner.refused(findings)]
    known = {(found.path, found.what) for found in findings} & scanner.ALLOWED.keys()
    report.allowed = [f"{path}: {what}: {scanner.ALLOWED[path, what]}" for path, what in sorted(known)]


def undeclared_imports(names: Sequence[str], values: Mapping[str, Any], root: Path = ROOT) -> list[str]:
    """Packages that are imported, and neither required nor there anyway."""
    required = {
        re.split(r"[^A-Za-z0-9_.-]", entry)[0] for entry in metadata.value_of(values, "project.dependencies") or []
    }
    known = required | _GIVEN | sys.stdlib_module_names
    found: set[tuple[str, str]] = set()
    for name in names:
        if name.endswith(".py"):
            try:
                tree = ast.parse((root / name).read_text(encoding="utf-8"))
            except (SyntaxError, ValueError):
                continue  # the scanner says so
            for node in ast.walk(tree):
                absolute = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    absolute = [node.module or ""]
                found |= {(name, module.partition(".")[0]) for module in absolute}
    unknown = sorted((name, module) for name, module in found - _OPTIONAL if module not in known)
    return [f"{name}: {module} is imported, and not in requirements.txt." for name, module in unknown]


def version(values: Mapping[str, Any], root: Path = ROOT) -> Iterator[str]:
    """Whether the version can be tagged, and is the package's own."""
    number = str(metadata.value_of(values, "project.version") or "")
    package = root / "tlbvfi" / "__init__.py"
    own = re.search(r'^__version__ = "(.*)"$', package.read_text(encoding="utf-8"), re.M) if package.is_file() else None
    if own is None or own[1] != number:
        yield f"project.version is {number}, and tlbvfi.__version__ {own[1] if own else 'nothing'}."
    if metadata.VERSION.fullmatch(number):
        tag = f"v{number}"
        if tag in archive.git(root, "tag", "--list", tag).split():
            tagged = archive.git(root, "rev-parse", f"refs/tags/{tag}^{{commit}}")
            if tagged != archive.git(root, "rev-parse", "HEAD"):
                yield f"{tag} is the tag of another commit already; raise project.version and tlbvfi.__version__."


def uncommitted(root: Path = ROOT) -> Iterator[str]:
    lines = archive.git(root, "status", "--porcelain").splitlines()
    if lines:
        yield f"{len(lines)} files are not as committed; comfy-cli packs those in git as they lie here."


def _used(report: Report, alone: Path) -> list[str]:
    """Load the pack from the archive's files; returns the keys of its nodes."""
    command = [sys.executable, "-I", _PROBE, alone, _FAKE_HOST, *_DEV_ALONE]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=alone.parent, timeout=_SECONDS, check=True)
        found = json.loads(result.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        report.missing.append(f"the pack does not work from the archive alone: {said[-1]}")
        return []
    keys: list[str] = found["keys"]
    if not keys:
        report.missing.append("the pack has no nodes when it is loaded from the archive.")
    report.missing += [f"web/docs/{key}.md is not in the archive." for key in keys if key not in found["pages"]]
    report.missing += [f"{name} gave no frames." for name, frames in found["frames"].items() if len(frames) != 3]
    report.notes.append(f"loaded from the archive alone: {len(keys)} nodes; frames by {', '.join(found['frames'])}")
    return keys


def graphs(root: Path, keys: Collection[str], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with what the example graphs say of the pack."""
    try:
        stamp = stamps.wanted(values)
    except KeyError:
        return []
    paths = stamps.graphs(root)
    return [said for path in paths for said in stamps.unstamped(path, keys, stamp)]

"""What the registry asks of `pyproject.toml`, and of what it names.

The rules are those of docs.comfy.org/registry/specifications.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .archive import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Json = Mapping[str, Any]

#: Numbers without zeros before them, as semver has them.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", re.ASCII)
_NAME = re.compile(r"[a-z](?:[-_.]?[a-z0-9])*", re.ASCII)
_PUBLISHER = re.compile(r"[A-Za-z0-9](?:[-_]?[A-Za-z0-9])*", re.ASCII)
_COMFYUI = re.compile(r"(?:<|>|<=|>=|~=|<>|!=)\d+(?:\.\d+){0,2}", re.ASCII)
_PYTHON = re.compile(r"(?:[<>]=?|[~!]=)\d+(?:\.\d+)*(?:, *(?:[<>]=?|[~!]=)\d+(?:\.\d+)*)*", re.ASCII)
#: One value that the registry does not know empties its whole list.
_CLASSIFIER = re.compile(
    r"Operating System :: (OS Independent|Microsoft :: Windows( :: .+)?|POSIX :: Linux( :: .+)?|MacOS( :: .+)?)"
    r"|Environment :: (GPU :: (NVIDIA CUDA|AMD ROCm|Intel Arc|Apple Metal)|NPU :: Huawei Ascend)"
)
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?[<>=!~][^/@#]*")
_REPOSITORY = re.compile(r"https://github\.com/(?P<path>[A-Za-z0-9-]+/[A-Za-z0-9._-]+?)")
_LARGEST_PICTURE = 100_000
#: What a value is, where there is one; lists and tables are of text.
_TYPES: dict[str, type] = {
    **{f"project.{key}": str for key in ("name", "version", "description", "requires-python", "readme")},
    **{f"project.{key}": list for key in ("classifiers", "dependencies", "dynamic")},
    **{f"tool.comfy.{key}": str for key in ("PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui")},
    "project.urls": dict, "tool.comfy.includes": list, "tool.release.placeholders": list,
}  # fmt: skip
#: Sides of an icon at most, and the shape of a banner.
_ICON, _BANNER = 400, (21, 9)
_STANDS_IN = re.compile(r"(?:^|[-_])(?:your|example|placeholder|todo|changeme|publisher)(?:$|[-_])", re.I)


def read(root: Path = ROOT) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def value_of(values: Json, path: str) -> Any:
    """``project.urls.Repository``; None where there is none."""
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def pictures(values: Json) -> list[str]:
    """The paths of the icon and the banner in the repository."""
    urls = (value_of(values, f"tool.comfy.{key}") for key in ("Icon", "Banner"))
    return [url.partition("/main/")[2] for url in urls if isinstance(url, str) and "/main/" in url]


def placeholders(values: Json) -> list[str]:
    """Where a value stands in for one that only the owner knows: what `tool.release.placeholders` names."""
    return list(value_of(values, "tool.release.placeholders") or [])


def problems(values: Json, root: Path = ROOT) -> Iterator[str]:
    """What is missing or wrong, a sentence each."""
    if wrong := list(of_another_type(values)):
        yield from wrong
        return
    yield from _project(values, root)
    yield from _urls(values)
    yield from _classifiers(values)
    yield from _requirements(values, root)
    yield from _comfy(values, root)
    for path in placeholders(values):
        if value_of(values, path) is None:
            yield f"tool.release.placeholders names {path}, which is not there."


def of_another_type(values: Json) -> Iterator[str]:
    """What cannot be looked at any further."""
    for path in ("project", "tool", "tool.comfy", "tool.release"):
        if not isinstance(value_of(values, path), (dict, type(None))):
            yield f"{path} is no table."
    for path, kind in _TYPES.items():
        found = value_of(values, path)
        parts = found if isinstance(found, list) else found.values() if isinstance(found, dict) else []
        if found is not None and (not isinstance(found, kind) or not all(isinstance(part, str) for part in parts)):
            yield f"{path} is {found!r}, which is of another type."
    models = value_of(values, "tool.comfy.Models") or []
    for model in models if isinstance(models, list) else [models]:
        if not isinstance(model, dict) or not all(isinstance(part, str) for part in model.values()):
            yield f"tool.comfy.Models: {model!r} is not a location and a model_url."


def _project(values: Json, root: Path) -> Iterator[str]:
    project = values.get("project", {})
    name, version = project.get("name", ""), project.get("version", "")
    if not _NAME.fullmatch(name) or len(name) >= 100 or "comfyui" in name:
        yield f"project.name is {name!r}; the registry wants less than 100 of a-z, 0-9 and single -_., without comfyui."
    if not VERSION.fullmatch(version):
        yield f"project.version is {version!r}, and not three numbers such as 1.2.3."
    if project.get("dynamic"):
        yield "project.dynamic: the registry reads only what is written in pyproject.toml."
    for key in ("description", "requires-python", "readme"):
        if not project.get(key, "").strip():
            yield f"project.{key} is missing."
    if (readme := project.get("readme")) and readme != "README.md":
        yield f"project.readme is {readme!r}, and not README.md."
    if (python := project.get("requires-python")) and not _PYTHON.fullmatch(python):
        yield f"project.requires-python is {python!r}, and not such as >=3.10."
    licence = project.get("license")
    if (
        not isinstance(licence, dict)
        or len(licence) != 1
        or not all(isinstance(v, str) and v for v in licence.values())
    ):
        yield 'project.license is to be { text = "…" } or { file = "…" }.'
    elif licence.get("file") and not (root / licence["file"]).is_file():
        yield f"project.license names {licence['file']}, which is not there."


def _urls(values: Json) -> Iterator[str]:
    urls = value_of(values, "project.urls") or {}
    repository = urls.get("Repository", "")
    if not _REPOSITORY.fullmatch(repository):
        yield f"project.urls.Repository is {repository!r}, and not https://github.com/OWNER/NAME."
    for key in ("Documentation", "Bug Tracker"):
        if not urls.get(key, "").startswith(f"{repository}/") and not urls.get(key, "").startswith(f"{repository}#"):
            yield f"project.urls.{key} is {urls.get(key)!r}, and not a page of the repository."


def _classifiers(values: Json) -> Iterator[str]:
    classifiers = value_of(values, "project.classifiers") or []
    for entry in classifiers:
        if entry.startswith(("Operating System", "Environment")) and not _CLASSIFIER.fullmatch(entry):
            yield f"project.classifiers: the registry does not know {entry!r}."
    for kind in ("Operating System", "Environment ::"):
        if not any(entry.startswith(kind) for entry in classifiers):
            yield f"project.classifiers has none that begins with {kind}."


def _requirements(values: Json, root: Path) -> Iterator[str]:
    path = root / "requirements.txt"
    if not path.is_file():
        yield "requirements.txt is missing; ComfyUI-Manager installs what it lists."
        return
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    listed = [line for line in lines if line and not line.startswith("#")]
    if strange := [line for line in listed if not _REQUIREMENT.fullmatch(line)]:
        yield f"requirements.txt: {strange[0]!r} is not a name with its versions."
    dependencies = value_of(values, "project.dependencies") or []
    if listed != [entry for entry in dependencies if not entry.startswith("torch")]:
        yield "requirements.txt is to list project.dependencies without torch."


def _comfy(values: Json, root: Path) -> Iterator[str]:
    comfy = value_of(values, "tool.comfy") or {}
    publisher = comfy.get("PublisherId", "")
    if len(publisher) > 100 or not _PUBLISHER.fullmatch(publisher) or _STANDS_IN.search(publisher):
        yield f"tool.comfy.PublisherId is {publisher!r}, and not the id of a publisher."
    if not comfy.get("DisplayName", "").strip() or not comfy["DisplayName"].isprintable():
        yield "tool.comfy.DisplayName is missing, or not one line."
    wanted = comfy.get("requires-comfyui", "")
    if not all(_COMFYUI.fullmatch(part.strip()) for part in wanted.split(",")):
        yield f"tool.comfy.requires-comfyui is {wanted!r}, and not such as >=1.2.3,<2.0.0."
    for key in ("Icon", "Banner"):
        yield from _picture(values, key, root)
    for model in comfy.get("Models", []):
        if set(model) != {"location", "model_url"} or not model["model_url"].startswith("https://"):
            yield f"tool.comfy.Models: {model!r} is not a location and a model_url."
    for folder in comfy.get("includes", []):
        if not (root / folder).is_dir():
            yield f"tool.comfy.includes names {folder}, which is not there."


def _picture(values: Json, key: str, root: Path) -> Iterator[str]:
    """It is an address, of a file of ours where the repository's default branch has it."""
    url = value_of(values, f"tool.comfy.{key}") or ""
    found = _REPOSITORY.fullmatch(value_of(values, "project.urls.Repository") or "")
    begin = f"https://raw.githubusercontent.com/{found['path']}/main/" if found else "https://"
    path = root / url.removeprefix(begin)
    if not url.startswith(begin) or not path.is_file():
        yield f"tool.comfy.{key} is {url!r}, and not {begin}… of a file that is there."
    elif path.suffix != ".png" or path.stat().st_size > _LARGEST_PICTURE:  # others may be, and would need a reader
        yield f"tool.comfy.{key}: {path.name} is not a PNG of less than {_LARGEST_PICTURE // 1000} kB."
    else:
        width, height = picture_size(path)
        if key == "Icon" and not (0 < width == height <= _ICON):
            yield f"tool.comfy.Icon is {width}x{height}, and not a square of at most {_ICON}."
        if key == "Banner" and not (0 < width * _BANNER[1] == height * _BANNER[0]):
            yield f"tool.comfy.Banner is {width}x{height}, and not 21:9."


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG; (0, 0) of what is none, which no check lets pass."""
    head = path.read_bytes()[:24]
    if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"):
        return 0, 0
    width, height = struct.unpack(">II", head[16:])
    return width, height

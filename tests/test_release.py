"""What would go to the registry is whole, and what is not whole is noticed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.release import check as checking
from tests.release import metadata, stamps
from tests.release.__main__ import main, say
from tests.release.archive import ROOT, NotInGit, build, shipped
from tests.release.check import Report, check

STAMP = {"cnr_id": "a-pack", "ver": "1.2.3"}


@pytest.fixture(scope="module")
def report() -> Report:
    try:
        return check(new=True)
    except NotInGit:
        pytest.skip("not a git checkout")


class TestThisPack:
    def test_nothing_is_missing(self, report: Report) -> None:
        """It is loaded from its archive alone, and makes frames; its graphs say which pack they are of."""
        assert report.missing == []
        assert any(note.startswith("loaded from the archive alone: ") for note in report.notes)

    def test_its_size(self, report: Report) -> None:
        """The weights are nearly all of it."""
        weights = sum(path.stat().st_size for path in ROOT.glob("tlbvfi/weights/*"))
        assert 0.5 * weights < report.size < weights + 1_500_000

    def test_what_only_the_owner_knows(self, report: Report) -> None:
        page = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
        section = page.partition("\n## Release\n")[2].partition("\n## ")[0]
        assert set(report.placeholders) <= {"tool.comfy.PublisherId", "project.urls.Repository"}
        assert all(f"`{path.rpartition('.')[2]}`" in section for path in report.placeholders)


def test_the_comfyui_of_the_tests_is_given_what_is_packed(tmp_path: Path, report: Report) -> None:
    from tests.comfyui.server import install_pack

    install_pack(ROOT, tmp_path / "pack")
    found = [Path(folder, name) for folder, _, names in os.walk(tmp_path / "pack", followlinks=True) for name in names]
    names = {path.relative_to(tmp_path / "pack").as_posix() for path in found if path.suffix != ".pyc"}
    assert names == set(report.names)


@pytest.mark.parametrize(
    ("report", "strict", "code", "said"),
    [
        (Report(10, ["a"]), False, 0, "Ready."),
        (Report(10, ["a"], placeholders={"x": "y"}), False, 0, "Nothing is missing but the placeholders."),
        (Report(10, ["a"], placeholders={"x": "y"}), True, 1, "x = 'y'"),
        (Report(2_000_000, ["a"], ["LICENSE is not there."]), False, 1, "  LICENSE is not there.\n\nNot ready."),
        (Report(2_000_000, ["a", "b"]), True, 0, "2 files, 2.0 MB"),
    ],
)
def test_what_is_said(report: Report, strict: bool, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(report, every=False, strict=strict) == code
    assert said in capsys.readouterr().out


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(NotInGit, match="not a git checkout"):
        check(tmp_path, use=False)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--check" in capsys.readouterr().out


# Checkouts in which something is wrong


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of this one as is looked at without loading it."""
    root = tmp_path / "checkout"
    names = [
        "__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", ".comfyignore",
        "configs/vimeo_unet.yaml", "tlbvfi/__init__.py", "docs/icon.png", "docs/banner.png",
    ]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy2(ROOT / name, root / name)
    git(root, "init", "-q")
    git(root, "add", "-A")
    return root


def swap(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert re.search(before, text, re.M), before
        (root / name).write_text(re.sub(before, lambda _: after, text, count=1, flags=re.M), encoding="utf-8")

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def new(name: str, content: str = "") -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(content, encoding="utf-8")
        git(root, "add", "-A")

    return change


def tagged_before(root: Path) -> None:
    git(root, "commit", "-qm", "one")
    git(root, "tag", f"v{metadata.read(root)['project']['version']}")
    git(root, "commit", "-q", "--allow-empty", "-m", "two")


TOML = "pyproject.toml"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("LICENSE"), "LICENSE is not in the archive"),
        (new("LICENSE"), "LICENSE is empty"),
        (without("README.md"), "README.md is in git, and not here"),
        (without("README.md"), "README.md is not in the archive"),
        (without("requirements.txt"), "requirements.txt is missing"),
        (without("configs/vimeo_unet.yaml"), "configs/vimeo_unet.yaml is not in the archive"),
        (without(TOML), "pyproject.toml cannot be read"),
        (new(TOML, "[project"), "pyproject.toml cannot be read"),
        (without("docs/icon.png"), "tool.comfy.Icon"),
        (new("docs/banner.png", "not a picture"), "tool.comfy.Banner is 0x0"),
        (lambda root: shutil.copy2(root / "docs/banner.png", root / "docs/icon.png"), "tool.comfy.Icon is 1260x540"),
        (new("notes.txt"), "notes.txt is in the archive, and belongs to the development"),
        (new("tlbvfi/trainingé.py"), "leaves out files whose names are not plain ASCII"),
        (new("tlbvfi/a.py", "import scipy"), "tlbvfi/a.py: scipy is imported, and not in requirements.txt"),
        (new("tlbvfi/a.py", "import subprocess"), "tlbvfi/a.py:1: subprocess (other programs)"),
        (new("tlbvfi/a.so"), "a file of another kind (.so)"),
        (swap(".comfyignore", "^/docs/$", ""), "docs is in the archive"),
        (without(".comfyignore"), "docs is in the archive"),
        (swap(".comfyignore", "^/docs/$", "README.md"), "README.md is not in the archive"),
        (swap(TOML, '^version = "[^"]*"', 'version = "1.0"'), "not three numbers"),
        (swap(TOML, '^version = "[^"]*"', 'version = "01.0.0"'), "not three numbers"),
        (swap(TOML, '^version = "[^"]*"', 'version = "1.0.0rc1"'), "not three numbers"),
        (swap(TOML, '^version = "[^"]*"', 'version = "v1.0.0"'), "not three numbers"),
        (swap(TOML, '^version = "[^"]*"', 'version = "99.0.0"'), "tlbvfi.__version__"),
        (tagged_before, "is the tag of another commit already"),
        (swap(TOML, '^name = "[^"]*"', 'name = "ComfyUI-thing"'), "project.name"),
        (swap(TOML, '^name = "[^"]*"', 'name = "1thing"'), "project.name"),
        (swap(TOML, '^name = "[^"]*"', 'name = "a--b"'), "project.name"),
        (swap(TOML, "^license = .*$", 'license = "Apache-2.0"'), "project.license"),
        (swap(TOML, "^license = .*$", 'license = { file = "COPYING" }'), "COPYING, which is not there"),
        (swap(TOML, "^description = .*$", ""), "project.description is missing"),
        (swap(TOML, "^requires-python = .*$", ""), "project.requires-python is missing"),
        (swap(TOML, "^dependencies = ", 'dynamic = ["keywords"]\ndependencies = '), "project.dynamic"),
        (swap(TOML, '"Operating System :: .*"', '"Operating System :: Haiku"'), "does not know 'Operating System :: H"),
        (swap(TOML, '"Operating System :: .*",', ""), "none that begins with Operating System"),
        (swap(TOML, '"Environment :: .*",', ""), "none that begins with Environment"),
        (swap(TOML, "^Repository = .*$", ""), "project.urls.Repository is ''"),
        (swap(TOML, "^Repository = .*$", 'Repository = "http://github.com/a/b"'), "project.urls.Repository"),
        (swap(TOML, "^Documentation = .*$", 'Documentation = "https://example.org"'), "project.urls.Documentation"),
        (swap(TOML, '^"Bug Tracker" = .*$', ""), "project.urls.Bug Tracker"),
        (swap(TOML, "^PublisherId = .*$", ""), "tool.comfy.PublisherId"),
        (swap(TOML, "^PublisherId = .*$", 'PublisherId = "your-id"'), "tool.comfy.PublisherId"),
        (swap(TOML, "^PublisherId = .*$", 'PublisherId = "@me"'), "tool.comfy.PublisherId"),
        (swap(TOML, "^DisplayName = .*$", 'DisplayName = " "'), "tool.comfy.DisplayName is missing"),
        (swap(TOML, "^PublisherId = .*$", "PublisherId = 5"), "tool.comfy.PublisherId is 5, which is of another type"),
        (swap(TOML, "^readme = .*$", 'readme = "docs/x.md"'), "project.readme"),
        (swap(TOML, "^requires-python = .*$", 'requires-python = "3"'), "such as >=3.10"),
        (lambda root: git(root, "rm", "-q", "--cached", "docs/icon.png"), "docs/icon.png is not in git"),
        (swap(TOML, "^requires-comfyui = .*$", 'requires-comfyui = "0.3"'), "tool.comfy.requires-comfyui"),
        (swap(TOML, "^requires-comfyui = .*$", 'requires-comfyui = ">=1,"'), "tool.comfy.requires-comfyui"),
        (swap(TOML, "^requires-comfyui = .*$", ""), "tool.comfy.requires-comfyui"),
        (swap(TOML, "^Icon = .*$", 'Icon = "docs/icon.png"'), "tool.comfy.Icon"),
        (swap(TOML, "^Icon = .*$", ""), "tool.comfy.Icon is ''"),
        (swap(TOML, "^includes = .*$", 'includes = ["dist"]'), "includes names dist"),
        (swap(TOML, "model_url = ", "url = "), "tool.comfy.Models"),
        (swap(TOML, "^placeholders = .*$", 'placeholders = ["tool.comfy.Nothing"]'), "Nothing, which is not"),
        (swap("requirements.txt", "^einops.*$", "git+https://x.org/a"), "is not a name with its versions"),
        (swap("requirements.txt", "^einops.*$", "einops"), "is not a name with its versions"),
        (swap("requirements.txt", "^tqdm.*$", ""), "without torch"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_noticed(checkout: Path, change: Callable[[Path], Any], said: str) -> None:
    change(checkout)
    assert said in "\n".join(check(checkout, use=False).missing)


def test_a_tag_of_this_commit_and_an_older_one_are_right(checkout: Path) -> None:
    git(checkout, "commit", "-qm", "one")
    git(checkout, "tag", "v0.0.1")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    git(checkout, "tag", "-a", "-m", "now", f"v{metadata.read(checkout)['project']['version']}")
    report = check(checkout, use=False)
    assert (report.missing, report.notes) == ([], [])


def test_only_what_is_in_git_is_packed(checkout: Path, tmp_path: Path) -> None:
    (checkout / "tlbvfi" / "secret.py").touch()
    names = build(tmp_path / "node.zip", checkout)
    assert check(checkout, use=False).missing == [
        "tlbvfi/secret.py is here, and not in git; it would not be in the archive."
    ]
    assert zipfile.ZipFile(tmp_path / "node.zip").namelist() == names == shipped(checkout)
    assert set(shipped(checkout, new=True)) - set(names) == {"tlbvfi/secret.py"}


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("raise ModuleNotFoundError('No module named x')", "does not work from the archive alone: ModuleNotFoundError"),
        ("print('{')", "does not work from the archive alone"),
        ("", "does not work from the archive alone"),
        ("print('{\"keys\": [], \"pages\": [], \"frames\": {}}')", "has no nodes"),
        ("print('{\"keys\": [\"A\"], \"pages\": [], \"frames\": {}}')", "web/docs/A.md is not in the archive"),
        ("print('{\"keys\": [\"A\"], \"pages\": [\"A\"], \"frames\": {\"m\": [1]}}')", "m gave no frames"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)  # fmt: skip
def test_a_pack_that_does_not_work_alone(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str, said: str
) -> None:
    script = tmp_path / "probe_of_the_test.py"
    script.write_text(probe, encoding="utf-8")
    monkeypatch.setattr(checking, "_PROBE", script)
    monkeypatch.setattr(checking, "_SECONDS", 0.3 if "sleep" in probe else 60)
    assert said in "\n".join(check(checkout).missing)


# What example graphs say of the pack


def graph(folder: Path, *nodes: dict[str, Any], inside: list[dict[str, Any]] | None = None) -> Path:
    path = folder / "workflows" / "a.json"
    path.parent.mkdir(exist_ok=True)
    saved = {"nodes": list(nodes), "definitions": {"subgraphs": [{"nodes": inside or []}]}}
    path.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    return path


OURS = {"type": "Ours", "properties": {"Node name for S&R": "Ours", **STAMP}}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (OURS, ""),
        ({"type": "Other", "properties": {"cnr_id": "comfy-core", "ver": "0.3.75"}}, ""),
        ({"type": "Note", "properties": {}}, ""),
        ({"type": "Note"}, ""),
        ({"type": "Ours", "properties": {}}, "Ours is not said to be of a-pack 1.2.3"),
        ({"type": "Ours"}, "Ours is not said to be of a-pack 1.2.3"),
        ({"type": "Ours", "properties": {**STAMP, "ver": "1.2.2"}}, "Ours is not said to be of a-pack 1.2.3"),
        ({"type": "Ours", "properties": {**STAMP, "cnr_id": "comfy-core"}}, "Ours is not said to be of a-pack 1.2.3"),
        ({"type": "Other", "properties": STAMP}, "Other is said to be a node of this pack"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_graphs_say_which_pack_they_are_of(tmp_path: Path, node: dict[str, Any], said: str, nested: bool) -> None:
    path = graph(tmp_path, inside=[node]) if nested else graph(tmp_path, node)
    found = stamps.unstamped(path, {"Ours"}, STAMP)
    assert bool(found) == bool(said)
    assert said in "\n".join(found)


def test_stamping_changes_only_what_is_ours_and_once(tmp_path: Path) -> None:
    other = {"type": "Other", "properties": {"cnr_id": "x", "ver": "1"}}
    path = graph(
        tmp_path, {"type": "Ours", "properties": {"Node name for S&R": "Ours"}}, other, inside=[{"type": "Ours"}]
    )
    assert stamps.stamp_all({"Ours"}, STAMP, tmp_path) == ["a.json"]
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["nodes"] == [OURS, other]
    assert not stamps.unstamped(path, {"Ours"}, STAMP)
    before = path.read_bytes()
    assert stamps.stamp_all({"Ours"}, STAMP, tmp_path) == []
    assert path.read_bytes() == before


def test_the_pictures_of_the_registry_are_as_drawn() -> None:
    """Their sizes are checked above; here that the code that is there is the one that drew them."""
    import numpy as np
    from PIL import Image

    from tests.release.pictures import draw

    for name, picture in {"icon": draw(400, 400, 176), "banner": draw(1260, 540, 320)}.items():
        with Image.open(ROOT / "docs" / f"{name}.png") as saved:
            difference = np.asarray(saved.convert("RGB"), float) - np.asarray(picture.convert("RGB"), float)
        assert abs(difference).mean() < 1

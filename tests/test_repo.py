"""The repository itself: facts that stand in two places agree, and only what should be is shipped."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tlbvfi
from tests.release import archive, check, metadata
from tlbvfi.known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Those whose links are followed.
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".js", ".cfg", ""}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    values: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return values


def headings(page: Path) -> set[str]:
    """The names by which the headings of a page are linked to."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in lines
        if line.startswith("#")
    }


def files(listing: Callable[..., list[str]] = archive.tracked) -> list[Path]:
    """What git would have in a commit: every file that is not ignored."""
    try:
        return [ROOT / name for name in listing(new=True)]
    except archive.NotInGit:
        pytest.skip("not a git checkout")


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_tasks", ROOT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestProject:
    def test_version(self, project: dict[str, Any]) -> None:
        assert project["project"]["version"] == tlbvfi.__version__
        assert re.fullmatch(r"\d+\.\d+\.\d+", tlbvfi.__version__)

    def test_what_the_registry_asks_for(self, project: dict[str, Any]) -> None:
        assert not list(metadata.problems(project))

    def test_the_model_that_it_names_is_the_published_one(self, project: dict[str, Any]) -> None:
        (model,) = project["tool"]["comfy"]["Models"]
        assert model["location"] == f"/interpolation/{PUBLISHED_FILE}"
        assert model["model_url"] == f"https://huggingface.co/{PUBLISHED_REPOSITORY}/resolve/main/{PUBLISHED_FILE}"

    def test_pages_name_the_repository_as_it_does(self, project: dict[str, Any]) -> None:
        repository = project["project"]["urls"]["Repository"]
        for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("web/docs/*.md")]:
            for link in re.findall(
                r"https://github\.com/[\w-]+/ComfyUI-TLBVFI[\w-]*", page.read_text(encoding="utf-8")
            ):
                assert link == repository, page

    def test_no_torch_is_asked_for_in_a_version_that_comfyui_may_not_have(self, project: dict[str, Any]) -> None:
        dependencies = project["project"]["dependencies"]
        assert [entry for entry in dependencies if entry.startswith("torch")] == ["torch>=2.4"]

    def test_what_tests_run_with_is_pinned(self, project: dict[str, Any]) -> None:
        extras = project["project"]["optional-dependencies"]
        for entry in [*extras["demo"], *extras["dev"]]:
            assert entry == "tlbvfi-tf32[demo]" or re.match(r"[a-z-]+==[\d.]+(;|$)", entry), entry
        pins = [entry for extra in extras.values() for entry in extra if entry.startswith("torch==")]
        assert len(pins) == 1

    def test_the_test_comfyui_runs_the_same_versions(self, project: dict[str, Any]) -> None:
        text = (ROOT / "tests" / "comfyui" / "requirements.txt").read_text(encoding="utf-8")
        theirs = dict(line.split("==") for line in text.splitlines() if "==" in line)
        extras = project["project"]["optional-dependencies"]
        ours = dict(entry.partition(";")[0].split("==") for entry in extras["demo"] if "< '3.11'" not in entry)
        shared = ours.keys() & theirs.keys()
        assert {"numpy", "einops", "safetensors", "omegaconf", "av"} <= shared
        assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
        installer = (ROOT / "tests" / "comfyui" / "install.py").read_text(encoding="utf-8")
        assert f"torch=={ours['torch']}" in installer

    def test_one_oldest_python(self, project: dict[str, Any], tasks: ModuleType) -> None:
        oldest = "{}.{}".format(*tasks.OLDEST_PYTHON)
        assert project["project"]["requires-python"] == f">={oldest}"
        assert project["tool"]["mypy"]["python_version"] == oldest
        assert project["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


class TestReadme:
    def test_two_commands_of_which_ci_runs_the_second(self, tasks: ModuleType) -> None:
        shell = [block for language, block in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL) if language == ""]
        assert shell == ["python tasks.py demo\n", "python tasks.py test\n"]
        ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        assert shell[1] in ci
        assert "TLBVFI_REQUIRE_COMFYUI=1" in ci
        assert all(hasattr(tasks, command.split()[-1]) for command in shell)

    @pytest.mark.parametrize("page", PAGES)
    def test_links_lead_somewhere(self, page: str) -> None:
        for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                name, _, heading = target.partition("#")
                file = (ROOT / page).parent.joinpath(name) if name else ROOT / page
                assert file.exists(), target
                assert not heading or heading in headings(file), target

    @pytest.mark.parametrize("page", PAGES)
    def test_files_that_are_named_exist(self, page: str) -> None:
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:nodes|utils|tlbvfi|configs|workflows|web|tests|docs|subgraphs)/[\w./]*)`", text):
            assert ROOT.joinpath(name).exists(), name

    def test_commands_that_are_named_exist(self) -> None:
        from tlbvfi.commands.main import parser

        root = parser()
        (commands,) = [action.choices for action in root._actions if isinstance(action.choices, dict)]
        for name in re.findall(r"python -m tlbvfi (\w+)", README):
            assert name in commands

    def test_licence_of_the_weights_is_spoken_of(self) -> None:
        assert "do not state a licence" in README.replace("**", "")
        assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


class TestFiles:
    def test_the_root_holds_only_what_belongs_there(self) -> None:
        allowed = {
            "__init__.py", "nodes", "tlbvfi", "configs", "utils", "tests", "workflows", "subgraphs", "web", "locales",
            "docs",
            "pyproject.toml", "README.md", "requirements.txt", "LICENSE", "tasks.py",
        }  # fmt: skip
        roots = {path.relative_to(ROOT).parts[0] for path in files()}
        assert {name for name in roots if not name.startswith(".")} <= allowed

    def test_nothing_names_a_machine(self) -> None:
        """Neither somebody's folders nor a package index of their own."""
        personal = re.compile(r"(?<![\w.])/(?:home|Users|root|work|opt)/\w|[A-Z]:\\\\?Users|https?://[\w.-]*pypi")
        for path in files():
            if path.suffix in TEXT_SUFFIXES and path != Path(__file__).resolve():
                found = personal.search(path.read_text(encoding="utf-8", errors="replace"))
                assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"

    def test_no_large_files(self) -> None:
        for path in files():
            assert path.stat().st_size < 12_000_000, path
        assert (ROOT / "docs" / "demo.mp4").stat().st_size < 1_000_000

    def test_tlbvfi_knows_neither_comfyui_nor_the_nodes(self) -> None:
        foreign = re.compile(
            r"^\s*(?:from|import)\s+(?:comfy\w*|folder_paths|nodes|utils|tlbvfi|\.\.(?:nodes|utils))\b", re.M
        )
        for path in (ROOT / "tlbvfi").rglob("*.py"):
            if "training" not in path.parts:
                assert foreign.search(path.read_text(encoding="utf-8")) is None, path


def test_the_registry_s_archive() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in files(archive.shipped)]
    assert not list(check.contents(names, 0))
    assert {f"tlbvfi/weights/{name}" for name in tlbvfi.BUILT_IN.values()} <= set(names)
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("web/**/*") if path.is_file()} <= set(names)
    assert not [name for name in names if name.startswith(("docs/", "tests/"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        ROOT,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    return path


class TestWheel:
    def test_only_tlbvfi_is_in_it(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert wheel.name == f"tlbvfi_tf32-{tlbvfi.__version__}-py3-none-any.whl"
        assert {name.split("/")[0] for name in names} == {"tlbvfi", f"tlbvfi_tf32-{tlbvfi.__version__}.dist-info"}
        assert {"tlbvfi/configs/vimeo_unet.yaml", "tlbvfi/configs/presets/fast.yaml"} <= set(names)
        assert "tlbvfi/modules/unet.py" in names
        assert not [name for name in names if "training" in name or "__pycache__" in name]
        assert {f"tlbvfi/weights/{name}" for name in tlbvfi.BUILT_IN.values()} <= set(names)

    def test_it_works_without_the_checkout(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        code = "import tlbvfi, tlbvfi.config as c; print(tlbvfi.__file__); print(c.load_params('vimeo_unet'))"
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        place, params = result.stdout.splitlines()
        assert Path(place).is_relative_to(tmp_path)
        assert params == str(tlbvfi.config.ModelParams())

    def test_an_installed_torch_is_not_touched(self, wheel: Path) -> None:
        """pip would install this one package and nothing else into an environment that has what is needed."""
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet", "--report", "-"]
        result = subprocess.run(
            [*command, "--force-reinstall", "--no-deps", wheel], capture_output=True, text=True, check=True
        )
        required = json.loads(result.stdout)["install"][0]["metadata"]["requires_dist"]
        assert "torch>=2.4" in required
        result = subprocess.run([*command, "-r", ROOT / "requirements.txt"], capture_output=True, text=True, check=True)
        assert json.loads(result.stdout)["install"] == []
        torch_alone = subprocess.run([*command, "--no-deps", "torch>=2.4"], capture_output=True, text=True, check=True)
        assert json.loads(torch_alone.stdout)["install"] == []


class TestTasks:
    @pytest.mark.parametrize(
        ("arguments", "wanted"),
        [
            ([], True),
            (["-x"], True),
            (["-k", "padding"], True),
            (["tests"], True),
            (["tests/comfyui"], True),
            (["tests/comfyui/test_end_to_end.py::test_nodes"], True),
            (["tests/test_padding.py"], False),
            (["tests/test_padding.py::test_flow_sizes", "-k", "flow"], False),
            (["tests/test_padding.py", "tests/comfyui"], True),
            (["--ignore=tests/comfyui", "-x"], False),
        ],
    )
    def test_comfyui_is_set_up_where_it_is_needed(self, tasks: ModuleType, arguments: list[str], wanted: bool) -> None:
        assert tasks.wants_comfyui(arguments) is wanted

    @pytest.mark.parametrize(("words", "code"), [([], 0), (["--help"], 0), (["unknown"], 2)])
    def test_without_a_task_it_explains_itself(
        self,
        tasks: ModuleType,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        code: int,
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["tasks.py", *words])
        assert tasks.main() == code
        assert "python tasks.py demo" in capsys.readouterr().out

    def test_a_failed_check_fails_the_task_though_the_tests_pass(
        self, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[str] = []

        def call(*command: object, **environment: str) -> int:
            called.append(" ".join(str(word) for word in command[2:4]))
            return int("format" in called[-1])

        monkeypatch.setattr(tasks, "call", call)
        for step in ("set_up", "set_up_comfyui", "link_for_mypy"):
            monkeypatch.setattr(tasks, step, lambda *_: None)
        assert tasks.test([]) == 1
        assert called == ["ruff check", "ruff format", "mypy", "pytest -n"]
        assert tasks.test(["tests/test_padding.py"]) == 0
        assert called[4:] == ["pytest tests/test_padding.py"]

    def test_a_release_is_checked_by_the_environment_of_the_tests(
        self, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[object] = []
        monkeypatch.setattr(tasks, "set_up", called.append)
        monkeypatch.setattr(tasks, "call", lambda *command: called.append(command[1:]) or 1)
        monkeypatch.setattr(sys, "argv", ["tasks.py", "release", "--check"])
        assert tasks.main() == 1
        assert called == ["dev", ("-m", "tests.release", "--check")]

    def test_a_second_run_installs_nothing(
        self, tasks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[str] = []

        def call(*command: object) -> int:
            called.append(str(command[2]))
            if "venv" in called[-1]:
                python.parent.mkdir(parents=True)
                python.touch()
            return 0

        python = tmp_path / ".venv" / "bin" / "python"
        monkeypatch.setattr(tasks, "call", call)
        monkeypatch.setattr(tasks, "PYTHON", python)
        monkeypatch.setattr(tasks, "VENV", tmp_path / ".venv")
        monkeypatch.setattr(tasks, "STAMP", tmp_path / ".venv" / "stamp.txt")
        tasks.set_up("demo")
        assert called == ["venv", "pip"]
        tasks.set_up("demo")
        assert called == ["venv", "pip"]
        tasks.set_up("dev")
        assert called == ["venv", "pip", "pip"]
        tasks.set_up("demo")
        tasks.set_up("dev")
        assert called == ["venv", "pip", "pip"]

"""What needs no model answers without PyTorch, whose import takes seconds; packages whose names come late are whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest

from tests.tiny import frames
from tlbvfi import video
from tlbvfi.late_imports import late_imports

REPOSITORY = Path(__file__).resolve().parent.parent
#: Runs a command line; the last line on stderr is its exit code and what was imported of these.
PROGRAM = """
import sys
from tlbvfi.commands.main import main
code = main(sys.argv[1:])
print(int(code), *({"torch", "numpy", "tqdm"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, a file, a folder of pictures."""
    folder = tmp_path_factory.mktemp("start")
    video.write_video(folder / "in.mp4", frames(2, 16, 16), Fraction(25))
    (folder / "there.mkv").write_bytes(b"")
    (folder / "file").write_bytes(b"")
    video.write_pictures(folder / "pictures", frames(2, 4, 4))
    return folder


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--version", 0, "tlbvfi"),
        ("--help", 0, "COMMAND"),
        ("interpolate --help", 0, "--scene-cut"),
        ("plan --help", 0, "--vram"),
        ("convert --help", 0, "SOURCE"),
        ("demo --help", 0, "--output"),
        ("bench --help", 0, "--clip"),
        ("download --help", 0, "DIR"),
        ("migrate --help", 0, "OLD"),
        ("", 2, "COMMAND"),
        ("interpolate", 2, "IN, OUT"),
        ("interpolate in.mp4 out.mp4 --times 11", 2, "between 0 and 10"),
        ("interpolate in.mp4 out.mp4 --flow-scale 2", 2, "between 0.1 and 1.0"),
        ("interpolate in.mp4 out.mp4 --steps 2", 2, "between 3 and 1000"),
        ("interpolate in.mp4 out.mp4 --fps 1/0", 2, "frames per second"),
        ("interpolate in.mp4 out.mp4 --fps 50 --multiplier 3", 2, "one of the three"),
        ("interpolate nowhere.mp4 out.mp4", 2, "does not exist"),
        ("interpolate in.mp4 there.mkv", 2, "--force"),
        ("interpolate in.mp4 out.webm --codec h264", 2, "does not take h264"),
        ("interpolate in.mp4 out.avi", 2, "no kind of video"),
        ("interpolate in.mp4 nowhere/out.mp4", 2, "does not exist"),
        ("interpolate in.mp4 file/out.mp4", 2, "does not exist"),
        ("interpolate in.mp4 out.mp4 --crf 60", 2, "crf 60 is not possible"),
        ("interpolate in.mp4 out.mp4 --start 3 --end 2", 2, "later end"),
        ("interpolate in.mp4 out.mp4 --model nowhere.pth", 2, "does not exist"),
        ("interpolate pictures out.mp4", 2, "--input-fps"),
        ("plan 1920", 2, "WIDTHxHEIGHT"),
        ("plan 64x64 --dtype int8", 2, "one of float32"),
        ("convert nowhere.pth a.safetensors", 2, "does not exist"),
        ("migrate nowhere.json new.json", 2, "does not exist"),
        ("demo --output file", 2, "is a file already"),
        ("bench --json nowhere/a.json", 2, "does not exist"),
        ("bench --dtype int8", 2, "one of float32"),
    ],
)
def test_no_pytorch_for_what_needs_no_model(folder: Path, line: str, code: int, said: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *line.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    *words, ended = ran.stderr.splitlines()
    assert said in (ran.stdout if code == 0 else "\n".join(words))
    assert ended == str(code)
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("package", ["tlbvfi", "tlbvfi.video"])
def test_a_type_checker_sees_what_there_is(package: str) -> None:
    """The imports for type checkers, those that are made late, and the list of what is public are of the same names."""
    module = import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = {}
    for block in tree.body:
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name):
            for node in block.body:
                assert isinstance(node, ast.ImportFrom) and node.level == 1
                imported |= {alias.name: node.module for alias in node.names}
    early = set(vars(module)) & set(module.__all__)
    assert set(module.__all__) <= early | set(imported)
    assert set(imported) <= set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name, place in imported.items():
        assert getattr(module, name) is getattr(import_module(f"{package}.{place}"), name)


def test_names_that_are_not_there_are_errors_of_the_usual_kind() -> None:
    get, _ = late_imports("tlbvfi", {"padding": ("padding_for",)})
    assert get("engine").interpolate_video is get("engine").interpolate_video
    assert callable(get("padding_for"))
    with pytest.raises(AttributeError, match="module 'tlbvfi' has no attribute 'no_such_name'"):
        get("no_such_name")


def test_the_package_itself_imports_no_pytorch() -> None:
    code = (
        "import sys, tlbvfi, tlbvfi.video; assert 'torch' not in sys.modules; "
        "from tlbvfi import load_model; assert 'torch' in sys.modules; print(tlbvfi.engine.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == "tlbvfi.engine\n"

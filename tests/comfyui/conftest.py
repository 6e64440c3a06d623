"""One real ComfyUI server for all end-to-end tests of a session.

Where there is no installation (see install.py) the tests that need one are skipped with the reason, except
with TLBVFI_REQUIRE_COMFYUI set, as it is in CI: there they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.comfyui.install import Installation, InstallError, find

if TYPE_CHECKING:
    from tests.comfyui.server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-TLBVFI-TF32"  # the folder that users have in custom_nodes
CLIP = "carphone_pristine.mp4"  # 176 x 144, so that a frame takes a second or two on a CPU


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where the end-to-end tests have to run."""
    if os.environ.get("TLBVFI_REQUIRE_COMFYUI"):
        pytest.fail(f"TLBVFI_REQUIRE_COMFYUI is set, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def servers() -> ModuleType:
    """The module server.py; not imported at the top, so that without its package the rest can be tested."""
    if find_spec("websocket") is None:
        unavailable("the package websocket-client is not installed")
    from tests.comfyui import server

    return server


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The private ComfyUI that install.py made."""
    try:
        return find()
    except InstallError as error:
        reason = str(error)
    unavailable(reason)


@pytest.fixture(scope="session")
def clip(installation: Installation) -> Path:
    """A real clip of a talking person in a moving car."""
    return installation.clips / CLIP


@pytest.fixture(scope="session")
def model_files(official_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What lies in `models/`: the stand-in, twice, two broken files and one that is no model."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "corrupt.pth").write_bytes(bytes(range(256)) * 64)
    with official_checkpoint.open("rb") as whole:
        (folder / "truncated.pth").write_bytes(whole.read(2**20))
    (folder / "readme.txt").write_text("not a model", encoding="utf-8")
    return {
        "interpolation/vimeo_unet.pth": official_checkpoint,
        "interpolation/older/vimeo_unet.pth": official_checkpoint,
        "interpolation/corrupt.pth": folder / "corrupt.pth",
        "interpolation/truncated.pth": folder / "truncated.pth",
        "interpolation/readme.txt": folder / "readme.txt",
    }


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extra_model_paths.yaml that names a second folder for `interpolation`."""
    folder = tmp_path_factory.mktemp("shared_models")
    (folder / "vfi").mkdir()
    (folder / "vfi" / "from_elsewhere.pth").write_bytes(b"only its name matters")
    config = folder / "extra_model_paths.yaml"
    text = f"shared:\n  base_path: '{folder.as_posix()}'\n  interpolation: vfi\n"
    config.write_text(text, encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def comfy(
    servers: ModuleType,
    installation: Installation,
    clip: Path,
    model_files: dict[str, Path],
    elsewhere: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ComfyServer]:
    """A running ComfyUI with this pack, the stand-in checkpoint and the clip in its input folder."""
    workspace = tmp_path_factory.mktemp("comfyui")
    (workspace / "input").mkdir()
    shutil.copy2(clip, workspace / "input")
    server = servers.ComfyServer(
        installation,
        workspace,
        packs={PACK: REPOSITORY},
        models=model_files,
        arguments=["--extra-model-paths-config", str(elsewhere)],
    )
    with server:
        yield server

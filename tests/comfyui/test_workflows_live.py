"""The shipped graphs against the nodes of a real ComfyUI, and the VideoHelperSuite one as far as that is there.

TLBVFI_VHS names a checkout of ComfyUI-VideoHelperSuite whose requirements are installed in the private
ComfyUI's environment; without it the tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import av
import pytest

from tests.comfyui import graphs
from tests.comfyui.install import Installation

if TYPE_CHECKING:
    from tests.comfyui.server import ComfyServer

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "ComfyUI-TLBVFI-TF32"
WORKFLOWS = sorted(REPOSITORY.joinpath("workflows").glob("*.json"))


@pytest.fixture(scope="module")
def with_vhs(
    servers: ModuleType,
    installation: Installation,
    clip: Path,
    official_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ComfyServer]:
    """A server that has VideoHelperSuite besides this pack."""
    source = os.environ.get("TLBVFI_VHS")
    if not source:
        pytest.skip("TLBVFI_VHS names no checkout of ComfyUI-VideoHelperSuite")
    workspace = tmp_path_factory.mktemp("comfyui_vhs")
    (workspace / "input").mkdir()
    shutil.copy2(clip, workspace / "input")
    packs = {PACK: REPOSITORY, "ComfyUI-VideoHelperSuite": Path(source)}
    models = {"interpolation/vimeo_unet.pth": official_checkpoint}
    with servers.ComfyServer(installation, workspace, packs=packs, models=models) as server:
        assert server.object_info("VHS_LoadVideo"), server.tail()
        yield server


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_fits_the_nodes(comfy: ComfyServer, path: Path) -> None:
    """Every node that this ComfyUI knows has the slots, the widgets and values that its type can have."""
    saved = graphs.read(path)
    info = comfy.object_info()
    known = [node for node in saved["nodes"] if node["type"] in info]
    assert {"FramePairSlicer", "TLBVFI_Interpolator_V2"} <= {node["type"] for node in known}
    for node in known:
        graphs.check_node(node, info[node["type"]])
    unknown = {node["type"] for node in saved["nodes"]} - set(info) - set(graphs.NOTES)
    assert all(name.startswith("VHS_") for name in unknown)


def test_videohelpersuite_graph_runs(with_vhs: ComfyServer, clip: Path) -> None:
    """From VideoHelperSuite's loader through both nodes to a video of its own."""
    saved = graphs.read(REPOSITORY / "workflows" / "tlbvfi_videohelpersuite.json")
    prompt = graphs.to_prompt(saved, with_vhs.object_info())
    by_type = {node["class_type"]: (number, node["inputs"]) for number, node in prompt.items()}
    by_type["VHS_LoadVideo"][1]["video"] = clip.name
    by_type["TLBVFI_Interpolator_V2"][1]["times_to_interpolate"] = 1
    run = with_vhs.run(prompt)
    assert run.status == "success", run.error.get("exception_message")
    number, given = by_type["VHS_VideoCombine"]
    (path,) = with_vhs.output_files(run, number)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == given["frame_rate"]
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(176, 144)] * 3

"""The parts of the check on a graphics card (:mod:`.check`), each as a test."""

from __future__ import annotations

import time

import pytest
import torch

from tests.cuda.check import PARTS, run_apart, run_part
from tests.cuda.report import Report
from tests.cuda.setting import Setting, machine

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no graphics card here: python tasks.py cuda is for where one is"
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, Report]:
    device, folder = torch.device("cuda", torch.cuda.current_device()), tmp_path_factory.mktemp("cuda")
    return Setting(device, folder), Report(folder, machine(device))


@pytest.mark.parametrize("name", [name for name in PARTS if name != "7"])
def test_part(checked: tuple[Setting, Report], name: str) -> None:
    """But for 7, the tests of kernels, which run beside this one."""
    setting, report = checked
    if PARTS[name].timed:
        sheet = run_part(name, setting, report)
    else:
        [_] = run_apart([name], setting, report, 1, time.monotonic() + PARTS[name].seconds)
        sheet = report.sheets[name]
    assert not sheet.failures, "\n".join(sheet.failures)

"""The check on a graphics card, rehearsed on the CPU: its parts run to their end, and what they find is kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cuda import budgets, check, endurance, equality, others, speed, stages
from tests.cuda.check import PARTS, Part, main, run_apart, run_part
from tests.cuda.report import Report, Sheet, markdown_table
from tests.cuda.setting import WAYS, Setting


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A rehearsal that goes one way."""
    monkeypatch.setattr(Setting, "ways", lambda self: [WAYS[0]])
    return Setting(torch.device("cpu"), tmp_path, rehearse=True)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path, {"card": "none"})


def written(report: Report) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(report.json.read_text(encoding="utf-8"))
    return content


def test_parts_run_to_their_end(setting: Setting, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_CASES", speed._CASES[1:2])
    monkeypatch.setattr(stages, "_SIZES", stages._SIZES[:1])
    monkeypatch.setattr(endurance, "_EVERY", 5)
    monkeypatch.setattr(budgets, "BUDGETS", (4.0,))
    monkeypatch.setitem(PARTS, "6", Part("Endurance", endurance.run, 60))
    for name in ("1", "3", "4", "5", "6"):
        sheet = run_part(name, setting, report)
        assert not sheet.failures, (name, sheet.failures, sheet.details.get("traceback"))
    tables = {title for part in written(report)["parts"].values() for title in part["tables"]}
    assert {"Recorded cases, float32 without TF32, dB", "Held to a budget, GiB"} <= tables
    profiled = written(report)["parts"]["4"]["details"]["kernels of a step at 512x512"]
    assert 0 < len(profiled["most time"]) <= 25 and profiled["launches"] > 100
    text = report.markdown.read_text(encoding="utf-8")
    assert "| encode_frame |" in text and "| 512x512, float16, flow scale 0.5 |" in text


def test_a_case_that_differs_is_a_failure(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    record = equality._Case.record

    def changed(case: equality._Case, *arguments: Any) -> None:
        record(case, *arguments)
        case.expected["output"] += 1e-4
        case.expected["code_indices"][0, 0, 0] += 1

    monkeypatch.setattr(equality._Case, "record", changed)
    sheet = Sheet("")
    equality.run(setting, sheet)
    frame, codes = sheet.failures
    assert "{'output': " in frame and frame.endswith("dB, 120 wanted")
    assert codes.endswith("% of the codes differ")


class TestRunner:
    def test_a_part_that_fails_leaves_what_it_found(
        self, setting: Setting, report: Report, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(setting: Setting, sheet: Sheet) -> None:
            sheet.row("Rows", found=1)
            raise RuntimeError("the card is gone")

        monkeypatch.setitem(PARTS, "1", Part("First", failing, 10))
        run_part("1", setting, report)
        content = written(report)
        assert content["failures"] == ["1: RuntimeError: the card is gone"]
        assert content["parts"]["1"]["tables"] == {"Rows": [{"found": 1}]}
        assert "- FAILED: RuntimeError: the card is gone" in report.markdown.read_text(encoding="utf-8")

    def test_a_part_ends_when_its_time_is_up(
        self, setting: Setting, report: Report, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def endless(setting: Setting, sheet: Sheet) -> None:
            while True:
                setting.go_on()
                time.sleep(0.01)

        monkeypatch.setitem(PARTS, "1", Part("First", endless, 10))
        assert run_part("1", setting, report, most=0.1).failures == ["was not done after 0 s"]

    def test_an_alarm_ends_what_does_not_look(
        self, setting: Setting, report: Report, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not hasattr(check.signal, "setitimer"):
            pytest.skip("this system has no alarms")

        slept: list[bool] = []

        def asleep(setting: Setting, sheet: Sheet) -> None:
            try:
                time.sleep(30)
                slept.append(True)
            except Exception as error:  # such as a layer that tries again
                raise AssertionError from error

        monkeypatch.setitem(PARTS, "1", Part("First", asleep, 10))
        assert run_part("1", setting, report, most=0.1).failures == ["was not done after 0 s"]
        assert not slept

    def test_all_parts_are_tried_and_failures_are_the_exit_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tried = []

        def part(name: str) -> Part:
            def run(setting: Setting, sheet: Sheet) -> None:
                tried.append(name)
                sheet.check(name != "1", "no")

            return Part(name, run, 10, timed=name != "2")

        monkeypatch.setattr(check, "PARTS", {name: part(name) for name in ("1", "3", "2")})
        assert main(["--rehearse", "--here", "--out", str(tmp_path)]) == 1
        assert main(["--rehearse", "--here", "--out", str(tmp_path), "--parts", "2,3"]) == 0
        assert tried == ["1", "3", "2", "3", "2"]
        assert "report.md" in capsys.readouterr().out

    def test_untimed_parts_have_processes_of_their_own(
        self, tmp_path: Path, setting: Setting, report: Report, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(PARTS, "9", Part("Unknown to the process", others.run, 10))
        names = list(run_apart(["8", "9"], setting, report, 2, time.monotonic() + 60))
        assert names == ["8", "9"] == list(written(report)["parts"])
        assert report.sheets["8"].notes and not report.sheets["8"].failures
        assert report.failures == ["9: its process ended with 2, see part-9.txt"]
        assert "there is no part 9" in (tmp_path / "part-9.txt").read_text(encoding="utf-8")

    def test_without_a_card(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert main([]) == 2
        assert "no graphics card" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            main(["--parts", "1,9"])


def test_rows_of_different_columns() -> None:
    table = markdown_table([{"a": 1.23456, "b": True}, {"a": 1234.5, "c": "x|y"}])
    assert table.splitlines() == ["| a | b | c |", "|---|---|---|", "| 1.23 | yes |  |", "| 1234 |  | x/y |"]

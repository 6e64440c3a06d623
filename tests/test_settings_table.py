"""What `docs/SETTINGS.md` says that sizes take is what the planner says."""

from __future__ import annotations

import pytest

from tests import settings_table
from tests.settings_table import FLOW_SCALES, PAGE, SIZES, TAKEN, card_row, measured, memory_row, written

LINES = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


def test_the_page_has_what_sizes_take() -> None:
    """Two rows, as counting all takes long. `python -m tests.settings_table` writes the page anew."""
    assert memory_row(832, 480, 0.5) in LINES
    assert card_row(1920, 1080, 1.0) in LINES
    assert f"where {TAKEN:g} GiB of the card belong" in PAGE.read_text(encoding="utf-8")


def test_times_are_those_of_the_page_that_measured_them() -> None:
    found = measured()
    assert {"512x512", "1920x1080", "3840x2160"} <= found.keys()
    for width, height in SIZES:
        (row,) = [line for line in LINES if line.startswith(f"| {width}x{height} | 0.5 |") and line.count(".") > 3]
        assert row.split("|")[3].strip() == found.get(f"{width}x{height}", "")


def test_the_tables_are_written_between_their_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memory_row", "card_row"):
        monkeypatch.setattr(settings_table, name, lambda *case: f"| {case} |")
    lines = list(settings_table.tables())
    assert len(lines) == 2 * (2 + len(SIZES) * len(FLOW_SCALES))
    page = written(PAGE.read_text(encoding="utf-8"), lines)
    assert all(line in page for line in lines)
    assert "1.17" not in page
    assert written(page, lines) == page

"""What the parts found, as JSON and as Markdown, on the disk at every moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Sheet:
    """What a part found.

    Attributes:
        tables: rows by the title of their table, for JSON and Markdown.
        details: for JSON alone.
        notes: sentences that are no failures.
        failures: sentences that say what is wrong.
    """

    title: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, title: str, **cells: Any) -> Row:
        """Add a row to a table; cells may be added to it later."""
        self.tables.setdefault(title, []).append(cells)
        return cells

    def check(self, holds: bool, sentence: str) -> bool:
        """A failure with this sentence, unless it holds."""
        if not holds:
            self.failures.append(sentence)
        return holds

    def markdown(self) -> str:
        blocks = [f"## {self.title} ({self.seconds:.0f} s)"]
        blocks += [f"**{title}**\n\n{markdown_table(rows)}" for title, rows in self.tables.items() if rows]
        blocks += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        blocks += ["\n".join(f"- FAILED: {failure}" for failure in self.failures)] if self.failures else []
        return "\n\n".join(blocks)


class Report:
    """The sheets of a check and where it ran, written again whenever one of them is finished.

    Attributes:
        machine: what the figures belong to.
        sheets: by the names of their parts.
    """

    def __init__(self, folder: Path, machine: Mapping[str, Any]) -> None:
        self.json, self.markdown = folder / "report.json", folder / "report.md"
        self.machine = dict(machine)
        self.sheets: dict[str, Sheet] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def failures(self) -> list[str]:
        return [f"{name}: {failure}" for name, sheet in self.sheets.items() for failure in sheet.failures]

    def save(self) -> None:
        parts = {name: vars(sheet) for name, sheet in self.sheets.items()}
        content = {"machine": self.machine, "failures": self.failures, "parts": parts}
        _replace(self.json, json.dumps(content, indent=1, default=str) + "\n")
        heading = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        blocks = [f"# {heading}", *(sheet.markdown() for sheet in self.sheets.values())]
        _replace(self.markdown, "\n\n".join(blocks) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file so that there is a whole one at every moment."""
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def markdown_table(rows: list[Row]) -> str:
    """Rows as a Markdown table, with the columns of all of them in the order of their first use."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return str(value).replace("|", "/").replace("\n", " ")

"""The picture of time and memory in the README: `python -m tests.speed_picture` writes `docs/speed.png`.

The figures are those of the table "Time and memory" of `docs/PERFORMANCE.md`. Needs matplotlib.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, TARGET = DOCS / "PERFORMANCE.md", DOCS / "speed.png"
GROUND, INK, GRID, THEIRS, OURS = "#1c1e22", "#ecedef", "#3e4248", "#9a9ea6", "#40c896"


@dataclass(frozen=True)
class Measured:
    """A size as it was measured on the card.

    Attributes:
        times: milliseconds of a new frame, of the published code and of ours.
        memory: GiB allocated, likewise.
    """

    size: str
    times: tuple[float, float]
    memory: tuple[float, float]


def measured(page: str) -> list[Measured]:
    """The sizes of the page's table that have all figures."""
    (theirs,) = re.findall(r"published code,\s+which\s+took\s+([\d., and]+) GiB \(allocated\)", page)
    memory = [float(number) for number in re.findall(r"[\d.]+", theirs)]
    rows = re.findall(r"^\| *(\d+x\d+), float16 *\|([^\n]*)\|$", page, re.MULTILINE)
    assert len(memory) == len(rows)
    found = []
    for (size, cells), published in zip(rows, memory, strict=True):
        values = [cell.strip(" *") for cell in cells.split("|")]
        if values[1]:
            times = float(values[0].replace(",", "")), float(values[1])
            found.append(Measured(size, times, (published, float(values[7]))))
    return found


def draw(sizes: list[Measured], target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.1), layout="constrained", facecolor=GROUND)
    panels = (
        ("Milliseconds a new frame (logarithmic)", [each.times for each in sizes]),
        ("GiB allocated at the peak (logarithmic)", [each.memory for each in sizes]),
    )
    for axes, (title, pairs) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.set_facecolor(GROUND)
        axes.set_title(title, color=INK, fontsize=12)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        for place, pair in enumerate(pairs):
            for value, shift, colour in zip(pair, (-0.19, 0.19), (THEIRS, OURS), strict=True):
                axes.barh(place + shift, value, 0.34, color=colour)
                axes.text(value * 1.08, place + shift, f"{value:,g}", color=INK, va="center", fontsize=10)
        axes.set_yticks(range(len(sizes)), [each.size for each in sizes])
        axes.invert_yaxis()
        values = [value for pair in pairs for value in pair]
        axes.set_xlim(min(values) / 2.5, max(values) * 3)
        axes.tick_params(colors=INK, labelsize=10, which="both")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_color(GRID)
    handles = [figure.axes[0].containers[0], figure.axes[0].containers[1]]
    figure.legend(
        handles, ["published code, float32", "this pack, float16"], loc="outside lower center", ncols=2,
        facecolor=GROUND, edgecolor=GROUND, labelcolor=INK, fontsize=10,
    )  # fmt: skip
    figure.savefig(target, dpi=100, facecolor=GROUND, metadata={"Software": None})


def main() -> None:
    draw(measured(PAGE.read_text(encoding="utf-8")), TARGET)


if __name__ == "__main__":
    main()

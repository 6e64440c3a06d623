"""The tables of `docs/SETTINGS.md`: `python -m tests.settings_table` writes them into the page, from the planner.

The times come from the table of `docs/PERFORMANCE.md`, in which they were measured. Takes ten seconds on a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from tlbvfi.config import ModelParams, load_params
from tlbvfi.planning import candidates, plan

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, MEASURED = DOCS / "SETTINGS.md", DOCS / "PERFORMANCE.md"
#: (width, height), as the page has them.
SIZES = [(512, 512), (832, 480), (1280, 720), (720, 1280), (1920, 1080), (1080, 1920), (2560, 1440), (3840, 2160)]
FLOW_SCALES = (0.5, 1.0)
#: GiB of graphics cards, and what of them is the driver's, the screen's and ComfyUI's own.
CARDS, TAKEN = (4, 6, 8, 12, 16, 24), 1.5
GIB = 2**30
PUBLISHED, BUILT_IN = ModelParams(), load_params("tlbvfi-small")
CPU = torch.device("cpu")

_MEMORY_HEAD = (
    "size", "flow scale", "H100, ms", "with CUDA graphs", "whole", "smallest strips", "built-in, with CUDA graphs",
    "CPU, float32", "built-in on CPU",
)  # fmt: skip
_CARD_HEAD = ("size", "flow scale", *(f"{card} GB" for card in CARDS))


def memory_row(width: int, height: int, flow_scale: float) -> str:
    """What a size takes in each way to go, float16 where it isn't said otherwise."""
    asked = height, width, torch.float16, flow_scale
    found = candidates(*asked, PUBLISHED)
    whole = found[0].peak_bytes
    on_cpu = [
        plan(height, width, torch.float32, flow_scale, params=params, device=CPU) for params in (PUBLISHED, BUILT_IN)
    ]
    counts = [
        plan(*asked, params=PUBLISHED).peak_bytes,
        whole,
        min(whole, found[-1].peak_bytes),
        plan(*asked, params=BUILT_IN).peak_bytes,
        *(each.peak_bytes for each in on_cpu),
    ]
    took = measured().get(f"{width}x{height}", "") if flow_scale == 0.5 else ""
    return _row(f"{width}x{height}", f"{flow_scale:g}", took, *(f"{count / GIB:.2f}" for count in counts))


def card_row(width: int, height: int, flow_scale: float) -> str:
    """How the published model goes on each card, float16."""
    return _row(f"{width}x{height}", f"{flow_scale:g}", *(_way(width, height, flow_scale, card) for card in CARDS))


def _way(width: int, height: int, flow_scale: float, card: int) -> str:
    try:
        chosen = plan(height, width, torch.float16, flow_scale, round((card - TAKEN) * GIB), params=PUBLISHED)
    except ValueError:
        return "no"
    if chosen.graphs:
        return "graphs"
    return f"{chosen.strip_rows} rows" if chosen.strips.frugal else "whole"


def measured() -> dict[str, str]:
    """Milliseconds of a new frame by size, as the performance page has them of its card; without those it lacks."""
    rows = re.findall(r"^\| *(\d+x\d+), float16 *\|([^\n]*)\|$", MEASURED.read_text(encoding="utf-8"), re.MULTILINE)
    times = {size: cells.split("|")[1].strip(" *") for size, cells in rows}
    return {size: time for size, time in times.items() if re.fullmatch(r"[\d.]+", time)}


def tables() -> Iterator[str]:
    """The lines of both tables."""
    cases = [(*size, flow_scale) for size in SIZES for flow_scale in FLOW_SCALES]
    for head, row in ((_MEMORY_HEAD, memory_row), (_CARD_HEAD, card_row)):
        yield _row(*head)
        yield _row(*("---" for _ in head))
        yield from (row(*case) for case in cases)


def written(page: str, lines: list[str]) -> str:
    """The page with the tables' lines between its markers, a table each."""
    second = next(index for index in range(1, len(lines)) if lines[index].startswith(f"| {_CARD_HEAD[0]} |"))
    for name, part in (("memory", lines[:second]), ("cards", lines[second:])):
        table = "\n".join(part)
        page, count = re.subn(
            rf"(<!-- {name}, by the planner -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",  # type: ignore[misc]
            page,
            flags=re.DOTALL,
        )
        assert count == 1, name
    return page


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(page, list(tables())), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Draw the logs of a run: a panel for each stage, its figures over the steps.

    python -m tlbvfi.training.plot RUN OUT.png

Reads RUN/STAGE.jsonl as `run.py` writes them (means over fifty steps). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .stages import STAGES

#: What a panel shows of a stage, as far as its log has it.
FIGURES = ("loss", "epe", "psnr", "lpips", "drawn", "hidden", "blend", "mse", "real_photo", "real_lpips")


def draw(run: Path, target: Path) -> None:
    """Write the picture.

    Raises:
        FileNotFoundError: the folder has no log.
    """
    from matplotlib.figure import Figure

    logs = {stage: run / f"{stage}.jsonl" for stage in STAGES}
    logs = {stage: path for stage, path in logs.items() if path.is_file() and path.stat().st_size}
    if not logs:
        raise FileNotFoundError(f"no log of a stage in {run}")
    figure = Figure(figsize=(3.6 * len(logs), 3.2), layout="constrained")
    for axes, (stage, path) in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name in FIGURES:
            # Rendered and real triplets have figures of their own, and not every line has both.
            steps, values = [line["step"] for line in lines if name in line], [x[name] for x in lines if name in x]
            if not values:
                continue
            if name == "psnr":
                axes.twinx().plot(steps, values, color="tab:red", label="psnr (dB, right)")
            else:
                axes.plot(steps, values, label=name)
        axes.set_title(stage)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.legend(fontsize="small")
    figure.savefig(target, dpi=80)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.plot", description="Draw the logs of a run.")
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args(argv)
    draw(args.run, args.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())

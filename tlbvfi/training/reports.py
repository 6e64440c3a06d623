"""What is shown of the measures: Markdown tables, and frames side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .measured_clips import Clip


def table(results: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """Markdown lines: a row for each method, a group of columns for each clip, and the mean."""
    clips = list(next(iter(results.values())))
    yield "| PSNR dB / SSIM / LPIPS | " + " | ".join(clips) + " |"
    yield "|---|" + "---|" * len(clips)
    for method, by_clip in results.items():
        cells = [f"{s['psnr']:.2f} / {s['ssim']:.4f} / {s['lpips']:.4f}" for s in by_clip.values()]
        yield f"| {method} | " + " | ".join(cells) + " |"


def drift_table(results: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Markdown lines: a row for each clip and depth."""
    yield "| clip | depth | PSNR dB | SSIM | LPIPS | brighter by, of 255 | detail, of the truth's |"
    yield "|---|---|---|---|---|---|---|"
    for name, rows in results.items():
        for depth, row in enumerate(rows, 1):
            scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['lpips']:.4f}"
            yield f"| {name} | {depth} | {scores} | {row['brighter']:+.2f} | {row['detail']:.3f} |"


def contact_sheet(clip: Clip, results: dict[str, list[Tensor]], gaps: list[int]) -> Image.Image:
    """Rows of gaps: previous frame, truth, then every method."""
    columns = ["previous", "truth", *[name for name in results if name != "previous"]]
    height, width = clip.frames[0].shape[:2]
    sheet = Image.new("RGB", (width * len(columns), (height + 14) * len(gaps)))
    draw = ImageDraw.Draw(sheet)
    for row, gap in enumerate(gaps):
        for column, name in enumerate(columns):
            if name in ("previous", "truth"):
                frame = clip.frames[2 * gap + (name == "truth")]
            else:
                frame = results[name][gap]
            pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
            sheet.paste(Image.fromarray(pixels), (column * width, row * (height + 14) + 14))
            draw.text((column * width + 2, row * (height + 14) + 1), f"{name} {clip.name} {2 * gap + 1}")
    return sheet

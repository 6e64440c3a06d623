"""Pictures of a comparison: pieces of frames side by side, and a chart of the means."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from PIL import Image, ImageDraw
from torch import Tensor

from .measured_clips import Clip

#: Height and width of a piece, and how much larger it is shown.
PIECE = (96, 128)
ZOOM = 1.5
_LINE = 14
_GAP = 4


@dataclass
class Row:
    """A hidden frame (its number among the truths) and the corner of its piece, and why it is shown."""

    index: int
    corner: tuple[int, int]
    reasons: list[str]


def sheet(clip: Clip, frames: Mapping[str, list[Tensor]], scores: Mapping[str, list[dict[str, float]]]) -> Image.Image:
    """A row for each method's worst frame (PSNR), where it is worst in it, and one for a typical frame; a column for
    the truth and for each method, with the scores of the whole frame."""
    quality = {name: [score["psnr"] for score in of] for name, of in scores.items()}
    height, width = (min(side, whole) for side, whole in zip(PIECE, clip.frames[0].shape[:2], strict=True))
    cell = (round(width * ZOOM), round(height * ZOOM))
    rows = chosen_rows(clip.truths, frames, quality)
    names = ["truth", *frames]
    picture = Image.new("RGB", ((cell[0] + _GAP) * len(names) - _GAP, (cell[1] + 3 * _LINE) * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for place, row in enumerate(rows):
        top, left = row.corner
        y = place * (cell[1] + 3 * _LINE)
        pen.text((2, y + 1), f"{clip.name}, frame {clip.hidden[row.index]}: {', '.join(row.reasons)}", fill="black")
        for column, name in enumerate(names):
            whole = clip.truths[row.index] if name == "truth" else frames[name][row.index]
            piece = whole[top : top + height, left : left + width]
            pixels = (piece.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
            x = column * (cell[0] + _GAP)
            pen.text((x + 2, y + _LINE), name, fill="black")
            if name != "truth":
                score = scores[name][row.index]
                pen.text((x + 2, y + 2 * _LINE), f"{score['psnr']:.1f} dB, {score['lpips']:.3f}", fill="black")
            picture.paste(Image.fromarray(pixels).resize(cell, Image.Resampling.BICUBIC), (x, y + 3 * _LINE))
    return picture


def chosen_rows(
    truths: list[Tensor], frames: Mapping[str, list[Tensor]], quality: Mapping[str, Sequence[float]]
) -> list[Row]:
    """The worst frame of each method and the typical one, whose mean quality is the median; those that show the same
    piece are one row."""
    rows: list[Row] = []
    for name, values in quality.items():
        index = int(np.argmin(values))
        _add(rows, index, worst_corner([frames[name][index]], truths[index]), f"worst of {name}")
    typical = int(np.argsort(np.mean(list(quality.values()), axis=0))[len(truths) // 2])
    corner = worst_corner([of[typical] for of in frames.values()], truths[typical])
    _add(rows, typical, corner, "typical")
    return rows


def _add(rows: list[Row], index: int, corner: tuple[int, int], reason: str) -> None:
    for row in rows:
        near = all(abs(a - b) < side / 2 for a, b, side in zip(row.corner, corner, PIECE, strict=True))
        if row.index == index and near:
            row.reasons.append(reason)
            return
    rows.append(Row(index, corner, [reason]))


def worst_corner(made: list[Tensor], truth: Tensor) -> tuple[int, int]:
    """The corner (top, left) of the piece where the squared error, summed over some frames, is largest."""
    height, width = (min(side, whole) for side, whole in zip(PIECE, truth.shape[:2], strict=True))
    error = reduce((torch.stack(made) - truth).square(), "n h w c -> 1 1 h w", "mean")
    sums = rearrange(F.avg_pool2d(error, (height, width), stride=1), "1 1 h w -> h w")
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top, left


def chart(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bytes:
    """PSNR and LPIPS of each method: a bar for the mean, a mark for each clip. A PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 + 0.34 * len(found)), layout="constrained")
    names = list(found)
    clips = [clip for clip in found[names[0]] if clip != "mean"]
    for axes, key, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("psnr", "lpips"),
        ("PSNR, dB (higher is better)", "LPIPS (lower is better)"),
        strict=True,
    ):
        means = [found[name]["mean"][key] for name in names]
        colours = ["tab:green" if name.startswith("ours") else "tab:blue" for name in names]
        axes.barh(names, means, color=colours, alpha=0.65, height=0.7)
        for mark, clip in zip("o^s", clips, strict=False):
            axes.plot([found[name][clip][key] for name in names], names, mark, color="black", markersize=4, label=clip)
        for place, value in enumerate(means):
            text = f"{value:.2f}" if key == "psnr" else f"{value:.4f}"
            place_beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(text, (1, place), (4, 0), va="center", fontsize=8, **place_beside)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
    left, right = figure.axes
    left.set_xlim(left=25)
    left.invert_yaxis()
    right.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

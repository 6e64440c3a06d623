"""Ways to the hidden frames of a clip: simple ones, FFmpeg's, and models of ours with their bridge and without."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from .. import Cuts, Multiplier, SceneDetector, Settings, load_model, padding_for
from ..interpolate import interpolate_timeline
from ..peers import average, dis_flow, minterpolated
from . import pipeline
from .measured_clips import Clip, to_rgb

Method = Callable[[Clip], list[Tensor]]


def previous_frames(clip: Clip) -> list[Tensor]:
    """The given frame before each place."""
    return [clip.frames[place - place % clip.apart] for place in clip.hidden]


def average_frames(clip: Clip) -> list[Tensor]:
    """The cross-fade of the given frames around each place: with every second one given, their mean."""
    return average(clip.given, clip.apart)


def minterpolate_frames(clip: Clip) -> list[Tensor]:
    """What FFmpeg's minterpolate puts into each place."""
    found = minterpolated(clip.native[:: clip.apart], clip.apart)
    return [to_rgb(found[place]) for place in clip.hidden]


def flow_frames(clip: Clip) -> list[Tensor]:
    """The given frames warped along OpenCV's DIS flow to each place."""
    return dis_flow(clip.given, clip.apart)


def model_method(
    source: str | None, flow_scale: float, steps: int | None, dtype: torch.dtype, *, cuts: bool = False
) -> Method:
    """A model of ours through the public interface, with as many sampling steps or the usual ones. Frames are to be a
    power of two apart. `cuts`: hold them, as the nodes and commands do."""
    model = load_model(source, dtype=dtype)
    settings = Settings(flow_scale) if steps is None else Settings(flow_scale, steps)

    def run(clip: Clip) -> list[Tensor]:
        plain = Multiplier(clip.apart)
        timeline = Cuts(plain, SceneDetector()) if cuts else plain
        frames = [output.frame for output in interpolate_timeline(model, clip.given, timeline, settings)]
        if len(frames) != len(clip.frames):
            raise RuntimeError(f"{clip.name}: {len(frames)} frames instead of {len(clip.frames)}")
        return [frames[place] for place in clip.hidden]

    return run


def decoded_method(source: str | None, flow_scale: float, dtype: torch.dtype, *, true_middle: bool) -> Method:
    """A model of ours without its bridge: the latent of (x0, nothing, x1), or of (x0, truth, x1), is decoded."""
    model = load_model(source, dtype=dtype)

    @torch.no_grad()
    def run(clip: Clip) -> list[Tensor]:
        height, width = clip.frames[0].shape[:2]
        padding = padding_for(height, width, multiple=model.multiple)
        encoded = [
            model.encode_frame(padding.pad(rearrange(frame, "h w c -> 1 c h w")) * 2.0 - 1.0, flow_scale)
            for frame in clip.frames
        ]
        empty = model.encode_empty(*padding.padded)
        made = []
        for first, truth, last in zip(encoded[:-2:2], encoded[1::2], encoded[2::2], strict=True):
            images = first.image, last.image
            middle = truth.deepest if true_middle else empty
            z = model.latent((first.deepest, middle, last.deepest), *images)
            codes = pipeline.nearest_codes(model, z)
            flow = model.flows(first, last).full
            frame = model.decode(codes, images, (list(first.pyramid), list(last.pyramid)), flow)
            made.append(rearrange(padding.crop(frame), "1 c h w -> h w c"))
        return made

    return run

"""The model's steps and parts as the training uses them: the one place here that looks inside of the model.

Frames are (B, 3, H, W) in [0, 1], flows (B, 4, h, w) in pixels of their own map, a clip is (first, middle, last).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..model import TLBVFI
from ..modules.autoencoder import FLOW_LEVELS, DecoderLevel
from ..modules.blocks import ResnetBlock
from ..rows.cuts import WHOLE
from ..rows.lazy import Rows, stored

Pair = tuple[Tensor, Tensor]
#: Parts of a model that may learn by themselves, see :func:`parameters_of_parts`.
PARTS = ("coarse", "correction", "decoder", "encoder", "trust")
#: Levels of the encoder that the flow refinement looks at.
_MOTION_LEVELS = FLOW_LEVELS - 1


def coarse_estimates(model: TLBVFI, frames: Pair) -> list[Tensor]:
    """The coarse flow of a pair after each scale, from frames as the coarse flow takes them."""
    return list(model.vqgan.decoder.flownet.estimates(*frames))


def refined_estimates(model: TLBVFI, pyramids: Sequence[Sequence[Tensor]], coarse: Tensor, depth: int) -> list[Tensor]:
    """The flow after each of the first `depth` levels of the refinement, from both frames' motion pyramids."""
    first, last = pyramids
    return list(itertools.islice(model.vqgan.decoder.refinenet.estimates(first, last, coarse), depth))


def full_flow(model: TLBVFI, refined: Tensor, images: Pair, smaller: bool) -> Tensor:
    """The flow at the size of frames (B, 3, H, W) in [0, 1], from the refined one; `smaller`: of smaller frames."""
    return model.vqgan.decoder.full_flow(refined, images, smaller)


def motion_pyramid(model: TLBVFI, frames: Tensor) -> list[Tensor]:
    """The pyramid levels that the refinement looks at."""
    return _present(model.vqgan.encoder.pyramid(frames, _MOTION_LEVELS))


def pyramid(model: TLBVFI, frames: Tensor) -> list[Tensor]:
    """All pyramid levels."""
    return _present(model.vqgan.encoder.pyramid(frames, model.params.autoencoder.num_levels))


def pyramid_beyond_motion(model: TLBVFI, frames: Tensor) -> list[Tensor]:
    """All pyramid levels, with gradients for the weights of those alone that serve no motion."""
    features = motion_pyramid(model, frames)
    # A leaf with a gradient that nobody reads: PyTorch 2.13's group norm on channels-last maps on the CPU crashes
    # where its weights alone need one.
    level_rows = stored(features[-1].detach().requires_grad_())
    for level in model.vqgan.encoder.down[_MOTION_LEVELS:]:
        level_rows = level(level_rows, WHOLE)
        features.append(level_rows.tensor())
    return features


def empty_deepest(model: TLBVFI, like: Tensor, height: int, width: int) -> Tensor:
    """Deepest pyramid level of the empty middle frame of height x width, for a batch `like` that of a frame."""
    return model.encode_empty(height, width).expand_as(like)


def nearest_codes(model: TLBVFI, z: Tensor) -> Tensor:
    """The codes nearest to a latent (B, z, 3, h, w)."""
    return model.vqgan.quantize.lookup(model.vqgan.quantize.code_indices(z))


def codes_of(model: TLBVFI, deepest: tuple[Tensor, Tensor, Tensor], images: Pair) -> Tensor:
    """The codes of clips, without a bridge, from their frames' deepest pyramid level and from the outer frames."""
    return nearest_codes(model, model.latent(deepest, *images))


@dataclass
class Observed:
    """A decoded frame and what it came from.

    Attributes:
        frame: (B, 3, H, W).
        blend: logits (B, 1, H, W) of the share of the first warped frame.
        maps: what each level of the decoder starts from, in the order of :func:`level_widths`.
    """

    frame: Tensor
    blend: Tensor
    maps: list[Tensor]


def decode_observed(
    model: TLBVFI, codes: Tensor, images: Pair, pyramids: Sequence[Sequence[Tensor]], flow: Tensor
) -> Observed:
    """As :meth:`.model.TLBVFI.decode`, with what the losses of the decoder's parts look at."""
    heads: list[Tensor] = []
    maps: list[Tensor] = []

    def keep_head(_: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        heads.append(made)

    def keep_map(_: nn.Module, given: tuple[Any, ...]) -> None:
        rows: Rows = given[0]
        maps.append(rows.tensor())

    hooks = [model.vqgan.decoder.moduleout[-1].register_forward_hook(keep_head)]
    hooks += [block.register_forward_pre_hook(keep_map) for block in _first_blocks(model)]
    try:
        first, last = pyramids
        frame = model.decode(codes, images, (list(first), list(last)), flow)
    finally:
        for hook in hooks:
            hook.remove()
    return Observed(frame, heads[0][:, 3:], maps[::-1])


def decode_trusting(
    model: TLBVFI, codes: Tensor, images: Pair, pyramids: tuple[list[Tensor | None], list[Tensor | None]], flow: Tensor
) -> tuple[Tensor, Tensor]:
    """The frame as the flow alone makes it, and what the network sees that says where not to trust it."""
    looked: list[Tensor] = []

    def trust(_: nn.Module, given: tuple[Tensor], logits: Tensor) -> Tensor:
        looked.append(given[0])
        return torch.full_like(logits, -100.0)

    hook = _trust(model).register_forward_hook(trust)
    try:
        frame = model.decode(codes, images, pyramids, flow)
    finally:
        hook.remove()
    return frame, looked[0]


def mean_is_nearer(model: TLBVFI, seen: Tensor) -> Tensor:
    """Logits of the chance of that, (B, 1, h, w), by what the network sees (B, channels, h, w)."""
    logits: Tensor = _trust(model)(seen)
    return logits


def trust_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of the network that says where the flow is not to be trusted."""
    return list(_trust(model).parameters())


def _trust(model: TLBVFI) -> nn.Module:
    network = model.vqgan.decoder.trust
    assert network is not None, "the configuration has no trust_widths"
    return network


def level_widths(model: TLBVFI) -> list[int]:
    """Channels of what each level of the decoder starts from."""
    return [block.conv1.in_channels for block in _first_blocks(model)]


def denoise(model: TLBVFI, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """What the denoiser predicts of x_t - z at timesteps t (B,), from x_t and the latent y without a middle frame."""
    return model.denoise_fn(x, y, t)


def coarse_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of the coarse flow."""
    return list(model.vqgan.decoder.flownet.parameters())


def parameters_of_parts(model: TLBVFI) -> dict[str, list[nn.Parameter]]:
    """Of all but the denoiser, by :data:`PARTS`: what finds motion, corrects it, makes the frame, the rest, and what
    says where not to trust the flow, if anything does."""
    decoder = model.vqgan.decoder
    coarse, correction = coarse_parameters(model), list(decoder.refinenet.parameters())
    trust = [] if decoder.trust is None else trust_parameters(model)
    rest = _others(decoder, [*coarse, *correction, *trust])
    parts = coarse, correction, rest, _others(model.vqgan, decoder.parameters()), trust
    return dict(zip(PARTS, parts, strict=True))


def motion_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of the refinement and the encoder levels it looks at."""
    encoder = model.vqgan.encoder
    return _all([encoder.conv_in, *encoder.down[:_MOTION_LEVELS], model.vqgan.decoder.refinenet])


def latent_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of what is between the motion's pyramid levels and the decoder."""
    vqgan, encoder = model.vqgan, model.vqgan.encoder
    parts = [*encoder.down[_MOTION_LEVELS:], encoder.mid, encoder.frequency_extractor, encoder.norm_out]
    return _all([*parts, encoder.conv_out, vqgan.quant_conv, vqgan.quantize, vqgan.post_quant_conv])


def autoencoder_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of all but the denoiser."""
    return list(model.vqgan.parameters())


def denoiser_parameters(model: TLBVFI) -> list[nn.Parameter]:
    """Of the denoiser."""
    return list(model.denoise_fn.parameters())


def _others(module: nn.Module, known: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters of a module that are none of those known."""
    numbers = {id(parameter) for parameter in known}
    return [parameter for parameter in module.parameters() if id(parameter) not in numbers]


def _all(parts: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for part in parts for parameter in part.parameters()]


def _first_blocks(model: TLBVFI) -> list[ResnetBlock]:
    """The first block of each level of the decoder."""
    blocks = []
    for level in model.vqgan.decoder.up:
        assert isinstance(level, DecoderLevel)
        block = level.block[0]
        assert isinstance(block, ResnetBlock)
        blocks.append(block)
    return blocks


def _present(levels: Sequence[Tensor | None]) -> list[Tensor]:
    present = [level for level in levels if level is not None]
    assert len(present) == len(levels)
    return present

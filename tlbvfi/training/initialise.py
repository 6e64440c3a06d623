"""Weights to begin with: small flows, no delta, and a decoder that lets detail through."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..model import TLBVFI
from ..modules.autoencoder import Decoder
from ..modules.maxvit import CrossAttention
from ..modules.trust import Trust

Kind = TypeVar("Kind", bound=nn.Module)

#: Convolutions that no activation precedes, and the last ones of residual branches.
_LINEAR = ("nin_shortcut", "upsample.conv", "downsample.conv")
_BRANCH_ENDS = ("conv2", "proj_out")


def part(module: nn.Module, path: str, kind: type[Kind]) -> Kind:
    """The part of a module at a path such as "up.0.conv", of the kind that is expected there."""
    found = module.get_submodule(path)
    assert isinstance(found, kind), f"{path} is a {type(found).__name__}"
    return found


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


@torch.no_grad()
def trustful(network: Trust) -> None:
    """It begins with the flow trusted everywhere: the chance that the mean is nearer is 0.27."""
    network.leave.weight.zero_()
    bias_of(network.leave).fill_(-1.0)


def initialise(model: TLBVFI, seed: int) -> None:
    """Weights from the seed: He-normal convolutions, small last layers, so that flow and delta start at 0.

    Residual branches start small and what is between the blocks keeps the variance. Else a map grows fourfold with
    every level, and what the decoder attends to, which is added to it normed, drowns: the frame then depends on
    nothing but its size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            layer = name.rpartition(".")[0]
            if parameter.ndim < 2:
                if name.endswith("bias"):
                    parameter.zero_()
            elif "embedding" in name:
                parameter.uniform_(-1.0, 1.0, generator=generator)
            elif "rel_pos_bias" in name:
                parameter.zero_()
                if "cross_attn" in name:
                    # Context enters through attention alone. Unless a position first looks at itself, every window's
                    # mean is all that comes through, and no blend finer than a window can be learnt.
                    parameter[len(parameter) // 2] = math.log(2.0 * model.params.autoencoder.window**2)
            else:
                gain = 1.6 if parameter.ndim == 4 and not layer.endswith(_LINEAR) else 1.0
                gain *= 0.2 if layer.endswith(_BRANCH_ENDS) else 1.0
                parameter.normal_(0.0, gain / math.sqrt(parameter[0].numel()), generator=generator)
        decoder, conv_in = model.vqgan.decoder, model.vqgan.encoder.conv_in
        # Cosines of maps that are bright everywhere are 1 everywhere: three channels of four see edges alone, and the
        # others differences from mid-grey.
        edges = conv_in.weight[len(conv_in.weight) // 4 :]
        edges.copy_(3.0 * (edges - edges.mean(dim=(2, 3), keepdim=True)))
        conv_in.weight[: len(conv_in.weight) // 4].mul_(0.5)
        bias_of(conv_in).copy_(-0.5 * conv_in.weight.sum(dim=(1, 2, 3)))
        blocks = [decoder.refinenet.block(level) for level in decoder.refinenet.levels]
        for block in blocks:
            part(block, "corr_convs.0", nn.Conv2d).weight.mul_(4.0)
        # The head too: while what it adds is noise, all before it learns to be quiet.
        ends: list[nn.Conv2d | nn.ConvTranspose2d] = [part(decoder, "moduleout.6", nn.Conv2d)]
        ends += [part(decoder.flownet, f"block{i}.conv1", nn.ConvTranspose2d) for i in range(3)]
        ends += [part(block, "flow_head.2", nn.Conv2d) for block in blocks]
        for end in ends:
            end.weight.mul_(0.02)
            bias_of(end).zero_()
        open_path(decoder, generator)
        if decoder.trust is not None:
            trustful(decoder.trust)


#: How far from zero norms and activations are kept where the decoder starts linear, for maps of about 0.3.
_SHIFT = 2.0


def open_path(decoder: Decoder, generator: torch.Generator) -> None:
    """Let the last level's context come through the decoder's end as it is, until it learns what to do with it.

    What a blend of warped frames lacks most is the detail that sampling between pixels loses, and that is a linear
    function of the context, of a few pixels' reach. Norms that divide by how much there is in a map, and activations
    that cut half of it, hide that. So norms get constants of both signs to divide by, and activations are kept away
    from zero. Convolutions mix channels in place at first, as constants end at the border of a map.
    """

    def in_place(weight: Tensor) -> None:
        out, channels, height, width = weight.shape
        weight.normal_(0.0, 0.1 / math.sqrt(weight[0].numel()), generator=generator)
        mixing = torch.empty(max(out, channels), max(out, channels)).normal_(generator=generator)
        weight[:, :, height // 2, width // 2] += torch.linalg.qr(mixing)[0][:out, :channels]

    def keep_scale(norm: nn.GroupNorm, bias: Tensor, shift: float) -> None:
        """`bias` of the layer before gets +, -, 0, 0 ... in each group; the norm undoes it, and adds `shift`."""
        size = norm.num_channels // norm.num_groups
        pattern = torch.zeros(size)
        pattern[0], pattern[1] = _SHIFT, -_SHIFT
        pattern = pattern.repeat(norm.num_groups)
        bias.copy_(pattern)
        norm.weight.fill_(float(pattern.std(correction=0)))
        norm.bias.copy_(shift - pattern)

    def unshifted(conv: nn.Conv2d, shift: float) -> None:
        """Take what a constant input gives out of the bias."""
        bias_of(conv).sub_(shift * conv.weight.sum(dim=tuple(range(1, conv.weight.ndim))))

    attention = part(decoder, "up.0.cross_attn", CrossAttention)
    expand, depthwise, project = (part(attention.proj_in, place, nn.Conv2d) for place in ("0", "3", "7"))
    in_place(expand.weight)
    part(attention.proj_in, "1", nn.BatchNorm2d).bias.fill_(_SHIFT)
    depthwise.weight.normal_(0.0, 0.03, generator=generator)
    depthwise.weight[:, :, 1, 1] += 1.0
    part(attention.proj_in, "6.gate.3", nn.Linear).weight.mul_(0.1)
    project.weight.normal_(0.0, 2.0 / math.sqrt(project.in_channels), generator=generator)
    project.weight[:2] = 0.0
    unshifted(project, 0.5 * _SHIFT)  # gates are about a half
    bias_of(project)[0], bias_of(project)[1] = 2 * _SHIFT, -2 * _SHIFT
    for attend in (attention.attn_block, attention.attn_grid):
        part(attend, "fn.to_q", nn.Linear).weight.mul_(0.1)
        for place, gain in (("fn.to_v", _SHIFT), ("fn.to_out.0", 1.0)):
            weight = part(attend, place, nn.Linear).weight
            mixing = torch.linalg.qr(torch.empty_like(weight).normal_(generator=generator))[0]
            weight.copy_(gain * mixing)
    for feed in (attention.ff_block, attention.ff_grid):
        part(feed, "fn.net.3", nn.Linear).weight.mul_(0.2)
    keep_scale(decoder.norm_out, bias_of(part(decoder, "up.0.upsample.conv", nn.Conv2d)), _SHIFT)
    first, second, head = (part(decoder.moduleout, place, nn.Conv2d) for place in ("0", "3", "6"))
    for conv in (decoder.conv_out, first, second):
        in_place(conv.weight)
        bias_of(conv).zero_()
    unshifted(decoder.conv_out, _SHIFT)
    keep_scale(part(decoder.moduleout, "1", nn.GroupNorm), bias_of(first), _SHIFT)
    keep_scale(part(decoder.moduleout, "4", nn.GroupNorm), bias_of(second), _SHIFT)
    unshifted(second, _SHIFT)
    unshifted(head, _SHIFT)

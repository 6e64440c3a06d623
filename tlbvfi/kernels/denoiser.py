"""The denoiser of the bridge on clips of channels last: convolutions with the norms before and the sums after them,
attention over a clip, and the bridge's step in the last convolution.

Maps of the latent's size take a few microseconds each, so that starting a kernel is what costs: no pass of its own is
made for norms. Whatever computes a map also keeps the moments of its parts, and who reads the map merges these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .registry import ceil_div, operator, power_of_two, products

#: Channels of one map, at most.
MOST_CHANNELS = 128
#: Parts of a map whose moments are merged at a time.
_PARTS = 64
#: Keys that attention sees at a time, for positions of a part.
_KEYS = {16: 128, 32: 64, 64: 32, 128: 32}


class Clip(NamedTuple):
    """A map (B, T, h, w, C) float32, contiguous, and its moments: for each part of it (:func:`part_positions`) the mean
    of each channel and the sum of squared distances from it, (B, parts, 2, C)."""

    maps: Tensor
    moments: Tensor


@dataclass(frozen=True)
class Norm:
    """A group norm of the maps that a convolution reads.

    Attributes:
        weight, bias: (C,), of all maps' channels.
        groups: each within one map.
        eps: added to the variance.
        embedding: (2 C,), scales that 1 is added to and shifts, applied after the norm; for one map only.
    """

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float
    embedding: Tensor | None = None

    @property
    def members(self) -> int:
        """Channels of a group."""
        return len(self.weight) // self.groups


def part_positions(positions: int) -> int:
    """How many positions of a frame a program computes, so that there are about as many as a card runs at a time."""
    return min(power_of_two(positions * 3 // 128, least=16), 128)


def _part_count(maps: Tensor) -> tuple[int, int, int]:
    """(parts of a clip, of a frame, positions of a part) of a map (B, T, h, w, C)."""
    positions = maps.shape[2] * maps.shape[3]
    size = part_positions(positions)
    in_frame = ceil_div(positions, size)
    return maps.shape[1] * in_frame, in_frame, size


def clip_entry(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Clip:
    """conv([x, y]) + bias as a clip, of x and y (B, C, T, h, w), contiguous, and a weight of 27 taps (see
    :func:`clip_conv`)."""
    return Clip(*_clip_entry(x, y, weight, bias))


def clip_conv(
    inputs: Sequence[Clip],
    weight: Tensor,
    bias: Tensor,
    norm: Norm,
    resample: str = "",
    residuals: Sequence[Clip] = (),
    residual_resample: str = "",
    skip_weight: Tensor | None = None,
    skip_bias: Tensor | None = None,
) -> Clip:
    """conv(resampled(silu(norm(inputs)))) + bias + residual.

    Args:
        inputs: one map or two, which count as one of all their channels.
        weight: (27, in, out), of a kernel over time, height and width. Zeros surround what it is applied to.
        bias: (out,).
        norm: of the inputs.
        resample: "down" takes the means of 2x2 positions, "up" each position four times, "" does neither.
        residuals: what is added: nothing, a map of `out` channels, or one or two maps that `skip_weight` is applied to.
        residual_resample: what is done to the one map of `out` channels, as for `resample`.
        skip_weight, skip_bias: of a 1x1x1 convolution of the residuals, (1, in, out) and (out,).
    """
    maps, moments = zip(*inputs, strict=True)
    return Clip(
        *_clip_conv(
            maps, moments, weight, bias, norm.weight, norm.bias, norm.embedding, norm.members, norm.eps, resample,
            [residual.maps for residual in residuals], residual_resample, skip_weight, skip_bias,
        )
    )  # fmt: skip


def clip_linear(clip: Clip, weight: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """norm(clip) weight^T + bias, without an activation: (B, T, h, w, out), of a weight (1, in, out)."""
    return _clip_linear(clip.maps, clip.moments, weight, bias, norm.weight, norm.bias, norm.members, norm.eps)


def clip_attention(qkv: Tensor, clip: Clip, weight: Tensor, bias: Tensor) -> Clip:
    """clip + linear(softmax(q k^T / sqrt(C)) v), where every position of the clip sees all of them.

    Args:
        qkv: (B, T, h, w, 3 C), laid out q | k | v.
        clip: the residual, of C channels.
        weight, bias: of the linear map, (C, C, 1...) and (C,), contiguous.
    """
    return Clip(*_clip_attention(qkv, clip.maps, weight, bias))


def clip_step(
    clip: Clip, weight: Tensor, bias: Tensor, norm: Norm, x: Tensor, y: Tensor, noise: Tensor, factors: Sequence[float]
) -> Tensor:
    """What the denoiser's last layer says, conv(silu(norm(clip))) + bias, and a step of the bridge with it.

    Args:
        clip, weight, bias, norm: as for :func:`clip_conv`.
        x, y, noise: state, condition and noise of the step, (B, out, T, h, w), contiguous.
        factors: a, b, c, d, m and e of the step.

    Returns:
        a x_0 + b y + c (x - d x_0 - m y) + e noise with x_0 = x - conv, of x's shape.
    """
    return _clip_step(
        clip.maps, clip.moments, weight, bias, norm.weight, norm.bias, norm.members, norm.eps, x, y, noise, *factors
    )


def _new_clip(like: Tensor, height: int, width: int, channels: int) -> tuple[Tensor, Tensor]:
    batch, frames = like.shape[:2]
    maps = like.new_empty(batch, frames, height, width, channels)
    return maps, like.new_empty(batch, _part_count(maps)[0], 2, channels)


def _sides(maps: Tensor, resample: str) -> tuple[int, int]:
    """Height and width of a clip (B, T, h, w, C) once it is resampled."""
    height, width = maps.shape[2:4]
    if resample == "down":
        return height // 2, width // 2
    return (2 * height, 2 * width) if resample == "up" else (height, width)


def _entry_shapes(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, frames, height, width = x.shape
    return _new_clip(x.new_empty(batch, frames), height, width, len(bias))


def _conv_shapes(maps: list[Tensor], moments: list[Tensor], weight: Tensor, bias: Tensor, *rest: Any) -> Any:
    resample = rest[5]
    return _new_clip(maps[0], *_sides(maps[0], resample), len(bias))


def _launch_entry(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    maps, moments = _entry_shapes(x, y, weight, bias)
    _start(_Sources([x, y], planes=True), weight, bias, maps, moments)
    return maps, moments


def _launch_conv(
    maps: list[Tensor], moments: list[Tensor], weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor, embedding: Tensor | None, members: int, eps: float, resample: str,
    residuals: list[Tensor], residual_resample: str, skip_weight: Tensor | None, skip_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out, kept = _new_clip(maps[0], *_sides(maps[0], resample), len(bias))
    sources = _Sources(maps, moments, norm_weight, norm_bias, embedding, members, eps, True, resample)
    _start(sources, weight, bias, out, kept, _Residual(residuals, residual_resample, skip_weight, skip_bias))
    return out, kept


def _launch_linear(
    clip: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, members: int,
    eps: float,
) -> Tensor:  # fmt: skip
    out = clip.new_empty(*clip.shape[:-1], len(bias))
    sources = _Sources([clip], [moments], norm_weight, norm_bias, members=members, eps=eps, silu=False)
    _start(sources, weight, bias, out, None)
    return out


def _launch_step(
    clip: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, members: int,
    eps: float, x: Tensor, y: Tensor, noise: Tensor, *factors: float,
) -> Tensor:  # fmt: skip
    out = torch.empty_like(x)
    sources = _Sources([clip], [moments], norm_weight, norm_bias, members=members, eps=eps)
    _start(sources, weight, bias, out, None, step=(x, y, noise), factors=factors)
    return out


@dataclass(frozen=True)
class _Sources:
    """What a convolution reads, one map or two, and how."""

    maps: Sequence[Tensor]
    moments: Sequence[Tensor] = ()
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    embedding: Tensor | None = None
    members: int = 1
    eps: float = 0.0
    silu: bool = True
    resample: str = ""
    #: Maps are (B, C, T, h, w) instead of (B, T, h, w, C), and have no norm.
    planes: bool = False

    @property
    def channels(self) -> list[int]:
        return [x.shape[1 if self.planes else 4] for x in self.maps]

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width of the maps."""
        frames, height, width = self.maps[0].shape[2:] if self.planes else self.maps[0].shape[1:4]
        return frames, height, width

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the convolution is applied to."""
        return self.size[1:] if self.planes else _sides(self.maps[0], self.resample)


@dataclass(frozen=True)
class _Residual:
    """What is added to a convolution's result."""

    maps: Sequence[Tensor] = ()
    resample: str = ""
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def raw(self) -> Sequence[Tensor]:
        """The maps that a weight is applied to."""
        return () if self.weight is None else self.maps

    @property
    def corners(self) -> int:
        """Positions whose mean is added as it is."""
        if self.weight is not None or not self.maps:
            return 0
        return 4 if self.resample == "down" else 1


def _start(
    sources: _Sources,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    moments: Tensor | None,
    residual: _Residual = _Residual(),
    step: tuple[Tensor, Tensor, Tensor] | tuple[None, None, None] = (None, None, None),
    factors: Sequence[float] = (0.0,) * 6,
) -> None:
    from .device.denoiser import conv_kernel

    frames, own_height, own_width = sources.size
    height, width = sources.sides
    outputs, size, precision = len(bias), part_positions(height * width), products(out)
    maps, raw = sources.maps, residual.raw
    # What is not there is never read, and has no kernel of its own: anything stands for it.
    first, second = _pair(maps, out)
    raw_first, raw_second = _pair(raw, out)
    channels, raw_channels = [*sources.channels, 0][:2], [*(x.shape[4] for x in raw), 0, 0][:2]
    widest = power_of_two(max(*channels, *raw_channels), least=4)
    block_n = min(power_of_two(outputs, least=16), 16 if size == 16 and precision == "ieee" else 32)
    conv_kernel[frames * ceil_div(height * width, size), len(out), ceil_div(outputs, block_n)](
        first, second, raw_first, raw_second, *_pair(sources.moments, out), weight, bias,
        _or(residual.weight, out), _or(residual.bias, out), _or(sources.norm_weight, out),
        _or(sources.norm_bias, out), _or(sources.embedding, out), _pair(residual.maps, out)[0], out,
        _or(moments, out), *step, *channels, *raw_channels, outputs,
        len(maps), len(maps) + len(raw), len(weight) // 27, int(sources.silu), int(sources.resample == "up"),
        int(sources.embedding is not None), int(moments is not None), height, width,
        own_height * own_width, part_positions(own_height * own_width),
        int(residual.resample == "up"), int(residual.resample == "down"), residual.corners, sources.eps, *factors,
        FRAMES=frames, MEMBERS=sources.members, POOL=sources.resample == "down", PLANES=sources.planes,
        BLOCK_P=size, BLOCK_N=block_n, BLOCK_C=widest, SLOTS=1 if widest >= 16 else 4,
        PARTS=_PARTS, PRECISION=precision, num_warps=4 if size < 128 else 8,
    )  # fmt: skip


def _or(x: Tensor | None, other: Tensor) -> Tensor:
    return other if x is None else x


def _pair(given: Sequence[Tensor], other: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors, `other` for those that are not given."""
    first, second = [*given, other, other][:2]
    return first, second


def _side(channels: int) -> int:
    return power_of_two(max(channels, 1), least=16)


def _attention_shapes(qkv: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return _new_clip(x, *x.shape[2:])


def _launch_attention(qkv: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    from .device.denoiser import attention_kernel

    maps, moments = _new_clip(x, *x.shape[2:])
    batch, frames, height, width, channels = x.shape
    size = part_positions(height * width)
    attention_kernel[frames * ceil_div(height * width, size), batch](
        qkv, x, weight, bias, maps, moments, height * width, channels**-0.5,
        FRAMES=frames, CHANNELS=channels, BLOCK_C=_side(channels), BLOCK_P=size, BLOCK_K=_KEYS[size],
        PRECISION=products(x), num_warps=4 if size < 128 else 8, num_stages=2,
    )  # fmt: skip
    return maps, moments


_clip_entry = operator(
    "clip_entry(Tensor x, Tensor y, Tensor weight, Tensor bias) -> (Tensor, Tensor)", _entry_shapes, _launch_entry
)
_clip_conv = operator(
    "clip_conv(Tensor[] maps, Tensor[] moments, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias,"
    " Tensor? embedding, int members, float eps, str resample, Tensor[] residuals, str residual_resample,"
    " Tensor? skip_weight, Tensor? skip_bias) -> (Tensor, Tensor)",
    _conv_shapes,
    _launch_conv,
)
_clip_linear = operator(
    "clip_linear(Tensor clip, Tensor moments, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias,"
    " int members, float eps) -> Tensor",
    lambda clip, moments, weight, bias, *_: clip.new_empty(*clip.shape[:-1], len(bias)),
    _launch_linear,
)
_clip_attention = operator(
    "clip_attention(Tensor qkv, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor)",
    _attention_shapes,
    _launch_attention,
)
_clip_step = operator(
    "clip_step(Tensor clip, Tensor moments, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias,"
    " int members, float eps, Tensor x, Tensor y, Tensor noise, float a, float b, float c, float d, float m, float e)"
    " -> Tensor",
    lambda clip, moments, weight, bias, norm_weight, norm_bias, members, eps, x, *_: torch.empty_like(x),
    _launch_step,
)

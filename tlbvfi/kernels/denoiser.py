"""The denoiser of the bridge on clips of channels last: convolutions with the norms before and the sums after them,
attention over a clip, and the bridge's step in the last convolution.

Maps of the latent's size take a few microseconds each, so that starting a kernel is what costs: no pass of its own is
made for norms. Whatever computes a map also keeps the moments of its parts, and who reads the map merges these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .registry import ceil_div, operator, power_of_two, products

#: Channels of one map, at most.
MOST_CHANNELS = 128
#: Parts of a map whose moments are merged at a time.
_PARTS = 128
#: Columns of the matrix that a convolution multiplies at a time, taps by channels, for positions of a part.
_COLUMNS = {16: 128, 32: 64, 64: 64, 128: 32}
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
    """conv([x, y]) + bias as a clip, of x and y (B, C, T, h, w), contiguous, and a weight (out, 2 C, 3, 3, 3)."""
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
        weight: (out, in, 3, 3, 3). Zeros surround what it is applied to.
        bias: (out,).
        norm: of the inputs.
        resample: "down" takes the means of 2x2 positions, "up" each position four times, "" does neither.
        residuals: what is added: nothing, a map of `out` channels, or one or two maps that `skip_weight` is applied to.
        residual_resample: what is done to the one map of `out` channels, as for `resample`.
        skip_weight, skip_bias: of a 1x1x1 convolution of the residuals, (out, in, 1, 1, 1) and (out,).
    """
    first, second = _pair(inputs)
    residual, residual_second = _pair(residuals)
    assert first is not None
    return Clip(
        *_clip_conv(
            first.maps, first.moments, second and second.maps, second and second.moments, weight, bias,
            norm.weight, norm.bias, norm.embedding, norm.members, norm.eps, resample,
            residual and residual.maps, residual_second and residual_second.maps, residual_resample,
            skip_weight, skip_bias,
        )
    )  # fmt: skip


def clip_linear(clip: Clip, weight: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """norm(clip) weight^T + bias, without an activation: (B, T, h, w, out), of a weight (out, in, 1...)."""
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


def _pair(clips: Sequence[Clip]) -> tuple[Clip | None, Clip | None]:
    first, second = [*clips, None, None][:2]
    return first, second


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
    return _new_clip(x.new_empty(batch, frames), height, width, len(weight))


def _conv_shapes(
    first: Tensor, first_moments: Tensor, second: Tensor | None, second_moments: Tensor | None, weight: Tensor,
    bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, embedding: Tensor | None, members: int, eps: float,
    resample: str, *_: object,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _new_clip(first, *_sides(first, resample), len(weight))


def _launch_entry(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    maps, moments = _entry_shapes(x, y, weight, bias)
    _start(_Sources(x, y, planes=True), weight, bias, maps, moments)
    return maps, moments


def _launch_conv(
    first: Tensor, first_moments: Tensor, second: Tensor | None, second_moments: Tensor | None, weight: Tensor,
    bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, embedding: Tensor | None, members: int, eps: float,
    resample: str, residual: Tensor | None, residual_second: Tensor | None, residual_resample: str,
    skip_weight: Tensor | None, skip_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    maps, moments = _new_clip(first, *_sides(first, resample), len(weight))
    sources = _Sources(
        first, second, first_moments, second_moments, norm_weight, norm_bias, embedding, members, eps, True, resample
    )
    added = _Residual(residual, residual_second, residual_resample, skip_weight, skip_bias)
    _start(sources, weight, bias, maps, moments, added)
    return maps, moments


def _launch_linear(
    clip: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, members: int,
    eps: float,
) -> Tensor:  # fmt: skip
    out = clip.new_empty(*clip.shape[:-1], len(weight))
    sources = _Sources(
        clip, None, moments, norm_weight=norm_weight, norm_bias=norm_bias, members=members, eps=eps, silu=False
    )
    _start(sources, weight, bias, out, None)
    return out


def _launch_step(
    clip: Tensor, moments: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, members: int,
    eps: float, x: Tensor, y: Tensor, noise: Tensor, *factors: float,
) -> Tensor:  # fmt: skip
    out = torch.empty_like(x)
    sources = _Sources(clip, None, moments, norm_weight=norm_weight, norm_bias=norm_bias, members=members, eps=eps)
    _start(sources, weight, bias, out, None, step=(x, y, noise), factors=factors)
    return out


@dataclass(frozen=True)
class _Sources:
    """What a convolution reads, and how."""

    first: Tensor
    second: Tensor | None = None
    first_moments: Tensor | None = None
    second_moments: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    embedding: Tensor | None = None
    members: int = 1
    eps: float = 0.0
    silu: bool = True
    resample: str = ""
    #: Maps are (B, C, T, h, w) instead of (B, T, h, w, C), and the channels of both together are the first's.
    planes: bool = False

    @property
    def channels(self) -> tuple[int, int]:
        if self.planes:
            return 2 * self.first.shape[1], 0
        return self.first.shape[4], _last(self.second)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what the convolution is applied to."""
        if self.planes:
            return self.first.shape[3], self.first.shape[4]
        return _sides(self.first, self.resample)

    def parts(self) -> list[int]:
        """Of the first map and of the second, as :func:`_part_count` has them, and positions of a frame of them."""
        if self.norm_weight is None:
            return [0] * 7
        counts = [0, 0, 0] if self.second is None else _part_count(self.second)
        return [*_part_count(self.first), *counts, self.first.shape[2] * self.first.shape[3]]


@dataclass(frozen=True)
class _Residual:
    """What is added to a convolution's result."""

    first: Tensor | None = None
    second: Tensor | None = None
    resample: str = ""
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def channels(self) -> tuple[int, int]:
        return _last(self.first), _last(self.second)


def _last(maps: Tensor | None) -> int:
    return 0 if maps is None else maps.shape[-1]


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

    height, width = sources.sides
    frames = sources.first.shape[2 if sources.planes else 1]
    pointwise = weight[0, 0].numel() == 1
    size, precision = part_positions(height * width), products(sources.first, convolution=not pointwise)
    (first, second), (residual_first, residual_second) = sources.channels, residual.channels
    pool = sources.resample == "down"
    side, columns = _side(first), 32 if pool else _COLUMNS[size]
    if sources.planes:
        side, columns = power_of_two(first, least=8), columns // 2
    block_n = min(power_of_two(len(weight), least=16), 16 if size == 16 and precision == "ieee" else 32)
    skip = residual.weight
    conv_kernel[frames * ceil_div(height * width, size), len(out), ceil_div(len(weight), block_n)](
        sources.first, sources.first_moments, sources.second, sources.second_moments, weight, bias,
        sources.norm_weight, sources.norm_bias, sources.embedding,
        residual.first, residual.second, skip, residual.bias, out, moments, *step,
        height, width, int(sources.resample == "up"), int(residual.resample == "up"), *sources.parts(), sources.eps,
        *weight.stride()[:2], *((0, 0, 0) if pointwise else weight.stride()[2:]),
        *((0, 0) if skip is None else skip.stride()[:2]), *factors,
        FRAMES=frames, FIRST=first, SECOND=second, OUT=len(weight),
        RESIDUAL=residual_first, RESIDUAL_SECOND=residual_second, MEMBERS=sources.members,
        SILU=sources.silu and sources.norm_weight is not None, POOL=pool, RESIDUAL_POOL=residual.resample == "down",
        PLANES=sources.planes, POINTWISE=pointwise, BLOCK_P=size, BLOCK_N=block_n,
        BLOCK_FIRST=side, BLOCK_SECOND=_side(second),
        BLOCK_RESIDUAL=_side(residual_first), BLOCK_RESIDUAL_SECOND=_side(residual_second),
        TAPS=1 if pointwise else max(1, columns // max(side, _side(second) if second else 0)),
        PARTS=_PARTS, PRECISION=precision, num_warps=4 if size < 128 else 8,
    )  # fmt: skip


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
    "clip_conv(Tensor first, Tensor first_moments, Tensor? second, Tensor? second_moments, Tensor weight, Tensor bias,"
    " Tensor norm_weight, Tensor norm_bias, Tensor? embedding, int members, float eps, str resample, Tensor? residual,"
    " Tensor? residual_second, str residual_resample, Tensor? skip_weight, Tensor? skip_bias) -> (Tensor, Tensor)",
    _conv_shapes,
    _launch_conv,
)
_clip_linear = operator(
    "clip_linear(Tensor clip, Tensor moments, Tensor weight, Tensor bias, Tensor norm_weight, Tensor norm_bias,"
    " int members, float eps) -> Tensor",
    lambda clip, moments, weight, *_: clip.new_empty(*clip.shape[:-1], len(weight)),
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

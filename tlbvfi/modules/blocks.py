"""Convolution blocks of the autoencoder, 2-D per frame and 3-D over the clip of three frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..kernels.joins import channels_last, join
from ..kernels.norms import scale_act, stack_frames
from ..rows.activations import Activation, silu
from ..rows.cuts import Strips
from ..rows.lazy import Apart, Rows, added, convolved, materialise, normed, read_once, stored
from ..rows.moments import group_normed
from ..rows.tuning import Tuning
from .attention import attention
from .fused import affine, bare, fuses, norm_act, positionwise
from .preparation import Deriving, laid_out, multiple_of_8, stacked, zero_padded


def accumulate(x: Tensor, y: Tensor) -> Tensor:
    """x + y, into x where no gradient needs it."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


class GroupNorm(nn.GroupNorm):
    """GroupNorm of maps (B, C, H, W) whose statistics are exact (:func:`..rows.moments.group_normed`)."""

    def forward(self, x: Tensor) -> Tensor:
        return group_normed(x, self)


def group_norm(groups: int, channels: int) -> GroupNorm:
    """The autoencoder's GroupNorm: eps 1e-6 throughout."""
    return GroupNorm(groups, channels, eps=1e-6)


class AlignedConv(Deriving, nn.Conv2d):
    """A convolution of few channels. Cards multiply halves by eights: there its channels are filled up, with ones, the
    first of which brings the bias by the middle of its weight; there is no pass for it."""

    def derive(self) -> dict[str, Tensor]:
        """`aligned`: the weight with channels in and out that are multiples of eight."""
        out, channels, height, width = self.weight.shape
        aligned = zero_padded(self.weight, multiple_of_8(out), multiple_of_8(channels))
        if channels % 8 and self.bias is not None:
            aligned[:out, channels, height // 2, width // 2] = self.bias
        return {"aligned": aligned}

    def sources(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def filled_up(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W), in any layout and dtype where C is no multiple of eight, as :meth:`apart` takes it."""
        b, c, h, w = x.shape
        if c % 8 == 0:
            return x
        layout = torch.channels_last
        filled = torch.empty(
            (b, multiple_of_8(c), h, w), dtype=self.weight.dtype, device=x.device, memory_format=layout
        )
        filled.fill_(1.0)[:, :c].copy_(x)
        return filled

    def apart(self, x: Tensor, padding: tuple[int, int] | None = None) -> Apart:
        """Of a map that is filled up, and the bias where it is still to be added; with another padding where given."""
        y = F.conv2d(x, self.derived()["aligned"], None, self.stride, self.padding if padding is None else padding)
        return y[:, : self.out_channels], None if self.in_channels % 8 else self.bias


#: Frames of a clip: x0, the empty middle, x1. A clip is held as its frames (B 3, C, h, w), each clip's together.
FRAMES = 3


def join_frames(frames: Sequence[Tensor]) -> Tensor:
    """Three maps (B, C, h, w) -> the clip (B 3, C, h, w), channels last."""
    return rearrange(torch.stack([rearrange(f, "b c h w -> b h w c") for f in frames], 1), "b t h w c -> (b t) c h w")


def as_one_map(clip: Tensor) -> Tensor:
    """The clip as one tall map (B, C, 3 h, w), for what looks at all its positions. A view where channels are last."""
    return rearrange(clip, "(b t) c h w -> b c (t h) w", t=FRAMES)


def as_frames(tall: Tensor) -> Tensor:
    """The reverse of :func:`as_one_map`."""
    return rearrange(tall, "b c (t h) w -> (b t) c h w", t=FRAMES)


class ClipConv(nn.Conv3d):
    """A 3-D convolution over a clip's frames (B 3, C, h, w), computed as a 2-D one over stacked channels.

    In time the clip is padded with zeros, or merged into one frame with ``merge_frames``.
    2-D convolutions are the fast ones everywhere, and some 3-D ones are broken in half precision.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int | tuple[int, int, int], merge_frames: bool = False
    ) -> None:
        size = (size, size, size) if isinstance(size, int) else size
        super().__init__(in_channels, out_channels, size)
        self.merge_frames = merge_frames

    def forward(self, clip: Tensor) -> Tensor:
        reach = self.kernel_size[0]
        if reach != 1 and Tuning.of(clip.device).kernels:
            stacked = stack_frames(channels_last(clip), merge=self.merge_frames)
        elif self.merge_frames:
            stacked = rearrange(clip, "(b t) c h w -> b (t c) h w", t=FRAMES)
        elif reach == 1:
            stacked = clip
        else:
            frames = rearrange(clip, "(b t) c h w -> b t h w c", t=FRAMES)
            nothing = torch.zeros_like(frames[:, :1])
            before, after = torch.cat([nothing, frames[:, :-1]], dim=1), torch.cat([frames[:, 1:], nothing], dim=1)
            stacked = rearrange(torch.cat([before, frames, after], dim=-1), "b t h w c -> (b t) c h w")
        return self._convolved(stacked, self.bias)

    def bare(
        self, clip: Tensor, norm: GroupNorm, activation: Activation, bias: Tensor | None = None, tall: bool = False
    ) -> Tensor:
        """Without its own bias, of activation(norm(clip + bias)), by kernels of our own; the norm sees each frame
        alone, or all of them as one `tall` map."""
        scale, shift = affine(as_one_map(clip) if tall else clip, norm, bias)
        return self._convolved(stack_frames(clip, scale, shift, activation.name, self.merge_frames), None)

    def _convolved(self, stacked: Tensor, bias: Tensor | None) -> Tensor:
        if self.kernel_size[1] == 1 and Tuning.of(stacked.device).kernels:
            return positionwise(stacked, self._stacked_weight(), bias)
        return F.conv2d(stacked, self._stacked_weight(), bias, padding=self.kernel_size[1] // 2)

    def _stacked_weight(self) -> Tensor:
        """(out, T in, y, x), channels last: a view of the weight where it is laid out for inference."""
        return laid_out(stacked(self.weight))


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))) on maps (B, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Rows, strips: Strips) -> Rows:
        """The first conv's map is stored, the result is not."""
        if fuses(x.shape, strips, self.conv1.weight.device):
            return stored(self.whole(x))
        h = convolved(normed(x, self.norm1, strips, silu), self.conv1)
        cuts = strips.cuts(h.shape)
        h = read_once(materialise(h, cuts, measure=True), cuts)
        h = convolved(normed(h, self.norm2, strips, silu), self.conv2)
        return added(h, x if self.nin_shortcut is None else convolved(x, self.nin_shortcut))

    def whole(self, rows: Rows, below: int = 0) -> Tensor:
        """The result for a whole map by kernels of our own, with so many rows and columns of zeros at its end."""
        x, bias = rows.apart()
        h = norm_act(x, self.norm1, silu, bias, rows.writable)
        del x
        h = bare(h, self.conv1)
        # A convolution keeps the size of what is padded already; what it has in the padding, the join sets to zero.
        h = norm_act(h, self.norm2, silu, self.conv1.bias, True, below)
        h = bare(h, self.conv2)
        return join(h, self.conv2.bias, *self._skipped(rows))

    def _skipped(self, rows: Rows) -> Apart:
        """The input, or its shortcut."""
        x, bias = rows.apart()
        conv = self.nin_shortcut
        if conv is None:
            return x, bias
        own = conv.bias
        if bias is not None:
            own = F.linear(bias, conv.weight.flatten(1), own)
        return bare(x, conv), own


class ClipResnetBlock(nn.Module):
    """Residual block over a clip (B 3, C, h, w); its first norm sees the clip, its second each frame alone.

    With ``merge_frames`` the second conv and the skip take the three frames to one.
    """

    def __init__(self, channels: int, groups: int, merge_frames: bool = False) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, channels)
        self.conv1 = ClipConv(channels, channels, 3)
        self.norm2 = group_norm(groups, channels)
        self.conv2 = ClipConv(channels, channels, 3, merge_frames)
        self.nin_shortcut = ClipConv(channels, channels, (FRAMES if merge_frames else 1, 1, 1), merge_frames)

    def forward(self, clip: Tensor) -> Tensor:
        if Tuning.of(clip.device).kernels:
            h = self.conv1.bare(clip, self.norm1, silu, tall=True)
            h = self.conv2.bare(h, self.norm2, silu, self.conv1.bias)
            return join(h, self.conv2.bias, self.nin_shortcut(clip))
        h = self.conv1(silu(as_frames(self.norm1(as_one_map(clip)))))
        h = self.conv2(silu(self.norm2(h)))
        return accumulate(h, self.nin_shortcut(clip))


class ClipAttention(Deriving):
    """Single-head self-attention over all 3 h w positions of a clip, with residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels)
        self.q = ClipConv(channels, channels, 1)
        self.k = ClipConv(channels, channels, 1)
        self.v = ClipConv(channels, channels, 1)
        self.proj_out = ClipConv(channels, channels, 1)

    def derive(self) -> dict[str, Tensor]:
        """Queries, keys and values as one linear map: `joined` (3 C, C) and `joined_bias`."""
        weights, biases = self.sources()[:3], self.sources()[3:]
        return {"joined": torch.cat([weight.flatten(1) for weight in weights]), "joined_bias": torch.cat(biases)}

    def sources(self) -> tuple[Tensor, ...]:
        convs = self.q, self.k, self.v
        biases = tuple(conv.bias for conv in convs if conv.bias is not None)
        return (*(conv.weight for conv in convs), *biases)

    def _fused(self, clip: Tensor) -> Tensor:
        """By kernels of our own."""
        h, w = clip.shape[2:]
        tall = as_one_map(clip)
        normed = rearrange(scale_act(tall, *affine(tall, self.norm)), "b c h w -> b 1 (h w) c")
        found = self.derived()
        q, k, v = F.linear(normed, found["joined"], found["joined_bias"]).chunk(3, dim=-1)
        out = F.linear(attention(q, k, v), self.proj_out.weight.flatten(1))
        return join(rearrange(out, "b 1 (t h w) c -> (b t) c h w", t=FRAMES, h=h, w=w), self.proj_out.bias, clip)

    def forward(self, clip: Tensor) -> Tensor:
        if Tuning.of(clip.device).kernels:
            return self._fused(clip)
        h, w = clip.shape[2:]
        normed = as_frames(self.norm(as_one_map(clip)))
        q, k, v = (
            rearrange(conv(normed), "(b t) c h w -> b 1 (t h w) c", t=FRAMES) for conv in (self.q, self.k, self.v)
        )
        out = rearrange(attention(q, k, v), "b 1 (t h w) c -> (b t) c h w", t=FRAMES, h=h, w=w)
        return accumulate(self.proj_out(out), clip)


class Middle(nn.Module):
    """The 3-D middle of encoder and decoder; the decoder's merges the clip into one map."""

    def __init__(self, channels: int, groups: int, merge_frames: bool = False) -> None:
        super().__init__()
        self.block_1 = ClipResnetBlock(channels, groups)
        self.attn_1 = ClipAttention(channels, groups)
        self.block_2 = ClipResnetBlock(channels, groups, merge_frames)

    def forward(self, clip: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(clip)))


class Downsample(nn.Module):
    """Halve a map by a strided conv, padded by one column right and one row below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Rows) -> Rows:
        return convolved(x, self.conv, below=1)


class Upsample(Deriving):
    """Double a map by repeating its pixels, then a 3x3 conv: computed as one transposed conv.

    Of the nine taps several fall on the same source pixel; their sums make a 4x4 kernel of stride 2, with less than
    half of the work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": transposed_kernel(self.conv.weight)}

    def sources(self) -> tuple[Tensor, ...]:
        return (self.conv.weight,)

    def forward(self, x: Rows) -> Rows:
        batch, channels, height, width = x.shape
        kernel = self.derived()["kernel"]

        def read(a: int, b: int) -> Tensor:
            """Rows of the enlarged map; a and b are even, or the map's end."""
            first, last = a // 2 - 1, (b + 1) // 2 + 1
            # Rows past a strip's ends are cut off with the padding; past the map's ends nothing comes.
            source = x.read(max(first, 0), min(last, height))
            y = F.conv_transpose2d(source, kernel, self.conv.bias, stride=2, padding=1)
            skip = a - 2 * max(first, 0)
            return y if y.shape[2] == b - a else y[:, :, skip : skip + b - a]

        def apart() -> Apart:
            return F.conv_transpose2d(x.tensor(), kernel, None, stride=2, padding=1), self.conv.bias

        return Rows((batch, channels, 2 * height, 2 * width), read, apart=apart)


def transposed_kernel(weight: Tensor) -> Tensor:
    """The kernel (in, out, 4, 4) of stride 2 and padding 1 that does as doubling a map, then a conv (out, in, 3, 3)."""
    flipped = weight.float().flip(2, 3)
    kernel = sum(F.pad(flipped, (dx, 1 - dx, dy, 1 - dy)) for dy in (0, 1) for dx in (0, 1))
    assert isinstance(kernel, Tensor)
    kernel = rearrange(kernel, "o i y x -> i o y x").to(weight.dtype)
    return kernel.contiguous(memory_format=torch.channels_last)

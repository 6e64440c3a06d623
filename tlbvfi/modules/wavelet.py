"""Undecimated 3-D Haar transform of the clip, and the network that reads its high bands (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.images import bands
from ..kernels.joins import join
from ..rows.activations import relu
from ..rows.cuts import Strips, halved, wide_cuts
from ..rows.lazy import Rows, added, convolved, materialise, normed, stored
from .blocks import AlignedConv, group_norm
from .fused import bare, fuses, norm_act

_TAP = 0.5 / math.sqrt(2.0)
#: Luma weights of the grey clip; they add up to 0.9999, so that mid-grey is a little below 0.5.
_GREY = (0.2989, 0.5870, 0.1140)


def to_grey(frames: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, H, W) float32 grey in [0, 1]."""
    r, g, b = frames.float().unbind(dim=1)
    return _GREY[0] * r + _GREY[1] * g + _GREY[2] * b


def haar_bands(clip: Tensor) -> list[Tensor]:
    """One pass of the Haar transform without decimation.

    Args:
        clip: (B, T, H, W).

    Returns:
        Eight bands (B, T - 1, H, W), LLL first, in the order (time, height, width) = LLL, LLH, ..., HHH.
        Along time the filter is valid; along height and width each sample meets its next neighbour, and
        the missing one past the end is zero.
    """
    first, second = clip[:, :-1], clip[:, 1:]
    bands = []
    for along_time in ((first + second) * _TAP, (second - first) * _TAP):
        below = F.pad(along_time[:, :, 1:], (0, 0, 0, 1))
        for along_height in ((along_time + below) * _TAP, (below - along_time) * _TAP):
            right = F.pad(along_height[..., 1:], (0, 1))
            bands += [(along_height + right) * _TAP, (right - along_height) * _TAP]
    return bands


def wavelet_channels(clip: Tensor) -> Tensor:
    """The 21 high-band channels of a grey clip (B, 3, H, W): 7 bands x 2 times, then 7 of the second pass."""
    low, *high = haar_bands(clip)  # (B, 2, H, W) each
    high2 = haar_bands(low)[1:]  # (B, 1, H, W) each
    return torch.cat([*high, *high2], dim=1)


def wavelet_channels_in_few(frame0: Tensor, frame1: Tensor, dtype: torch.dtype) -> Tensor:
    """:func:`wavelet_channels` of the clip of two frames (B, 3, H, W), mid-grey between them, in few operations.

    Returns:
        (B, 21, H, W) in a dtype, channels last.
    """
    batch, _, height, width = frame0.shape
    clip = frame0.new_empty(batch, 3, height, width, dtype=torch.float32)
    clip[:, 1].fill_(0.5 * sum(_GREY))
    for frame, grey in ((frame0, clip[:, 0]), (frame1, clip[:, 2])):
        torch.mul(frame[:, 0], _GREY[0], out=grey)
        grey.add_(frame[:, 1], alpha=_GREY[1]).add_(frame[:, 2], alpha=_GREY[2])
    first = _haar_sums(clip)  # (B, 16, H, W)
    second = _haar_sums(first[:, :2])  # (B, 8, H, W)
    channels = clip.new_empty(batch, height, width, 21, dtype=dtype).permute(0, 3, 1, 2)
    torch.mul(first[:, 2:], _TAP**3, out=channels[:, :14])
    torch.mul(second[:, 1:], _TAP**6, out=channels[:, 14:])
    return channels


def _haar_sums(clip: Tensor) -> Tensor:
    """:func:`haar_bands` of a clip (B, T, H, W) side by side, (B, 8 (T - 1), H, W), each by 1 / _TAP**3 too large."""
    b, t, h, w = clip.shape
    time = clip.new_empty(b, 2, t - 1, h + 1, w)
    time[..., h, :].zero_()
    _sums_and_differences(clip[:, :-1], clip[:, 1:], time[..., :h, :].unbind(1))
    rows = clip.new_empty(b, 2, 2, t - 1, h, w + 1)
    rows[..., w].zero_()
    _sums_and_differences(time[..., :h, :], time[..., 1:, :], rows[..., :w].unbind(2))
    del time
    columns = clip.new_empty(b, 2, 2, 2, t - 1, h, w)
    _sums_and_differences(rows[..., :w], rows[..., 1:], columns.unbind(3))
    return columns.flatten(1, 4)


def _sums_and_differences(here: Tensor, following: Tensor, out: Sequence[Tensor]) -> None:
    torch.add(here, following, out=out[0])
    torch.sub(following, here, out=out[1])


class FrequencyBlock(nn.Module):
    """Quarter a map by two strided 5x5 convs, with a strided 5x5 skip."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 5, stride=2, padding=2)
        self.norm2 = group_norm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 5, stride=2, padding=2)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 5, stride=4, padding=1)

    def forward(self, x: Rows, strips: Strips) -> Rows:
        if fuses(x.shape, strips, self.conv1.weight.device):
            return stored(self._whole(x.tensor()))
        cuts = halved(strips.cuts(x.shape, multiple=4))
        h = materialise(convolved(normed(x, self.norm1, strips, relu), self.conv1), cuts, measure=True)
        h = added(convolved(normed(h, self.norm2, strips, relu), self.conv2), convolved(x, self.shortcut))
        return materialise(h, halved(cuts), measure=True)

    def _whole(self, x: Tensor) -> Tensor:
        """A whole map by kernels of our own."""
        h = bare(norm_act(x, self.norm1, relu), self.conv1)
        h = bare(norm_act(h, self.norm2, relu, self.conv1.bias, reuse=True), self.conv2)
        return join(h, self.conv2.bias, bare(x, self.shortcut), self.shortcut.bias)


class FrequencyExtractor(nn.Module):
    """Grey clip -> one map (B, C, h, w) at the latent size that gates the deepest features.

    Every block divides the size by four after the first conv's two, so it serves 1/32 (two blocks).
    """

    def __init__(self, ch: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.conv_in = AlignedConv(21, ch, 3, stride=2, padding=1)
        self.Blocks = nn.ModuleList([FrequencyBlock(ch, ch, groups), FrequencyBlock(ch, out_channels, groups)])

    def forward(self, frame0: Tensor, frame1: Tensor, strips: Strips) -> Tensor:
        """frame0, frame1: (B, 3, H, W) in [0, 1]; the frame between them is mid-grey."""
        kernels = strips.tuning_on(frame0.device).kernels
        h = (self._first_in_one_pass if kernels else self._first)(frame0, frame1, strips)
        for block in self.Blocks:
            h = block(h, strips)
        return h.tensor()

    def _first_in_one_pass(self, frame0: Tensor, frame1: Tensor, strips: Strips) -> Rows:
        """As :meth:`_first`, the bands by a kernel, filled up as the conv wants them."""
        batch, _, height, width = frame0.shape
        conv = self.conv_in

        def read(a: int, b: int) -> Tensor:
            # The kernel pads with the row above the map, and with one below it.
            x = bands(frame0, frame1, 2 * a - 1, 2 * (b - a) + 1, conv.weight.dtype, _GREY, _TAP)
            return conv.apart(x, padding=(0, 1))[0]

        shape = (batch, conv.out_channels, (height + 1) // 2, (width + 1) // 2)
        return materialise(Rows(shape, read), strips.cuts(shape), measure=strips.pixels is not None)

    def _first(self, frame0: Tensor, frame1: Tensor, strips: Strips) -> Rows:
        """The first conv's map, of the bands of the clip."""
        height, dtype = frame0.shape[2], self.conv_in.weight.dtype
        few = strips.tuning_on(frame0.device).few_operations

        def channels_of(a: int, b: int) -> Tensor:
            # Each of the two passes reads one row further.
            read0, read1 = (frame[:, :, a : min(b + 2, height)] for frame in (frame0, frame1))
            if few:
                return wavelet_channels_in_few(read0, read1, dtype)[:, :, : b - a]
            grey0, grey1 = to_grey(read0), to_grey(read1)
            clip = torch.stack([grey0, torch.full_like(grey0, 0.5 * sum(_GREY)), grey1], dim=1)
            channels = wavelet_channels(clip)[:, :, : b - a]
            return channels.to(dtype).contiguous(memory_format=torch.channels_last)

        clip_bands = Rows((frame0.shape[0], 21, height, frame0.shape[3]), channels_of)
        # Two rows of the frames make one: the cuts are those of the frames' size.
        whole = few and strips.pixels is None
        shape = clip_bands.shape
        cuts = halved(strips.cuts(shape) if whole else wide_cuts(shape, strips, frame0.device))
        return materialise(convolved(clip_bands, self.conv_in), cuts, measure=strips.pixels is not None)


def gate(features: Tensor, frequency: Tensor) -> Tensor:
    """features * (1 + sigmoid(frequency)), both (B, C, h, w)."""
    return features + torch.sigmoid(frequency) * features

"""Where the flow is not to be trusted: a small network that looks once more, and takes the mean of the frames there.

The steps without weights (`stills.py`, `cross_fade.py`) know by rules what a caption is and what missed motion is. This
one has learnt which is nearer to the truth: what was made along the flow, or the mean of the two frames in place. Where
a configuration asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .coarse_maps import Enlarged, above, sampled, shrunk_by

#: Pixels of the frames that are looked at, along a side, for each place.
_SIDE = 2
#: Channels of what is seen: both frames, both brought along the flow, the flow (both ways: x, y), what stands still
#: (`stills.py`), and three differences.
CHANNELS = (3, 3, 3, 3, 4, 2, 3)
#: A flow's unit, in places, and the most of it that is told apart.
_UNIT, _FARTHEST = 16.0, 4.0
#: Chances that the mean is nearer, from which on it is mixed in, and from which on there is nothing else.
CHANCES = (0.5, 0.7)


def _conv(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=stride, padding=1), nn.PReLU(outer))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last, self.act = _conv(width, width), nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.act(x + self.last(self.first(x)))
        return moved


def _shrinking(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(_conv(inner, outer, 2), _Residual(outer))


class Trust(nn.Module):
    """How far the mean of two frames takes the place of what was made along the flow."""

    def __init__(self, widths: Sequence[int]) -> None:
        """Make the network.

        Args:
            widths: of its maps, from one of half the size that it is given, each next one at half of the size before.
        """
        super().__init__()
        steps = list(pairwise(widths))
        self.enter = _shrinking(sum(CHANNELS), widths[0])
        self.down = nn.ModuleList([_shrinking(wide, wider) for wide, wider in steps])
        self.deepest = _Residual(widths[-1])
        self.up = nn.ModuleList([_conv(wider, wide) for wide, wider in steps])
        self.joined = nn.ModuleList([_Residual(wide) for wide, _ in steps])
        self.leave = nn.ConvTranspose2d(widths[0], 1, 4, stride=2, padding=1)

    def share(self, frames: tuple[Tensor, Tensor], flow: Tensor, places: Tensor | None) -> Enlarged:
        """Of the mean, of 1, at the frames' size: (B, 1, H, W).

        Args:
            frames: (B, 3, H, W) in [0, 1].
            flow: (B, 4, H, W) at their size.
            places: what stands still, (B, 2, H, W) in [0, 1] (:class:`.stills.Stills`); None where nobody looked.
        """
        height, width = flow.shape[2:]
        side = _SIDE * shrunk_by(height, width)
        chance = torch.sigmoid(self(seen(frames, flow, places, side)))
        return Enlarged(above(chance, CHANCES), side, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the chance that the mean is nearer, (B, 1, h, w) float32, of what is seen (B, channels, h, w)."""
        height, width = x.shape[2:]
        whole = 2 ** (len(self.down) + 1)
        x = F.pad(x, (0, -width % whole, 0, -height % whole), mode="replicate").to(self.leave.weight.dtype)
        maps = [self.enter(x)]
        for level in self.down:
            maps.append(level(maps[-1]))
        x = self.deepest(maps.pop())
        for up, joined, beside in zip(reversed(self.up), reversed(self.joined), reversed(maps), strict=True):
            x = joined(beside + F.interpolate(up(x), scale_factor=2.0, mode="bilinear"))
        logits: Tensor = self.leave(x)[..., :height, :width]
        return logits.float()


@torch.no_grad()
def seen(frames: tuple[Tensor, Tensor], flow: Tensor, places: Tensor | None, side: int) -> Tensor:
    """What the network looks at, (B, channels, h, w): a place a square of `side` pixels."""
    first, last, ways = (F.avg_pool2d(x, side, ceil_mode=True) for x in (*frames, flow))
    ways = ways / side
    still = torch.zeros_like(ways[:, :2]) if places is None else F.avg_pool2d(places, side, ceil_mode=True)
    along = [sampled(x, way, 1) for x, way in zip((first, last), ways.chunk(2, dim=1), strict=True)]
    apart = [
        (a - b).abs_().amax(dim=1, keepdim=True)
        for a, b in (along, (first, last), ((first + last) / 2, (along[0] + along[1]) / 2))
    ]
    colours = [x - 0.5 for x in (first, last, *along)]
    return torch.cat([*colours, (ways / _UNIT).clamp_(-_FARTHEST, _FARTHEST), still, *apart], dim=1)

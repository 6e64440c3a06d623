"""MaxViT parts: attention in windows and over a grid, on channels-last token maps (B, H, W, C)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..kernels.attention import WindowWeights, fits, window_block
from ..kernels.context import context_expand, depthwise_gelu, gated_weight
from ..kernels.joins import channels_last
from ..kernels.positions import Bases
from ..rows.cpu import positionwise
from ..rows.cuts import WHOLE, Strips, pieces, wide_cuts
from ..rows.lazy import Rows, convolved, materialise, pointwise, stored
from ..rows.moments import channel_sums
from .attention import attention
from .blocks import accumulate
from .preparation import Deriving
from .warp import Neighbourhood, join_channels

#: Cuts of a token map into windows of w x w tokens: neighbours, or every (H / w)-th row and column.
_WINDOWS = {
    "block": "b (i y) (j x) c -> (b i j) 1 (y x) c",
    "grid": "b (y i) (x j) c -> (b i j) 1 (y x) c",
}
_MERGED = {
    "block": "(b i j) 1 (y x) c -> b (i y) (j x) c",
    "grid": "(b i j) 1 (y x) c -> b (y i) (x j) c",
}


class RelativePositionBias(Deriving, nn.Embedding):
    """A learnt bias for each offset (dy, dx) = query - key inside a window, one head."""

    relative_index: Tensor

    def __init__(self, window: int) -> None:
        super().__init__((2 * window - 1) ** 2, 1)
        self.window = window
        self.register_buffer("relative_index", torch.empty(window**2, window**2, dtype=torch.long), persistent=False)
        self._index()

    def prepare(self) -> None:
        self._index()
        super().prepare()

    def derive(self) -> dict[str, Tensor]:
        return {"pairs": self.weight[self.relative_index, 0].float()}

    def sources(self) -> tuple[Tensor, ...]:
        return (self.weight,)

    def of_pairs(self) -> Tensor:
        """(window^2, window^2) float32, queries first."""
        return self.derived()["pairs"]

    def _index(self) -> None:
        """Fill the buffer on the device of the table."""
        device, span = self.weight.device, self.window
        y, x = torch.meshgrid(*(torch.arange(span, device=device) for _ in range(2)), indexing="ij")
        y, x = y.flatten(), x.flatten()
        dy, dx = y[:, None] - y[None], x[:, None] - x[None]
        self.relative_index = (dy + span - 1) * (2 * span - 1) + dx + span - 1

    def forward(self) -> Tensor:  # type: ignore[override]
        """(1, 1, window^2, window^2)."""
        return rearrange(super().forward(self.relative_index), "q k 1 -> 1 1 q k")


class WindowAttention(nn.Module):
    """Attention inside windows; queries from one map, keys and values from the same or another."""

    def __init__(self, channels: int, window: int, kind: str) -> None:
        super().__init__()
        self.kind, self.window = kind, window
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels, bias=False))
        self.rel_pos_bias = RelativePositionBias(window)

    def weights(self) -> list[Tensor]:
        """Of q, k, v and the result, and the bias of each pair of positions."""
        linear = (self.to_q, self.to_k, self.to_v, *self.to_out)
        return [*(layer.get_parameter("weight") for layer in linear), self.rel_pos_bias.of_pairs()]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x, context: normed token maps (B, H, W, C), H and W multiples of the window."""
        b, height, width, _ = x.shape
        size = {"y": self.window, "x": self.window}
        q, k, v = (
            rearrange(tokens, _WINDOWS[self.kind], **size)
            for tokens in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out = attention(q, k, v, self.rel_pos_bias())
        i, j = height // self.window, width // self.window
        return self.to_out(rearrange(out, _MERGED[self.kind], b=b, i=i, j=j, **size))


class FeedForward(nn.Module):
    """W2 gelu(W1 x), W1 four times wider."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    """fn(LayerNorm(x)); a context, where there is one, passes the same norm."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fn = fn

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return self.fn(self.norm(x), *(self.norm(c) for c in context))


class MaxViT(nn.Module):
    """Window attention, feed-forward, grid attention, feed-forward, each with residual."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn_block = PreNorm(channels, WindowAttention(channels, window, "block"))
        self.ff_block = PreNorm(channels, FeedForward(channels))
        self.attn_grid = PreNorm(channels, WindowAttention(channels, window, "grid"))
        self.ff_grid = PreNorm(channels, FeedForward(channels))

    def forward(self, x: Tensor, context: Tensor | None = None, strips: Strips = WHOLE) -> Tensor:
        """x, context: maps (B, C, H, W); without context x attends to itself. x may be overwritten."""
        if strips.tuning_on(x.device).kernels and fits(x, self.window):
            return self._in_place(x, context)
        strips = pieces(x.shape, strips, x.device)
        tokens = rearrange(x, "b c h w -> b h w c")
        other = None if context is None else rearrange(context, "b c h w -> b h w c")
        for attend, feed in ((self.attn_block, self.ff_block), (self.attn_grid, self.ff_grid)):
            assert isinstance(attend.fn, WindowAttention)
            kind, window = attend.fn.kind, attend.fn.window
            cuts = strips.cuts(x.shape, multiple=window)
            if len(cuts) == 1:
                tokens = self._attended(attend, feed, tokens, other)
                continue
            # Windows stay whole: eight neighbouring rows for the one kind, every (H / 8)-th for the other.
            layout = "b (i y) w c -> b i y w c" if kind == "block" else "b (y i) w c -> b i y w c"
            views = [None if t is None else rearrange(t, layout, y=window) for t in (tokens, other)]
            back = layout.split(" -> ")[0]
            for a, b in cuts:
                part = slice(a // window, b // window)
                mine, theirs = (None if v is None else rearrange(v[:, part], f"b i y w c -> {back}") for v in views)
                assert mine is not None and views[0] is not None
                result = self._attended(attend, feed, mine, theirs)
                views[0][:, part] = rearrange(result, layout, y=window)
        return rearrange(tokens, "b h w c -> b c h w")

    def _in_place(self, x: Tensor, context: Tensor | None) -> Tensor:
        """By kernels of our own: the map is overwritten, and nothing of its size is made."""
        x = channels_last(x)
        context = None if context is None else channels_last(context)
        for attend, feed in ((self.attn_block, self.ff_block), (self.attn_grid, self.ff_grid)):
            assert isinstance(attend.fn, WindowAttention)
            norm, feed_norm = attend.norm, feed.norm
            weights = WindowWeights._make(
                (*norm.parameters(), *attend.fn.weights(), *feed_norm.parameters(), *feed.fn.parameters())
            )
            grid = attend.fn.kind == "grid"
            window_block(x, context, weights, self.window, grid, norm.eps, feed_norm.eps)
        return x

    @staticmethod
    def _attended(attend: PreNorm, feed: PreNorm, tokens: Tensor, other: Tensor | None) -> Tensor:
        normed = attend.norm(tokens)
        tokens = accumulate(attend.fn(normed, normed if other is None else attend.norm(other)), tokens)
        return accumulate(feed(tokens), tokens)


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from its mean over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Identity(),
            nn.Linear(channels, channels // 4, bias=False),
            nn.SiLU(),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, mean: Tensor) -> Tensor:
        """Means (B, C) -> gates (B, C)."""
        return self.gate(mean.to(next(self.gate.parameters()).dtype))


class Context(Rows):
    """What a decoder level attends to: both frames' features (B, C, H, W), and where there is a flow (B, 4, H, W) also
    these warped to the middle; side by side."""

    def __init__(self, features: tuple[Tensor, Tensor], flow: Tensor | None, strips: Strips) -> None:
        self.features, self.flow = features, flow
        batch, _, height, width = features[0].shape
        channels = sum(f.shape[1] for f in features) * (1 if flow is None else 2)
        warped = flow is not None and strips.pixels is None and strips.tuning_on(flow.device).few_operations
        whole = Neighbourhood.pair(features, flow, 0, strips.tuning) if warped and flow is not None else None

        def read(a: int, b: int) -> Tensor:
            parts: list[Tensor | Neighbourhood] = [f[:, :, a:b] for f in features]
            if whole is not None:
                parts += [seen if b - a == height else seen.rows(a, b) for seen in whole]
            elif flow is not None:
                parts += Neighbourhood.pair(features, flow[:, :, a:b], a, strips.tuning_on(flow.device))
            return join_channels((batch, b - a, width), parts)

        super().__init__((batch, channels, height, width), read)


class MBConv(Deriving, nn.Sequential):
    """Inverted bottleneck without residual: 1x1, depthwise 3x3, squeeze-excitation, 1x1 (paper's context path).

    :meth:`prepare` merges the three BatchNorms (evaluation mode) into the convs before them, once.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        hidden = 4 * out_channels
        super().__init__(
            nn.Conv2d(in_channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            SqueezeExcitation(hidden),
            nn.Conv2d(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Rows, strips: Strips) -> Rows:  # type: ignore[override]
        """The wide map between is stored, or computed twice where memory is short; so is the result."""
        layers: list[Any] = list(self)
        expand, norm1, act1, depthwise, norm2, act2, excite, project, norm3 = layers
        if isinstance(x, Context) and self._whole(x, strips):
            return stored(self._by_kernels(x))
        cuts = wide_cuts(x.shape, strips, expand.weight.device)

        def widened(part: Tensor) -> Tensor:
            return act1(norm1(positionwise(part, expand, tuning=strips.tuning)))

        wide = Rows((x.shape[0], expand.out_channels, *x.shape[2:]), lambda a, b: widened(x.read(a, b)))
        wide = pointwise(convolved(wide, depthwise), lambda part: act2(norm2(part)))
        if len(cuts) == 1 or not strips.frugal:
            wide = materialise(wide, cuts)
        mean = sum(channel_sums(wide.read(a, b), strips.tuning) for a, b in cuts) / math.prod(x.shape[2:])
        gates = excite(mean)

        def narrowed(part: Tensor) -> Tensor:
            return norm3(gated_projection(part, gates, project))

        narrow = Rows((x.shape[0], project.out_channels, *x.shape[2:]), lambda a, b: narrowed(wide.read(a, b)))
        return materialise(narrow, cuts)

    def _whole(self, x: Context, strips: Strips) -> bool:
        """Whether kernels of our own take the map whole."""
        folded = not any(isinstance(layer, nn.BatchNorm2d) for layer in self)
        return folded and strips.tuning_on(x.features[0].device).kernels and len(strips.cuts(x.shape)) == 1

    def _by_kernels(self, x: Context) -> Tensor:
        """By kernels of our own: neither the context is made, nor anything wide but the maps before and after the
        depthwise convolution."""
        layers: list[Any] = list(self)
        expand, depthwise, excite, project = layers[0], layers[3], layers[6], layers[7]
        before, after = (channels_last(f) for f in x.features)
        bases = None if x.flow is None else Bases.of(before)
        wide = context_expand(before, after, x.flow, bases, expand.weight.flatten(1), expand.bias)
        wide, means = depthwise_gelu(wide, self.derived()["taps"], depthwise.bias)
        weight = gated_weight(means, excite.gate[1].weight, excite.gate[3].weight, project.weight.flatten(1))
        if len(weight) > 1:
            return projected(wide, weight, project.bias)
        return F.linear(wide.permute(0, 2, 3, 1), weight[0], project.bias).permute(0, 3, 1, 2)

    def derive(self) -> dict[str, Tensor]:
        return {"taps": rearrange(self._depthwise().weight, "c 1 y x -> (y x) c").contiguous()}

    def sources(self) -> tuple[Tensor, ...]:
        return (self._depthwise().weight,)

    def _depthwise(self) -> nn.Conv2d:
        conv = self[3]
        assert isinstance(conv, nn.Conv2d)
        return conv

    @torch.no_grad()
    def prepare(self) -> None:
        for index in (0, 3, 7):
            conv, norm = self[index], self[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fold_batch_norm(conv, norm)
                self[index + 1] = nn.Identity()
        super().prepare()


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give `conv` the weights with which it does what conv and then norm (evaluation mode) did."""
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.copy_(conv.weight * scale[:, None, None, None])
    conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)


def gated_projection(x: Tensor, gates: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 conv of x * gates (B, C): the gates go into the weights, which are small."""
    weight = conv.weight[:, :, 0, 0] * gates[:, None]
    assert conv.bias is not None
    return projected(x, weight, conv.bias)


def projected(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution of each map of a batch by a weight of its own, (B, out, C)."""
    tokens = rearrange(x, "b c h w -> b (h w) c")
    out = torch.baddbmm(bias, tokens, rearrange(weight, "b o c -> b c o"))
    return rearrange(out, "b (h w) o -> b o h w", h=x.shape[2])


class CrossAttention(MaxViT):
    """MaxViT in which x attends to a context brought to its width by an MBConv."""

    def __init__(self, channels: int, context_channels: int, window: int) -> None:
        super().__init__(channels, window)
        self.proj_in = MBConv(context_channels, channels)

    def forward(self, x: Tensor, context: Rows, strips: Strips) -> Tensor:  # type: ignore[override]
        brought = self.proj_in(context, strips)
        return super().forward(x, brought.tensor(), strips)

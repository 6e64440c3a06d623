"""Optical flow: coarse estimation on the frames, refinement on the features (paper section 3.4, after VFIformer).

A pair of flows is (B, 4, H, W) float32: to frame 0 (dx, dy), then to frame 1, in pixels of its own map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.images import coarse_input, resized
from ..kernels.joins import channels_last, join
from ..kernels.positions import Bases
from ..kernels.refinement import FLOW, SEEN, WIDEST, correlation_features, cosines, gru_input, middle, moved
from ..padding import FLOW_MULTIPLE, flow_size
from ..rows.cpu import positionwise
from ..rows.cuts import WHOLE, Strips
from ..rows.tuning import Tuning
from .blocks import accumulate
from .preparation import Deriving, laid_out, multiple_of_8, zero_padded
from .squares import mean_around
from .warp import Neighbourhood, join_channels, resize, resize_flow, resize_times, warp


def _conv_prelu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1), nn.PReLU(out_channels))


def _positionwise(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Layers whose convs are 1x1."""
    for layer in layers:
        x = positionwise(x, layer) if isinstance(layer, nn.Conv2d) else layer(x)
    return x


class CoarseBlock(Deriving):
    """One scale of the coarse flow: works on its input shrunk by `scale`, gives flow at half the input's size."""

    def __init__(self, in_channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv0 = nn.Sequential(_conv_prelu(in_channels, width // 2, 2), _conv_prelu(width // 2, width, 2))
        self.convblock = nn.Sequential(*(_conv_prelu(width, width) for _ in range(8)))
        self.conv1 = nn.ConvTranspose2d(width, 4, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = resize(x, (int(height * self.scale), int(width * self.scale)))
        x = self.conv0(x.to(self.conv1.weight.dtype))
        x = self.conv1(accumulate(self.convblock(x), x))
        # Enlarging does not scale the values: they are in pixels of the output already.
        return resize(x.float(), (height // 2, width // 2))

    def _layers(self) -> list[tuple[nn.Conv2d, nn.PReLU]]:
        return [(conv, act) for conv, act in (*self.conv0, *self.convblock)]

    def _weights(self) -> dict[str, Tensor]:
        """The layers' weights as :meth:`refined` takes them, before their channels are a multiple of 8."""
        weights: dict[str, Tensor] = {"last": self.conv1.weight}
        for number, (conv, act) in enumerate(self._layers()):
            assert conv.bias is not None
            weights |= {f"weight{number}": conv.weight, f"bias{number}": conv.bias, f"slope{number}": act.weight}
        return weights

    def derive(self) -> dict[str, Tensor]:
        """Those whose channels are no multiple of 8, with zeros up to one."""
        tensors = {}
        for name, weight in self._weights().items():
            channels = weight.shape[:2]
            sides = [multiple_of_8(count) for count in channels]
            if sides != list(channels):
                tensors[name] = zero_padded(weight, *sides)
        return tensors

    def sources(self) -> tuple[Tensor, ...]:
        return tuple(self.parameters())

    def refined(self, frame0: Tensor, frame1: Tensor, flow: Tensor | None, places: Bases) -> Tensor:
        """The flow so far, if any, and what this scale adds to it, by kernels (see :meth:`CoarseFlow.estimates`)."""
        height, width = frame0.shape[-2:]
        tensors = self._weights() | self.derived()
        assert self.conv1.bias is not None
        x = coarse_input(frame0, frame1, flow, places, round(1 / self.scale), self.conv1.weight.dtype)
        first, strided, count = x, len(self.conv0), len(self.conv0) + len(self.convblock)
        for number in range(count):
            if number == strided:
                first = x
            stride = 2 if number < strided else 1
            x = F.conv2d(x, tensors[f"weight{number}"], None, stride=stride, padding=1)
            after = first if number == count - 1 else None
            x = join(x, tensors[f"bias{number}"], slope=tensors[f"slope{number}"], after=after)
        x = F.conv_transpose2d(x, tensors["last"], None, stride=2, padding=1)
        return resized(x, (height // 2, width // 2), bias=self.conv1.bias, other=flow, channels=4)


#: Places along a side whose differences are counted together, and what differs anyway, in the frames' own values.
_LIKE, _NOISE = 5, 0.03
#: How much less two frames have to differ along the other flow, as a share of both, for it to be taken in full.
_BETTER = 0.2


#: Rows of the frames on either side of which a strip's flow by the last scale is computed: its convs reach 39, and the
#: strip begins and ends at a multiple of 16.
COARSE_REACH = 48
#: Rows of a strip of a flow, at least: the rows on either side are computed twice.
LEAST_ROWS = 64


class CoarseFlow(nn.Module):
    """Flow at half the frames' size from the frames alone."""

    def __init__(self, widths: Sequence[int], sizes: int = 1, start: int = 0, turns: int = 1) -> None:
        """Make the networks of the three scales.

        Args:
            widths: of each of them, coarsest first.
            sizes: at how many sizes of the frames, from the smallest on, the flow is estimated anew. Of two estimates
                the one counts at every place along which the frames are more alike.
            start: shorter side of the smallest frames that it is estimated from, at least. From there it goes on to
                frames twice as large, with the last scale alone. 0, as in the published model, for none but the frames
                given.
            turns: how often the last scale works at each of the smaller sizes: every time from the frames as the flow
                so far brings them together, so that what moves far is reached step by step. At the frames given it
                works once.
        """
        super().__init__()
        self.sizes, self.start, self.turns = sizes, start, turns
        self.block0 = CoarseBlock(6, widths[0], 1 / 4)
        self.block1 = CoarseBlock(10, widths[1], 1 / 2)
        self.block2 = CoarseBlock(10, widths[2], 1.0)

    def forward(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        """frame0, frame1: (B, 3, H, W) float32, sides multiples of 16. Returns (B, 4, H / 2, W / 2)."""
        *_, flow = self.estimates(frame0, frame1)
        return flow

    def estimates(self, frame0: Tensor, frame1: Tensor) -> Iterator[Tensor]:
        """The flow after each scale, coarsest first, each at half the size of the frames that it is estimated from: the
        smallest, then larger ones up to those given. The last is the result."""
        pairs = [(frame0, frame1)]
        for size in self._smaller_sizes(frame0.shape[-2], frame0.shape[-1]):
            pairs.append((resize(pairs[-1][0], size), resize(pairs[-1][1], size)))
        smallest = pairs.pop()
        estimates = list(self._anew(*smallest))
        if pairs and self.turns > 1:
            estimates += self._by((self.block2,) * (self.turns - 1), *smallest, estimates[-1])
        yield from estimates
        flow = estimates[-1]
        for number, pair in enumerate(reversed(pairs), 1):
            flow = resize_flow(flow, (pair[0].shape[-2] // 2, pair[0].shape[-1] // 2))
            *_, flow = self._by((self.block2,) * (self.turns if number < len(pairs) else 1), *pair, flow)
            if number < self.sizes:
                *_, other = self._anew(*pair)
                flow = self._nearer(*pair, flow, other)
            yield flow

    def _smaller_sizes(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """Each about half of the one before, down to where the flow begins."""
        shorter = min(height, width)
        while self.start and (shorter := shorter // 2) >= self.start:
            height, width = flow_size(height, width, 0.5)
            yield height, width

    def finer(self, frame0: Tensor, frame1: Tensor, flow: Tensor, strips: Strips = WHOLE) -> Tensor:
        """A flow (B, 4, H, W) found in smaller frames, with what the last scale changes of it at half the size of the
        frames (B, 3, H, W) themselves. Their sides are multiples of 16.

        A strip is computed with the rows that the scale reaches on either side, and put into the flow given.
        """
        height, width = flow.shape[-2:]
        start = resize_times(flow, (height // 2, width // 2), 0.5)
        cuts = strips.cuts(flow.shape, multiple=FLOW_MULTIPLE, least=LEAST_ROWS)
        if len(cuts) == 1:
            if Tuning.of(flow.device).kernels:
                (found,) = self._by((self.block2,), frame0, frame1, start)
                return resized(found - start, (height, width), (2.0, 2.0), other=flow)
            change = self._change(self.block2, frame0, frame1, start)
            return torch.add(flow, resize(change, (height, width)), alpha=2.0)
        change = torch.empty_like(start)
        for a, b in cuts:
            first, last = max(a - COARSE_REACH, 0), min(b + COARSE_REACH, height)
            part = self._change(self.block2, frame0, frame1, start[:, :, first // 2 : last // 2], first)
            change[:, :, a // 2 : b // 2] = part[:, :, (a - first) // 2 : (b - first) // 2]
        for a, b in cuts:
            first, last = max(a // 2 - 1, 0), min(b // 2 + 1, height // 2)
            larger = resize(change[:, :, first:last], (2 * (last - first), width))
            flow[:, :, a:b].add_(larger[:, :, a - 2 * first : b - 2 * first], alpha=2.0)
        return flow

    @staticmethod
    def _nearer(frame0: Tensor, frame1: Tensor, flow: Tensor, other: Tensor) -> Tensor:
        """A flow, or at each place the other one where the frames are more alike along that: what is small and does not
        move with what is around it is lost in small frames."""
        with torch.no_grad():
            small = F.avg_pool2d(frame0, 2), F.avg_pool2d(frame1, 2)
            own, its = _unlike(*small, flow), _unlike(*small, other)
            share = ((own - its) / ((own + its + _NOISE) * _BETTER)).clamp_(0.0, 1.0)
        return torch.lerp(flow, other, share)

    def _anew(self, frame0: Tensor, frame1: Tensor) -> Iterator[Tensor]:
        """The flow after each of the three scales on frames of one size."""
        return self._by((self.block0, self.block1, self.block2), frame0, frame1, None)

    def _by(
        self, blocks: Sequence[CoarseBlock], frame0: Tensor, frame1: Tensor, flow: Tensor | None
    ) -> Iterator[Tensor]:
        """The flow so far, if any, as each of some scales goes on from there."""
        height, width = frame0.shape[-2:]
        if Tuning.of(frame0.device).kernels and height % FLOW_MULTIPLE == 0 and width % FLOW_MULTIPLE == 0:
            places = Bases.of(frame0)
            for block in blocks:
                flow = block.refined(frame0, frame1, flow, places)
                yield flow
            return
        for block in blocks:
            if flow is None:
                flow = block(torch.cat([frame0, frame1], dim=1))
            else:
                flow = flow + self._change(block, frame0, frame1, flow)
            yield flow

    @staticmethod
    def _change(block: CoarseBlock, frame0: Tensor, frame1: Tensor, flow: Tensor, top: int = 0) -> Tensor:
        """What a scale adds to a flow of half the size, for rows `top`.. of the frames."""
        full = resize(flow, (flow.shape[-2] * 2, frame0.shape[-1])) * 2.0
        warped = [warp(frame0, full[:, :2], top), warp(frame1, full[:, 2:], top)]
        change: Tensor = block(torch.cat([*warped, full], dim=1))
        return change


def _unlike(frame0: Tensor, frame1: Tensor, flow: Tensor) -> Tensor:
    """How much two frames differ along a flow (B, 4, H, W) at their size, around each place: (B, 1, H, W)."""
    difference = (warp(frame0, flow[:, :2]) - warp(frame1, flow[:, 2:])).abs_().mean(dim=1, keepdim=True)
    return mean_around(difference, _LIKE)


#: Rows on either side that a corrected flow depends on: of seven 3x3 convs one after the other.
REACH = 7
#: Positions up to which kernels of our own correct both flows as a batch: small maps leave a card idle, and of large
#: ones half are never there together.
_TOGETHER = 1 << 16


class RefineBlock(Deriving):
    """Correct both flows at one pyramid level, from the features they bring together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.occl_convs = nn.Sequential(
            nn.Conv2d(2 * width, width, 1), nn.PReLU(width), nn.Conv2d(width, width, 1), nn.PReLU(width),
            nn.Conv2d(width, 1, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.corr_convs = nn.Sequential(
            nn.Conv2d(9, width, 1), nn.PReLU(width), nn.Conv2d(width, width, 1), nn.PReLU(width)
        )
        self.flow_convs = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1), nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width),
        )  # fmt: skip
        self.motion_convs = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.PReLU(width))
        self.gru = nn.Sequential(
            nn.Conv2d(3 * width + 2, width, 3, padding=1), nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width),
        )  # fmt: skip
        self.flow_head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, features0: Tensor, features1: Tensor, flow: Tensor, strips: Strips = WHOLE) -> Tensor:
        """features: (B, C, H, W) of the two frames; flow: (B, 4, H, W). Returns the corrected flows.

        No norm looks at the whole map: a strip is computed with the rows that its convs reach on either side.
        """
        height = flow.shape[2]
        cuts = strips.cuts(flow.shape, least=LEAST_ROWS)
        tuning = strips.tuning_on(features0.device)
        if len(cuts) == 1:
            return self._corrected(features0, features1, flow, 0, tuning)
        result = torch.empty_like(flow, memory_format=torch.contiguous_format)
        for a, b in cuts:
            first, last = max(a - REACH, 0), min(b + REACH, height)
            strip = self._corrected(features0, features1, flow[:, :, first:last], first, tuning)
            result[:, :, a:b] = strip[:, :, a - first : b - first]
        return result

    def _corrected(self, features0: Tensor, features1: Tensor, flow: Tensor, top: int, tuning: Tuning) -> Tensor:
        """The corrected flows for rows `top`.. of the flow."""
        if tuning.kernels and features0.shape[1] <= WIDEST:
            return self._corrected_by_kernels(features0, features1, flow, top)
        seen0, seen1 = Neighbourhood.pair((features0, features1), flow, top, tuning)
        centres = join_channels(seen0.shape, [seen0, seen1])
        centre0, centre1 = centres.chunk(2, dim=1)
        weight = _positionwise(self.occl_convs, centres)
        middle = torch.lerp(centre1, centre0, weight)
        del weight
        conv = self.gru[0]
        assert isinstance(conv, nn.Conv2d)
        # The part of the first conv over the middle serves both flows.
        shared = F.conv2d(middle, conv.weight[:, : middle.shape[1]], conv.bias, padding=1)
        # Near 1, where cosines lie, half precision has two or three digits: what they lack of 1 goes in.
        lacking = [seen.cosine(middle).sub_(1.0).to(middle.dtype) for seen in (seen0, seen1)]
        del seen0, seen1, middle
        # One flow after the other: half of the maps are never there together.
        deltas = [
            self._delta(each, centre, own_flow, shared)
            for each, centre, own_flow in zip(lacking, (centre0, centre1), flow.chunk(2, dim=1), strict=True)
        ]
        return flow + torch.cat(deltas, dim=1)

    def _delta(self, lacking: Tensor, centre: Tensor, flow: Tensor, shared: Tensor) -> Tensor:
        """The correction (B, 2, H, W) float32 of one of the flows."""
        flow = flow.to(centre.dtype).contiguous(memory_format=torch.channels_last)
        conv, act = self.motion_convs
        assert isinstance(conv, nn.Conv2d)
        # A conv of maps side by side as the sum of a conv of each: they are never there together.
        h = F.conv2d(self._correlation_features(lacking), conv.weight[:, : centre.shape[1]], conv.bias, padding=1)
        h = act(accumulate(h, F.conv2d(self.flow_convs(flow), conv.weight[:, centre.shape[1] :], None, padding=1)))
        h = torch.cat([centre, h, flow], dim=1)
        conv, *rest = self.gru
        assert isinstance(conv, nn.Conv2d)
        h = F.conv2d(h, conv.weight[:, shared.shape[1] :], None, padding=1)
        h = accumulate(h, shared)
        for layer in (*rest, *self.flow_head):
            h = layer(h)
        return h.float()

    def _correlation_features(self, lacking: Tensor) -> Tensor:
        """corr_convs of cosines, given as what they lack of 1 (B, 9, H, W): the 1 goes into the first bias."""
        first, *rest = self.corr_convs
        assert isinstance(first, nn.Conv2d)
        bias = self._bias_of_lacking() if torch.is_grad_enabled() else self.derived()["cosine_bias"]
        return _positionwise(nn.Sequential(*rest), positionwise(lacking, first, bias))

    def _bias_of_lacking(self) -> Tensor:
        conv = self.corr_convs[0]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        return (conv.bias.float() + conv.weight.float().sum(dim=(1, 2, 3))).to(conv.weight.dtype)

    def sources(self) -> tuple[Tensor, ...]:
        (cosine, cosine_bias, *_), (flow, *_) = self.corr_convs.parameters(), self.flow_convs.parameters()
        (gru, *_), (*_, delta, _) = self.gru.parameters(), self.flow_head.parameters()
        return cosine, cosine_bias, flow, gru, delta

    def derive(self) -> dict[str, Tensor]:
        """What the kernels take: weights of the parts of a joined map, with zeros for channels that have no use."""
        cosine, _, flow, gru, delta = self.sources()
        width = delta.shape[1]
        return {
            "cosine_weight": F.pad(cosine.flatten(1), (0, SEEN - 9)),
            "cosine_bias": self._bias_of_lacking(),
            "flow_weight": laid_out(F.pad(flow, (0, 0, 0, 0, 9, SEEN - 11))),
            "middle_weight": laid_out(gru[:, :width]),
            "own_weight": laid_out(F.pad(gru[:, width:], (0, 0, 0, 0, 0, FLOW - 2))),
            "delta_weight": laid_out(F.pad(delta, (0, 0, 0, 0, 0, 0, 0, FLOW - 2))),
        }

    def _corrected_by_kernels(self, features0: Tensor, features1: Tensor, flow: Tensor, top: int) -> Tensor:
        """:meth:`_corrected` by kernels of our own: convolutions without bias, and what lies between two in a pass."""
        x0, x1 = channels_last(features0), channels_last(features1)
        along = [(x0, flow[:, :2]), (x1, flow[:, 2:])]
        bases, weights = Bases.of(x0), self.derived()
        blend = middle(x0, x1, flow, bases, top, list(self.occl_convs.parameters()))
        shared = F.conv2d(blend, weights["middle_weight"], padding=1)
        batch, _, rows, columns = flow.shape
        seen = blend.new_empty(2, batch, rows, columns, SEEN).permute(0, 1, 4, 2, 3)
        for (x, own_flow), own in zip(along, seen, strict=True):
            cosines(x, own_flow, blend, bases, top, own)
        del blend
        if batch * rows * columns <= _TOGETHER:
            delta0, delta1 = self._delta_by_kernels(seen.flatten(0, 1), along, bases, top, shared).chunk(2)
        else:
            delta0 = self._delta_by_kernels(seen[0], along[:1], bases, top, shared)
            delta1 = self._delta_by_kernels(seen[1], along[1:], bases, top, shared)
        *_, bias = self.flow_head.parameters()
        return moved(flow, delta0, delta1, bias)

    def _delta_by_kernels(
        self, seen: Tensor, along: Sequence[tuple[Tensor, Tensor]], bases: Bases, top: int, shared: Tensor
    ) -> Tensor:
        """The corrections of one flow, or of both, one after the other in the batch: (n B, 8, H, W), without bias.

        Args:
            seen: from :func:`cosines`, in the batch.
            along: for each flow the features that it leads to, and itself (B, 2, H, W).
            shared: the first conv of the GRU over what both flows share.
        """
        weights, count = self.derived(), len(along)
        batch, width, rows, columns = seen.shape[0], *shared.shape[1:]

        def empty(channels: int) -> Tensor:
            return seen.new_empty(batch, rows, columns, channels).permute(0, 3, 1, 2)

        _, bias, slope, weight, last_bias, last_slope = self.flow_convs.parameters()
        h = join(F.conv2d(seen, weights["flow_weight"], padding=1), bias, slope=slope)
        h = F.conv2d(h, weight, padding=1)
        both = empty(2 * width)
        join(h, last_bias, slope=last_slope, out=both[:, width:])
        del h
        _, _, slope, *last = self.corr_convs.parameters()
        correlation_features(
            seen, [weights["cosine_weight"], weights["cosine_bias"], slope, *last], both[:, :width]
        )  # fmt: skip
        weight, bias, slope = self.motion_convs.parameters()
        h = F.conv2d(both, weight, padding=1)
        del both
        gru = empty(2 * width + FLOW)
        for (x, own_flow), motion, out in zip(along, h.chunk(count), gru.chunk(count), strict=True):
            gru_input(x, own_flow, bases, top, motion, bias, slope, out)
        del h, motion, out
        _, bias, slope, weight, last_bias, last_slope = self.gru.parameters()
        h = F.conv2d(gru, weights["own_weight"], padding=1)
        del gru
        for part in h.chunk(count):
            join(part, bias, other=shared, slope=slope)
        del part
        h = join(F.conv2d(h, weight, padding=1), last_bias, slope=last_slope)
        weight, bias, slope, *_ = self.flow_head.parameters()
        h = join(F.conv2d(h, weight, padding=1), bias, slope=slope)
        return F.conv2d(h, weights["delta_weight"], padding=1)


class FlowRefinement(nn.Module):
    """Refine the coarse flow from pyramid level 3 (1/8 of the flow size) up to level 0, or to one before."""

    def __init__(self, pyramid_widths: Sequence[int], levels: int = 4) -> None:
        super().__init__()
        self.levels = tuple(range(3, 3 - levels, -1))
        for level in reversed(self.levels):
            self.add_module(f"rf_block{level + 1}", RefineBlock(pyramid_widths[level]))

    def block(self, level: int) -> RefineBlock:
        """What corrects the flow at a pyramid level."""
        block = self.get_submodule(f"rf_block{level + 1}")
        assert isinstance(block, RefineBlock)
        return block

    def forward(
        self, pyramid0: Sequence[Tensor], pyramid1: Sequence[Tensor], coarse: Tensor, strips: Strips = WHOLE
    ) -> Tensor:
        """pyramid*: levels 0..3; coarse: (B, 4, H / 2, W / 2). Returns (B, 4, H, W) at the size of the last level."""
        *_, flow = self.estimates(pyramid0, pyramid1, coarse, strips)
        return flow

    def estimates(
        self, pyramid0: Sequence[Tensor], pyramid1: Sequence[Tensor], coarse: Tensor, strips: Strips = WHOLE
    ) -> Iterator[Tensor]:
        """The flow after each level, from level 3 on; the last is the result."""
        flow = coarse
        for level in self.levels:
            size = pyramid0[level].shape[-2], pyramid0[level].shape[-1]
            flow = resize_times(flow, size, 0.25 if level == 3 else 2.0)
            flow = self.block(level)(pyramid0[level], pyramid1[level], flow, strips)
            yield flow

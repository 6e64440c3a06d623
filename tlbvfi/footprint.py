"""What a model and a pair of frames take of a device's memory, stage by stage.

The factors are read off the functions that each stage names, and can be counted there; those that a comment calls
measured were fitted to counted runs. All in all they hold within a tenth of what is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from .config import ModelParams
from .model import TLBVFI, convert_precision
from .modules.autoencoder import FLOW_LEVELS
from .modules.flow import LEAST_ROWS, REACH
from .modules.warp import neighbours_together
from .padding import flow_size
from .rows.cuts import Strips, wide_cuts

#: What is planned for; the CPU takes less, as its pieces are smaller.
_DEVICE = torch.device("cuda")
_FLOAT32 = 4
#: Bytes of a position of an image (three channels) and of a pair's flows (four), float32 both.
_IMAGE, _FLOW = 3 * _FLOAT32, 4 * _FLOAT32


@dataclass(frozen=True)
class Stage:
    """What is alive at the peak of a stage, in bytes, the weights excluded.

    Attributes:
        name: of the stage.
        kept: what the frames' features take that are still to be read.
        stored: the stage's own maps that exist from top to bottom.
        strip: what exists of the strip that is being computed, or of the whole map where it is not cut.
    """

    name: str
    kept: float
    stored: float
    strip: float

    @property
    def bytes(self) -> float:
        return self.kept + self.stored + self.strip


@torch.no_grad()  # as in a run: with gradients nothing is cut in pieces
def stages(
    params: ModelParams, padded: tuple[int, int], dtype: torch.dtype, flow_scale: float, strips: Strips
) -> list[Stage]:
    """The stages of a pair of frames that may be the widest ones.

    Args:
        padded: (height, width) that the model sees.
        dtype: the model's.
        strips: how its maps are cut; those that are cut are taken to be frugal.
    """
    pair = _Pair(params, padded, dtype.itemsize, flow_scale, strips)
    flows = [_coarse_flow(pair), _cosines(pair), _refinement(pair)]
    after = _decoder_in_strips(pair) if strips.frugal else _decoder_uncut(pair)
    return [_encoder(pair), *_wavelets(pair), *flows, *after]


@lru_cache(maxsize=8)
def weight_bytes(params: ModelParams, dtype: torch.dtype) -> int:
    """Bytes of a model's weights and of what it derives from them."""
    with torch.device("meta"):
        model = convert_precision(TLBVFI(params).finalize(), dtype)
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


class _Pair:
    """The quantities that the stages are made of, in bytes where nothing else is said.

    Attributes:
        widths: channels of the feature pyramid's levels.
        size: bytes of an element of the model's dtype.
        pixels: positions of a padded frame.
        flow_pixels: positions at which the flow is computed.
        same: whether that is the frame's size.
    """

    def __init__(
        self, params: ModelParams, padded: tuple[int, int], size: int, flow_scale: float, strips: Strips
    ) -> None:
        self.params, self.strips, self.size = params.autoencoder, strips, size
        self.widths = self.params.pyramid_widths
        self.padded, self.flow_padded = padded, flow_size(*padded, flow_scale)
        self.pixels, self.flow_pixels = padded[0] * padded[1], self.flow_padded[0] * self.flow_padded[1]
        self.same = self.flow_pixels == self.pixels

    def vector(self, level: int) -> int:
        """The features of one position of a pyramid level."""
        return self.widths[level] * self.size

    def map(self, level: int, width: int | None = None) -> float:
        """A pyramid level of one frame; a map of its sides as wide as the level `width`, where given."""
        return self.vector(level if width is None else width) * self.pixels / 4**level

    @property
    def image(self) -> int:
        return _IMAGE * self.pixels

    @property
    def flow(self) -> int:
        """The flows of a pair at the frames' size."""
        return _FLOW * self.pixels

    @property
    def level_flows(self) -> float:
        """The flows at the levels that are warped (`Decoder._level_flows`)."""
        return sum(self.flow / 4**level for level in range(1, FLOW_LEVELS))

    @property
    def for_flow(self) -> float:
        """What a frame's features hold for the flow alone: level 0, or a small image and its levels."""
        if self.same:
            return self.map(0)
        levels = sum(self.vector(level) / 4**level for level in range(FLOW_LEVELS))
        return (_IMAGE + levels) * self.flow_pixels

    @property
    def features(self) -> float:
        """The features of one frame (`FrameFeatures`)."""
        return self.image + self.for_flow + sum(self.map(level) for level in range(1, len(self.widths)))

    def features_at(self, level: int) -> float:
        """The features of both frames while the decoder reads `level`, where those of the first are spent: what the
        flow read is released, and so are the first frame's deeper levels."""
        deeper = sum(self.map(deep) for deep in range(level + 1, len(self.widths)))
        return 2 * self.features - self.for_flow - deeper

    def strip(self, level: int, halo: int = 1, wide: bool = False) -> int:
        """Positions of a strip of a level's map with a halo of rows on both sides; `wide`: as `wide_cuts` cuts it."""
        rows, columns = self.padded[0] >> level, self.padded[1] >> level
        shape = (1, 1, rows, columns)
        cut = (wide_cuts(shape, self.strips, _DEVICE) if wide else self.strips.cuts(shape))[0][1]
        return rows * columns if cut == rows else min(cut + 2 * halo, rows) * columns

    @property
    def few(self) -> bool:
        """Whether whole maps go as :attr:`.rows.tuning.Tuning.few_operations` says, without kernels of our own."""
        tuning = self.strips.tuning_on(_DEVICE)
        return tuning.few_operations and not tuning.kernels and self.strips.pixels is None

    @property
    def flow_strip(self) -> int:
        """Positions of a strip of the flow's refinement (`RefineBlock.forward`)."""
        rows, columns = self.flow_padded
        cut = self.strips.cuts((1, 1, rows, columns), least=LEAST_ROWS)[0][1]
        return self.flow_pixels if cut == rows else min(cut + 2 * REACH, rows) * columns


def _encoder(pair: _Pair) -> Stage:
    """`EncoderLevel.forward` of level 0, of a frame whose predecessor is kept."""
    images = 2 * pair.image  # the frame in [-1, 1] and in [0, 1]
    level0 = pair.map(0) if pair.same else 0
    # In strips: the block's first map, and of its result a strip and that strip padded. Uncut: the result, and padded.
    block, halved = pair.map(0, width=1), pair.map(1)
    strip = 2 * pair.vector(1) * pair.strip(0, halo=2) if pair.strips.frugal else block
    return Stage("encoder", pair.features, images + level0 + block + halved, strip)


#: Bytes of a position whose bands are made (`wavelet_channels`), float32: 21 joined and the 21 before, the low band at
#: two times, the clip of three, two grey frames. One more is measured.
_BANDS = _FLOAT32 * (21 + 21 + 2 + 3 + 2) + 1
#: The same for a whole map (`wavelet_channels_in_few`), float32, beside the joined ones: of the first pass, of the
#: second, and the clip.
_BANDS_IN_FEW = _FLOAT32 * (16 + 8 + 3)
#: Maps of half the sides: `conv_in`'s, and what there is of the next; measured.
_HALVED = 1.1


def _wavelets(pair: _Pair) -> list[Stage]:
    """`FrequencyExtractor.forward`: the bands, and the first `FrequencyBlock`."""
    kept, halved = 2 * pair.features, pair.map(0) / 4
    share = min(1.0, pair.strip(0) / (pair.pixels / 4))  # of the halved map, whose strips have as many positions
    normed, for_conv = share * halved, share * halved
    if pair.few:
        bands = (_BANDS_IN_FEW + 21 * pair.size) * pair.pixels
    else:
        bands = _BANDS * pair.strip(0, halo=2, wide=True)
    return [
        Stage("wavelet bands", kept, _HALVED * halved, bands),
        Stage("wavelet blocks", kept, _HALVED * halved, normed + for_conv),
    ]


#: Bytes of a position of the coarse flow's last scale (`CoarseFlow.estimates`), float32: what the block takes, the
#: flow at the full size, the warped frames, two estimates at half the sides. Two more are measured.
_COARSE = _FLOAT32 * (10 + 4 + 6 + 2 * 4 / 4) + 2


def _coarse_flow(pair: _Pair) -> Stage:
    """`CoarseBlock.forward` of the last scale, which is never cut."""
    converted = 10 * pair.size if pair.size < _FLOAT32 else 0  # what the block takes, in the model's dtype
    conv = prelu = pair.params.flow_widths[-1] / 2 * pair.size / 4  # the first ones: half the width, half the sides
    return Stage(
        "coarse flow", 2 * pair.features, (_COARSE + converted) * pair.flow_pixels, (conv + prelu) * pair.flow_pixels
    )


#: Bytes of the flows at a position of the strip: to be corrected, of the level before, of the one before that, coarse.
_FLOWS = _FLOW * (1 + 1 / 4 + 1 / 16 + 1 / 4)
#: The same in strips, at a position of the whole map: to be corrected, the result, of the level before, coarse.
_FLOWS_BESIDE = _FLOW * (1 + 1 + 1 / 4 + 1 / 4)
#: Bytes of a position whose cosines are taken (`Neighbourhood.cosine`), four each: by four taps, `corner`, the pairs
#: `beside` and `above`, their indices and weights; along both sides, the places, six weights each, and `first`; eight
#: cosines, the length, and the other frame's nine; the positions in both frames; three lists of `embedding_bag`.
_SAMPLED = 4 * (4 * (1 + 3 + 3 + 1 + 1) + (2 + 2 * 6 + 1) + (8 + 1 + 9) + 2 * 2 + 3) + _FLOWS


def _sampled_in_few(pair: _Pair) -> int:
    """The same where whole maps go so (`Neighbourhood._cosine_in_few`): both frames' places and weights, indices of the
    first taps, three times nine cosines, the length, and what is kept of the other frame's."""
    return 2 * (8 + 4 * pair.size) + 3 * 4 + 4 * (3 * 9 + 1) + 9 * pair.size + round(_FLOWS)


def _cosines(pair: _Pair) -> Stage:
    """`RefineBlock._corrected` at level 0, as the second frame's cosines are taken."""
    centres, middle, shared, padded = 2, 1, 1, int(pair.few)
    maps = (centres + middle + shared + padded) * pair.vector(0)
    copy, product = pair.vector(0), pair.widths[0] * _FLOAT32
    tuning = pair.strips.tuning_on(_DEVICE)
    at_a_time = min(pair.flow_strip, tuning.gathered_positions)
    together = neighbours_together(at_a_time, tuning) if pair.few else 1
    sampled = _sampled_in_few(pair) if pair.few else _SAMPLED
    strip = maps * pair.flow_strip + ((copy + product) * together + sampled) * at_a_time
    return Stage("refinement, cosines", 2 * pair.features, _flows_beside(pair), strip)


def _refinement(pair: _Pair) -> Stage:
    """`RefineBlock._delta` at level 0, of the second flow, as the GRU takes what was joined."""
    centres, shared, motion, joined = 2, 1, 1, 2
    maps = (centres + shared + motion + joined) * pair.vector(0)
    cosines = 2 * 9 * pair.size
    flows = _FLOWS + 2 * _FLOAT32 + 2 * 2 * _FLOAT32  # and the first delta; the flow for the convs, and joined
    return Stage("refinement", 2 * pair.features, _flows_beside(pair), (maps + cosines + flows) * pair.flow_strip)


def _flows_beside(pair: _Pair) -> float:
    """The flows that exist beside a strip's own; uncut these are all."""
    return _FLOWS_BESIDE * pair.flow_pixels if pair.strips.frugal else 0


def _decoder_in_strips(pair: _Pair) -> list[Stage]:
    """The two widest levels of the decoder, and the head."""
    flows = pair.flow + pair.level_flows
    entering, first_map, result = pair.map(1, width=2), pair.map(1), pair.map(1)
    block = Stage(
        "decoder, block at level 1",  # `ResnetBlock.forward`
        pair.features_at(1),
        flows + entering + first_map + result,
        3 * pair.vector(1) * pair.strip(1),  # normed, the same padded at the map's ends, the second conv's
    )
    head = Stage(
        "head",  # `Decoder._synthesised`: one map is written over the other
        pair.features_at(0),
        pair.flow + pair.map(0, width=1) + pair.image,
        2 * pair.vector(1) * pair.strip(0, halo=2),  # a conv's, and its differences from a mean, for the moments
    )
    return [block, _attention(pair, 1), _attention(pair, 2), head]


#: Maps of a strip in `CrossAttention`: in `MBConv` three times four, with the halo; in `MaxViT` twice four in the
#: feed-forward and six more, without. Measured between the two.
_ATTENTION = 13


def _attention(pair: _Pair, level: int) -> Stage:
    """`CrossAttention.forward` at a level, in strips: the map, and the context brought to its width."""
    stored = pair.flow + pair.level_flows + 2 * pair.map(level)
    strip = _ATTENTION * pair.vector(level) * pair.strip(level, wide=True)
    return Stage(f"decoder, attention at level {level}", pair.features_at(level), stored, strip)


#: Maps of level 1 in the decoder where it is not cut (`CrossAttention.forward`): one and the four of `MBConv`'s hidden
#: map, and of a piece (:func:`.rows.cuts.pieces`) the three times four; both measured.
_UNCUT, _PIECE = 5.6, 10.5
#: The same where a piece is the map: the two, twice four of the feed-forward, and four more.
_UNCUT_MOST = 2 + 2 * 4 + 4
#: Bytes of a position for the sums of the head's moments; measured.
_SUMS = 3
#: Bytes of a position of the new frame (`Decoder._synthesised`), float32: four gates, and of three channels the
#: residual, two warped frames, their blend, and that with the residual. One more is measured.
_BLEND = _FLOAT32 * (4 + 5 * 3) + 1


def _decoder_uncut(pair: _Pair) -> list[Stage]:
    """The widest level of the decoder, the head's first norm, and the new frame."""
    kept = 2 * pair.features
    piece = pair.strip(1, wide=True) / (pair.pixels / 4)
    maps = min(_UNCUT_MOST, _UNCUT + _PIECE * piece)
    last = normed = pair.map(0, width=1)
    return [
        Stage("decoder", kept, pair.flow + pair.level_flows, maps * pair.map(1)),
        Stage("head", kept, pair.flow + last, normed + _SUMS * pair.pixels),
        Stage("new frame", kept, pair.flow, _BLEND * pair.pixels),
    ]

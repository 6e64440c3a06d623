"""Maps in strips against whole ones: the same to rounding, nothing at the edges, and less memory."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tiny import TINY, TINY_BUILT_IN, frames, tiny_model
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.counting import counting
from tlbvfi.model import TLBVFI
from tlbvfi.modules import autoencoder, blocks, flow, maxvit, wavelet
from tlbvfi.modules.autoencoder import FLOW_LEVELS
from tlbvfi.modules.blocks import AlignedConv, ClipConv, Upsample
from tlbvfi.modules.maxvit import MaxViT, PreNorm
from tlbvfi.modules.preparation import Deriving, laid_out, laid_out_copy, prepare, stacked
from tlbvfi.modules.unet import BandedConv
from tlbvfi.rows import lazy
from tlbvfi.rows.activations import silu
from tlbvfi.rows.cpu import positionwise
from tlbvfi.rows.cuts import WHOLE, Cut, Strips, halved
from tlbvfi.rows.lazy import (
    Rows,
    convolved,
    materialise,
    materialise_over,
    normed,
    pointwise,
    read_once,
    stored,
)
from tlbvfi.rows.moments import Moments, channel_sums
from tlbvfi.rows.owned import Owned
from tlbvfi.rows.tuning import Tuning, tuned

#: Decibels by which strips and whole may differ at most: rounding gives more, any mistake gives less.
EQUAL = 110.0
#: Modules that take the layers of :mod:`tlbvfi.rows.lazy` by name.
USERS = (autoencoder, blocks, lazy, maxvit, wavelet)
#: The tuning of this machine.
CPU = Tuning.of(torch.device("cpu"))
#: Without the small pieces that what is wide otherwise goes in.
ONE_PIECE = Strips(tuning=replace(CPU, piece_positions=1 << 40))


@pytest.fixture(scope="module", autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> TLBVFI:
    return tiny_model()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uneven(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A map whose rows have statistics of their own, so that those of a strip are not those of the map."""
    down = torch.linspace(0, 1, height)[:, None]
    x = randn(batch, channels, height, width, seed=seed) * (0.5 + 1.5 * down) + 3 * down
    return x.contiguous(memory_format=torch.channels_last)


def smooth_flow(batch: int, height: int, width: int, size: float = 3.0) -> Tensor:
    """Flows (B, 4, H, W) of some pixels, beyond the borders in places."""
    coarse = randn(batch, 4, max(2, height // 8), max(2, width // 8), seed=9) * size
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """Small random weights, layers as wide in effect as they are deep."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module.eval().requires_grad_(False)


def decibels(result: Tensor, whole: Tensor) -> float:
    """PSNR over the range of the whole; infinite where both are the same."""
    assert result.shape == whole.shape
    assert whole.isfinite().all()
    peak = float(whole.double().max() - whole.double().min())
    error = float((result.double() - whole.double()).square().mean())
    assert peak > 0
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def all_rows(rows: Rows, strips: Strips, least: int = 1) -> Tensor:
    """A map read in strips."""
    return materialise(rows, strips.cuts(rows.shape, least=least)).tensor()


# --- Cuts ---


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 3), st.integers(1, 5000), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=50, deadline=None)
def test_cuts_cover_every_row_once(height: int, width: int, batch: int, pixels: int, multiple: int) -> None:
    cuts = Strips(pixels).cuts((batch, 7, height, width), multiple, least=5)
    assert [row for a, b in cuts for row in range(a, b)] == list(range(height))
    sizes = [b - a for a, b in cuts]
    assert all(size == sizes[0] for size in sizes[:-1])
    assert len(sizes) == 1 or sizes[0] % multiple == 0
    assert sizes[0] * batch * width <= pixels or sizes[0] <= max(multiple, 5)
    assert WHOLE.cuts((batch, 7, height, width), multiple) == [(0, height)]


def cuts_of(height: int, marks: set[int], step: int = 1) -> list[Cut]:
    """Cuts of a map at the marks, rounded down to a multiple."""
    edges = sorted({0, height, *(mark // step * step for mark in marks if mark < height)})
    return list(zip(edges, edges[1:], strict=False))


# --- Layers of which any rows can be read ---


@given(
    height=st.integers(5, 40), kernel=st.sampled_from([1, 3, 5]), stride=st.sampled_from([1, 2, 4]),
    padding=st.integers(0, 2), below=st.sampled_from([None, 0, 1]), groups=st.sampled_from([1, 4]),
    batch=st.integers(1, 2), marks=st.sets(st.integers(1, 39), max_size=6),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_convolutions_in_any_cuts(
    height: int, kernel: int, stride: int, padding: int, below: int | None, groups: int, batch: int, marks: set[int]
) -> None:
    # What is 1x1 goes as a linear map of positions.
    assume(padding <= kernel // 2 and (kernel > 1 or stride == groups == 1 and not below))
    conv = randomised(nn.Conv2d(4, 8, kernel, stride, padding if below is None else 0, groups=groups))
    x = uneven(batch, 4, height, 9)
    expected = conv(F.pad(x, (0, below or 0, 0, below or 0)))
    rows = convolved(stored(x), conv, below)
    assert rows.shape == expected.shape
    result = materialise(rows, cuts_of(rows.height, marks)).tensor()
    assert decibels(result, expected) > EQUAL


@pytest.mark.parametrize("linear", [False, True])
def test_positionwise_is_a_convolution(linear: bool) -> None:
    conv, x = randomised(nn.Conv2d(12, 5, 1)), uneven(2, 12, 13, 7)
    found = positionwise(x, conv, tuning=replace(CPU, linear_pointwise=linear))
    assert decibels(found, F.conv2d(x, conv.weight, conv.bias)) > EQUAL


def test_what_is_counted_without_a_card_is_what_a_card_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, meta = Tuning.of(torch.device("cuda")), Tuning.of(torch.device("meta"))
    assert cuda.few_operations and meta.few_operations and not CPU.few_operations
    assert cuda.fused_gather and not Tuning.of(torch.device("mps")).fused_gather
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert Tuning.of(torch.device("cpu")).linear_pointwise == (threads == 1)


@given(st.integers(1, 24), st.integers(1, 2), st.sets(st.integers(1, 47), max_size=6))
@settings(max_examples=40, deadline=None)
def test_enlarging_is_repeating_pixels_then_a_convolution(height: int, batch: int, marks: set[int]) -> None:
    layer = randomised(Upsample(6))
    x = uneven(batch, 6, height, 5)
    expected = layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    rows = layer(stored(x))
    result = materialise(rows, cuts_of(2 * height, marks, step=2)).tensor()
    assert decibels(result, expected) > EQUAL


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [1, 3, (1, 1, 1), (3, 1, 1)])
def test_clip_convolutions_are_three_dimensional_ones(size: int | tuple[int, int, int], batch: int) -> None:
    conv = randomised(ClipConv(6, 4, size))
    x = randn(batch, 6, 3, 7, 5)
    expected = F.conv3d(x, conv.weight, conv.bias, padding=tuple(side // 2 for side in conv.kernel_size))
    for _ in range(2):
        as_batch = conv(rearrange(x, "b c t h w -> (b t) c h w"))
        assert decibels(rearrange(as_batch, "(b t) c h w -> b c t h w", t=3), expected) > EQUAL
        prepare(conv)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_banded_convolutions_are_three_dimensional_ones(size: int, batch: int) -> None:
    conv = randomised(BandedConv(6, 4, size))
    x = randn(batch, 6, 3, 7, 5)
    expected = F.conv3d(x, conv.weight, conv.bias, padding=size // 2)
    for _ in range(2):
        assert decibels(conv(x), expected) > EQUAL
        conv.prepare()


CLIP = randn(1, 6, 3, 7, 5)
DERIVING: dict[str, tuple[Callable[[], Deriving], Callable[[Any], Tensor], Callable[[Any], Tensor]]] = {
    "banded": (
        lambda: BandedConv(6, 4, 3),
        lambda layer: layer(CLIP),
        lambda layer: F.conv3d(CLIP, layer.weight, layer.bias, padding=1),
    ),
    "enlarging": (
        lambda: Upsample(6),
        lambda layer: layer(stored(CLIP[:, :, 0])).read(0, 2 * CLIP.shape[3]),
        lambda layer: layer.conv(F.interpolate(CLIP[:, :, 0], scale_factor=2.0, mode="nearest")),
    ),
    "aligned": (
        lambda: AlignedConv(6, 4, 3, padding=1),
        lambda layer: layer.apart(layer.filled_up(CLIP[:, :, 0]))[0],
        lambda layer: F.conv2d(CLIP[:, :, 0], layer.weight, layer.bias, padding=1),
    ),
}


@pytest.mark.parametrize("kind", DERIVING)
def test_what_is_derived_from_weights_follows_them(kind: str) -> None:
    build, call, expected = DERIVING[kind]
    layer = randomised(build())
    plain = set(layer.state_dict())

    def check(kept: bool) -> None:
        calls: list[None] = []
        derive = layer.derive
        layer.derive = lambda: (calls.append(None), derive())[1]  # type: ignore[method-assign]
        result = call(layer)
        del layer.derive
        assert bool(calls) != kept
        assert decibels(result, expected(layer)) > EQUAL

    check(kept=False)
    layer.prepare()
    check(kept=True)
    holder: Any = layer.conv if isinstance(layer, Upsample) else layer
    holder.weight.mul_(2.0)
    check(kept=False)
    layer.prepare()
    holder.weight = nn.Parameter(holder.weight * 3.0)
    check(kept=False)
    layer.prepare()
    layer.load_state_dict({name: value + 1.0 for name, value in layer.state_dict().items()})
    check(kept=False)
    layer.prepare()
    layer.to(torch.device("cpu"))
    check(kept=True)
    assert set(layer.state_dict()) == plain
    with torch.enable_grad():
        call(layer.requires_grad_()).sum().backward()
    assert holder.weight.grad.abs().min() > 0


@pytest.mark.parametrize("side", [1, 3])
def test_clip_convolutions_that_merge_the_frames(side: int) -> None:
    conv = randomised(ClipConv(6, 4, (3, side, side), merge_frames=True))
    x = randn(2, 6, 3, 7, 5)
    expected = F.conv3d(x, conv.weight, conv.bias, padding=(0, side // 2, side // 2))[:, :, 0]
    assert decibels(conv(rearrange(x, "b c t h w -> (b t) c h w")), expected) > EQUAL


@given(st.integers(5, 60), st.integers(4, 12), st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_a_map_is_stored_over_what_it_is_computed_from(height: int, rows: int, batch: int) -> None:
    """Two convs over a map that is overwritten by the result, which is narrower; every row is read once."""
    first, second = randomised(nn.Conv2d(4, 4, 3, padding=1)), randomised(nn.Conv2d(4, 3, 3, padding=1), 1)
    x = uneven(batch, 4, height, 6)
    expected = second(first(torch.sin(x)))
    read: list[int] = []

    def counted(a: int, b: int) -> Tensor:
        read.extend(range(a, b))
        return torch.sin(x[:, :, a:b])

    cuts = Strips(rows * 6 * batch).cuts((batch, 4, height, 6))
    result = materialise_over(x, Rows((batch, 4, height, 6), counted), (first, second), cuts)
    assert read == list(range(height))
    assert result.tensor().data_ptr() == x.data_ptr() and not result.writable
    assert decibels(result.tensor(), expected) > EQUAL
    assert result.moments is not None
    torch.testing.assert_close(result.moments.channels()[0], expected.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


# --- Moments ---


@given(
    height=st.integers(1, 60), marks=st.sets(st.integers(1, 59), max_size=6), batch=st.integers(1, 2),
    centre=st.sampled_from([(0.0, 1.0), (-3.0, 0.01), (1000.0, 1.0), (1000.0, 0.1), (1e5, 1.0)]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]), chunk=st.sampled_from([64, 1 << 19]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_merged_moments_are_those_of_the_map(
    height: int, marks: set[int], batch: int, centre: tuple[float, float], layout: torch.memory_format, chunk: int
) -> None:
    """Against float64, where sums of squares in float32 would lose all."""
    mean, std = centre
    x = (uneven(batch, 8, height, 11) * std + mean).contiguous(memory_format=layout)
    moments = Moments(replace(CPU, summed_elements=chunk))
    for a, b in cuts_of(height, marks):
        moments.add(x[:, :, a:b])
    step = torch.finfo(torch.float32).eps * abs(mean)  # what a number of this size is rounded by
    for dims, (found_mean, found_variance) in (
        ((2,), moments.channels()), ((2, 3), moments.groups(4)),
    ):  # fmt: skip
        parts = rearrange(x.double(), "b c h w -> b c (h w)")
        parts = parts if len(dims) == 1 else rearrange(parts, "b (g c) p -> b g c p", g=4)
        variance, expected = torch.var_mean(parts, dim=dims, correction=0)
        spread = variance.sqrt()
        assert ((found_mean - expected).abs() <= 1e-5 * spread + 2 * step).all()
        assert ((found_variance - variance).abs() <= 1e-5 * variance + 8 * step * spread + step**2).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 64, 40, 33)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sums_of_channels_are_float32_sums(
    dtype: torch.dtype, shape: tuple[int, int, int, int], layout: torch.memory_format
) -> None:
    """In pieces too, of which the last is shorter; half precision would be off by a thousandth and more."""
    x = (uneven(*shape) + 2.0).to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        sums = channel_sums(x, replace(CPU, summed_elements=1 << 13))
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), x.double().sum(dim=(2, 3)), rtol=1e-6, atol=0.0)


# --- Every stage alone ---

WIDTH = 24
#: Strips of 12 and 52 rows (batch 1), 6 and 26 (batch 2) of maps WIDTH wide; the last one is shorter.
PIXELS = (12 * WIDTH + 5, 52 * WIDTH + 5)

Stage = Callable[[TLBVFI, int, Strips], Tensor]


def encoder_level(level: int) -> Stage:
    def run(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
        layer = model.vqgan.encoder.down[level]
        channels = layer.block[0].conv1.in_channels
        return layer(stored(uneven(batch, channels, 88, WIDTH)), strips).read(0, 44)

    return run


def decoder_level(level: int) -> Stage:
    """ResNet block, attention at the deepest, cross attention, enlarging."""

    def run(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
        layer = model.vqgan.decoder.up[level]
        x = uneven(batch, layer.block[0].conv1.in_channels, 88, WIDTH)
        context = uneven(batch, layer.cross_attn.proj_in[0].in_channels, 88, WIDTH, seed=1)
        return all_rows(layer(Owned(stored(x)), stored(context), strips), strips)

    return run


def resnet_block(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
    block = model.vqgan.decoder.up[2].block[0]
    return all_rows(block(stored(uneven(batch, block.conv1.in_channels, 90, WIDTH)), strips), strips)


def pyramid(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
    """The encoder down to the latent, with level 0 computed where it is read."""
    levels = model.vqgan.encoder.pyramid(uneven(batch, 3, 384, 2 * WIDTH + 80), 5, strips, first=False)
    assert levels[0] is None and levels[-1] is not None
    return levels[-1]


def frequency(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
    pair = (uneven(batch, 3, 352, WIDTH, seed=i) for i in range(2))
    return model.vqgan.encoder.frequency_extractor(*pair, strips)


def refine_block(height: int) -> Stage:
    def run(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
        pair = (uneven(batch, 8, height, WIDTH, seed=i) for i in range(2))
        return model.vqgan.decoder.refinenet.block(0)(*pair, smooth_flow(batch, height, WIDTH), strips)

    return run


def refinement(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
    """All levels of the flow's refinement; the strip at the end is shorter than the convs' reach."""
    widths = TINY.autoencoder.pyramid_widths
    pyramids = (
        [uneven(batch, widths[k], 560 >> k, 2 * WIDTH >> k, seed=i) for k in range(FLOW_LEVELS)] for i in range(2)
    )
    return model.vqgan.decoder.refinenet(*pyramids, smooth_flow(batch, 280, WIDTH), strips)


def mbconv(model: TLBVFI, batch: int, strips: Strips) -> Tensor:
    layer = model.vqgan.decoder.up[1].cross_attn.proj_in
    return layer(stored(uneven(batch, layer[0].in_channels, 90, WIDTH)), strips).read(0, 90)


def head(model: TLBVFI, batch: int, strips: Strips, height: int = 90) -> Tensor:
    """From the last decoder map to the frame; strips have sixteen rows at least."""
    decoder = model.vqgan.decoder
    x = stored(uneven(batch, decoder.conv_out.in_channels, height, WIDTH))
    x = materialise(x, strips.cuts(x.shape), measure=True)
    pair = (uneven(batch, 3, height, WIDTH, seed=1) * 0.1, uneven(batch, 3, height, WIDTH, seed=2) * 0.1)
    return decoder._synthesised(Owned(x), pair, smooth_flow(batch, height, WIDTH), strips)


STAGES: dict[str, Stage] = {
    "encoder level 0": encoder_level(0),
    "encoder level 2": encoder_level(2),
    "encoder level with attention": encoder_level(4),
    "decoder level with attention": decoder_level(4),
    "decoder level 2": decoder_level(2),
    "decoder level 0": decoder_level(0),
    "resnet block": resnet_block,
    "pyramid": pyramid,
    "frequency branch": frequency,
    "refine block": refine_block(150),
    "refine block, two rows left": refine_block(130),
    "refinement": refinement,
    "mbconv": mbconv,
    "head": head,
}


@pytest.fixture(scope="module")
def whole(model: TLBVFI) -> Callable[[str, int], Tensor]:
    """A stage's result in one piece, computed once."""
    known: dict[tuple[str, int], Tensor] = {}

    def find(name: str, batch: int) -> Tensor:
        if (name, batch) not in known:
            known[name, batch] = STAGES[name](model, batch, ONE_PIECE)
        return known[name, batch]

    return find


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_in_strips(
    model: TLBVFI, whole: Callable[[str, int], Tensor], name: str, batch: int, pixels: int, frugal: bool
) -> None:
    assert decibels(STAGES[name](model, batch, Strips(pixels, frugal)), whole(name, batch)) > EQUAL


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("with_context", [False, True])
def test_attention_in_strips_is_the_plain_formula(batch: int, with_context: bool) -> None:
    """Windows and grid against the layers one after the other on the whole map in float64."""
    layer: MaxViT = randomised(MaxViT(8, 4))
    for norm in (layer.attn_block.norm, layer.ff_block.norm, layer.attn_grid.norm, layer.ff_grid.norm):
        norm.weight.add_(1.0)
    x = uneven(batch, 8, 44, 12)
    context = uneven(batch, 8, 44, 12, seed=1) if with_context else None
    results = [layer(x.clone(), context, Strips(rows * 12 * batch + 5)) for rows in (4, 12, 20)]
    layer = layer.double()
    tokens, other = (None if t is None else rearrange(t.double(), "b c h w -> b h w c") for t in (x, context))
    for attend, feed in ((layer.attn_block, layer.ff_block), (layer.attn_grid, layer.ff_grid)):
        assert isinstance(attend, PreNorm) and isinstance(tokens, Tensor)
        tokens = attend(tokens, tokens if other is None else other) + tokens
        tokens = feed(tokens) + tokens
    assert isinstance(tokens, Tensor)
    for result in results:
        assert decibels(result, rearrange(tokens, "b h w c -> b c h w")) > EQUAL


def test_attention_on_the_cpu_goes_in_pieces_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = randomised(MaxViT(8, 4)), uneven(1, 8, 44, 12)
    expected = layer(x.clone(), strips=ONE_PIECE)
    calls: list[int] = []
    plain = MaxViT._attended
    monkeypatch.setattr(MaxViT, "_attended", staticmethod(lambda *args: calls.append(1) or plain(*args)))
    strips = Strips(tuning=replace(CPU, piece_positions=8 * 12))
    assert decibels(layer(x.clone(), strips=strips), expected) > EQUAL
    assert len(calls) == 2 * 6


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize("widths", [(4, 4), (16, 8), (8, 4), (8, 16)])
def test_a_head_of_any_widths(widths: tuple[int, int], frugal: bool) -> None:
    """Also such whose maps do not fit over the one that they are computed from."""
    model = randomised(TLBVFI(replace(TINY, autoencoder=replace(TINY.autoencoder, head_widths=widths))))
    assert decibels(head(model, 1, Strips(PIXELS[0], frugal)), head(model, 1, WHOLE)) > EQUAL


# --- The whole model ---

HEIGHT, SIDE = 384, 128
#: Strips of 28 and 76 rows of a single frame: 384 is a multiple of neither.
MODEL_PIXELS = (28 * SIDE + 3, 76 * SIDE + 3)


def interpolated(model: TLBVFI, strips: Strips, scale: float = 0.5, batch: int = 1, height: int = HEIGHT) -> Tensor:
    """The middle of a moving picture, with the same noise every time."""
    pair = (torch.stack([frames(2, height, SIDE, seed=b)[i] for b in range(batch)]) for i in range(2))
    features = [model.encode_frame(x.permute(0, 3, 1, 2) * 2 - 1, scale, strips) for x in pair]
    noise = torch.Generator().manual_seed(1)
    return model.midpoint(features[0], features[1], 3, noise, strips=strips)


@pytest.fixture(scope="module")
def whole_model(model: TLBVFI) -> Callable[[float, int], Tensor]:
    known: dict[tuple[float, int], Tensor] = {}

    def find(scale: float, batch: int) -> Tensor:
        if (scale, batch) not in known:
            known[scale, batch] = interpolated(model, ONE_PIECE, scale, batch)
        return known[scale, batch]

    return find


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize(("batch", "pixels"), [(1, MODEL_PIXELS[0]), (1, MODEL_PIXELS[1]), (2, MODEL_PIXELS[1])])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_the_model_in_strips(
    model: TLBVFI, whole_model: Callable[[float, int], Tensor], scale: float, batch: int, pixels: int, frugal: bool
) -> None:
    result = interpolated(model, Strips(pixels, frugal), scale, batch)
    assert decibels(result, whole_model(scale, batch)) > EQUAL


@pytest.mark.parametrize("pixels", [MODEL_PIXELS[0], 100 * SIDE])
def test_what_the_built_in_model_does_besides_in_strips(pixels: int) -> None:
    own = TLBVFI(TINY_BUILT_IN)
    random_weights(own, 0)
    own.finalize()
    assert decibels(interpolated(own, Strips(pixels, frugal=True)), interpolated(own, ONE_PIECE)) > EQUAL


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_features_that_are_handed_over_are_freed_and_others_kept(model: TLBVFI, scale: float) -> None:
    strips = Strips(MODEL_PIXELS[0], frugal=True)
    pair = [x.permute(2, 0, 1)[None] * 2 - 1 for x in frames(2, 128, SIDE)]
    results = []
    for handed_over in ((False, False), (True, False), (True, True)):
        features: list[Any] = [model.encode_frame(x, scale, strips) for x in pair]
        levels = [
            [weakref.ref(level) for level in (*f.pyramid, *f.flow_pyramid) if level is not None] for f in features
        ]
        ends = [Owned(f) if handed else f for f, handed in zip(features, handed_over, strict=True)]
        kept = [f for f, handed in zip(features, handed_over, strict=True) if not handed]
        features.clear()
        results.append(model.midpoint(*ends, 3, torch.Generator().manual_seed(1), strips=strips))
        for end, handed, references in zip(ends, handed_over, levels, strict=True):
            assert all((reference() is None) == handed for reference in references)
            if handed:
                with pytest.raises(RuntimeError, match="taken already"):
                    end.take()
        for f in kept:
            model.midpoint(f, f, [0], strips=strips)  # once more
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_the_empty_frame_is_computed_once_for_features_that_know_it(
    model: TLBVFI, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [x.permute(2, 0, 1)[None] * 2 - 1 for x in frames(2, 128, SIDE)]
    noise = [randn(1, *model.latent_shape(128, SIDE)) for _ in range(2)]
    empty = model.encode_empty(128, SIDE)
    calls: list[int] = []
    plain = TLBVFI.encode_empty
    monkeypatch.setattr(TLBVFI, "encode_empty", lambda *args: calls.append(1) or plain(*args))
    first, last = (model.encode_frame(x) for x in pair)
    expected = model.midpoint(first, last, 3, noise)
    assert len(calls) == 1 and first.empty is last.empty and torch.equal(first.empty, empty)
    third = model.encode_frame(pair[0])
    assert torch.equal(model.midpoint(third, last, 3, noise), expected) and third.empty is last.empty
    known = model.encode_frame(pair[0], empty=empty)
    assert torch.equal(model.midpoint(known, model.encode_frame(pair[1]), 3, noise), expected)
    assert known[:1].empty is empty and type(known).cat([first[:0], known]).empty is first.empty
    assert len(calls) == 1


def test_a_midpoint_is_its_steps(model: TLBVFI) -> None:
    pair = [x.permute(2, 0, 1)[None] * 2 - 1 for x in frames(2, 128, SIDE)]
    noise = [randn(1, *model.latent_shape(128, SIDE)) for _ in range(2)]
    first, last = (model.encode_frame(x) for x in pair)
    expected = model.midpoint(first, last, 3, noise)
    latent = model.latent((first.deepest, model.encode_empty(128, SIDE), last.deepest), first.image, last.image)
    indices = model.vqgan.quantize.code_indices(model.denoise(latent, 3, noise))
    codes = model.vqgan.quantize.lookup(indices)
    pyramids = list(first.pyramid), list(last.pyramid)
    found = model.decode(codes, (first.image, last.image), pyramids, model.flows(first, last).full)
    assert torch.equal(found * 2 - 1, expected)


def test_sizes_that_do_not_go_are_named_width_first(model: TLBVFI) -> None:
    for width, height in ((200, 300), (256, 200), (200, 256)):
        with pytest.raises(ValueError, match=rf"^Width x height must be multiples of 128, not {width}x{height}; "):
            model.encode_frame(torch.zeros(1, 3, height, width))


# --- No seams ---


def seam(result: Tensor, whole: Tensor, cuts: list[Cut]) -> float:
    """How many times larger the error is in the rows next to an edge than in the others."""
    assert len(cuts) > 2
    near = torch.zeros(whole.shape[2], dtype=torch.bool)
    for start, _ in cuts[1:]:
        near[start - 2 : start + 2] = True
    error = (result.double() - whole.double()).square().mean(dim=(0, 1, 3))
    floor = 1e-15 * float(whole.max() - whole.min()) ** 2
    return float((error[near].mean()) / (error[~near].mean() + floor))


@pytest.mark.parametrize("frugal", [False, True])
def test_the_head_has_no_seams(model: TLBVFI, frugal: bool) -> None:
    """Large maps, so that there are enough rows at edges."""
    strips = Strips(PIXELS[0], frugal)
    cuts = strips.cuts((1, 3, 490, WIDTH), least=16)
    assert seam(head(model, 1, strips, 490), head(model, 1, WHOLE, 490), cuts) < 4


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_the_model_has_no_seams(model: TLBVFI, whole_model: Callable[[float, int], Tensor], scale: float) -> None:
    strips = Strips(MODEL_PIXELS[0], frugal=True)
    cuts = strips.cuts((1, 3, HEIGHT, SIDE), least=16)
    assert seam(interpolated(model, strips, scale), whole_model(scale, 1), cuts) < 4


# --- Faults that the comparison must see ---


def own_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every strip is normed by its own statistics."""

    def normed(rows: Rows, norm: nn.GroupNorm, strips: Strips, activation: Callable[[Tensor], Tensor]) -> Rows:
        return pointwise(rows, lambda x: activation(norm(x)))

    replace_everywhere(monkeypatch, "normed", normed)


def averaged_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strips' variances without what their means differ by."""

    def channels(self: Moments) -> tuple[Tensor, Tensor]:
        share = self.means[0].new_tensor(self.counts)[:, None, None] / sum(self.counts)
        return (torch.stack(self.means) * share).sum(dim=0), (torch.stack(self.variances) * share).sum(dim=0)

    monkeypatch.setattr(Moments, "channels", channels)


def short_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row that a convolution reads for a strip is missing."""
    plain = lazy.convolved

    def faulty(rows: Rows, conv: nn.Conv2d, below: int | None = None) -> Rows:
        def read(a: int, b: int) -> Tensor:
            x = rows.read(a, b)
            if b == rows.height or conv.kernel_size == (1, 1):
                return x
            return torch.cat([x[:, :, :-1], torch.zeros_like(x[:, :, -1:])], dim=2)

        return plain(Rows(rows.shape, read, rows.moments), conv, below)

    replace_everywhere(monkeypatch, "convolved", faulty)


def short_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow's refinement with one row less on either side."""
    monkeypatch.setattr(flow, "REACH", flow.REACH - 1)


def dropped_strip(fill: float) -> Callable[[pytest.MonkeyPatch], None]:
    """The second strip never arrives where maps are stored; the statistics know it."""

    def inject(monkeypatch: pytest.MonkeyPatch) -> None:
        plain = lazy.materialise

        def faulty(rows: Rows, cuts: list[Cut], measure: bool = False, out: Tensor | None = None) -> Rows:
            result = plain(rows, cuts, measure, out)
            if len(cuts) > 1:
                result.tensor()[:, :, slice(*cuts[1])] = fill
            return result

        replace_everywhere(monkeypatch, "materialise", faulty)

    return inject


def forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read again after they were overwritten."""
    replace_everywhere(monkeypatch, "remembering", lambda rows, reach: rows)


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    users = [module for module in USERS if hasattr(module, name)]
    assert users
    for module in users:
        monkeypatch.setattr(module, name, value)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], list[str]]] = {
    "moments of the strip": (
        own_moments,
        ["encoder level 0", "decoder level 0", "resnet block", "pyramid", "frequency branch", "head"],
    ),
    "averaged variances": (
        averaged_variances,
        ["encoder level 0", "decoder level 0", "resnet block", "pyramid", "frequency branch", "head"],
    ),
    "halo one row short": (
        short_halo,
        ["encoder level 0", "decoder level 0", "resnet block", "pyramid", "frequency branch", "mbconv", "head"],
    ),
    "reach one row short": (short_reach, ["refine block", "refine block, two rows left", "refinement"]),
    "a strip of zeros": (
        dropped_strip(0.0),
        ["encoder level 0", "decoder level 0", "resnet block", "pyramid", "frequency branch", "mbconv", "head"],
    ),
    "a strip left unwritten": (
        dropped_strip(float("nan")),
        ["encoder level 0", "decoder level 0", "resnet block", "pyramid", "frequency branch", "mbconv", "head"],
    ),
    "overwritten rows read again": (forgetting, ["head"]),
}


@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault, (_, names) in FAULTS.items() for name in names]
)  # fmt: skip
def test_a_fault_in_a_stage_shows(
    monkeypatch: pytest.MonkeyPatch, model: TLBVFI, whole: Callable[[str, int], Tensor], fault: str, name: str
) -> None:
    expected = whole(name, 1)
    FAULTS[fault][0](monkeypatch)
    assert decibels(STAGES[name](model, 1, Strips(PIXELS[0], frugal=True)), expected) < EQUAL


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_model_shows(
    monkeypatch: pytest.MonkeyPatch, model: TLBVFI, whole_model: Callable[[float, int], Tensor], fault: str
) -> None:
    expected = whole_model(1.0, 1)
    FAULTS[fault][0](monkeypatch)
    result = interpolated(model, Strips(MODEL_PIXELS[0], frugal=True), 1.0)
    assert decibels(result, expected) < EQUAL


def test_a_seam_shows(monkeypatch: pytest.MonkeyPatch, model: TLBVFI) -> None:
    expected = head(model, 1, WHOLE, 490)
    short_halo(monkeypatch)
    strips = Strips(PIXELS[0], frugal=True)
    assert seam(head(model, 1, strips, 490), expected, strips.cuts((1, 3, 490, WIDTH), least=16)) > 4


# --- Memory ---


def peak_of_a_midpoint(model: TLBVFI, strips: Strips) -> int:
    """Of features that are handed over."""
    empty = model.encode_empty(512, 256, strips)
    first, last = (
        Owned(model.encode_frame(x.permute(2, 0, 1)[None] * 2 - 1, strips=strips, empty=empty))
        for x in frames(2, 512, 256)
    )
    with counting(model) as counter:
        model.midpoint(first, last, [0], strips=strips)
    return counter.peak


def test_strips_take_less_memory(model: TLBVFI) -> None:
    """What is left are the images, the flow and two maps of their size."""
    whole, strips, frugal = (
        peak_of_a_midpoint(model, strips) for strips in (WHOLE, Strips(1 << 13), Strips(1 << 13, frugal=True))
    )
    pixels = 512 * 256
    assert whole < 185 * pixels
    assert strips < 143 * pixels
    assert frugal < 121 * pixels
    assert frugal < strips < whole


def test_a_map_that_is_read_once_is_its_readers() -> None:
    """Norms write over what nobody else reads, and over nothing else."""
    norm = blocks.group_norm(2, 4)
    with torch.no_grad():
        x = uneven(1, 4, 8, 8)
        before = x.clone()
        kept = normed(stored(x), norm, WHOLE, silu).read(0, 8)
        assert torch.equal(x, before)
        once = read_once(stored(x), [(0, 8)])
        taken = normed(once, norm, WHOLE, silu).read(0, 8)
        assert taken.data_ptr() == x.data_ptr()
        assert torch.equal(taken, kept)
        with pytest.raises(RuntimeError, match="taken already"):
            once.read(0, 8)
        assert not read_once(stored(before), [(0, 4), (4, 8)]).writable
    with torch.enable_grad():  # which may need it
        assert not read_once(stored(before), [(0, 8)]).writable


def test_what_is_owned_is_taken_once_and_not_kept() -> None:
    owned = Owned(torch.zeros(4))
    reference = weakref.ref(owned.borrow())
    assert owned.borrow() is owned.borrow()
    taken = owned.take()
    assert reference() is taken
    del taken
    assert reference() is None
    for again in (owned.take, owned.borrow):
        with pytest.raises(RuntimeError, match="taken already; it can be taken once"):
            again()


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3, 3, 3, 3), (5, 4), (7,), (8, 4, 1, 1), (8, 4, 3, 1, 1)])
def test_weights_lie_as_they_are_used(shape: tuple[int, ...]) -> None:
    weight = randn(*shape)
    for found in (laid_out(weight), laid_out_copy(weight, torch.float32)):
        assert torch.equal(found, weight)
        assert len(shape) != 4 or found.is_contiguous(memory_format=torch.channels_last)
        if len(shape) == 5:
            kernel = stacked(found)
            assert torch.equal(kernel, torch.cat(weight.unbind(2), dim=1))
            assert kernel.is_contiguous(memory_format=torch.channels_last)
            assert kernel.data_ptr() == found.data_ptr()
        assert laid_out(found).data_ptr() == found.data_ptr()
    assert laid_out_copy(weight, torch.float16).dtype == torch.float16


def test_a_tuning_holds_for_its_block() -> None:
    device, other = torch.device("cpu"), Tuning(ones=7)
    before = Tuning.of(device)
    with suppress(KeyError), tuned(other):
        assert Tuning.of(device) is other
        raise KeyError
    assert Tuning.of(device) is before


def test_cuts_of_half_the_height() -> None:
    assert halved([(0, 4), (4, 7)]) == [(0, 2), (2, 4)]

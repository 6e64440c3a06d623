"""Kernels at the frames' size and over the codebook, against the plain path."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.interpreted import DEVICE, HALVES, kernels, plain
from tests.tiny import tiny_model
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.kernels.codes import nearest_code
from tlbvfi.kernels.images import BAND_CHANNELS, bands, coarse_input, new_frame, resized
from tlbvfi.kernels.positions import Bases
from tlbvfi.modules.flow import CoarseFlow
from tlbvfi.modules.preparation import prepare
from tlbvfi.modules.quantize import VectorQuantizer
from tlbvfi.modules.warp import resize, resize_flow, warp
from tlbvfi.modules.wavelet import _GREY, _TAP, FrequencyExtractor, to_grey, wavelet_channels
from tlbvfi.rows.cuts import WHOLE, Strips
from tlbvfi.rows.lazy import Rows, materialise, stored
from tlbvfi.rows.owned import Owned


def decibels(got: Tensor, want: Tensor) -> float:
    """10 log10(range^2 / mse)."""
    got, want = got.double().cpu(), want.double().cpu()
    error = float((got - want).square().mean())
    return math.inf if error == 0 else 10 * math.log10(float(want.max() - want.min()) ** 2 / error)


def smooth(batch: int, channels: int, height: int, width: int, seed: int = 0, reach: float = 1.0) -> Tensor:
    """Smooth maps in -reach .. reach."""
    generator = torch.Generator().manual_seed(seed)
    phase, speed = torch.rand(2, batch, channels, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (reach * torch.sin(6 * phase + (0.1 + 0.3 * speed) * (x + 1.7 * y))).to(DEVICE)


def images(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two batches of images in [0, 1]."""
    return smooth(batch, 3, height, width) * 0.5 + 0.5, smooth(batch, 3, height, width, seed=1) * 0.5 + 0.5


def channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 6, 9), torch.float32), ((2, 9, 20), HALVES[-1]), ((1, 2, 2), torch.float32), ((1, 1, 3), torch.float32)],
)
def test_bands(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    image0, image1 = images(*shape)
    grey = [to_grey(image) for image in (image0, image1)]
    want = wavelet_channels(torch.stack([grey[0], torch.full_like(grey[0], 0.5 * sum(_GREY)), grey[1]], dim=1))
    got = bands(image0, image1, -1, shape[1] + 2, dtype, _GREY, _TAP)
    assert got.shape == (shape[0], BAND_CHANNELS, shape[1] + 2, shape[2]) and got.dtype == dtype and channels_last(got)
    assert not got[:, :, [0, -1]].any() and not got[:, 22:].any()
    inner = got[:, :, 1:-1]
    assert (inner[:, 21] == 1).all()
    if dtype == torch.float32:
        torch.testing.assert_close(inner[:, :21], want, atol=3e-7, rtol=0)
    else:
        torch.testing.assert_close(inner[:, :21], want.to(dtype), atol=1e-6, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("height", "strips"), [(8, WHOLE), (11, Strips(pixels=2 * 8 * 4))])
def test_frequency_extractor(height: int, strips: Strips) -> None:
    extractor = FrequencyExtractor(8, 16, 4).to(DEVICE)
    random_weights(extractor, 0)
    prepare(extractor)
    image0, image1 = images(2, height, 16)
    with plain():
        want = extractor._first(image0, image1, WHOLE).tensor()
    with kernels():
        got = extractor._first_in_one_pass(image0, image1, strips).tensor()
    assert got.shape == want.shape and decibels(got, want) > 120


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("top", "rows"), [(0, 13), (5, 4)])
def test_new_frame(top: int, rows: int, signed: bool) -> None:
    batch, height, width = 2, 13, 21
    image0, image1 = images(batch, height, width)
    # Some of it leads out of the image.
    flow = smooth(batch, 4, height, width, seed=2, reach=9.0)
    head = smooth(batch, 8, height, width, seed=3, reach=3.0).contiguous(memory_format=torch.channels_last)
    head = head[:, :, top : top + rows]
    bias = torch.tensor([0.5, -0.25, 0.0, 0.3], device=DEVICE)
    gates = torch.sigmoid(head[:, :4] + bias[:, None, None])
    own = flow[:, :, top : top + rows]
    warped0, warped1 = warp(image0, own[:, :2], top), warp(image1, own[:, 2:], top)
    want = (torch.lerp(warped1, warped0, gates[:, 3:]) + 2.0 * gates[:, :3] - 1.0).clamp(0.0, 1.0)
    want = want * 2.0 - 1.0 if signed else want
    got = new_frame(head, bias, image0, image1, flow, Bases.of(flow), top, signed)
    assert got.shape == want.shape and decibels(got, want) > 120


@pytest.mark.parametrize("strips", [WHOLE, Strips(pixels=16 * 16)])
def test_the_decoder_s_last_maps_and_flows(strips: Strips) -> None:
    decoder, height, width = tiny_model().to(DEVICE).vqgan.decoder, 24, 16
    pair, flow = images(1, height, width), smooth(1, 4, height, width, seed=2, reach=5.0)
    last = smooth(1, decoder.conv_out.in_channels, height, width, seed=3)

    def map_for_one_reader() -> Owned[Rows]:
        x = last.contiguous(memory_format=torch.channels_last)
        return Owned(materialise(stored(x), strips.cuts(x.shape), measure=True))

    with plain():
        want = decoder._synthesised(map_for_one_reader(), pair, flow, strips, signed=True)
        wanted = decoder._level_flows(flow)
    with kernels():
        got = decoder._synthesised(map_for_one_reader(), pair, flow, strips, signed=True)
        found = decoder._level_flows(flow)
    assert float(want.min()) < -0.5 and decibels(got, want) > 110
    for level, other in zip(found, wanted, strict=True):
        assert (level is None) == (other is None)
        if level is not None and other is not None:
            torch.testing.assert_close(level, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("warped", "shrink", "dtype"),
    [
        (False, 4, torch.float16),
        (False, 1, torch.float32),
        (True, 2, HALVES[-1]),
        (True, 2, torch.float32),
        (True, 1, torch.float32),
    ],
)
def test_coarse_input(warped: bool, shrink: int, dtype: torch.dtype) -> None:
    batch, height, width = 2, 16, 24
    frames = images(batch, height, width)
    flow, parts = None, list(frames)
    if warped:
        flow = smooth(batch, 4, height // 2, width // 2, seed=2, reach=3.0)
        full = resize(flow, (height, width)) * 2.0
        parts = [warp(frames[0], full[:, :2]), warp(frames[1], full[:, 2:]), full]
    want = resize(torch.cat(parts, dim=1), (height // shrink, width // shrink))
    got = coarse_input(*frames, flow, Bases.of(frames[0]), shrink, dtype)
    channels = want.shape[1]
    assert got.shape[1] == (16 if warped else 8) and got.dtype == dtype and channels_last(got)
    assert not got[:, channels:].any()
    if dtype == torch.float32:
        assert decibels(got[:, :channels], want) > 120
    else:
        torch.testing.assert_close(got[:, :channels], want.to(dtype), atol=1e-5, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("source", "size"), [((8, 12), (16, 24)), ((12, 8), (6, 4)), ((5, 7), (9, 3)), ((4, 6), (4, 6))]
)
def test_resized(source: tuple[int, int], size: tuple[int, int]) -> None:
    x = smooth(2, 8, *source).contiguous(memory_format=torch.channels_last)
    bias, other = torch.randn(4, device=DEVICE), smooth(2, 4, *size, seed=1)
    scale = torch.tensor([2.0, 3.0, 2.0, 3.0], device=DEVICE)
    want = (resize(x[:, :4], size) + bias[:, None, None]) * scale[:, None, None]
    got = resized(x, size, (2.0, 3.0), -1.0, bias, other, channels=4)
    assert got.is_contiguous() and decibels(got, want - 1.0 + other) > 120


def test_an_image_from_one_range_to_another() -> None:
    frame = smooth(1, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    assert torch.equal(resized(frame, (5, 7), (0.5, 0.5), 0.5), frame * 0.5 + 0.5)


def test_resize_flow() -> None:
    flow = smooth(1, 4, 6, 10)
    with plain():
        want = resize_flow(flow.clone(), (15, 22))
    with kernels():
        got = resize_flow(flow, (15, 22))
    assert decibels(got, want) > 120


def coarse_flow(dtype: torch.dtype = torch.float32) -> CoarseFlow:
    """Channels that are multiples of 8, and others."""
    flow = CoarseFlow((16, 12, 10))
    random_weights(flow, 0)
    flow = flow.to(DEVICE, dtype).requires_grad_(False)
    prepare(flow)
    return flow


@pytest.mark.parametrize("shape", [(1, 16, 32), (2, 16, 16)])
def test_coarse_flow(shape: tuple[int, int, int]) -> None:
    network, frames = coarse_flow(), images(*shape)
    with plain():
        wanted = list(network.estimates(*frames))
    with kernels():
        found = list(network.estimates(*frames))
    for got, want in zip(found, wanted, strict=True):
        assert got.shape == want.shape and float(want.std()) > 0.05 and decibels(got, want) > 120


@pytest.mark.parametrize("dtype", HALVES)
def test_coarse_flow_in_half_precision(dtype: torch.dtype) -> None:
    frames = images(1, 32, 32)
    with plain():
        want = coarse_flow(dtype).float()(*frames)
        usual = coarse_flow(dtype)(*frames)
    with kernels():
        got = coarse_flow(dtype)(*frames)
    assert decibels(got, want) > decibels(usual, want) - 1.0


@pytest.mark.parametrize("side", [16, 48, 64])
def test_coarse_flow_from_smaller_frames(side: int) -> None:
    network, frames = coarse_flow(), images(2, side, 64)
    network.sizes, network.start = 2, 16
    with plain():
        want = network(*frames)
    with kernels():
        got = network(*frames)
    assert decibels(got, want) > 115


@pytest.mark.parametrize(("height", "strips"), [(32, WHOLE), (192, Strips(2 * 64 * 48))])
def test_a_finer_flow(height: int, strips: Strips) -> None:
    network, frames = coarse_flow(), images(2, height, 48)
    flow = resize_flow(torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(5)).to(DEVICE), (height, 48))
    with plain():
        want = network.finer(*frames, flow.clone())
    with kernels():
        got = network.finer(*frames, flow.clone(), strips)
    assert float((want - flow).std()) > 0.05 and decibels(got, want) > 115


def test_coarse_flow_of_other_sizes() -> None:
    network, frames = coarse_flow(), images(1, 20, 24)
    with plain():
        want = network(*frames)
    with kernels():
        got = network(*frames)
    assert torch.equal(got, want)


@pytest.mark.parametrize(("codes", "channels"), [(2048, 3), (64, 3), (700, 4)])
def test_nearest_code(codes: int, channels: int) -> None:
    quantizer = VectorQuantizer(codes, channels).to(DEVICE)
    generator = torch.Generator().manual_seed(0)
    quantizer.embedding.weight.data = torch.randn(codes, channels, generator=generator).to(DEVICE)
    prepare(quantizer)
    z = torch.randn(2, channels, 3, 3, 5, generator=generator).to(DEVICE)
    with plain():
        want = quantizer.code_indices(z)
    with kernels():
        got = quantizer.code_indices(z)
    assert got.dtype == torch.int64 and torch.equal(got, want)


def test_the_lowest_code_on_a_tie() -> None:
    codes = torch.zeros(1100, 3, device=DEVICE)
    codes[:7] = 5.0
    z = torch.full((1, 3, 40), 0.1, device=DEVICE)
    z[0, :, 1] = math.nan
    found = nearest_code(z, codes, codes.square().sum(dim=1))[0]
    assert 0 <= int(found[1]) < 1100
    assert found[[0, *range(2, 40)]].tolist() == [7] * 39


def test_a_new_frame_shows_nan() -> None:
    image0, image1 = images(2, 5, 8)
    head = torch.zeros(2, 8, 5, 8, device=DEVICE).contiguous(memory_format=torch.channels_last)
    head[1, 2, 3, 4] = float("nan")
    flow = torch.zeros(2, 4, 5, 8, device=DEVICE)
    got = new_frame(head, torch.zeros(4, device=DEVICE), image0, image1, flow, Bases.of(flow), signed=True)
    assert got.isnan().nonzero().tolist() == [[1, 2, 3, 4]]

"""The pieces of the networks against plain formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny import TINY, frames, tiny_model
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.model import TLBVFI
from tlbvfi.modules import whole_pixels
from tlbvfi.modules.attention import attention
from tlbvfi.modules.blocks import group_norm
from tlbvfi.modules.flow import CoarseBlock, CoarseFlow, RefineBlock
from tlbvfi.modules.maxvit import MBConv, WindowAttention
from tlbvfi.modules.quantize import VectorQuantizer
from tlbvfi.modules.warp import Neighbourhood, resize_flow, warp, warp_all
from tlbvfi.modules.wavelet import haar_bands, to_grey, wavelet_channels, wavelet_channels_in_few
from tlbvfi.rows.cuts import WHOLE, Strips
from tlbvfi.rows.lazy import stored
from tlbvfi.rows.moments import group_normed
from tlbvfi.rows.tuning import Tuning


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("mean", "std", "tolerance"), [(0.8, 0.7, 2e-6), (1000.0, 1.0, 1e-3)])
def test_group_norm_statistics_are_exact(
    layout: torch.memory_format, mean: float, std: float, tolerance: float
) -> None:
    x = (randn(2, 16, 150, 200) * std + mean).contiguous(memory_format=layout)
    x[0, :, :75] += 3 * std  # halves with other means: the between term counts
    norm = group_norm(4, 16)
    with torch.no_grad():
        norm.weight.copy_(randn(16, seed=1))
        norm.bias.copy_(randn(16, seed=2))
        result = norm(x)
    expected = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)
    assert (result.double() - expected).abs().max() < tolerance
    assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("padding_mode_size", [(17, 23), (8, 8), (1, 9), (9, 1)])
def test_warp_is_border_padded_sampling(padding_mode_size: tuple[int, int]) -> None:
    height, width = padding_mode_size
    x, flow = randn(2, 5, height, width), randn(2, 2, height, width, seed=1) * 6
    columns, rows = torch.arange(width).float(), torch.arange(height).float()[:, None]
    position = torch.stack([(columns + flow[:, 0]), (rows + flow[:, 1])], dim=-1)
    expected = torch.empty_like(x)
    for b in range(2):
        for i in range(height):
            for j in range(width):
                px = position[b, i, j, 0].clamp(0, width - 1).item()
                py = position[b, i, j, 1].clamp(0, height - 1).item()
                left, top = min(int(px), max(width - 2, 0)), min(int(py), max(height - 2, 0))
                right, below = min(left + 1, width - 1), min(top + 1, height - 1)
                wx, wy = px - left, py - top
                upper = x[b, :, top, left] * (1 - wx) + x[b, :, top, right] * wx
                lower = x[b, :, below, left] * (1 - wx) + x[b, :, below, right] * wx
                expected[b, :, i, j] = upper * (1 - wy) + lower * wy
    assert (warp(x, flow) - expected).abs().max() < 2e-5


def test_warp_without_flow_is_the_picture() -> None:
    x = randn(1, 3, 31, 47)
    assert (warp(x, torch.zeros(1, 2, 31, 47)) - x).abs().max() < 5e-5


def test_warp_moves_where_the_flow_points() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 6] = 1.0
    flow = torch.zeros(1, 2, 9, 9)
    flow[:, 0] = 2.0
    assert warp(x, flow)[0, 0, 4, 4] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_cubic_warp_is_keys_cubic_convolution(axis: int) -> None:
    """Along one axis; the other one is not mixed with it."""
    x, offset = randn(2, 3, 17, 23), randn(2, 17, 23, seed=1) * 4
    position = (torch.arange(x.shape[3]) + offset).clamp(0, x.shape[3] - 1)
    low = position.floor()
    t = (position - low)[:, None]
    weights = [
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (t**3 - t**2) / 2,
    ]
    places = [(low.long() + step).clamp(0, x.shape[3] - 1)[:, None].expand_as(x) for step in (-1, 0, 1, 2)]
    expected = sum(weight * x.gather(3, place) for weight, place in zip(weights, places, strict=True))
    flow = torch.stack([offset, torch.zeros_like(offset)], dim=1)
    if axis:
        x, flow = x.transpose(2, 3), flow.transpose(2, 3).flip(1)
    found = warp_all((x,), flow, cubic=1.0)[0]
    found = found.transpose(2, 3) if axis else found
    assert (found - expected).abs().max() < 1e-4


def test_cubic_warp_keeps_detail() -> None:
    """A fine pattern moved by half a pixel, inside: bilinearly it loses half of its contrast, cubically a quarter."""
    x = torch.sin(torch.arange(64) * math.pi / 2 + 0.3).expand(1, 1, 8, 64)
    moved = torch.sin((torch.arange(64) + 0.5) * math.pi / 2 + 0.3)[4:-4]
    flow = torch.tensor([0.5, 0.0])[:, None, None].expand(1, 2, 8, 64)
    linear, cubic = (warp_all((x,), flow, cubic=c)[0][0, 0, 4, 4:-4] for c in (0.0, 1.0))
    assert float((linear / moved).mean()) == pytest.approx(math.cos(math.pi / 4), abs=1e-3)
    assert float((cubic / moved).mean()) == pytest.approx(math.cos(math.pi / 4) * 1.25, abs=1e-3)


def test_cubic_warp_of_some_rows_and_beside_others() -> None:
    x, other, flow = randn(2, 3, 20, 30), randn(2, 1, 20, 30, seed=2), randn(2, 2, 20, 30, seed=1) * 6
    whole, beside = warp_all((x, other), flow, cubic=1.0)
    assert torch.equal(beside, warp(other, flow))
    assert torch.equal(warp_all((x,), flow[:, :, 5:9], 5, 1.0)[0], whole[:, :, 5:9])


class Flows(CoarseFlow):
    """Gives the flows that it is told, by the height of the frames, and corrects others by so much."""

    def __init__(self, start: int, sizes: int, found: dict[int, float], correction: float) -> None:
        super().__init__((8, 8, 8), sizes, start)
        self.found, self.correction = found, correction

    def _by(
        self, blocks: Sequence[CoarseBlock], frame0: Tensor, frame1: Tensor, flow: Tensor | None
    ) -> Iterator[Tensor]:
        batch, _, height, width = frame0.shape
        right = torch.tensor([-1.0, 0.0, 1.0, 0.0])[:, None, None]
        if flow is None:
            assert list(blocks) == [self.block0, self.block1, self.block2]
            yield (right * self.found[height]).expand(batch, 4, height // 2, width // 2).clone()
        else:
            assert list(blocks) == [self.block2] and flow.shape[-2:] == (height // 2, width // 2)
            yield flow + right * self.correction


@pytest.mark.parametrize(
    ("start", "sizes", "found", "correction", "wanted"),
    [
        (0, 1, {64: 1.0}, 0.5, 1.0),  # the frames themselves alone
        (0, 3, {64: 1.0}, 0.5, 1.0),
        (64, 3, {64: 1.0}, 0.5, 1.0),
        (32, 1, {32: 4.0}, 0.0, 8.0),  # begun in frames half as large, then doubled
        (32, 1, {32: 3.0}, 2.0, 8.0),  # and corrected
        (17, 1, {32: 4.0}, 0.0, 8.0),
        (16, 1, {16: 2.0}, 0.0, 8.0),
        (16, 1, {16: 1.5}, 2.0 / 3, 8.0),
        (32, 2, {32: 4.0, 64: 1.0}, 0.0, 8.0),  # of two, that along which the frames are alike
        (32, 2, {32: 1.0, 64: 8.0}, 0.5, 8.0),
        (16, 2, {16: 2.0, 32: 1.0}, 0.0, 8.0),
        (16, 2, {16: 1.0, 32: 4.0}, 0.0, 8.0),
        (16, 3, {16: 1.0, 32: 1.0, 64: 8.0}, 0.0, 8.0),
    ],
)
def test_coarse_flow_goes_on_from_smaller_frames(
    start: int, sizes: int, found: dict[int, float], correction: float, wanted: float
) -> None:
    """A texture that moves by 32 pixels from frame to frame, so by 8 from the middle one at the flow's size."""
    texture = F.interpolate(torch.rand(1, 3, 16, 64, generator=generator(3)), scale_factor=4, mode="bicubic")
    frames = (texture[..., 32 + 16 : 32 + 16 + 128], texture[..., 32 - 16 : 32 - 16 + 128])
    flow = Flows(start, sizes, found, correction)(*frames)
    inside = flow[..., 12:-12]
    assert float(inside[:, 2].mean()) == pytest.approx(wanted, abs=0.05)
    assert float(inside[:, 0].mean()) == pytest.approx(-wanted, abs=0.05)


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((16, 16), [(16, 16)]),
        ((48, 176), [(48, 176)]),
        ((64, 176), [(64, 176), (32, 96)]),
        ((304, 176), [(304, 176), (160, 96), (80, 48)]),
        ((1088, 1920), [(1088, 1920), (544, 960), (272, 480), (128, 240), (64, 128), (32, 64)]),
    ],
)
def test_sizes_that_a_coarse_flow_goes_through(
    size: tuple[int, int], sizes: list[tuple[int, int]], turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each about half of the one before, and a multiple of what the networks need. The three scales work at the
    smallest, the last of them at each, and at those that are not the frames' own as often as it has turns."""
    flow = CoarseFlow((8, 8, 8), 1, 32, turns).to("meta")
    works: list[tuple[int, int]] = []

    def counted(block: CoarseBlock, x: Tensor) -> Tensor:
        works.append((x.shape[-2], x.shape[-1]))
        return x.new_empty(len(x), 4, x.shape[2] // 2, x.shape[3] // 2)

    monkeypatch.setattr(CoarseBlock, "forward", counted)
    frames = [torch.empty(2, 3, *size, device="meta") for _ in range(2)]
    *_, last = flow.estimates(*frames)
    assert tuple(2 * side for side in last.shape[-2:]) == size
    *smaller, own = sizes[::-1]
    assert works == [sizes[-1]] * 2 + [one for one in smaller for _ in range(turns)] + [own]


def finer_flow(rows: int | None, flow: Tensor) -> Tensor:
    """What the last scale makes of a flow for frames of 384 x 64, in strips of so many rows."""
    network = CoarseFlow((8, 8, 12))
    random_weights(network, 0)
    images = [torch.rand(2, 3, 384, 64, generator=generator(seed)) for seed in (1, 2)]
    strips = WHOLE if rows is None else Strips(rows * 2 * 64)
    with torch.no_grad():
        return network.finer(images[0], images[1], flow.clone(), strips)


@pytest.mark.parametrize("rows", [64, 80, 128, 256])
def test_a_finer_flow_in_strips_is_that_of_the_whole(rows: int) -> None:
    flow = F.interpolate(randn(2, 4, 24, 4) * 6, (384, 64), mode="bilinear")
    whole = finer_flow(None, flow)
    assert float((whole - flow).std()) > 0.5
    torch.testing.assert_close(finer_flow(rows, flow), whole, rtol=0.0, atol=1e-4)


def test_a_finer_flow_needs_all_of_its_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = F.interpolate(randn(2, 4, 24, 4) * 6, (384, 64), mode="bilinear")
    monkeypatch.setattr("tlbvfi.modules.flow.COARSE_REACH", 32)
    assert float((finer_flow(64, flow) - finer_flow(None, flow)).abs().max()) > 1e-4


def test_a_finer_flow_is_corrected_by_what_the_last_scale_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At half the size it finds one pixel more to the right, so there are two."""
    network = CoarseFlow((8, 8, 8))
    shift = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None, None]
    seen: list[Tensor] = []

    def one_more(_: CoarseBlock, x: Tensor) -> Tensor:
        seen.append(x)
        return shift.expand(len(x), 4, x.shape[2] // 2, x.shape[3] // 2)

    monkeypatch.setattr(CoarseBlock, "forward", one_more)
    images = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 48)
    flow = torch.full((1, 4, 32, 48), 3.0)
    torch.testing.assert_close(network.finer(*images, flow), flow + 2.0 * shift)
    (given,) = seen
    torch.testing.assert_close(given[:, 6:], flow)
    torch.testing.assert_close(given[:, :3], warp(images[0], flow[:, :2]))


@pytest.mark.parametrize(("scale", "finer"), [(0.5, True), (0.25, True), (0.7, True), (1.0, False), (0.99, False)])
def test_only_a_flow_from_smaller_frames_is_gone_over(
    scale: float, finer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = replace(TINY, autoencoder=replace(TINY.autoencoder, fine_flow=1))
    model = TLBVFI(params).finalize()
    asked = []
    monkeypatch.setattr(CoarseFlow, "finer", lambda _, *given: asked.append(given) or given[2])
    pair = [model.encode_frame(x[None].permute(0, 3, 1, 2) * 2 - 1, scale) for x in frames(2, 128, 128)]
    flows = model.flows(*pair)
    assert bool(asked) == finer and flows.full.shape == (1, 4, 128, 128)
    if finer:
        assert torch.equal(asked[0][0], pair[0].image) and torch.equal(asked[0][1], pair[1].image)


def test_neighbourhood_equals_nine_warped_copies() -> None:
    """The correlation without unfolding against the plain way, flows across every border."""
    a, m, flow = randn(2, 12, 21, 30), randn(2, 12, 21, 30, seed=1), randn(2, 2, 21, 30, seed=2) * 8
    seen = Neighbourhood(a, flow)
    padded = F.pad(a, (1, 1, 1, 1))
    copies = [warp(padded[:, :, dy : dy + 21, dx : dx + 30], flow) for dy in range(3) for dx in range(3)]
    assert (seen.centre() - copies[4]).abs().max() < 1e-5
    length = lambda x: (x.square().sum(dim=1) + 1e-12).sqrt()  # noqa: E731
    expected = torch.stack([(m * c).sum(dim=1) / (length(m) * length(c)) for c in copies], dim=1)
    far = torch.stack([length(c) for c in copies], dim=1) > 1e-2  # a vanishing copy has no direction
    assert far.float().mean() > 0.8
    assert ((seen.cosine(m) - expected).abs() * far).max() < 2e-4


@pytest.mark.parametrize("gathered", [1, 1 << 12, 1 << 20])
@pytest.mark.parametrize("rows", [(0, 21), (5, 14)])
def test_few_operations_find_the_same_neighbours(rows: tuple[int, int], gathered: int) -> None:
    a, b, m, flow = (randn(2, c, 21, 30, seed=seed) for seed, c in enumerate((12, 12, 12, 4)))
    flow = (flow * 8)[:, :, slice(*rows)]
    m = m[:, :, slice(*rows)]
    with torch.no_grad():
        found = Neighbourhood.pair((a, b), flow, rows[0], Tuning(gathered_positions=gathered))
        for x, own, seen in zip((a, b), flow.chunk(2, dim=1), found, strict=True):
            expected = Neighbourhood(x, own, rows[0], Tuning(few_operations=False))
            assert (seen.centre() - expected.centre()).abs().max() < 1e-6
            assert (seen.rows(1, 4).centre() - expected.centre()[:, :, 1:4]).abs().max() < 1e-6
            assert (seen.cosine(m) - expected.cosine(m)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosines_by_whole_pixels_lose_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what half precision has, in chunks of few positions; where vectors vanish, too."""
    monkeypatch.setattr(whole_pixels, "_GATHERED", 100 * 4 * 12 * 2)
    monkeypatch.setattr(whole_pixels, "_BATCH", 300)
    a, b, m, flow = (randn(2, c, 21, 30, seed=seed) for seed, c in enumerate((12, 12, 12, 4)))
    a[:, :, 5:12, 5:12] = 0.0
    a, b, m = a.to(dtype), b.to(dtype), m.to(dtype)
    tuning = Tuning(gathered_positions=1)
    with torch.no_grad():
        found = Neighbourhood.pair((a, b), flow * 8, 0, tuning)
        assert found[0]._in_whole_pixels
        for x, own, seen in zip((a, b), (flow * 8).chunk(2, dim=1), found, strict=True):
            exact = Neighbourhood(x.float(), own, 0, Tuning(few_operations=False)).cosine(m.float())
            without_autocast = seen.cosine(m)
            assert (without_autocast - exact).abs().max() < 1e-4
            with torch.autocast("cpu", torch.bfloat16):  # as where a model learns
                assert torch.equal(seen.cosine(m), without_autocast)
            again = Neighbourhood(x, own, 0, replace(tuning, whole_pixels=False)).cosine(m)
            assert (again - exact).abs().mean() > 1e-5


@pytest.mark.parametrize(
    "error", [RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\nwhen calling"), TypeError("no out_dtype")]
)
def test_without_products_in_batches_maps_are_sampled(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = torch.device("cpu")
    assert whole_pixels._tried(card) and not caplog.messages

    def fails(*_: object) -> Tensor:
        raise error

    monkeypatch.setattr(whole_pixels, "_products", fails)
    assert not whole_pixels._tried(card)
    (said,) = caplog.messages
    assert said == f"Products in batches do not work on cpu, maps are sampled instead: {str(error).splitlines()[0]}"
    monkeypatch.setattr(whole_pixels, "_products", lambda pixels, vectors: torch.zeros(pixels.shape[:2]))
    assert not whole_pixels._tried(card) and "a sum came out wrong" in caplog.text


def test_wavelet_channels_in_few_operations() -> None:
    frames = [torch.rand(2, 3, 13, 10, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    grey0, grey1 = (to_grey(frame) for frame in frames)
    clip = torch.stack([grey0, torch.full_like(grey0, 0.5 * 0.9999), grey1], dim=1)
    found = wavelet_channels_in_few(*frames, torch.float32)
    assert (found - wavelet_channels(clip)).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_norms_in_few_operations(dtype: torch.dtype) -> None:
    """No further from the exact norm than in the other way."""
    x = (randn(2, 32, 20, 30) + 3.0).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = group_norm(8, 32).to(dtype)
    exact = F.group_norm(x.double(), 8, eps=norm.eps)
    with torch.no_grad():
        few, many = (group_normed(x, norm, tuning=Tuning(few_operations=few)).double() for few in (True, False))
    assert (few - exact).square().mean() <= 1.1 * (many - exact).square().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosines_of_faint_features(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, m = (2e-4 * torch.randn(2, 1, 8, 24, 24, generator=generator)).to(dtype)
    flow = torch.randn(1, 2, 24, 24, generator=generator)
    with torch.no_grad():
        exact = Neighbourhood(a.float(), flow).cosine(m.float())
        assert (Neighbourhood(a, flow).cosine(m) - exact).abs().max() < 0.05


def test_cosines_near_one_keep_their_digits_in_half_precision() -> None:
    """Neighbouring places differ by thousandths of a cosine, of which bfloat16 near 1 has steps of four."""
    generator = torch.Generator().manual_seed(0)
    block = RefineBlock(8)
    with torch.no_grad():
        for parameter in block.corr_convs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        first = block.corr_convs[0].weight
        first.copy_(100.0 * (first - first.mean(dim=1, keepdim=True)))
        block.to(torch.bfloat16)
        cosines = 1.0 - 0.002 * torch.rand(1, 9, 24, 24, generator=generator)
        found = block._correlation_features((cosines - 1.0).to(torch.bfloat16)).float()
        exact = block.float().corr_convs(cosines)
        blunt = block.to(torch.bfloat16).corr_convs(cosines.to(torch.bfloat16)).float()
    spread = exact.std(dim=(2, 3)).square().mean().sqrt()
    assert (found - exact).square().mean().sqrt() < 0.2 * spread
    assert (blunt - exact).square().mean().sqrt() > spread


def test_resize_flow_scales_each_axis() -> None:
    flow = torch.ones(1, 4, 16, 32)
    larger = resize_flow(flow, (32, 96))
    assert torch.equal(larger[0, :, 5, 5], torch.tensor([3.0, 2.0, 3.0, 2.0]))


def test_haar_bands_by_convolution() -> None:
    """The transform as one 3-D cross-correlation a band, with a zero past the end of rows and columns."""
    clip = randn(2, 3, 12, 14)
    low, high = torch.tensor([0.5, 0.5]) / math.sqrt(2), torch.tensor([-0.5, 0.5]) / math.sqrt(2)
    padded = F.pad(clip, (0, 1, 0, 1))[:, None]
    names = [(t, h, w) for t in (low, high) for h in (low, high) for w in (low, high)]
    for band, (t, h, w) in zip(haar_bands(clip), names, strict=True):
        kernel = torch.einsum("t,h,w->thw", t, h, w)[None, None]
        assert (band - F.conv3d(padded, kernel)[:, 0]).abs().max() < 1e-6
    assert wavelet_channels(clip).shape == (2, 21, 12, 14)


def test_quantizer_takes_the_lowest_of_equal_codes() -> None:
    quantizer = VectorQuantizer(8, 3).requires_grad_(False)
    quantizer.embedding.weight.copy_(torch.tensor([[float(i // 2)] * 3 for i in range(8)]))
    z = torch.tensor([0.0, 0.9, 2.2, 9.0]).reshape(1, 1, 1, 1, 4).expand(1, 3, 1, 1, 4)
    assert quantizer.code_indices(z).flatten().tolist() == [0, 2, 4, 6]


@given(st.integers(1, 4100))
@settings(max_examples=10, deadline=None)
def test_quantizer_in_chunks(count: int) -> None:
    quantizer = VectorQuantizer(32, 3).requires_grad_(False)
    z = randn(1, 3, 1, 1, count)
    distances = torch.cdist(z.reshape(3, -1).T.double(), quantizer.embedding.weight.double())
    indices = quantizer.code_indices(z)
    chosen = distances.gather(1, indices.reshape(-1, 1))[:, 0]
    assert (chosen - distances.min(dim=1).values).max() < 1e-5


def test_attention_in_slices_of_the_queries() -> None:
    q, k, v = randn(1, 1, 101, 16), randn(1, 1, 101, 16, seed=1), randn(1, 1, 101, 16, seed=2)
    whole = attention(q, k, v)
    assert (attention(q, k, v, tuning=Tuning(attention_logits=7 * 101)) - whole).abs().max() < 1e-5


def test_the_denoiser_compiles_as_one_graph() -> None:
    """Whatever it asks of its device, a compiler can follow."""
    model = tiny_model()
    latent, steps = randn(1, *model.latent_shape(128, 128)), torch.tensor([5])
    compiled = torch.compile(model.denoise_fn, backend="eager", dynamic=False, fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(latent, latent, steps), model.denoise_fn(latent, latent, steps))


@pytest.mark.parametrize(("keys", "by_products"), [(63, False), (64, True), (80, True), (81, False)])
def test_attention_in_float32_by_products(keys: int, by_products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = randn(1, 1, 50, 8), randn(1, 1, keys, 8, seed=1), randn(1, 1, keys, 8, seed=2)
    expected = F.scaled_dot_product_attention(q, k, v)
    calls = []
    exact = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *given: calls.append(given) or exact(*given))
    with torch.no_grad():
        found = attention(q, k, v, tuning=Tuning(float32_products=(64, 80)))
        assert bool(calls) != by_products and (found - expected).abs().max() < 1e-5
    calls.clear()
    attention(q, k, v, tuning=Tuning(float32_products=(64, 80)))  # with gradients
    assert calls


@pytest.mark.parametrize("windows", [False, True])
def test_attention_in_bfloat16_by_products(monkeypatch: pytest.MonkeyPatch, windows: bool) -> None:
    """As exact as the type, whole and in slices, where PyTorch's own kernel is not called."""
    generator = torch.Generator().manual_seed(0)
    batch, length = (5, 16) if windows else (1, 101)
    q, k, v = torch.randn(3, batch, 1, length, 24, generator=generator).bfloat16()
    bias = torch.randn(1, 1, length, length, generator=generator).bfloat16() if windows else None
    exact = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=None if bias is None else bias.double()
    )
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    with torch.no_grad():
        for most in (1 << 24, 7 * length):
            tuning = replace(Tuning.of(torch.device("cpu")), attention_products=most)
            found = attention(q, k, v, bias, tuning)
            assert found.shape == exact.shape
            assert found.dtype == torch.bfloat16
            assert (found - exact).abs().max() < 0.04
            assert (found - exact).square().mean().sqrt() < 0.005


@pytest.mark.parametrize("kind", ["block", "grid"])
def test_window_attention_by_hand(kind: str) -> None:
    """Each window alone, with its relative-position bias, by explicit loops."""
    window, channels = 2, 4
    layer = WindowAttention(channels, window, kind).requires_grad_(False)
    layer.rel_pos_bias.weight.copy_(randn(9, 1, seed=3))
    x, context = randn(1, 4, 6, channels), randn(1, 4, 6, channels, seed=1)
    result = layer(x, context)
    for i in range(2):
        for j in range(3):
            if kind == "block":
                places = [(2 * i + y, 2 * j + x_) for y in range(2) for x_ in range(2)]
            else:
                places = [(y * 2 + i, x_ * 3 + j) for y in range(2) for x_ in range(2)]
            q = torch.stack([layer.to_q(x[0, y, x_]) for y, x_ in places])
            k = torch.stack([layer.to_k(context[0, y, x_]) for y, x_ in places])
            v = torch.stack([layer.to_v(context[0, y, x_]) for y, x_ in places])
            bias = torch.empty(4, 4)
            for a in range(4):
                for b in range(4):
                    dy, dx = a // 2 - b // 2, a % 2 - b % 2
                    bias[a, b] = layer.rel_pos_bias.weight[(dy + 1) * 3 + dx + 1, 0]
            out = layer.to_out(torch.softmax(q @ k.T / 2 + bias, dim=1) @ v)
            for row, (y, x_) in zip(out, places, strict=True):
                assert (result[0, y, x_] - row).abs().max() < 1e-5


def test_folded_batch_norms_change_nothing() -> None:
    block = MBConv(6, 4).eval().requires_grad_(False)
    for index in (1, 4, 8):
        block[index].running_mean.copy_(randn(block[index].num_features, seed=index))
        block[index].running_var.copy_(randn(block[index].num_features, seed=index).abs() + 0.5)
    x = randn(1, 6, 9, 9)
    rows = stored(x)
    before = block(rows, WHOLE).read(0, 9)
    block.prepare()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in block)
    assert (block(rows, WHOLE).read(0, 9) - before).abs().max() < 1e-5


def test_attention_with_a_bias_is_not_sliced_without_it() -> None:
    q, k, v, bias = torch.randn(2, 1, 8, 4), torch.randn(2, 1, 6, 4), torch.randn(2, 1, 6, 4), torch.randn(1, 1, 8, 6)
    expected = torch.softmax(q @ k.transpose(2, 3) / 2 + bias, dim=-1) @ v
    found = attention(q, k, v, bias, Tuning(attention_logits=8))
    assert (found - expected).abs().max() < 1e-5

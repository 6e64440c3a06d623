"""The flow's refinement and features along a flow by kernels of our own, against the plain path."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.interpreted import DEVICE, HALVES, kernels, plain
from tests.test_strips import decibels, randn, randomised, smooth_flow, uneven
from tlbvfi.kernels.positions import Bases
from tlbvfi.kernels.refinement import SEEN, centre, cosines
from tlbvfi.modules import flow as flow_module
from tlbvfi.modules.flow import FlowRefinement, RefineBlock
from tlbvfi.modules.preparation import prepare
from tlbvfi.modules.warp import Neighbourhood, join_channels
from tlbvfi.precision import tf32
from tlbvfi.rows.cuts import WHOLE, Strips

#: Decibels above which results in float32 are the same.
EQUAL = 120.0


@pytest.fixture(scope="module", autouse=True)
def _exact() -> Iterator[None]:
    with torch.no_grad(), tf32(False):
        yield


def block_of(width: int) -> RefineBlock:
    block: RefineBlock = randomised(RefineBlock(width))
    prepare(block)
    return block


def by_plain(module: Any, *tensors: Any, strips: Strips = WHOLE) -> Tensor:
    """What the plain path makes of them, on the CPU: there positions round as the published model's."""
    with plain():
        result: Tensor = module(*tensors, strips=strips)
    return result


def by_kernels(module: Any, *tensors: Any, strips: Strips = WHOLE) -> Tensor:
    def moved(x: Any) -> Any:
        return [moved(y) for y in x] if isinstance(x, list) else x.to(DEVICE)

    module = copy.deepcopy(module).to(DEVICE)
    prepare(module)
    with kernels():
        result: Tensor = module(*moved(list(tensors)), strips=strips)
    return result.cpu()


def features(batch: int, width: int, height: int, columns: int) -> list[Tensor]:
    return [uneven(batch, width, height, columns, seed=i) for i in range(2)]


@pytest.mark.parametrize(
    "shape", [(1, 8, 11, 14), (2, 16, 5, 7), (1, 64, 6, 8), (1, 128, 3, 5), (1, 24, 1, 5), (1, 8, 6, 1)]
)
def test_refine_block(shape: tuple[int, int, int, int]) -> None:
    """The corrections alone; flows leave the map across every border."""
    batch, width, height, columns = shape
    block, pair = block_of(width), features(*shape)
    flow = smooth_flow(batch, height, columns, 6.0)
    want = by_plain(block, *pair, flow)
    assert decibels(by_kernels(block, *pair, flow) - flow, want - flow) > EQUAL


def test_one_flow_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "_TOGETHER", 0)
    block, pair, flow = block_of(8), features(2, 8, 6, 7), smooth_flow(2, 6, 7, 3.0)
    want = by_plain(block, *pair, flow)
    assert decibels(by_kernels(block, *pair, flow) - flow, want - flow) > EQUAL


@pytest.mark.parametrize(("width", "dtype"), [(64, dtype) for dtype in HALVES])
def test_refine_block_in_half_precision(width: int, dtype: torch.dtype) -> None:
    block, pair, flow = block_of(width), features(1, width, 6, 10), smooth_flow(1, 6, 10, 4.0)
    want = by_plain(block, *pair, flow) - flow
    block, pair = block.to(dtype), [x.to(dtype) for x in pair]
    found, reference = by_kernels(block, *pair, flow) - flow, by_plain(block, *pair, flow) - flow
    assert decibels(found, want) > decibels(reference, want) - 3.0


def test_all_levels() -> None:
    """Small motion, as between the frames of a video."""
    refinement = randomised(FlowRefinement((8, 8, 16, 16)))
    pyramids = [
        [uneven(1, width, 16 >> level, 24 >> level, seed=i) for level, width in enumerate((8, 8, 16, 16))]
        for i in range(2)
    ]
    coarse = smooth_flow(1, 8, 12, 1.0)
    want = by_plain(refinement, *pyramids, coarse)
    assert decibels(by_kernels(refinement, *pyramids, coarse), want) > EQUAL


def test_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "LEAST_ROWS", 8)
    block, pair, flow = block_of(8), features(1, 8, 20, 6), smooth_flow(1, 20, 6, 4.0)
    strips = Strips(pixels=6 * 8)
    assert len(strips.cuts(flow.shape)) == 3
    want = by_plain(block, *pair, flow)
    assert decibels(by_kernels(block, *pair, flow, strips=strips) - flow, want - flow) > EQUAL


def test_flow_of_channels_last() -> None:
    block, pair, flow = block_of(8), features(2, 8, 4, 5), smooth_flow(2, 4, 5)
    want = by_kernels(block, *pair, flow)
    assert torch.equal(by_kernels(block, *pair, flow.contiguous(memory_format=torch.channels_last)), want)


def test_wide_maps_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "WIDEST", 4)
    monkeypatch.setattr(RefineBlock, "_corrected_by_kernels", None)
    assert by_kernels(block_of(8), *features(1, 8, 8, 9), smooth_flow(1, 8, 9)).isfinite().all()


def flows_of_places(height: int, width: int, first: int) -> Tensor:
    """Flows (1, 2, height, width) from the rows `first`.. to whole and half places near the borders, to these but for
    the last digit, and far outside."""
    generator = torch.Generator().manual_seed(3)
    lasts = torch.tensor([width - 1.0, height - 1.0])[:, None]
    ends = torch.cat([torch.tensor([[-40.0, -1.0, -1e-7, 0.0, 1e-7, 0.5, 1.0]]).expand(2, -1), lasts], dim=1)
    ends = torch.cat([ends, lasts - 1, lasts - 0.5, lasts - 1e-6, lasts + 1e-6, lasts + 30.0], dim=1)
    chosen = torch.randint(ends.shape[1], (2, height, width), generator=generator)
    ends = ends[:, None].expand(-1, height, -1).gather(2, chosen)
    y, x = torch.meshgrid(torch.arange(height) + first, torch.arange(width), indexing="ij")
    return (ends - torch.stack([x, y]))[None]


@pytest.mark.parametrize("top", [0, 5])
def test_what_is_outside_of_the_map(top: int) -> None:
    """A cosine jumps where a tap comes in, however little of it."""
    height, width = 17, 19
    x = randn(1, 12, height, width).contiguous(memory_format=torch.channels_last)
    flow = flows_of_places(height, width, 0)[:, :, top:]
    middle = randn(1, 12, height - top, width, seed=1).contiguous(memory_format=torch.channels_last)
    with plain():
        seen = Neighbourhood(x, flow, top)
        want, warped = seen.cosine(middle), seen.centre()
    assert (want == 0).any() and want.abs().max() > 0.5
    x, flow, middle = (t.to(DEVICE) for t in (x, flow, middle))
    bases = Bases(*(base.to(DEVICE) for base in Bases.of(x.cpu())))
    out = middle.new_empty(1, height - top, width, SEEN).permute(0, 3, 1, 2)
    cosines(x, flow, middle, bases, top, out)
    assert (out[:, :9].cpu() + 1 - want).abs().max() < 4e-6
    assert torch.equal(out[:, 9:11], flow) and not out[:, 11:].any()
    out = torch.empty_like(middle)
    centre(x, flow, bases, top, out)
    assert (out.cpu() - warped).abs().max() < 4e-6


@pytest.mark.parametrize("dtype", HALVES)
def test_cosines_of_faint_features(dtype: torch.dtype) -> None:
    x, middle = (2e-4 * torch.stack([randn(1, 8, 12, 12, seed=i) for i in range(2)])).to(DEVICE, dtype)
    x, middle = (t.contiguous(memory_format=torch.channels_last) for t in (x, middle))
    flow = randn(1, 2, 12, 12, seed=2).to(DEVICE)
    out = middle.new_empty(1, 12, 12, SEEN).permute(0, 3, 1, 2)
    cosines(x, flow, middle, Bases.of(x), 0, out)
    with plain():
        exact = Neighbourhood(x.float(), flow).cosine(middle.float())
    assert (out[:, :9].float() + 1 - exact).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, HALVES[-1]])
def test_joined_channels(dtype: torch.dtype) -> None:
    """Rows of features, and of features along a flow, side by side."""
    x, other = (t.to(DEVICE, dtype) for t in features(2, 12, 10, 14))
    flow = (randn(2, 2, 6, 14) * 4).to(DEVICE)
    joined = []
    for path in (plain, kernels):
        with path():
            parts: list[Tensor | Neighbourhood] = [other[:, :, 3:9], Neighbourhood(x, flow, 3)]
            joined.append(join_channels((2, 6, 14), parts).float())
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(joined[1], joined[0], atol=tolerance, rtol=tolerance)


class Operations(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_operations_do_not_grow_with_the_map() -> None:
    def counted(height: int, width: int) -> list[str]:
        with torch.device("meta"):
            block = RefineBlock(64).half()
            prepare(block)
            x = torch.empty(1, 64, height, width, dtype=torch.float16, memory_format=torch.channels_last)
            flow = torch.empty(1, 4, height, width)
        with Operations() as operations:
            result = block(x, x, flow)
        assert (result.shape, result.dtype) == (flow.shape, torch.float32)
        return operations.names

    small, large, larger = (counted(*size) for size in ((64, 64), (640, 1024), (1152, 1920)))
    assert small.count("convolution") == 8 and small.count("join") == 6 and small.count("cosines") == 2
    assert large == larger and large.count("convolution") == 15 and large.count("join") == 10

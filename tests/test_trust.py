"""Where the network that looks once more says so the new frame is the mean of the two, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, last_stage
from tlbvfi.bench.stand_in import random_weights
from tlbvfi.config import params_from_dict
from tlbvfi.model import TLBVFI
from tlbvfi.modules.autoencoder import Decoder
from tlbvfi.modules.trust import CHANCES, Trust, seen
from tlbvfi.quality import psnr
from tlbvfi.rows.cuts import WHOLE, Strips

WIDTHS = (8, 8, 16)


def decoder(widths: tuple[int, ...] = WIDTHS, still_within: float = 0.05) -> Decoder:
    params = replace(TINY, autoencoder=replace(TINY.autoencoder, trust_widths=widths, still_within=still_within))
    model = TLBVFI(params)
    random_weights(model)
    return model.finalize().vqgan.decoder


def always(found: Decoder, chance: float) -> Decoder:
    """The same, whose network gives this chance everywhere."""
    assert found.trust is not None
    with torch.no_grad():
        found.trust.leave.weight.zero_()
        assert found.trust.leave.bias is not None
        found.trust.leave.bias.fill_(torch.logit(torch.tensor(chance)))
    return found


def pair(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two frames (2, 3, H, W), and a flow of a few pixels."""
    seeds = torch.Generator().manual_seed(3)
    first, last = (torch.rand(2, 3, height, width, generator=seeds) for _ in range(2))
    return first, last, 3.0 * torch.randn(2, 4, height, width, generator=seeds)


@torch.no_grad()
def test_the_mean_is_taken_as_far_as_it_is_likely_to_be_nearer() -> None:
    first, last, flow = pair(48, 64)
    mean = (first + last) / 2
    found = decoder()
    certain = last_stage(always(found, CHANCES[1] + 0.1), (first, last), flow, WHOLE)
    torch.testing.assert_close(certain, mean)
    not_at_all = last_stage(always(found, CHANCES[0] - 0.1), (first, last), flow, WHOLE)
    half = last_stage(always(found, sum(CHANCES) / 2), (first, last), flow, WHOLE)
    torch.testing.assert_close(half, (not_at_all + mean) / 2)
    found.trust = None
    assert torch.equal(last_stage(found, (first, last), flow, WHOLE), not_at_all)


@pytest.mark.parametrize(("height", "width"), [(90, 63), (33, 64), (2, 3), (1, 1)])
@pytest.mark.parametrize("still_within", [0.0, 0.05])
@torch.no_grad()
def test_strips_change_rounding_alone(height: int, width: int, still_within: float) -> None:
    found = decoder(still_within=still_within)
    first, last, flow = pair(height, width)
    whole = last_stage(found, (first, last), flow, WHOLE)
    assert psnr(last_stage(found, (first, last), flow, Strips(16 * width * 2)), whole) > 125.0


@pytest.mark.parametrize(("height", "width", "side"), [(360, 640, 2), (1080, 1920, 6), (2160, 3840, 12)])
def test_large_frames_are_looked_at_made_smaller(height: int, width: int, side: int) -> None:
    """What it costs does not grow with the frames, and a caption is as large to it whatever their size."""
    with torch.device("meta"):
        frames, flow = [torch.empty(1, 3, height, width) for _ in range(2)], torch.empty(1, 4, height, width)
        network = Trust(WIDTHS)
        sizes: list[tuple[int, ...]] = []
        network.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape[2:])))
        share = network.share((frames[0], frames[1]), flow, None)
        assert share.read(0, 16).shape == (1, 1, 16, width)
    assert sizes == [(height // side, width // side)]


def test_it_sees_frames_where_the_flow_leads() -> None:
    """Along a flow that is right they do not differ, in place they do."""
    wide = torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(0))
    first, last = wide[..., :64], wide[..., 8:]
    flow = torch.zeros(1, 4, 64, 64)
    flow[:, 0], flow[:, 2] = 4.0, -4.0
    x = seen((first, last), flow, None, 2)
    *_, along, in_place, _ = x[..., 4:-4].unbind(1)
    assert float(along.max()) < 1e-5 < float(in_place.mean())
    assert x[:, 12].unique().tolist() == [2.0 / 16.0]  # the flow in places of two pixels, a unit being sixteen


def test_without_widths_there_is_no_such_network() -> None:
    assert TLBVFI(TINY).vqgan.decoder.trust is None
    assert decoder((8,)).trust is not None


@pytest.mark.parametrize("widths", [[0], [8, 8, 8, 8], [8.5], 8, [1024]])
def test_widths_that_make_no_network_are_refused(widths: object) -> None:
    with pytest.raises(ValueError, match=r"autoencoder\.trust_widths must be a list of 0 to 3, each a whole number"):
        params_from_dict({"autoencoder": {"trust_widths": widths}})


def test_gradients_reach_the_network() -> None:
    found = always(decoder(), sum(CHANCES) / 2)
    assert found.trust is not None
    found.trust.requires_grad_(True)
    first, last, flow = pair(32, 32)
    last_stage(found, (first, last), flow, WHOLE).sum().backward()
    assert found.trust.leave.bias is not None and found.trust.leave.bias.grad is not None
    assert float(found.trust.leave.bias.grad.abs()) > 0.0

"""Training the network that says where the flow is not to be trusted: what it sees, and that it learns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tlbvfi.modules.coarse_maps import sampled
from tlbvfi.modules.trust import CHANNELS, seen
from tlbvfi.training.card.codec import coded, sometimes_coded
from tlbvfi.training.card.draws import Chance
from tlbvfi.training.card.parcel import Parcel
from tlbvfi.training.card.rehearsal import small_model, small_parcel
from tlbvfi.training.card.step import Learner
from tlbvfi.training.card.triplets import Source
from tlbvfi.training.card.trusting import Looked, captioned, far, frame_loss, looked, looks, nearer_loss, train_trust

CPU, SIZE = torch.device("cpu"), 128


def chance(seed: int = 0) -> Chance:
    return Chance(torch.Generator().manual_seed(seed))


def chances() -> Iterator[Chance]:
    return (chance(seed) for seed in itertools.count())


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return small_parcel(CPU, SIZE)


@pytest.fixture(scope="module")
def source(parcel: Parcel) -> Source:
    return Source.of(parcel, SIZE)[0]


def smooth(*size: int) -> Tensor:
    noise = torch.rand(*size[:-2], size[-2] // 8, size[-1] // 8, generator=torch.Generator().manual_seed(sum(size)))
    return F.interpolate(noise, size[-2:], mode="bicubic").clamp(0.0, 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_turned_is_what_would_be_seen(seed: int) -> None:
    """Each frame where the flow leads, both of them turned alike."""
    frames = torch.stack([smooth(2, 3, 64, 64) * (1.0 - 0.2 * i) for i in range(4)])
    flow = 12.0 * smooth(2, 4, 64, 64) - 6.0
    look = Looked(seen((frames[0], frames[1]), flow, None, 2), frames, torch.zeros(2, 1, 64, 64))
    turned = look.turned(chance(seed))
    first, last, along0, along1, ways, *_ = turned.seen.split(CHANNELS, dim=1)
    both = zip((first, last), ways.chunk(2, dim=1), (along0, along1), turned.frames[:2], strict=True)
    for own, way, along, frame in both:
        torch.testing.assert_close(own, F.avg_pool2d(frame, 2) - 0.5)
        torch.testing.assert_close(sampled(own, 16.0 * way, 1), along, atol=1e-5, rtol=0.0)
    for own, before in zip(turned.frames[2:], frames[2:], strict=True):
        assert torch.equal(own.flatten().sort().values, before.flatten().sort().values)


def test_what_is_looked_at_is_the_frame_without_the_network(parcel: Parcel, source: Source) -> None:
    model = small_model(CPU)
    triplets = source.rendered(2, chance(1), 0.5)
    found = looked(model, triplets, 0.5)
    assert found.seen.shape == (2, sum(CHANNELS), SIZE // 2, SIZE // 2)
    network = model.vqgan.decoder.trust
    model.vqgan.decoder.trust = None
    without = Learner(model, None).middle(triplets, 0.5).float().clamp(0.0, 1.0)
    torch.testing.assert_close(found.frames[3], without, atol=1e-4, rtol=0.0)
    assert network is not None
    packed = found.packed()
    assert packed.frames.dtype == torch.uint8
    torch.testing.assert_close(packed.some(torch.tensor([1])).frames, found.frames[:, 1:], atol=0.003, rtol=0.0)


def test_losses_fall_where_the_nearer_one_is_taken() -> None:
    truth, other = smooth(2, 3, 64, 64), 1.0 - smooth(2, 3, 64, 64)
    made = torch.where(torch.arange(64) < 32, truth, other)  # right on the left alone
    frames = torch.stack([torch.where(torch.arange(64) < 32, other, truth)] * 2 + [truth, made])
    look = Looked(torch.zeros(2, sum(CHANNELS), 32, 32), frames, torch.zeros(2, 1, 64, 64))
    right = torch.where(torch.arange(64) < 32, -5.0, 5.0).expand(2, 1, 64, 64)
    for loss in (nearer_loss, lambda logits, look: frame_loss(logits, look, None)):
        assert float(loss(right, look)) < float(loss(torch.zeros_like(right), look)) < float(loss(-right, look))


def test_it_learns(source: Source) -> None:
    model = small_model(CPU)
    kept = looks(model, source, 2, chances(), time.monotonic())
    began = [p.clone() for p in model.parameters()]
    found = train_trust(model, kept, None, chances(), time.monotonic() + 4.0)
    assert found["steps"] > 5 and found["last"] < found["first"]
    changed = [n for (n, p), old in zip(model.named_parameters(), began, strict=True) if not torch.equal(p, old)]
    assert changed and all(".trust." in name for name in changed)
    assert not any(p.requires_grad for p in model.parameters())


def test_frames_that_are_far_apart_have_one_half_way(source: Source) -> None:
    triplets = far(source, 3, chance(), 0.0, quarter=True)
    assert triplets is not None and triplets.quarter is not None
    assert triplets.frames.shape == (3, 3, 3, SIZE, SIZE) and triplets.quarter.shape == (3, 3, SIZE, SIZE)
    apart = (triplets.frames[0] - triplets.frames[2]).abs().mean()
    assert float((triplets.frames[0] - triplets.quarter).abs().mean()) < float(apart)


def test_a_caption_through_a_codec_stands_where_it_stood(source: Source) -> None:
    triplets = captioned(source, 4, chance(3), 1.0)
    assert triplets is not None and bool(triplets.overlay.any())
    frames = smooth(5, 3, 64, 64)
    off = [float((coded(frames, crf, "veryfast") - frames).abs().mean()) for crf in (18, 40)]
    assert 0.0 < off[0] < off[1] < 0.2
    assert torch.equal(sometimes_coded(frames[:, None], chance(), share=0.0), frames[:, None])


def test_without_video_there_are_scenes_alone(parcel: Parcel) -> None:
    learnt, _ = parcel.pictures.split()
    empty = Source(learnt, [], SIZE)
    assert captioned(empty, 2, chance(), 1.0) is None and far(empty, 2, chance(), 0.0) is None
    assert len(looks(small_model(CPU), empty, 2, chances(), time.monotonic()).overlay) == 2

"""Training on a card, on the CPU: exact scenes, overlays, the optimizer, a run that goes on where it was stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlbvfi.modules.warp import warp
from tlbvfi.training import motion as one
from tlbvfi.training.card import motion, muon
from tlbvfi.training.card.__main__ import main
from tlbvfi.training.card.draws import Chance, SceneMaker, fields, paths
from tlbvfi.training.card.losses import census, perceptual
from tlbvfi.training.card.overlays import put_on
from tlbvfi.training.card.packed import encoded, read_packed, write_packed
from tlbvfi.training.card.parcel import Parcel
from tlbvfi.training.card.rehearsal import small_model, small_parcel
from tlbvfi.training.card.run import _DEEP, Options, Run
from tlbvfi.training.card.scenes import Rendered, render
from tlbvfi.training.card.step import Learner
from tlbvfi.training.card.triplets import Source, Triplets, finished
from tlbvfi.training.metrics import LPIPS

SIZE = 64
CPU = torch.device("cpu")


def chance(seed: int = 0) -> Chance:
    return Chance(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def parcel() -> Parcel:
    return small_parcel(CPU, 128)


@pytest.fixture(scope="module")
def scenes(parcel: Parcel) -> Triplets:
    """Scenes and what lies on them, without noise."""
    made = render(SceneMaker(parcel.pictures, SIZE).drawn(6, chance(3)), (0.0, 0.5, 1.0), CPU)
    return finished(made, put_on(made, parcel.pictures.overlays, chance(1), 0.5))


def errors(triplets: Triplets) -> list[Tensor]:
    """For each outer frame, warped by its flow, how far it is from the middle one at every pixel."""
    first, middle, last = triplets.frames
    flows = triplets.flow.chunk(2, dim=1)
    return [
        (warp(x, flow) - middle).abs().mean(dim=1, keepdim=True) for x, flow in zip((first, last), flows, strict=True)
    ]


def test_flows_bring_the_outer_frames_to_the_middle_where_they_are_seen(scenes: Triplets) -> None:
    seen = scenes.seen.float().mean()
    assert 0.5 < seen < 0.995
    assert scenes.flow.abs().amax() > 4
    for number, error in enumerate(errors(scenes)):
        visible = scenes.seen[:, number : number + 1]
        # Edges are half of what is behind them.
        assert error[visible].mean() < 0.02 and error[visible].median() < 0.012
        assert error[~visible].mean() > 3 * error[visible].mean()


@pytest.mark.parametrize("seed", range(3))
def test_turned_triplets_stay_exact(scenes: Triplets, seed: int) -> None:
    before = torch.stack(errors(scenes)).mean()
    turned = scenes.turned(chance(seed))
    assert torch.stack(errors(turned)).mean() == pytest.approx(float(before), rel=0.02)


def test_a_batch_moves_as_one_layer_alone_does() -> None:
    draws, batch = chance(5), 2
    own, camera = (paths(draws, draws.uniform(-9, 9, batch, n, 2), draws.uniform(0, 20, batch, n)) for n in (3, 1))
    radius = draws.uniform(20, 30, batch, 3)
    motions = motion.Motions(own, camera, fields(draws, radius, 10 * radius / radius, 1.0), own.pivot, radius)
    moment = motions.at(torch.full((batch, 1), 0.9, dtype=torch.float64), CPU)
    places = motion.frame_places(SIZE, CPU)

    def path(of: motion.Paths, b: int, layer: int) -> one.AffinePath:
        shift, pivot = (x[b, layer].numpy() for x in (of.shift, of.pivot))
        return one.AffinePath(
            shift, pivot, *(float(x[b, layer]) for x in (of.turn, of.zoom, of.shear, of.acceleration))
        )

    for b, layer in ((0, 0), (1, 2)):
        field = one.SmoothField(motions.control[b, layer].float(), own.pivot[b, layer].numpy(), float(radius[b, layer]))
        alone = one.Motion([path(own, b, layer), path(camera, b, 0)], field)
        expected = torch.stack(alone.forward(places[0], places[1], 0.9))
        torch.testing.assert_close(moment.forward(layer, places)[b], expected, atol=1e-3, rtol=0)


def test_samples_come_from_where_the_material_goes() -> None:
    """The inverse by fixed point, then the way forward, is where it began."""
    draws = chance(2)
    own, camera = (paths(draws, torch.zeros(2, 1, 2, dtype=torch.float64), draws.uniform(2, 9, 2, 1)) for _ in "12")
    radius = torch.full((2, 1), 40.0, dtype=torch.float64)
    motions = motion.Motions(own, camera, fields(draws, radius, radius / 4, 1.0), own.pivot, radius)
    moment = motions.at(torch.zeros(2, 1, dtype=torch.float64), CPU)
    places = motion.frame_places(SIZE, CPU)
    here = places.expand(2, -1, -1, -1)
    u = motion.applied(moment.inverse[:, 0], here) + moment.residual(0, SIZE, 1)
    back = torch.stack([moment.forward(0, u[b])[b] for b in range(2)])
    off = (back - here).abs()
    assert moment.residual(0, SIZE, 1).abs().amax() > 0.5
    assert off.mean() < 0.01 and off.amax() < 0.2  # most at the corners of a field, where it is not smooth


def test_still_overlays_stand_still_over_whatever_moves(parcel: Parcel) -> None:
    overlays = torch.zeros(1, 4, 128, 384, dtype=torch.uint8)
    overlays[:, :, :12, :20] = 255
    batch, times = 24, [0.0, 0.5, 1.0]
    unknown = [torch.full((batch, 2, SIZE, SIZE), float("nan")) for _ in times]
    frames = [torch.full((batch, 3, SIZE, SIZE), t / 2) for t in times]
    made = Rendered(times, frames, [torch.zeros(batch, 1, SIZE, SIZE) for _ in times], unknown)
    there = put_on(made, overlays, chance(4), 1.0, most=1)
    triplets = finished(made, there)
    flat = there.flatten(1).any(dim=1)
    still = flat & (triplets.flow.nan_to_num().abs().amax(dim=(1, 2, 3)) == 0)
    assert 8 < int(still.sum()) < batch
    known = triplets.flow.isfinite().all(dim=1, keepdim=True) & still[:, None, None, None]
    assert known.any() and (known <= there).all()
    assert triplets.seen[known.expand(-1, 2, -1, -1)].all()
    first, middle, last = (frame[known.expand(-1, 3, -1, -1)] for frame in triplets.frames)
    assert torch.equal(first, middle) or (first - last).abs().max() < 0.8  # half transparent ones show what is below
    moving = flat & ~still
    assert moving.any() and (triplets.flow[moving].nan_to_num().abs().amax() > 1)


def test_matrices_of_one_shape_are_stepped_as_each_alone() -> None:
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(x.clone()) for x in torch.ones(2, 16, 24) / 9] for _ in "12")
    small = nn.Parameter(torch.ones(3))
    optimizer = muon.Optimizer([*ours, small], 1e-3)
    reference = torch.optim.Muon(theirs, lr=4e-3, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw")
    for _ in range(2):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = b.grad = torch.randn(16, 24)
        small.grad = torch.ones(3)
        optimizer.step(1.0)
        reference.step()
    moved = [float((p - 1 / 9).detach().norm()) for p in theirs]
    for a, b, far in zip(ours, theirs, moved, strict=True):
        assert float((a - b).detach().norm()) < 0.03 * far


def test_census_is_of_all_pixels_around_one() -> None:
    """Pictures that repeat have no border, so every pixel has its 24 neighbours within two."""
    generator = torch.Generator().manual_seed(0)
    made, truth = (torch.rand(1, 3, 8, 8, generator=generator) for _ in range(2))
    ranks, repeated = [], []
    for picture in (made, truth):
        grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1)
        around = [grey.roll((y, x), (1, 2)) - grey for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0)]
        difference = torch.stack(around)
        ranks.append(difference / (0.0025 + difference.square()).sqrt())
        repeated.append(picture.repeat(1, 1, 40, 40))
    squared = (ranks[0] - ranks[1]).square()
    wanted = (squared / (0.1 + squared)).mean()
    torch.testing.assert_close(census(*repeated), wanted, rtol=2e-3, atol=0.0)
    assert float(census(made, made + 0.1)) < 1e-6
    noisy = made.clone().requires_grad_(True)
    census(noisy, truth).backward()
    assert noisy.grad is not None and bool(noisy.grad.isfinite().all()) and float(noisy.grad.norm()) > 0


def test_the_perceptual_term_is_lpips_and_has_a_gradient_on_black() -> None:
    torch.manual_seed(0)
    lpips = LPIPS()
    for conv in lpips.convs:
        nn.init.zeros_(conv.bias)
    for head in lpips.heads:
        nn.init.uniform_(head)
    truth = torch.rand(2, 3, 64, 64)
    made = (truth + 0.2 * torch.rand(2, 3, 64, 64)).clamp(0, 1).requires_grad_()
    torch.testing.assert_close(perceptual(lpips, made, truth), lpips(made, truth).mean(), rtol=1e-3, atol=1e-5)
    grey = ((lpips.shift + 1) / 2).expand(1, 3, 64, 64).clone().requires_grad_()  # nothing is found there at all
    perceptual(lpips, grey, truth[:1]).backward()
    assert grey.grad is not None and grey.grad.isfinite().all()


def test_packed_pictures_come_back(tmp_path: Path) -> None:
    grey = np.arange(16 * 20, dtype=np.uint8).reshape(16, 20, 1) % 251
    colour = np.repeat(grey, 4, axis=2)
    colour[..., 0] //= 2
    groups = {"masks": [encoded(grey, ".png")] * 2, "sprites": [encoded(colour, ".png")]}
    write_packed(tmp_path / "x.safetensors", groups, {"w": torch.ones(2)})
    found = read_packed(tmp_path / "x.safetensors")
    assert found["masks"].shape == (2, 1, 16, 20)
    assert torch.equal(found["sprites"][0], torch.from_numpy(colour).permute(2, 0, 1))
    assert torch.equal(found["w"], torch.ones(2))


def test_what_is_kept_is_not_trained_on(parcel: Parcel) -> None:
    learnt, kept = Source.of(parcel, 128)
    assert len(learnt.maker.pictures.textures) + len(kept.maker.pictures.textures) == len(parcel.pictures.textures)
    video = parcel.videos[0]
    for gap in (1, 2, 4):
        assert max(video.starting(gap, False), default=0) + 2 * gap < video.learnt
        assert min(video.starting(gap, True), default=video.learnt) >= video.learnt


def test_a_run_goes_on_where_it_was_stopped(parcel: Parcel, tmp_path: Path) -> None:
    def fresh() -> Run:
        return Run(Options(tmp_path, 0.0, batch=2, size=128, judged=1), small_model(CPU), parcel)

    run = fresh()
    before = [p.detach().clone() for p in run.parameters]
    figures = run.take_step(0.0)
    assert all(torch.isfinite(value) for value in figures.values())
    assert sum(not torch.equal(a, b) for a, b in zip(before, run.parameters, strict=True)) > 0.9 * len(before)
    run.save()
    resumed = fresh()
    resumed.resume(tmp_path)
    assert resumed.step == 1
    for a, b in zip(run.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    theirs = resumed.optimizer.state()
    for name, value in run.optimizer.state().items():
        torch.testing.assert_close(value.float(), theirs[name].float(), atol=1e-6, rtol=1e-2)


def test_a_step_goes_on_from_a_frame_that_the_model_made(parcel: Parcel, tmp_path: Path) -> None:
    """In mixed precision, with what inference does in few operations."""
    run = Run(Options(tmp_path, 0.0, batch=4, size=128, judged=1), small_model(CPU), parcel)
    run.step = _DEEP[0]
    figures = run.take_step(0.0)
    assert float(figures["finite"]) == 1.0 and "psnr @1.0 1/4" in figures or "psnr @0.5 1/4" in figures


def test_parts_learn_by_themselves(parcel: Parcel, tmp_path: Path) -> None:
    def fresh() -> Run:
        options = Options(tmp_path, 0.0, batch=2, size=128, judged=1, parts=("correction", "decoder"))
        return Run(options, small_model(CPU), parcel)

    run = fresh()
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    figures = run.take_step(0.0)
    assert "latent" not in figures
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    learnt = {name for name in before if name.startswith("vqgan.decoder.")}
    learnt -= {name for name in learnt if name.startswith(("vqgan.decoder.flownet.", "vqgan.decoder.trust."))}
    assert changed <= learnt and len(changed) > 0.9 * len(learnt)
    run.save()
    resumed = fresh()
    resumed.resume(tmp_path)
    for a, b in zip(run.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_the_coarse_flow_is_not_trained_alone_where_it_does_not_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--rehearse", "--out", str(tmp_path), "--coarse", "5", "--learns", "correction,decoder"])
    assert "--coarse trains the coarse flow, which --learns leaves out" in capsys.readouterr().err


def test_frames_brought_along_flows_tell_how_right_these_are(scenes: Triplets) -> None:
    """Wholly, half and not at all right, at two sizes."""

    def error(share: float) -> float:
        flow = scenes.flow.nan_to_num() * share
        smaller = torch.nn.functional.avg_pool2d(flow, 2) / 2
        return float(Learner._along([smaller, flow], scenes))

    assert 2.0 * error(1.0) < error(0.5) and 1.2 * error(0.5) < error(0.0)


def test_the_coarse_flow_learns_alone(parcel: Parcel, tmp_path: Path) -> None:
    run = Run(Options(tmp_path, 0.0, batch=2, size=128, judged=1), small_model(CPU), parcel)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.learn_coarse(time.monotonic() + 1.0)
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    own = {name for name in before if name.startswith("vqgan.decoder.flownet.")}
    assert changed <= own and len(changed) > 0.9 * len(own)
    for value, parameter in zip(run.average.values, run.parameters, strict=True):
        assert torch.equal(value, parameter)
    lines = [json.loads(line) for line in (tmp_path / "coarse.jsonl").read_text().splitlines()]
    assert run.step >= 1 and all(line["loss"] < 10.0 for line in lines) and lines[-1]["step"] == 3 * run.step

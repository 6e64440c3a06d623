"""The stages of the training, a step or two each, on a few small triplets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.tiny import TINY, TINY_BUILT_IN
from tlbvfi.checkpoint import load_model
from tlbvfi.modules.warp import Neighbourhood
from tlbvfi.rows.cuts import WHOLE
from tlbvfi.rows.lazy import stored
from tlbvfi.rows.owned import Owned
from tlbvfi.training import run
from tlbvfi.training.losses import blend_loss
from tlbvfi.training.optimizer import Optimizer
from tlbvfi.training.options import Options
from tlbvfi.training.run import fresh_model
from tlbvfi.training.shards import ShardDataset
from tlbvfi.training.stages import STAGES, refine
from tlbvfi.training.stages.flow import FlowStage
from tlbvfi.training.stages.latent import LatentStage
from tlbvfi.training.stages.refine import DISTURBANCE, RefineStage, disturbed
from tlbvfi.training.stages.stage import Stage
from tlbvfi.training.train import train
from tlbvfi.training.views import Batch, View, affordable

SIDE = 128


#: Captions are kept without weights, so nothing is learnt there.
PARAMS = replace(TINY_BUILT_IN, autoencoder=replace(TINY_BUILT_IN.autoencoder, still_within=0.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of four triplets of a smooth picture going by three pixels a frame."""
    folder = tmp_path_factory.mktemp("shards")
    wide = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(wide, (SIDE + 8, SIDE + 8), mode="bicubic").clamp(0, 1)
    views = torch.stack([wide[..., 4:-4, 4 + x : 4 + x + SIDE] for x in (-3, 0, 3)], dim=1)
    np.save(folder / "shard-00000.frames.npy", (views * 255).byte().numpy())
    flows = torch.zeros(4, 2, 2, SIDE // 2, SIDE // 2, dtype=torch.float16)
    flows[:, 0, 0], flows[:, 1, 0] = 3.0, -3.0
    np.save(folder / "shard-00000.flows.npy", flows.numpy())
    np.save(folder / "shard-00000.valid.npy", np.ones((4, 2, SIDE // 2, SIDE // 2), bool))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_params", lambda name: PARAMS)
    monkeypatch.setattr(Stage, "crop", SIDE)


def trained(stage: str, data: Path, run: Path, steps: int) -> dict[str, Tensor]:
    train(Options(stage, data, run, batch=2, lr=1e-3, steps=steps))
    return load_file(run / "weights.safetensors")


@pytest.mark.parametrize(
    ("stage", "learns", "stays"),
    [
        ("flow", ["vqgan.decoder.flownet."], ["vqgan.encoder.", "vqgan.decoder.refinenet.", "denoise_fn."]),
        ("refine", ["vqgan.decoder.refinenet.", "vqgan.encoder.down.0."], ["vqgan.encoder.down.4.", "denoise_fn."]),
        ("decoder", ["vqgan.decoder.up.0.", "vqgan.quantize."], ["vqgan.decoder.flownet.", "vqgan.encoder.down.0."]),
        ("autoencoder", ["vqgan.decoder.up.0.", "vqgan.decoder.refinenet."], ["denoise_fn."]),
        ("bridge", ["denoise_fn."], ["vqgan."]),
    ],
)
def test_a_stage_changes_what_it_trains(
    data: Path, tmp_path: Path, stage: str, learns: list[str], stays: list[str]
) -> None:
    before, after = trained(stage, data, tmp_path / "a", 0), trained(stage, data, tmp_path / "b", 2)
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    for prefix in learns:
        assert any(name.startswith(prefix) for name in changed), prefix
    assert not [name for name in changed if name.startswith(tuple(stays))]
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert load_model(tmp_path / "b" / "weights.safetensors").params == PARAMS


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained("flow", data, tmp_path / "whole", 3)

    usual = FlowStage.loss

    def stopping(stage: FlowStage, batch: Batch, view: View, generator: torch.Generator) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return usual(stage, batch, view, generator)

    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(FlowStage, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained("flow", data, tmp_path / "halves", 3)
    halves = trained("flow", data, tmp_path / "halves", 3)
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())


def test_the_log_has_a_line_for_every_fifty_steps(data: Path, tmp_path: Path) -> None:
    trained("bridge", data, tmp_path, 50)
    (line,) = (tmp_path / "bridge.jsonl").read_text(encoding="utf-8").splitlines()
    figures = json.loads(line)
    assert figures["step"] == 50
    assert all(math.isfinite(figures[name]) for name in ("minutes", "loss", "mse", "spread"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_of_a_stage_gets_a_gradient(data: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh_model(Options(stage, data, data / "nowhere", batch=2, lr=1e-3))
    learner = STAGES[stage](model)
    batch = next(ShardDataset(data, SIDE).batches(2))
    monkeypatch.setattr(refine, "DEPTHS", ((4, 1.0, 1),))
    loss, _ = learner.loss(batch, View(SIDE, False, 0.5), torch.Generator().manual_seed(1))
    loss.backward()
    names = {id(p): name for name, p in model.named_parameters()}
    assert not [names.get(id(p), "readout") for p in learner.parameters() if p.grad is None]


def test_features_of_a_fresh_model_tell_neighbours_apart(data: Path) -> None:
    """Else all nine cosines of a place are 1, and the refinement has nothing to learn from."""
    model = fresh_model(Options("refine", data, data / "nowhere", batch=2, lr=1e-3))
    picture = ShardDataset(data, SIDE, augment=False)[0]["x0"][None] / 4 + 0.6  # bright
    with torch.no_grad():
        for level in model.vqgan.encoder.pyramid(picture, 3):
            assert level is not None
            unit = F.normalize(level.float(), dim=1)
            beside = (unit[..., 1:] * unit[..., :-1]).sum(dim=1)
            assert beside.mean() < 0.97


def test_detail_comes_through_a_fresh_decoder_as_it_is(data: Path) -> None:
    """Twice the difference in what the last level attends to makes twice the difference before the head."""
    decoder = fresh_model(Options("decoder", data, data / "nowhere", batch=2, lr=1e-3)).vqgan.decoder
    generator = torch.Generator().manual_seed(0)
    side, last = 2 * TINY.autoencoder.window, decoder.up[0]
    x = 0.3 * torch.randn(1, last.block[0].conv1.in_channels, side, side, generator=generator)
    context = 0.3 * torch.randn(2, 1, last.cross_attn.proj_in[0].in_channels, side, side, generator=generator)
    seen: list[Tensor] = []
    decoder.moduleout[-1].register_forward_hook(lambda module, given, made: seen.append(given[0]))
    frames, flow = (torch.zeros(1, 3, 2 * side, 2 * side),) * 2, torch.zeros(1, 4, 2 * side, 2 * side)
    with torch.no_grad():
        for share in (0.0, 0.25, 0.5):
            rows = last(Owned(stored(x)), stored(context[0] + share * context[1]), WHOLE)
            decoder._synthesised(Owned(rows), frames, flow, WHOLE)
    once, twice = seen[1] - seen[0], seen[2] - seen[0]
    assert float(once.std()) > 0.02
    assert float((twice - 2 * once).std()) < 0.2 * float(twice.std())


def test_what_is_drawn_are_clips_of_mixed_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents that are the frames themselves draw them without error, where each is drawn beside foreign ones."""
    stage = LatentStage(fresh_model(Options("latent", Path(), Path("nowhere"), batch=2, lr=1e-3)))
    seen: list[Tensor] = []

    def as_they_are(deepest: Any, images: Any) -> tuple[Tensor, Tensor]:
        clip = torch.stack(list(deepest), dim=1)
        seen.append(clip)
        return clip, torch.zeros(())

    monkeypatch.setattr(stage, "_quantised", as_they_are)
    monkeypatch.setattr(stage.model.vqgan, "decoder_input", lambda codes: codes.flatten(0, 1))
    frames = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = tuple(F.interpolate(frames, scale_factor=8.0).chunk(3))
    own, _, drawn = stage.coded([frames], images)  # type: ignore[arg-type]
    assert drawn < 2e-3  # the loss itself gives 0.001 for no error
    assert torch.equal(own, seen[0])
    assert torch.equal(seen[1][:, 1], seen[0][:, 1].flip(0))
    assert torch.equal(seen[1][:, ::2], seen[0][:, ::2])


def test_the_blend_is_told_the_nearer_frame() -> None:
    first, last = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    first[..., :16] = 0.2
    last[..., 16:] = 0.2
    right = torch.full((1, 1, 32, 32), -5.0)
    right[..., 16:] = 5.0
    assert blend_loss(right, (first, last)) < 0.1
    assert blend_loss(-right, (first, last)) > 3.0
    assert blend_loss(-right, (first, first)) == 0.0


def test_every_depth_of_the_refinement_meets_every_scale(data: Path) -> None:
    """What a step draws for its view tells nothing of what its loss draws."""
    options = Options("refine", data, data / "nowhere", batch=2, lr=1e-3)
    stage, generator, met = RefineStage(fresh_model(options)), torch.Generator(), set()
    for step in range(200):
        full = stage.view(options.reseed(generator, step, "view")).scale == 1.0
        met.add((full, float(torch.rand((), generator=options.reseed(generator, step, "loss"))) > 0.8))
    assert len(met) == 4


def test_at_full_size_the_farthest_pairs_are_taken() -> None:
    """A third of the batch, mostly the farthest motion, no pair twice; flows that are not known do not count."""
    far = torch.tensor([3, 0, 7, 1, 9, 4, 11, 2, 5, 10, 6, 8]).float()
    flow = far[:, None, None, None].expand(12, 2, 4, 4).clone()
    flow[:, :, 0, 0] = torch.nan
    batch = {"flow0": flow, "number": far}
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        taken = affordable(batch, View(SIDE, False, 1.0), generator)["number"].tolist()
        assert len(taken) == len(set(taken)) == 4
        assert {9, 10, 11} <= set(taken)
    assert affordable(batch, View(SIDE, True, 0.5), torch.Generator()) is batch
    alone = {name: value[:1] for name, value in batch.items()}
    assert len(affordable(alone, View(SIDE, False, 1.0), torch.Generator())["number"]) == 1


def test_a_share_of_coarse_flows_is_disturbed() -> None:
    flow = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for share, low, high in ((0.0, 0, 0), (0.5, 20, 44), (1.0, 64, 64)):
        made = disturbed(flow, share, torch.Generator().manual_seed(1))
        changed = (made != flow).flatten(1).any(dim=1)
        assert low <= int(changed.sum()) <= high
        assert float((made - flow).std()) < DISTURBANCE


def test_each_weight_is_stepped_once_whatever_its_layout() -> None:
    """Also where Muon sees it as a matrix: a step at a rate goes about as far for either optimizer."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Conv2d(16, 16, 3), nn.Conv2d(3, 16, 3), nn.Conv3d(16, 16, 3), nn.Linear(16, 16)]
    layers[0].weight.data = layers[0].weight.data.contiguous(memory_format=torch.channels_last)
    parameters = [p for layer in layers for p in layer.parameters()]
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)
    Optimizer(parameters, 1e-2).step(0.5)
    moved = [float((p.detach() - old).square().mean().sqrt()) for p, old in zip(parameters, before, strict=True)]
    assert all(5e-4 < distance < 1e-2 for distance in moved), moved


def test_what_is_trained_is_what_runs() -> None:
    """Features along a flow, with gradients and without them: two ways to the same."""
    generator = torch.Generator().manual_seed(0)
    x, m = torch.randn(2, 2, 8, 20, 24, generator=generator)
    flow = torch.randn(2, 2, 20, 24, generator=generator) * 6
    learning = Neighbourhood(x.requires_grad_(), flow)
    with torch.no_grad():
        running = Neighbourhood(x, flow)
        assert torch.allclose(running.centre(), learning.centre(), atol=1e-5)
        assert torch.allclose(running.cosine(m), learning.cosine(m), atol=1e-4)

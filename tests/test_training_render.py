"""The rendered triplets are what they say: flows, visibility, translations, determinism."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tlbvfi.training.chance import MotionMaker, RenderConfig
from tlbvfi.training.layers import Layer, Picture
from tlbvfi.training.motion import AffinePath, Motion
from tlbvfi.training.render import prerender, render_batch
from tlbvfi.training.scene_maker import SceneMaker
from tlbvfi.training.scenes import Scene, render_scene
from tlbvfi.training.shapes import draw_mask
from tlbvfi.training.shards import ShardDataset, half_resolution
from tlbvfi.training.store import StoreWriter, TextureStore, premultiply

SIZE = 96


def smooth_picture(seed: int, channels: int = 3, side: int = 200) -> np.ndarray:
    """A band-limited random picture (side, side, channels) uint8."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 1, (1, channels, side // 8, side // 8))).float()
    fine = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    return (fine * 255).round().byte().permute(1, 2, 0).numpy()


def textures() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    items = [("photo", smooth_picture(seed, side=300)) for seed in range(4)]
    items += [("mask", draw_mask(rng, 96)) for _ in range(12)]
    for seed in range(3):
        rgba = np.concatenate([smooth_picture(10 + seed, side=96), draw_mask(rng, 96)], -1)
        items.append(("sprite", premultiply(rgba)))
    items.append(("text", draw_mask(rng, 96)))
    return items


@pytest.fixture(scope="module")
def store() -> TextureStore:
    return TextureStore.from_arrays(textures())


def warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """image(p + flow(p)), bicubic: (B, 3, H, W), (B, 2, H, W)."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    gx = (2 * (x + flow[:, 0]) + 1) / width - 1
    gy = (2 * (y + flow[:, 1]) + 1) / height - 1
    return F.grid_sample(image, torch.stack([gx, gy], -1), "bicubic", "border", align_corners=False)


def psnr_where(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> float:
    error = ((a - b) ** 2).mean(1, keepdim=True)
    return -10 * math.log10(float(error[mask].mean()) + 1e-12)


def inner(mask: torch.Tensor) -> torch.Tensor:
    """Without two pixels along every edge of the mask: there colours of two layers mix."""
    return F.max_pool2d((~mask).float(), 5, 1, 2) == 0


def test_flows_take_the_outer_frames_to_the_middle_one(store: TextureStore) -> None:
    batch = render_batch(store, 12, SIZE, 3, RenderConfig.clean(layers=(0, 1, 1, 1)))
    for k in (0, 1):
        flow, valid = batch[f"flow{k}"], batch[f"valid{k}"]
        back = warp(batch[f"x{k}"], flow)
        assert 0.3 < float(valid.float().mean()) <= 1.0
        # A layer's edge also mixes where only the outer frame has it: leave out edges there as well.
        steady = inner(valid) & (warp(inner(valid).float(), flow * 0) > 0.99)
        assert psnr_where(back, batch["xm"], steady) > 30
        assert psnr_where(back, batch["xm"], steady) > psnr_where(batch[f"x{k}"], batch["xm"], steady) + 6


def test_flow_is_exact_without_layers(store: TextureStore) -> None:
    """Affine, non-rigid and accelerated motion of the background alone."""
    config = RenderConfig.clean(layers=(1.0,), nonrigid=1.0, accelerate=1.0)
    batch = render_batch(store, 8, SIZE, 11, config)
    for k in (0, 1):
        back = warp(batch[f"x{k}"], batch[f"flow{k}"])
        assert psnr_where(back, batch["xm"], inner(batch[f"valid{k}"])) > 38


@pytest.mark.parametrize("half", [(0, 0), (3, 0), (-2, 5)])
def test_whole_pixel_translation_is_exact(store: TextureStore, half: tuple[int, int]) -> None:
    maker = SceneMaker(store, SIZE, RenderConfig.clean(layers=(1.0,), nonrigid=0, defocus=0))
    scene = maker.make(np.random.default_rng(0))
    path = AffinePath(2.0 * np.array(half, dtype=float), np.zeros(2))
    scene.layers[0].motion = Motion([path])
    scene.layers[0].colour.padding = "reflection"
    sample = render_scene(scene)
    dx, dy = half
    assert torch.allclose(sample["flow1"][0], torch.full((SIZE, SIZE), float(dx)), atol=1e-4)
    assert torch.allclose(sample["flow0"][1], torch.full((SIZE, SIZE), float(-dy)), atol=1e-4)
    moved = torch.roll(sample["xm"], (dy, dx), (1, 2))
    edge = slice(8, -8)
    assert torch.allclose(moved[:, edge, edge], sample["x1"][:, edge, edge], atol=2e-4)
    moved = torch.roll(sample["xm"], (-dy, -dx), (1, 2))
    assert torch.allclose(moved[:, edge, edge], sample["x0"][:, edge, edge], atol=2e-4)


def test_still_scenes_are_still(store: TextureStore) -> None:
    batch = render_batch(store, 3, SIZE, 1, RenderConfig.clean(still=1.0))
    assert torch.equal(batch["x0"], batch["xm"]) and torch.equal(batch["x1"], batch["xm"])
    assert float(batch["flow0"].abs().max()) < 1e-4
    assert bool(batch["valid0"].all()) and bool(batch["valid1"].all())


def test_the_front_layer_hides_and_is_not_hidden(store: TextureStore) -> None:
    """An opaque square moving right over a still background, checked against the geometry."""
    maker = SceneMaker(store, SIZE, RenderConfig.clean(layers=(1.0,), nonrigid=0))
    still = Motion([AffinePath(np.zeros(2), np.zeros(2))])
    background = maker.make(np.random.default_rng(2)).layers[0]
    background.motion = still
    path = AffinePath(np.array([16.0, 0.0]), np.zeros(2))
    shape = Picture(torch.ones(1, 20, 20), np.array([[1.0, 0, 9.5], [0, 1.0, 9.5]]), "zeros")
    corners = np.array([[-11.0, -11], [11, -11], [-11, 11], [11, 11]])
    square = Layer(Motion([path]), torch.tensor([1.0, 0.0, 0.0]), shape, corners)
    sample = render_scene(Scene([background, square], SIZE))
    middle = SIZE // 2
    assert sample["flow0"][0, middle, middle] == pytest.approx(-8) and sample["flow1"][0, middle, middle] == 8
    assert bool(sample["valid0"][0, middle, middle])
    assert sample["xm"][0, middle, middle] == 1.0 and sample["xm"][1, middle, middle] < 1e-6
    uncovered = (middle, middle - 13)  # background in the middle frame, under the square in frame 0
    assert not bool(sample["valid0"][0][uncovered]) and bool(sample["valid1"][0][uncovered])
    assert float(sample["flow0"][0][uncovered]) == pytest.approx(0, abs=1e-4)


def test_same_seed_same_batch(store: TextureStore) -> None:
    a = render_batch(store, 4, 64, torch.Generator().manual_seed(7))
    b = render_batch(store, 4, 64, torch.Generator().manual_seed(7))
    c = render_batch(store, 4, 64, torch.Generator().manual_seed(8))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["xm"], c["xm"])


def test_a_shared_generator_goes_on(store: TextureStore) -> None:
    generator = torch.Generator().manual_seed(7)
    first = render_batch(store, 2, 64, generator)
    second = render_batch(store, 2, 64, generator)
    assert not torch.equal(first["xm"], second["xm"])


def test_shapes_and_ranges_with_everything_on(store: TextureStore) -> None:
    config = replace(
        RenderConfig(), motion_blur=0.5, drift=1.0, shadows=1.0, overlay=0.5, letterbox=0.3, compression=0.5,
        noise_scene=0.2, noise_cut=0.1, motion=2.0,
    )  # fmt: skip
    batch = render_batch(store, 16, 64, 4, config)
    for key in ("x0", "xm", "x1"):
        assert batch[key].shape == (16, 3, 64, 64) and batch[key].dtype == torch.float32
        assert float(batch[key].min()) >= 0.0 and float(batch[key].max()) <= 1.0
    for key in ("flow0", "flow1"):
        assert batch[key].shape == (16, 2, 64, 64) and bool(batch[key].isfinite().all())
    for key in ("valid0", "valid1"):
        assert batch[key].shape == (16, 1, 64, 64) and batch[key].dtype == torch.bool


def test_motion_has_the_stated_spread() -> None:
    """Most motion is below 12 pixels at 256, some above 40."""
    maker = MotionMaker(256, RenderConfig())
    rng = np.random.default_rng(0)
    lengths = np.array([maker.magnitude(rng) for _ in range(4000)])
    assert 0.6 < (lengths < 12).mean() < 0.85
    assert 0.01 < (lengths > 40).mean() < 0.08 and lengths.max() < 100


def test_global_random_state_is_left_alone(store: TextureStore) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    render_batch(store, 1, 64, 0)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_shards_resume_and_read_back(tmp_path) -> None:
    writer = StoreWriter(tmp_path / "store")
    for number, (group, pixels) in enumerate(textures()):
        writer.add(pixels, group, "test", str(number))
    writer.close()
    out = tmp_path / "shards"
    prerender(tmp_path / "store", out, 5, size=64, seed=2, per_shard=3, workers=1)
    first = out / "shard-00000.frames.npy"
    stamp, content = first.stat().st_mtime_ns, first.read_bytes()
    (out / "shard-00001.frames.npy").unlink()
    prerender(tmp_path / "store", out, 5, size=64, seed=2, per_shard=3, workers=1)
    assert first.stat().st_mtime_ns == stamp
    first.unlink()
    prerender(tmp_path / "store", out, 5, size=64, seed=2, per_shard=3, workers=1)
    assert first.read_bytes() == content
    with pytest.raises(ValueError, match="other settings"):
        prerender(tmp_path / "store", out, 5, size=64, seed=3, per_shard=3, workers=1)
    data = ShardDataset(out, crop=48)
    assert len(data) == 6
    item = data[4]
    assert (
        item["x0"].shape == (3, 48, 48) and item["flow0"].shape == (2, 24, 24) and item["valid1"].shape == (1, 24, 24)
    )
    assert torch.equal(item["xm"], data[4]["xm"])
    data.set_epoch(1)
    assert not torch.equal(item["xm"], data[4]["xm"])
    whole = ShardDataset(out, augment=False)
    plain, halved = whole.batch(0, 2), whole.batch(0, 2, halved=True)
    assert torch.allclose(halved["x0"], F.avg_pool2d(plain["x0"], 2), atol=1e-6)
    assert torch.allclose(halved["flow1"], F.avg_pool2d(plain["flow1"], 2) / 2, atol=1e-4)
    assert torch.equal(halved["valid0"], F.avg_pool2d(plain["valid0"].float(), 2) == 1)
    stream, later = data.batches(2), data.batches(2, start=2)
    skipped = [next(stream) for _ in range(3)]
    assert torch.equal(skipped[2]["x0"], next(later)["x0"])


def test_augmentation_keeps_flow_and_frames_together(store: TextureStore) -> None:
    """Flips, quarter turns and time reversal turn the vectors with the pictures."""
    config = RenderConfig.clean(layers=(1.0,), nonrigid=0, accelerate=0)
    sample = {key: value[0] for key, value in render_batch(store, 1, SIZE, 21, config).items()}
    frames = torch.stack([sample["x0"], sample["xm"], sample["x1"]])
    flows = torch.stack([sample["flow0"], sample["flow1"]])
    valid = torch.stack([sample["valid0"][0], sample["valid1"][0]])
    turned = set()
    for seed in range(16):
        rng = np.random.default_rng(seed)
        turned.add(tuple(rng.random(4) < 0.5))
        arrays = ShardDataset._turn(frames.numpy(), flows.numpy(), valid.numpy(), np.random.default_rng(seed))
        x, f, v = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        for k in (0, 1):
            back = warp(x[2 * k : 2 * k + 1], f[k : k + 1])
            assert psnr_where(back, x[1:2], inner(v[k][None, None])) > 36
    assert len(turned) > 8


def test_half_resolution_keeps_pixels_and_edges() -> None:
    flow = torch.zeros(2, 4, 4)
    flow[0] = 3.0
    flow[0, :, 3] = 30.0
    small, valid = half_resolution(flow, torch.ones(1, 4, 4, dtype=torch.bool))
    assert small.shape == (2, 2, 2) and bool((small[0] == 3.0).all()) and bool(valid.all())

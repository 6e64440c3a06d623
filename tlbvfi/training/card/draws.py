"""Scenes drawn at random: what their layers are cut from, where these lie, and how they move.

All that is drawn comes from a generator on the CPU; pictures are put together on the device. Lengths are stated for
frames of 256 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import Motions, Paths, rotation
from .parcel import MASK, Pictures
from .scenes import Layer, Scenes


class Chance:
    """Random numbers from one generator, float64 on the CPU."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def normal(self, deviation: float, *shape: int) -> Tensor:
        return deviation * torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def happens(self, share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < share

    def number(self, count: int, *shape: int) -> Tensor:
        return torch.randint(count, shape, generator=self.generator)

    def once(self, share: float) -> bool:
        return bool(torch.rand((), generator=self.generator) < share)

    def order(self, count: int) -> list[int]:
        found: list[int] = torch.randperm(count, generator=self.generator).tolist()
        return found


@dataclass(frozen=True)
class Kind:
    """A layer of every scene: `texels` of its raster's sides, its length in pixels, how often it is there, how often it
    is fast, whether it is a pole."""

    texels: int
    length: tuple[float, float]
    present: float
    fast: float
    pole: bool = False


#: The layers before the background.
KINDS = (
    Kind(256, (90.0, 240.0), 0.5, 0.08),
    Kind(256, (60.0, 150.0), 0.5, 0.12),
    Kind(128, (30.0, 90.0), 0.5, 0.25),
    Kind(128, (24.0, 80.0), 0.4, 0.35),
    Kind(32, (8.0, 32.0), 0.35, 0.6),
    Kind(128, (60.0, 220.0), 0.2, 0.4, pole=True),
)


def magnitude(chance: Chance, *shape: int) -> Tensor:
    """Lengths of translations between the outer frames: seven tenths below 12 pixels, some far, some none."""
    draw = chance.uniform(0.0, 1.0, *shape)
    small = -3.5 * chance.uniform(0.0, 1.0, *shape).clamp_min(1e-9).log()
    ranges = ((0.90, 10.0, 32.0), (1.01, 30.0, 80.0))
    length = torch.where(draw < 0.46, small, chance.uniform(2.0, 14.0, *shape))
    length = torch.where(draw < 0.07, torch.zeros_like(length), length)
    before = 0.74
    for end, low, high in ranges:
        length = torch.where((draw >= before) & (draw < end), chance.uniform(low, high, *shape), length)
        before = end
    return length


def paths(chance: Chance, pivot: Tensor, length: Tensor, calm: float = 1.0) -> Paths:
    """Affine paths about pivots (B, L, 2) with translations of these lengths (B, L)."""
    shape = length.shape
    sideways = math.pi * chance.number(2, *shape) + chance.normal(0.12, *shape)
    angle = torch.where(chance.happens(0.35, *shape), sideways, chance.uniform(0.0, 2 * math.pi, *shape))
    shift = length[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    rare = chance.happens(0.1, *shape)
    turn = torch.where(rare, chance.uniform(-0.7, 0.7, *shape), chance.normal(math.radians(4.0), *shape))
    zoom = torch.where(rare, chance.uniform(-0.25, 0.25, *shape), chance.normal(0.03, *shape))
    return Paths(
        shift,
        pivot,
        turn * chance.happens(0.6, *shape) * calm,
        zoom * chance.happens(0.6, *shape) * calm,
        chance.normal(0.04, *shape) * chance.happens(0.3, *shape) * calm,
        chance.normal(0.03, *shape).clamp(-0.08, 0.08) * chance.happens(0.25, *shape),
    )


def fields(chance: Chance, radius: Tensor, length: Tensor, share: float = 0.5) -> Tensor:
    """Controls (B, L, 2, 5, 5) of smooth fields beside translations of these lengths; none for some layers."""
    shape = length.shape
    control = chance.normal(1.0, *shape, 2, 5, 5)
    line = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    ramps = torch.stack([x, y, x * y, 0.5 * x * x, 0.5 * y * y])
    waves = torch.einsum("bldk,kyx->bldyx", chance.normal(0.6, *shape, 2, 5), ramps)
    control = torch.where(chance.happens(0.5, *shape)[..., None, None, None], 0.35 * control + waves, control)
    amplitude = chance.uniform(0.1, 0.6, *shape) * length - 1.2 * chance.uniform(0.0, 1.0, *shape).clamp_min(1e-9).log()
    control = control * (amplitude * chance.happens(share, *shape))[..., None, None, None]
    steepest = torch.maximum(*(control.diff(dim=axis).abs().amax(dim=(2, 3, 4)) for axis in (3, 4)))
    steepest = steepest / (radius / 2)  # four cells across twice the radius
    return control * (0.35 / steepest.clamp_min(0.35))[..., None, None, None]


class SceneMaker:
    """Draws batches of scenes of `size` x `size` pixels from pictures on a device."""

    def __init__(self, pictures: Pictures, size: int) -> None:
        self.pictures, self.size, self.unit = pictures, size, size / 256
        self.device = pictures.textures.device

    def drawn(self, batch: int, chance: Chance, calm: bool = False) -> Scenes:
        """A batch of scenes; where `calm`, nothing moves far."""
        unit, layers = self.unit, len(KINDS) + 1
        length = magnitude(chance, batch, layers)
        fast = torch.stack([chance.happens(kind.fast, batch) for kind in KINDS], dim=1)
        length[:, 1:] = torch.where(fast, chance.uniform(15.0, 80.0, batch, len(KINDS)), length[:, 1:])
        length[:, 0] *= 0.3  # the background has the camera's motion, and little of its own
        camera = magnitude(chance, batch, 1)
        still = chance.happens(0.12, batch)
        camera[still], length[still, 0] = 0.0, 0.0
        together = chance.happens(0.06, batch)
        length[together] = 0.0
        if calm:
            length, camera = length.clamp_max(6.0), camera.clamp_max(6.0)
        centre = chance.uniform(-0.45, 0.45, batch, layers, 2) * self.size
        centre[:, 0] = 0.0
        extent = torch.stack([chance.log_uniform(*kind.length, batch) for kind in KINDS], dim=1) * unit
        radius = torch.cat([torch.full((batch, 1), 0.75 * self.size, dtype=torch.float64), 0.6 * extent], dim=1)
        own = paths(chance, centre, length * unit)
        own.turn[:, 0], own.zoom[:, 0], own.shear[:, 0] = 0.0, 0.0, 0.0
        view = paths(chance, chance.uniform(-0.3, 0.3, batch, 1, 2) * self.size, camera * unit, 0.5)
        for amount in (view.turn, view.zoom, view.shear):
            amount[still] = 0.0
        control = fields(chance, radius, length * unit)
        control[:, 0] *= chance.happens(0.5, batch)[:, None, None, None]
        control[still, 0] = 0.0
        control[together] = 0.0
        made = [self._background(batch, chance)]
        for number, kind in enumerate(KINDS):
            made.append(self._object(kind, centre[:, number + 1], extent[:, number], chance))
        order = [0, *(1 + i for i in chance.order(len(KINDS)))]
        own = Paths(*(value[:, order] for value in vars(own).values()))
        motions = Motions(own, view, control[:, order], centre[:, order], radius[:, order])
        scenes = Scenes([made[i] for i in order], motions, self.size)
        if chance.once(0.15):
            scenes.instants, scenes.shutter = 5, chance.uniform(0.15, 0.7, batch, 1)
        return scenes

    def _texture(self, batch: int, chance: Chance) -> Tensor:
        """Textures (B, 3, 512, 512) in [0, 1] with other colours."""
        chosen = chance.number(len(self.pictures.textures), batch).to(self.device)
        return graded(self.pictures.textures[chosen].float() / 255.0, chance)

    def _background(self, batch: int, chance: Chance) -> Layer:
        """A texture over the whole frame, at a scale at which two samples a pixel keep all of it."""
        texels = self._texture(batch, chance)
        scale = chance.uniform(0.9, 2.0, batch) / self.unit
        angle = torch.where(chance.happens(0.6, batch), chance.normal(0.1, batch), chance.uniform(0.0, 6.28, batch))
        linear = rotation(angle) * scale[:, None, None]
        linear[..., 0] *= (1.0 - 2.0 * chance.number(2, batch))[:, None]
        middle = chance.uniform(0.3, 0.7, batch, 2) * texels.shape[-1]
        return Layer(texels, torch.cat([linear, middle[..., None]], dim=-1))

    def _object(self, kind: Kind, centre: Tensor, extent: Tensor, chance: Chance) -> Layer:
        """A thing around centres (B, 2), its longer side of these pixels: a sprite, or a texture cut by a mask."""
        batch, side = len(centre), kind.texels
        colour = self._cut(batch, side, chance)
        chosen = chance.number(len(self.pictures.masks), batch).to(self.device)
        mask = self.pictures.masks[chosen].float() / 255.0
        # Most are of one piece; a threshold makes shapes whose edges are not soft.
        solid = chance.happens(0.1, batch).to(self.device)[:, None, None, None]
        mask = torch.where(solid, disc(MASK, self.device), mask)
        if kind.pole:
            mask = torch.ones_like(mask)
        mask = F.interpolate(mask, (side, side), mode="area" if side < MASK else "bilinear")
        texels = torch.cat([colour * mask, mask], dim=1)
        if not kind.pole:
            chosen = chance.number(len(self.pictures.sprites), batch).to(self.device)
            sprite = self.pictures.sprites[chosen].float() / 255.0
            sprite = F.interpolate(sprite, (side, side), mode="area" if side < MASK else "bilinear")
            whole = chance.happens(0.4, batch).to(self.device)[:, None, None, None]
            texels = torch.where(whole, sprite, texels)
        present = chance.happens(kind.present, batch).to(self.device)[:, None, None, None]
        texels = texels * present
        aspect = chance.uniform(0.5, 1.0, batch)
        if kind.pole:
            texels = F.interpolate(texels, (side, 16), mode="area")
            aspect = chance.uniform(2.5, 10.0, batch) * self.unit / extent
        angle = chance.normal(0.5, batch)
        # From pixels around the centre to texels: turn back, then stretch each axis.
        size = torch.tensor([texels.shape[-1], texels.shape[-2]], dtype=torch.float64)
        spans = torch.stack([extent * aspect, extent], dim=-1)
        linear = (size / spans)[..., None] * rotation(-angle)
        shift = (size - 1) / 2 - (linear @ centre[..., None])[..., 0]
        return Layer(texels, torch.cat([linear, shift[..., None]], dim=-1))

    def _cut(self, batch: int, side: int, chance: Chance) -> Tensor:
        """Random windows of textures, (B, 3, side, side)."""
        texture = self._texture(batch, chance)
        zoom = chance.uniform(0.3, 0.9, batch)
        linear = rotation(chance.uniform(0.0, 6.28, batch)) * zoom[:, None, None]
        place = torch.cat([linear, chance.uniform(-0.4, 0.4, batch, 2, 1)], dim=-1).float().to(self.device)
        line = (torch.arange(side, device=self.device) + 0.5) * (2.0 / side) - 1.0
        x, y = line[None, None, :], line[None, :, None]
        m = place[..., None, None]
        grid = torch.stack([m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in (0, 1)], dim=-1)
        if side < 256:  # as many texels as there are, or nearly
            texture = F.avg_pool2d(texture, 256 // side)
        return F.grid_sample(texture, grid, "bilinear", "reflection", align_corners=False)


def disc(side: int, device: torch.device | str) -> Tensor:
    """A ball: (1, 1, side, side)."""
    line = torch.arange(side, device=device) - (side - 1) / 2
    distance = (line[None, :] ** 2 + line[:, None] ** 2).sqrt()
    return (0.48 * side - distance + 0.5).clamp(0.0, 1.0)[None, None]


def graded(colour: Tensor, chance: Chance, strength: float = 1.0) -> Tensor:
    """Pictures (B, 3, h, w) with other saturation, gains and brightness, and their channels exchanged."""
    batch, device = len(colour), colour.device
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).expand(3, 3)
    saturation = (1.0 + chance.normal(0.3 * strength, batch)).clamp(0.0, 1.8)[:, None, None]
    matrix = saturation * torch.eye(3, dtype=torch.float64) + (1.0 - saturation) * luma
    gains = (chance.normal(0.07 * strength, batch, 3) + chance.normal(0.2 * strength, batch, 1)).exp()
    matrix = gains[..., None] * matrix
    order = chance.uniform(0.0, 1.0, batch, 3).argsort(dim=1)
    kept = chance.happens(0.7, batch)[:, None]
    order = torch.where(kept, torch.arange(3).expand(batch, 3), order)
    matrix = matrix.gather(1, order[..., None].expand(-1, -1, 3)).float().to(device)
    offset = chance.normal(0.05 * strength, batch, 3).float().to(device)
    mixed = torch.einsum("boc,bchw->bohw", matrix, colour)
    return (mixed + offset[..., None, None]).clamp_(0.0, 1.0)

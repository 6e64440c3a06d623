"""How the layers of many scenes move: :mod:`..motion`, for a whole batch at a time.

The material at u in the middle frame is at q = C_t(A_t(u + s(t) d(u))) at time t, in pixels from the frame's centre.
All that is drawn at random is a tensor (B, L, ...) for B scenes of L layers, on the CPU in float64; what a card samples
by is a matrix for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Steps of the fixed point that inverts a smooth field, and pixels between the nodes at which it is inverted.
_INVERSION_STEPS, NODE_PITCH = 6, 4


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """outer(inner(p)) of affine maps (..., 2, 3)."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], dim=-1)


def invert(matrix: Tensor) -> Tensor:
    """The inverse of affine maps (..., 2, 3)."""
    linear = torch.linalg.inv(matrix[..., :2])
    return torch.cat([linear, -linear @ matrix[..., 2:]], dim=-1)


def affine(linear: Tensor, pivot: Tensor, shift: Tensor) -> Tensor:
    """p -> linear (p - pivot) + pivot + shift: (..., 2, 3)."""
    return torch.cat([linear, (pivot + shift - (linear @ pivot[..., None])[..., 0])[..., None]], dim=-1)


def rotation(angle: Tensor) -> Tensor:
    """(...) radians -> (..., 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


@dataclass
class Paths:
    """Affine motions about pivots. Totals from frame 0 to frame 1: shift (pixels), turn (radians), log zoom, shear.

    `shift` and `pivot` are (B, L, 2), all else (B, L).
    """

    shift: Tensor
    pivot: Tensor
    turn: Tensor
    zoom: Tensor
    shear: Tensor
    acceleration: Tensor

    def progress(self, t: Tensor) -> Tensor:
        """s(t) for times (B, 1): 0 in the middle."""
        return (t - 0.5) + 4.0 * self.acceleration * (t - 0.5) ** 2

    def at(self, t: Tensor) -> Tensor:
        """The maps at times (B, 1): (B, L, 2, 3)."""
        s = self.progress(t)
        one, none = torch.ones_like(s), torch.zeros_like(s)
        shear = torch.stack([torch.stack([one, self.shear * s], -1), torch.stack([none, one], -1)], -2)
        linear = rotation(self.turn * s) @ shear * (self.zoom * s).exp()[..., None, None]
        return affine(linear, self.pivot, self.shift * s[..., None])


@dataclass
class Motions:
    """Of all layers: their own paths inside of the camera's (L = 1), and a smooth field inside of both.

    `control`: (B, L, 2, g, g) pixels from frame 0 to frame 1 over the square of `radius` (B, L) around `centre`
    (B, L, 2); beyond it the border goes on.
    """

    own: Paths
    camera: Paths
    control: Tensor
    centre: Tensor
    radius: Tensor

    def matrices(self, t: Tensor) -> Tensor:
        """C_t A_t at times (B, 1): (B, L, 2, 3)."""
        return compose(self.camera.at(t), self.own.at(t))

    def at(self, t: Tensor, device: torch.device | str) -> Moment:
        """Everything that a card needs of a moment, times (B, 1)."""
        forward = self.matrices(t)
        window = torch.cat([self.centre, self.radius[..., None]], dim=-1)
        parts = [forward.flatten(2), invert(forward).flatten(2), window, self.own.progress(t)[..., None]]
        numbers = torch.cat(parts, dim=-1).float().to(device)
        matrix, inverse, window, progress = numbers.split([6, 6, 3, 1], dim=-1)
        field = self.control.float().to(device)
        return Moment(matrix.unflatten(2, (2, 3)), inverse.unflatten(2, (2, 3)), field, window, progress[..., 0])


@dataclass
class Moment:
    """Layers at a moment, on the device: maps (B, L, 2, 3) and their inverses, the fields, and their progress (B, L).

    `window`: (B, L, 3), centre and radius of the fields.
    """

    matrix: Tensor
    inverse: Tensor
    control: Tensor
    window: Tensor
    progress: Tensor

    def _displacement(self, layer: int, places: Tensor) -> Tensor:
        """d at places (B, 2, h, w)."""
        window = self.window[:, layer, :, None, None]
        grid = ((places - window[:, :2]) / window[:, 2:]).clamp(-1.2, 1.2)
        return F.grid_sample(self.control[:, layer], grid.permute(0, 2, 3, 1), "bicubic", "border", align_corners=True)

    def forward(self, layer: int, places: Tensor) -> Tensor:
        """Where the material of a layer at places (2, h, w) of the middle frame is now: (B, 2, h, w)."""
        u = places.expand(len(self.matrix), -1, -1, -1)
        u = u + self._displacement(layer, u) * self.progress[:, layer, None, None, None]
        return applied(self.matrix[:, layer], u)

    def residual(self, layer: int, size: int, subsamples: int) -> Tensor:
        """u - v at the samples of a frame of `size` pixels, v the affine inverse: (B, 2, n, n)."""
        inset = 0.5 - 0.5 / subsamples  # the first and last samples lie on nodes
        ends = (size - 1) / 2 + inset
        line = torch.linspace(-ends, ends, size // NODE_PITCH + 1, device=self.matrix.device)
        nodes = torch.stack(torch.meshgrid(line, line, indexing="xy"))
        v = applied(self.inverse[:, layer], nodes.expand(len(self.matrix), -1, -1, -1))
        s = self.progress[:, layer, None, None, None]
        offset = torch.zeros_like(v)
        for _ in range(_INVERSION_STEPS):
            offset = self._displacement(layer, v + offset) * -s
        return F.interpolate(offset, (size * subsamples,) * 2, mode="bicubic", align_corners=True)


def applied(matrix: Tensor, places: Tensor) -> Tensor:
    """Maps (B, 2, 3) of places (B, 2, h, w), in float32 whatever a card's products round to."""
    m = matrix[..., None, None]
    x, y = places.unbind(1)
    rows = [m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in (0, 1)]
    return torch.stack(rows, dim=1)


def frame_places(size: int, device: torch.device | str) -> Tensor:
    """The pixels of a frame from its centre: (2, size, size), x then y."""
    line = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    return torch.stack(torch.meshgrid(line, line, indexing="xy"))

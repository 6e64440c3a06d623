"""Many scenes at once: frames, the exact flows from the middle one, and where the outer ones show the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import Moment, Motions, compose, frame_places

#: Opacity from which a layer counts as what a pixel shows.
LABEL_ALPHA = 0.5


@dataclass
class Layer:
    """What a layer of every scene is cut from.

    Attributes:
        texels: (B, 3, h, w) for a layer that is everywhere, else (B, 4, h, w) with premultiplied colour.
        place: (B, 2, 3), from the material's coordinates to indices of texels.
    """

    texels: Tensor
    place: Tensor

    def sampled(self, moment: Moment, number: int, size: int, subsamples: int) -> tuple[Tensor, Tensor | None]:
        """Premultiplied colour (B, 3, size, size), and alpha (B, 1, size, size) or None where it is everywhere."""
        height, width = self.texels.shape[-2:]
        device = self.texels.device
        unit = torch.tensor([[2.0 / width, 0.0, 1.0 / width - 1.0], [0.0, 2.0 / height, 1.0 / height - 1.0]])
        place = compose(unit.to(device), self.place.float().to(device))
        m = compose(place, moment.inverse[:, number])[..., None, None]
        steps = (torch.arange(size * subsamples, device=device) + 0.5) / subsamples - size / 2
        x, y = steps[None, None, :], steps[None, :, None]
        grid = torch.empty(len(m), size * subsamples, size * subsamples, 2, device=device)
        for axis in (0, 1):
            torch.add(m[:, axis, 0] * x, m[:, axis, 1] * y + m[:, axis, 2], out=grid[..., axis])
        residual = moment.residual(number, size, subsamples)
        for axis in (0, 1):
            along = place[:, axis, :2, None, None]
            grid[..., axis] += along[:, 0] * residual[:, 0] + along[:, 1] * residual[:, 1]
        padding = "reflection" if self.texels.shape[1] == 3 else "zeros"
        found = F.grid_sample(self.texels, grid, "bilinear", padding, align_corners=False)
        found = F.avg_pool2d(found, subsamples) if subsamples > 1 else found
        return found[:, :3], found[:, 3:] if found.shape[1] == 4 else None


@dataclass
class Scenes:
    """B scenes of `layers` from the back to the front, with their motions in the same order.

    Attributes:
        shutter: (B, 1), of the distance between frame 0 and frame 1.
        instants: how many of them make a frame; 1 for no motion blur.
    """

    layers: list[Layer]
    motions: Motions
    size: int
    subsamples: int = 2
    shutter: Tensor | None = None
    instants: int = 1


@dataclass
class Rendered:
    """Frames (B, 3, S, S) by time, what each shows, and where that goes from the middle.

    Attributes:
        times: of the frames; the middle is 0.5.
        labels: (B, 1, S, S) by time, what a pixel shows.
        places: (B, 2, S, S) by time: where the material that the middle frame shows at a pixel is then, in pixels from
            the centre; NaN where nobody knows.
    """

    times: list[float]
    frames: list[Tensor]
    labels: list[Tensor]
    places: list[Tensor]

    def flow(self, number: int) -> Tensor:
        """From the middle frame to another, (B, 2, S, S) pixels."""
        places = self.places[number]
        return places - frame_places(places.shape[-1], places.device)

    def visible(self, number: int) -> Tensor:
        """Where a frame shows what the middle one does: (B, 1, S, S) bool."""
        places, middle = self.places[number].nan_to_num(), self.labels[self.times.index(0.5)]
        size = places.shape[-1]
        grid = places.permute(0, 2, 3, 1) * (2.0 / size)
        found = F.grid_sample(self.labels[number], grid, "nearest", "border", align_corners=False)
        inside = (places.abs() <= (size - 1) / 2).all(dim=1, keepdim=True)
        return (found == middle) & inside


def _composite(scenes: Scenes, moment: Moment, subsamples: int) -> tuple[Tensor, Tensor]:
    """One instant: colours (B, 3, S, S) and labels (B, 1, S, S)."""
    canvas, alpha = scenes.layers[0].sampled(moment, 0, scenes.size, subsamples)
    assert alpha is None, "the first layer is everywhere"
    front = torch.zeros_like(canvas[:, :1])
    for number, layer in enumerate(scenes.layers[1:], 1):
        rgb, alpha = layer.sampled(moment, number, scenes.size, subsamples)
        assert alpha is not None
        canvas = canvas * (1.0 - alpha) + rgb
        front = front.masked_fill(alpha > LABEL_ALPHA, number)
    return canvas, front


def _frame(scenes: Scenes, t: float, device: torch.device | str) -> tuple[Tensor, Tensor, Moment]:
    """The frame at time t, its labels, and the layers then."""
    batch = scenes.motions.own.turn.shape[0]
    now = torch.full((batch, 1), t, dtype=torch.float64)
    moment = scenes.motions.at(now, device)
    if scenes.instants == 1 or scenes.shutter is None:
        return *_composite(scenes, moment, scenes.subsamples), moment
    total: Tensor | None = None
    for instant in range(scenes.instants):
        at = now + ((instant + 0.5) / scenes.instants - 0.5) * scenes.shutter
        blurred, front = _composite(scenes, scenes.motions.at(at, device), 1)
        total = blurred if total is None else total + blurred
        if instant == scenes.instants // 2:  # an odd number: the middle one is now
            labels = front
    assert total is not None
    return total / scenes.instants, labels, moment


@torch.no_grad()
def render(scenes: Scenes, times: tuple[float, ...], device: torch.device | str) -> Rendered:
    """The scenes at some times, 0.5 among them."""
    made = [_frame(scenes, t, device) for t in times]
    middle = made[times.index(0.5)][1]
    here = frame_places(scenes.size, device)
    places = []
    for t, (_, _, moment) in zip(times, made, strict=True):
        where = here.expand(len(middle), -1, -1, -1).clone()
        if t != 0.5:
            for number in range(len(scenes.layers)):
                where = torch.where(middle == number, moment.forward(number, here), where)
        places.append(where)
    return Rendered(list(times), [frame for frame, _, _ in made], [front for _, front, _ in made], places)

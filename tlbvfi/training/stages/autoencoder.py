"""The autoencoder: all of it, or all but the motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...model import TLBVFI
from ...modules.warp import resize, resize_flow, warp
from .. import pipeline
from ..losses import around, blend_loss, charbonnier, endpoint_error, hidden_loss
from ..views import Batch, FlowTask, View, flow_task
from .refine import LEVEL_WEIGHTS, RefineStage
from .stage import Stage

#: A perceptual distance (B,) of frames (B, 3, H, W) in [0, 1].
Perceptual = Callable[[Tensor, Tensor], Tensor]
#: Weight of the perceptual term where the middle frame is decoded.
LPIPS_WEIGHT = 0.3


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The codes, with the gradient of z."""
    return z + (codes - z).detach()


class AutoencoderStage(RefineStage):
    """Reconstruction of the middle frame of clips (x0, xm, x1), with a perceptual term where a metric is given.

    Attributes:
        hidden: weight of what the blend should be where one frame alone sees a point.
        blend: weight of what the blend should be where one warped frame is nearer to the middle one.
        sketch: a layer that must give every frame at the latent's size from its latent alone. The warped frames explain
            so much that otherwise nothing asks for a latent. It is no part of the model.
        readouts: a layer for each level of the decoder that must give the middle frame and the blend, at the level's
            size, from the map it starts from. Asked for the frame at its end alone, the decoder never comes to look
            beyond its last level. They are no part of the model either.
    """

    hidden = 0.05
    blend = 0.1

    perceptual: Perceptual | None = None

    def __init__(self, model: TLBVFI) -> None:
        super().__init__(model)
        self.sketch = nn.Conv2d(model.params.autoencoder.z_channels, 3, 1)
        nn.init.dirac_(self.sketch.weight)
        assert self.sketch.bias is not None
        nn.init.zeros_(self.sketch.bias)
        self.readouts = nn.ModuleList(nn.Conv2d(width, 4, 1) for width in pipeline.level_widths(model))

    def view(self, generator: torch.Generator) -> View:
        return Stage.view(self, generator)

    def parameters(self) -> list[nn.Parameter]:
        coarse = {id(p) for p in pipeline.coarse_parameters(self.model)}
        return [p for p in pipeline.autoencoder_parameters(self.model) if id(p) not in coarse] + self.beside()

    def beside(self) -> list[nn.Parameter]:
        """The parameters of what is no part of the model."""
        return [*self.sketch.parameters(), *self.readouts.parameters()]

    def coded(self, pyramid: list[Tensor], images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The codes of a clip, from the pyramid of its frames; the commitment to codes; and the error of frames drawn
        from their latents.

        The drawn clips have each the middle frame of another: from their own one could be drawn by its neighbours, and
        then its latent says nothing that the empty frame's does not.
        """
        first, middle, last = pyramid[-1].chunk(3)
        own, commitment = self._quantised((first, middle, last), images)
        x0, xm, x1 = images
        others, mixed_commitment = self._quantised((first, middle.roll(1, 0), last), images)
        mixed = self.model.vqgan.decoder_input(others)
        frames = torch.stack([x0, xm.roll(1, 0), x1], dim=1)
        small = F.adaptive_avg_pool2d(rearrange(frames, "b t c h w -> (b t) c h w"), (mixed.shape[-2], mixed.shape[-1]))
        return own, commitment + mixed_commitment, charbonnier(self.sketch(mixed).float() - small)

    def _quantised(self, deepest: Sequence[Tensor], images: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The codes (B, z, 3, h, w) for the deepest levels of a clip's frames, and the commitment to them."""
        z = self.model.latent(deepest, images[0], images[2])
        codes = pipeline.nearest_codes(self.model, z)
        commitment = F.mse_loss(z, codes.detach()) * 0.25 + F.mse_loss(codes, z.detach())
        return straight_through(z, codes), commitment

    def read_out(self, maps: list[Tensor], off: tuple[Tensor, Tensor], middle: Tensor) -> tuple[Tensor, Tensor]:
        """Mean errors over the levels of the middle frame and of the blend, read from what each level starts from;
        `off` as for :func:`blend_loss`, at the frame's size."""
        frame_error, blend_error = torch.zeros(()), torch.zeros(())
        for layer, level in zip(self.readouts, maps, strict=True):
            made = layer(level).float()
            size = (made.shape[-2], made.shape[-1])
            first, last, truth = (F.adaptive_avg_pool2d(x, size) for x in (*off, middle))
            frame_error = frame_error + charbonnier(made[:, :3] - truth)
            blend_error = blend_error + blend_loss(made[:, 3:], (first, last))
        return frame_error / len(maps), blend_error / len(maps)

    def features(self, frames: Tensor) -> list[Tensor]:
        """All pyramid levels."""
        return pipeline.pyramid(self.model, frames)

    def loss(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        task = flow_task(batch, view)
        x0, xm, x1 = batch["x0"], batch["xm"], batch["x1"]
        pyramid = self.features(torch.cat([x0, xm, x1]))
        first, _, last = zip(*(level.chunk(3) for level in pyramid), strict=True)
        codes, commitment, drawn = self.coded(pyramid, (x0, xm, x1))
        refined = self.flows(task)[-1]
        flow = pipeline.full_flow(self.model, refined, (x0, x1), task.frames[0].shape != x0.shape)
        made = pipeline.decode_observed(self.model, codes, (x0, x1), (first, last), flow)
        size = (refined.shape[-2], refined.shape[-1])
        epe = endpoint_error(refined, resize_flow(task.flow, size), resize(task.weight, size))
        error = made.frame - xm
        hidden = hidden_loss(made.blend, batch)
        warped = warp(x0, flow[:, :2].detach()), warp(x1, flow[:, 2:].detach())
        off_first, off_last = ((x - xm).abs().mean(dim=1, keepdim=True) for x in warped)
        blend = blend_loss(made.blend, (around(off_first), around(off_last)))
        read, read_blend = self.read_out(made.maps, (off_first, off_last), xm)
        # Large errors count most: they are where the warped frames do not help, which is the decoder's part.
        total = charbonnier(error) + 10.0 * error.float().square().mean() + commitment + drawn
        total = total + self.hidden * hidden + self.blend * (blend + read_blend) + read + 0.01 * epe
        figures = {
            "l1": error.abs().mean().item(),
            "psnr": (-10 * error.square().mean().log10()).item(),
            "epe": epe.item(),
            "hidden": hidden.item(),
            "blend": blend.item(),
            "read": read.item(),
            "read_blend": read_blend.item(),
            "drawn": drawn.item(),
        }
        if self.perceptual is not None:
            distance = self.perceptual(made.frame, xm).mean()
            total = total + LPIPS_WEIGHT * distance
            figures["lpips"] = distance.item()
        return total, figures


class DecoderStage(AutoencoderStage):
    """Everything but what finds the motion, which is most of the work: a step is several times cheaper."""

    def parameters(self) -> list[nn.Parameter]:
        motion = {id(p) for p in RefineStage.parameters(self)}
        return [p for p in super().parameters() if id(p) not in motion]

    @torch.no_grad()
    def flows(
        self, task: FlowTask, depth: int = len(LEVEL_WEIGHTS), generator: torch.Generator | None = None
    ) -> list[Tensor]:
        return super().flows(task, depth, generator)

    def features(self, frames: Tensor) -> list[Tensor]:
        return pipeline.pyramid_beyond_motion(self.model, frames)

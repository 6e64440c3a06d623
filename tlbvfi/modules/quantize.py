"""The codebook."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..kernels.codes import nearest_code
from ..rows.tuning import Tuning
from .preparation import Deriving


class VectorQuantizer(Deriving):
    """Replace each latent position by the nearest of `n_embed` codes (Euclidean, in float32)."""

    def __init__(self, n_embed: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_embed, channels)

    def derive(self) -> dict[str, Tensor]:
        return {"code_norms": self.embedding.weight.float().square().sum(dim=1)}

    def sources(self) -> tuple[Tensor, ...]:
        return (self.embedding.weight,)

    def code_indices(self, z: Tensor) -> Tensor:
        """z (B, C, T, h, w) -> (B, T, h, w) int64; the lowest index on a tie."""
        codes = self.embedding.weight.float()  # (n_embed, C)
        tuning = Tuning.of(z.device)
        if tuning.kernels:
            return nearest_code(z.float(), codes, self.derived()["code_norms"])
        positions = rearrange(z.float(), "b c t h w -> (b t h w) c")
        lengths, code_norms = positions.square().sum(dim=1, keepdim=True), self.derived()["code_norms"]
        parts = zip(positions.split(tuning.distance_positions), lengths.split(tuning.distance_positions), strict=True)
        nearest = [self._nearest(*part, codes, code_norms) for part in parts]
        b, _, t, h, w = z.shape
        return rearrange(torch.cat(nearest), "(b t h w) -> b t h w", b=b, t=t, h=h, w=w)

    @staticmethod
    def _nearest(positions: Tensor, lengths: Tensor, codes: Tensor, code_norms: Tensor) -> Tensor:
        """|z|^2 + |e|^2 - 2 z.e, channel by channel: a matrix product would be rounded where TF32 is on."""
        distances = lengths + code_norms  # (P, n_embed)
        for channel in range(positions.shape[1]):
            distances.addcmul_(positions[:, channel, None], codes[:, channel], value=-2.0)
        return distances.argmin(dim=1)

    def lookup(self, indices: Tensor) -> Tensor:
        """(B, T, h, w) indices -> codes (B, C, T, h, w)."""
        return rearrange(self.embedding(indices), "b t h w c -> b c t h w")

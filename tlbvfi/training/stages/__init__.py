"""The stages of the training, one file for each part of the model."""

from __future__ import annotations

from .autoencoder import AutoencoderStage, DecoderStage
from .bridge import BridgeStage
from .flow import FlowStage
from .latent import LatentStage
from .refine import RefineStage
from .stage import Stage

#: In their order.
STAGES: dict[str, type[Stage]] = {
    "flow": FlowStage,
    "refine": RefineStage,
    "latent": LatentStage,
    "decoder": DecoderStage,
    "autoencoder": AutoencoderStage,
    "bridge": BridgeStage,
}

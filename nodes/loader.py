"""A TLB-VFI model for ComfyUI's own interpolation node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..tlbvfi.model import TLBVFI
from ..tlbvfi.numbers import switch
from ..tlbvfi.pairwise import PairwiseModel
from ..tlbvfi.planning import Plan
from ..tlbvfi.settings import Settings
from . import host, inputs, models
from .run import plan_run


class ModelLoader(models.ModelNode):
    """ComfyUI node: a TLB-VFI model as an `INTERP_MODEL`, which ComfyUI's node `FrameInterpolate` runs."""

    DESCRIPTION = (
        "Loads a TLB-VFI model for ComfyUI's own Frame Interpolate node, in the place of its Load Frame Interpolation "
        "Model node. Needs ComfyUI 0.20 or newer; the nodes of this pack do without."
    )
    SEARCH_ALIASES: ClassVar = ["load frame interpolation model", "interp model", "vfi", "tlb-vfi", "frame interpolate"]
    FUNCTION = "load"
    RETURN_TYPES = ("INTERP_MODEL",)
    RETURN_NAMES = ("interp_model",)
    OUTPUT_TOOLTIPS = (
        "For ComfyUI's Frame Interpolate node. With multipliers of 2, 4, 8 and 16 new frames stand exactly where they "
        "should, with others up to 1/32 of a gap beside.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "model_name": inputs.model_name(),
                "quality": inputs.quality(),
                "use_fp16": inputs.use_fp16(),
                "enable_tf32": inputs.enable_tf32(),
                "sample_steps": inputs.sample_steps(),
                "flow_scale": inputs.flow_scale(),
                "seed": inputs.seed(),
            }
        }

    def load(
        self,
        model_name: str,
        quality: str,
        use_fp16: bool,
        enable_tf32: bool,
        sample_steps: int,
        flow_scale: float,
        seed: int,
    ) -> tuple[Any]:
        """Load a model, with the settings by which it will run.

        Returns:
            ComfyUI's ModelPatcher of a :class:`~tlbvfi.pairwise.PairwiseModel`.

        Raises:
            ValueError: an input that cannot be used, named in one sentence; `tlbvfi.CheckpointError`, one of them, for
                a file that is no TLB-VFI model.
        """
        device = host.device(0)
        dtype = host.precision(device, switch("use_fp16", use_fp16))
        settings = inputs.settings(
            quality, sample_steps, flow_scale, None, seed=seed, dtype=dtype, enable_tf32=enable_tf32
        )
        managed = models.managed(models.find_or_fetch(model_name), device, dtype)
        settings.check_model(managed.model)
        module = PairwiseModel(_ManagedWeights(managed, settings), settings, host.check_interrupted)
        return (host.as_model(module, device),)


@dataclass(frozen=True)
class _ManagedWeights:
    """Weights that ComfyUI moves, for :class:`~tlbvfi.pairwise.PairwiseModel`."""

    managed: host.ManagedModel
    settings: Settings

    @property
    def ready(self) -> bool:
        return self.managed.ready

    def plan(self, size: tuple[int, int]) -> Plan:
        return plan_run(self.managed, size, self.settings)

    def load(self, plan: Plan) -> TLBVFI:
        return self.managed.load(plan.peak_bytes - plan.weight_bytes)

"""Models that leave the memory when the user says so."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from . import host, models
from .any_type import ANY

log = logging.getLogger(__name__)


class CacheClearer:
    """ComfyUI node: frees the models that this pack keeps in memory."""

    CATEGORY = models.ModelNode.CATEGORY
    DESCRIPTION = (
        "Frees the memory of all TLB-VFI models that are loaded; the next node that needs one loads it again. Connect "
        "trigger to decide when: it runs after what trigger comes from."
    )
    SEARCH_ALIASES: ClassVar = ["free memory", "unload models", "clear vram", "clear cache", "vfi", "tlb-vfi"]
    FUNCTION = "clear"
    OUTPUT_NODE = True
    RETURN_TYPES = (ANY,)
    RETURN_NAMES = ("passed_on",)
    OUTPUT_TOOLTIPS = ("What came in by trigger, unchanged.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {},
            "optional": {
                "trigger": (ANY, {"tooltip": "Anything, such as new frames: the models are freed when it is there."})
            },
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        """Run each time: NaN is unlike itself."""
        return float("nan")

    def clear(self, trigger: Any = None) -> dict[str, Any]:
        """Free the models.

        Returns:
            As `result` what came in; as `ui` what was freed.
        """
        said = _said(models.forget())
        log.info("TLB-VFI: %s", said)
        host.show_text(said)
        return {"ui": {"text": [said]}, "result": (trigger,)}


def _said(freed: models.Freed) -> str:
    if not freed.count and not freed.kept:
        return "No model was in memory."
    said = f"{_models(freed.count)} freed, {freed.bytes / 1e6:.1f} MB of weights"
    if freed.kept:
        said += f"; {_models(freed.kept)}, {freed.kept_bytes / 1e6:.1f} MB, still in use, such as by a Model Loader"
    return f"{said}."


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"

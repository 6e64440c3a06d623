"""The published model, fetched by a node."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from ..tlbvfi.known_models import PUBLISHED_FILE, PUBLISHED_REPOSITORY
from ..tlbvfi.numbers import switch
from . import host, models, published
from .any_type import CHOICE

log = logging.getLogger(__name__)


class ModelDownloader:
    """ComfyUI node: the published weights in the folder of interpolation models, downloaded if they are not there."""

    CATEGORY = models.ModelNode.CATEGORY
    DESCRIPTION = (
        f"Downloads {PUBLISHED_FILE} of {PUBLISHED_REPOSITORY} into models/{host.MODEL_FOLDER} when it runs, unless it "
        "is there. Its authors do not state a licence for these weights."
    )
    SEARCH_ALIASES: ClassVar = ["download model", "fetch weights", "hugging face", "vimeo_unet", "vfi", "tlb-vfi"]
    FUNCTION = "download"
    OUTPUT_NODE = True
    RETURN_TYPES = (CHOICE,)
    RETURN_NAMES = ("model_name",)
    OUTPUT_TOOLTIPS = ("The name of the model that is there now, for the model_name of the other nodes.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "convert": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": f"Convert it to {published.CONVERTED}, which is smaller and loads faster. What was "
                        "downloaded goes once the converted file has been verified.",
                    },
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, convert: Any = None) -> bool | str:
        """Refuse a prompt whose download is not allowed, before anything runs."""
        return models.ModelNode.VALIDATE_INPUTS(published.ENTRY)

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> str:
        """Run again when the file is gone, or another one."""
        return models.fingerprint(published.ENTRY)

    def download(self, convert: bool) -> dict[str, Any]:
        """Have the weights there.

        Returns:
            As `result` the model's name; as `ui` what was done.

        Raises:
            ValueError: nothing may be downloaded, or be written there; `tlbvfi.CheckpointError`, one of them, for a
                file that is no TLB-VFI model.
            tlbvfi.published.DownloadError: the download failed, in one sentence.
        """
        path, done = published.provide(switch("convert", convert))
        log.info("TLB-VFI: %s", done)
        host.show_text(done)
        return {"ui": {"text": [done]}, "result": (path.name,)}

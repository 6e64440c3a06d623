"""Video frame interpolation with TLB-VFI (arXiv 2507.04984, ICCV 2025), in pure PyTorch.

>>> import tlbvfi
>>> model = tlbvfi.load_model("vimeo_unet.pth", device="cuda", dtype=torch.float16)
>>> for frame in tlbvfi.interpolate_frames(model, frames, times=1): ...

What is public is imported when it is first asked for: PyTorch takes seconds, and a command line that only says what
is wrong with it need not wait for it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import takes longer than the rest of this
if TYPE_CHECKING:  # the same as below, for type checkers and editors
    from .checkpoint import load_model
    from .conversion import convert
    from .engine import interpolate_video
    from .features import FrameFeatures
    from .holds import Cuts, Stills
    from .interpolate import interpolate_frames
    from .known_models import BUILT_IN, CheckpointError
    from .model import TLBVFI
    from .padding import padding_for
    from .planning import Plan, plan
    from .scenes import SceneDetector
    from .settings import Settings, preset
    from .timeline import Gap, Multiplier, TargetRate, Timeline

__version__ = "0.1.0"

__all__ = [
    "BUILT_IN",
    "TLBVFI",
    "CheckpointError",
    "Cuts",
    "FrameFeatures",
    "Gap",
    "Multiplier",
    "Plan",
    "SceneDetector",
    "Settings",
    "Stills",
    "TargetRate",
    "Timeline",
    "__version__",
    "convert",
    "interpolate_frames",
    "interpolate_video",
    "load_model",
    "padding_for",
    "plan",
    "preset",
]

if not TYPE_CHECKING:  # to a type checker, a name that is not there stays an error
    from .late_imports import late_imports

    __getattr__, __dir__ = late_imports(
        __name__,
        {
            "checkpoint": ("load_model",),
            "conversion": ("convert",),
            "engine": ("interpolate_video",),
            "features": ("FrameFeatures",),
            "holds": ("Cuts", "Stills"),
            "interpolate": ("interpolate_frames",),
            "known_models": ("BUILT_IN", "CheckpointError"),
            "model": ("TLBVFI",),
            "padding": ("padding_for",),
            "planning": ("Plan", "plan"),
            "scenes": ("SceneDetector",),
            "settings": ("Settings", "preset"),
            "timeline": ("Gap", "Multiplier", "TargetRate", "Timeline"),
        },
    )

"""Video frame interpolation with TLB-VFI (arXiv 2507.04984, ICCV 2025), in pure PyTorch.

>>> import tlbvfi
>>> model = tlbvfi.load_model("vimeo_unet.pth", device="cuda", dtype=torch.float16)
>>> for frame in tlbvfi.interpolate_frames(model, frames, times=1): ...
"""

from .checkpoint import BUILT_IN, load_model
from .conversion import convert
from .engine import interpolate_video
from .features import FrameFeatures
from .interpolate import interpolate_frames
from .model import TLBVFI
from .padding import padding_for
from .planning import Plan, plan
from .settings import Settings, preset
from .timeline import Gap, Multiplier, Timeline
from .weight_file import CheckpointError

__version__ = "0.1.0"

__all__ = [
    "BUILT_IN",
    "TLBVFI",
    "CheckpointError",
    "FrameFeatures",
    "Gap",
    "Multiplier",
    "Plan",
    "Settings",
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

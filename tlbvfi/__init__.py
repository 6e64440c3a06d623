"""Video frame interpolation with TLB-VFI (arXiv 2507.04984, ICCV 2025), in pure PyTorch.

>>> import tlbvfi
>>> model = tlbvfi.load_model("vimeo_unet.pth", device="cuda", dtype=torch.float16)
>>> for frame in tlbvfi.interpolate_frames(model, frames, times=1): ...
"""

from .checkpoint import BUILT_IN, CheckpointError, convert, load_model
from .features import FrameFeatures
from .interpolate import interpolate_frames
from .memory import Plan, plan
from .model import TLBVFI
from .padding import padding_for

__version__ = "0.1.0"

__all__ = [
    "BUILT_IN",
    "TLBVFI",
    "CheckpointError",
    "FrameFeatures",
    "Plan",
    "__version__",
    "convert",
    "interpolate_frames",
    "load_model",
    "padding_for",
    "plan",
]

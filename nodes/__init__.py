"""The nodes and the keys under which saved graphs know them."""

from __future__ import annotations

from .example_clip import ExampleClip
from .interpolator import Interpolator
from .loader import ModelLoader
from .slicer import DeprecatedFramePairSlicer, FramePairSlicer
from .video_file import VideoFileInterpolator
from .video_interpolator import VideoInterpolator

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "FramePairSlicer": FramePairSlicer,
    "TLBVFI_ExampleClip": ExampleClip,
    "TLBVFI_FramePairSlicer": DeprecatedFramePairSlicer,
    "TLBVFI_InterpolateVideo": VideoFileInterpolator,
    "TLBVFI_Interpolator_V2": Interpolator,
    "TLBVFI_ModelLoader": ModelLoader,
    "TLBVFI_VideoInterpolator": VideoInterpolator,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "FramePairSlicer": "Frame Pair Slicer (TLB-VFI)",
    "TLBVFI_ExampleClip": "Example Clip (TLB-VFI)",
    "TLBVFI_FramePairSlicer": "Frame Pair Slicer (TLB-VFI, old key)",
    "TLBVFI_InterpolateVideo": "Interpolate Video File (TLB-VFI)",
    "TLBVFI_Interpolator_V2": "Frame Interpolator (TLB-VFI)",
    "TLBVFI_ModelLoader": "Model Loader (TLB-VFI)",
    "TLBVFI_VideoInterpolator": "Video Interpolator (TLB-VFI)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

"""The nodes and the keys under which saved graphs know them."""

from __future__ import annotations

from .cache_clearer import CacheClearer
from .downloader import ModelDownloader
from .example_clip import ExampleClip
from .interpolator import Interpolator
from .legacy import LegacyBatchInterpolator, LegacyFrameFromBatch, LegacyInterpolator, LegacyVideoInterpolator
from .loader import ModelLoader
from .published import NODE_NAME
from .schedule import ScheduleChooser, SchedulePreview
from .slicer import DeprecatedFramePairSlicer, FramePairSlicer
from .video_file import VideoFileInterpolator
from .video_interpolator import VideoInterpolator

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "FramePairSlicer": FramePairSlicer,
    "TLBVFI_BatchInterpolator_V2": LegacyBatchInterpolator,
    "TLBVFI_ClearModelCache": CacheClearer,
    "TLBVFI_DownloadModel": ModelDownloader,
    "TLBVFI_ExampleClip": ExampleClip,
    "TLBVFI_FrameFromBatch": LegacyFrameFromBatch,
    "TLBVFI_FramePairSlicer": DeprecatedFramePairSlicer,
    "TLBVFI_InterpolateVideo": VideoFileInterpolator,
    "TLBVFI_Interpolator": LegacyInterpolator,
    "TLBVFI_Interpolator_V2": Interpolator,
    "TLBVFI_ModelLoader": ModelLoader,
    "TLBVFI_Schedule": ScheduleChooser,
    "TLBVFI_SchedulePreview": SchedulePreview,
    "TLBVFI_VFI_TF32": LegacyVideoInterpolator,
    "TLBVFI_VideoInterpolator": VideoInterpolator,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "FramePairSlicer": "Frame Pair Slicer (TLB-VFI)",
    "TLBVFI_BatchInterpolator_V2": "TLB-VFI Batch Interpolator (old)",
    "TLBVFI_ClearModelCache": "Clear Model Cache (TLB-VFI)",
    "TLBVFI_DownloadModel": NODE_NAME,
    "TLBVFI_ExampleClip": "Example Clip (TLB-VFI)",
    "TLBVFI_FrameFromBatch": "TLB-VFI Frame From Batch (old)",
    "TLBVFI_FramePairSlicer": "Frame Pair Slicer (TLB-VFI, old key)",
    "TLBVFI_InterpolateVideo": "Interpolate Video File (TLB-VFI)",
    "TLBVFI_Interpolator": "TLB-VFI Frame Pair Interpolator (old)",
    "TLBVFI_Interpolator_V2": "Frame Interpolator (TLB-VFI)",
    "TLBVFI_ModelLoader": "Model Loader (TLB-VFI)",
    "TLBVFI_Schedule": "Schedule (TLB-VFI)",
    "TLBVFI_SchedulePreview": "Schedule Preview (TLB-VFI)",
    "TLBVFI_VFI_TF32": "TLB-VFI Video Interpolator (old)",
    "TLBVFI_VideoInterpolator": "Video Interpolator (TLB-VFI)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

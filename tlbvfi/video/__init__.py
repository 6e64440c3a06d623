"""Video files and pictures with PyAV, one frame at a time, as (H, W, 3) float32 RGB tensors in [0, 1].

YUV becomes RGB and back here, in float32 from the samples as they are stored: matrix, range and depth are those
the file states. Where it states no matrix, BT.709 counts from 720 rows on and BT.601 below, as players do.
A written file appears whole or not at all.
"""

from .colour import Colour
from .pictures import PICTURES, read_picture, write_picture, write_pictures
from .pyav import File, VideoError
from .reading import VideoInfo, probe, read_frames
from .writing import DEFAULT_CRF, ENCODERS, check_target, write_video

__all__ = [
    "DEFAULT_CRF",
    "ENCODERS",
    "PICTURES",
    "Colour",
    "File",
    "VideoError",
    "VideoInfo",
    "check_target",
    "probe",
    "read_frames",
    "read_picture",
    "write_picture",
    "write_pictures",
    "write_video",
]

"""Video files and pictures with PyAV, one frame at a time, as (H, W, 3) float32 RGB tensors in [0, 1].

YUV becomes RGB and back here, in float32 from the samples as they are stored: matrix, range and depth are those
the file states. Where it states no matrix, BT.709 counts from 720 rows on and BT.601 below, as players do.
A written file appears whole or not at all.
"""

from .checking import check_target
from .colour import Colour
from .containers import SUFFIXES
from .encoding import CODECS, Encoding
from .excerpt import Excerpt
from .hdr import Mastering
from .joining import join_videos
from .passing import PassedOn
from .pictures import PICTURES, read_picture, write_picture, write_pictures
from .pyav import File, VideoError
from .reading import VideoInfo, probe, read_frames
from .sound import Waveform
from .writing import write_video

__all__ = [
    "CODECS",
    "PICTURES",
    "SUFFIXES",
    "Colour",
    "Encoding",
    "Excerpt",
    "File",
    "Mastering",
    "PassedOn",
    "VideoError",
    "VideoInfo",
    "Waveform",
    "check_target",
    "join_videos",
    "probe",
    "read_frames",
    "read_picture",
    "write_picture",
    "write_pictures",
    "write_video",
]

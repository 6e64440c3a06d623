"""Video files and pictures with PyAV, one frame at a time, as (H, W, 3) float32 RGB tensors in [0, 1].

YUV becomes RGB and back here, in float32 from the samples as they are stored: matrix, range and depth are those
the file states. Where it states no matrix, BT.709 counts from 720 rows on and BT.601 below, as players do.
A written file appears whole or not at all.

What can be said of a file before any work (:func:`check_target`, :class:`Encoding`) needs no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..late_imports import late_imports
from .checking import check_apart, check_source, check_target
from .containers import PICTURES, SUFFIXES
from .encoding import CODECS, Encoding
from .excerpt import Excerpt
from .pyav import File, VideoError

if TYPE_CHECKING:  # the same as below, for type checkers and editors
    from .colour import Colour
    from .hdr import Mastering
    from .joining import join_videos
    from .passing import PassedOn
    from .pictures import check_picture, read_picture, write_picture, write_pictures
    from .reading import VideoInfo, count_frames, probe, read_frames, read_marked
    from .sound import Waveform, read_waveform
    from .writing import write_video
    from .y4m import read_header, read_y4m, write_y4m

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
    "check_apart",
    "check_picture",
    "check_source",
    "check_target",
    "count_frames",
    "join_videos",
    "probe",
    "read_frames",
    "read_header",
    "read_marked",
    "read_picture",
    "read_waveform",
    "read_y4m",
    "write_picture",
    "write_pictures",
    "write_video",
    "write_y4m",
]

if not TYPE_CHECKING:  # to a type checker, a name that is not there stays an error
    __getattr__, __dir__ = late_imports(
        __name__,
        {
            "colour": ("Colour",),
            "hdr": ("Mastering",),
            "joining": ("join_videos",),
            "passing": ("PassedOn",),
            "pictures": ("check_picture", "read_picture", "write_picture", "write_pictures"),
            "reading": ("VideoInfo", "count_frames", "probe", "read_frames", "read_marked"),
            "sound": ("Waveform", "read_waveform"),
            "writing": ("write_video",),
            "y4m": ("read_header", "read_y4m", "write_y4m"),
        },
    )

"""A short clip that comes with the pack, for graphs that run before anything is put into ComfyUI's input folder."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..tlbvfi import video
from ..tlbvfi.demo import fitted
from ..tlbvfi.numbers import whole_number
from . import host

CLIP = Path(__file__).with_name("example_clip.mp4")
#: What is in it: a wide shot, and from this frame on a close one.
FRAMES, CUT, WIDTH, RATE = 48, 36, 480, Fraction(25)
SMALLEST_WIDTH = 32


class ExampleClip:
    """ComfyUI node: some frames of the clip, as IMAGE and as VIDEO."""

    CATEGORY = "frame_interpolation/TLBVFI-TF32"
    DESCRIPTION = (
        "A short clip that comes with this pack, so that a graph can be tried at once: from Big Buck Bunny, (c) 2008 "
        "Blender Foundation, www.bigbuckbunny.org, CC BY 3.0, scaled down, with a cut made in it. Take Load Video in "
        "its place for a clip of your own."
    )
    SEARCH_ALIASES: ClassVar = ["demo clip", "sample video", "test video", "example video", "vfi", "tlb-vfi"]
    FUNCTION = "read"
    RETURN_TYPES = ("IMAGE", "FLOAT", "VIDEO")
    RETURN_NAMES = ("frames", "fps", "video")
    OUTPUT_TOOLTIPS = (
        "The frames in order.",
        "Frames per second of the clip.",
        "The same frames as a VIDEO, with their sound.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Saved graphs store widgets by position: new inputs go to the end.
        return {
            "required": {
                "frame_count": (
                    "INT",
                    {
                        "default": 24,
                        "min": 1,
                        "max": FRAMES,
                        "step": 1,
                        "tooltip": f"How many frames of the clip's {FRAMES}, beginning with first_frame.",
                    },
                ),
                "width": (
                    "INT",
                    {
                        "default": 256,
                        "min": SMALLEST_WIDTH,
                        "max": WIDTH,
                        "step": 2,
                        "tooltip": f"To this width the frames are scaled down; {WIDTH} is as they are. Small ones take "
                        "seconds on a CPU.",
                    },
                ),
                "first_frame": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": FRAMES - 1,
                        "step": 1,
                        "tooltip": f"The number of the first one, from 0. At frame {CUT} the camera changes: a scene "
                        "cut.",
                    },
                ),
            }
        }

    def read(self, frame_count: int, width: int, first_frame: int) -> tuple[Tensor, float, Any]:
        """Read some frames.

        Returns:
            (F, H, W, 3) float32 in [0, 1], frames per second, and both as a VIDEO with the sound of this part.

        Raises:
            ValueError: an input that cannot be used, or the clip is missing; one sentence.
        """
        count = whole_number("frame_count", frame_count, 1, FRAMES, floats=True)
        width = whole_number("width", width, SMALLEST_WIDTH, WIDTH, floats=True)
        first = whole_number("first_frame", first_frame, 0, FRAMES - 1, floats=True)
        if width % 2:  # videos are stored with even sides
            raise ValueError(f"width must be even, not {width}; take {width - 1}.")
        if first + count > FRAMES:
            raise ValueError(
                f"first_frame {first} and frame_count {count} lead beyond the clip's {FRAMES} frames; from frame "
                f"{first} on there are {FRAMES - first}, so lower one of them."
            )
        if not CLIP.is_file():
            raise ValueError(f"The example clip, {CLIP.name}, is missing from this installation; install it anew.")
        chosen = islice(video.read_frames(CLIP), first, first + count)
        frames = torch.stack([fitted(frame, width) for frame in chosen])
        sound = video.read_waveform(CLIP, first / RATE, (first + count) / RATE)
        return frames, float(RATE), host.video_of(frames, RATE, sound)

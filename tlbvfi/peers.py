"""Classical frame interpolation that runs anywhere, to compare with: each fills every gap with new frames.

Frames are (H, W, 3) float32 in [0, 1]. N frames give (N - 1) (factor - 1) new ones, spread evenly: with the factor 2,
the frame in the middle of each gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import av

#: FFmpeg's best motion-compensated settings.
MINTERPOLATE = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1"

Peer = Callable[[Sequence[Tensor]], list[Tensor]]


def average(frames: Sequence[Tensor], factor: int = 2) -> list[Tensor]:
    """The mean of the two frames, each weighted by how near it is: a cross-fade."""
    places = [k / factor for k in range(1, factor)]
    return [(1 - t) * a + t * b for a, b in zip(frames[:-1], frames[1:], strict=True) for t in places]


def minterpolate(frames: Sequence[Tensor], factor: int = 2) -> list[Tensor]:
    """FFmpeg's minterpolate at `factor` times the rate, through PyAV."""
    import av

    pictures = []
    for frame in frames:
        pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        pictures.append(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv444p"))
    found = minterpolated(pictures, factor)
    new = [found[k].to_ndarray(format="rgb24") for k in range(factor * (len(frames) - 1)) if k % factor]
    return [torch.from_numpy(frame).float() / 255.0 for frame in new]


def minterpolated(given: Sequence[av.VideoFrame], factor: int = 2) -> dict[int, av.VideoFrame]:
    """FFmpeg's motion-compensated frames at `factor` times the rate: position -> frame, given frame k at `factor` k.

    Positions come from the timestamps the filter writes. The last frame is fed twice, because the filter gives nothing
    between the last two.
    """
    import av

    tick = Fraction(1, 50)
    first = given[0]
    graph = av.filter.Graph()
    layout = av.VideoFormat(first.format.name)
    source = graph.add_buffer(width=first.width, height=first.height, format=layout, time_base=tick)
    double = graph.add("minterpolate", f"fps={tick.denominator}:{MINTERPOLATE}")
    sink = graph.add("buffersink")
    source.link_to(double)
    double.link_to(sink)
    graph.configure()
    found: dict[int, av.VideoFrame] = {}

    def collect() -> None:
        while True:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert frame.pts is not None and frame.time_base is not None
            found[round(frame.pts * frame.time_base / tick)] = frame

    for index, frame in enumerate([*given, given[-1]]):
        stamped = av.VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
        stamped.colorspace, stamped.color_range = frame.colorspace, frame.color_range
        stamped.pts, stamped.time_base = factor * index, tick
        graph.push(stamped)
        collect()
    graph.push(None)
    collect()
    return found


def dis_flow(frames: Sequence[Tensor], factor: int = 2) -> list[Tensor]:
    """OpenCV's DIS optical flow both ways, each frame warped its part of the way, and the cross-fade of the two.

    Raises:
        ImportError: OpenCV is not installed.
    """
    import cv2
    import numpy as np

    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = np.mgrid[: frames[0].shape[0], : frames[0].shape[1]].astype(np.float32)
    results = []
    for first, second in zip(frames[:-1], frames[1:], strict=True):
        grey, next_grey = (
            cv2.cvtColor((f.numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in (first, second)
        )
        flows = [
            estimator.calc(here, there, None)  # type: ignore[call-overload,unused-ignore]
            for here, there in ((grey, next_grey), (next_grey, grey))
        ]
        for t in (k / factor for k in range(1, factor)):
            new = np.zeros_like(first.numpy())
            for frame, flow, way in ((first, flows[0], t), (second, flows[1], 1 - t)):
                # Sampled backwards from the new frame with the flow at the end, its part: exact for even motion.
                place = (columns - flow[..., 0] * way, rows - flow[..., 1] * way)
                new += (1 - way) * cv2.remap(frame.numpy(), *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            results.append(torch.from_numpy(new))
    return results


PEERS: dict[str, Peer] = {
    "average of the two frames": average,
    "FFmpeg minterpolate": minterpolate,
    "OpenCV DIS flow and warp": dis_flow,
}

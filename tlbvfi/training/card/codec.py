"""Real video as codecs leave it: something of what moved stays on what stands still, as on a caption."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from .draws import Chance

#: Compression from hardly to clearly visible, as x264 counts it.
_CRF = (17, 31)
_PRESETS = ("veryfast", "medium")


def available() -> bool:
    """Whether PyAV is there, which codes; a card's machine may be without it."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def coded(frames: Tensor, crf: int, preset: str) -> Tensor:
    """Frames (n, 3, H, W) in [0, 1], sides even, through H.264 and back."""
    import av

    _, _, height, width = frames.shape
    pictures = (frames.clamp(0.0, 1.0) * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": preset, "threads": "1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        decoded = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(decoded).permute(0, 3, 1, 2).float().to(frames.device) / 255.0


def sometimes_coded(parts: Tensor, chance: Chance, share: float = 0.7) -> Tensor:
    """Parts (n, B, 3, S, S) in order of time, each by itself, compressed by some amount, a share of them."""
    made = []
    for frames in parts.unbind(1):
        if chance.once(share):
            crf = _CRF[0] + int(chance.number(_CRF[1] - _CRF[0]))
            frames = coded(frames, crf, _PRESETS[int(chance.number(len(_PRESETS)))])
        made.append(frames)
    return torch.stack(made, dim=1)

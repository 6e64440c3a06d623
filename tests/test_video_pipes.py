"""Raw frames through streams that cannot be sought: YUV4MPEG2."""

from __future__ import annotations

import io
import os
import threading
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.tiny import frames as smooth_frames
from tlbvfi.sources import Y4mSource
from tlbvfi.targets import Y4mTarget
from tlbvfi.video import Colour, VideoError, VideoInfo


class Pipe(io.RawIOBase):
    """A stream that gives a few bytes at a time and cannot be sought."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 100) if size >= 0 else 100)


def written(frames: list[torch.Tensor], fps: Fraction = Fraction(30000, 1001), like: VideoInfo | None = None) -> bytes:
    stream = io.BytesIO()
    assert Y4mTarget(stream, like).write(iter(frames), fps) == len(frames)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(32, 48), (35, 51)])
@pytest.mark.parametrize("bits", [8, 10])
def test_there_and_back(size: tuple[int, int], bits: int) -> None:
    source = smooth_frames(4, *size)
    like = VideoInfo(*size[::-1], Fraction(25), 4, pixel_aspect=Fraction(4, 3), colour=Colour(6, bits=bits))
    read = Y4mSource(Pipe(written(source, like=like)))  # type: ignore[arg-type]
    info = read.info
    assert (info.height, info.width, info.fps, info.frame_count) == (*size, Fraction(30000, 1001), None)
    assert (info.pixel_aspect, info.colour.bits) == (Fraction(4, 3), bits)
    back = list(read.frames())
    assert len(back) == read.taken == 4
    for frame, expected in zip(back, source, strict=True):
        assert (frame - expected).abs().mean() < 0.02


@pytest.mark.parametrize("size", [(32, 48), (35, 51)])
@pytest.mark.parametrize("bits", [8, 10])
def test_ffmpeg_reads_the_same(size: tuple[int, int], bits: int) -> None:
    from tlbvfi.video.samples import to_tensor

    data = written(smooth_frames(3, *size), like=VideoInfo(8, 8, None, 3, colour=Colour(6, bits=bits)))
    ours = list(Y4mSource(io.BytesIO(data)).frames())
    with av.open(io.BytesIO(data), format="yuv4mpegpipe") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        theirs = [to_tensor(frame) for frame in container.decode(stream)]
    assert len(theirs) == 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("name", "bits", "chroma", "extra", "scale"),
    [
        ("C420", 8, (2, 2), "", None),
        ("", 8, (2, 2), "", None),
        ("C420jpeg", 8, (2, 2), "XCOLORRANGE=FULL", None),
        ("C422", 8, (1, 2), "", None),
        ("C444", 8, (1, 1), "", None),
        ("C420p10", 10, (2, 2), "XYSCSS=420P10", None),
        ("C422p12", 12, (1, 2), "", None),
        ("C444p16", 16, (1, 1), "", None),
    ],
)
def test_every_kind_of_frame(name: str, bits: int, chroma: tuple[int, int], extra: str, scale: Any) -> None:
    """A grey of 50 %, set by hand."""
    full = "FULL" in extra
    grey = 0.5 * (2**bits - 1) if full else (16 + 0.5 * 219) * 2 ** (bits - 8)
    kind = np.dtype("<u2") if bits > 8 else np.dtype(np.uint8)
    rows, columns = 8, 12
    luma = np.full((rows, columns), round(grey), kind)
    other = np.full((rows // chroma[0], columns // chroma[1]), 2 ** (bits - 1), kind)
    head = " ".join(filter(None, ["YUV4MPEG2", "W12", "H8", "F25:1", "Ip", "A0:0", name, extra]))
    data = head.encode() + b"\n" + 2 * (b"FRAME Ixyz\n" + luma.tobytes() + 2 * other.tobytes())
    pictures = list(Y4mSource(io.BytesIO(data)).frames())
    assert len(pictures) == 2
    assert all((picture - 0.5).abs().max() < 0.6 / 219 for picture in pictures)


def test_an_early_end_gives_the_frames_before_it(caplog: pytest.LogCaptureFixture) -> None:
    data = written(smooth_frames(3, 16, 16))
    for cut in (len(data) - 5, len(data) - 16 * 16 * 3 // 2 - 3):
        caplog.clear()
        assert len(list(Y4mSource(io.BytesIO(data[:cut])).frames())) == 2
        assert caplog.text.count("ends in the middle of frame 2") == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no stream of raw frames"),
        (b"RIFF....WAVE", "no stream of raw frames"),
        (b"YUV4MPEG2 W16 F25:1\n", r"cannot be read here \(YUV4MPEG2 W16 F25:1\)"),
        (b"YUV4MPEG2 W16 H16 F25:1 C444alpha\n", "cannot be read here"),
        (b"YUV4MPEG2 W16 H16 F25:1 C420p11\n", "cannot be read here"),
        (b"YUV4MPEG2 W0 H16 F25:1\n", "cannot be 0x16"),
    ],
)
def test_what_is_no_stream(data: bytes, said: str) -> None:
    with pytest.raises(VideoError, match=said):
        _ = Y4mSource(io.BytesIO(data)).info


def test_rubbish_between_frames() -> None:
    data = written(smooth_frames(1, 16, 16)) + b"hello\n"
    with pytest.raises(VideoError, match="something else than a frame after frame 1"):
        list(Y4mSource(io.BytesIO(data)).frames())


def test_a_reader_that_leaves_ends_the_writer() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as target:

        def leave() -> None:
            source.read(100)
            source.close()

        thread = threading.Thread(target=leave)
        thread.start()
        with pytest.raises(BrokenPipeError):
            Y4mTarget(target).write((torch.zeros(64, 64, 3) for _ in range(1000)), Fraction(25))
        thread.join()


def test_frames_pass_a_pipe_one_at_a_time() -> None:
    """The writer waits for the reader: no more than a pipe holds is ahead."""
    reading, writing = os.pipe()
    made: list[int] = []

    def frames() -> Any:
        for index in range(50):
            made.append(index)
            yield torch.full((128, 128, 3), index / 255)

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as target:
            Y4mTarget(target).write(frames(), Fraction(25))

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as source:
        found = Y4mSource(source).frames()  # type: ignore[arg-type]
        next(found)
        assert len(made) < 20
        assert len(list(found)) == 49
    thread.join()


def test_nothing_to_write() -> None:
    stream = io.BytesIO()
    with pytest.raises(VideoError, match="no frames"):
        Y4mTarget(stream).write(iter(()), Fraction(25))
    with pytest.raises(VideoError, match="needs a frame rate"):
        Y4mTarget(stream).write(iter(smooth_frames(1, 8, 8)), None)
    assert not stream.getvalue()

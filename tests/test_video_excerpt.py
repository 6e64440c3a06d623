"""Parts of videos by their times: the same frames as by reading everything."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from tests.tiny import frames as smooth_frames
from tlbvfi.sources import FileSource
from tlbvfi.video import VideoError, read_frames, seeking, write_pictures

RATE = Fraction(24000, 1001)
COUNT = 120


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same frames with open groups of pictures and B-frames in several kinds of files."""
    folder = tmp_path_factory.mktemp("clips")
    result = {}
    for name, codec, options in (
        ("h264.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0", "bf": "3"}),
        ("h264.mkv", "libx264", {"x264-params": "open-gop=1:keyint=24:scenecut=0", "bf": "2"}),
        ("h264.ts", "libx264", {"x264-params": "keyint=24:scenecut=0", "bf": "2"}),
        ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=24"}),
        ("hevc.mp4", "libx265", {"x265-params": "open-gop=1:keyint=24:bframes=4:log-level=error"}),
        ("mpeg2.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        ("vp9.webm", "libvpx-vp9", {"g": "30", "cpu-used": "8"}),
        ("one_key.mp4", "libx264", {"x264-params": "keyint=1000:scenecut=0"}),
    ):
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=RATE)
            stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
            stream.codec_context.options = options
            for index in range(COUNT):
                array = torch.full((32, 64, 3), index * 2, dtype=torch.uint8)
                array[:, index % 64] = 255 - index
                frame = av.VideoFrame.from_ndarray(array.numpy(), format="rgb24")
                frame.pts, frame.time_base = index, 1 / RATE
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        result[name] = path
    return result


NAMES = ["h264.mp4", "h264.mkv", "h264.ts", "refresh.mp4", "hevc.mp4", "mpeg2.mpg", "vp9.webm", "one_key.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_are_those_of_the_whole(clips: dict[str, Path], name: str) -> None:
    whole = list(read_frames(clips[name]))
    for first, last in ((0, 5), (3, 60), (50, 61), (55, 56), (73, 120), (118, None)):
        start, end = first / RATE, None if last is None else last / RATE
        source = FileSource(clips[name], start, end)
        part, expected = list(source.frames()), whole[first:last]
        assert len(part) == len(expected) == source.taken
        assert all(torch.equal(a, b) for a, b in zip(part, expected, strict=True))
        if source.info.frame_count is not None and "mpg" not in name:
            assert source.info.frame_count == len(expected)
            assert source.info.duration == len(expected) / RATE


def test_times_between_frames(clips: dict[str, Path]) -> None:
    """[start, end): a frame that is shown before the start is out, one that is shown at the end too."""
    whole = list(read_frames(clips["h264.mp4"]))
    source = FileSource(clips["h264.mp4"], Fraction(295, 100), Fraction(305, 100))  # 70.73 to 73.13 frames
    assert [int(torch.stack([(f - g).abs().sum() for g in whole]).argmin()) for f in source.frames()] == [71, 72, 73]
    assert source.info.frame_count == 3


def test_an_open_file_is_read_in_part(clips: dict[str, Path]) -> None:
    whole = list(read_frames(clips["h264.mp4"]))
    source = FileSource(io.BytesIO(clips["h264.mp4"].read_bytes()), 80 / RATE, 90 / RATE)
    assert all(torch.equal(a, b) for a, b in zip(source.frames(), whole[80:90], strict=True))


def test_only_the_frames_from_the_key_frame_on_are_decoded(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Any] = []
    real = seeking.decoded

    def counting(*args: Any) -> Any:
        for frame in real(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(seeking, "decoded", counting)
    assert len(list(FileSource(clips["h264.mp4"], 100 / RATE, 104 / RATE).frames())) == 4
    assert len(decoded) < 40
    assert all(a < b for a, b in pairwise(decoded))


def test_an_edit_list(tmp_path: Path, clips: dict[str, Path]) -> None:
    """A cut of an MP4 that keeps the frames before it, hidden by an edit list: times count from what is shown."""
    path = tmp_path / "cut.mp4"
    with av.open(str(clips["h264.mp4"])) as source, av.open(str(path), "w") as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old, opaque=True)
        for packet in source.demux(old):
            if packet.size:
                for name in ("pts", "dts"):
                    setattr(packet, name, getattr(packet, name) - round(6 / RATE / packet.time_base))
                packet.stream = new
                target.mux(packet)
    whole = list(read_frames(path))
    assert 100 < len(whole) < COUNT
    part = list(FileSource(path, 60 / RATE, 70 / RATE).frames())
    assert all(torch.equal(a, b) for a, b in zip(part, whole[60:70], strict=True))


def test_pictures_have_times_by_a_rate(tmp_path: Path) -> None:
    stored = smooth_frames(6, 4, 4)
    write_pictures(tmp_path / "p", stored)
    source = FileSource(tmp_path / "p", Fraction(1), Fraction(2), fps=Fraction(2))
    assert (source.info.fps, source.info.frame_count, source.info.duration) == (2, 2, 1)
    assert len(list(source.frames())) == 2
    assert FileSource(tmp_path / "p", fps=Fraction(3)).info.duration == 2
    with pytest.raises(VideoError, match="give one"):
        _ = FileSource(tmp_path / "p", Fraction(1)).info


def test_another_rate(clips: dict[str, Path]) -> None:
    info = FileSource(clips["h264.mp4"], fps=Fraction(60)).info
    assert (info.fps, info.frame_count, info.duration) == (60, COUNT, 2)


def test_excerpts_that_cannot_be(clips: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="before the video"):
        FileSource(clips["h264.mp4"], Fraction(-1))
    with pytest.raises(VideoError, match="cannot end at 1 s"):
        FileSource(clips["h264.mp4"], Fraction(2), Fraction(1))
    with pytest.raises(VideoError, match=r"no frame in the excerpt: it lasts 5\.0"):
        _ = FileSource(clips["h264.mp4"], Fraction(20)).info

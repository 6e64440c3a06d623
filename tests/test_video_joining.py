"""Videos joined without decoding: the frames of the parts, one after another, at a constant rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from tests.test_video import RATE, sound_packets, with_sound
from tests.tiny import frames as smooth_frames
from tlbvfi.video import Encoding, PassedOn, VideoError, Waveform, join_videos, probe, read_frames, write_video

FPS = Fraction(60000, 1001)
LENGTHS = (30, 1, 17, 45)


def parts_of(folder: Path, codec: str, suffix: str, fps: Fraction = FPS) -> list[Path]:
    stored, begin, result = smooth_frames(sum(LENGTHS), 48, 64), 0, []
    for index, length in enumerate(LENGTHS):
        path = folder / f"part{index}{suffix}"
        write_video(path, stored[begin : begin + length], fps, encoding=Encoding(codec))
        begin += length
        result.append(path)
    return result


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *[("h264", s) for s in (".mp4", ".mov", ".mkv", ".m4v")],
        *[("hevc", s) for s in (".mp4", ".mkv")],
        *[("vp9", s) for s in (".webm", ".mkv", ".mp4")],
        *[("av1", s) for s in (".mp4", ".webm")],
        ("ffv1", ".mkv"),
        ("prores", ".mov"),
    ],
)
def test_the_joined_has_the_frames_of_its_parts(tmp_path: Path, codec: str, suffix: str) -> None:
    parts, out = parts_of(tmp_path, codec, suffix), tmp_path / f"out{suffix}"
    assert join_videos(parts, out) == sum(LENGTHS)
    info = probe(out)
    assert (info.width, info.height) == (64, 48)
    if suffix not in (".mkv", ".webm") or int(av.__version__.split(".")[0]) >= 18:
        assert info.fps == FPS
        assert info.frame_count == sum(LENGTHS)
    expected = [frame for part in parts for frame in read_frames(part)]
    joined = list(read_frames(out))
    assert len(joined) == len(expected) == sum(LENGTHS)
    assert all(torch.equal(a, b) for a, b in zip(joined, expected, strict=True))
    with av.open(str(out)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    tolerance = Fraction(0) if suffix in (".mp4", ".mov", ".m4v") else Fraction(1, 2000)
    assert all(abs(time - times[0] - index / FPS) <= 2 * tolerance for index, time in enumerate(times))
    assert times[0] == 0


def test_colours_aspect_and_tag_are_kept(tmp_path: Path) -> None:
    from tlbvfi.video import Colour, VideoInfo

    like = VideoInfo(64, 48, FPS, 2, pixel_aspect=Fraction(4, 3), colour=Colour(9, primaries=9, transfer=16, bits=10))
    parts = [tmp_path / f"{i}.mp4" for i in range(2)]
    for part in parts:
        write_video(part, smooth_frames(3, 48, 64), FPS, like=like, encoding=Encoding("hevc"))
    join_videos(parts, tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.colour, info.pixel_aspect) == (like.colour, like.pixel_aspect)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_and_metadata_go_along(tmp_path: Path, suffix: str) -> None:
    original = with_sound(tmp_path / "original.mkv", "aac", seconds=3)
    parts = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for part in parts:
        write_video(part, smooth_frames(15, 16, 32), Fraction(10))
    out = tmp_path / f"out{suffix}"
    join_videos(parts, out, passed_on=PassedOn(original), metadata={"prompt": "{}"})
    assert sound_packets(out) == sound_packets(original)
    with av.open(str(out)) as container:
        assert {k.lower(): v for k, v in container.metadata.items()}["prompt"] == "{}"
    join_videos(parts, out, passed_on=PassedOn(waveform=Waveform(torch.zeros(1, RATE), RATE)))
    assert probe(out).sound == 1


def test_what_cannot_be_joined(tmp_path: Path) -> None:
    parts, out = parts_of(tmp_path, "h264", ".mp4"), tmp_path / "out.mp4"
    write_video(tmp_path / "other.mp4", smooth_frames(2, 32, 64), FPS)
    with pytest.raises(VideoError, match=r"other\.mp4 is encoded otherwise"):
        join_videos([parts[0], tmp_path / "other.mp4"], out)
    with pytest.raises(VideoError, match="no parts"):
        join_videos([], out)
    with pytest.raises(VideoError, match=r"gone\.mp4 does not exist"):
        join_videos([parts[0], tmp_path / "gone.mp4"], out)
    with pytest.raises(VideoError, match="cannot be joined into such a file"):
        join_videos(parts, tmp_path / "out.webm")
    assert not out.exists() and not (tmp_path / "out.webm").exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]

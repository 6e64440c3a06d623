"""How videos are encoded: codecs, qualities, depths, HDR, and what is refused."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from tests.tiny import frames as smooth_frames
from tlbvfi.targets import VideoTarget
from tlbvfi.video import (
    CODECS,
    SUFFIXES,
    Colour,
    Encoding,
    Mastering,
    VideoError,
    VideoInfo,
    check_target,
    probe,
    read_frames,
    write_video,
)
from tlbvfi.video.containers import CONTAINERS

PAIRS = [(codec, suffix) for suffix, kind in CONTAINERS.items() for codec in kind.codecs if not kind.is_animation]
#: BT.2020 primaries, a white of D65, 0.005 to 1000 cd/m2.
HDR10 = Mastering(
    (
        *(Fraction("0.708"), Fraction("0.292"), Fraction("0.17"), Fraction("0.797"), Fraction("0.131")),
        *(Fraction("0.046"), Fraction("0.3127"), Fraction("0.329"), Fraction("0.005"), Fraction(1000)),
    ),
    (1000, 400),
)


def has(codec: str) -> bool:
    try:
        av.Codec(CODECS[codec].encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def noise(count: int, bits: int = 8, size: tuple[int, int] = (30, 34)) -> list[Tensor]:
    top = 2**bits - 1
    made = (torch.randint(0, top + 1, (*size, 3), generator=torch.Generator().manual_seed(i)) for i in range(count))
    return [picture.float() / top for picture in made]


def stream_of(path: Path) -> Any:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context


@pytest.mark.parametrize(("codec", "suffix"), PAIRS)
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_every_codec_in_every_file_that_takes_it(
    tmp_path: Path, codec: str, suffix: str, size: tuple[int, int]
) -> None:
    if not has(codec):
        pytest.skip(f"this PyAV has no encoder for {codec}")
    source, path = smooth_frames(5, *size), tmp_path / f"a{suffix}"
    check_target(path, None, Encoding(codec))
    assert write_video(path, source, Fraction(30000, 1001), encoding=Encoding(codec)) == 5
    info = probe(path)
    assert (info.height, info.width, info.fps) == (*size, Fraction(30000, 1001))
    back = list(read_frames(path))
    assert len(back) == 5
    for frame, expected in zip(back, source, strict=True):
        assert (frame - expected).abs().mean() < 0.02
    assert stream_of(path).codec.canonical_name == codec
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_auto_is_h264_or_what_else_fits() -> None:
    assert {suffix: Encoding().chosen(suffix).family for suffix in SUFFIXES} == {
        ".mp4": "h264", ".m4v": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9",
        ".gif": "gif", ".apng": "apng", ".webp": "webp",
    }  # fmt: skip


def test_hevc_is_tagged_as_players_want_it(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mov"):
        path = tmp_path / f"a{suffix}"
        write_video(path, smooth_frames(2, 32, 32), Fraction(25), encoding=Encoding("hevc"))
        assert stream_of(path).codec_tag == "hvc1"


@pytest.mark.parametrize("count", [1, 2])
def test_very_short_hevc(tmp_path: Path, count: int) -> None:
    """Often, because x265 then leaves a time unset: by chance it is right."""
    for _ in range(20):
        write_video(tmp_path / "a.mp4", smooth_frames(count, 32, 32), Fraction(25), encoding=Encoding("hevc"))
        assert len(list(read_frames(tmp_path / "a.mp4"))) == count


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("hevc", "mp4"), ("vp9", "webm"), ("av1", "mkv")])
def test_crf_is_quality(tmp_path: Path, codec: str, suffix: str) -> None:
    if not has(codec):
        pytest.skip(f"this PyAV has no encoder for {codec}")
    sizes = []
    for crf in (10, 45):
        path = tmp_path / f"{crf}.{suffix}"
        write_video(path, noise(3, size=(64, 64)), Fraction(25), encoding=Encoding(codec, crf))
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_the_profile_of_prores_is_its_quality(tmp_path: Path) -> None:
    profiles = []
    for crf in (None, 20, 40):
        write_video(tmp_path / "a.mov", smooth_frames(1, 32, 32), Fraction(25), encoding=Encoding("prores", crf))
        context = stream_of(tmp_path / "a.mov")
        assert context.pix_fmt == "yuv422p10le"
        profiles.append(context.profile)
    assert profiles == ["HQ", "Standard", "Proxy"]


@pytest.mark.parametrize(("bits", "stored"), [(None, 8), (8, 8), (10, 10), (16, 16)])
@pytest.mark.parametrize("size", [(30, 34), (33, 35)])
def test_ffv1_gives_every_bit_back(tmp_path: Path, bits: int | None, stored: int, size: tuple[int, int]) -> None:
    source, path = noise(3, stored, size), tmp_path / "a.mkv"
    write_video(path, source, Fraction(25), encoding=Encoding("ffv1", bits=bits))
    for before, after in zip(source, read_frames(path), strict=True):
        assert torch.equal(before, after)


def test_frames_of_eight_bits_survive_sixteen(tmp_path: Path) -> None:
    source = noise(2)
    write_video(tmp_path / "a.mkv", source, Fraction(25), encoding=Encoding("ffv1", bits=16))
    for before, after in zip(source, read_frames(tmp_path / "a.mkv"), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "prores"])
def test_ten_bits_and_their_colours_are_kept(tmp_path: Path, codec: str) -> None:
    if not has(codec):
        pytest.skip(f"this PyAV has no encoder for {codec}")
    like = VideoInfo(64, 32, Fraction(25), 2, colour=Colour(9, primaries=9, transfer=16, bits=10))
    path = tmp_path / "a.mkv"
    write_video(path, smooth_frames(2, 32, 64), Fraction(25), like=like, encoding=Encoding(codec))
    assert probe(path).colour == like.colour
    assert "10le" in stream_of(path).pix_fmt


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_hdr10_states_of_the_display_is_kept(tmp_path: Path, codec: str, suffix: str) -> None:
    if not has(codec):
        pytest.skip(f"this PyAV has no encoder for {codec}")
    like = VideoInfo(64, 32, Fraction(25), 2, colour=Colour(9, primaries=9, transfer=16, bits=10), mastering=HDR10)
    path = tmp_path / f"a.{suffix}"
    write_video(path, smooth_frames(2, 32, 64), Fraction(25), like=like, encoding=Encoding(codec))
    found = probe(path).mastering
    assert found is not None and found.display is not None
    assert found.light == HDR10.light
    assert all(abs(a - b) < Fraction(1, 5000) for a, b in zip(found.display, HDR10.display or (), strict=True))


def test_an_encoder_that_cannot_keep_it_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    like = VideoInfo(64, 32, Fraction(25), 2, mastering=HDR10)
    write_video(tmp_path / "a.webm", smooth_frames(3, 32, 64), Fraction(25), like=like)
    assert caplog.text.count("mastering display") == 1


@pytest.mark.parametrize(
    ("name", "encoding", "said"),
    [
        ("a.mp4", Encoding("divx"), r"No codec is called 'divx'; a \.mp4 file takes h264, hevc"),
        ("a.webm", Encoding("h264"), r"A \.webm file does not take h264, which goes into \.mp4, .*; it takes vp9"),
        ("a.mp4", Encoding("ffv1"), r"A \.mp4 file does not take ffv1, which goes into \.mkv"),
        ("a.mp4", Encoding("h264", 52), r"crf 52 is not possible with h264, which takes 0 to 51\."),
        ("a.mp4", Encoding(crf=-1), r"crf -1 is not possible"),
        ("a.mkv", Encoding("ffv1", 3), r"ffv1 has no quality"),
        ("a.mkv", Encoding("ffv1", bits=9), r"8, 10, 12 or 16 bits, not 9"),
    ],
)
def test_what_cannot_be_is_refused_beforehand(tmp_path: Path, name: str, encoding: Encoding, said: str) -> None:
    with pytest.raises(VideoError, match=said) as caught:
        check_target(tmp_path / name, None, encoding)
    assert "\n" not in str(caught.value)
    with pytest.raises(VideoError, match=said):
        write_video(tmp_path / name, smooth_frames(1, 16, 16), Fraction(25), encoding=encoding)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = av.Codec

    def without(name: str, mode: str = "r") -> Any:
        if name == "libx265":
            raise av.codec.codec.UnknownCodecError(name)
        return real(name, mode)

    monkeypatch.setattr(av, "Codec", without)
    with pytest.raises(VideoError, match=r"no encoder for hevc; a \.mp4 file takes h264, av1, vp9"):
        check_target(tmp_path / "a.mp4", None, Encoding("hevc"))


def test_hardware_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if not has("h264_nvenc"):
        pytest.skip("this PyAV has no NVENC")
    try:
        check_target(tmp_path / "a.mp4", None, Encoding("h264_nvenc"))
    except VideoError as error:
        assert "h264_nvenc does not start here" in str(error)  # noqa: PT017
    else:
        write_video(tmp_path / "a.mp4", smooth_frames(3, 144, 256), Fraction(25), encoding=Encoding("h264_nvenc"))
        assert len(list(read_frames(tmp_path / "a.mp4"))) == 3


@pytest.mark.parametrize("suffix", [suffix for suffix, kind in CONTAINERS.items() if not kind.is_animation])
def test_metadata_survives(tmp_path: Path, suffix: str) -> None:
    written = {"prompt": json.dumps({"1": {"class_type": "ÄÖ"}}), "workflow": json.dumps({"nodes": ["x" * 70_000]})}
    for file in (tmp_path / f"a{suffix}", io.BytesIO()):
        target = VideoTarget(file, suffix=suffix, metadata={**written, "title": "A film"})
        target.write(smooth_frames(2, 16, 16), Fraction(25))
        if not isinstance(file, Path):
            file.seek(0)
        with av.open(str(file) if isinstance(file, Path) else file) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
        assert found["title"] == "A film"
        assert {key: found[key] for key in written} == written


def test_the_index_comes_first_also_with_metadata(tmp_path: Path) -> None:
    VideoTarget(tmp_path / "a.mp4", metadata={"workflow": "{}"}).write(smooth_frames(2, 16, 16), Fraction(25))
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")

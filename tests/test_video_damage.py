"""Damaged and odd files: what is good in them is kept, what is missing is said, and nothing is made up."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import frames as smooth_frames
from tlbvfi.sources import FileSource
from tlbvfi.video import Excerpt, PassedOn, VideoError, probe, read_frames, read_picture, write_pictures, write_video
from tlbvfi.video.fitting import fitted

COUNT, FPS = 24, 12
KINDS = {
    "mp4": ("libx264", "yuv420p", {"g": "8", "bf": "2"}),
    "mkv": ("libx264", "yuv420p", {"g": "8", "bf": "2"}),
    "webm": ("libvpx-vp9", "yuv420p", {"g": "8", "cpu-used": "8"}),
    "mov": ("prores_ks", "yuv422p10le", {}),
    "avi": ("mjpeg", "yuvj420p", {}),
}


def picture(index: int, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(index).integers(0, 12, (height, width))
    return np.stack([(x * 3 + index * 5) % 240 + noise, (y * 4) % 240 + noise, (x + y) % 240 + noise], -1).astype("u1")


def clip(path: Path, width: int = 64, height: int = 64, first: int = 0) -> Path:
    codec, pixels, options = KINDS.get(path.suffix[1:], KINDS["mp4"])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame.pts, frame.time_base = first + index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damaged(path: Path, which: range | set[int]) -> Path:
    """The file with random bytes in some of its packets."""
    data = bytearray(path.read_bytes())
    chance = random.Random(0)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for index in which:
        at = data.find(packets[index])
        data[at : at + len(packets[index])] = chance.randbytes(len(packets[index]))
    path.write_bytes(data)
    return path


class TestPackets:
    @pytest.mark.parametrize("suffix", KINDS)
    @pytest.mark.parametrize(
        "which", [range(0), {5}, {COUNT - 1}, {COUNT - 3, COUNT - 1}], ids=["none", "5", "-1", "2"]
    )
    def test_what_is_good_is_read_and_what_is_missing_is_said(
        self, tmp_path: Path, suffix: str, which: range | set[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        whole = clip(tmp_path / f"a.{suffix}")
        good = list(read_frames(whole))
        source = FileSource(damaged(whole, which))
        found = list(source.frames())
        assert len(found) == COUNT  # the gap is held
        lines = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
        assert source.is_damaged == bool(which) == bool(lines)
        if which:
            assert len(lines) == 1
            assert suffix in ("mp4", "mkv") or f"{len(which)} frame" in lines[0]  # one may take others with it
        same = sum(torch.equal(a, b) for a, b in zip(good, found, strict=True))
        assert same >= 4 and (which or same == COUNT)

    @pytest.mark.parametrize("suffix", KINDS)
    def test_a_bad_begin(self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
        path = damaged(clip(tmp_path / f"a.{suffix}"), {0, 1})
        lost = COUNT - len(list(read_frames(path)))
        assert lost in ((2,) if suffix in ("mov", "avi") else (7, 8))  # up to the next key frame
        assert f"{lost} frames are missing, the first at its begin" in caplog.text

    @pytest.mark.parametrize("suffix", KINDS)
    def test_nothing_but_garbage_is_one_sentence(self, tmp_path: Path, suffix: str) -> None:
        path = damaged(clip(tmp_path / f"a.{suffix}"), range(COUNT))
        with pytest.raises(VideoError, match=r"^.*has no (frame|video).*\.$"):
            probe(path)

    def test_an_excerpt_says_what_is_missing_in_it(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = damaged(clip(tmp_path / "a.mov"), {3, 20})
        assert len(list(read_frames(path, Excerpt(Fraction(1), Fraction(2))))) == FPS
        assert "1 frame is missing, at 1.66667 s" in caplog.text
        caplog.clear()
        assert len(list(read_frames(path, Excerpt(Fraction(1, 2), Fraction(1))))) == FPS // 2
        assert not caplog.text

    def test_metadata_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mkv"
        write_video(path, smooth_frames(3, 16, 16), Fraction(10), metadata={"title": "TITLETITLE"})
        path.write_bytes(path.read_bytes().replace(b"TITLETITLE", b"TITLE\xff\xfe\xc3TL"))
        write_video(tmp_path / "b.mp4", read_frames(path), Fraction(10), passed_on=PassedOn(path))


class TestChanges:
    def test_frames_of_another_size_are_scaled_to_the_first(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        parts = [clip(tmp_path / "a.ts", 64, 48), clip(tmp_path / "b.ts", 48, 96, COUNT)]
        path = tmp_path / "both.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        found = list(read_frames(path))
        assert {tuple(frame.shape) for frame in found} == {(48, 64, 3)}
        assert len(found) == 2 * COUNT
        assert caplog.text.count("changes its size from 64x48 to 48x96") == 1
        assert found[-1][:, :20].max() == 0 and found[-1][:, 24:40].mean() > 0.2  # black bars
        assert torch.equal(next(read_frames(path, skipped=COUNT + 2)), found[COUNT + 2])

    @pytest.mark.parametrize(("size", "inner"), [((32, 48), (32, 48)), ((16, 48), (16, 48)), ((64, 24), (32, 12))])
    def test_a_picture_keeps_its_shape(self, size: tuple[int, int], inner: tuple[int, int]) -> None:
        seen = fitted(torch.ones(*size, 3), 32, 48)[..., 0] > 0.5
        assert (int(seen.any(1).sum()), int(seen.any(0).sum())) == inner

    @pytest.mark.parametrize(("matrix", "kept"), [(8, True), (12, True), (14, False)])
    def test_colours_are_converted_or_the_input_is_blamed(self, tmp_path: Path, matrix: int, kept: bool) -> None:
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
            stream.codec_context.color_primaries, stream.codec_context.colorspace = 1, matrix
            frame = av.VideoFrame(16, 16, "yuv444p")
            for plane, value in zip(frame.planes, (126, 170, 100), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if not kept:
            with pytest.raises(VideoError, match=r"a\.mkv stores its colours in a way .* matrix 14"):
                probe(path)
            return
        probe(path)
        y, first, second = 110 / 219, 42 / 224, -28 / 224
        wanted = (y - first + second, y + first, y - first - second)
        if matrix == 12:
            red, blue = y + 1.5748 * second, y + 1.8556 * first
            wanted = (red, (y - 0.2126 * red - 0.0722 * blue) / 0.7152, blue)
        (found,) = read_frames(path)
        assert torch.allclose(found[8, 8], torch.tensor(wanted), atol=0.015)


class TestPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_pictures(tmp_path / "in", [torch.from_numpy(picture(i, 80, 96)) / 255 for i in range(2)])
        return tmp_path / "in"

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
    def test_half_a_picture_is_refused_by_name(self, tmp_path: Path, folder: Path, suffix: str) -> None:
        image = pytest.importorskip("PIL.Image").open(folder / "00000000.png")
        data = io.BytesIO()
        image.save(data, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
        whole = data.getvalue()
        path = folder / f"00000002.{suffix}"
        path.write_bytes(whole)
        assert read_picture(path).shape == (96, 80, 3)
        for end in (len(whole) // 3, len(whole) * 9 // 10, len(whole) - 7):
            path.write_bytes(whole[:end])
            with pytest.raises(VideoError, match=rf"00000002\.{suffix} "):
                write_pictures(tmp_path / "out", read_frames(folder))
        assert [each.name for each in tmp_path.iterdir()] == ["in"]

    @pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
    def test_odd_pictures_that_are_whole(self, tmp_path: Path, settings: dict[str, object]) -> None:
        image = pytest.importorskip("PIL.Image").fromarray(picture(0, 80, 96))
        for mode in ("RGB", "L", "CMYK"):
            data = io.BytesIO()
            image.convert(mode).save(data, "JPEG", **settings)
            whole = data.getvalue()
            for odd in (whole, whole + b"more" * 50, whole[:-2], whole[:-2] + bytes(9) + whole[-2:]):
                (tmp_path / "a.jpg").write_bytes(odd)
                assert read_picture(tmp_path / "a.jpg").shape == (96, 80, 3)

    def test_a_palette_with_a_wrong_checksum(self, tmp_path: Path) -> None:
        data = io.BytesIO()
        pytest.importorskip("PIL.Image").fromarray(picture(0, 80, 96)).quantize().save(data, "PNG")
        wrong = bytearray(data.getvalue())
        wrong[wrong.index(b"PLTE") + 20] ^= 1
        (tmp_path / "a.png").write_bytes(wrong)
        with pytest.raises(VideoError, match="damaged or incomplete"):
            read_picture(tmp_path / "a.png")


class TestCovers:
    def with_cover(self, path: Path, *, is_video: bool) -> Path:
        cover = io.BytesIO()
        pytest.importorskip("PIL.Image").fromarray(picture(0, 32, 32)).save(cover, "JPEG")
        cover.seek(0)
        with av.open(str(path), "w") as container, av.open(cover) as given:
            if is_video:
                stream = container.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            tone = container.add_stream("aac" if is_video else "flac", rate=48000)
            tone.layout = "mono"
            attached = container.add_stream_from_template(given.streams.video[0])
            attached.disposition = 0x400
            packet = av.Packet(cover.getvalue())
            packet.pts = packet.dts = 0
            packet.stream = attached
            container.mux(packet)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 9600), "i2"), format="s16", layout="mono")
            sound.rate, sound.pts = 48000, 0
            container.mux(tone.encode(sound))
            container.mux(tone.encode(None))
            for index in range(2 * is_video):
                frame = av.VideoFrame(16, 16, "yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
            if is_video:
                container.mux(stream.encode(None))
        return path

    def test_a_song_is_no_video(self, tmp_path: Path) -> None:
        with pytest.raises(VideoError, match="has no video in it"):
            probe(self.with_cover(tmp_path / "song.flac", is_video=False))

    @pytest.mark.parametrize(("suffix", "kept"), [("mp4", True), ("mkv", True), ("mov", False), ("webm", False)])
    def test_a_cover_goes_along_or_is_named(
        self, tmp_path: Path, suffix: str, kept: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = self.with_cover(tmp_path / "a.mp4", is_video=True)
        out = tmp_path / f"out.{suffix}"
        assert write_video(out, read_frames(source), Fraction(10), passed_on=PassedOn(source)) == 2
        with av.open(str(out)) as container:
            assert len(container.streams.video) == 1 + kept
        assert ("left out are cover 2" in caplog.text) != kept
        assert probe(out).frame_count == 2


class TestBlame:
    @pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ""])
    def test_an_error_of_the_source_is_not_the_files(self, tmp_path: Path, suffix: str) -> None:
        def failing() -> Iterator[Tensor]:
            yield from smooth_frames(2, 16, 16)
            raise PermissionError(13, "the source is gone")

        out = tmp_path / f"out{suffix}"
        with pytest.raises(PermissionError, match="the source is gone"):
            write_video(out, failing(), Fraction(10)) if suffix else write_pictures(out, failing())
        assert not list(tmp_path.iterdir())

"""Animated pictures, both ways: times, rates, colours."""

from __future__ import annotations

import builtins
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.test_video import with_sound
from tests.tiny import frames as smooth_frames
from tlbvfi.sources import FileSource
from tlbvfi.targets import VideoTarget
from tlbvfi.video import Encoding, PassedOn, VideoError, probe, read_frames, write_video

SAVED = {".gif": "GIF", ".apng": "PNG", ".png": "PNG", ".webp": "WEBP"}


def animated(path: Path, durations: list[int], mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> Path:
    """Frames of one colour each, red rising by 40, that last so many milliseconds; written by Pillow."""
    pictures = []
    for index in range(len(durations)):
        colour = (40 * index, 100, 50) if mode == "RGB" else (40 * index, 100, 50, 128 if index == 1 else 255)
        pictures.append(Image.new(mode, size, colour))
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    pictures[0].save(
        path, SAVED[path.suffix], save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options
    )
    return path


def reds(frames: list[Tensor]) -> list[int]:
    return [round(float(frame[0, 0, 0]) * 255) for frame in frames]


def delays(path: Path) -> list[int]:
    """Milliseconds of each frame, as Pillow finds them."""
    with Image.open(path) as picture:
        result = []
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            result.append(round(picture.info["duration"]))
    return result


class TestReading:
    @pytest.mark.parametrize("suffix", SAVED)
    @pytest.mark.parametrize(
        ("durations", "fps", "shown"),
        [
            ([40] * 5, Fraction(25), [0, 1, 2, 3, 4]),
            ([100, 200, 100], Fraction(10), [0, 1, 1, 2]),
            ([100], Fraction(10), [0]),
        ],
    )
    def test_frames_last_as_long_as_they_should(
        self, tmp_path: Path, suffix: str, durations: list[int], fps: Fraction, shown: list[int]
    ) -> None:
        path = animated(tmp_path / f"a{suffix}", durations)
        if len(durations) == 1 and suffix != ".gif":
            pytest.skip("Pillow writes a single picture")
        info = probe(path)
        assert (info.fps, info.frame_count, info.width, info.height) == (fps, len(shown), 16, 12)
        assert info.duration == Fraction(sum(durations), 1000)
        assert reds(list(read_frames(path))) == [40 * index for index in shown]
        assert reds(list(read_frames(io.BytesIO(path.read_bytes())))) == [40 * index for index in shown]

    def test_rounded_times_are_those_of_a_rate(self, tmp_path: Path) -> None:
        info = probe(animated(tmp_path / "a.gif", [30, 40, 30, 30, 40, 30]))
        assert (info.fps, info.frame_count) == (30, 6)
        info = probe(animated(tmp_path / "a.webp", [17, 16, 17, 17, 16, 17]))
        assert (info.fps, info.frame_count) == (60, 6)

    @pytest.mark.parametrize("suffix", SAVED)
    def test_an_excerpt(self, tmp_path: Path, suffix: str) -> None:
        source = FileSource(animated(tmp_path / f"a{suffix}", [100] * 6), Fraction(2, 10), Fraction(5, 10))
        assert (source.info.frame_count, source.info.fps) == (3, 10)
        assert reds(list(source.frames())) == [80, 120, 160]

    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_a_single_picture_stays_one(self, tmp_path: Path, suffix: str) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}")
        with pytest.raises(VideoError, match="single picture"):
            probe(tmp_path / f"a{suffix}")

    @pytest.mark.parametrize("suffix", SAVED)
    def test_transparency_is_left_out_and_said_once(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = animated(tmp_path / f"a{suffix}", [100] * 4, "RGBA")
        assert len(list(read_frames(path))) == 4
        assert caplog.text.count("partly transparent") == (1 if suffix != ".gif" else 0)
        caplog.clear()
        list(read_frames(animated(tmp_path / f"b{suffix}", [100] * 2)))
        assert "transparent" not in caplog.text

    def test_without_pillow_one_sentence_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = animated(tmp_path / "a.webp", [100] * 2)
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("PIL"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(VideoError, match="pip install pillow"):
            probe(path)

    @pytest.mark.parametrize("suffix", [".webp", ".apng", ".gif"])
    def test_a_damaged_one_is_one_sentence(self, tmp_path: Path, suffix: str) -> None:
        path = animated(tmp_path / f"a{suffix}", [100] * 3, size=(64, 64))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            assert len(list(read_frames(path))) < 3
        except VideoError as error:
            assert str(error).endswith(".") and "\n" not in str(error)  # noqa: PT017


class TestWriting:
    @pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp"])
    @pytest.mark.parametrize("size", [(48, 64), (35, 51)])
    def test_frames_come_back(self, tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
        source, path = smooth_frames(7, *size), tmp_path / f"a{suffix}"
        assert VideoTarget(path).write(source, Fraction(25)) == 7
        info = probe(path)
        assert (info.fps, info.frame_count, info.height, info.width) == (25, 7, *size)
        for frame, expected in zip(read_frames(path), source, strict=True):
            error = (frame - expected).abs()
            assert error.max() <= 0.5 / 255 + 1e-6 if suffix == ".apng" else error.mean() < 0.03
        with Image.open(path) as picture:
            assert picture.info["loop"] == 0
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("fps", [Fraction(30), Fraction(24000, 1001), Fraction(7), Fraction(50), Fraction(1, 3)])
    @pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp"])
    def test_the_total_time_is_exact(self, tmp_path: Path, suffix: str, fps: Fraction) -> None:
        path = tmp_path / f"a{suffix}"
        write_video(path, smooth_frames(31, 16, 16), fps)
        found = delays(path)
        assert len(found) == 31
        tick = 10 if suffix == ".gif" else 1
        # APNG's times are exact, and rounded by Pillow; of WebP's, FFmpeg guesses the last.
        assert abs(sum(found) - 31 * 1000 / fps) <= {".gif": 5, ".apng": 16, ".webp": 2}[suffix]
        assert max(found) - min(found) <= tick

    @pytest.mark.parametrize("fps", [Fraction(60), Fraction(100), Fraction(240)])
    def test_a_gif_leaves_out_frames_that_have_no_time(
        self, tmp_path: Path, fps: Fraction, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "a.gif"
        written = write_video(path, smooth_frames(60, 16, 16), fps)
        found = delays(path)
        assert written == len(found) < 60
        assert min(found) >= 20
        assert abs(sum(found) - 60_000 / fps) <= 20
        assert "at most 50 frames a second" in caplog.text

    def test_a_gif_says_what_its_times_are(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_video(tmp_path / "a.gif", smooth_frames(3, 16, 16), Fraction(30))
        assert "frames of" in caplog.text and "last 3 or 4, so that on average there are 30 a second" in caplog.text
        caplog.clear()
        write_video(tmp_path / "b.gif", smooth_frames(3, 16, 16), Fraction(20))
        assert not caplog.text

    def test_a_gif_in_memory(self) -> None:
        memory = io.BytesIO()
        assert VideoTarget(memory, suffix=".gif").write(smooth_frames(3, 16, 16), Fraction(10)) == 3
        assert len(list(read_frames(memory))) == 3

    def test_sound_cannot_go_along(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for suffix in (".gif", ".apng", ".webp"):
            caplog.clear()
            original = with_sound(tmp_path / "a.mkv", "aac")
            write_video(tmp_path / f"out{suffix}", smooth_frames(3, 16, 16), Fraction(10), passed_on=PassedOn(original))
            assert caplog.text.count("sound and subtitles are left out") == 1

    @pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp"])
    def test_nothing_is_left_when_it_fails(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(VideoError, match="no frames"):
            write_video(tmp_path / f"a{suffix}", [], Fraction(10))
        with pytest.raises(VideoError, match="18x16"):
            write_video(tmp_path / f"a{suffix}", [torch.zeros(16, 16, 3), torch.zeros(16, 18, 3)], Fraction(10))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("suffix", SAVED)
    def test_nothing_goes_along_from_one(self, tmp_path: Path, suffix: str) -> None:
        path = animated(tmp_path / f"a{suffix}", [100] * 3)
        assert write_video(tmp_path / "out.mp4", read_frames(path), Fraction(10), passed_on=PassedOn(path)) == 3
        write_video(tmp_path / "out.mkv", read_frames(path), Fraction(10), passed_on=PassedOn(tmp_path))

    def test_quality_of_webp(self, tmp_path: Path) -> None:
        noise = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(i)) for i in range(2)]
        for crf in (5, 45):
            write_video(tmp_path / f"{crf}.webp", noise, Fraction(10), encoding=Encoding(crf=crf))
        assert (tmp_path / "5.webp").stat().st_size > 1.5 * (tmp_path / "45.webp").stat().st_size
        with pytest.raises(VideoError, match="gif has no quality"):
            write_video(tmp_path / "a.gif", noise, Fraction(10), encoding=Encoding(crf=5))

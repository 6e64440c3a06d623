"""Frames of two fields, and film in them: no field is a frame, and no frame of a film is shown twice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.h264 import BOTTOM_FIRST, FRAME, MIXED, TOP_FIRST, Plane, Stream, coded, muxed
from tests.telecine import telecined
from tests.test_video_real_pictures import errors, moment, woven
from tests.test_video_times import RATE, onsets
from tlbvfi.sources import FileSource
from tlbvfi.targets import VideoTarget
from tlbvfi.video import PassedOn

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
GREY = [np.full((32, 32), 128, np.uint8)] * 2
KINDS = {
    "top": [TOP_FIRST] * 7,
    "bottom": [BOTTOM_FIRST] * 7,
    "frames between": [TOP_FIRST, FRAME, FRAME, TOP_FIRST, TOP_FIRST, FRAME, TOP_FIRST],
    "mixed": [MIXED, TOP_FIRST, MIXED, TOP_FIRST, TOP_FIRST, MIXED, MIXED],
}


def planes(index: int, kind: str) -> list[Plane]:
    """The picture of :func:`moment`, of two times where it is of fields."""
    grey = moment(2 * index) if kind == FRAME else woven(index, "bff" if kind == BOTTOM_FIRST else "tff")[..., 0]
    return [(16 + grey * (219 / 255)).round().astype(np.uint8), *GREY]


def beeps(at: list[float], lasts: float) -> Any:
    """What makes the packets of a track with a beep at each of some times."""

    def made(container: Any, delay: Fraction) -> list[Any]:
        sound = container.add_stream("mp2", rate=RATE)
        sound.layout = "mono"
        wave = np.zeros(round(lasts * RATE), np.int16)
        for time in at:
            begin = round(time * RATE)
            wave[begin : begin + 2400] = np.sin(np.arange(len(wave[begin : begin + 2400])) / 8) * 26000
        packets = []
        for begin in range(0, len(wave), 1152):
            samples = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1152], format="s16", layout="mono")
            samples.rate, samples.pts, samples.time_base = RATE, begin + round(delay * RATE), Fraction(1, RATE)
            packets += sound.encode(samples)
        return packets + sound.encode(None)

    return made


class TestFields:
    @pytest.mark.parametrize(
        ("kinds", "suffix"),
        [
            *(("top", suffix) for suffix in ("ts", "mp4", "mkv", "h264")),
            *(("bottom", "ts"), ("frames between", "mp4"), ("frames between", "mkv"), ("mixed", "ts")),
        ],
    )
    def test_are_frames_together(self, tmp_path: Path, kinds: str, suffix: str) -> None:
        for late in (0, 1):
            stream = Stream(64, 64, NTSC, kinds == "mixed", reordered=late)
            frames = coded(stream, [planes(*each) for each in enumerate(KINDS[kinds])], KINDS[kinds])
            for apart in (False, True):
                source = FileSource(muxed(tmp_path / f"{late}{apart}.{suffix}", stream, frames, apart))
                made = list(source.frames())
                assert len(made) == 7 == source.count() == (source.info.frame_count or 7)
                near = Fraction(1, 25) if suffix == "mkv" else Fraction(1, 1000)  # of so few frames, in milliseconds
                assert abs(source.info.fps / NTSC - 1) <= near
                assert max(errors(made)) < 2.5
                assert not source.is_damaged

    @pytest.mark.parametrize(("suffix", "late"), [("ts", 1), ("mp4", 0)])
    def test_parts_and_sound_are_where_they_were(self, tmp_path: Path, suffix: str, late: int) -> None:
        stream, white = Stream(32, 32, NTSC, reordered=late), list(range(3, 80, 8))
        kinds = [TOP_FIRST if index % 7 < 4 or index > 60 else FRAME for index in range(80)]
        pictures = []
        for index in range(80):
            luma = np.full((32, 32), 220 if index in white else 20 + index, np.uint8)
            luma[1::2, index % 32] = 100
            pictures.append([luma, *(plane[:16, :16] for plane in GREY)])
        sound = beeps([float(index / NTSC) for index in white], float(80 / NTSC))
        path = muxed(tmp_path / f"a.{suffix}", stream, coded(stream, pictures, kinds, 10), True, None, sound)
        source = FileSource(path)
        whole = list(source.frames())
        assert (source.info.fps, source.info.frame_count, len(whole)) == (NTSC, 80, 80)
        for first, end in ((64, 68), (70, 72), (79, 80)):
            part = list(FileSource(path, first / NTSC, end / NTSC).frames())
            assert len(part) == end - first
            assert all(torch.equal(a, b) for a, b in zip(part, whole[first:end], strict=True))
        assert torch.equal(next(source.frames(33)), whole[33])
        left = list(FileSource(path, deinterlace=False).frames())
        for frame, (luma, *_) in zip(left, pictures, strict=True):
            assert np.abs(frame[..., 1].numpy() * 219 + 16 - luma).max() < 1
        VideoTarget(tmp_path / "out.mp4", source.info, PassedOn(path)).write(iter(whole), source.info.fps)
        seen, heard, _ = onsets(tmp_path / "out.mp4")
        assert len(seen) == len(heard) == len(white)
        assert all(abs(a - b) <= 0.05 for a, b in zip(seen, heard, strict=True))

    def test_one_without_the_other(self, tmp_path: Path) -> None:
        """A recording that begins with a second field, and one of which a field is lost."""
        stream = Stream(64, 64, Fraction(25))
        frames = coded(stream, [planes(index, TOP_FIRST) for index in range(12)], [TOP_FIRST] * 12, 6)
        frames[4].parts.pop()
        frames[0].parts[0] = frames[0].parts[0][:6] + stream.head()  # no picture
        made = list(FileSource(muxed(tmp_path / "a.ts", stream, frames, True)).frames())
        assert len(made) in (11, 12)
        assert errors(made if len(made) == 12 else [made[0], *made])[11] < 2.5


def film(count: int, white: list[int]) -> list[Any]:
    grain = np.random.default_rng(0).integers(0, 40, (count, 32, 32, 1))
    level = [200 if index in white else index if white else 4 * index for index in range(count)]
    return [np.repeat((grain[i] + level[i]).astype(np.uint8), 3, 2) for i in range(count)]


def levels(frames: list[torch.Tensor]) -> list[int]:
    return [round((float(frame.mean()) * 255 - 19.5) / 4) for frame in frames]


class TestFilm:
    @pytest.mark.parametrize("suffix", ["ts", "mkv", "mpg", "m2v"])
    @pytest.mark.parametrize("reordered", [0, 2])
    def test_is_read_as_film(
        self, tmp_path: Path, suffix: str, reordered: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / f"a.{suffix}"
        source = FileSource(telecined(path, film(48, []), reordered=reordered))
        made = list(source.frames())
        assert source.info.fps == FILM
        assert levels(made) == list(range(48))
        assert not caplog.text
        if suffix != "m2v":
            assert levels(list(FileSource(path, 20 / FILM, 23 / FILM).frames())) == [20, 21, 22]

    @pytest.mark.parametrize("suffix", ["ts", "mpg"])
    def test_sound_stays_with_it(self, tmp_path: Path, suffix: str) -> None:
        white = list(range(3, 48, 8))
        sound = beeps([float(index / FILM) for index in white], float(48 / FILM))
        path = telecined(tmp_path / f"a.{suffix}", film(48, white), reordered=2, sound=sound)
        source = FileSource(path)
        VideoTarget(tmp_path / "out.mp4", source.info, PassedOn(path)).write(source.frames(), source.info.fps)
        seen, heard, count = onsets(tmp_path / "out.mp4")
        assert count == 48 and len(seen) == len(heard) == len(white)
        assert all(abs(a - b) <= 0.05 for a, b in zip(seen, heard, strict=True))

    @pytest.mark.parametrize("suffix", ["ts", "mpg"])
    def test_video_after_it_keeps_its_time(self, tmp_path: Path, suffix: str) -> None:
        pattern = [(True, True), (False, False), (False, True), (True, False)] * 6 + [(True, False)] * 24
        source = FileSource(telecined(tmp_path / f"a.{suffix}", film(48, []), pattern))
        made = list(source.frames())
        assert abs(len(made) / source.info.fps - (24 / FILM + 24 / NTSC)) < Fraction(1, 20)
        assert set(levels(made)) == set(range(48))

    @pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv"])
    def test_in_h264(self, tmp_path: Path, suffix: str) -> None:
        stream = Stream(32, 32, NTSC, pictures_say=True)
        pictures = [[np.full((32, 32), 20 + 4 * index, np.uint8), *(p[:16, :16] for p in GREY)] for index in range(24)]
        frames = coded(stream, pictures, [FRAME] * 24, 8, [5, 4, 6, 3] * 6)
        times = [Fraction(sum([3, 2, 3, 2][each % 4] for each in range(index)), 2) for index in range(24)]
        source = FileSource(muxed(tmp_path / f"a.{suffix}", stream, frames, False, times))
        made = list(source.frames(0))
        assert source.info.fps == FILM
        assert [round((float(frame.mean()) * 219 - 4) / 4) for frame in made] == list(range(24))

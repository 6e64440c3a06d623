"""Frames by their times: what lasts longer is held, clocks that jump are joined, and sound stays with its picture."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tlbvfi import engine
from tlbvfi.sources import FileSource
from tlbvfi.targets import VideoTarget
from tlbvfi.timeline import Gap, Multiplier, TargetRate, Timeline
from tlbvfi.video import PassedOn, VideoInfo, write_video
from tlbvfi.video.slots import simplified, slots_of, writable

RATE = 48000
TICK = Fraction(1, 90000)
FORMATS = {"ts": "mpegts", "mkv": "matroska"}
#: Seconds that each frame of a pattern lasts, of 40 ms ones.
EVEN = [0.04] * 50
PAUSE = [0.04] * 20 + [0.68] + [0.04] * 20
THIRD = [0.04, 0.04, 0.08] * 14
SCREEN = [0.04 * length for length in (1, 1, 5, 2, 9, 1, 1, 1, 3)] * 4
SLOWER = [0.04] * 20 + [1 / 15] * 15
SLIDES = [1.1, 2.3, 0.7]
JUMP = [0.04] * 25 + [40.04] + [0.04] * 25


def recorded(path: Path, lasts: list[float], at: float = 0.0, sound_jump: tuple[float, float] | None = None) -> Path:
    """Frames of such lengths, every eighth of them white, and a beep with each white one.

    Args:
        at: the time of the first frame.
        sound_jump: from which time on the sound's is later, and by how much.
    """
    times = np.cumsum([0.0, *lasts[:-1]])
    after, by = sound_jump or (np.inf, 0.0)
    heard = [time - by if time > after else time for time in times]
    white = range(3, len(times), 8)
    wave = np.zeros(round((heard[-1] + 0.04) * RATE), np.float32)
    for index in white:
        begin = round(heard[index] * RATE)
        wave[begin : begin + 2400] = np.sin(np.arange(len(wave[begin : begin + 2400])) / 8) * 0.8
    webm, avi = path.suffix == ".webm", path.suffix == ".avi"
    with av.open(str(path), "w", format=FORMATS.get(path.suffix[1:])) as container:
        video = container.add_stream("libvpx-vp9" if webm else "mpeg4" if avi else "libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 16, "yuv420p"
        if not avi:
            video.codec_context.time_base = TICK
        video.codec_context.options = {"cpu-used": "8", "deadline": "realtime"} if webm else {"bf": "0", "g": "12"}
        sound = container.add_stream("libopus" if webm else "mp3" if avi else "aac", rate=RATE)
        sound.layout = "mono"
        packets: list[Any] = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 230 if index in white else 20, np.uint8))
            frame.time_base = Fraction(1, 25) if avi else TICK
            frame.pts = round((time + at) / float(frame.time_base))
            packets += video.encode(frame)
        packets += video.encode(None)
        for begin in range(0, len(wave), 1152):
            samples = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1152], format="fltp", layout="mono")
            samples.rate, samples.pts, samples.time_base = RATE, begin + round(at * RATE), Fraction(1, RATE)
            packets += sound.encode(samples)
        packets += sound.encode(None)
        for packet in packets:
            if packet.stream is sound and packet.dts * packet.time_base - at > after:
                packet.pts += round(by / packet.time_base)
                packet.dts += round(by / packet.time_base)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    return path


def onsets(path: Path) -> tuple[list[float], list[float], int]:
    """When it becomes white, when beeps begin, and the number of frames."""
    white: list[float] = []
    beeps: list[float] = []
    count, before, loud = 0, False, -1.0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            now = bool(frame.to_ndarray(format="gray").mean() > 120)
            if now and not before:
                white.append(float(frame.pts * frame.time_base))
            before, count = now, count + 1
    with av.open(str(path)) as container:
        for sound in container.decode(audio=0):
            for place in np.flatnonzero(np.abs(sound.to_ndarray()[0]) > 0.2):
                time = float(sound.pts * sound.time_base) + place / RATE
                if time - loud > 0.03:
                    beeps.append(time)
                loud = time
    return white, beeps, count


def copied(source: FileSource, path: Path, target: Path) -> tuple[VideoInfo, int]:
    """The frames of a file as they are read, with its sound, in a new one."""
    info = source.info
    return info, VideoTarget(target, info, PassedOn(path)).write(source.frames(), info.fps)


def together(target: Path, expected: int) -> bool:
    white, beeps, _ = onsets(target)
    assert len(white) == len(beeps) == expected
    return all(abs(a - b) <= 0.06 for a, b in zip(white, beeps, strict=True))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "avi", "flv"])
@pytest.mark.parametrize("lasts", [PAUSE, SCREEN], ids=["pause", "screen"])
def test_what_lasts_longer_is_held(
    tmp_path: Path, suffix: str, lasts: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = recorded(tmp_path / f"a.{suffix}", lasts)
    source = FileSource(path)
    info, count = copied(source, path, tmp_path / "out.mp4")
    assert info.fps == 25
    assert info.frame_count == source.taken == source.count() == count
    assert abs(count / 25 - sum(lasts)) < 0.13  # nobody says how long the last one is shown
    assert together(tmp_path / "out.mp4", len(range(3, len(lasts), 8)))
    assert caplog.text.count("frames of varying length: it is read at 25 fps") == 1


@pytest.mark.parametrize("lasts", [THIRD, SLOWER, SLIDES], ids=["third", "slower", "slides"])
def test_at_other_lengths(tmp_path: Path, lasts: list[float]) -> None:
    path = recorded(tmp_path / "a.mkv", lasts)
    info, count = copied(FileSource(path), path, tmp_path / "out.mp4")
    assert info.fps is not None and abs(count / info.fps - sum(lasts)) < 0.15 or lasts is SLIDES
    white, beeps, _ = onsets(tmp_path / "out.mp4")
    assert all(abs(a - b) <= 0.06 for a, b in zip(white, beeps, strict=True))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "flv"])
def test_even_frames_are_read_as_they_are(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """With times that are rounded, and with less than half a frame of jitter."""
    jitter = np.random.default_rng(3).uniform(-0.015, 0.015, 31)
    jitter[0] = jitter[-1] = 0
    for lasts in (EVEN, list(np.diff(np.arange(31) / 29.97 + jitter))):
        path = recorded(tmp_path / f"a{len(lasts)}.{suffix}", lasts)
        source = FileSource(path)
        with av.open(str(path)) as container:
            decoded = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
        read = [float(frame.mean()) for frame in source.frames()]
        assert len(read) == len(decoded) == len(lasts) == source.info.frame_count
        assert [a > 0.5 for a in read] == [b > 120 for b in decoded]
    assert "varying" not in caplog.text


@pytest.mark.parametrize("begins", [0.0, 43.0, 95443.0], ids=["again", "jump", "wrapped"])
def test_joined_recordings(tmp_path: Path, begins: float) -> None:
    first = recorded(tmp_path / "1.ts", EVEN, 0.0 if begins else 50.0)
    second = recorded(tmp_path / "2.ts", EVEN, begins)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    source = FileSource(path)
    _, count = copied(source, path, tmp_path / "out.mp4")
    assert abs(count - 150) <= 6  # sound that goes on for longer is waited for
    assert together(tmp_path / "out.mp4", 18)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "flv"])
def test_a_clock_that_jumps_and_one_that_goes_on(tmp_path: Path, suffix: str) -> None:
    """A jump of picture and sound is none; where the sound goes on, the picture pauses."""
    path = recorded(tmp_path / f"jump.{suffix}", JUMP, sound_jump=(1.01, 40.0))
    _, count = copied(FileSource(path), path, tmp_path / "out.mp4")
    assert count == len(JUMP)
    assert together(tmp_path / "out.mp4", 6)
    pause = [0.04] * 10 + [12.0] + [0.04] * 10
    path = recorded(tmp_path / f"pause.{suffix}", pause)
    assert abs(sum(1 for _ in FileSource(path).frames()) / 25 - sum(pause)) < 0.1


def test_a_recording_that_begins_in_the_midst_of_a_group(tmp_path: Path) -> None:
    whole, path = recorded(tmp_path / "whole.ts", EVEN), tmp_path / "cut.ts"
    data = whole.read_bytes()
    path.write_bytes(data[len(data) // 188 // 4 * 188 :])
    copied(FileSource(path), path, tmp_path / "out.mp4")
    white, beeps, _ = onsets(tmp_path / "out.mp4")
    assert len(white) >= 3 and all(min(abs(a - b) for b in beeps) <= 0.06 for a in white)


def test_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.mkv", PAUSE * 3)
    whole = list(FileSource(path).frames())
    for first, last in ((0, 5), (19, 40), (30, 33), (60, 64), (75, None)):
        source = FileSource(path, Fraction(first, 25), None if last is None else Fraction(last, 25))
        part = list(source.frames())
        assert len(part) == len(whole[first:last]) == source.info.frame_count
        assert all(torch.equal(a, b) for a, b in zip(part, whole[first:last], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(FileSource(path).frames(33), whole[33:], strict=True))


def test_another_rate_takes_every_frame_once(tmp_path: Path) -> None:
    source = FileSource(recorded(tmp_path / "a.mkv", PAUSE), fps=Fraction(10))
    assert (source.info.frame_count, source.info.fps) == (41, 10)
    assert len(list(source.frames())) == source.count() == 41


class Kept:
    def write(self, frames: Any, fps: Fraction | None) -> list[Any]:
        return list(frames)


@pytest.mark.parametrize("timeline", [Multiplier(2), Multiplier(3, loop=True), TargetRate(Fraction(25), Fraction(60))])
def test_nothing_is_made_between_a_frame_and_itself(
    tmp_path: Path, timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FileSource(recorded(tmp_path / "a.mkv", [0.04, 0.2, 0.04, 0.12, 0.04]))
    gaps: list[Gap] = []

    def read(model: Any, frames: Any, timeline: Timeline, *_: Any, **__: Any) -> Any:
        shown = list(frames)
        gaps.extend(timeline.gap(index, a, b) for index, (a, b) in enumerate(pairwise(shown)))
        gaps.append(timeline.gap(len(shown) - 1, shown[-1], shown[0]))
        return iter(())

    monkeypatch.setattr(engine, "interpolate_timeline", read)
    nothing: Any = object()
    engine.interpolate_video(nothing, source, Kept(), timeline=timeline, plan=nothing)
    assert source.taken == 11
    held = [index for index, gap in enumerate(gaps) if not gap.new]
    assert held == [index for index in range(11) if source.holds_after(index)] == [1, 2, 3, 4, 7, 8]
    frame = torch.zeros(1)
    assert [len(gap.places) for gap in gaps] == [len(timeline.gap(i, frame, frame).places) for i in range(11)]


def test_a_bare_stream_at_its_own_rate(tmp_path: Path) -> None:
    for name, codec in (("h264", "libx264"), ("m4v", "mpeg4")):
        path = tmp_path / f"raw.{name}"
        with av.open(str(path), "w", format=name) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            for index in range(8):
                frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), index * 20, np.uint8))
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert FileSource(path).info.fps == 10
        assert len(list(FileSource(path).frames())) == 8


class TestRates:
    def test_one_that_ffmpeg_cannot_hold(self, tmp_path: Path) -> None:
        for rate in (Fraction(1511 * 90000, 4537331), Fraction(29.97)):
            assert simplified(rate, 1511).numerator * 1024 < 2**31
            assert abs(simplified(rate, 100_000) / rate - 1) * 100_000 < 1
            write_video(tmp_path / "a.mp4", [torch.rand(16, 16, 3)] * 2, rate * 1024)
        assert writable(Fraction(60000, 1001)) == simplified(Fraction(60000, 1001), 5) == Fraction(60000, 1001)

    def test_frames_that_are_faster_for_a_while_have_places_all_the_same(self) -> None:
        times = np.cumsum([0] + [100] * 50 + [50] * 50 + [100] * 50)
        slots = slots_of(times, Fraction(1, 1000), 100, [Fraction(10)])
        assert slots is not None and slots.rate == 20 and slots.dropped == 0 and slots.count == 252

    def test_single_wrong_intervals_change_no_rate(self) -> None:
        times = np.cumsum([0] + [40] * 50 + [3, 77] + [40] * 300 + [1200] + [40] * 50)
        slots = slots_of(times, Fraction(1, 1000), 40, [Fraction(2397, 100)])
        assert slots is not None and slots.rate == 25 and slots.dropped == 0
        assert slots.count == round((int(times[-1]) + 40) / 40)


@pytest.mark.parametrize("damaged", [0, 7, 19])
def test_one_damaged_time_is_no_gap_of_hours(tmp_path: Path, damaged: int) -> None:
    path = tmp_path / "in.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(np.full((16, 32, 3), 10 * each, np.uint8)) for each in range(20)]
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        for number, packet in enumerate(packets):
            if number == damaged:
                packet.pts += 60_000 * 25
            container.mux(packet)
    assert 20 <= len(list(FileSource(path).frames())) <= 22  # the first one's is not known better

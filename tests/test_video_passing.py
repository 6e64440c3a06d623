"""What goes along into a new video: sound, subtitles, chapters, titles; whole, in part, or as samples."""

from __future__ import annotations

import io
import json
import logging
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.test_video import RATE, heard, loudest, sound_packets, with_sound
from tests.tiny import frames as smooth_frames
from tlbvfi.targets import VideoTarget
from tlbvfi.video import PassedOn, VideoError, Waveform, write_video
from tlbvfi.video.containers import CONTAINERS

FPS = Fraction(10)
SUFFIXES = [suffix for suffix, kind in CONTAINERS.items() if not kind.is_animation]
#: What FFmpeg's decoders of plain text say.
HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def film(path: Path, seconds: int = 4, subtitles: str = "subrip", sound: str = "aac", channels: str = "mono") -> Path:
    """A 32x16 video of 10 frames a second; two sound tracks of 440 Hz, of which the second is the default one, a
    subtitle in every second, a chapter for every two, and a title."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "My film"
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
        tracks = []
        for language, title in (("eng", "Main"), ("ger", "Kommentar")):
            track = container.add_stream(sound, rate=RATE)
            track.layout = channels
            track.metadata.update(language=language, title=title)
            tracks.append(track)
        tracks[1].disposition = 1
        text = container.add_stream(subtitles)
        text.time_base = Fraction(1, 1000)
        text.metadata["language"] = "fre"
        text.codec_context.subtitle_header = HEADER
        container.set_chapters(
            [
                {"id": i, "start": 2 * i, "end": 2 * i + 2, "time_base": Fraction(1), "metadata": {"title": f"C{i}"}}
                for i in range(seconds // 2)
            ]
        )
        for second in range(seconds):
            for index in range(second * 10, second * 10 + 10):
                frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 128, np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                container.mux(picture.encode(frame))
            time = np.arange(second * RATE, (second + 1) * RATE) / RATE
            wave = np.sin(2 * math.pi * 440 * time).astype(np.float32) / 2
            for track in tracks:
                count = len(track.codec_context.layout.channels)
                tone = av.AudioFrame.from_ndarray(np.stack([wave] * count), format="fltp", layout=channels)
                tone.rate, tone.pts, tone.time_base = RATE, second * RATE, Fraction(1, RATE)
                container.mux(track.encode(tone))
            line = av.subtitles.subtitle.SubtitleSet.create(
                f"{second},0,Default,,0,0,0,,Line {second}".encode(), 0, 800, 0
            )
            packet = text.codec_context.encode_subtitle(line)
            packet.pts = packet.dts = second * 1000 + 100
            packet.duration, packet.time_base, packet.stream = 800, Fraction(1, 1000), text
            container.mux(packet)
        for stream in (picture, *tracks):
            container.mux(stream.encode(None))
    return path


def written(path: Path, seconds: float, passed_on: PassedOn, **settings: Any) -> Path:
    write_video(path, smooth_frames(round(seconds * 10), 16, 32), FPS, passed_on=passed_on, **settings)
    return path


def lines(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    """Begin, duration and text of the subtitles, from the first frame of the video."""
    result = []
    with av.open(str(path)) as container:
        zero = next(p.pts * p.time_base for p in container.demux(video=0) if p.is_keyframe)
    with av.open(str(path)) as container:
        mp4 = container.streams.subtitles[0].codec_context.name == "mov_text"
        for packet in container.demux(subtitles=0):
            data = bytes(packet)
            data = data[2 : 2 + int.from_bytes(data[:2], "big")] if mp4 else data
            text = data.decode().split(",,")[-1]
            if text and packet.pts is not None:
                begin = packet.pts * packet.time_base - zero
                result.append((begin, packet.duration * packet.time_base, text.strip()))
    return result


def near(a: float | Fraction, b: float | Fraction, within: float = 0.03) -> bool:
    return abs(float(a) - float(b)) <= within


class TestTracks:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_all_that_the_file_takes_goes_along(
        self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        original = film(tmp_path / "film.mkv")
        path = written(tmp_path / f"out{suffix}", 4, PassedOn(original))
        with av.open(str(path)) as container:
            sound = container.streams.audio
            assert [track.metadata["language"] for track in sound] == ["eng", "ger"]
            titles = [track.metadata.get("title") or track.metadata["handler_name"] for track in sound]
            assert titles == ["Main", "Kommentar"]
            assert [track.disposition & 1 for track in sound] == [0, 1]
            assert container.metadata["title"] == "My film"
            chapters = [
                (chapter["metadata"]["title"], float(chapter["start"] * chapter["time_base"]))
                for chapter in container.chapters()
            ]
            assert [name for name, _ in chapters] == ["C0", "C1"]
            assert near(chapters[1][1], 2, 0.1)
        found = lines(path)
        assert [text for _, _, text in found] == [f"Line {i}" for i in range(4)]
        assert all(near(begin, i + 0.1) and near(lasts, 0.8) for i, (begin, lasts, _) in enumerate(found))
        if suffix != ".webm":
            assert sound_packets(path) == sound_packets(original)
        assert "left out" not in caplog.text

    @pytest.mark.parametrize("subtitles", ["ass", "webvtt"])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
    def test_text_subtitles_of_other_kinds(self, tmp_path: Path, subtitles: str, suffix: str) -> None:
        original = film(tmp_path / "film.mkv", 2, subtitles)
        path = written(tmp_path / f"out{suffix}", 2, PassedOn(original))
        assert [text for _, _, text in lines(path)] == ["Line 0", "Line 1"]

    def test_there_and_back(self, tmp_path: Path) -> None:
        """What MP4 calls otherwise has its name again in Matroska."""
        first = written(tmp_path / "a.mp4", 2, PassedOn(film(tmp_path / "film.mkv", 2)), metadata={"prompt": "{}"})
        second = written(tmp_path / "b.mkv", 2, PassedOn(first))
        with av.open(str(second)) as container:
            assert [track.metadata["title"] for track in container.streams.audio] == ["Main", "Kommentar"]
            assert [track.name for track in container.streams.subtitles] == ["srt"]
            assert {k.lower(): v for k, v in container.metadata.items()}["prompt"] == "{}"
            assert len(container.chapters()) == 1
        assert [text for _, _, text in lines(second)] == ["Line 0", "Line 1"]

    def test_what_does_not_fit_is_one_line(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "more.mkv"
        with av.open(str(with_sound(tmp_path / "a.mkv", "aac"))) as source, av.open(str(path), "w") as target:
            new = {s.index: target.add_stream_from_template(s, opaque=True) for s in source.streams}
            target.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
            pictures = target.add_stream("dvbsub")
            pictures.metadata["language"] = "eng"
            for packet in source.demux():
                if packet.size:
                    packet.stream = new[packet.stream.index]
                    target.mux(packet)
        out = written(tmp_path / "out.mp4", 1, PassedOn(path))
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "out.mp4" in line and "more.mkv" in line
        assert "dvb_subtitle, eng" in line or "dvbsub, eng" in line
        assert "font.ttf" in line or "ttf" in line
        assert sound_packets(out) == sound_packets(path)
        caplog.clear()
        kept = written(tmp_path / "out.mkv", 1, PassedOn(path))
        with av.open(str(kept)) as container:
            assert [s.type for s in container.streams if s.type == "attachment"] == ["attachment"]
        assert not caplog.records

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        "codec", ["pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac", "ac3", "alac"]
    )
    def test_six_channels_stay_six(self, tmp_path: Path, suffix: str, codec: str) -> None:
        original = film(tmp_path / "film.mkv", 1, sound=codec, channels="5.1")
        path = written(tmp_path / f"out{suffix}", 1, PassedOn(original))
        with av.open(str(path)) as container:
            assert [len(s.codec_context.layout.channels) for s in container.streams.audio] == [6, 6]
            name = container.streams.audio[0].codec_context.name
            assert not (suffix == ".mp4" and name.startswith("pcm"))
        begin, samples = heard(path)
        samples = samples if samples.shape[0] == 6 else samples.reshape(-1, 6).T
        assert near(begin, 0) and near(samples.shape[1] / RATE, 1, 0.06)
        assert loudest(samples[0], RATE) == 440

    def test_truehd_is_encoded_anew_for_mp4(self, tmp_path: Path) -> None:
        try:
            av.Codec("truehd", "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip("this PyAV does not write TrueHD")
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            picture = container.add_stream("libx264", rate=10)
            picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
            tone = container.add_stream("truehd", rate=RATE)
            tone.codec_context.options = {"strict": "-2"}
            frame = av.VideoFrame(32, 16, "yuv420p")
            frame.pts, frame.time_base = 0, Fraction(1, 10)
            container.mux(picture.encode(frame))
            sound = av.AudioFrame.from_ndarray(np.zeros((2, RATE), np.float32), format="fltp", layout="stereo")
            sound.rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(tone.encode(sound))
            container.mux(picture.encode(None))
            container.mux(tone.encode(None))
        with av.open(str(written(tmp_path / "out.mp4", 1, PassedOn(path)))) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
        with av.open(str(written(tmp_path / "out.mkv", 1, PassedOn(path)))) as container:
            assert container.streams.audio[0].codec_context.name == "truehd"

    def test_an_open_file_that_is_read_at_the_same_time(self, tmp_path: Path) -> None:
        from tlbvfi.sources import FileSource

        original = film(tmp_path / "film.mkv", 2)
        opened = io.BytesIO(original.read_bytes())
        source = FileSource(opened)
        VideoTarget(tmp_path / "out.mkv", source.info, PassedOn(opened)).write(source.frames(), source.info.fps)
        assert sound_packets(tmp_path / "out.mkv") == sound_packets(original)
        assert source.taken == 20

    def test_the_own_metadata_wins(self, tmp_path: Path) -> None:
        original = film(tmp_path / "film.mkv", 2)
        path = written(tmp_path / "out.mp4", 2, PassedOn(original), metadata={"title": "Other", "prompt": "{}"})
        with av.open(str(path)) as container:
            assert container.metadata["title"] == "Other"
            assert json.loads(container.metadata["prompt"]) == {}


class TestExcerpt:
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
    def test_what_lies_outside_is_left_out_and_the_rest_shifted(self, tmp_path: Path, suffix: str) -> None:
        original = film(tmp_path / "film.mkv", 6)
        path = written(tmp_path / f"out{suffix}", 2.5, PassedOn(original, Fraction(3, 2), Fraction(4)))
        # The line of second 1 is seen from 1.1 to 1.9 s, of which 0.4 s are left.
        found = lines(path)
        assert [text for _, _, text in found] == ["Line 1", "Line 2", "Line 3"]
        expected = [(0, 0.4), (0.6, 0.8), (1.6, 0.8)]
        assert all(near(b, x) and near(d, y) for (b, d, _), (x, y) in zip(found, expected, strict=True))
        begin, samples = heard(path)
        assert near(begin, 0, 0.05) and near(samples.shape[1] / RATE, 2.5, 0.06)
        assert loudest(samples[0], RATE) == 440
        with av.open(str(path)) as container:
            chapters = [
                (c["metadata"]["title"], float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
                for c in container.chapters()
            ]
        assert [name for name, *_ in chapters] == ["C0", "C1"]
        assert near(chapters[0][1], 0) and near(chapters[0][2], 0.5) and near(chapters[1][2], 2.5)

    def test_an_excerpt_in_time_with_the_picture(self, tmp_path: Path) -> None:
        """Silence with one click: it comes as much earlier as the excerpt starts."""
        path = tmp_path / "click.mkv"
        wave = np.zeros((1, 4 * RATE), np.float32)
        wave[:, 3 * RATE : 3 * RATE + 480] = 0.8
        with av.open(str(path), "w") as container:
            picture = container.add_stream("libx264", rate=10)
            picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
            track = container.add_stream("pcm_s16le", rate=RATE)
            track.layout = "mono"
            for index in range(40):
                frame = av.VideoFrame(32, 16, "yuv420p")
                frame.pts, frame.time_base = index + 7, Fraction(1, 10)
                container.mux(picture.encode(frame))
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.rate, sound.pts, sound.time_base = RATE, 7 * RATE // 10, Fraction(1, RATE)
            container.mux(track.encode(sound))
            container.mux(picture.encode(None))
            container.mux(track.encode(None))
        for suffix in (".mp4", ".mkv", ".webm"):
            out = written(tmp_path / f"out{suffix}", 2, PassedOn(path, Fraction(2)))
            begin, samples = heard(out)
            at = begin + Fraction(int(np.argmax(np.abs(samples[0]) > 0.2)), RATE)
            with av.open(str(out)) as container:
                zero = next(p.pts * p.time_base for p in container.demux(video=0) if p.is_keyframe)
            assert near(at - zero, 1, 0.03), suffix


class TestWaveform:
    @pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "flac"), (".webm", "opus")])
    @pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (6, 48000)])
    def test_samples_become_a_track(self, tmp_path: Path, suffix: str, codec: str, channels: int, rate: int) -> None:
        time = torch.arange(2 * rate) / rate
        samples = torch.stack([torch.sin(2 * math.pi * 440 * time) / 2] * channels)
        path = written(tmp_path / f"out{suffix}", 2, PassedOn(waveform=Waveform(samples, rate)))
        with av.open(str(path)) as container:
            (track,) = container.streams.audio
            assert track.codec_context.codec.canonical_name == codec
            assert len(track.codec_context.layout.channels) == channels
            played = track.codec_context.sample_rate
        begin, found = heard(path)
        if found.shape[0] == 1 != channels:  # packed
            found = found.reshape(-1, channels).T
        assert near(begin, 0) and near(found.shape[1] / played, 2, 0.08)
        assert loudest(found[0], played) == 440

    def test_it_replaces_the_sound_of_the_file(self, tmp_path: Path) -> None:
        original = film(tmp_path / "film.mkv", 2)
        path = written(tmp_path / "out.mkv", 2, PassedOn(original, waveform=Waveform(torch.zeros(1, 2 * RATE), RATE)))
        with av.open(str(path)) as container:
            assert [s.codec_context.name for s in container.streams.audio] == ["flac"]
            assert len(container.streams.subtitles) == 1

    def test_what_is_no_waveform(self) -> None:
        with pytest.raises(VideoError, match=r"Sound of 1x2x3 samples at 48000 Hz"):
            Waveform(torch.zeros(1, 2, 3), RATE)
        with pytest.raises(VideoError, match="positive rate"):
            Waveform(torch.zeros(1, 2), 0)

    def test_sound_is_interleaved(self, tmp_path: Path) -> None:
        path = written(tmp_path / "out.mkv", 4, PassedOn(waveform=Waveform(torch.rand(2, 4 * RATE) - 0.5, RATE)))
        with av.open(str(path)) as container:
            times = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.size]
        sound = [time for kind, time in times if kind == "audio"]
        assert all(a <= b for a, b in pairwise(sound))
        last_picture = max(i for i, (kind, _) in enumerate(times) if kind == "video")
        assert sum(kind == "audio" for kind, _ in times[last_picture:]) < 30

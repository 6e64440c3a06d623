"""Video in and out: colours, sizes, frame rates, sound, and files that are whole or absent."""

from __future__ import annotations

import builtins
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import frames as smooth_frames
from tlbvfi import video
from tlbvfi.video import (
    Colour,
    Encoding,
    PassedOn,
    VideoError,
    fitting,
    probe,
    read_frames,
    read_picture,
    write_picture,
    write_pictures,
    write_video,
)

RATE = 48000


def saved(path: Path, pictures: list[Tensor], fps: Fraction = Fraction(25), **settings: Any) -> Path:
    write_video(path, pictures, fps, **settings)
    return path


def with_sound(path: Path, codec: str, seconds: float = 1.0, late: int = 0) -> Path:
    """A grey 32x16 video of 10 frames a second whose left channel is a tone of 440 Hz, and right one of 880 Hz.

    The clocks of both start `late` tenths of a second after zero.
    """
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
        picture.codec_context.max_b_frames = 0
        tone = container.add_stream(codec, rate=RATE)
        for index in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index + late, Fraction(1, 10)
            container.mux(picture.encode(frame))
        time = np.arange(round(seconds * RATE)) / RATE
        samples = np.stack([np.sin(2 * math.pi * 440 * time), np.sin(2 * math.pi * 880 * time)]).astype(np.float32) / 2
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        sound.rate, sound.pts, sound.time_base = RATE, late * RATE // 10, Fraction(1, RATE)
        container.mux(tone.encode(sound))
        container.mux(picture.encode(None))
        container.mux(tone.encode(None))
    return path


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def heard(path: Path) -> tuple[Fraction, np.ndarray[Any, Any]]:
    """When the sound begins in seconds of the file's clock, and its samples, (channels, samples)."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    begin = decoded[0].pts * decoded[0].time_base
    return begin, np.concatenate([f.to_ndarray() for f in decoded], axis=1)


def loudest(samples: np.ndarray[Any, Any], rate: int) -> int:
    """The frequency of the strongest tone, in Hz."""
    middle = samples[rate // 4 : rate // 4 + rate // 2]
    return int(np.argmax(np.abs(np.fft.rfft(middle)))) * 2


class TestColour:
    @pytest.mark.parametrize("matrix", [1, 5, 6, 7, 9])
    @pytest.mark.parametrize("full_range", [False, True])
    @pytest.mark.parametrize("bits", [8, 10])
    def test_there_and_back(self, matrix: int, full_range: bool, bits: int) -> None:
        colour = Colour(matrix, full_range=full_range, bits=bits)
        rgb = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(matrix))
        back = colour.to_rgb(colour.from_rgb(rgb))
        # Half a step of each sample, and what the blue and red differences carry into the others.
        assert (back - rgb).abs().max() < 3.0 / 2**bits

    @pytest.mark.parametrize("full_range", [False, True])
    def test_black_grey_and_white_are_where_the_standard_says(self, full_range: bool) -> None:
        colour = Colour(1, full_range=full_range)
        levels = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 1, 3)
        y, cb, cr = colour.from_rgb(levels).flatten(1).tolist()
        assert y == ([0, 255] if full_range else [16, 235])
        assert cb == cr == [128, 128]

    def test_pure_colours_of_bt709(self) -> None:
        """Figures of the 75 % colour bars of ITU-R BT.709."""
        bars = torch.tensor([[[0.75, 0.75, 0.0], [0.75, 0.0, 0.0], [0.0, 0.0, 0.75]]])
        assert Colour(1).from_rgb(bars)[:, 0].T.tolist() == [[168, 44, 136], [51, 109, 212], [28, 212, 120]]


class TestReading:
    @pytest.mark.parametrize(
        ("pixel_format", "matrix", "span", "tolerance"),
        [
            ("yuv420p", 1, 1, 0.012),
            ("yuv420p", 6, 2, 0.012),
            ("yuvj420p", 5, 2, 0.012),
            ("yuv422p10le", 9, 1, 0.004),
            ("yuv444p", 1, 1, 0.012),
        ],
    )
    def test_matrix_and_range_of_the_file_are_respected(
        self, tmp_path: Path, pixel_format: str, matrix: int, span: int, tolerance: float
    ) -> None:
        """A file made without this module's mathematics: flat colours, whose samples are set by hand."""
        rgb = (0.8, 0.3, 0.1)
        bits = 10 if "10" in pixel_format else 8
        kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
        y = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
        cb, cr = (rgb[2] - y) / (2 - 2 * kb), (rgb[0] - y) / (2 - 2 * kr)
        unit = 2 ** (bits - 8)
        scale = (2**bits - 1, 0) if span == 2 else (219 * unit, 16 * unit)
        chroma = 2**bits - 1 if span == 2 else 224 * unit
        samples = [y * scale[0] + scale[1], cb * chroma + 128 * unit, cr * chroma + 128 * unit]
        path = tmp_path / "flat.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1" if "10" in pixel_format else "libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
            stream.codec_context.options = {} if "10" in pixel_format else {"qp": "0"}
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
            frame = av.VideoFrame(64, 48, pixel_format)
            for plane, value in zip(frame.planes, samples, strict=True):
                kind = np.uint16 if bits > 8 else np.uint8
                plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, round(value), kind).tobytes())
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            frame.color_range = span
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        (picture,) = read_frames(path)
        assert picture.dtype == torch.float32
        assert picture.shape == (48, 64, 3)
        assert (picture - torch.tensor(rgb)).abs().max() < tolerance

    def test_an_unstated_matrix_is_that_of_the_size(self, tmp_path: Path) -> None:
        assert probe(saved(tmp_path / "small.mp4", smooth_frames(1, 480, 64))).colour.matrix == 6
        assert Colour.usual(480).matrix == 6
        assert Colour.usual(720).matrix == Colour.usual(2160).matrix == 1

    def test_a_rotated_video_is_read_upright(self, tmp_path: Path) -> None:
        path, upright = tmp_path / "phone.mp4", smooth_frames(1, 48, 32)[0]
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
            stream.codec_context.options = {"qp": "0"}
            stream.set_display_rotation(90)  # anticlockwise, to be upright
            lying = torch.rot90(upright, -1, (0, 1))
            array = (lying * 255).round().to(torch.uint8).contiguous().numpy()
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        info = probe(path)
        assert (info.width, info.height, info.quarter_turns) == (32, 48, 1)
        (picture,) = read_frames(path)
        assert (picture - upright).abs().mean() < 0.01

    def test_frames_are_decoded_as_they_are_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = saved(tmp_path / "long.mp4", smooth_frames(40, 16, 16))
        made = []
        real = fitting.to_tensor
        monkeypatch.setattr(fitting, "to_tensor", lambda frame: made.append(1) or real(frame))
        found = read_frames(path)
        next(found), next(found)
        assert len(made) == 2
        found.close()

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_pictures(self, tmp_path: Path, suffix: str) -> None:
        frame, path = smooth_frames(1, 13, 17)[0], tmp_path / f"100%.{suffix}"
        write_picture(path, frame)
        assert (read_picture(path) - frame).abs().max() < (0.5 / 255 + 1e-6 if suffix == "png" else 0.03)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_pictures_agree_with_pillow(self, tmp_path: Path) -> None:
        from PIL import Image

        frame = smooth_frames(1, 40, 56)[0]
        array = (frame * 255).round().to(torch.uint8).numpy()
        Image.fromarray(array).save(tmp_path / "a.jpg", quality=95, subsampling=0)
        Image.fromarray(array).convert("L").save(tmp_path / "grey.png")
        with Image.open(tmp_path / "a.jpg") as picture:
            expected = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)
        assert (read_picture(tmp_path / "a.jpg") - expected).abs().max() < 2.5 / 255
        grey = read_picture(tmp_path / "grey.png")
        with Image.open(tmp_path / "grey.png") as picture:
            assert (grey[..., 1] * 255).round().int().tolist() == np.asarray(picture).astype(int).tolist()

    def test_a_folder_of_pictures_is_read_in_numerical_order(self, tmp_path: Path) -> None:
        for number in (10, 9, 1):
            write_picture(tmp_path / f"f{number}.png", torch.full((2, 2, 3), number / 255))
        (tmp_path / "notes.txt").write_text("not a picture")
        info = probe(tmp_path)
        assert (info.frame_count, info.fps, info.width, info.height) == (3, None, 2, 2)
        assert [round(float(frame[0, 0, 0]) * 255) for frame in read_frames(tmp_path)] == [1, 9, 10]

    @pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 50, bytes(range(256)) * 40])
    def test_what_is_no_video_is_one_sentence(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "broken.mp4"
        path.write_bytes(content)
        with pytest.raises(VideoError, match=r"^.*broken\.mp4 is not a readable video \(.+\)\.$"):
            probe(path)

    def test_other_bad_sources(self, tmp_path: Path) -> None:
        with pytest.raises(VideoError, match=r"nowhere\.mp4 does not exist\."):
            probe(tmp_path / "nowhere.mp4")
        with pytest.raises(VideoError, match="holds no pictures"):
            probe(tmp_path)
        write_picture(tmp_path / "one.png", torch.zeros(2, 2, 3))
        with pytest.raises(VideoError, match="single picture"):
            probe(tmp_path / "one.png")
        playlist = tmp_path / "playlist.mp4"
        playlist.write_text("ffconcat version 1.0\nfile one.png\n")
        with pytest.raises(VideoError, match="not a readable video"):
            probe(playlist)
        sound_only = tmp_path / "sound.mp4"
        with av.open(str(sound_only), "w") as container:
            tone = container.add_stream("aac", rate=RATE)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.float32), format="fltp", layout="mono")
            sound.rate = RATE
            container.mux(tone.encode(sound))
            container.mux(tone.encode(None))
        with pytest.raises(VideoError, match="no video in it"):
            probe(sound_only)

    def test_a_truncated_video_fails_after_the_frames_it_has(self, tmp_path: Path) -> None:
        whole = saved(tmp_path / "whole.mkv", [torch.rand(64, 64, 3) for _ in range(20)])
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        probe(cut)
        count = 0
        try:
            for _ in read_frames(cut):
                count += 1
        except VideoError as error:
            assert f"after frame {count}" in str(error)  # noqa: PT017
        assert 0 < count < 20


class TestWriting:
    @pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
    @pytest.mark.parametrize("size", [(48, 64), (33, 64), (1, 1), (35, 51)])
    def test_every_size_comes_back_as_it_was(self, tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
        source = smooth_frames(3, *size)
        path = saved(tmp_path / f"video.{suffix}", source, Fraction(30000, 1001))
        info = probe(path)
        assert (info.height, info.width, info.fps) == (*size, Fraction(30000, 1001))
        back = list(read_frames(path))
        assert len(back) == 3
        for frame, expected in zip(back, source, strict=True):
            assert frame.shape == expected.shape
            assert (frame - expected).abs().mean() < 0.02
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt == (
                "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
            )

    @pytest.mark.parametrize("fps", [Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(15)])
    @pytest.mark.parametrize("factor", [1, 2, 16])
    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_rates_are_rational(self, tmp_path: Path, fps: Fraction, factor: int, suffix: str) -> None:
        count = 2 * factor + 1
        path = saved(tmp_path / f"fast.{suffix}", smooth_frames(count, 16, 16), fps * factor)
        info = probe(path)
        assert info.fps == fps * factor
        assert info.frame_count == count
        with av.open(str(path)) as container:
            shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        expected = [index / (fps * factor) for index in range(count)]
        if suffix == "mp4":
            assert info.duration == count / (fps * factor)
            assert shown == expected
        else:  # its clock has milliseconds
            assert all(abs(a - b) <= Fraction(1, 2000) for a, b in zip(shown, expected, strict=True))

    def test_colours_depth_and_pixel_aspect_are_kept(self, tmp_path: Path) -> None:
        like = video.VideoInfo(
            32, 16, Fraction(25), 1, pixel_aspect=Fraction(4, 3), colour=Colour(9, primaries=9, transfer=16, bits=10)
        )
        path = saved(tmp_path / "deep.mp4", smooth_frames(2, 16, 32), like=like)
        info = probe(path)
        assert info.colour == like.colour
        assert info.pixel_aspect == Fraction(4, 3)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"

    def test_quality_is_a_choice(self, tmp_path: Path) -> None:
        noise = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
        good, poor = (saved(tmp_path / f"{crf}.mp4", noise, encoding=Encoding(crf=crf)) for crf in (10, 40))
        assert good.stat().st_size > 2 * poor.stat().st_size

    def test_nothing_is_left_when_it_fails(self, tmp_path: Path) -> None:
        def failing(error: BaseException) -> Iterator[Tensor]:
            yield from smooth_frames(3, 16, 16)
            raise error

        old = tmp_path / "old.mp4"
        old.write_bytes(b"what was there")
        for error in (RuntimeError("no"), KeyboardInterrupt()):
            for path in (old, tmp_path / "new.mp4"):
                with pytest.raises(type(error)):
                    write_video(path, failing(error), Fraction(25))
            with pytest.raises(type(error)):
                write_pictures(tmp_path / "pictures", failing(error))
        assert [p.name for p in tmp_path.iterdir()] == ["old.mp4"]
        assert old.read_bytes() == b"what was there"

    def test_no_frames_is_no_file(self, tmp_path: Path) -> None:
        for write in (
            lambda: write_video(tmp_path / "a.mp4", [], Fraction(25)),
            lambda: write_pictures(tmp_path / "a", []),
        ):
            with pytest.raises(VideoError, match="no frames"):
                write()
        assert not list(tmp_path.iterdir())

    def test_a_frame_of_another_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(VideoError, match=r"18x16x3 \(width x height x colours\) instead of 16x16x3"):
            write_video(tmp_path / "a.mp4", [torch.zeros(16, 16, 3), torch.zeros(16, 18, 3)], Fraction(25))
        assert not list(tmp_path.iterdir())

    def test_pictures_into_a_folder(self, tmp_path: Path) -> None:
        source = smooth_frames(3, 6, 5)
        (tmp_path / "out").mkdir()
        assert write_pictures(tmp_path / "out", source) == 3
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:08d}.png" for i in range(3)]
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        for frame, expected in zip(read_frames(tmp_path / "out"), source, strict=True):
            assert (frame - expected).abs().max() <= 0.5 / 255 + 1e-6

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("x.avi", "no kind of video"),
            ("nowhere/x.mp4", "does not exist"),
            ("folder.mp4", "a folder already"),
            ("file", "a file already"),
            ("full", "not empty"),
            ("source.mp4", "the source itself"),
        ],
    )
    def test_bad_targets_are_found_beforehand(self, tmp_path: Path, name: str, said: str) -> None:
        (tmp_path / "folder.mp4").mkdir()
        (tmp_path / "full").mkdir()
        for used in ("file", "full/a", "source.mp4"):
            (tmp_path / used).write_text("used")
        with pytest.raises(VideoError, match=said) as caught:
            video.check_target(tmp_path / name, tmp_path / "source.mp4")
        assert Path(name).name in str(caught.value)

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
    def test_a_folder_that_takes_no_files_is_found_beforehand(self) -> None:
        with pytest.raises(VideoError, match="nothing can be written into the folder /proc"):
            video.check_target(Path("/proc/a.mp4"))

    def test_ten_bits_become_eight_where_the_encoder_has_no_more(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        colour = Colour(1, bits=10)
        path = tmp_path / "deep.webm"
        like = video.VideoInfo(32, 16, Fraction(25), 3, colour=colour)
        video.write_video(path, smooth_frames(3, 16, 32), Fraction(25), like=like)
        import av

        deep = "yuv420p10le" in [f.name for f in av.codec.Codec("libvpx-vp9", "w").video_formats]
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt == ("yuv420p10le" if deep else "yuv420p")
        assert deep or "does not encode 10 bits here" in caplog.text
        for before, after in zip(smooth_frames(3, 16, 32), read_frames(path), strict=True):
            assert (before - after).abs().mean() < 0.02

    def test_good_targets(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "old.mp4").write_text("used")
        for name in ("new.mp4", "empty", "new", "NEW.MKV"):
            video.check_target(tmp_path / name, tmp_path / "source.mp4")
        video.check_target(tmp_path / "old.mp4", tmp_path / "source.mp4", force=True)

    def test_a_file_that_is_there_is_replaced_only_by_force(self, tmp_path: Path) -> None:
        (tmp_path / "old.mp4").write_text("used")
        with pytest.raises(VideoError, match=r"old\.mp4 exists already; .* --force"):
            video.check_target(tmp_path / "old.mp4")

    @pytest.mark.skipif(os.name == "nt", reason="folder permissions are otherwise there")
    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder_is_found_beforehand(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(VideoError, match="nothing can be written into the folder"):
            video.check_target(tmp_path / "a.mp4")


class TestSound:
    @pytest.mark.parametrize(
        ("source", "codec", "target"),
        [
            ("a.mp4", "aac", "mp4"),
            ("a.mp4", "aac", "mkv"),
            ("a.mkv", "libopus", "webm"),
            ("a.mkv", "libmp3lame", "mp4"),
        ],
    )
    def test_copied_to_the_byte(self, tmp_path: Path, source: str, codec: str, target: str) -> None:
        original = with_sound(tmp_path / source, codec)
        path = saved(tmp_path / f"out.{target}", smooth_frames(20, 16, 32), Fraction(20), passed_on=PassedOn(original))
        assert sound_packets(path) == sound_packets(original)
        assert probe(path).sound == 1

    @pytest.mark.parametrize(("codec", "target", "becomes"), [("aac", "webm", "opus"), ("pcm_s16le", "webm", "opus")])
    def test_encoded_anew_where_it_does_not_fit(self, tmp_path: Path, codec: str, target: str, becomes: str) -> None:
        original = with_sound(tmp_path / "a.mkv", codec)
        path = saved(tmp_path / f"out.{target}", smooth_frames(20, 16, 32), Fraction(20), passed_on=PassedOn(original))
        with av.open(str(path)) as container:
            assert container.streams.audio[0].codec_context.codec.canonical_name == becomes
        begin, samples = heard(path)
        assert abs(begin) < 0.05
        assert abs(samples.shape[1] / RATE - 1) < 0.1
        assert (loudest(samples[0], RATE), loudest(samples[1], RATE)) == (440, 880)

    @pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
    @pytest.mark.parametrize("target", ["mkv", "webm"])
    def test_sound_stays_with_the_picture(self, tmp_path: Path, codec: str, target: str) -> None:
        """A source whose clock starts at 0.5 s: in the target both start at 0."""
        original = with_sound(tmp_path / "late.mkv", codec, late=5)
        assert abs(heard(original)[0] - Fraction(1, 2)) < 0.05
        path = saved(tmp_path / f"out.{target}", smooth_frames(20, 16, 32), Fraction(20), passed_on=PassedOn(original))
        assert abs(heard(path)[0]) < 0.05

    def test_packets_are_interleaved(self, tmp_path: Path) -> None:
        original = with_sound(tmp_path / "a.mkv", "aac", seconds=4)
        path = saved(tmp_path / "out.mkv", smooth_frames(40, 16, 32), Fraction(10), passed_on=PassedOn(original))
        with av.open(str(path)) as container:
            order = [(packet.stream.type, packet.pts * packet.time_base) for packet in container.demux() if packet.size]
        last_picture = max(i for i, (kind, _) in enumerate(order) if kind == "video")
        assert sum(kind == "audio" for kind, _ in order[last_picture:]) < 30

    def test_a_silent_source_is_no_trouble(self, tmp_path: Path) -> None:
        original = saved(tmp_path / "silent.mp4", smooth_frames(2, 16, 16))
        path = saved(tmp_path / "out.mp4", smooth_frames(2, 16, 16), passed_on=PassedOn(original))
        assert probe(path).sound == 0


def test_without_pyav_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av" or name.startswith("av."):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VideoError, match="needs PyAV"):
        video.check_target(tmp_path / "a.mp4")

"""Pictures as cameras, scanners and broadcasters make them: mirrored, interlaced, of 16 bits, HDR."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tlbvfi.sources import FileSource, Y4mSource
from tlbvfi.targets import PictureTarget
from tlbvfi.video import (
    Colour,
    Encoding,
    VideoError,
    VideoInfo,
    orientation,
    probe,
    read_frames,
    read_picture,
    write_picture,
    write_pictures,
    write_video,
)
from tlbvfi.video.side_data import side_data

Array = np.ndarray[Any, np.dtype[Any]]
#: What each number of EXIF does to the upright picture: its corners as they are stored, from those named
#: 0 1 (above) and 2 3 (below).
CORNERS = {1: "0123", 2: "1032", 3: "3210", 4: "2301", 5: "0213", 6: "1302", 7: "3120", 8: "2031"}
LEVELS = (30, 100, 170, 240)


def corners(picture: torch.Tensor) -> str:
    """Which of the four levels each corner has: above left, above right, below left, below right."""
    found = [picture[y, x, 1] * 255 for y in (1, -2) for x in (1, -2)]
    return "".join(str(int(np.argmin([abs(float(value) - level) for level in LEVELS]))) for value in found)


def quadrants(stored: str, width: int = 32, height: int = 16) -> Array:
    """A picture of four quarters with these levels."""
    levels = np.array([LEVELS[int(each)] for each in stored], np.uint8).reshape(2, 2)
    grey = np.kron(levels, np.ones((height // 2, width // 2), np.uint8))
    return np.repeat(grey[..., None], 3, axis=2)


def stored_for(tag: int) -> Array:
    """The picture which is upright, with 0123, when it is shown as EXIF's `tag` says; upright it is 32 wide."""
    return quadrants(CORNERS[tag]) if tag < 5 else quadrants(CORNERS[tag], 16, 32)


class TestOrientation:
    @pytest.mark.parametrize("tag", CORNERS)
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
    def test_exif(self, tmp_path: Path, suffix: str, order: str, tag: int) -> None:
        exif = Image.Exif()
        exif.endian, exif[274] = order, tag
        options: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
        Image.fromarray(stored_for(tag)).save(tmp_path / f"a.{suffix}", exif=exif, **options)
        info = probe(tmp_path)
        (picture,) = read_frames(tmp_path)
        assert (info.width, info.height) == (picture.shape[1], picture.shape[0]) == (32, 16)
        assert corners(picture) == "0123"

    @pytest.mark.parametrize(
        "exif",
        [
            b"",
            b"II*\0",
            b"II*\0\x08\0\0\0\xff\xff",  # many entries, of which there is none
            b"II*\0\xff\xff\xff\xff",  # far away
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",  # 9
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x02\0\0\0",  # text
            b"XX*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x02\0\0\0",
        ],
    )
    def test_damaged_exif_is_ignored(self, tmp_path: Path, exif: bytes) -> None:
        for suffix in ("jpg", "png", "webp"):
            path = tmp_path / f"a.{suffix}"
            Image.fromarray(quadrants("0123")).save(path, exif=b"Exif\0\0" + exif)
            assert corners(read_picture(path)) == "0123"

    def test_a_chunk_of_wrong_checksum_is_ignored(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 3
        Image.fromarray(quadrants("0123")).save(tmp_path / "a.png", exif=exif)
        data = bytearray((tmp_path / "a.png").read_bytes())
        place = data.index(b"eXIf")
        data[place + 4 + int.from_bytes(data[place - 4 : place], "big")] ^= 1
        (tmp_path / "a.png").write_bytes(data)
        assert corners(read_picture(tmp_path / "a.png")) == "0123"

    @pytest.mark.parametrize("tag", CORNERS)
    @pytest.mark.parametrize("scale", [1.0, 0.25])
    def test_display_matrices(self, tmp_path: Path, tag: int, scale: float) -> None:
        """A video whose file states the same as EXIF, beside a pixel aspect of 4:3 as stored."""
        a, b, c, d = {
            1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
            5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
        }[tag]  # fmt: skip
        picture, path = torch.from_numpy(stored_for(tag)) / 255, tmp_path / "a.mp4"
        like = VideoInfo(1, 1, None, None, pixel_aspect=Fraction(4, 3))
        write_video(path, [picture] * 2, Fraction(10), like=like)
        data = path.read_bytes()
        one = 1 << 16
        plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
        track = data.index(b"tkhd")
        place = data.index(plain, track)
        numbers = [round(scale * one * value) for value in (a, b, 0, c, d, 0)]
        stated = struct.pack(">9i", *numbers, 0, 0, 1 << 30)
        path.write_bytes(data[:place] + stated + data[place + len(plain) :])
        info = probe(path)
        assert (info.width, info.height) == (32, 16)
        assert info.pixel_aspect == (Fraction(4, 3) if tag < 5 else Fraction(3, 4))
        frames = list(read_frames(path))
        assert [corners(frame) for frame in frames] == ["0123"] * 2

    def test_an_odd_angle_is_taken_for_the_nearest(self) -> None:
        one = 1 << 16
        for degrees, turns in ((30, 0), (-100, 1), (170, 2), (60, 3)):
            cos, sin = (round(one * float(f(np.radians(degrees)))) for f in (np.cos, np.sin))
            matrix = struct.pack("9i", cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30)
            assert orientation.of_matrix(matrix) == orientation.Orientation(turns)
        assert orientation.of_matrix(bytes(36)) == orientation.UPRIGHT

    def test_side_data_that_pyav_does_not_know_hides_nothing(self, tmp_path: Path) -> None:
        """A picture's EXIF is such; FFmpeg makes a display matrix of it."""
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(stored_for(6)).save(tmp_path / "a.jpg", exif=exif)
        with av.open(str(tmp_path / "a.jpg")) as container:
            frame = next(container.decode(video=0))
        if frame.rotation == 0:
            pytest.skip("this FFmpeg does not read EXIF")
        assert "DISPLAYMATRIX" in side_data(frame)


def moment(time: int, height: int = 64, width: int = 64) -> Array:
    """A smooth picture that moves, in [0, 255]."""
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(127.5 + 100 * np.sin((columns - 4 * time) / 8) * np.cos(rows / 13))


def woven(index: int, order: str) -> Array:
    """A frame of two fields, of which one is of the time of the other frames and the next of half a frame later."""
    first, second = moment(2 * index), moment(2 * index + 1)
    own, other = (0, 1) if order == "tff" else (1, 0)
    grey = np.empty_like(first)
    grey[own::2], grey[other::2] = first[own::2], second[other::2]
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def interlaced(path: Path, codec: str, order: str, flagged: list[bool], pixels: str = "yuv420p") -> Path:
    """A video of as many frames, 25 a second; those that are flagged as interlaced are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        stream.codec_context.gop_size = 5
        stream.codec_context.flags |= 1 << 18 | 1 << 29  # of interlaced DCT and motion
        if codec == "libx264":
            stream.codec_context.options = {"crf": "1", "x264-params": f"{order}=1", "preset": "ultrafast"}
        else:
            stream.codec_context.bit_rate = 8_000_000
        for index, two in enumerate(flagged):
            array = woven(index, order) if two else np.repeat(moment(2 * index)[..., None], 3, 2).astype(np.uint8)
            graph = av.filter.Graph()
            entry = graph.add_buffer(width=64, height=64, format=pixels, time_base=Fraction(1, 25))
            flag, end = graph.add("setfield", order if two else "prog"), graph.add("buffersink")
            entry.link_to(flag), flag.link_to(end)
            graph.configure()
            entry.push(av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pixels))
            frame = end.pull()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def errors(frames: list[torch.Tensor]) -> list[float]:
    """How far each is from the picture at its time."""
    return [float(np.abs(frame[..., 1].numpy() * 255 - moment(2 * i)).mean()) for i, frame in enumerate(frames)]


class TestInterlaced:
    @pytest.mark.parametrize("order", ["tff", "bff"])
    @pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("mpeg2video", "ts"), ("prores_ks", "mov")])
    def test_frames_become_whole(
        self, tmp_path: Path, codec: str, suffix: str, order: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
        path = interlaced(tmp_path / f"a.{suffix}", codec, order, [True] * 8, pixels)
        frames = list(FileSource(path).frames())
        assert caplog.text.count("is interlaced") == 1
        assert len(frames) == 8
        assert max(errors(frames)) < 2.5
        caplog.clear()
        left = list(FileSource(path, deinterlace=False).frames())
        assert min(errors(left)) > 5
        assert caplog.text == ""

    def test_parts_are_of_the_same_frames(self, tmp_path: Path) -> None:
        path = interlaced(tmp_path / "a.mp4", "libx264", "tff", [True] * 70)
        whole = list(read_frames(path))
        assert len(whole) == 70
        source = FileSource(path)
        assert torch.equal(next(source.frames(33)), whole[33])
        for start in (50, 55, 57):  # a key frame, another, and between two
            part = list(FileSource(path, Fraction(start, 25), Fraction(start + 3, 25)).frames())
            assert len(part) == 3
            assert all(torch.equal(a, b) for a, b in zip(part, whole[start : start + 3], strict=True))

    def test_only_frames_that_say_so(self, tmp_path: Path) -> None:
        flagged = [False, False, True, True, False, False, True]
        path = interlaced(tmp_path / "a.mkv", "ffv1", "tff", flagged)
        frames, left = list(read_frames(path)), list(read_frames(path, deinterlace=False))
        for made, stored, two in zip(frames, left, flagged, strict=True):
            assert torch.equal(made, stored) != two
        assert max(errors(frames)) < 2.5

    def test_a_single_frame(self, tmp_path: Path) -> None:
        (frame,) = read_frames(interlaced(tmp_path / "a.mp4", "libx264", "tff", [True]))
        assert errors([frame])[0] < 5

    def test_what_only_the_file_states(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mov"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("qtrle", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
            try:
                stream.codec_context.field_order = 3
            except AttributeError:
                pytest.skip("this PyAV cannot state it")
            for index in range(4):
                frame = av.VideoFrame.from_ndarray(woven(index, "bff"), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        assert max(errors(list(read_frames(path)))) < 2.5

    @pytest.mark.parametrize("order", ["tff", "bff"])
    def test_raw_frames(self, order: str) -> None:
        head = f"YUV4MPEG2 W64 H64 F25:1 I{order[0]} A1:1 Cmono\n".encode()
        data = head + b"".join(b"FRAME\n" + woven(index, order)[..., 0].tobytes() for index in range(4))
        assert max(errors(list(Y4mSource(io.BytesIO(data)).frames()))) < 2.5
        assert min(errors(list(Y4mSource(io.BytesIO(data), deinterlace=False).frames()))) > 5


def png(array: Array, depth: int, kind: int) -> bytes:
    """A PNG of 16 or fewer bits a sample, (H, W, channels)."""
    height, width, _ = array.shape
    rows = [b"\0" + (row.astype(">u2").tobytes() if depth == 16 else packed(row, depth)) for row in array]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def packed(row: Array, depth: int) -> bytes:
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def tiff(array: Array, order: str) -> bytes:
    """A plain TIFF of 16 bits a sample, (H, W, 1, 3 or 4 channels), in one byte order."""
    height, width, channels = array.shape
    pixels = array.astype(f"{order}u2").tobytes()
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8 if channels > 1 else 16)]
    entries += [(259, 3, 1, 1), (262, 3, 1, 1 if channels == 1 else 2), (273, 4, 1, 8 + len(depths))]
    entries += [(277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    entries += [(338, 3, 1, 2)] if channels == 4 else []
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        inline = kind == 3 and count == 1
        directory += struct.pack(f"{order}HHI" + ("HH" if inline else "I"), tag, kind, count, value, *[0] * inline)
    place = 8 + len(depths) + len(pixels)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", place) + depths + pixels + directory + bytes(4)


class TestDepth:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("kind", ["png", "tiff <", "tiff >"])
    def test_sixteen_bits_are_read_exactly(self, tmp_path: Path, kind: str, channels: int) -> None:
        if kind != "png" and channels == 2:
            return
        array = np.random.default_rng(1).integers(0, 65536, (5, 7, channels))
        path = tmp_path / ("a.png" if kind == "png" else "a.tiff")
        kinds = {1: 0, 2: 4, 3: 2, 4: 6}
        path.write_bytes(png(array, 16, kinds[channels]) if kind == "png" else tiff(array, kind[-1]))
        colours = array[..., :3] if channels > 2 else array[..., [0, 0, 0]]
        assert torch.equal(read_picture(path), torch.from_numpy(colours.astype(np.float32)) / 65535)
        assert probe(tmp_path).colour.bits == 10

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_few_bits(self, tmp_path: Path, depth: int) -> None:
        array = np.random.default_rng(1).integers(0, 2**depth, (5, 16, 1))
        (tmp_path / "a.png").write_bytes(png(array, depth, 0))
        expected = torch.from_numpy(array.astype(np.float32)).expand(-1, -1, 3) / (2**depth - 1)
        assert (read_picture(tmp_path / "a.png") - expected).abs().max() < 1e-6

    @pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("LA", "png"), ("1", "tif"), ("CMYK", "jpg")])
    def test_other_kinds_agree_with_pillow(self, tmp_path: Path, mode: str, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        colours = np.random.default_rng(1).integers(0, 256, (2, 4, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(colours).convert(mode).save(path)
        with Image.open(path) as picture:
            expected = torch.from_numpy(np.asarray(picture.convert("RGB")).astype(np.float32)) / 255
        assert (read_picture(path) - expected).abs().max() < 2 / 255

    def test_what_would_come_out_black_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(quadrants("0123")).save(tmp_path / "a.tif", compression="jpeg")
        with pytest.raises(VideoError, match="compressed as JPEG"):
            probe(tmp_path)

    def test_a_folder_keeps_sixteen_bits(self, tmp_path: Path) -> None:
        array = np.random.default_rng(1).integers(0, 65536, (4, 6, 3))
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.png").write_bytes(png(array, 16, 2))
        source = FileSource(tmp_path / "in")
        made = torch.full((4, 6, 3), 0.3)
        PictureTarget(tmp_path / "out", source.info).write([*source.frames(), made], None)
        first, second = read_frames(tmp_path / "out")
        assert torch.equal(first, torch.from_numpy(array.astype(np.float32)) / 65535)
        assert torch.equal(second, torch.full((4, 6, 3), round(0.3 * 65535)) / 65535)
        write_video(tmp_path / "a.mkv", [made], Fraction(1), like=source.info)
        assert probe(tmp_path / "a.mkv").colour.bits == 10
        write_pictures(tmp_path / "shallow", [made])
        assert probe(tmp_path / "shallow").colour.bits == 8
        write_picture(tmp_path / "a.jpg", made, deep=True)

    def test_transparent_pictures_are_noted_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for index in range(3):
            Image.new("RGBA", (8, 8), (10, 20, 30, 100)).save(tmp_path / f"{index}.png")
        list(read_frames(tmp_path))
        assert caplog.text.count("partly transparent") == 1


def t35_message() -> bytes:
    """An SEI unit of HEVC with the least that HDR10+ can say."""
    bits = "01" + "0" * 27 + "0" + "0" * (3 * 17 + 17 + 4 + 10) + "0" + "0" + "0"
    body = bytes.fromhex("b5003c000104 01".replace(" ", ""))
    body += int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    payload, run = b"", 0
    for byte in bytes([4, len(body)]) + body + b"\x80":
        if run >= 2 and byte <= 3:
            payload, run = payload + b"\x03", 0
        payload, run = payload + bytes([byte]), run + 1 if byte == 0 else 0
    return b"\0\0\0\1\x4e\x01" + payload


class TestHdr:
    @pytest.mark.parametrize("codec", ["h264", "prores"])
    def test_hybrid_log_gamma_stays(self, tmp_path: Path, codec: str) -> None:
        like = VideoInfo(64, 64, None, None, colour=Colour(9, primaries=9, transfer=18, bits=10))
        path = tmp_path / "a.mov"
        write_video(path, [torch.rand(64, 64, 3)] * 2, Fraction(25), like=like, encoding=Encoding(codec))
        assert probe(path).colour == like.colour

    def test_what_changes_from_frame_to_frame_is_left_out_and_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        context = av.CodecContext.create("libx265", "w")
        context.width, context.height, context.pix_fmt, context.time_base = 64, 64, "yuv420p10le", Fraction(1, 25)
        context.options = {"x265-params": "log-level=none:repeat-headers=1"}
        frame = av.VideoFrame.from_ndarray(quadrants("0123", 64, 64), format="rgb24").reformat(format="yuv420p10le")
        frame.pts, frame.time_base = 0, Fraction(1, 25)

        def packets() -> Iterator[bytes]:
            yield from map(bytes, [*context.encode(frame), *context.encode(None)])

        data = b"".join(packets())
        units = [place for place in range(len(data) - 4) if data[place : place + 3] == b"\0\0\1"]
        slice_at = next(place for place in units if data[place + 3] >> 1 & 63 < 32)
        path = tmp_path / "a.hevc"
        path.write_bytes(data[:slice_at] + t35_message() + data[slice_at:])
        assert len(list(read_frames(path))) == 1
        assert caplog.text.count("HDR10+") == 1

"""Files as some programs make them: lists of edits, packed pictures, bare streams, parts that are broken or unknown."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.test_video_real_pictures import png
from tests.test_video_times import onsets, recorded
from tlbvfi.sources import FileSource
from tlbvfi.targets import VideoTarget
from tlbvfi.video import PassedOn, read_picture
from tlbvfi.video.hdr import _is_profile_5


def encoded(codec: str, kind: str, count: int, rate: int = 25, **options: str) -> tuple[bytes, list[bytes]]:
    """A file of frames that become lighter by four levels each, and its packets."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        packets = []
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 4 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        stored = [bytes(packet) for packet in packets]
        for packet in packets:
            container.mux(packet)
    return file.getvalue(), stored


def indices(frames: Any) -> list[int]:
    return [round((float(frame.mean()) * 255 - 20) / 4) for frame in frames]


def boxes(data: bytes, begin: int, end: int) -> list[tuple[bytes, int, int]]:
    """The kinds of the boxes of an MP4 in a part of it, and where they begin and end."""
    result = []
    while begin + 8 <= end:
        size, kind = struct.unpack(">I4s", data[begin : begin + 8])
        result.append((kind, begin, begin + size))
        begin += size
    return result


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def edited(data: bytes, edits: list[tuple[float, float]]) -> bytes:
    """An MP4 of which all tracks show such pieces: seconds, and from where; from -1 nothing is shown."""
    moov = next(each for each in boxes(data, 0, len(data)) if each[0] == b"moov")
    parts, ticks = b"", 1000
    for kind, begin, end in boxes(data, moov[1] + 8, moov[2]):
        part = data[begin:end]
        if kind == b"trak":
            inner = [(each, data[a:b]) for each, a, b in boxes(data, begin + 8, end) if each != b"edts"]
            media = next(each for each in inner if each[0] == b"mdia")[1]
            (clock,) = struct.unpack(">I", media[media.index(b"mdhd") + 16 :][:4])
            rows = [
                struct.pack(">IiI", round(lasts * ticks), -1 if start < 0 else round(start * clock), 1 << 16)
                for lasts, start in edits
            ]
            edit = box(b"edts", box(b"elst", struct.pack(">II", 0, len(rows)) + b"".join(rows)))
            part = box(b"trak", inner[0][1] + edit + b"".join(each for _, each in inner[1:]))
        parts += part
    return data[: moov[1]] + box(b"moov", parts) + data[moov[2] :]


@pytest.mark.parametrize(
    "edits",
    [
        [(0.5, -1), (1.0, 0.0)],
        [(0.4, 0.0), (0.6, 1.2)],
        [(0.8, 0.0), (0.6, 0.3)],
        [(0.4, 1.0), (0.4, 0.2), (0.4, 1.0)],
    ],
    ids=["empty at the begin", "cut in the middle", "a part again", "in another order"],
)
def test_edits_are_followed(tmp_path: Path, edits: list[tuple[float, float]]) -> None:
    path = tmp_path / "a.mp4"
    data, _ = encoded("libx264", "mp4", 45, g="12", bf="0", crf="1")
    path.write_bytes(edited(data, edits))
    source = FileSource(path)
    frames = list(source.frames())
    wanted = [round(start * 25) + each for lasts, start in edits if start >= 0 for each in range(round(lasts * 25))]
    assert indices(frames) == wanted
    assert source.info.frame_count == source.count() == len(wanted)
    assert torch.equal(next(source.frames(21)), frames[21])
    spoken = recorded(tmp_path / "b.mp4", [0.04] * 45)
    path.write_bytes(edited(spoken.read_bytes(), edits))
    source = FileSource(path)
    VideoTarget(tmp_path / "out.mp4", source.info, PassedOn(path)).write(source.frames(), source.info.fps)
    seen, heard, count = onsets(tmp_path / "out.mp4")
    assert count == len(wanted) and len(seen) == len(heard) >= 3
    assert all(abs(a - b) <= 0.06 for a, b in zip(seen, heard, strict=True))


@pytest.mark.parametrize("plain", [0, 12], ids=["packed", "packed later"])
def test_packed_pictures_come_in_their_order(tmp_path: Path, plain: int) -> None:
    _, stored = encoded("mpeg4", "avi", 30, g="30", bf="1", b="800000")
    kinds = [each[each.index(b"\0\0\1\xb6") + 4] >> 6 for each in stored]
    picture = stored[0].index(b"\0\0\1\xb3")
    stored[0] = stored[0][:picture] + b"\0\0\1\xb2DivX503b1393p" + stored[0][picture:]
    packed: list[bytes] = []
    index = 0
    while index < len(stored):
        pair = index >= plain and index + 1 < len(stored) and kinds[index] != 2 == kinds[index + 1]
        packed += [stored[index] + stored[index + 1], b"\0\0\1\xb6\x50\0\x40\x7f"] if pair else [stored[index]]
        index += 1 + pair
    assert len(packed) == 30 and (plain or packed[1] != stored[1])
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), index, index
            packet.is_keyframe = not index
            container.mux(packet)
    found = indices(FileSource(path).frames())
    assert len(found) == 30 and found == sorted(found)
    assert len(list(FileSource(path, Fraction(10, 25), Fraction(15, 25)).frames())) == 5


@pytest.mark.parametrize(("codec", "kind", "rate"), [("libsvtav1", "obu", 25), ("mpeg1video", "mpeg1video", 24)])
def test_bare_streams_have_each_frame_once(tmp_path: Path, codec: str, kind: str, rate: int) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(codec, kind, 20, rate)[0])
    assert FileSource(path).info.fps == rate
    assert indices(FileSource(path).frames()) == list(range(20))
    assert FileSource(path, fps=Fraction(30)).info.fps == 30


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("name", "data"), [(b"iCCP", b"name\0\0no zlib"), (b"iCCP", b"x" * 99), (b"pHYs", b"")])
def test_a_png_is_read_whatever_its_other_parts_hold(tmp_path: Path, name: bytes, data: bytes, after: bool) -> None:
    path, array = tmp_path / "a.png", np.arange(8 * 8 * 3).reshape(8, 8, 3)
    whole = png(array, 8, 2)
    path.write_bytes(whole)
    wanted = read_picture(path)
    place = whole.index(b"IEND") - 4 if after else whole.index(b"IDAT") - 4
    check = struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(whole[:place] + struct.pack(">I", len(data)) + name + data + check + whole[place:])
    assert torch.equal(read_picture(path), wanted)


@pytest.mark.parametrize(("tag", "alone"), [(b"dvh1", True), (b"hvc1", False)])
def test_colours_of_dolby_vision_are_named(
    tmp_path: Path, tag: bytes, alone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mp4"
    # Of one or two frames x265 does not say when they are decoded.
    data, _ = encoded("libx265", "mp4", 4, **{"x265-params": "log-level=error"})
    path.write_bytes(data.replace(b"hev1", tag))
    assert FileSource(path).info.fps == 25
    assert ("Dolby Vision" in caplog.text) == alone
    header = bytes([2, 0, 18, 0, 0 if alone else 1, 6, 0, 0, 23, 1, int(alone)])
    assert _is_profile_5(struct.pack("NNN", 24, 48, 64) + header) == alone

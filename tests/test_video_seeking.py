"""Frames from any index on, and out of parcels: the same as by reading everything, with less decoded."""

from __future__ import annotations

import io
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tlbvfi.sources import FileSource, ParcelSource
from tlbvfi.video import VideoError, parcels, seeking, write_pictures
from tlbvfi.video.access_points import AccessPoints
from tlbvfi.video.scan import Unexpected

COUNT, WIDTH, HEIGHT = 84, 64, 48
RATE = Fraction(25)
X264 = "keyint=12:min-keyint=12:scenecut=0"
VARYING = np.cumsum([0, *np.random.default_rng(0).choice([40, 40, 40, 80, 33, 200], COUNT - 1)]).tolist()

#: name: codec, options, pixel format.
CLIPS: dict[str, tuple[str, dict[str, str], str]] = {
    "open.mp4": ("libx264", {"x264-params": f"open-gop=1:{X264}", "bf": "3"}, "yuv420p"),
    "pyramid.ts": ("libx264", {"x264-params": f"open-gop=1:{X264}:b-pyramid=normal:b-adapt=0", "bf": "5"}, "yuv420p"),
    "closed.mkv": ("libx264", {"x264-params": X264, "bf": "2"}, "yuv420p10le"),
    "varying.mkv": ("libx264", {"x264-params": f"open-gop=1:{X264}", "bf": "2"}, "yuv420p"),
    "fields.mp4": ("libx264", {"x264-params": f"{X264}:tff=1", "bf": "2"}, "yuv420p"),
    "cra.mkv": ("libx265", {"x265-params": f"open-gop=1:bframes=4:log-level=error:{X264}"}, "yuv420p"),
    "radl.ts": ("libx265", {"x265-params": f"open-gop=0:radl=2:log-level=error:{X264}"}, "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}, "yuv420p"),
    "fields.ts": ("mpeg2video", {"g": "12", "bf": "2", "flags": "+ildct+ilme"}, "yuv420p"),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "vp8.webm": ("libvpx", {"g": "12", "cpu-used": "8", "lag-in-frames": "8", "auto-alt-ref": "1"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "lag-in-frames": "8", "auto-alt-ref": "1"}, "yuv420p"),
    "opacity.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "auto-alt-ref": "0"}, "yuva420p"),
    "av1.mp4": ("libsvtav1", {"preset": "12", "svtav1-params": "keyint=12"}, "yuv420p"),
    "ffv1.mkv": ("ffv1", {"g": "12"}, "yuv420p"),
    "prores.mov": ("prores_ks", {}, "yuv422p10le"),
    "mjpeg.avi": ("mjpeg", {}, "yuvj420p"),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:scenecut=0"}, "yuv420p"),
    "bare.h264": ("libx264", {"x264-params": X264, "bf": "2"}, "yuv420p"),
}
#: In which decoding from the begin is the only way that is certain.
FROM_BEGIN = ("refresh.mp4", "bare.h264")


def picture(index: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    noise = np.roll(noise, (index, 2 * index), (0, 1)) + np.uint8(index)
    noise[:, index % WIDTH] = 255 - index
    return noise


def clip(path: Path, codec: str, options: dict[str, str], pixels: str, count: int = COUNT) -> Path:
    varying = path.name == "varying.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.options = {"threads": "1", **options}
        unit = Fraction(1, 1000) if varying else 1 / RATE
        stream.codec_context.time_base = unit
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = VARYING[index] if varying else index, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Clips by their names, each made once."""
    folder, known = tmp_path_factory.mktemp("clips"), {}

    def make(name: str) -> Path:
        if name not in known:
            known[name] = clip(folder / name, *CLIPS[name])
        return known[name]

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every frame that is decoded."""
    counted: list[int] = []
    real = seeking.decoded

    def counting(*args: Any) -> Iterator[Any]:
        for frame in real(*args):
            counted.append(1)
            yield frame

    monkeypatch.setattr(seeking, "decoded", counting)
    return counted


def remuxed(source: Path, target: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """A copy whose packets, by their numbers, are changed or left out."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        for number, packet in enumerate(each for each in read.demux(stream) if each.size):
            data = change(number, bytes(packet))
            if data is None:
                continue
            new = av.Packet(len(data))
            new.update(data)
            new.pts, new.dts, new.time_base, new.is_keyframe = (
                packet.pts, packet.dts, packet.time_base, packet.is_keyframe,
            )  # fmt: skip
            new.stream = copy
            written.mux(new)
    return target


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def check(
    path: Path, firsts: list[int], ranges: Sequence[tuple[int, int]] = (), **settings: Any
) -> tuple[list[Tensor], set[str]]:
    """Compare the frames from each index on, those of parcels, and what is held, with those by reading everything.

    Returns:
        All frames, and of which kinds the parcels are.
    """
    whole = FileSource(path, **settings)
    frames = list(whole.frames())
    held = [whole.holds_after(index - 1) for index in range(len(frames))]
    for first in firsts:
        source = FileSource(path, **settings)
        found = list(itertools.islice(source.frames(first), 4 if first % 2 else None))
        assert same(found, frames[first : first + 4] if first % 2 else frames[first:]), first
        places = range(first, first + len(found))
        assert [source.holds_after(index - 1) for index in places] == [held[index] for index in places]
        assert source.taken == first + len(found)
    kinds = set()
    for first, count in ranges:
        data = whole.parcel(first, count)
        parcel = ParcelSource(data)
        assert (parcel.first, parcel.count, parcel.info) == (first, count, whole.info)
        found = list(parcel.frames())
        assert same(found, frames[first : first + count]), first
        places = range(first, first + len(found))
        assert [parcel.holds_after(index - 1) for index in places] == [held[index] for index in places]
        kinds.add(header_of(data)["kind"])
    return frames, kinds


def header_of(data: bytes) -> dict[str, Any]:
    """What a parcel says."""
    begin = len(parcels._MAGIC) + parcels._HEAD.size
    size, *_ = parcels._HEAD.unpack_from(data, len(parcels._MAGIC))
    return dict(json.loads(data[begin : begin + size]))


@pytest.mark.parametrize("near", [0, 1 << 20], ids=["sought", "passed"])
@pytest.mark.parametrize("name", CLIPS)
def test_the_frames_are_those_of_the_whole(
    made: Callable[[str], Path], decoded: list[int], monkeypatch: pytest.MonkeyPatch, name: str, near: int
) -> None:
    if near and name not in ("open.mp4", "pyramid.ts", "vp9.webm"):
        return
    monkeypatch.setattr(seeking, "_NEAR_BYTES", near)
    path = made(name)
    settings = {"alpha": True} if name.startswith("opacity") else {}
    _, kinds = check(path, [1, 57, 72, COUNT + 1], [] if near else [(0, 2), (69, 5), (80, 50)], **settings)
    assert near or kinds == ({"frames"} if name == "bare.h264" else {"packets"})
    decoded.clear()
    next(FileSource(path).frames(77))
    assert sum(decoded) > 77 if name in FROM_BEGIN else 17 <= sum(decoded) < 44


@pytest.mark.parametrize(
    "settings",
    [
        {"start": Fraction(9, 4)},
        {"start": Fraction(241, 100), "end": Fraction(3)},
        {"start": Fraction(5, 2), "fps": Fraction(30)},
        {"fps": Fraction(30)},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["open.mp4", "varying.mkv"])
def test_excerpts(made: Callable[[str], Path], name: str, settings: dict[str, Fraction]) -> None:
    check(made(name), [0, 7, 13], [(0, 3), (5, 4)], **settings)


def test_an_excerpt_that_begins_with_a_held_frame(made: Callable[[str], Path]) -> None:
    """It is the one before once more in the whole video, but the first one here."""
    longest = next(i for i in range(60, COUNT) if VARYING[i + 1] - VARYING[i] == 200)
    start = Fraction(VARYING[longest] + 100, 1000)
    check(made("varying.mkv"), [0, 1, 2], [(0, 3), (1, 2)], start=start)
    assert FileSource(made("varying.mkv"), start=start).info.frame_count


class TestAccessPoints:
    SPS, OTHER_SPS, PPS = (b"\0\0\1\x67\x42\xc0\x1e\xda", b"\0\0\1\x67\x42\xc0\x1e\xdb", b"\0\0\1\x68\xce")
    IDR, INTRA = b"\0\0\1\x65\x88\x84", b"\0\0\1\x61\x88\x84"

    @pytest.fixture
    def points(self) -> AccessPoints:
        return AccessPoints(av.CodecContext.create("h264", "r"))  # type: ignore[arg-type]

    def test_headers_have_to_be_there(self, points: AccessPoints) -> None:
        """A decoder that begins with a packet lacks headers that others set up before."""
        packets = (self.IDR, self.SPS + self.PPS + self.IDR, self.IDR, self.OTHER_SPS + self.IDR)
        assert list(map(points.look, packets)) == [True, True, False, False]
        assert points.look(self.OTHER_SPS + self.PPS + self.IDR)

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (b"\x06\x01\xc4", True),  # from here on, exactly
            (b"\x06\x01\x84", False),  # about
            (b"\x06\x01\xe4", False),  # with a broken link
            (b"\x06\x01\x71", False),  # two frames later
            (b"\x04\x03\0\0\0\x06\x01\xc4", True),  # after another message
            (b"\x04\xff", False),
        ],
        ids=["exact", "about", "broken", "later", "second", "damaged"],
    )
    def test_recovery_points(self, points: AccessPoints, message: bytes, expected: bool) -> None:
        assert points.look(b"\0\0\1\x06" + message + b"\x80" + self.INTRA) == expected

    def test_damaged_units(self, points: AccessPoints) -> None:
        assert not points.look(b"\0\0\1\x67\x42")
        assert not points.look(self.SPS + self.PPS + self.IDR)  # who knows what that was


@pytest.mark.parametrize(
    ("shown", "changes", "failed", "expected"),
    [
        ([3, 5, 6, 7, 8], {}, False, 4),  # 3 is shown before the key frame
        ([5, 6, 8], {}, False, None),
        ([5, 6, 8, 9], {}, False, None),
        ([5, 6, 6, 7, 8], {}, False, None),
        ([6, 7, 8], {}, False, None),
        ([5, 6, 7], {}, False, None),
        ([5, 6, 7, 8, 9], {}, False, None),
        ([5, 6, None, 8], {}, False, None),
        ([5, 6, 7, 8], {"is_corrupt": True}, False, None),
        ([5, 6, 7, 8], {"pict_type": 2}, False, None),
        ([5, 6, 7, 8], {"time_base": Fraction(1, 50)}, False, None),
        ([5, 6, 7, 8], {}, True, None),
    ],
)
def test_only_the_frames_that_have_to_come_are_taken(
    shown: list[int | None], changes: dict[str, Any], failed: bool, expected: int | None
) -> None:
    usual = {"pict_type": 1, "is_corrupt": False, "time_base": 1 / RATE} | changes
    frames: Any = [SimpleNamespace(pts=pts, **usual) for pts in shown]
    account: Any = SimpleNamespace(has_failed=failed)
    found = seeking.expected_frames(frames, np.arange(5, 9), 1 / RATE, account)
    if expected is None:
        with pytest.raises(Unexpected):
            list(found)
    else:
        assert len(list(found)) == expected


def test_frames_as_they_are_stored(made: Callable[[str], Path]) -> None:
    frames, _ = check(made("fields.ts"), [71], [(70, 2)], deinterlace=False)
    assert not torch.equal(frames[70], next(FileSource(made("fields.ts")).frames(70)))


def test_an_open_file(made: Callable[[str], Path]) -> None:
    with made("open.mp4").open("rb") as file:
        frames = list(FileSource(file).frames())
        one, other = FileSource(file).frames(60), FileSource(file).frames(75)
        for index in range(2):
            assert torch.equal(next(one), frames[60 + index])
            assert torch.equal(next(other), frames[75 + index])


@pytest.mark.parametrize("name", ["begun.ts", "joined.ts", "cut.mkv", "rotated.mp4"])
def test_odd_files(made: Callable[[str], Path], tmp_path: Path, decoded: list[int], name: str) -> None:
    path, data = tmp_path / name, made("pyramid.ts").read_bytes()
    if name == "begun.ts":  # within a group of pictures
        path.write_bytes(data[188 * 12 :])
    elif name == "joined.ts":  # whose clock starts again
        path.write_bytes(data + data)
    elif name == "cut.mkv":
        whole = made("closed.mkv").read_bytes()
        path.write_bytes(whole[: len(whole) * 9 // 10])
    else:
        with av.open(str(made("open.mp4"))) as read, av.open(str(path), "w") as written:
            stream = read.streams.video[0]
            copy: Any = written.add_stream_from_template(stream)
            copy.set_display_rotation(90)
            for packet in read.demux(stream):
                if packet.size:
                    packet.stream = copy
                    written.mux(packet)
    frames, kinds = check(path, [61, 71], [(60, 6)])
    assert kinds == {"packets"}
    decoded.clear()
    next(FileSource(path).frames(len(frames) - 15))
    assert sum(decoded) < 44


class TestDamage:
    @pytest.fixture(params=["open.mp4", "mpeg4.avi", "vp9.webm"])
    def path(self, made: Callable[[str], Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        def damage(number: int, data: bytes) -> bytes:
            return b"\xff" * len(data) if number in (66, 67) else data

        return remuxed(made(request.param), tmp_path / request.param, damage)

    def test_what_is_good_is_read(self, path: Path) -> None:
        _, kinds = check(path, [57, 65, 69, 81], [(63, 5)])
        assert kinds == {"frames"}

    def test_it_is_said_the_same(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        said = []
        for first in (0, 58):
            source = FileSource(path)
            list(source.frames(first))
            said.append((source.is_damaged, [line for line in caplog.messages if "missing" in line]))
            caplog.clear()
        assert said[0] == said[1]
        assert said[0][0]


def test_missing_frames_are_held(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = remuxed(made("closed.mkv"), tmp_path / "gap.mkv", lambda number, data: None if 72 <= number < 76 else data)
    check(path, [73, 75, 77], [(74, 1), (73, 6)])


def test_headers_that_change_under_way(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Another size from the middle on: what the file states at its begin is no longer what counts."""
    other = tmp_path / "other.ts"
    with av.open(str(other), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.options = {"x264-params": X264, "threads": "1"}
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), 99, np.uint8))))
        container.mux(stream.encode(None))
    path = tmp_path / "size.ts"
    path.write_bytes(made("pyramid.ts").read_bytes() + other.read_bytes())
    check(path, [77, 83, 131], [(80, 8), (130, 3)])


class TestOtherSources:
    def test_pictures(self, tmp_path: Path) -> None:
        frames = [torch.from_numpy(picture(index)[..., :3].astype(np.float32)) / 255.0 for index in range(4)]
        write_pictures(tmp_path / "pictures", frames)
        found, kinds = check(tmp_path / "pictures", [2], [(1, 2), (0, 9)])
        assert same(found, frames)
        assert kinds == {"frames"}

    @pytest.mark.parametrize("alpha", [False, True])
    def test_an_animation(self, tmp_path: Path, alpha: bool) -> None:
        path = clip(tmp_path / "animation.apng", "apng", {}, "rgba", 6)
        assert check(path, [3], [(2, 3)], alpha=alpha)[1] == {"frames"}


class TestParcels:
    @pytest.fixture
    def data(self, made: Callable[[str], Path]) -> bytes:
        return FileSource(made("open.mp4")).parcel(70, 4)

    def test_a_parcel_is_small(self, made: Callable[[str], Path], data: bytes) -> None:
        assert len(data) < made("open.mp4").stat().st_size // 2

    def test_other_frames_are_not_in_it(self, data: bytes) -> None:
        parcel = ParcelSource(data)
        assert len(list(parcel.frames(72))) == 2
        assert not list(parcel.frames(74))
        with pytest.raises(VideoError, match=r"The frame 75 is not in this parcel, which holds those from 70 to 73\."):
            next(parcel.frames(75))
        with pytest.raises(VideoError, match=r"The frame 69 is not in this parcel"):
            next(parcel.frames(69))

    def test_damaged_bytes_are_one_sentence(self, data: bytes) -> None:
        rng = random.Random(0)
        others = [b"", b"RIFF", data[:17], data[:-1], data + b"0", data[: len(data) // 2]]
        for _ in range(40):
            place = rng.randrange(len(data))
            others.append(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        for other in others:
            with pytest.raises(VideoError, match=r"^These bytes are no parcel of frames, or a damaged one \(.*\)"):
                ParcelSource(other)

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "pickle"}, {"first": -1}, {"count": 10**12}, {"ticks": [1]}, {"ticks": []}, {"places": None},
            {"blobs": [10**9]}, {"packets": []}, {"info": {}}, {"rate": "1/0"}, {"rate": "9" * 5000}, {"tick": "0"},
            {"end": 10**9}, {"order": "x"}, {"places": "text"}, {"name": 3}, {"size": [1 << 40, 2]},
            {"decoder": "no such"}, {"decoder": "aac"}, {"decoder": 7}, {"orientation": [9, 1]}, {"pix_fmt": "?"},
            {"numbers": {"width": -1}}, {"from_begin": 1, "codec": []},
        ],
        ids=str,
    )  # fmt: skip
    def test_absurd_headers_are_one_sentence(self, data: bytes, change: dict[str, Any]) -> None:
        header = header_of(data)
        text, body = json.dumps(header | change).encode(), data[-sum(header["blobs"]) :]
        head = parcels._HEAD.pack(len(text), len(body), zlib.crc32(text), zlib.crc32(body))
        with pytest.raises(VideoError) as error:
            list(ParcelSource(parcels._MAGIC + head + text + body).frames())
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)

    def test_frames_of_absurd_sizes(self, tmp_path: Path) -> None:
        said = {"frames": [{"again": False, "shape": [8, 8, 3], "values": "8"}]}
        write_pictures(tmp_path / "pictures", [torch.zeros(8, 8, 3)])
        info = FileSource(tmp_path / "pictures").info
        bomb = parcels.packed("frames", 0, 1, info, said, [zlib.compress(bytes(1 << 24))])
        with pytest.raises(VideoError, match="a frame has another size"):
            list(ParcelSource(bomb).frames())

    def test_an_open_file_is_packed(self, made: Callable[[str], Path], data: bytes) -> None:
        there = ParcelSource(FileSource(io.BytesIO(made("open.mp4").read_bytes())).parcel(70, 4))
        assert same(list(there.frames()), list(ParcelSource(data).frames()))

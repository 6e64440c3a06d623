"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import functools
import io
import os
import socket
import stat
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from torch import Tensor

from tests.patience import Patience
from tests.tiny import frames
from tlbvfi import files, video
from tlbvfi.files import atomic, atomic_folder
from tlbvfi.obstacles import unwritable
from tlbvfi.video import Encoding, File, VideoError

POSIX = pytest.mark.skipif(os.name == "nt", reason="files are otherwise there")
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes another user's place")


def test_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def interrupted() -> None:
        with atomic(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    with atomic(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_nobody_elses_file_is_in_the_way(tmp_path: Path) -> None:
    others = [tmp_path / "a.json.partial", tmp_path / ".a.partial.json"]
    for other in others:
        other.write_text("precious")
    with atomic(tmp_path / "a.json") as partial:
        partial.write_text("new")
    assert [other.read_text() for other in others] == ["precious"] * 2


def test_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 250}.json"
    assert unwritable(path) is None
    with atomic(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert "its name is not possible here" in str(unwritable(tmp_path / f"{'a' * 300}.json"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("before")
    link.symlink_to(target)
    with atomic(link) as partial:
        partial.write_text("after")
    assert link.is_symlink() and target.read_text() == "after"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert unwritable(pipe) is None
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with atomic(pipe) as file:
        file.write_text("through")
    Patience().joined(reader, "the end of the pipe")
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    assert "does not exist" in str(unwritable(tmp_path / "no" / "a"))
    if Path("/proc").is_dir():
        assert "nothing can be written into the folder /proc" in str(unwritable(Path("/proc/a.json")))
    assert unwritable(tmp_path / "a.json") is None
    assert list(tmp_path.iterdir()) == []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAtomic:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.ENOENT])
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_what_fails_at_the_end_is_one_sentence_and_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
    ) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(b"old")

        def fails(*_: object) -> None:
            raise OSError(code, os.strerror(code), "somewhere")

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            with pytest.raises(VideoError) as caught:
                video.write_picture(path, frames(1, 4, 4)[0])
        assert str(caught.value) == f"{path} cannot be written ({os.strerror(code)})."
        assert (names(tmp_path), path.read_bytes()) == (["a.png"], b"old")

    @POSIX
    @pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.gif", "pictures"])
    def test_what_fails_on_the_way(self, tmp_path: Path, name: str) -> None:
        path, given = tmp_path / name, frames(3, 32, 32)
        write = functools.partial(video.write_pictures, path, given)
        if path.suffix:
            write = functools.partial(video.write_video, path, given, Fraction(25))
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        try:
            with pytest.raises(VideoError, match=r"cannot be written \(File too large\)\."):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert names(tmp_path) == []

    def test_several_write_one_file_at_once(self, tmp_path: Path) -> None:
        path, together = tmp_path / "a.json", threading.Barrier(6)

        def write(text: str) -> None:
            with atomic(path) as partial:
                partial.write_text(text)
                together.wait(10)

        threads = [threading.Thread(target=write, args=(str(number) * 1000,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert path.read_text() in [str(number) * 1000 for number in range(6)]
        assert names(tmp_path) == ["a.json"]

    @POSIX
    def test_what_a_killed_run_left_is_removed_and_nothing_else(self, tmp_path: Path) -> None:
        left = [".a.0123456789ab.partial.json", ".a.ffffffffffff.partial.json"]
        kept = [".b.0123456789ab.partial.json", ".a.0123456789ab.partial.png", ".a.partial.json", ".a.x.partial.json",
                ".a.000000000000.partial.json", ".a.111111111111.partial.json"]  # fmt: skip
        for name in [*left[:1], *kept[:-1]]:
            (tmp_path / name).write_text("half")
        (tmp_path / left[1]).mkdir()
        (tmp_path / left[1] / "0.png").write_text("half")
        (tmp_path / kept[-1]).symlink_to(tmp_path / kept[0])
        lock = files._lock(tmp_path / kept[-2])  # another process is at it
        with atomic(tmp_path / "a.json") as partial:
            partial.write_text("new")
            with atomic(tmp_path / "a.json") as second:
                second.write_text("second")
            assert partial.read_text() == "new"
        assert lock is not None
        os.close(lock)
        assert names(tmp_path) == sorted([*kept, "a.json"])

    @POSIX
    def test_rights_are_the_usual_ones_or_those_of_what_is_replaced(self, tmp_path: Path) -> None:
        path, before = tmp_path / "a.json", os.umask(0o027)
        try:
            for mode in (0o640, 0o600, 0o755):
                with atomic(path) as partial:
                    assert stat.S_IMODE(partial.stat().st_mode) in (mode, mode & ~0o027)
                    partial.unlink()  # as some do who write it
                    partial.write_text("new")
                assert stat.S_IMODE(path.stat().st_mode) == mode
                path.chmod({0o640: 0o600, 0o600: 0o755}.get(mode, mode))
        finally:
            os.umask(before)

    @POSIX
    @pytest.mark.parametrize("size", [3, 3000])
    def test_a_file_that_is_mounted_by_itself_is_filled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        path = tmp_path / "a.json"
        path.write_text("before, a while")
        number = path.stat().st_ino

        def busy(*_: object) -> None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def write() -> None:
            with atomic(path) as partial:
                partial.write_text("x" * size)

        monkeypatch.setattr(os, "replace", busy)
        if size > 1000 and hasattr(os, "posix_fallocate"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "posix_fallocate", full)
                with pytest.raises(OSError, match="No space left"):
                    write()
            assert path.read_text() == "before, a while"
        write()
        assert (path.read_text(), path.stat().st_ino) == ("x" * size, number)
        assert names(tmp_path) == ["a.json"]

    @POSIX
    def test_a_pipe_from_which_nobody_reads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "_PATIENCE", 0.05)
        os.mkfifo(tmp_path / "a.mkv")
        with pytest.raises(VideoError, match=r"a\.mkv cannot be written \(no program reads from this pipe\)\."):
            video.write_video(tmp_path / "a.mkv", iter(frames(1, 16, 16)), Fraction(25))
        assert names(tmp_path) == ["a.mkv"]


@POSIX
class TestFolders:
    """An empty folder that is there, as a mounted one is, stays the same."""

    @pytest.fixture(params=["folder", "link", "."])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "folder").mkdir(0o700)
        (tmp_path / "link").symlink_to("folder")
        (tmp_path / "folder" / ".folder.0123456789ab.partial").mkdir()
        monkeypatch.chdir(tmp_path / "folder" if request.param == "." else tmp_path)
        return Path(request.param)

    def test_it_is_filled(self, folder: Path) -> None:
        before = folder.stat()
        video.check_target(folder)
        assert video.write_pictures(folder, iter(frames(3, 4, 4))) == 3
        assert names(folder) == [f"{number:08d}.png" for number in range(3)]
        after = folder.stat()
        assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
        with pytest.raises(VideoError, match="is not empty"):
            video.check_target(folder)

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupted"])
    def test_it_is_empty_again(self, folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        number, rename = folder.stat().st_ino, os.rename

        def given() -> Iterator[Tensor]:
            yield frames(1, 4, 4)[0]
            raise error

        def moved(source: Path, target: Path) -> None:
            if target.name == "00000002.png":
                raise error
            rename(source, target)

        with pytest.raises(type(error)):  # it is whoever makes the frames that it belongs to
            video.write_pictures(folder, given())
        assert names(folder) == []
        monkeypatch.setattr(os, "rename", moved)
        with pytest.raises((VideoError, KeyboardInterrupt)):
            video.write_pictures(folder, iter(frames(4, 4, 4)))
        assert (names(folder), folder.stat().st_ino) == ([], number)

    def test_what_another_put_there_meanwhile_stays(self, folder: Path) -> None:
        def write() -> None:
            with atomic_folder(folder) as partial:
                (partial / "a").write_text("ours")
                video.write_pictures(folder, iter(frames(1, 4, 4)))

        with pytest.raises(OSError, match="was empty and no longer is"):
            write()
        assert names(folder) == ["00000000.png"]


def test_two_that_make_one_folder(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "a") as partial:
            (partial / "a").write_text("ours")
            video.write_pictures(tmp_path / "a", iter(frames(1, 4, 4)))

    with pytest.raises(OSError, match="a"):
        write()
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["00000000.png"])


class TestTargets:
    @POSIX
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("loop.mkv", "symbolic links"),
            ("loop", "symbolic links"),
            ("a\0.mkv", "its name is not possible here"),
            ("socket.mkv", "it is a socket"),
            ("pipe.mp4", "through which no .mp4 goes"),
            ("pipe", "does not say which kind of video"),
            ("null", "does not say which kind of video"),
            ("full.mkv", "No space left on device"),
            ("source.mkv", "the source itself"),
            ("hard.mkv", "the source itself"),
            ("link.mkv", "the source itself"),
            ("pictures/../source.mkv", "the source itself"),
            ("pictures", "the source itself"),
            ("pictures/a.webp", "one of the pictures of the source"),
            ("pictures/other/../a.webp", "one of the pictures of the source"),
            ("source.mkv/a.mkv", "does not exist"),
            ("source.mkv/a", "does not exist"),
            ("dangling.mkv", "does not exist"),
        ],
    )
    def test_they_are_refused_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        source = tmp_path / ("pictures" if name.startswith("pictures") and "mkv" not in name else "source.mkv")
        (tmp_path / "pictures" / "other").mkdir(parents=True)
        (tmp_path / "pictures" / "0.png").write_bytes(b"")
        (tmp_path / "source.mkv").write_bytes(b"source")
        os.link(tmp_path / "source.mkv", tmp_path / "hard.mkv")
        links = {"link.mkv": "source.mkv", "loop.mkv": "loop.mkv", "loop": "l2", "l2": "loop", "null": "/dev/null",
                 "full.mkv": "/dev/full", "dangling.mkv": "nowhere/a.mkv"}  # fmt: skip
        for link, to in links.items():
            (tmp_path / link).symlink_to(to)
        for pipe in ("pipe", "pipe.mp4"):
            os.mkfifo(tmp_path / pipe)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.mkv")
            there = names(tmp_path)
            with pytest.raises(VideoError) as caught:
                video.check_target(tmp_path / name, source, force=True)
        assert said in str(caught.value) and str(caught.value).isprintable()
        assert names(tmp_path) == there

    @POSIX
    @pytest.mark.parametrize("name", ["null.mkv", "null.mp4", "null.gif"])
    def test_a_device_swallows_a_video_and_stays_one(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).symlink_to("/dev/null")
        video.check_target(tmp_path / name)
        assert video.write_video(tmp_path / name, iter(frames(3, 16, 16)), Fraction(25)) == 3
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and names(tmp_path) == [name]

    @AS_ROOT
    def test_another_user_s(self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path
        while not folder.name.startswith("pytest-of-"):
            folder.chmod(0o755)
            folder = folder.parent
        folder.chmod(0o755)
        (tmp_path / "sticky").mkdir()
        (tmp_path / "sticky").chmod(0o1777)
        (tmp_path / "shut").mkdir(0o755)
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        for name, mode in (("sticky/a.mkv", 0o666), ("open/a.mkv", 0o644), ("shut/a.mkv", 0o666)):
            (tmp_path / name).write_bytes(b"theirs")
            (tmp_path / name).chmod(mode)
        os.seteuid(65534)
        try:
            found = [unwritable(tmp_path / name) for name in ("sticky/a.mkv", "open/a.mkv", "shut/a.mkv", "shut/b.mkv")]
            assert unwritable(tmp_path / "sticky/b.mkv") is None
        finally:
            os.seteuid(0)
        belongs, protected, shut, new = map(str, found)
        assert "belongs to another user" in belongs and "protected against writing" in protected
        assert "nothing can be written into" in shut and "nothing can be written into" in new


@POSIX
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe.mkv", "is a pipe"),
        ("null.mkv", "is a device"),
        ("loop.mkv", "symbolic links"),
        ("a\0.mkv", "cannot be read"),
        ("pictures", "0.png is a pipe"),
        ("a\n\x1b[31m.mkv", "a\\n\\x1b[31m.mkv does not exist."),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "pictures").mkdir()
    for pipe in ("pipe.mkv", "pictures/0.png"):
        os.mkfifo(tmp_path / pipe)
    (tmp_path / "null.mkv").symlink_to("/dev/null")
    (tmp_path / "loop.mkv").symlink_to("loop.mkv")
    with pytest.raises(VideoError) as caught:
        video.probe(tmp_path / name)
    assert said in str(caught.value) and str(caught.value).isprintable()


def test_names_of_pictures(tmp_path: Path) -> None:
    """A digit that is no number, a pattern of FFmpeg's, numbers that are the same, a folder that is called like one."""
    levels = {"1.png": 10, "01.png": 20, "2.png": 30, "\u00b21.png": 40, "a%03d.png": 50, "a001.png": 60}
    for name, level in levels.items():
        video.write_picture(tmp_path / name, frames(1, 2, 2)[0] * 0 + level / 255)
    (tmp_path / "3.png").mkdir()
    found = [round(float(frame[0, 0, 0]) * 255) for frame in video.read_frames(tmp_path)]
    assert found == [20, 10, 30, 60, 50, 40]


def test_a_picture_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlbvfi import device_memory

    told = tmp_path / "meminfo"
    told.write_text("MemAvailable:   31 kB\n")
    monkeypatch.setattr(device_memory, "_MEMINFO", told)
    (tmp_path / "in").mkdir()
    video.write_picture(tmp_path / "in" / "0.png", frames(1, 32, 31)[0])
    assert video.probe(tmp_path / "in").width == 31
    video.write_picture(tmp_path / "in" / "0.png", frames(1, 32, 32)[0])
    with pytest.raises(VideoError, match=r"0\.png is a picture of 32x32, which takes"):
        video.probe(tmp_path / "in")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.1:{port}/a.m3u8\n",
        "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mkv\n",
        "ffconcat version 1.0\nfile tcp://127.0.0.1:{port}\n",
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=a\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 26\r\n",
    ],
    ids=["segments", "variants", "http", "tcp", "session"],
)
@pytest.mark.parametrize("name", ["list.m3u8", "list%d.mp4", None])
def test_a_list_of_files_does_not_reach_out(tmp_path: Path, text: str, name: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = text.format(port=server.getsockname()[1])
        file: File = io.BytesIO(text.encode())
        if name is not None:
            file = tmp_path / name
            file.write_text(text)
        server.setblocking(False)
        closing = threading.Timer(2, server.close)  # an end for what would wait for an answer
        closing.start()
        with pytest.raises(VideoError, match="is not a readable video"):
            video.probe(file)
        closing.cancel()
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_kind_of_a_file_that_is_there_says_nothing(tmp_path: Path) -> None:
    """A name of 255 bytes, and one whose suffix is long, have partial ones too."""
    for name in (f"{chr(0x1F600) * 60}.json", f"a.{'b' * 250}"):
        with atomic(tmp_path / name) as partial:
            partial.write_text("new")
        assert (tmp_path / name).read_text() == "new"
    video.write_video(tmp_path / "100%d.mkv", iter(frames(2, 16, 16)), Fraction(25), encoding=Encoding("ffv1"))
    assert len(list(video.read_frames(tmp_path / "100%d.mkv"))) == 2

"""The kinds of video files that can be written, and what each of them can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .pyav import File, VideoError, name_of

#: PCM in these files is allowed and played by few, and TrueHD is experimental.
_UNPLAYED_IN_MP4 = ("pcm_", "truehd", "mlp")


@dataclass(frozen=True)
class Container:
    """A kind of video file.

    Attributes:
        format: FFmpeg's name of it.
        codecs: that it takes here, by their names in :class:`.encoding.Encoding`; the first is what "auto" means.
        sound: encoder of a sound track that cannot be copied; empty where there is no sound.
        subtitles: encoder of text subtitles that cannot be copied; empty where there are none.
        refused: beginnings of the names of sound codecs that are not copied although FFmpeg would.
        is_iso: of the family of MP4.
        options: for FFmpeg.
    """

    format: str
    codecs: tuple[str, ...]
    sound: str
    subtitles: str
    refused: tuple[str, ...] = ()
    is_iso: bool = False
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_animation(self) -> bool:
        """Whether it holds pictures and nothing else."""
        return not self.sound


#: By suffix.
CONTAINERS = {
    ".mp4": Container("mp4", ("h264", "hevc", "av1", "vp9"), "aac", "mov_text", _UNPLAYED_IN_MP4, True),
    ".m4v": Container("ipod", ("h264",), "aac", "mov_text", _UNPLAYED_IN_MP4, True),
    ".mov": Container("mov", ("h264", "hevc", "prores"), "aac", "mov_text", ("truehd", "mlp", "opus", "flac"), True),
    ".mkv": Container("matroska", ("h264", "hevc", "av1", "vp9", "prores", "ffv1"), "flac", "subrip"),
    ".webm": Container("webm", ("vp9", "av1"), "libopus", "webvtt"),
    ".gif": Container("gif", ("gif",), "", ""),
    ".apng": Container("apng", ("apng",), "", "", options={"plays": "0"}),  # for ever
    ".webp": Container("webp", ("webp",), "", "", options={"loop": "0"}),
}
#: Pictures that can be read.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
#: Video files that can be written.
SUFFIXES = tuple(CONTAINERS)


def container_of(file: File, suffix: str | None = None) -> Container:
    """What kind of file `file` is to be, by `suffix` or its own.

    Raises:
        VideoError: none that can be written.
    """
    kind = suffix_of(file, suffix)
    if kind not in CONTAINERS:
        raise VideoError(f"{name_of(file)} is no kind of video that can be written ({', '.join(SUFFIXES)}).")
    return CONTAINERS[kind]


def suffix_of(file: File, suffix: str | None = None) -> str:
    """`suffix`, or the file's own, in small letters; empty for an open file that has none."""
    return (suffix or (file.suffix if isinstance(file, Path) else "")).lower()

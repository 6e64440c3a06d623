"""Video files and pictures with PyAV, one frame at a time, as (H, W, 3) float32 RGB tensors in [0, 1].

YUV becomes RGB and back here, in float32 from the samples as they are stored: matrix, range and depth are those
the file states. Where it states no matrix, BT.709 counts from 720 rows on and BT.601 below, as players do.
A written file appears whole or not at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from .files import unwritable, whole

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

#: Video files that can be written, and their encoders.
ENCODERS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
#: Pictures that can be read; those of a folder are a video without a frame rate.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
#: Pictures that can be written.
PICTURE_ENCODERS = {".png": ("png", "rgb24"), ".jpg": ("mjpeg", "yuvj444p"), ".jpeg": ("mjpeg", "yuvj444p")}
#: Constant quality of the encoders; lower is better and larger.
DEFAULT_CRF = 17

#: FFmpeg's formats that only name other files, or make a picture of any text.
_NO_VIDEO = ("concat", "dash", "hls", "imf", "tty")

_LIMITED, _FULL = 1, 2  # FFmpeg's AVColorRange
_BT709, _UNKNOWN, _BT601 = 1, 2, 6  # FFmpeg's AVColorSpace
#: (K_r, K_b) of the Y'CbCr matrices, by their numbers in ITU-T H.273, which FFmpeg uses.
_LUMA = {
    _BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    _BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_HD_ROWS = 720
# Chroma is resampled exactly the same on every machine; luma is not touched.
_BICUBIC, _FULL_CHROMA, _ACCURATE, _BITEXACT = 0x4, 0x2000 | 0x4000, 0x40000, 0x80000
_RESAMPLING = _BICUBIC | _FULL_CHROMA | _ACCURATE | _BITEXACT


class VideoError(ValueError):
    """A file that cannot be read or written as video. One sentence, naming the file."""


def _pyav() -> Any:
    try:
        import av
    except ImportError:
        raise VideoError("Reading and writing video needs PyAV, which is not installed: pip install av.") from None
    return av


@dataclass(frozen=True)
class Colour:
    """How RGB is stored as Y'CbCr; numbers as in ITU-T H.273.

    Attributes:
        matrix: one of those in ``_LUMA``.
        primaries, transfer: only carried along.
        full_range: black and white at the ends of the sample range instead of at 16 and 235 (of 255).
        bits: of a sample.
    """

    matrix: int
    primaries: int = _UNKNOWN
    transfer: int = _UNKNOWN
    full_range: bool = False
    bits: int = 8

    @staticmethod
    def usual(rows: int) -> Colour:
        """That of a video with so many rows which states nothing."""
        return Colour(_BT709 if rows >= _HD_ROWS else _BT601)

    @cached_property
    def _scales(self) -> tuple[float, float, float]:
        """Offset of Y, and the sample steps of Y from 0 to 1 and of Cb and Cr from -0.5 to 0.5."""
        if self.full_range:
            top = float(2**self.bits - 1)
            return 0.0, top, top
        unit = 2.0 ** (self.bits - 8)
        return 16 * unit, 219 * unit, 224 * unit

    def to_rgb(self, samples: Tensor) -> Tensor:
        """samples (3, H, W), integers: Y, Cb, Cr -> (H, W, 3) float32 in [0, 1]."""
        kr, kb = _LUMA[self.matrix]
        offset, luma, chroma = self._scales
        y, cb, cr = samples.float()
        y = (y - offset) / luma
        cb, cr = ((c - 2.0 ** (self.bits - 1)) / chroma for c in (cb, cr))
        r = y + 2 * (1 - kr) * cr
        b = y + 2 * (1 - kb) * cb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
        return torch.stack((r, g, b), dim=-1).clamp_(0.0, 1.0)

    def from_rgb(self, frame: Tensor) -> Tensor:
        """frame (H, W, 3) in [0, 1] -> (3, H, W) int32 samples Y, Cb, Cr."""
        kr, kb = _LUMA[self.matrix]
        offset, luma, chroma = self._scales
        r, g, b = frame.float().clamp(0.0, 1.0).unbind(-1)
        y = kr * r + (1 - kr - kb) * g + kb * b
        half = 2.0 ** (self.bits - 1)
        cb = (b - y) / (2 * (1 - kb)) * chroma + half
        cr = (r - y) / (2 * (1 - kr)) * chroma + half
        samples = torch.stack((y * luma + offset, cb, cr))
        return samples.round().clamp_(0, 2**self.bits - 1).int()


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as it will be read.

    Attributes:
        width, height: of the upright picture.
        fps: frames per second; None for a folder of pictures.
        frame_count: as the file says, or from its duration; may be off by a few, and None where nothing is known.
        duration: seconds that the frames are shown, None where it is unknown.
        sound: number of sound tracks.
        pixel_aspect: width to height of a pixel.
        colour: how it is stored, and how to store what belongs to it.
        quarter_turns: by which the stored picture is turned anticlockwise to be upright.
    """

    width: int
    height: int
    fps: Fraction | None
    frame_count: int | None
    duration: Fraction | None = None
    sound: int = 0
    pixel_aspect: Fraction = Fraction(1)
    colour: Colour = Colour(_BT601)
    quarter_turns: int = 0


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its main video stream."""
    av = _pyav()
    if not path.exists():
        raise VideoError(f"{path} does not exist.")
    if path.is_dir():
        raise VideoError(f"{path} is a folder, not a video.")
    try:
        # A playlist in the disguise of a video must not reach out.
        container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} is not a readable video ({_reason(error)}).") from None
    with container:
        if container.format.name in _NO_VIDEO:
            raise VideoError(f"{path} is not a readable video (it is text or a list of files).")
        stream = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{path} has no pictures in it.")
        yield container, stream


def _decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    av = _pyav()
    stream.thread_type = "AUTO"
    count = 0
    try:
        for frame in container.decode(stream):
            yield frame
            count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be decoded after frame {count} ({_reason(error)}).") from None


def probe(path: Path) -> VideoInfo:
    """What a video file, or a folder of pictures, is; its first frame is decoded.

    Raises:
        VideoError: it is missing, is no video, or its first frame cannot be decoded.
    """
    if path.is_dir():
        files = pictures_in(path)
        height, width, _ = read_picture(files[0]).shape
        return VideoInfo(width, height, None, len(files), colour=Colour.usual(height))
    if path.suffix.lower() in PICTURES:
        raise VideoError(f"{path} is a single picture; give a video or a folder of pictures.")
    with _opened(path) as (container, stream):
        fps = _frame_rate(stream)
        duration = None
        if stream.duration and stream.time_base:
            duration = stream.duration * stream.time_base
        elif container.duration:
            duration = Fraction(container.duration, 1_000_000)
        count = stream.frames or (round(duration * fps) if duration and fps else None)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        sound = len(container.streams.audio)
        first = next(_decoded(container, stream, path), None)
        if first is None:
            raise VideoError(f"{path} has no frame that can be decoded.")
        turns = _quarter_turns(first)
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        context = stream.codec_context
        stated = _colour_of(first)
        colour = Colour(
            stated.matrix if _is_yuv(first) else Colour.usual(first.height).matrix,
            int(context.color_primaries),
            int(context.color_trc),
            bits=10 if stated.bits > 8 else 8,
        )
        return VideoInfo(width, height, fps, count, duration, sound, 1 / aspect if turns % 2 else aspect, colour, turns)


def _frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second such that the frames take as long as they do in the file."""
    average, nominal = stream.average_rate, stream.guessed_rate
    if average and nominal and abs(average / nominal - 1) < Fraction(1, 1000):
        average = nominal  # 30000/1001 rather than 359/12, for a cut piece of such a video
    rate = Fraction(average or nominal or 0)
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    if stream.time_base == Fraction(1, 1000) and abs(rate - ntsc) < rate * Fraction(8, 10_000_000):
        return ntsc  # Matroska states whole nanoseconds
    return rate or None


def _quarter_turns(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _is_yuv(frame: VideoFrame) -> bool:
    parts = frame.format
    return (
        len(parts.components) >= 3
        and not parts.is_rgb
        and not parts.has_palette
        and frame.colorspace in _LUMA | {_UNKNOWN: None}
    )


def _colour_of(frame: VideoFrame) -> Colour:
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    known = int(frame.colorspace) if frame.colorspace in _LUMA else Colour.usual(frame.height).matrix
    return Colour(known, full_range=full, bits=frame.format.components[0].bits)


def _tensor(frame: VideoFrame) -> Tensor:
    """The upright picture of a decoded frame."""
    if _is_yuv(frame):
        colour = _colour_of(frame)
        name = f"yuv444p{colour.bits}le" if colour.bits > 8 else "yuvj444p" if colour.full_range else "yuv444p"
        rgb = colour.to_rgb(_samples(_resampled(frame, name, colour.full_range)))
    else:
        deep = frame.format.components[0].bits > 8
        array = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        rgb = torch.from_numpy(array.astype(np.float32)) / (65535.0 if deep else 255.0)
    turns = _quarter_turns(frame)
    return torch.rot90(rgb, turns, (0, 1)).contiguous() if turns else rgb


def _resampled(frame: VideoFrame, name: str, full_range: bool) -> VideoFrame:
    """The same samples with another chroma resolution."""
    span = _FULL if full_range else _LIMITED
    return frame.reformat(
        format=name,
        src_colorspace=_BT709,
        dst_colorspace=_BT709,
        src_color_range=span,
        dst_color_range=span,
        interpolation=_RESAMPLING,
    )


def _plane(frame: VideoFrame, index: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A view of one plane, (H, W)."""
    plane = frame.planes[index]
    depth = np.dtype("<u2") if frame.format.components[index].bits > 8 else np.dtype(np.uint8)
    rows = np.frombuffer(memoryview(plane), dtype=depth).reshape(plane.height, plane.line_size // depth.itemsize)
    return rows[:, : plane.width]


def _samples(frame: VideoFrame) -> Tensor:
    """(3, H, W) of a frame in a 4:4:4 format."""
    return torch.from_numpy(np.stack([_plane(frame, i) for i in range(3)]).astype(np.int32))


def read_frames(path: Path) -> Iterator[Tensor]:
    """The frames of a video file or a folder of pictures, in order and upright, decoded as they are asked for.

    Raises:
        VideoError: the file cannot be read, or not further.
    """
    if path.is_dir():
        yield from map(read_picture, pictures_in(path))
        return
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream, path):
            yield _tensor(frame)


def read_picture(path: Path) -> Tensor:
    """A picture file, (H, W, 3)."""
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream, path):
            return _tensor(frame)
    raise VideoError(f"{path} has no picture in it.")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, numbers in their names in numerical order.

    Raises:
        VideoError: there are none.
    """
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    if not files:
        raise VideoError(f"{folder} holds no pictures ({', '.join(PICTURES)}).")

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted(files, key=natural)


def check_target(path: Path, source: Path | None = None) -> None:
    """Raise VideoError where a video, or a folder of pictures if `path` has no suffix, cannot be written at `path`."""
    _pyav()
    if path.suffix and path.suffix.lower() not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise VideoError(f"{path} is no kind of video that can be written ({known}, or a folder for pictures).")
    if (reason := unwritable(path)) is not None:
        raise VideoError(f"{path} cannot be written, because {reason}.")
    if path.exists() and path.is_dir() == bool(path.suffix):
        raise VideoError(f"{path} is {'a folder' if path.is_dir() else 'a file'} already; choose another name.")
    if path.is_dir() and any(path.iterdir()):
        raise VideoError(f"The folder {path} is not empty; choose another.")
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise VideoError(f"{path} is the source itself; choose another name.")


def write_video(
    path: Path,
    frames: Iterable[Tensor],
    fps: Fraction,
    *,
    like: VideoInfo | None = None,
    sound_from: Path | None = None,
    crf: int = DEFAULT_CRF,
) -> int:
    """Encode frames as they come: H.264 (VP9 for .webm), 4:2:0, or 4:4:4 where a side is odd, which keeps the size.

    Args:
        frames: (H, W, 3) in [0, 1], all of one size.
        fps: frames per second, exact.
        like: the video they come from; its colours, depth and pixel aspect are kept.
        sound_from: a video whose sound goes along: copied where the new file's kind can hold it, else encoded anew.
        crf: constant quality of the encoder.

    Returns:
        The number of frames written.

    Raises:
        VideoError: the file cannot be written, or there are no frames. No file is left then.
    """
    av = _pyav()
    if path.suffix.lower() not in ENCODERS:
        raise VideoError(f"{path} is no kind of video that can be written ({', '.join(ENCODERS)}).")
    options = _container_options(path, fps)
    try:
        with whole(path) as partial, av.open(str(partial.absolute()), "w", options=options) as container:
            remaining = iter(frames)
            first = next(remaining, None)
            if first is None:
                raise VideoError(f"{path} was not written, because there are no frames.")
            encoder = _Encoder(container, ENCODERS[path.suffix.lower()], first, fps, like, crf, sound_from)
            try:
                encoder.add(first)
                del first
                for frame in remaining:
                    encoder.add(frame)
                encoder.finish()
            finally:
                encoder.close()
            count = encoder.count
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be written ({_reason(error)}).") from None
    return count


def _container_options(path: Path, fps: Fraction) -> dict[str, str]:
    """MP4 and MOV: the index first, for players that stream, and a clock on which frame times are whole numbers."""
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        return {}
    clock = fps.numerator
    while clock < 10_000:
        clock *= 2
    return {"movflags": "+faststart", "movie_timescale": str(clock)}


class _Encoder:
    """The streams of a file being written."""

    def __init__(
        self,
        container: OutputContainer,
        codec: str,
        first: Tensor,
        fps: Fraction,
        like: VideoInfo | None,
        crf: int,
        sound_from: Path | None,
    ) -> None:
        height, width, _ = first.shape
        self.container = container
        self.colour = like.colour if like is not None else Colour.usual(height)
        self.size = (height, width)
        self.time_base = 1 / fps
        self.count = 0
        self.stream = cast("VideoStream", container.add_stream(codec, rate=fps))
        context = self.stream.codec_context
        chroma = "420" if height % 2 == 0 and width % 2 == 0 else "444"
        depth = "" if self.colour.bits == 8 else f"{self.colour.bits}le"
        if f"yuv{chroma}p{depth}" not in [known.name for known in context.codec.video_formats or ()]:
            log.warning("%s does not encode %d bits here: the video gets 8.", codec, self.colour.bits)
            self.colour, depth = replace(self.colour, bits=8), ""
        context.width, context.height, context.pix_fmt = width, height, f"yuv{chroma}p{depth}"
        context.time_base = self.time_base
        context.framerate = fps
        context.options = {"crf": str(crf)}
        if codec == "libvpx-vp9":
            context.options |= {"b": "0", "row-mt": "1", "cpu-used": "3"}
        context.color_range = _LIMITED
        context.colorspace = self.colour.matrix
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer
        if like is not None and like.pixel_aspect != 1:
            context.sample_aspect_ratio = like.pixel_aspect
        self.sound = _Sound(sound_from, container) if sound_from is not None else None

    def add(self, picture: Tensor) -> None:
        """Encode the next frame, and pass the sound on that belongs before its end."""
        frame = self._frame(picture)
        frame.pts, frame.time_base = self.count, self.time_base
        self.count += 1
        self.container.mux(self.stream.encode(frame))
        if self.sound is not None:
            self.sound.mux_until(self.count * self.time_base)

    def finish(self) -> None:
        """What the encoder still holds, and the rest of the sound."""
        self.container.mux(self.stream.encode(None))
        if self.sound is not None:
            self.sound.mux_until(None)

    def close(self) -> None:
        if self.sound is not None:
            self.sound.close()

    def _frame(self, picture: Tensor) -> VideoFrame:
        av = _pyav()
        if tuple(picture.shape) != (*self.size, 3):
            found, wanted = "x".join(map(str, picture.shape)), "x".join(map(str, (*self.size, 3)))
            raise VideoError(f"A frame is {found} (rows, columns, colours) instead of {wanted}.")
        name = "yuv444p" if self.colour.bits == 8 else f"yuv444p{self.colour.bits}le"
        full = av.VideoFrame(self.size[1], self.size[0], name)
        for index, samples in enumerate(self.colour.from_rgb(picture.cpu()).numpy()):
            _plane(full, index)[:] = samples
        return _resampled(full, self.stream.codec_context.pix_fmt or name, False)


class _Sound:
    """The sound tracks of one file on their way into another, as far as the video has come."""

    def __init__(self, source: Path, target: OutputContainer) -> None:
        av = _pyav()
        self.target = target
        self.container = av.open(str(source.resolve()), options={"protocol_whitelist": "file"})
        video = self.container.streams.best("video")
        #: Where the video begins on the source's clock; it begins at 0 on the target's.
        self.start = (video.start_time or 0) * video.time_base if video is not None else Fraction(0)
        self.tracks: dict[int, AudioStream] = {}
        self.encoded: set[int] = set()
        fitting = target.supported_codecs
        for stream in self.container.streams.audio:
            if stream.codec_context is None:
                log.warning("%s: sound track %d is of an unknown kind and left out.", source.name, stream.index)
            elif stream.codec_context.name in fitting:
                self.tracks[stream.index] = target.add_stream_from_template(stream)
            else:
                codec = "libopus" if "libopus" in fitting and "aac" not in fitting else target.default_audio_codec
                rate = 48000 if codec == "libopus" else stream.codec_context.sample_rate
                self.tracks[stream.index] = cast("AudioStream", target.add_stream(codec, rate=rate))
                self.encoded.add(stream.index)
        wanted = [stream for stream in self.container.streams.audio if stream.index in self.tracks]
        self._packets = self.container.demux(wanted) if wanted else iter(())
        self._waiting: Packet[Any] | None = None

    def mux_until(self, time: Fraction | None) -> None:
        """Pass the packets on that begin before `time` (seconds from the start of the video; None: all)."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.pts is not None and packet.time_base and time is not None:
                begins = packet.pts * packet.time_base - self.start
                if begins >= time:
                    self._waiting = packet
                    return
            self._pass_on(packet)

    def _pass_on(self, packet: Packet[Any]) -> None:
        track = self.tracks[packet.stream.index]
        if packet.stream.index in self.encoded:
            for frame in cast("list[AudioFrame]", packet.decode()):
                if frame.pts is not None and frame.time_base:
                    frame.pts -= round(self.start / frame.time_base)
                self.target.mux(track.encode(frame))
            if packet.size == 0:  # the end of this track
                self.target.mux(track.encode(None))
            return
        if packet.dts is None:
            return
        shift = round(self.start / packet.time_base)
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        packet.stream = track
        self.target.mux(packet)

    def close(self) -> None:
        self.container.close()


def write_picture(path: Path, frame: Tensor) -> None:
    """Write a (H, W, 3) frame in [0, 1] as .png or .jpg.

    Raises:
        VideoError: another kind of file, or it cannot be written. No file is left then.
    """
    av = _pyav()
    if path.suffix.lower() not in PICTURE_ENCODERS:
        raise VideoError(f"{path} is no kind of picture that can be written ({', '.join(PICTURE_ENCODERS)}).")
    codec, name = PICTURE_ENCODERS[path.suffix.lower()]
    height, width, _ = frame.shape
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = width, height, name, Fraction(1)
    if name == "rgb24":
        array = (frame.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().contiguous().numpy()
        picture = av.VideoFrame.from_ndarray(array, format="rgb24")
    else:
        context.color_range = _FULL
        context.options = {"qmin": "2", "qmax": "2"}
        picture = av.VideoFrame(width, height, name)
        picture.color_range = _FULL
        for index, samples in enumerate(Colour(_BT601, full_range=True).from_rgb(frame.cpu()).numpy()):
            _plane(picture, index)[:] = samples
    picture.pts, picture.time_base = 0, Fraction(1)
    data = b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
    try:
        with whole(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise VideoError(f"{path} cannot be written ({_reason(error)}).") from None


def write_pictures(folder: Path, frames: Iterable[Tensor]) -> int:
    """Write frames as 00000000.png and so on into a new folder; returns their number.

    Raises:
        VideoError: they cannot be written, or there are none. No folder is left then.
    """
    count = 0
    try:
        with whole(folder) as partial:
            partial.mkdir()
            for frame in frames:
                write_picture(partial / f"{count:08d}.png", frame)
                count += 1
            if not count:
                raise VideoError(f"{folder} was not written, because there are no frames.")
            if folder.is_dir():
                folder.rmdir()
    except OSError as error:
        raise VideoError(f"{folder} cannot be written ({_reason(error)}).") from None
    return count


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")

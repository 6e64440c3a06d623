"""Which codec a video is written with, and how well."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .containers import CONTAINERS, Container
from .pyav import VideoError, import_av, reason

LOSSLESS = "ffv1"


@dataclass(frozen=True)
class Codec:
    """A codec, or one encoder of it.

    Attributes:
        family: the codec itself, by its name here; says which files hold it.
        encoder: FFmpeg's name of the encoder.
        worst: crf goes from `best` to this; None where the encoder has no quality to choose.
        default: crf where none is asked for; of all codecs about equally good to see.
        quality: name of the encoder's setting that is crf.
        options: further settings.
        is_hardware: whether it is there can only be found by trying.
        smallest: pixels that a side of the picture has at least.
    """

    family: str
    encoder: str
    worst: int | None
    default: int = 0
    best: int = 0
    quality: str = "crf"
    options: dict[str, str] = field(default_factory=dict)
    is_hardware: bool = False
    smallest: int = 1

    def check_size(self, height: int, width: int) -> None:
        """Raise VideoError where the encoder does not take pictures of this size."""
        if min(height, width) < self.smallest:
            raise VideoError(
                f"{self.encoder} writes beyond its memory with sides below {self.smallest} pixels, and the video is "
                f"{width}x{height}: choose another codec."
            )


def _hardware() -> dict[str, Codec]:
    """Encoders of graphics cards and the like, under FFmpeg's names."""
    families = {"h264": (51, 19), "hevc": (51, 21), "av1": (51, 24)}
    vendors = {
        "nvenc": ("cq", {"rc": "vbr", "b": "0", "preset": "p6"}),
        "qsv": ("global_quality", {"preset": "slower"}),
        "amf": ("qp_i", {"rc": "cqp", "quality": "quality"}),
        "videotoolbox": ("global_quality", {"flags": "+qscale"}),
    }
    return {
        f"{family}_{vendor}": Codec(family, f"{family}_{vendor}", worst, default, 1, quality, options, True)
        for vendor, (quality, options) in vendors.items()
        for family, (worst, default) in families.items()
        if (family, vendor) != ("av1", "videotoolbox")
    }


#: By the names that :class:`Encoding` takes.
CODECS = {
    "h264": Codec("h264", "libx264", 51, 17),
    "hevc": Codec("hevc", "libx265", 51, 19, smallest=64),
    "av1": Codec("av1", "libsvtav1", 63, 20, 1, options={"preset": "6"}),
    "vp9": Codec("vp9", "libvpx-vp9", 63, 17, options={"b": "0", "row-mt": "1", "cpu-used": "3"}),
    "prores": Codec("prores", "prores_ks", 51, 10, quality="profile", options={"vendor": "apl0"}),
    LOSSLESS: Codec("ffv1", "ffv1", None, options={"level": "3", "slicecrc": "1"}),
    "gif": Codec("gif", "gif", None),
    "apng": Codec("apng", "apng", None),
    "webp": Codec("webp", "libwebp_anim", 51, 8, quality="quality"),
    **_hardware(),
}
#: Codecs that are given RGB, and as what.
_RGB = {LOSSLESS: ("bgr0",), "apng": ("rgb24",), "webp": ("bgra",), "gif": ("rgb8",)}
#: Codecs that hold opacity, and the formats of it that they are given; of 8 bits a sample, and of more.
_ALPHA = {
    LOSSLESS: ("bgra", "gbrap{}le"), "apng": ("rgba", "rgba64be"), "webp": ("bgra", ""), "gif": ("", ""),
    "prores": ("", "yuva444p{}le"), "vp9": ("yuva420p", ""),
}  # fmt: skip
#: FFmpeg's numbers of the ProRes profiles of 4:2:2, and from which crf on each is taken; of 4:4:4 there is one.
_PRORES = ((30, "0"), (24, "1"), (18, "2"), (0, "3"))
_PRORES_4444 = "4"


@dataclass(frozen=True)
class Encoding:
    """How frames become a video.

    Attributes:
        codec: one of :data:`CODECS`; "auto" is the first that the kind of file takes.
        crf: constant quality, lower is better and larger; None is the codec's default. Encoders that have another
            scale are given what it means there.
        bits: of a sample; None is 8, or 10 where the source has more.
    """

    codec: str = "auto"
    crf: int | None = None
    bits: int | None = None

    def chosen(self, suffix: str) -> Codec:
        """The codec that goes into a file with this suffix, one of :data:`CONTAINERS`.

        Raises:
            VideoError: the codec, or this quality of it, cannot be.
        """
        container = CONTAINERS[suffix]
        if self.codec != "auto" and self.codec not in CODECS:
            raise VideoError(f"No codec is called {self.codec!r}; a {suffix} file takes {_listed(container)}.")
        name = container.codecs[0] if self.codec == "auto" else self.codec
        codec = CODECS[name]
        if codec.family not in container.codecs:
            kinds = ", ".join(s for s, c in CONTAINERS.items() if codec.family in c.codecs)
            raise VideoError(
                f"A {suffix} file does not take {name}, which goes into {kinds}; it takes {_listed(container)}."
            )
        if not _is_known(codec):
            raise VideoError(f"This PyAV has no encoder for {name}; a {suffix} file takes {_listed(container)}.")
        self._check_quality(name, codec)
        return codec

    def holds_alpha(self, suffix: str) -> bool:
        """Whether a file with this suffix, or a folder for pictures where it is empty, keeps what is transparent.

        Raises:
            VideoError: the codec, or this quality of it, cannot be.
        """
        if not suffix:
            return True
        family = self.chosen(suffix).family
        return family in _ALPHA and not (family == "vp9" and CONTAINERS[suffix].is_iso)

    def _check_quality(self, name: str, codec: Codec) -> None:
        if self.bits is not None and self.bits not in (8, 10, 12, 16):
            raise VideoError(f"A sample has 8, 10, 12 or 16 bits, not {self.bits}.")
        if self.crf is None:
            return
        if codec.worst is None:
            raise VideoError(f"{name} has no quality to choose: leave out crf {self.crf}.")
        if not codec.best <= self.crf <= codec.worst:
            raise VideoError(f"crf {self.crf} is not possible with {name}, which takes {codec.best} to {codec.worst}.")

    def options(self, codec: Codec, pixels: str) -> dict[str, str]:
        """The encoder's settings for frames of the pixel format `pixels`."""
        crf = codec.default if self.crf is None else self.crf
        options = dict(codec.options)
        if codec.worst is None:
            return options
        if codec.quality == "profile":
            value = _PRORES_4444 if "444" in pixels else next(p for least, p in _PRORES if crf >= least)
        elif codec.encoder.endswith("_videotoolbox"):  # 1 to 100, higher is better, in FFmpeg's steps of lambda
            value = str(118 * max(1, round(100 * (1 - crf / 51))))
        elif codec.quality == "quality":  # 0 to 100, higher is better
            value = str(round(100 * (1 - crf / 51)))
        else:
            value = str(crf)
        options[codec.quality] = value
        if codec.encoder.endswith("_amf"):
            options |= {"qp_p": value, "qp_b": value}
        if codec.encoder == "libx265":
            options["x265-params"] = "log-level=error"
        return options


def pixel_format(codec: Codec, bits: int, even: bool, alpha: bool = False) -> tuple[str, int]:
    """The format that the encoder is given, and its bits a sample, which may be fewer than asked for.

    Args:
        even: whether both sides are; 4:2:0 keeps the size only then.
        alpha: with opacity.
    """
    known = [found.name for found in import_av().Codec(codec.encoder, "w").video_formats or ()]
    for depth in sorted({bits, 16, 12, 10, 8}, key=lambda d: (d > bits, -d if d <= bits else d)):
        for name in _alpha_formats(codec, depth) if alpha else _formats(codec, depth, even):
            if name in known:
                return name, depth
    raise VideoError(f"{codec.encoder} takes no kind of picture that can be made here ({', '.join(known)}).")


def _formats(codec: Codec, bits: int, even: bool) -> list[str]:
    depth = "" if bits == 8 else f"{bits}le"
    if codec.family in _RGB:
        return list(_RGB[codec.family]) if bits == 8 else [f"gbrp{bits}le"]
    if codec.family == "prores":
        return [f"yuv422p{depth}" if even else f"yuv444p{depth}"]
    planar = [f"yuv420p{depth}", "nv12" if bits == 8 else f"p0{bits}le"]
    full = [f"yuv444p{depth}"]
    if codec.encoder == "libsvtav1":  # crops an odd side itself
        return planar
    return planar if even else full


def _alpha_formats(codec: Codec, bits: int) -> list[str]:
    few, many = _ALPHA.get(codec.family, ("", ""))
    return [few if bits == 8 else many.format(bits)]


def _is_known(codec: Codec) -> bool:
    """Whether this PyAV has the encoder."""
    av = import_av()
    try:
        av.Codec(codec.encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _listed(container: Container) -> str:
    """The codecs that can be written into such a file here with any hardware, for a sentence."""
    return ", ".join(name for name in container.codecs if _is_known(CODECS[name]))


def check_hardware(codec: Codec, suffix: str) -> None:
    """Raise VideoError where a hardware encoder does not start, because there is no such device or driver."""
    if not codec.is_hardware:
        return
    av = import_av()
    context = av.CodecContext.create(codec.encoder, "w")
    context.width, context.height, context.pix_fmt = 256, 256, pixel_format(codec, 8, True)[0]
    context.time_base = Fraction(1, 25)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f"{codec.encoder} does not start here ({reason(error)}); a {suffix} file also takes "
            f"{', '.join(CONTAINERS[suffix].codecs)}."
        ) from None

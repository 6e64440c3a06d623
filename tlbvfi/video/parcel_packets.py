"""Parcels of the packets from which frames are decoded, with what their decoder has to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from .damage import Account
from .excerpt import Excerpt
from .fitting import Fitting
from .interlaced import AS_FRAMES_SAY, BOTTOM_FIRST, TOP_FIRST, deinterlaced, order_of
from .orientation import UPRIGHT, Orientation
from .parcels import MOST_SIDE, Header, Parcel, fraction, packed, reading_parcel, size_from, whole
from .pyav import File, VideoError, decoded_with, decoder_of, import_av, name_of
from .reading import VideoInfo
from .samples import orientation_of, to_tensor
from .scan import Layout, Unexpected
from .seeking import decoded_from, expected_frames, layout_within, marked, sought_packets
from .side_data import side_data
from .slots import Slots
from .times import Times

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Packets after those that are needed, and frames after those that are wanted: for what looks ahead.
_MORE_PACKETS, _MORE_FRAMES = 2, 2
#: If more frames would have to be decoded first, those that are wanted are packed instead.
_LONGEST_RUN_UP = 1000
#: Frames of which it is looked at whether they come as they do from the file.
_COMPARED = 3
#: What a decoder is told, by the names of its attributes in PyAV; those that it does not know are left out.
_NUMBERS = (
    "width", "height", "bits_per_coded_sample", "color_range", "color_primaries", "color_trc", "colorspace",
    "field_order", "reorder_depth",
)  # fmt: skip
#: What of a frame is no sample.
_SEEN = ("pts", "width", "height", "colorspace", "color_range", "color_primaries", "color_trc", "interlaced_frame")
_LARGEST_TICK = 1 << 62


def pack_packets(
    file: File, excerpt: Excerpt, first: int, count: int, info: VideoInfo, *, deinterlace: bool, alpha: bool
) -> bytes | None:
    """The parcel of the frames [first, first + count) of an excerpt; None where it is not certain that packets are
    enough for them.

    Raises:
        VideoError: the file cannot be read.
    """
    found = layout_within(file, excerpt)
    if found is None:
        return None
    layout, (begin, end) = found
    begin, end = begin + first, min(end, begin + first + count)
    if begin >= end:
        return None
    wanted = layout.frame_at(begin)
    packet, frame = layout.access_before(wanted) or (0, 0)
    if wanted - frame > _LONGEST_RUN_UP:
        return None
    until = min(layout.frame_at(end - 1) + 1 + _MORE_FRAMES, len(layout.ticks))
    last = min(layout.packets_until(packet, frame, until) + _MORE_PACKETS, len(layout.scan.marks))
    said, blobs = _taken(file, layout, packet, last)
    if said is None:
        return None
    ticks, places = layout.ticks[frame:until], layout.places[frame:until]
    said |= {
        "name": name_of(file),
        "from_begin": packet == 0,
        "begin": begin,
        "end": end,
        "at_end": end >= layout.count,
        "rate": str(layout.times.rate),
        "ticks": ticks.tolist(),
        "places": places.tolist(),
        "size": [info.height, info.width],
        "deinterlace": deinterlace,
        "alpha": alpha,
    }
    try:
        orientation = _orientation(file, layout, packet, frame)
        said["orientation"] = [orientation.quarter_turns, orientation.mirrored]
        data = packed("packets", first, count, info, said, blobs)
        _check(file, layout, packet, frame, Parcel.opened(data), orientation)
    except (Unexpected, VideoError):
        return None
    return data


def _taken(file: File, layout: Layout, first: int, last: int) -> tuple[dict[str, Any] | None, list[bytes]]:
    """What is said of the packets [first, last), and their bytes; nothing where there is more to say."""
    packets: list[list[object]] = []
    blobs: list[bytes] = []
    with ExitStack() as stack:
        _, stream, source = sought_packets(stack, file, layout.scan, first)
        said = _decoder(stream)
        blobs.append(bytes(stream.codec_context.extradata or b""))
        try:
            for packet in islice(source, last - first):
                if not packet.size or packet.is_discard:
                    return None, []
                beside = _beside(packet)
                packets.append([packet.pts, packet.dts, packet.is_keyframe, [kind for kind, _ in beside]])
                blobs += [bytes(packet), *(data for _, data in beside)]
        except Unexpected:
            return None, []
        if decoder_of(stream) != stream.codec_context.name and not hasattr(import_av().Packet, "iter_sidedata"):
            return None, []  # its opacity comes beside its packets
    return {**said, "packets": packets}, blobs


def _beside(packet: Packet[Any]) -> list[tuple[str, bytes]]:
    """What comes with a packet beside its bytes."""
    each = getattr(packet, "iter_sidedata", None)  # not in older PyAV
    return [] if each is None else [(data.data_type, bytes(data)) for data in each()]


def _decoder(stream: VideoStream) -> dict[str, Any]:
    context: Any = stream.codec_context
    numbers = {name: getattr(context, name, None) for name in _NUMBERS}
    return {
        "decoder": decoder_of(stream),
        "codec": context.name,
        "tag": context.codec_tag,
        "pix_fmt": context.pix_fmt,
        "numbers": {name: int(number) for name, number in numbers.items() if number is not None},
        "order": order_of(stream),
        "tick": str(stream.time_base),
    }


def _context(said: Header, extradata: bytes) -> VideoCodecContext:
    """A decoder as a parcel describes it.

    Raises:
        VideoError: it is not known here.
    """
    av, name = import_av(), said["decoder"]
    try:
        codec = av.Codec(name, "r")
    except (ValueError, TypeError, UnicodeError):
        raise VideoError(f"The frames of {said['name']} need the decoder {name!r}, which PyAV lacks here.") from None
    if codec.type != "video":
        raise ValueError(f"{name!r} decodes no pictures")
    context = av.CodecContext.create(codec)
    if said["decoder"] != said["codec"]:
        return cast("VideoCodecContext", context)  # of its own, which the file tells nothing
    if extradata:
        context.extradata = extradata
    if isinstance(said["tag"], str) and len(said["tag"]) == 4:
        context.codec_tag = said["tag"]
    if said["pix_fmt"] is not None:
        context.pix_fmt = said["pix_fmt"]
    for attribute in _NUMBERS:
        if attribute in said["numbers"]:
            number = whole(said["numbers"][attribute], MOST_SIDE)
            with suppress(AttributeError):  # older PyAV does not set all of them
                setattr(context, attribute, number)
    return cast("VideoCodecContext", context)


def _packets(parcel: Parcel) -> Iterator[Packet[Any]]:
    """The packets of a parcel, and an empty one."""
    av, tick, blobs = import_av(), fraction(parcel.header["tick"]), iter(parcel.blobs[1:])
    for shown, due, is_key, beside in parcel.header["packets"]:
        data = bytes(next(blobs))
        packet = av.Packet(len(data))  # of FFmpeg's own memory, with some room after it, in which decoders look ahead
        packet.update(data)
        packet.pts, packet.dts, packet.time_base, packet.is_keyframe = shown, due, tick, bool(is_key)
        for kind in beside:
            data = bytes(next(blobs))
            side = av.packet.PacketSideData(av.packet.packet_sidedata_type_from_literal(kind), len(data))
            memoryview(side).cast("B")[:] = data
            packet.set_sidedata(side)
        yield packet
    last = av.Packet()
    last.time_base = tick
    yield last


def _stored(parcel: Parcel, account: Account) -> Iterator[VideoFrame]:
    """The frames of a parcel as they are stored.

    Raises:
        Unexpected: they are not those that should come.
    """
    said = parcel.header
    with reading_parcel():
        context, tick = _context(said, bytes(parcel.blobs[0])), fraction(said["tick"])
        packets = list(_packets(parcel))
    frames = decoded_with(context, packets, account)
    ticks = np.array(said["ticks"], np.int64)
    return expected_frames(frames, ticks, tick, account, from_begin=said["from_begin"] is True, is_part=True)


def unpack_packets(parcel: Parcel) -> Iterator[tuple[Tensor, bool]]:
    """The frames of a parcel, each with whether it is the one before once more.

    Raises:
        VideoError: it is damaged, or its frames cannot be decoded here.
    """
    said, name = parcel.header, parcel.header["name"]
    with reading_parcel():
        turns, mirrored = said["orientation"]
        orientation = Orientation(whole(turns, 3), mirrored is True)
        convert: Callable[[VideoFrame], Tensor] = partial(
            to_tensor, orientation=orientation, alpha=said["alpha"] is True
        )
        fitting = Fitting(name, size_from(said["size"]), convert)
        begin, end = whole(said["begin"]), whole(said["end"])
        times = _times(said)
    frames = _stored(parcel, Account())
    if said["deinterlace"]:
        frames = deinterlaced(frames, name, said["order"], said["codec"])
    placed = (frame for _, frame in times.in_slots(frames))
    skipped = begin - next(place for place in said["places"] if place >= 0)
    try:
        chosen = islice(marked(placed), skipped, skipped + end - begin)
        for index, (frame, again) in enumerate(chosen, parcel.first):
            yield fitting(frame), again and index > 0
    except Unexpected as error:
        raise VideoError(
            f"The frames of {name} cannot be decoded from a parcel here ({error}); read the file itself."
        ) from None


def _times(said: Header) -> Times:
    """When the frames of a parcel are shown, and where they stand."""
    tick, rate = fraction(said["tick"]), fraction(said["rate"])
    ticks, places = np.array(said["ticks"], np.int64), np.array(said["places"], np.int64)
    count = said["end"] if said["at_end"] else int(places.max()) + 1
    slots = Slots(rate, places, count, False)
    return Times(rate, Fraction(0), count=count, slots=slots, ticks=ticks, tick=tick)


def check_packets(parcel: Parcel) -> None:
    """Raise ValueError, KeyError or TypeError where a parcel's packets cannot be what it says."""
    said = parcel.header
    tick, rate = fraction(said["tick"]), fraction(said["rate"])
    if tick <= 0 or rate <= 0:
        raise ValueError("no rate")
    ticks, places = said["ticks"], said["places"]
    if len(ticks) != len(places) or not ticks or len(parcel.blobs) < 1:
        raise ValueError("frames are missing")
    for number in ticks:
        whole(number, _LARGEST_TICK, -_LARGEST_TICK)
    for number in places:
        whole(number, least=-1)
    standing = [place for place in places if place >= 0]
    if any(b <= a for a, b in zip(ticks, ticks[1:], strict=False)) or standing != sorted(set(standing)):
        raise ValueError("frames are not in order")
    begin, end = whole(said["begin"]), whole(said["end"])
    if not standing or not standing[0] <= begin < end <= begin + parcel.count:
        raise ValueError("frames are missing")
    sizes = 1
    for shown, due, _, beside in said["packets"]:
        for number in (shown, due):
            if number is not None:
                whole(number, _LARGEST_TICK, -_LARGEST_TICK)
        sizes += 1 + len(beside)
    if sizes != len(parcel.blobs) or said["order"] not in (AS_FRAMES_SAY, TOP_FIRST, BOTTOM_FIRST):
        raise ValueError("packets are missing")
    if not isinstance(said["name"], str) or not isinstance(said["codec"], str):
        raise ValueError("no name")


def _is_same(own: VideoFrame, other: VideoFrame, alpha: bool) -> bool:
    """Whether a frame of the parcel is that of the file."""
    if (
        any(getattr(own, name, None) != getattr(other, name, None) for name in _SEEN)
        or own.format.name != other.format.name
    ):
        return False
    return torch.equal(*(to_tensor(frame, UPRIGHT, alpha=alpha) for frame in (own, other)))


def _orientation(file: File, layout: Layout, packet: int, frame: int) -> Orientation:
    """How the pictures lie, by the first one that is decoded."""
    first = next(decoded_from(file, layout, packet, frame, Account()), None)
    if first is None:
        raise Unexpected("no frame comes")
    return orientation_of(first)


def _check(file: File, layout: Layout, packet: int, frame: int, parcel: Parcel, orientation: Orientation) -> None:
    """Raise Unexpected where the frames of a parcel are not decoded, or not as from the file."""
    from_file = decoded_from(file, layout, packet, frame, Account())
    for index, own in enumerate(_stored(parcel, Account())):
        if "DISPLAYMATRIX" in side_data(own) and orientation_of(own) != orientation:
            raise Unexpected("the pictures turn")
        if index < _COMPARED and not _is_same(own, next(from_file), parcel.header["alpha"]):
            raise Unexpected("a frame is another")

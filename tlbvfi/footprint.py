"""What a run takes of a device's memory: counted, by the model's own code on tensors without data."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import count
from typing import Any

import torch
from torch import Tensor

from .allocator import CachingAllocator, Event, is_small
from .bisection import Bisection
from .calls import Calls
from .config import ModelParams
from .counting import FusedAttention, Recording, channels_last
from .features import FrameFeatures
from .model import TLBVFI, convert_precision
from .padding import Padding
from .rows.cuts import Strips
from .rows.owned import Owned
from .rows.tuning import Tuning, tuned
from .settings import Settings
from .transfer import HostCopies, HostCopy, Offloaded

_META = torch.device("meta")
_MIB = 1 << 20
#: What the libraries allocate for good at their first use, at most: on a Hopper card cuBLAS and cuBLASLt take 32 MiB
#: each, on others 8 MiB.
LIBRARIES = 64 * _MIB
#: What cuDNN has beside a convolution's result while it runs: this, and copies of what is not channels last (of the
#: map, the weight and the result, where none of them is). It would like more in places, and goes without where there is
#: no room.
CONVOLUTION = 16 * _MIB
#: Of what a run reserves, what captured calls take besides: their memory is their own, and cuDNN's workspaces are as
#: large there as it likes.
CAPTURE_SLACK = 0.2
#: Of all large blocks, what is planned for besides: the order in which a card's memory comes and goes is known to a
#: convolution's workspace only.
SLACK = 0.02
#: The same in strips, whose blocks are of many sizes.
STRIP_SLACK = 0.12
#: Pixels of padded frames that are counted as they are: twice those of 4K.
COUNTED_PIXELS = 1 << 24
#: Steps of the bridge that are counted: what one takes is free again in the next.
_STEPS = 3
#: The stream whose memory is that of what lies apart.
_APART = 2
#: Draws of noise that are on the device together.
_DRAWS = 20


@dataclass(frozen=True)
class Way:
    """A way to go at a size.

    Attributes:
        params: the model's.
        padded: (height, width) that the model sees.
        dtype: the model's.
        flow_scale: as for :func:`tlbvfi.interpolate_frames`.
        strips: how its maps are cut.
        pairs: evaluated at a time.
        tuning: of the device.
        on_card: whether the device is one whose memory PyTorch's caching allocator has; it is the CPU otherwise.
        graphs: whether it can have CUDA graphs.
    """

    params: ModelParams
    padded: tuple[int, int]
    dtype: torch.dtype
    flow_scale: float
    strips: Strips
    pairs: int
    tuning: Tuning
    on_card: bool
    graphs: bool


@dataclass(frozen=True)
class Need:
    """What a way to go takes, in bytes, weights included.

    Attributes:
        live: the tensors that are alive at the peak.
        least: what the device has to have. On a card: what its allocator can be held to, as it gives back what it keeps
            unused before it fails. It keeps more where it may.
        captured: the same where the run is captured into CUDA graphs: what they use is kept, the features of a frame
            are there twice as they change places, and the libraries allocate again for the stream of the capture.
    """

    live: int
    least: int
    captured: int


class _Counted(TLBVFI):
    """The model as it is written, whatever somebody has put around its calls since, to watch them or to refuse some."""

    encode_empty, encode_frame, midpoint = TLBVFI.encode_empty, TLBVFI.encode_frame, TLBVFI.midpoint


@lru_cache(maxsize=8)
def meta_model(params: ModelParams, dtype: torch.dtype) -> TLBVFI:
    """A model without data, which is not to be changed."""
    with _META:
        return convert_precision(_Counted(params).finalize(), dtype)


def _weights(model: TLBVFI) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@lru_cache(maxsize=8)
def weight_bytes(params: ModelParams, dtype: torch.dtype) -> int:
    """Bytes of a model's weights and of what it derives from them."""
    return sum(t.numel() * t.element_size() for t in _weights(meta_model(params, dtype)))


@lru_cache(maxsize=256)
def need(way: Way) -> Need:
    """Count what a way to go takes; of more than :data:`COUNTED_PIXELS` what a part of them does, in proportion."""
    shrink = next(2**k for k in count() if way.padded[0] * way.padded[1] <= COUNTED_PIXELS * 4**k)
    if shrink > 1:
        return _in_proportion(way, shrink)
    events, features = _recorded(way)
    weights = weight_bytes(way.params, way.dtype)
    live = weights + _live_peak(events)
    if not way.on_card:
        return Need(live, live, live)
    loaded = [t.numel() * t.element_size() for t in _weights(meta_model(way.params, way.dtype))]
    kept = [Event(-2 - number, size) for number, size in enumerate([*loaded, LIBRARIES])]
    memory = _Memory(kept, events)
    small, large = (memory.of_size(small=small) for small in (True, False))
    few = small.reserved() or 0
    least = few + round(large.least() * (1 + (STRIP_SLACK if way.strips.frugal else SLACK)))
    captured = few + (large.reserved() or 0) + features + LIBRARIES
    return Need(live, least, round(captured * (1 + CAPTURE_SLACK)))


def _in_proportion(way: Way, shrink: int) -> Need:
    """What a way to go takes, by what it takes of frames whose sides are so much smaller."""
    multiple = way.params.autoencoder.multiple
    height, width = (max(side // shrink // multiple, 1) * multiple for side in way.padded)
    pixels = None if way.strips.pixels is None else max(way.strips.pixels // shrink, 1)
    part = need(replace(way, padded=(height, width), strips=replace(way.strips, pixels=pixels)))
    weights, share = weight_bytes(way.params, way.dtype), way.padded[0] * way.padded[1] / (height * width)
    live, least, captured = (
        weights + round((size - weights) * share) for size in (part.live, part.least, part.captured)
    )
    return Need(live, least, captured)


def _recorded(way: Way) -> tuple[list[Event], int]:
    """What comes and goes in a run's steady state, and the bytes of the features of its pairs' second frames."""
    model = meta_model(way.params, way.dtype)
    height, width = way.padded
    recording = Recording(_weights(model), _workspace if way.on_card else lambda *_: 0)
    with torch.no_grad(), tuned(way.tuning), FusedAttention(), recording:
        copies = _Copies(recording, (way.pairs, height, width, 3))
        padding = Padding((max(height - 1, 1), max(width - 1, 1)), way.padded)
        settings = Settings(flow_scale=way.flow_scale, sample_steps=_STEPS)
        bisection = Bisection(Calls(model, settings, padding, way.strips), copies, lambda _: None)
        bisection.empty = bisection.encode_empty()
        draws = torch.empty(_DRAWS, way.pairs, *model.latent_shape(height, width), device=_META)
        frames = torch.empty((), device="cpu").expand(way.pairs, *padding.size, 3)
        gaps, middle = range(way.pairs), Fraction(1, 2)
        left = bisection.encode(frames).take()
        if way.strips.frugal:
            waiting = left.offload(copies, apart=True)  # as the gap before leaves them
            del left
            right = bisection.encode(frames)
            features = _bytes(right.borrow())
            new = bisection.between(waiting, right, gaps, [middle / 2, middle, 3 * middle / 2])
            del waiting, right
            for _ in new:
                pass
            del new
        else:  # the most is there where more frames are wanted on both sides, and the middle one is encoded
            end = bisection.encode(frames).take()
            features = _bytes(end)
            if way.pairs > 1:
                left = FrameFeatures.cat([left[:1], end[:-1]])
            ends = Owned(left), Owned(end)
            del left, end
            bisection._halved(*ends, gaps, middle, begin_is_needed=True)
            del ends
        del draws, copies, bisection
    return recording.ended(), features


class _Copies(HostCopies):
    """Copies of a card whose host is a step ahead: what it copies is given up one step later than its references."""

    def __init__(self, recording: Recording, frames: tuple[int, ...]) -> None:
        super().__init__(_META)
        self._recording = recording
        self._arrived: deque[Tensor] = deque(maxlen=2)  # frames, and the noise of their pair
        self._leaving = torch.empty(frames, device=_META)

    def to_device(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        self._recording.stream = 1
        arrived = torch.empty(tensor.shape, dtype=tensor.dtype, device=_META)
        self._recording.stream = 0
        self._arrived.append(arrived)
        return arrived

    def apart(self, tensor: Tensor) -> Tensor:
        self._recording.stream = _APART
        place = torch.empty_like(tensor)
        self._recording.stream = 0
        return place.copy_(tensor)

    def to_host(self, tensor: Tensor) -> HostCopy:
        self._leaving = tensor.contiguous()
        return HostCopy(torch.empty(0))

    def offload(self, tensor: Tensor, apart: bool = False) -> Offloaded:
        return _Away(tensor, self._recording, _APART if apart else 0)


class _Away:
    """A tensor that is off its device."""

    def __init__(self, tensor: Tensor, recording: Recording, stream: int) -> None:
        """stream: whose memory it comes back to."""
        self._like = torch.empty(0, dtype=tensor.dtype, device="meta"), tuple(tensor.shape), tensor.stride()
        self._recording, self._stream = recording, stream

    def release(self) -> None:
        pass

    def restore(self) -> Tensor:
        like, shape, stride = self._like
        self._recording.stream = self._stream
        again = like.new_empty_strided(shape, stride)
        self._recording.stream = 0
        return again


def _bytes(features: FrameFeatures) -> int:
    """What the features take."""
    tensors = (features.image, features.flow_image, *features.pyramid, *features.flow_levels)
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t is not None}.values())


def _workspace(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """What cuDNN has beside a convolution's result."""
    if func is not torch.ops.aten.convolution.default:
        return 0
    last = channels_last(result)
    copied = [t for t in args[:2] if not (last and t.is_contiguous(memory_format=torch.channels_last))]
    return CONVOLUTION + sum(t.numel() * t.element_size() for t in (copied if last else [*copied, result]))


def _live_peak(events: list[Event]) -> int:
    """Bytes of the tensors that are alive at the peak."""
    sizes: dict[int, int] = {}
    now = peak = 0
    for event in events:
        if event.size:
            sizes[event.key] = event.size
            now += event.size
            peak = max(peak, now)
        else:
            now -= sizes.pop(event.key)
    return peak


@dataclass(frozen=True)
class _Memory:
    """What comes and goes: blocks that stay, and those of a run."""

    kept: list[Event]
    run: list[Event]

    def of_size(self, small: bool) -> _Memory:
        """The small blocks, or the others: the allocator has segments of their own for them."""
        chosen = {e.key for e in (*self.kept, *self.run) if e.size and is_small(e.size) == small}
        return _Memory([e for e in self.kept if e.key in chosen], [e for e in self.run if e.key in chosen])

    def reserved(self, limit: int | None = None) -> int | None:
        """What the allocator reserves for a run; None where that is more than the limit."""
        allocator = CachingAllocator(limit)
        return allocator.peak if allocator.replay(self.kept) and allocator.replay(self.run) else None

    def least(self) -> int:
        """The least limit within which the allocator gets along, to a hundredth."""
        most = self.reserved() or 0
        low = _live_peak([*self.kept, *self.run])
        while most - low > max(most // 100, 2 * _MIB):
            middle = (low + most) // 2
            reserved = self.reserved(middle)
            if reserved is None:
                low = middle
            else:
                most = reserved
        return most

"""TLBVFI: the whole inference, split into what belongs to a frame and what belongs to a pair of frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor, nn

from . import bridge
from .bridge import Noise, Schedule
from .config import ModelParams
from .modules.autoencoder import FLOW_LEVELS, VQGAN
from .modules.blocks import FRAMES, ClipConv, version_of
from .modules.maxvit import MBConv
from .modules.unet import UNet
from .modules.warp import resize
from .padding import flow_size
from .strips import WHOLE, Strips
from .transfer import Aside, HostCopies, kept_on_host

_EMPTY_FRAMES_KEPT = 4


@dataclass
class FrameFeatures:
    """What one frame contributes to every pair it is in. B frames at once; sides as the padding rule says.

    Attributes:
        image: (B, 3, H, W) float32 in [0, 1].
        flow_image: (B, 3, Hf, Wf) float32, the frame as the coarse flow takes it: in [0, 1] at flow scale 1,
            in [-1, 1] below (the published model's way).
        pyramid: feature levels 0..L, level k at 1 / 2**k; level 0 is None where nothing reads it.
        flow_pyramid: feature levels 0..3 at the flow size.
    """

    image: Tensor
    flow_image: Tensor
    pyramid: list[Tensor | None]
    flow_pyramid: list[Tensor | None]

    def __getitem__(self, which: slice) -> FrameFeatures:
        """Some of the B frames."""
        return self._each(lambda tensor: tensor[which])

    @staticmethod
    def cat(parts: Sequence[FrameFeatures]) -> FrameFeatures:
        """The frames of several, in order."""

        def joined(levels: Sequence[Tensor | None]) -> Tensor | None:
            present = [level for level in levels if level is not None]
            return torch.cat(present) if present else None

        return FrameFeatures(
            image=torch.cat([part.image for part in parts]),
            flow_image=torch.cat([part.flow_image for part in parts]),
            pyramid=[joined(levels) for levels in zip(*(part.pyramid for part in parts), strict=True)],
            flow_pyramid=[joined(levels) for levels in zip(*(part.flow_pyramid for part in parts), strict=True)],
        )

    def put_aside(self, copies: HostCopies) -> FeaturesAside:
        """Start putting the features aside, so that their memory on their device can be given up for a while."""
        parts: list[Aside] = []

        def begun(tensor: Tensor) -> Tensor:
            parts.append(copies.put_aside(tensor))
            return torch.tensor(len(parts) - 1)

        return FeaturesAside(self._each(begun), parts)

    def flow_levels(self) -> list[Tensor]:
        """The levels of :attr:`flow_pyramid`; empty once they are spent."""
        return [level for level in self.flow_pyramid if level is not None]

    def spend_flow(self) -> None:
        """Let go of what only the flow reads; the flow cannot be computed again."""
        self.flow_pyramid = [None] * len(self.flow_pyramid)
        self.pyramid[0] = None
        self.flow_image = self.image

    def _each(self, change: Callable[[Tensor], Tensor]) -> FrameFeatures:
        """Change every tensor, once where it serves in two places."""
        changed: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        return FrameFeatures(
            image=once(self.image),
            flow_image=once(self.flow_image),
            pyramid=[None if level is None else once(level) for level in self.pyramid],
            flow_pyramid=[None if level is None else once(level) for level in self.flow_pyramid],
        )


class FeaturesAside:
    """Features put aside (see :class:`.transfer.Aside`)."""

    def __init__(self, numbers: FrameFeatures, parts: list[Aside]) -> None:
        """numbers: in the place of each tensor, which of the parts it is."""
        self._numbers, self._parts = numbers, parts

    def let_go(self) -> None:
        """To be called before the features are given up."""
        for part in self._parts:
            part.let_go()

    def back(self) -> FrameFeatures:
        """The features again. To be called once."""
        return self._numbers._each(lambda number: self._parts[int(number)].back())


class TLBVFI(nn.Module):
    """Temporal-aware latent Brownian bridge for video frame interpolation (arXiv 2507.04984).

    Built empty here; :func:`tlbvfi.load_model` gives one with weights. Frames are RGB; sides are multiples of
    ``multiple``. Every method works for any batch, each element as if it were alone.
    """

    def __init__(self, params: ModelParams | None = None) -> None:
        super().__init__()
        self.params = params or ModelParams()
        self.vqgan = VQGAN(self.params.autoencoder)
        self.denoise_fn = UNet(self.params.autoencoder.z_channels, self.params.denoiser)
        self.schedule = Schedule(self.params.bridge)
        self._empty_frames: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    @property
    def multiple(self) -> int:
        """What H and W must be multiples of (see :mod:`tlbvfi.padding`)."""
        return self.params.autoencoder.multiple

    @property
    def device(self) -> torch.device:
        return self.vqgan.encoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the convolutions; the bridge keeps float32."""
        return self.vqgan.encoder.conv_in.weight.dtype

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(channels, frames, h, w) of one pair's latent for frames of height x width."""
        params = self.params.autoencoder
        return params.z_channels, FRAMES, height // params.downscale, width // params.downscale

    def finalize(self) -> TLBVFI:
        """Make a model with weights ready for inference: derived buffers, folded norms, layout, no gradients."""
        for module in self.modules():
            if isinstance(module, MBConv):
                module.fold_batch_norms()
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
            if isinstance(module, ClipConv):
                module.lay_out()
        _build_buffers(self)
        return self.eval().requires_grad_(False)

    def _check_frames(self, *frames: Tensor) -> None:
        shape = frames[0].shape
        for frame in frames:
            if frame.ndim != 4 or frame.shape[1] != 3:
                raise ValueError(f"Frames must be (B, 3, H, W), not {tuple(frame.shape)}.")
            if frame.shape != shape:
                raise ValueError(f"Both frames must have one shape, not {tuple(shape)} and {tuple(frame.shape)}.")
            if not frame.is_floating_point():
                raise ValueError(f"Frames must be floating point in [-1, 1], not {frame.dtype}.")
            if not frame.numel() or frame.shape[-2] % self.multiple or frame.shape[-1] % self.multiple:
                raise ValueError(
                    f"Height and width must be multiples of {self.multiple}, not {frame.shape[-2]}x{frame.shape[-1]}; "
                    "tlbvfi.padding_for(height, width) says how to pad."
                )

    def encode_frame(self, frame: Tensor, flow_scale: float = 0.5, strips: Strips | None = None) -> FrameFeatures:
        """Everything about a frame that does not depend on its partner.

        Args:
            frame: (B, 3, H, W) in [-1, 1].
            flow_scale: the flow is computed at this fraction of the size, within [0.1, 1].
            strips: how wide maps are cut, which changes rounding alone; by default they are not.
        """
        self._check_frames(frame)
        strips = strips or WHOLE
        encoder = self.vqgan.encoder
        height, width = frame.shape[-2:]
        size = flow_size(height, width, flow_scale)
        frame = frame.to(device=self.device, dtype=torch.float32)
        image = frame * 0.5 + 0.5
        same = size == (height, width)
        pyramid = encoder.pyramid(image, self.params.autoencoder.num_levels, strips, first=same)
        if same:
            # A flow scale near 1 may come to the same size; the range is that of every scale below 1 all the same.
            flow_image = image if flow_scale == 1.0 else frame
            return FrameFeatures(image, flow_image, pyramid, list(pyramid[:FLOW_LEVELS]))
        small = resize(frame, size)
        return FrameFeatures(image, small, pyramid, encoder.pyramid(small * 0.5 + 0.5, FLOW_LEVELS - 1, strips))

    def encode_empty(self, height: int, width: int, strips: Strips | None = None) -> Tensor:
        """Deepest features (1, C, h, w) of the empty middle frame (zeros in [-1, 1]), which depend on the size alone.

        The last few sizes are kept, on the host.
        """
        encoder = self.vqgan.encoder
        weights = [*encoder.conv_in.parameters(), *encoder.down.parameters()]
        if self.training or torch.is_grad_enabled() and any(w.requires_grad for w in weights):
            return self._encode_empty(height, width, strips)
        key = (height, width, self.dtype, *((id(w), version_of(w)) for w in weights))
        if key not in self._empty_frames:
            with torch.no_grad():
                self._empty_frames[key] = kept_on_host(self._encode_empty(height, width, strips))
            while len(self._empty_frames) > _EMPTY_FRAMES_KEPT:
                self._empty_frames.popitem(last=False)
        self._empty_frames.move_to_end(key)
        return self._empty_frames[key].to(self.device, non_blocking=self.device.type == "cuda")

    def _encode_empty(self, height: int, width: int, strips: Strips | None) -> Tensor:
        strips = strips or WHOLE
        grey = torch.full((1, 3, height, width), 0.5, device=self.device, dtype=torch.float32)
        deepest = self.vqgan.encoder.pyramid(grey, self.params.autoencoder.num_levels, strips, first=False)[-1]
        assert deepest is not None
        return deepest

    def midpoint(
        self,
        features0: FrameFeatures,
        features1: FrameFeatures,
        sample_steps: int | Sequence[int] = 10,
        noise: Noise = None,
        record: dict[str, Tensor] | None = None,
        strips: Strips | None = None,
        spent: tuple[bool, bool] = (False, False),
    ) -> Tensor:
        """The frame half-way between two encoded frames: (B, 3, H, W) float32 in [-1, 1].

        Args:
            features0, features1: from :meth:`encode_frame`, of one shape and flow scale.
            sample_steps: steps of the bridge, or their list.
            noise: sample_steps - 1 tensors (B, 3, 3, h, w) at the latent size, a generator, or None (torch's own).
            record: where given, receives the intermediates `latent`, `bridge`, `code_indices`, `coarse_flow`,
                `refined_flow` and `flow`.
            strips: as for :meth:`encode_frame`.
            spent: whether each frame's features serve nobody after this: they are let go as soon as they are read,
                and cannot be used again.
        """
        strips = strips or WHOLE
        timesteps = self.schedule.timesteps(sample_steps)
        vqgan = self.vqgan
        batch, _, height, width = features0.image.shape
        first, last = features0.pyramid[-1], features1.pyramid[-1]
        assert first is not None and last is not None
        empty = repeat(self.encode_empty(height, width, strips), "1 c h w -> b c h w", b=batch)
        latent = vqgan.latent((first, empty, last), features0.image, features1.image, strips)
        del first, last
        denoised = bridge.sample(self.denoise_fn, latent, self.schedule, timesteps, noise)
        indices = vqgan.quantize.code_indices(denoised)
        flows = vqgan.decoder.flows(
            (features0.flow_image, features1.flow_image),
            (features0.flow_levels(), features1.flow_levels()),
            (height, width),
            strips,
        )
        for features, done in zip((features0, features1), spent, strict=True):
            if done:
                features.spend_flow()
        if record is not None:
            record.update(latent=latent, bridge=denoised, code_indices=indices)
            record.update(coarse_flow=flows.coarse, refined_flow=flows.refined, flow=flows.full)
        flow = flows.full
        del flows
        output = vqgan.decoder(
            vqgan.decoder_input(vqgan.quantize.lookup(indices)),
            (features0.image, features1.image),
            (features0.pyramid, features1.pyramid),
            flow,
            strips,
            spent,
        )
        if torch.is_grad_enabled():
            return output * 2.0 - 1.0
        return output.mul_(2.0).sub_(1.0)

    @torch.no_grad()
    def sample(
        self,
        x0: Tensor,
        x1: Tensor,
        scale: float = 0.5,
        sample_steps: int | Sequence[int] = 10,
        noise: Noise = None,
    ) -> Tensor:
        """The frame half-way between x0 and x1, as the published model's `sample` for each pair alone.

        Args:
            x0, x1: (B, 3, H, W) in [-1, 1], sides multiples of :attr:`multiple`.
            scale: flow scale in [0.1, 1].
            sample_steps: number of steps of the bridge (>= 3), or an explicit list of timesteps.
            noise: see :meth:`midpoint`.

        Returns:
            (B, 3, H, W) float32 in [-1, 1].

        Raises:
            ValueError: shapes, sizes, flow scale or steps that the model does not take.
        """
        self._check_frames(x0, x1)
        self.schedule.timesteps(sample_steps)
        return self.midpoint(self.encode_frame(x0, scale), self.encode_frame(x1, scale), sample_steps, noise)

    def forward(self, x0: Tensor, x1: Tensor, scale: float = 0.5) -> Tensor:
        """:meth:`sample` with its defaults."""
        return self.sample(x0, x1, scale)


#: Networks whose weights stay float32 in a half-precision model: the latent and the choice of its codes.
FLOAT32_PARTS = ("denoise_fn.", "vqgan.quantize.", "vqgan.quant_conv.", "vqgan.post_quant_conv.")


#: What the convolutions may compute in.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ValueError, a sentence, for a dtype that the model is not made for."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float32, torch.float16 or torch.bfloat16, not {dtype!r}.")


def _build_buffers(model: TLBVFI) -> None:
    """Fill what modules derive from their weights, or from nothing (a model is built on ``meta`` and then filled)."""
    for module in model.modules():
        build = getattr(module, "build_buffers", None)
        if build is not None:
            build()


def convert_precision(model: TLBVFI, dtype: torch.dtype) -> TLBVFI:
    """Give the weights their dtype in place: `dtype`, but float32 for the parts that choose the codes."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name.startswith(FLOAT32_PARTS) else dtype)
    _build_buffers(model)
    return model

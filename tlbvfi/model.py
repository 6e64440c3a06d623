"""TLBVFI: the whole inference, split into what belongs to a frame and what belongs to a pair of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import torch
from einops import repeat
from torch import Tensor, nn

from . import bridge
from .bridge import Noise, Schedule
from .config import ModelParams
from .features import FrameFeatures, own_copy
from .finite import pass_on
from .kernels.images import resized
from .modules.autoencoder import FLOW_LEVELS, VQGAN, Flows
from .modules.blocks import FRAMES
from .modules.preparation import prepare
from .modules.unet import UNet
from .modules.warp import resize
from .padding import flow_size
from .rows.cuts import WHOLE, Strips
from .rows.owned import Owned
from .rows.tuning import Tuning


class TLBVFI(nn.Module):
    """Temporal-aware latent Brownian bridge for video frame interpolation (arXiv 2507.04984).

    Built empty here; :func:`tlbvfi.load_model` gives one with weights. Frames are RGB; sides are multiples of
    ``multiple``. Every method works for any batch, each element as if it were alone.
    """

    def __init__(self, params: ModelParams | None = None) -> None:
        super().__init__()
        self.params = params or ModelParams()
        self.vqgan = VQGAN(self.params.autoencoder)
        self.denoise_fn = UNet(
            self.params.autoencoder.z_channels, self.params.denoiser, self.params.bridge.num_timesteps
        )
        self.schedule = Schedule(self.params.bridge)

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
        """Make a model with weights ready for inference (:mod:`.modules.preparation`), without gradients."""
        prepare(self)
        return self.train(False).requires_grad_(False)

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
                    f"Width x height must be multiples of {self.multiple}, not {frame.shape[-1]}x{frame.shape[-2]}; "
                    "tlbvfi.padding_for(height, width) says how to pad."
                )

    def encode_frame(
        self, frame: Tensor, flow_scale: float = 0.5, strips: Strips | None = None, empty: Tensor | None = None
    ) -> FrameFeatures:
        """Everything about a frame that does not depend on its partner.

        Args:
            frame: (B, 3, H, W) in [-1, 1].
            flow_scale: the flow is computed at this fraction of the size, within [0.1, 1].
            strips: how wide maps are cut, which changes rounding alone; by default they are not.
            empty: from :meth:`encode_empty` for this size, to go with the features.
        """
        self._check_frames(frame)
        strips = strips or WHOLE
        encoder = self.vqgan.encoder
        height, width = frame.shape[-2:]
        size = flow_size(height, width, flow_scale)
        frame = frame.to(device=self.device, dtype=torch.float32)
        kernels = Tuning.of(frame.device).kernels

        def in_unit_range(frame: Tensor, size: tuple[int, int]) -> Tensor:
            """From [-1, 1] to [0, 1], and to a size."""
            if kernels:
                return resized(frame, size, (0.5, 0.5), 0.5)
            return resize(frame, size) * 0.5 + 0.5

        image = in_unit_range(frame, (height, width))
        same = size == (height, width)
        pyramid = encoder.pyramid(image, self.params.autoencoder.num_levels, strips, first=same)
        if same:
            # A flow scale near 1 may come to the same size; the range is that of every scale below 1 all the same.
            flow_image = image if flow_scale == 1.0 else frame
            return FrameFeatures(image, flow_image, pyramid, list(pyramid[:FLOW_LEVELS]), empty)
        small = resized(frame, size) if kernels else resize(frame, size)
        pyramid_at_size = encoder.pyramid(in_unit_range(small, size), FLOW_LEVELS - 1, strips)
        return FrameFeatures(image, small, pyramid, pyramid_at_size, empty)

    def encode_empty(self, height: int, width: int, strips: Strips | None = None) -> Tensor:
        """Deepest features (1, C, h, w) of the empty middle frame (zeros in [-1, 1]), which depend on the size alone.

        They have a gradient only where the encoder learns.
        """
        encoder, levels = self.vqgan.encoder, self.params.autoencoder.num_levels
        learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in encoder.parameters())
        grey = torch.full((1, 3, height, width), 0.5, device=self.device, dtype=torch.float32)
        with torch.set_grad_enabled(learns):
            deepest = encoder.pyramid(grey, levels, strips or WHOLE, first=False)[-1]
        assert deepest is not None
        return deepest

    def midpoint(
        self,
        features0: FrameFeatures | Owned[FrameFeatures],
        features1: FrameFeatures | Owned[FrameFeatures],
        sample_steps: int | Sequence[int] = 10,
        noise: Noise = None,
        record: dict[str, Tensor] | None = None,
        strips: Strips | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> Tensor:
        """The frame half-way between two encoded frames: (B, 3, H, W) float32 in [-1, 1].

        Composed of :meth:`latent`, :meth:`denoise`, :meth:`flows` and :meth:`decode`.

        Args:
            features0, features1: from :meth:`encode_frame`, of one shape and flow scale. Borrowed, or handed over
                (:class:`.rows.owned.Owned`): then they are freed level by level as they are read. Where neither holds
                what the empty frame gives (:meth:`encode_empty`), it is computed and left with both.
            sample_steps: steps of the bridge, or their list.
            noise: sample_steps - 1 tensors (B, 3, 3, h, w) at the latent size, a generator, or None (torch's own).
            record: where given, receives the intermediates `latent`, `bridge`, `code_indices`, `coarse_flow`,
                `refined_flow` and `flow`.
            strips: as for :meth:`encode_frame`.
            on_progress: where given, called between the steps with how much of the work is done, about, in (0, 1).
        """
        timesteps = self.schedule.timesteps(sample_steps)  # raises before any work
        # The latent, the flows and the picture count as a step of the bridge each.
        done = _counted(on_progress, len(timesteps) + 3)
        empty = self._empty_for(features0, features1, strips)
        first, last = own_copy(features0), own_copy(features1)
        images = first.image, last.image
        empty = repeat(empty, "1 c h w -> b c h w", b=len(first.image))
        latent = self.latent((first.deepest, empty, last.deepest), *images, strips)
        done()
        denoised = self.denoise(latent, sample_steps, noise, done)
        indices = self.vqgan.quantize.code_indices(denoised)
        flow = self._flow(first, last, strips, record)
        done()
        if record is not None:
            record.update(latent=latent, bridge=denoised, code_indices=indices)
        pyramids = first.pyramid, last.pyramid
        codes = pass_on(self.vqgan.quantize.lookup(indices), denoised, flow)
        return self.decode(codes, images, pyramids, flow, strips, signed=True)

    def latent(self, deepest: Sequence[Tensor], image0: Tensor, image1: Tensor, strips: Strips | None = None) -> Tensor:
        """The latent of a clip: (B, z_channels, 3, h, w) float32.

        Args:
            deepest: the deepest features of x0, of the frame between (the empty one, or the true one) and of x1,
                (B, C, h, w) each.
            image0, image1: (B, 3, H, W) in [0, 1].
            strips: as for :meth:`encode_frame`.
        """
        return self.vqgan.latent(deepest, image0, image1, strips or WHOLE)

    def denoise(
        self,
        latent: Tensor,
        sample_steps: int | Sequence[int] = 10,
        noise: Noise = None,
        after_step: Callable[[], object] | None = None,
    ) -> Tensor:
        """The bridge from the latent of (x0, nothing, x1) to that of (x0, the middle, x1): the same shape, float32.

        Args:
            latent: from :meth:`latent`.
            sample_steps, noise: as for :meth:`midpoint`.
            after_step: where given, called after every step.
        """
        timesteps = self.schedule.timesteps(sample_steps)

        def told(result: Tensor) -> Tensor:
            if after_step is not None:
                after_step()
            return result

        tuning, denoiser = Tuning.of(latent.device), self.denoise_fn
        latent = latent.contiguous()
        if tuning.kernels and denoiser.has_kernels(latent):
            embeddings = denoiser.embeddings(timesteps)

            def step(x: Tensor, number: int, factors: bridge.Factors, drawn: Tensor) -> Tensor:
                return told(denoiser.step(x, latent, embeddings[number], factors, drawn.contiguous()))
        elif tuning.few_operations and denoiser.knows_affines():
            affines = denoiser.affines(timesteps)

            def step(x: Tensor, number: int, factors: bridge.Factors, drawn: Tensor) -> Tensor:
                return told(denoiser.plain_step(x, latent, affines[number], factors, drawn))
        else:
            return bridge.sample(lambda *state: told(denoiser(*state)), latent, self.schedule, timesteps, noise)
        return bridge.sample_by(step, latent, self.schedule, timesteps, noise)

    def flows(self, features0: FrameFeatures, features1: FrameFeatures, strips: Strips | None = None) -> Flows:
        """The flows from the middle frame to two encoded frames (see :mod:`.modules.flow`)."""
        return self.vqgan.decoder.flows(
            (features0.flow_image, features1.flow_image),
            (features0.flow_levels, features1.flow_levels),
            (features0.image, features1.image),
            strips or WHOLE,
        )

    def decode(
        self,
        codes: Tensor,
        images: tuple[Tensor, Tensor],
        pyramids: tuple[list[Tensor | None], list[Tensor | None]],
        flow: Tensor,
        strips: Strips | None = None,
        signed: bool = False,
    ) -> Tensor:
        """The middle frame (B, 3, H, W) float32 in [0, 1], or [-1, 1] where `signed`.

        Args:
            codes: (B, z_channels, 3, h, w), of the codebook.
            images: the two frames (B, 3, H, W) in [0, 1].
            pyramids: their feature levels. The lists are emptied, so that a level is freed where nobody else has it.
            flow: (B, 4, H, W) at the frames' size.
            strips: as for :meth:`encode_frame`.
            signed: give it in [-1, 1].
        """
        codes = self.vqgan.decoder_input(codes)
        return self.vqgan.decoder(codes, images, pyramids, flow, strips or WHOLE, signed)

    def _empty_for(
        self,
        features0: FrameFeatures | Owned[FrameFeatures],
        features1: FrameFeatures | Owned[FrameFeatures],
        strips: Strips | None,
    ) -> Tensor:
        """What the empty frame gives at the features' size: theirs, or computed and left with both."""
        ends = [end.borrow() if isinstance(end, Owned) else end for end in (features0, features1)]
        empty = next((end.empty for end in ends if end.empty is not None), None)
        if empty is None:
            empty = self.encode_empty(ends[0].image.shape[-2], ends[0].image.shape[-1], strips)
        for end in ends:
            end.empty = empty
        return empty

    def _flow(
        self, first: FrameFeatures, last: FrameFeatures, strips: Strips | None, record: dict[str, Tensor] | None
    ) -> Tensor:
        """The flow at the frames' size; what it alone reads is dropped from the features."""
        flows = self.flows(first, last, strips)
        for own in (first, last):
            own.release_flow()
        if record is not None:
            record.update(coarse_flow=flows.coarse, refined_flow=flows.refined, flow=flows.full)
        return flows.full

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


def _counted(listener: Callable[[float], object] | None, parts: int) -> Callable[[], None]:
    """Tells the listener, at each call, that one more of so many parts is done."""
    numbers = count(1)

    def done() -> None:
        if listener is not None:
            listener(next(numbers) / parts)

    return done


#: Networks whose weights stay float32 in a half-precision model: the latent and the choice of its codes.
FLOAT32_PARTS = ("denoise_fn.", "vqgan.quantize.", "vqgan.quant_conv.", "vqgan.post_quant_conv.")


#: What the convolutions may compute in.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ValueError, a sentence, for a dtype that the model is not made for."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float32, torch.float16 or torch.bfloat16, not {dtype!r}.")


def convert_precision(model: TLBVFI, dtype: torch.dtype) -> TLBVFI:
    """Give the weights their dtype in place: `dtype`, but float32 for the parts that choose the codes."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name.startswith(FLOAT32_PARTS) else dtype)
    prepare(model)
    return model

"""Frozen parameter sets of the networks, read from the YAML files of ``configs/``.

The defaults are the published model. Unknown keys, missing sections and wrong types are errors:
a misspelt option must not be silently ignored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

#: ``configs/`` beside the package in a checkout, inside it in an installed wheel.
CONFIG_DIRS = (Path(__file__).resolve().parent / "configs", Path(__file__).resolve().parent.parent / "configs")
#: The folder of presets inside of it.
PRESETS = "presets"


@dataclass(frozen=True)
class AutoencoderParams:
    """Widths of the VQGAN autoencoder with its flow networks (paper section 3.2).

    ``ch * ch_mult[i]`` is the width of level i; level i works at 1 / 2**i of the frame's size,
    and the latent at 1 / 2**len(ch_mult).
    """

    ch: int = 64
    ch_mult: tuple[int, ...] = (1, 2, 2, 2, 4)
    z_channels: int = 3
    n_embed: int = 8192
    norm_groups: int = 4
    window: int = 8
    flow_widths: tuple[int, ...] = (240, 150, 90)
    head_widths: tuple[int, int] = (64, 32)
    head_norm_groups: tuple[int, int] = (16, 8)

    @property
    def num_levels(self) -> int:
        return len(self.ch_mult)

    @property
    def widths(self) -> tuple[int, ...]:
        """Output width of each encoder level."""
        return tuple(self.ch * mult for mult in self.ch_mult)

    @property
    def pyramid_widths(self) -> tuple[int, ...]:
        """Widths of the feature pyramid, level 0 (frame size) to level ``num_levels`` (latent size)."""
        return (self.ch, *self.widths)

    @property
    def downscale(self) -> int:
        """Frame pixels per latent pixel, along one axis."""
        return 2**self.num_levels

    @property
    def multiple(self) -> int:
        """What the sides of a frame must be a multiple of: a whole window at the latent size."""
        return self.window * self.downscale


@dataclass(frozen=True)
class DenoiserParams:
    """The 3-D UNet of the bridge (paper section 3.3)."""

    model_channels: int = 32
    channel_mult: tuple[int, ...] = (1, 1, 1)
    num_res_blocks: int = 1
    attention_downsampling: tuple[int, ...] = (2, 4)
    norm_groups: int = 32


@dataclass(frozen=True)
class BridgeParams:
    """The Brownian bridge's schedule: T timesteps, variance 2 (m - m^2) max_var."""

    num_timesteps: int = 1000
    max_var: float = 1.0


@dataclass(frozen=True)
class ModelParams:
    """Everything that fixes the networks of a TLBVFI."""

    autoencoder: AutoencoderParams = field(default_factory=AutoencoderParams)
    denoiser: DenoiserParams = field(default_factory=DenoiserParams)
    bridge: BridgeParams = field(default_factory=BridgeParams)

    def __post_init__(self) -> None:
        deepest = 2 ** (len(self.denoiser.channel_mult) - 1)
        if self.autoencoder.window % deepest:
            raise ValueError(f"window must be a multiple of {deepest}, by which the denoiser shrinks the latent.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def params_from_dict(values: dict[str, Any], origin: str = "config") -> ModelParams:
    """Build :class:`ModelParams`, filling what is absent with the published model's values.

    Raises:
        ValueError: an unknown key or a value of the wrong type, named together with `origin`.
    """
    try:
        schema = OmegaConf.structured(ModelParams)
        for part in (schema, *(schema[section.name] for section in fields(ModelParams))):
            OmegaConf.set_readonly(part, False)  # OmegaConf before 2.4 takes frozen for this
        params = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(values)))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{origin} does not describe a TLBVFI model: {first_line}") from None
    assert isinstance(params, ModelParams)
    return _with_tuples(params)


def _with_tuples(params: ModelParams) -> ModelParams:
    """OmegaConf gives lists for tuples; the parameter sets are hashable."""

    def rebuild(section: Any) -> Any:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in vars(section).items()}
        return type(section)(**values)

    return ModelParams(rebuild(params.autoencoder), rebuild(params.denoiser), rebuild(params.bridge))


def config_path(name: str) -> Path:
    """The YAML file of a named configuration.

    Raises:
        ValueError: there is no such configuration; the sentence lists those that exist.
    """
    known: set[str] = set()
    for folder in CONFIG_DIRS:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
        known.update(p.stem for p in folder.glob("*.yaml"))
    raise ValueError(f"There is no configuration named {name!r}; known: {', '.join(sorted(known)) or 'none'}.")


def preset_names() -> list[str]:
    """The presets of settings that there are, by name (see :mod:`.settings`)."""
    return sorted({path.stem for folder in CONFIG_DIRS for path in (folder / PRESETS).glob("*.yaml")})


def preset_path(name: str) -> Path:
    """The YAML file of a preset.

    Raises:
        ValueError: there is no such preset; the sentence lists those that exist.
    """
    for folder in CONFIG_DIRS:
        path = folder / PRESETS / f"{name}.yaml"
        if name in preset_names() and path.is_file():
            return path
    raise ValueError(f"There is no preset named {name!r}; known: {', '.join(preset_names()) or 'none'}.")


def load_params(name: str) -> ModelParams:
    """The parameters of a named configuration, such as ``"vimeo_unet"``."""
    path = config_path(name)
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} must hold sections, not {type(values).__name__}.")
    return params_from_dict({str(k): v for k, v in values.items()}, path.name)

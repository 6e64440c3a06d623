"""Frozen parameter sets of the networks, read from the YAML files of ``configs/`` and from weight files.

The defaults are the published model. Unknown keys, missing sections, wrong types and values out of range are errors:
a misspelt option must not be silently ignored, and a stranger's file must not build what it does not hold. Values are
plain data: nothing in them is ever resolved.
"""

from __future__ import annotations

import io
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from .quoting import quoted, sentence
from .ranges import MIN_STEPS

#: ``configs/`` beside the package in a checkout, inside it in an installed wheel.
CONFIG_DIRS = (Path(__file__).resolve().parent / "configs", Path(__file__).resolve().parent.parent / "configs")
#: The folder of presets inside of it.
PRESETS = "presets"
#: Bytes that a file of ``configs/`` may have.
_LONGEST_FILE = 1 << 16

T = TypeVar("T")


def _between(default: T, lowest: float, highest: float, count: tuple[int, int] = (1, 1)) -> T:
    """A field with that default. Files may say what lies between the two, and that often, where it is several."""
    made: T = field(default=default, metadata={"limits": (lowest, highest), "count": count})
    return made


@dataclass(frozen=True)
class AutoencoderParams:
    """Widths of the VQGAN autoencoder with its flow networks (paper section 3.2).

    ``ch * ch_mult[i]`` is the width of level i; level i works at 1 / 2**i of the frame's size,
    and the latent at 1 / 2**len(ch_mult).
    """

    ch: int = _between(64, 1, 1024)
    # The wavelet branch and the flows are made for five levels.
    ch_mult: tuple[int, ...] = _between((1, 2, 2, 2, 4), 1, 64, (5, 5))
    z_channels: int = _between(3, 1, 64)
    n_embed: int = _between(8192, 1, 1 << 18)
    norm_groups: int = _between(4, 1, 1024)
    # What is kept of a window's positions, and no file holds, grows with its fourth power.
    window: int = _between(8, 1, 16)
    flow_widths: tuple[int, ...] = _between((240, 150, 90), 2, 4096, (3, 3))
    # Shorter side, at least, of the smallest frames that the coarse flow is estimated from; 0 for none but those of the
    # flow's size (see modules/flow.py).
    flow_start: int = _between(0, 0, 1024)
    # At how many sizes of the frames, from the smallest on, it is estimated anew.
    flow_sizes: int = _between(1, 1, 4)
    # How often its last scale works at each size below the flow's.
    flow_turns: int = _between(1, 1, 8)
    # How many levels of the pyramid correct it, the last of them at the flow's size where there are four.
    flow_levels: int = _between(4, 1, 4)
    # 1 where a flow found in smaller frames is gone over at the frames' own size (see modules/flow.py).
    fine_flow: int = _between(0, 0, 1)
    # How many steps then align the frames along it (see modules/alignment.py).
    flow_alignments: int = _between(0, 0, 8)
    head_widths: tuple[int, int] = _between((64, 32), 1, 4096, (2, 2))
    head_norm_groups: tuple[int, int] = _between((16, 8), 1, 1024, (2, 2))
    # How the frames are sampled for the new one: 0 bilinearly, 1 by cubic convolution (see modules/warp.py).
    cubic: float = _between(0.0, 0.0, 1.0)
    # How much, of 1, two frames may differ where something stands still (see modules/stills.py); 0 for not to look.
    still_within: float = _between(0.0, 0.0, 0.25)
    # Share of their difference from which on two frames are cross-faded, where the flow leaves as much of it (see
    # modules/cross_fade.py); 0 for never.
    fade_from: float = _between(0.0, 0.0, 1.0)
    # Widths of the network that says where the mean of the frames is nearer than what lies along the flow (see
    # modules/trust.py); none for no such network.
    trust_widths: tuple[int, ...] = _between((), 1, 512, (0, 3))

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

    model_channels: int = _between(32, 2, 1024)
    channel_mult: tuple[int, ...] = _between((1, 1, 1), 1, 64, (1, 5))
    num_res_blocks: int = _between(1, 1, 8)
    attention_downsampling: tuple[int, ...] = _between((2, 4), 1, 16, (0, 5))
    norm_groups: int = _between(32, 1, 1024)


@dataclass(frozen=True)
class BridgeParams:
    """The Brownian bridge's schedule: T timesteps, variance 2 (m - m^2) max_var."""

    num_timesteps: int = _between(1000, MIN_STEPS, 10_000)
    max_var: float = _between(1.0, 0.001, 1000.0)


@dataclass(frozen=True)
class ModelParams:
    """Everything that fixes the networks of a TLBVFI."""

    autoencoder: AutoencoderParams = field(default_factory=AutoencoderParams)
    denoiser: DenoiserParams = field(default_factory=DenoiserParams)
    bridge: BridgeParams = field(default_factory=BridgeParams)

    def __post_init__(self) -> None:
        if self.denoiser.model_channels % 2:
            raise ValueError(f"model_channels must be even, not {self.denoiser.model_channels}.")
        deepest = 2 ** (len(self.denoiser.channel_mult) - 1)
        if self.autoencoder.window % deepest:
            raise ValueError(f"window must be a multiple of {deepest}, by which the denoiser shrinks the latent.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def params_from_dict(values: object, origin: str = "config") -> ModelParams:
    """Build :class:`ModelParams`, filling what is absent with the published model's values.

    Raises:
        ValueError: an unknown key, or a value of the wrong type or out of range, named together with `origin`.
    """
    try:
        sections = {part.name: part.default_factory for part in fields(ModelParams)}
        found = _known(values, set(sections), "it")
        return ModelParams(**{name: _section(sections[name], part, name) for name, part in found.items()})
    except ValueError as error:
        raise ValueError(f"{sentence(origin, 100)} does not describe a TLBVFI model: {error}") from None


def _known(values: object, known: set[str], what: str) -> dict[Any, Any]:
    """The values, if they are a dictionary of no other keys."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} must be a section of {', '.join(sorted(known))}, not {quoted(values)}.")
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"{what} has no {quoted(unknown[0])}, but {', '.join(sorted(known))}.")
    return values


def _section(kind: Any, values: object, name: str) -> Any:
    """One of the parameter sets, of what a file has for it."""
    known = {each.name: each for each in fields(kind)}
    found = _known(values, set(known), name)
    return kind(**{key: _value(known[key], value, f"{name}.{key}") for key, value in found.items()})


def _value(wanted: Field[Any], value: object, name: str) -> Any:
    """A value that a field may have: of its default's type, between its limits.

    Raises:
        ValueError: it is none, in one sentence.
    """
    assert wanted.default is not MISSING
    (lowest, highest), (fewest, most) = wanted.metadata["limits"], wanted.metadata["count"]
    whole = not isinstance(wanted.default, float)
    kinds = int if whole else (int, float)

    def fits(number: object) -> bool:
        return isinstance(number, kinds) and not isinstance(number, bool) and lowest <= number <= highest

    one = f"a {'whole ' if whole else ''}number between {lowest} and {highest}"
    if not isinstance(wanted.default, tuple):
        if not fits(value):
            raise ValueError(f"{name} must be {one}, not {quoted(value)}.")
        return value if whole else float(value)  # type: ignore[arg-type]
    several = isinstance(value, (list, tuple)) and fewest <= len(value) <= most
    if not isinstance(value, (list, tuple)) or not several or not all(map(fits, value)):
        count = fewest if fewest == most else f"{fewest} to {most}"
        raise ValueError(f"{name} must be a list of {count}, each {one}, not {quoted(value)}.")
    return tuple(value)


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
    raise ValueError(f"There is no configuration named {quoted(name)}; known: {', '.join(sorted(known)) or 'none'}.")


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
    raise ValueError(f"There is no preset named {quoted(name)}; known: {', '.join(preset_names()) or 'none'}.")


def load_params(name: str) -> ModelParams:
    """The parameters of a named configuration, such as ``"vimeo_unet"``."""
    path = config_path(name)
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} must hold sections, not {type(values).__name__}.")
    return params_from_dict(values, path.name)


def read_yaml(path: Path) -> object:
    """What a small YAML file holds, as plain data: tags and interpolations such as ``${oc.env:HOME}`` do nothing.

    Raises:
        ValueError: it is larger than 64 kB, or no YAML, in one sentence.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(_LONGEST_FILE + 1)
    if len(content) > _LONGEST_FILE:
        raise ValueError(f"{path.name} is larger than {_LONGEST_FILE} bytes, which no configuration is.")
    try:
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(content.decode("utf-8"))), resolve=False)
    except Exception as error:  # of the YAML parser and OmegaConf, and a RecursionError
        reason = sentence((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise ValueError(f"{path.name} is not a readable YAML file: {reason}.") from None

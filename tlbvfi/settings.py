"""How new frames are made: one frozen set of settings, checked once, and the presets of ``configs/presets``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from .bridge import Schedule
from .config import preset_names, preset_path, read_yaml
from .model import TLBVFI, check_dtype
from .numbers import whole_number
from .quoting import quoted
from .ranges import PaddingMode, check_flow_scale, check_padding_mode

#: Of the largest seed: a thousand digits.
_SEED_BITS = 3321


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Which frames are wanted is not among them (see :mod:`.timeline`).

    Attributes:
        flow_scale: the flow is computed at this fraction of the size, within [0.1, 1]; smaller for larger motion.
        sample_steps: steps of the bridge (at least 3), or their falling list of timesteps.
        seed: the same seed gives the same frames.
        padding: ``"tight"``, or ``"published"`` for the published code's larger pad.
        offload: move each new frame to the host at once; otherwise those of a gap stay on the device until the gap is
            finished.
        dtype: what the model's convolutions compute in; None for whatever the model was loaded with.
        tf32: allow or forbid TF32 while the model computes; None for what the process has set.

    Raises:
        ValueError: a value that cannot be, named in one sentence.
    """

    flow_scale: float = 0.5
    sample_steps: int | Sequence[int] = 10
    seed: int = 0
    padding: PaddingMode = "tight"
    offload: bool = True
    dtype: torch.dtype | None = None
    tf32: bool | None = None

    def __post_init__(self) -> None:
        check_flow_scale(self.flow_scale)
        check_padding_mode(self.padding)
        if self.dtype is not None:
            check_dtype(self.dtype)
        steps = self.sample_steps
        if isinstance(steps, Iterable) and not isinstance(steps, str):
            with suppress(TypeError):  # a tensor of one number
                object.__setattr__(self, "sample_steps", tuple(steps))
        object.__setattr__(self, "seed", whole_number("seed", self.seed))
        if self.seed.bit_length() > _SEED_BITS:  # the draws depend on its digits, of which Python writes only so many
            raise ValueError(f"seed must be a number of at most 1,000 digits, not {quoted(self.seed)}.")
        object.__setattr__(self, "flow_scale", float(self.flow_scale))

    @property
    def step_count(self) -> int:
        """How many steps the bridge takes."""
        return self.sample_steps if isinstance(self.sample_steps, int) else len(self.sample_steps)

    def timesteps(self, schedule: Schedule) -> list[int]:
        """The timesteps that a model's bridge visits.

        Raises:
            ValueError: steps that this schedule does not have, in one sentence.
        """
        return schedule.timesteps(self.sample_steps)

    def check_model(self, model: TLBVFI) -> None:
        """Raises ValueError, one sentence, where these settings are not for this model."""
        self.timesteps(model.schedule)
        if self.dtype is not None and self.dtype != model.dtype:
            raise ValueError(f"The settings ask for {self.dtype}, but the model was loaded in {model.dtype}.")


def preset(name: str, **changes: Any) -> Settings:
    """The settings of a preset (``fast``, ``balanced``, ``quality``), with some of them changed.

    Raises:
        ValueError: there is no such preset, its file names a setting that does not exist, or a value cannot be.
    """
    path = preset_path(name)
    values = read_yaml(path)
    known = {field.name for field in fields(Settings)}
    if not isinstance(values, dict) or not set(values) <= known:
        raise ValueError(f"{path.name} must hold settings ({', '.join(sorted(known))}), not {quoted(values)}.")
    return replace(Settings(**{str(key): value for key, value in values.items()}), **changes)


def presets() -> dict[str, Settings]:
    """All presets by name, from the fastest to the slowest."""
    found = {name: preset(name) for name in preset_names()}
    return dict(sorted(found.items(), key=lambda item: (item[1].flow_scale, item[1].step_count)))

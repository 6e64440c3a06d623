"""Settings are checked once, and the presets are files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model
from tlbvfi import config
from tlbvfi.settings import Settings, preset, presets


def test_defaults_are_the_published_setting() -> None:
    assert Settings() == preset("fast") == Settings(0.5, 10, 0, "tight", True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("flow_scale", 0.05), ("flow_scale", "0.5"), ("flow_scale", float("nan")), ("seed", 1.5), ("seed", None),
        ("padding", "none"), ("dtype", torch.float64), ("dtype", torch.int8),
    ],
)  # fmt: skip
def test_bad_values_are_one_sentence(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{setting} must .*\.$"):
        Settings(**{setting: value})  # type: ignore[arg-type]


def test_they_are_frozen_and_can_be_keys() -> None:
    settings = Settings(sample_steps=iter([999, 1, 0]), seed=np.uint64(2**64 - 1))  # type: ignore[arg-type]
    assert settings.sample_steps == (999, 1, 0) and settings.seed == 2**64 - 1
    assert settings in {Settings(sample_steps=(999, 1, 0), seed=2**64 - 1)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 0  # type: ignore[misc]


def test_a_model_of_another_dtype_is_refused() -> None:
    model = tiny_model()
    Settings(dtype=torch.float32).check_model(model)
    with pytest.raises(ValueError, match=r"^The settings ask for torch.float16, but the model was loaded in .*32\.$"):
        Settings(dtype=torch.float16).check_model(model)
    with pytest.raises(ValueError, match="sample_steps must be between 3 and 1000"):
        Settings(sample_steps=1001).check_model(model)


def test_presets_from_fast_to_slow() -> None:
    found = presets()
    assert list(found) == ["fast", "balanced", "quality"]
    assert [each.sample_steps for each in found.values()] == [10, 20, 50]
    assert {each.flow_scale for each in found.values()} == {0.5, 1.0}
    assert preset("quality", seed=5) == dataclasses.replace(found["quality"], seed=5)


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"^There is no preset named 'best'; known: balanced, fast, quality\.$"):
        preset("best")
    with pytest.raises(ValueError, match="no preset named"):
        preset("../tlbvfi-small")


@pytest.mark.parametrize("text", ["sample_step: 5", "- 1", "flow_scale: 7"])
def test_a_preset_with_a_misspelt_setting_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "own.yaml").write_text(text)
    monkeypatch.setattr(config, "CONFIG_DIRS", (tmp_path,))
    with pytest.raises(ValueError, match=r"own\.yaml must hold settings|flow_scale must be"):
        preset("own")

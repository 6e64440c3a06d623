"""Parameters and their YAML files: what is misspelt is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.tiny import TINY
from tlbvfi import config
from tlbvfi.config import AutoencoderParams, ModelParams, config_path, load_params, params_from_dict

FILES = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))


def test_the_published_model_is_the_default() -> None:
    assert load_params("vimeo_unet") == ModelParams()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_model_s_file_says_everything(path: Path) -> None:
    """Nothing is left to a default, so that a file keeps its meaning when a default changes."""
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    if "autoencoder" not in values:
        pytest.skip("not a model's configuration")
    params = ModelParams().to_dict()
    assert values.keys() == params.keys()
    for section, entries in params.items():
        assert values[section].keys() == entries.keys()


@pytest.mark.parametrize("params", [ModelParams(), TINY], ids=["published", "tiny"])
def test_there_and_back(params: ModelParams) -> None:
    back = params_from_dict(params.to_dict())
    assert back == params
    assert hash(back) == hash(params)
    assert isinstance(back.autoencoder.ch_mult, tuple)


def test_what_is_absent_is_the_published_model_s() -> None:
    params = params_from_dict({"autoencoder": {"ch": 32}})
    assert params.autoencoder.ch == 32
    assert params.autoencoder.n_embed == AutoencoderParams().n_embed
    assert params.denoiser == ModelParams().denoiser


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"autoencoder": {"chanels": 3}}, "chanels"),
        ({"unet": {}}, "unet"),
        ({"autoencoder": {"ch": "wide"}}, "wide"),
        ({"autoencoder": {"ch": 1.5}}, "1.5"),
        ({"autoencoder": {"ch_mult": 3}}, "ch_mult|tuple|3"),
        ({"autoencoder": 3}, "AutoencoderParams|autoencoder|int"),
        ({"bridge": {"max_var": None}}, "max_var|None"),
    ],
)
def test_mistakes_are_named_with_their_origin(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        params_from_dict(values, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml does not describe a TLBVFI model")
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="vimeo_unet"):
        config_path("imagenet")
    assert config_path("vimeo_unet").is_file()


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "just a word\n"])
def test_files_that_hold_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (tmp_path / "odd.yaml").write_text(content)
    monkeypatch.setattr(config, "CONFIG_DIRS", (tmp_path,))
    with pytest.raises(ValueError, match=r"odd\.yaml"):
        load_params("odd")


def test_files_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = tmp_path / "executed"
    (tmp_path / "odd.yaml").write_text(f"autoencoder: !!python/object/apply:os.mkdir ['{evidence.as_posix()}']\n")
    monkeypatch.setattr(config, "CONFIG_DIRS", (tmp_path,))
    with pytest.raises(Exception, match="could not determine a constructor"):
        load_params("odd")
    assert not evidence.exists()


def test_sizes_that_follow() -> None:
    params = AutoencoderParams()
    assert params.downscale == 32
    assert params.multiple == 256
    assert params.widths == (64, 128, 128, 128, 256)
    assert params.pyramid_widths == (64, 64, 128, 128, 128, 256)
    assert TINY.autoencoder.multiple == 128

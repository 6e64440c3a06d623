"""Reading weights: every form of the published layout, our own, and what is refused and how."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import tlbvfi
from tests.tiny import TINY
from tlbvfi import CheckpointError, conversion, convert, known_models, load_model
from tlbvfi.config import ModelParams, params_from_dict
from tlbvfi.mapped_file import MappedFile
from tlbvfi.model import FLOAT32_PARTS, TLBVFI
from tlbvfi.weight_file import read_checkpoint

State = dict[str, Tensor]
REPOSITORY = Path(__file__).resolve().parent.parent
#: A weight that every test can compare: plain, of the autoencoder and of the denoiser.
ENCODER_KEY, DENOISER_KEY = "vqgan.encoder.conv_in.weight", "denoise_fn.out.2.weight"


@pytest.fixture(scope="module")
def keys(hollow_state: State) -> tuple[str, str]:
    """The two keys, as they are in the published layout."""
    assert {ENCODER_KEY, DENOISER_KEY} <= set(hollow_state)
    return ENCODER_KEY, DENOISER_KEY


def number(model: TLBVFI, key: str) -> float:
    """The one number that fills this entry of a model made from a hollow state."""
    values = dict(model.named_parameters())[key]
    assert bool((values == values.flatten()[0]).all())
    return float(values.flatten()[0])


def refusal(source: object) -> str:
    """The one sentence with which `source` is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_model(source)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


class TestOfficialLayout:
    @pytest.mark.parametrize(("suffix", "wrapping"), [(".pth", "model"), (".ckpt", None), (".pt", "state_dict")])
    def test_pickles(
        self, tmp_path: Path, hollow_state: State, keys: tuple[str, str], suffix: str, wrapping: str | None
    ) -> None:
        path = tmp_path / f"vimeo{suffix}"
        extras = {"epoch": 3, "step": 100, "optimizer": [{}]}
        torch.save({wrapping: hollow_state, **extras} if wrapping else hollow_state, path)
        model = load_model(path)
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.params == ModelParams()
        for key in keys:
            assert number(model, key) == hollow_state[key].flatten()[0]

    def test_files_of_old_torch(self, tmp_path: Path, hollow_state: State, keys: tuple[str, str]) -> None:
        path = tmp_path / "old.pth"
        torch.save({"model": hollow_state}, path, _use_new_zipfile_serialization=False)
        model = load_model(path)
        assert number(model, keys[0]) == hollow_state[keys[0]].flatten()[0]

    @pytest.mark.parametrize("prefix", ["", "model."])
    def test_safetensors_with_aliases(
        self, tmp_path: Path, hollow_state: State, keys: tuple[str, str], prefix: str
    ) -> None:
        path = tmp_path / "vimeo.safetensors"
        # The aliases are two in number here, for the disk's sake; they hold other values, which must not be used.
        aliases = [key for key in hollow_state if key.startswith("cond_stage_model.")]
        assert len(aliases) == 778
        state = {k: v.contiguous() for k, v in hollow_state.items() if k not in aliases[2:]}
        state[aliases[0]] = state[aliases[0]] + 1
        save_file({prefix + key: value for key, value in state.items()}, path)
        model = load_model(str(path))
        for key in keys:
            assert number(model, key) == hollow_state[key].flatten()[0]

    def test_without_schedule_buffers(self, tmp_path: Path, hollow_state: State, schedule: State) -> None:
        path = tmp_path / "bare.pth"
        torch.save({k: v for k, v in hollow_state.items() if k not in schedule}, path)
        load_model(path)

    def test_derived_buffers_are_rebuilt(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "vimeo.pth"
        torch.save(hollow_state, path)
        fresh = TLBVFI()
        loaded = dict(load_model(path).named_buffers())
        derived = {name: buffer for name, buffer in fresh.named_buffers() if name not in fresh.state_dict()}
        assert derived
        for name, buffer in derived.items():
            assert torch.equal(loaded[name], buffer), name

    def test_real_values(self, official_checkpoint: Path) -> None:
        """Against the file itself: every weight but those that take a batch norm in."""
        stored = torch.load(official_checkpoint, weights_only=True)["model"]
        parameters = dict(load_model(official_checkpoint).named_parameters())
        compared = [key for key in parameters if key in stored and ".proj_in." not in key]
        assert len(compared) > 800
        assert all(torch.equal(parameters[key], stored[key]) for key in compared)


class TestAveragedWeights:
    @pytest.mark.parametrize("prefix", ["", "denoise_fn."])
    def test_used_unless_unwanted(
        self, tmp_path: Path, hollow_state: State, keys: tuple[str, str], prefix: str
    ) -> None:
        averaged = {
            prefix + key.removeprefix("denoise_fn."): value + 10
            for key, value in hollow_state.items()
            if key.startswith("denoise_fn.")
        }
        path = tmp_path / "ema.pth"
        torch.save({"model": hollow_state, "ema": averaged}, path)
        stored = {key: float(hollow_state[key].flatten()[0]) for key in keys}
        model = load_model(path)
        assert number(model, keys[0]) == stored[keys[0]]
        assert number(model, keys[1]) == pytest.approx(stored[keys[1]] + 10, abs=1e-5)
        assert number(load_model(path, ema=False), keys[1]) == stored[keys[1]]

    @pytest.mark.parametrize("averaged", [None, {}])
    def test_empty_ones_are_as_none(
        self, tmp_path: Path, hollow_state: State, keys: tuple[str, str], averaged: object
    ) -> None:
        path = tmp_path / "ema.pth"
        torch.save({"model": hollow_state, "ema": averaged}, path)
        assert number(load_model(path), keys[1]) == hollow_state[keys[1]].flatten()[0]

    def test_foreign_ones_are_named(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "ema.pth"
        torch.save({"model": hollow_state, "ema": {"shadow": torch.zeros(3)}}, path)
        assert "denoise_fn.shadow" in refusal(path)
        torch.save({"model": hollow_state, "ema": {"decay": 0.995}}, path)
        assert "ema=False" in refusal(path)
        load_model(path, ema=False)


class TestParams:
    """The configuration alone, as the bench checks many files with."""

    @pytest.fixture
    def no_tensors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reading a tensor fails the test."""
        monkeypatch.setattr(MappedFile, "tensor", lambda *_: pytest.fail("a tensor was read"))
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch read a pickle"))

    @pytest.mark.usefixtures("no_tensors")
    def test_no_tensor_is_read(self, tmp_path: Path, tiny_checkpoint: Path, hollow_state: State) -> None:
        assert read_checkpoint(tiny_checkpoint).params == TINY
        save_file({"a": torch.zeros(2)}, tmp_path / "bare.safetensors")
        torch.save({"model": hollow_state}, tmp_path / "new.pth")
        torch.save({"model": hollow_state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        for name in ("bare.safetensors", "new.pth", "old.pth"):
            assert read_checkpoint(tmp_path / name).params == ModelParams()

    @pytest.mark.usefixtures("no_tensors")
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
    def test_damaged_files_are_refused(
        self, tmp_path: Path, tiny_checkpoint: Path, hollow_state: State, share: float
    ) -> None:
        whole = tmp_path / "whole.pth"
        torch.save({"model": hollow_state}, whole)
        for source in (whole, tiny_checkpoint):
            cut = tmp_path / f"cut{source.suffix}"
            cut.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
            with pytest.raises(CheckpointError, match=f"{cut.name}: not a"):
                read_checkpoint(cut)

    def test_files_of_another_kind_are_refused(self, tmp_path: Path) -> None:
        archive = tmp_path / "archive.pth"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("folder/readme.txt", "hello")
        with pytest.raises(CheckpointError, match="an archive of something else"):
            read_checkpoint(archive)
        for name in ("text.pth", "text.safetensors"):
            (tmp_path / name).write_text("no weights")
            with pytest.raises(CheckpointError, match=name):
                read_checkpoint(tmp_path / name)
        save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors", {"config": '{"width": 3}'})
        with pytest.raises(CheckpointError, match="its configuration cannot be used"):
            read_checkpoint(tmp_path / "odd.safetensors")


class TestRefused:
    def test_other_weights_name_file_and_first_keys(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "other.pth"
        torch.save({"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(2)}, path)
        said = refusal(path)
        assert str(path) in said
        assert "2 unknown, first layer.weight, layer.bias" in said
        assert "missing, first vqgan.encoder.conv_in.weight" in said

    def test_one_missing_and_one_unknown_entry(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "almost.pth"
        state = dict(hollow_state)
        state["denoise_fn.out.9.weight"] = state.pop(DENOISER_KEY)
        torch.save({"model": state}, path)
        said = refusal(path)
        assert f"1 missing, first {DENOISER_KEY}" in said
        assert "1 unknown, first denoise_fn.out.9.weight" in said

    def test_another_shape(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "shape.pth"
        torch.save({"model": {**hollow_state, ENCODER_KEY: torch.zeros(64, 3, 5, 5)}}, path)
        said = refusal(path)
        assert "1 entries have another shape" in said
        assert f"{ENCODER_KEY} is 64x3x5x5 instead of 64x3x3x3" in said

    def test_integers(self, tmp_path: Path, hollow_state: State) -> None:
        path = tmp_path / "integers.pth"
        torch.save({"model": {**hollow_state, ENCODER_KEY: torch.zeros(64, 3, 3, 3, dtype=torch.int8)}}, path)
        assert ENCODER_KEY in refusal(path)

    @pytest.mark.parametrize("name", ["m_t", "variance_t", "posterior_variance_t"])
    def test_an_altered_schedule(self, tmp_path: Path, hollow_state: State, name: str) -> None:
        path = tmp_path / "schedule.pth"
        for altered in (hollow_state[name] * 1.01, hollow_state[name][:500]):
            torch.save({"model": {**hollow_state, name: altered.clone()}}, path)
            assert f"schedule buffer {name}" in refusal(path)

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        said = refusal(tmp_path / "nowhere.pth")
        assert "nowhere.pth does not exist" in said
        assert "tlbvfi-small" in said
        assert "is a folder" in refusal(tmp_path)

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"text",
            b"<!DOCTYPE html><html>404</html>",
            b"version https://git-lfs.github.com/spec/v1\noid",
            bytes(999),
        ],
    )
    def test_no_checkpoint_at_all(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"broken.{suffix}"
        path.write_bytes(content)
        said = refusal(path)
        assert str(path) in said
        if suffix == "pth":
            assert ("is empty" if not content else repr(content[:4])[:-1]) in said

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
    def test_truncated(self, tmp_path: Path, hollow_state: State, tiny_checkpoint: Path, share: float) -> None:
        whole = tmp_path / "whole.pth"
        torch.save({"model": hollow_state}, whole)
        for source in (whole, tiny_checkpoint):
            cut = tmp_path / f"cut{source.suffix}"
            cut.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
            assert f"{cut}: not a readable" in refusal(cut)

    def test_truncated_file_of_old_torch(self, tmp_path: Path) -> None:
        whole, cut = tmp_path / "old.pth", tmp_path / "cut.pth"
        torch.save({"model": {"a": torch.zeros(1000)}}, whole, _use_new_zipfile_serialization=False)
        for share in (0.1, 0.5, 0.9):
            cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
            assert str(cut) in refusal(cut)

    @pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), "text", 3, {}, {"model": {}}, {"model": 3}])
    def test_something_else_in_the_pickle(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "else.pth"
        torch.save(content, path)
        assert str(path) in refusal(path)

    def test_another_zip_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "archive.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/readme.txt", "hello")
        assert str(path) in refusal(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_damaged_weights(self, tmp_path: Path, tiny_checkpoint: Path, value: float) -> None:
        tensors = load_file(tiny_checkpoint)
        with safe_open(tiny_checkpoint, framework="pt") as file:
            metadata = file.metadata()
        name = "vqgan.encoder.conv_in.weight"
        tensors[name][0, 0, 0, 0] = value
        path = tmp_path / "damaged.safetensors"
        save_file(tensors, path, metadata)
        assert f"{name} holds NaN or infinity; " in refusal(path)

    @pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
    def test_pickled_code_is_not_executed(self, tmp_path: Path, write: Callable[[Any, Path], object]) -> None:
        path, evidence = tmp_path / "evil.pth", tmp_path / "executed"
        write({"model": _Malicious(evidence)}, path)
        said = refusal(path)
        assert "not executed" in said
        assert str(path) in said
        assert not evidence.exists()
        # The payload is a working one, or this test would prove nothing.
        pickle.loads(pickle.dumps(_Malicious(evidence)))
        assert evidence.exists()

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ("not json", "configuration"),
            ('{"autoencoder": {"chanels": 8}}', "chanels"),
            ('{"autoencoder": {"ch": "wide"}}', "configuration"),
            ("[]", "configuration"),
            ('{"autoencoder": {"ch": 16}}', "missing|another shape"),
        ],
    )
    def test_our_layout_with_a_bad_configuration(
        self, tmp_path: Path, tiny_checkpoint: Path, config: str, said: str
    ) -> None:
        path = tmp_path / "config.safetensors"
        save_file(load_file(tiny_checkpoint), path, {"format": "tlbvfi", "config": config})
        with pytest.raises(CheckpointError, match=said):
            load_model(path)

    def test_a_header_that_promises_too_much(self, tmp_path: Path) -> None:
        path = tmp_path / "liar.safetensors"
        header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        assert "not a readable safetensors file" in refusal(path)

    def test_a_dtype_that_models_do_not_have(self, tiny_checkpoint: Path) -> None:
        with pytest.raises(ValueError, match="dtype must be"):
            load_model(tiny_checkpoint, dtype=torch.float64)

    def test_built_in_without_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(known_models, "BUILT_IN", {"tlbvfi-small": "absent.safetensors"})
        for source in (None, "tlbvfi-small"):
            assert "absent.safetensors" in refusal(source)


class _Malicious:
    """When unpickled, makes a file through the operating system."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.evidence),)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_parts_that_choose_codes_stay_float32(self, tiny_checkpoint: Path, dtype: torch.dtype) -> None:
        model = load_model(tiny_checkpoint, dtype=dtype)
        assert model.dtype == dtype
        for name, parameter in model.named_parameters():
            assert parameter.dtype == (torch.float32 if name.startswith(FLOAT32_PARTS) else dtype), name

    def test_the_file_is_not_held_open(self, tmp_path: Path, tiny_checkpoint: Path) -> None:
        """A mapped file that changes under a model must not change the model."""
        path = tmp_path / "model.safetensors"
        path.write_bytes(tiny_checkpoint.read_bytes())
        model = load_model(path)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 1000)
        assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


class TestConvert:
    def test_round_trip(self, tmp_path: Path, hollow_state: State) -> None:
        source, target = tmp_path / "vimeo.pth", tmp_path / "vimeo.safetensors"
        torch.save({"model": hollow_state}, source)
        convert(source, target)
        with safe_open(target, framework="pt") as file:
            names, metadata = set(file.keys()), file.metadata()
        assert not any(name.startswith("cond_stage_model.") for name in names)
        assert names < set(hollow_state)
        assert metadata["format"] == "tlbvfi"
        assert metadata["source_name"] == "vimeo.pth"
        assert metadata["source_sha256"] == conversion.sha256(source)
        assert metadata["ema"] == "false"
        assert params_from_dict(json.loads(metadata["config"])) == ModelParams()
        original, converted = (load_model(path).state_dict() for path in (source, target))
        assert original.keys() == converted.keys()
        assert all(torch.equal(value, converted[key]) for key, value in original.items())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["vimeo.pth", "vimeo.safetensors"]

    def test_float16(self, tmp_path: Path, tiny_checkpoint: Path) -> None:
        half = tmp_path / "half.safetensors"
        convert(tiny_checkpoint, half, torch.float16)
        stored = load_file(half)
        assert {value.dtype for value in stored.values()} == {torch.float16}
        whole, rounded = (load_model(path).state_dict() for path in (tiny_checkpoint, half))
        for key, value in whole.items():
            assert rounded[key].dtype == value.dtype
            if value.is_floating_point():
                assert torch.allclose(rounded[key], value, rtol=2e-3, atol=1e-6), key

    def test_a_small_model_keeps_its_configuration(self, tmp_path: Path, tiny_checkpoint: Path) -> None:
        source = tmp_path / "source.safetensors"
        source.write_bytes(tiny_checkpoint.read_bytes())
        source.chmod(0o644)
        convert(source, tmp_path / "copy.safetensors")
        assert (tmp_path / "copy.safetensors").stat().st_mode == source.stat().st_mode
        assert load_model(tmp_path / "copy.safetensors").params == TINY

    def test_averaged_weights_are_noted(self, tmp_path: Path, hollow_state: State) -> None:
        source, target = tmp_path / "ema.pth", tmp_path / "ema.safetensors"
        averaged = {k: v + 10 for k, v in hollow_state.items() if k.startswith("denoise_fn.")}
        torch.save({"model": hollow_state, "ema": averaged}, source)
        for ema in (True, False):
            convert(source, target, torch.float16, ema=ema)
            with safe_open(target, framework="pt") as file:
                assert file.metadata()["ema"] == str(ema).lower()
                assert (float(file.get_tensor(DENOISER_KEY).flatten()[0]) > 5) == ema

    @pytest.mark.parametrize(("name", "dtype"), [("a.pth", torch.float32), ("a.safetensors", torch.bfloat16)])
    def test_bad_targets(self, tmp_path: Path, tiny_checkpoint: Path, name: str, dtype: torch.dtype) -> None:
        with pytest.raises(ValueError, match=r"\.safetensors|float32 or float16"):
            convert(tiny_checkpoint, tmp_path / name, dtype)
        with pytest.raises(ValueError, match="source itself"):
            convert(tiny_checkpoint, tiny_checkpoint)
        assert not list(tmp_path.iterdir())

    def test_a_failure_leaves_what_was_there(
        self, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "model.safetensors"
        target.write_bytes(b"old")
        broken = tmp_path / "broken.pth"
        broken.write_bytes(b"text")
        with pytest.raises(CheckpointError):
            convert(broken, target)

        def full(tensors: State, path: Path, metadata: dict[str, str]) -> None:
            Path(path).write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(conversion, "save_file", full)
        with pytest.raises(OSError, match="No space"):
            convert(tiny_checkpoint, target)
        assert target.read_bytes() == b"old"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.pth", "model.safetensors"]


MEASURE = """
import sys, threading, torch, tlbvfi
def kibibytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
tlbvfi.load_model(sys.argv[2])  # what is imported and compiled on the first call
before, peak, done = kibibytes(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.0005):
        peak = max(peak, kibibytes())
watcher = threading.Thread(target=watch)
watcher.start()
model = tlbvfi.load_model(sys.argv[1])
done.set()
watcher.join()
weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
print((max(peak, kibibytes()) - before) * 1024 / weights)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no measure of a process's own memory here")
def test_loading_allocates_the_model_once(official_checkpoint: Path, tiny_checkpoint: Path) -> None:
    """Beyond the mapped file, of which the kernel may drop every page."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, official_checkpoint, tiny_checkpoint],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 < float(result.stdout) < 1.1


def test_the_public_names() -> None:
    assert all(hasattr(tlbvfi, name) for name in tlbvfi.__all__)

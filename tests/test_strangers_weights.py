"""Weight files of strangers: each is loaded, or refused in one sentence, and nothing in it runs."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tests.smallest import PARAMS
from tlbvfi import (
    CheckpointError,
    config,
    conversion,
    convert,
    inert_pickle,
    known_models,
    load_model,
    settings,
    weight_file,
)
from tlbvfi.bridge import Schedule
from tlbvfi.checkpoint import is_finite
from tlbvfi.inert_pickle import ForeignError, PickleError, read_pickle
from tlbvfi.mapped_file import MappedFile
from tlbvfi.model import TLBVFI

State = dict[str, Tensor]
KEY, SCHEDULE = "vqgan.encoder.conv_in.weight", "m_t"
SECRET = "a-word-of-the-environment"


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = TLBVFI(PARAMS).state_dict()
    schedule = {name: torch.from_numpy(values) for name, values in Schedule(PARAMS.bridge).buffers().items()}
    return {k: v.contiguous() for k, v in weights.items() if not k.endswith("num_batches_tracked")} | schedule


@pytest.fixture
def small_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a configuration are taken for a model that is quick to load."""
    monkeypatch.setattr(weight_file, "load_params", lambda name: PARAMS)


def save(path: Path, state: State, values: object = None) -> Path:
    """A safetensors file, with the configuration given as what it is or as the text that is there."""
    values = PARAMS.to_dict() if values is None else values
    save_file(state, path, {"config": values if isinstance(values, str) else json.dumps(values)})
    return path


def refusal(path: Path, dtype: torch.dtype = torch.float32) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path, dtype=dtype)
    said = str(caught.value)
    assert said.isprintable()
    assert said.endswith(".")
    assert len(said) < 1000
    assert said.startswith(str(path))
    return said


def altered(section: str, key: str, value: object) -> dict[str, Any]:
    values = PARAMS.to_dict()
    values[section][key] = value
    return values


class TestConfiguration:
    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            ("autoencoder", "ch", -1), ("autoencoder", "ch", 0), ("autoencoder", "ch", 2**40),
            ("autoencoder", "ch", 8.0),
            ("autoencoder", "ch", True), ("autoencoder", "ch", "8"), ("autoencoder", "ch", None),
            ("autoencoder", "ch", []),
            ("autoencoder", "window", 64), ("autoencoder", "ch_mult", [1] * 3000), ("autoencoder", "ch_mult", []),
            ("autoencoder", "ch_mult", [[1]] * 5), ("autoencoder", "ch_mult", [1.0] * 5),
            ("autoencoder", "ch_mult", "11111"),
            ("autoencoder", "flow_widths", [8, 8]), ("autoencoder", "norm_groups", 3),
            ("autoencoder", "z_channels", 10**9),
            ("denoiser", "model_channels", 7), ("denoiser", "channel_mult", [1] * 6),
            ("denoiser", "num_res_blocks", 10**6),
            ("bridge", "num_timesteps", 2), ("bridge", "num_timesteps", 10**9), ("bridge", "max_var", float("nan")),
            ("bridge", "max_var", float("inf")), ("bridge", "max_var", -1), ("bridge", "max_var", False),
            ("autoencoder", "ch", "\x1b[2J\n" * 10_000), ("autoencoder", "n_embed", 63), ("autoencoder", "ch", 1024),
        ],
    )  # fmt: skip
    def test_values_that_cannot_be(self, tmp_path: Path, state: State, section: str, key: str, value: object) -> None:
        said = refusal(save(tmp_path / "a.safetensors", state, altered(section, key, value)))
        assert "configuration cannot be used" in said or "another shape" in said

    @pytest.mark.parametrize(
        "text",
        [
            "", "null", "[]", "NaN", "3", '"x"', "[" * 50_000, '{"autoencoder":' * 4000, '{"bridge": {}, "bridge": {}}',
            '{"autoencoder": {"ch": ' + "9" * 50_000 + "}}", '{"autoencoder": {"ch": ' + " " * 70_000 + "8}}",
            json.dumps({"\x1b[31m" + "x" * 60_000: 1}), json.dumps({f"k{i}": i for i in range(4000)}), '{"\\ud800": 1}',
        ],
        ids=range(14),
    )  # fmt: skip
    def test_text_that_is_none(self, tmp_path: Path, state: State, text: str) -> None:
        assert "configuration cannot be used" in refusal(save(tmp_path / "a.safetensors", state, text))

    def test_a_large_model_is_not_built(self, tmp_path: Path, state: State) -> None:
        """Its widths are possible, but the file does not hold them."""
        large = {"autoencoder": {"ch": 1024, "ch_mult": [64] * 5}, "denoiser": {"model_channels": 1024}}
        assert "missing" in refusal(save(tmp_path / "a.safetensors", state, large))


class TestInterpolations:
    """Nothing in a file is resolved, and nothing of the environment is shown."""

    @pytest.fixture(autouse=True)
    def spied(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("TLBVFI_SECRET", SECRET)
        resolved: list[object] = []
        register = getattr(OmegaConf, "register_resolver", None) or OmegaConf.register_new_resolver
        register("tlbvfi_spy", lambda *given: resolved.append(given) or 8)
        yield
        OmegaConf.clear_resolver("tlbvfi_spy")
        assert not resolved

    @pytest.mark.parametrize(
        "text", ["${oc.env:TLBVFI_SECRET}", "${tlbvfi_spy:1}", "${oc.decode:'8'}", "${.norm_groups}", "${"]
    )
    def test_in_metadata_and_in_yaml(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State, text: str
    ) -> None:
        assert SECRET not in refusal(save(tmp_path / "a.safetensors", state, altered("autoencoder", "ch", text)))
        assert SECRET not in refusal(save(tmp_path / "b.safetensors", state, {"autoencoder": text}))
        monkeypatch.setattr(config, "CONFIG_DIRS", (tmp_path,))
        (tmp_path / "presets").mkdir()
        for content in (f'autoencoder:\n  ch: "{text}"\n', f'autoencoder: "{text}"\n', f'x: "{text}"\n'):
            for path, read in (
                (tmp_path / "a.yaml", config.load_params),
                (tmp_path / "presets/a.yaml", settings.preset),
            ):
                path.write_text(content)
                with pytest.raises(ValueError, match=r"a\.yaml") as caught:
                    read("a")
                assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "content", ["a: [" * 3000, "x" * 100_000, "a: &a [1]\nb: *c", "\x00", b"\xff\xfe\x00"], ids=range(5)
    )
    def test_yaml_that_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes) -> None:
        (tmp_path / "a.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setattr(config, "CONFIG_DIRS", (tmp_path,))
        with pytest.raises(ValueError, match=r"a\.yaml") as caught:
            config.load_params("a")
        assert len(str(caught.value)) < 400


def entry(**changed: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changed}}


class TestHeaders:
    @pytest.mark.parametrize(
        ("header", "length", "said"),
        [
            (entry(), 2**63, "longer than the file"), (entry(), 2**64 - 1, "longer than the file"),
            (entry(), 0, "JSON"),
            (b" " * (5 << 20), None, "no weight file needs"), (b"[" * 50_000, None, "nested"),
            (b"\xff{}", None, "no text"),
            ([1], None, "no dictionary"), (None, None, "no dictionary"), ({"__metadata__": 3}, None, "metadata"),
            (b'{"a":1,"a":2}', None, "twice"), (b'{"a":' + b"9" * 50_000 + b"}", None, "digits"),
            ({f"k{i}": 1 for i in range(20_001)}, None, "entries"),
            (entry(data_offsets=[16, 0]), None, "go together"), (entry(data_offsets=[-16, 0]), None, "side"),
            (entry(shape=[-4]), None, "side"), (entry(shape=[2**62, 4]), None, "side"),
            (entry(shape=[1] * 99), None, "list"),
            (entry(shape=[4.0]), None, "side"), (entry(shape=[True]), None, "side"),
            (entry(dtype="F99"), None, "not known"),
            (entry(dtype=3), None, "not known"), (entry(data_offsets=[0, 16, 32]), None, "go together"),
            (entry(data_offsets=[8, 24]), None, "gaps"), (entry(x=1), None, "a dtype, a shape"),
            (entry() | {"b": entry()["a"]}, None, "overlap"),
            (entry(shape=[8], data_offsets=[0, 32]), None, "but its header"),
            (entry(shape=[2], data_offsets=[0, 8]), None, "but its header"),
            ({"\x1b[2J\n" * 9000: entry()["a"]}, None, "1 unknown"),
        ],
        ids=range(28),
    )  # fmt: skip
    def test_refused(self, tmp_path: Path, header: object, length: int | None, said: str) -> None:
        path = tmp_path / "a.safetensors"
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(16))
        assert said in refusal(path)


ODD: dict[str, Callable[[Tensor], object]] = {
    "meta": lambda weight: weight.to("meta"),
    "huge on meta": lambda weight: torch.empty(2**40, device="meta"),
    "sparse": lambda weight: weight.to_sparse(),
    "compressed": lambda weight: torch.ones(3, 3).to_sparse_csr(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "complex": lambda weight: weight.to(torch.complex64),
    "bool": lambda weight: weight.bool(),
    "int": lambda weight: weight.int(),
    "float8": lambda weight: weight.to(torch.float8_e5m2),
    "expanded": lambda weight: torch.zeros(1).expand(10**10),
    "another rank": lambda weight: weight[None],
    "scalar": lambda weight: torch.zeros(()),
    "empty": lambda weight: torch.zeros(0),
    "nan": lambda weight: weight * float("nan"),
}


@pytest.mark.usefixtures("small_official")
class TestTensors:
    @pytest.mark.parametrize(
        ("key", "odd"), [*((KEY, odd) for odd in ODD), *((SCHEDULE, odd) for odd in ("meta", "sparse", "int", "nan"))]
    )
    def test_odd_ones(self, tmp_path: Path, state: State, key: str, odd: str) -> None:
        path = tmp_path / "a.pth"
        torch.save({"model": {**state, key: ODD[odd](state[key])}}, path)
        assert key in refusal(path)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
    def test_odd_dtypes_in_safetensors(self, tmp_path: Path, state: State, dtype: torch.dtype) -> None:
        said = refusal(save(tmp_path / "a.safetensors", {**state, KEY: state[KEY].to(dtype)}))
        assert f"no plain floating-point tensors but '{str(dtype).removeprefix('torch.')[:6]}" in said
        assert KEY in said

    def test_other_dtypes_of_floating_point(self, tmp_path: Path, state: State) -> None:
        expected = state[KEY].bfloat16()
        for dtype in (torch.float64, torch.bfloat16):
            file = save(tmp_path / "a.safetensors", {**state, KEY: expected.to(dtype)})
            assert torch.allclose(load_model(file).get_parameter(KEY), expected.float(), atol=1e-3)

    def test_parameters_and_protocols(self, tmp_path: Path, state: State) -> None:
        for protocol in (2, 4):
            torch.save({**state, KEY: torch.nn.Parameter(state[KEY])}, tmp_path / "a.pth", pickle_protocol=protocol)
            assert torch.equal(load_model(tmp_path / "a.pth").get_parameter(KEY), state[KEY])

    @pytest.mark.parametrize("key", [3, b"a"])
    def test_keys_that_are_no_text(self, tmp_path: Path, state: State, key: object) -> None:
        torch.save({"model": {**state, key: torch.zeros(1)}}, tmp_path / "a.pth")
        assert repr(key) in refusal(tmp_path / "a.pth")

    def test_a_schedule_of_another_shape_is_not_read(
        self, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save({**state, SCHEDULE: torch.zeros(1).expand(10**10)}, tmp_path / "a.pth")
        monkeypatch.setattr(MappedFile, "tensor", lambda *_: pytest.fail("a tensor was read"))
        assert SCHEDULE in refusal(tmp_path / "a.pth")

    def test_interrupts_pass(self, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(MappedFile, "tensor", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_model(save(tmp_path / "a.safetensors", state))

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
    def test_memory_that_does_not_suffice(
        self, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def full(*_: object) -> None:
            raise error

        monkeypatch.setattr(MappedFile, "tensor", full)
        assert "memory does not suffice" in refusal(save(tmp_path / "a.safetensors", state))


class TestFinite:
    @pytest.mark.parametrize("key", [KEY, "vqgan.decoder.up.0.cross_attn.proj_in.0.weight"])
    def test_what_a_dtype_cannot_hold(self, tmp_path: Path, state: State, key: str) -> None:
        file = save(tmp_path / "a.safetensors", {**state, key: torch.full_like(state[key], 1e6)})
        load_model(file, dtype=torch.bfloat16)
        said = refusal(file, torch.float16)
        assert key in said
        assert "use float32" in said
        with pytest.raises(CheckpointError, match=r"float16.*use float32"):
            convert(file, tmp_path / "half.safetensors", torch.float16)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]

    def test_variances_below_zero(self, tmp_path: Path, state: State) -> None:
        """NaN comes of them when the batch norms are folded."""
        key = next(key for key in state if key.endswith("running_var"))
        file = save(tmp_path / "a.safetensors", {**state, key: state[key] - 5})
        assert f"{key.rsplit('.', 2)[0]}.0".rsplit(".", 1)[0] in refusal(file)
        with pytest.raises(CheckpointError, match="could not be loaded, so nothing was written"):
            convert(file, tmp_path / "b.safetensors")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]

    def test_large_numbers_are_finite(self) -> None:
        assert is_finite(torch.full((1000,), 3e38))
        assert is_finite(torch.full((9,), 1e300, dtype=torch.float64))
        assert is_finite(torch.full((9,), 6e4, dtype=torch.float16))
        assert not is_finite(torch.tensor([float("inf"), -float("inf")]))


class TestConvert:
    def test_a_full_disk(self, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        source, target = save(tmp_path / "a.safetensors", state), tmp_path / "b.safetensors"
        target.write_bytes(b"old")

        def full(tensors: State, path: Path, metadata: dict[str, str]) -> None:
            Path(path).write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(conversion, "save_file", full)
        with pytest.raises(OSError, match="No space") as caught:
            convert(source, target)
        assert caught.value.errno == errno.ENOSPC
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]

    def test_a_folder_as_the_target(self, tmp_path: Path, state: State) -> None:
        (tmp_path / "b.safetensors").mkdir()
        with pytest.raises(ValueError, match="is a folder"):
            convert(save(tmp_path / "a.safetensors", state), tmp_path / "b.safetensors")


def named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


#: Two of the tuple before, 60 times: 2 ** 60 to whoever walks through it.
SHARED = text("x") + b"\x85q\0" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))


class TestPickles:
    @pytest.mark.parametrize(
        "names",
        [
            ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"),
            ("torch.hub", "load"), ("torch.serialization", "load"), ("collections", "namedtuple"),
            ("torch", "os.system"),
            ("numpy.core.multiarray", "scalar"), ("torch._utils", "x_rebuild"), ("", ""),
        ],
    )  # fmt: skip
    def test_foreign_names(self, names: tuple[str, str]) -> None:
        for code in (named(*names), text(names[0]) + text(names[1]) + pickle.STACK_GLOBAL):
            with pytest.raises(ForeignError, match="names"):
                read_pickle(pickle.PROTO + b"\x04" + code + b")R.")

    @pytest.mark.parametrize(
        "code",
        [
            b"", b"\x80", b"\x80\x02", b".", b"}", b"0.", b"R.", b"t.", b"s.", b"h\x07.", b"a.", b"]]a", b"K\1a.",
            b"(1.",
            b"X\xff\xff\xff\xffabc.", b"\x8d" + b"\xff" * 8 + b".", b"\x8b\xff\xff\xff\xff.", b"X\2\0\0\0\xff\xff.",
            b"(ios\nsystem\n.", b"\x82\1.", b"I3\n.", b"L3\n.", b"c" + b"x" * 600, b"K\1K\2K\3\x93.", b"N)R.",
            b"}" + SHARED + b"Ns.", b"}\x85\x85Ns.", b"}" + b"\x8a\x09" + b"\1" * 9 + b"Ns.", b"}]Ns.", b"}(NNNu.",
            named("collections", "OrderedDict") + b"]K\1a\x85R.",
        ],
        ids=range(31),
    )  # fmt: skip
    def test_damaged(self, code: bytes) -> None:
        with pytest.raises(PickleError):
            read_pickle(code)

    def test_what_is_deep_or_wide_is_only_noted(self) -> None:
        assert read_pickle(b"}" + text("k") + SHARED + b"s.").value.keys() == {"k"}
        deep = read_pickle(b")" + b"\x85" * 50_000 + b".").value
        assert len(deep) == 1
        assert read_pickle(b"Nr\xff\xff\xff\xff.").value is None
        for name in ("FloatTensor", "FloatStorage", "Size"):
            read_pickle(named("torch", name) + b"\x8a\x05\0\0\0\0\x40\x85R.")

    def test_as_many_operations_as_it_likes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inert_pickle, "_MOST", 1000)
        for code in (b"(", b"N", b"}", b"]"):
            with pytest.raises(PickleError, match="more than 1000 operations"):
                read_pickle(code * 2000)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_plain_values(self, protocol: int) -> None:
        value = {"a": [1, -2, 2**40, 10**30, 1.5, True, None], "b": (1, (2, 3)), 5: b"x", "ä": {"c": "d"}, None: []}
        assert read_pickle(pickle.dumps(value, protocol)).value == value


def archive(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in records.items():
            made.writestr(name, content)
    return file.getvalue()


@pytest.mark.usefixtures("small_official")
class TestArchives:
    @pytest.fixture(scope="module")
    @staticmethod
    def records(state: State) -> dict[str, bytes]:
        """The files in an archive of torch.save."""
        file = io.BytesIO()
        torch.save({"model": state}, file)
        with zipfile.ZipFile(file) as made:
            return {name: made.read(name) for name in made.namelist()}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda r: archive(r, zipfile.ZIP_DEFLATED), "compressed"),
            (lambda r: archive(r | {"b/data.pkl": b""}), "something else"),
            (lambda r: archive({f"../{k}": v for k, v in r.items()}), "something else"),
            (lambda r: archive({k: v for k, v in r.items() if not k.endswith("/0")}), "no 'data/0'"),
            (lambda r: archive({k: v[:-1] if "/data/" in k else v for k, v in r.items()}), "beyond the bytes"),
            (lambda r: archive({k: b"big" if "byteorder" in k else v for k, v in r.items()}), "byte order"),
            (lambda r: archive({k: b"" if "data.pkl" in k else v for k, v in r.items()}), "ends early"),
            (lambda r: archive(r | {f"{'x' * 60_000}{i}": b"" for i in range(80)}), "directory"),
            (lambda r: archive(r)[:-30], "not a readable"),
            (lambda r: b"PK\3\4" + archive(r).replace(b"PK\3\4", b"PK\3\5")[4:], "not where the archive says"),
            (lambda r: b"PK\3\4" + bytes(50) + b"PK\5\6" + b"\xff" * 18, "not a readable"),
            (lambda r: archive({k: v.replace(b"FloatStorage", b"ByteStorage\n"[:11]) for k, v in r.items()}), "uint8"),
        ],
        ids=range(12),
    )  # fmt: skip
    def test_refused(
        self, tmp_path: Path, records: dict[str, bytes], change: Callable[[dict[str, bytes]], bytes], said: str
    ) -> None:
        path = tmp_path / "a.pth"
        path.write_bytes(change(records))
        assert said in refusal(path)

    def test_as_it_is(self, tmp_path: Path, records: dict[str, bytes], state: State) -> None:
        (tmp_path / "a.pth").write_bytes(archive(records))  # in which tensors begin anywhere
        assert torch.equal(load_model(tmp_path / "a.pth").get_parameter(KEY), state[KEY])


@pytest.mark.usefixtures("small_official")
class TestOldFiles:
    @pytest.fixture(scope="module")
    @staticmethod
    def whole(state: State) -> bytes:
        file = io.BytesIO()
        torch.save({"model": state}, file, _use_new_zipfile_serialization=False)
        return file.getvalue()

    def test_as_it_is(self, tmp_path: Path, whole: bytes, state: State) -> None:
        (tmp_path / "a.pth").write_bytes(whole)
        assert torch.equal(load_model(tmp_path / "a.pth").get_parameter(KEY), state[KEY])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda w: w[:-1], "ends early"), (lambda w: w[:20], "ends early"), (lambda w: w[:100], "early"),
            (lambda w: w.replace(b"storage", b"storagf"), "no known form"),
            (lambda w: w.replace(b"storage", b"module_"), "form"),
            (lambda w: w.replace(b"FloatStorage", b"FloatStoragf"), "not executed"),
            (lambda w: pickle.dumps([1, 2], 2), "not one of torch.save"),
            (lambda w: re.sub(rb"(little_endianq.)\x88", b"\\1\x89", w), "byte order"),
        ],
        ids=range(8),
    )  # fmt: skip
    def test_refused(self, tmp_path: Path, whole: bytes, change: Callable[[bytes], bytes], said: str) -> None:
        (tmp_path / "a.pth").write_bytes(change(whole))
        assert said in refusal(tmp_path / "a.pth")


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b", "\x1b[2J\n.pth", "a/" * 3000 + "b.pth"):
        with pytest.raises(CheckpointError) as caught:
            load_model(tmp_path / name)
        assert str(caught.value).isprintable()
    assert known_models.CheckpointError("x\n" * 10_000).args[0].isprintable()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pth")
        with pytest.raises(CheckpointError, match="does not exist"):
            load_model(tmp_path / "pipe.pth")

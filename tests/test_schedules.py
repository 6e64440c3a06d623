"""Which timesteps the bridge visits: schedules, lists in text, their nodes, and their option of the command line."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tests import fake_host
from tests.fake_host import FakeHost
from tests.smallest import save_smallest
from tests.tiny import frames
from tlbvfi import schedules
from tlbvfi.bridge import Schedule
from tlbvfi.commands import interpolate_run
from tlbvfi.commands.main import main, parser
from tlbvfi.config import BridgeParams
from tlbvfi.settings import Settings

NAME = "tlbvfi-pack-of-test-schedules"
PUBLISHED = Schedule(BridgeParams())
M = PUBLISHED.m.tolist()
HUGE = 10**5000


def kind(value: object) -> str:
    """Of a case: pytest would write numbers out."""
    return type(value).__name__


# The functions


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_falls_from_the_top_to_0(name: str) -> None:
    for count in (*range(3, 201), 333, 499, 500):
        steps = schedules.timesteps(name, count, M)
        assert len(steps) == count
        assert (steps[0], steps[-1]) == (999, 0)
        assert all(a > b for a, b in itertools.pairwise(steps))
        assert PUBLISHED.timesteps(steps) == steps


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@pytest.mark.parametrize("count", [6, 7, 31, 100])
def test_other_bridges_have_schedules(name: str, count: int) -> None:
    bridge = Schedule(BridgeParams(count))
    for steps in range(3, schedules.most_steps(count) + 1):
        taken = schedules.timesteps(name, steps, bridge.m.tolist())
        assert len(taken) == steps and taken[0] == count - 1
        assert bridge.timesteps(taken) == taken


def test_linear_is_the_published_one() -> None:
    assert schedules.timesteps("linear", 10, M) == [999, 874, 749, 624, 499, 374, 249, 124, 1, 0]
    for count in range(3, 501):
        assert schedules.timesteps("linear", count, M) == PUBLISHED.timesteps(count)


def test_uniform_steps_are_alike_in_m() -> None:
    for count in (3, 10, 50):
        steps = np.diff(PUBLISHED.m[schedules.timesteps("uniform", count, M)])
        np.testing.assert_allclose(steps, -0.998 / (count - 1), atol=0.0011)


def test_cosine_steps_follow_a_cosine_in_m() -> None:
    for count in (3, 10, 50):
        wanted = 0.5 + 0.499 * np.cos(np.linspace(0, math.pi, count))
        np.testing.assert_allclose(PUBLISHED.m[schedules.timesteps("cosine", count, M)], wanted, atol=0.00051)


def test_m_decides_and_not_the_timestep() -> None:
    """Where m_t is no straight line, uniform steps of it are none of t."""
    curved = [(k / 99) ** 2 for k in range(100)]
    assert schedules.timesteps("uniform", 5, curved) == [99, 86, 70, 49, 0]


@pytest.mark.parametrize(("name", "steps"), [
    ("sigmoid", 10), ("", 10), ("custom", 10), (None, 10), (["linear"], 10), ("linear", 2), ("cosine", 501),
    ("uniform", -1), ("linear", True), ("linear", 10.5), ("linear", None), ("cosine", "10"), ("cosine", HUGE),
    ("cosine", math.nan), ("linear", math.inf),
], ids=kind)  # fmt: skip
def test_what_no_schedule_is(name: Any, steps: Any) -> None:
    with pytest.raises(ValueError, match=r"^(schedule|steps) must be [^\n]{10,200}, not [^\n]{1,100}\.$"):
        schedules.timesteps(name, steps, M)


# Lists in text


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("999,749,500,1,0", [999, 749, 500, 1, 0]),
        (" 999, 1 ,0 ", [999, 1, 0]),
        ("5;3\t2\n0", [5, 3, 2, 0]),
        ("+7 0,", [7, 0]),
        ("0", [0]),
        ("0999, 00", [999, 0]),
        (", ".join(map(str, range(999, -1, -1))), [*range(999, -1, -1)]),
    ],
    ids=len,
)
def test_lists_in_text(text: str, steps: list[int]) -> None:
    assert schedules.listed("timesteps", text, 999) == steps
    assert PUBLISHED.timesteps(steps) == steps


NO_LISTS = [
    ("", "list of timesteps such as 999, 499, 0, not ''"),
    (" ,; \n", "list of timesteps"),
    (None, "not None"),
    (b"999,0", "list of timesteps"),
    (999, "list of timesteps"),
    (["999", "0"], "list of timesteps"),
    ("999, x, 0", "whole numbers from 999 down such as 999, 499, 0, not 'x'"),
    ("999.0, 0", "not '999.0'"),
    ("1e3, 0", "not '1e3'"),
    ("0x10, 0", "not '0x10'"),
    ("1_0, 0", "not '1_0'"),
    ("nan, 0", "not 'nan'"),
    ("[999, 0]", "not '[999'"),
    ("--1, 0", "not '--1'"),
    ("٣, 0", "not '٣'"),
    ("²,0", "not '²'"),
    ("9" * 5000 + ", 0", "not '999"),
    ("\x1b[31m,0", "not '\\x1b[31m'"),
    ("9\x000, 0", "not '9\\x000'"),
    ("x" * 10**6, "not 'xxx"),
    ("1000, 0", "begin with 1000"),
    ("999, 500", "end with 500"),
    ("999, 1", "end with 1"),
    ("999, 0, -1", "end with -1"),
    ("-1", "end with -1"),
    ("999, 500, 500, 0", "have 500 after 500"),
    ("999, 1, 2, 0", "have 2 after 1"),
    ("0, 999", "have 999 after 0"),
    ("0 " * 10**5, "have 0 after 0"),
]


@pytest.mark.parametrize(("text", "said"), NO_LISTS, ids=range(len(NO_LISTS)))
def test_what_is_no_list(text: Any, said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        schedules.listed("timesteps", text, 999)
    sentence = str(raised.value)
    assert sentence.startswith("timesteps must ") and sentence.endswith(".") and said in sentence, sentence
    assert sentence.isprintable() and len(sentence) < 250


# The nodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "interpolation").mkdir()
    save_smallest(folder / "interpolation" / "tiny.safetensors")
    return folder


@pytest.fixture(scope="module")
def loaded_pack(folder: Path) -> Iterator[ModuleType]:
    with fake_host.loaded_pack(NAME, folder) as pack:
        yield pack


@pytest.fixture
def host(loaded_pack: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setattr(sys.modules[f"{NAME}.nodes.host"], "gc", SimpleNamespace(collect=lambda: None))
    return fake_host.install(FakeHost(folder, output=tmp_path, temp=tmp_path), monkeypatch)


Call = Callable[..., Any]


@pytest.fixture
def call(loaded_pack: ModuleType, host: FakeHost) -> Call:
    """Calls a node, inputs that are not given at their defaults."""

    def calling(key: str, **inputs: Any) -> Any:
        node = loaded_pack.NODE_CLASS_MAPPINGS[f"TLBVFI_{key}"]
        declared = node.INPUT_TYPES()
        entries = {**declared["required"], **declared.get("optional", {})}
        given = {name: options["default"] for name, (_, options) in entries.items() if "default" in options}
        if "model_name" in entries:
            given["model_name"] = "tiny.safetensors"
        with torch.inference_mode():
            return getattr(node(), node.FUNCTION)(**{**given, **inputs})

    return calling


def test_the_node_chooses(call: Call) -> None:
    assert call("Schedule") == (PUBLISHED.timesteps(10),)
    for name in schedules.SCHEDULES:
        assert call("Schedule", kind=name, steps=20.0, timesteps=None) == (schedules.timesteps(name, 20, M),)
    assert call("Schedule", kind="custom", steps=None) == ([999, 749, 500, 1, 0],)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"kind": "sigmoid"}, "kind must be linear, cosine, uniform or custom, not 'sigmoid'."),
        ({"kind": ["linear"]}, "kind must be "),
        ({"kind": None}, "kind must be "),
        ({"steps": 2}, "steps must be a whole number between 3 and 500, not 2."),
        ({"steps": 501, "kind": "cosine"}, "steps must be "),
        ({"kind": "custom", "timesteps": "999, 500"}, "timesteps must fall strictly from at most 999 to 0"),
        ({"kind": "custom", "timesteps": None}, "timesteps must be a list"),
    ],
)
def test_what_the_node_refuses(call: Call, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,250}\.$") as raised:
        call("Schedule", **inputs)
    assert str(raised.value).startswith(said)


def test_the_list_is_the_registry(call: Call, loaded_pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in the registry is all that a new schedule takes."""
    known = sys.modules[f"{NAME}.tlbvfi.schedules"].SCHEDULES
    monkeypatch.setitem(known, "shortest", lambda steps, m: [len(m) - 1, *range(steps - 2, -1, -1)])
    assert loaded_pack.NODE_CLASS_MAPPINGS["TLBVFI_Schedule"].INPUT_TYPES()["required"]["kind"][0] == [
        "linear", "cosine", "uniform", "shortest", "custom",
    ]  # fmt: skip
    assert call("Schedule", kind="shortest", steps=5) == ([999, 3, 2, 1, 0],)


def of_a_pair(call: Call, **inputs: Any) -> Tensor:
    first, second = torch.stack(frames(2, 24, 40)).split(1)
    frame: Tensor = call("Interpolator_V2", prev_frame=first, next_frame=second, **inputs)[0]
    return frame


def of_a_video(call: Call, **inputs: Any) -> Tensor:
    video: Tensor = call("VideoInterpolator", images=torch.stack(frames(2, 24, 40)), **inputs)["result"][0]
    return video


def of_a_file(call: Call, **inputs: Any) -> Tensor:
    components = SimpleNamespace(images=torch.stack(frames(2, 24, 40)), audio=None, frame_rate=25)
    video = SimpleNamespace(get_components=lambda: components)
    file = call("InterpolateVideo", video=video, codec="ffv1", **inputs)["result"][0].file
    with av.open(str(file)) as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))


@pytest.mark.parametrize("frames_of", [of_a_pair, of_a_video, of_a_file])
def test_linear_frames_are_those_without_a_schedule(call: Call, frames_of: Callable[..., Tensor]) -> None:
    chosen = {name: call("Schedule", kind=name)[0] for name in ("linear", "cosine")}
    without = frames_of(call, quality="fast")
    assert torch.equal(frames_of(call, quality="fast", schedule=chosen["linear"]), without)
    assert not torch.equal(frames_of(call, quality="fast", schedule=chosen["cosine"]), without)


def test_a_schedule_wins_over_every_quality(call: Call) -> None:
    (steps,) = call("Schedule", kind="custom", timesteps="999, 300, 0")
    wanted = of_a_pair(call, quality="fast", schedule=steps)
    assert torch.equal(of_a_pair(call, quality="custom", sample_steps=50, flow_scale=0.5, schedule=steps), wanted)
    assert not torch.equal(of_a_pair(call, quality="fast"), wanted)


@pytest.mark.parametrize("steps", [PUBLISHED.timesteps(10), [0], [5, 0], [*range(999, -1, -1)], (999, 1.0, 0)], ids=len)
def test_the_preview_is_a_picture(call: Call, steps: Any) -> None:
    (plot,) = call("SchedulePreview", schedule=steps)
    assert plot.dtype == torch.float32 and plot.shape == (1, 720, 960, 3)
    assert 0 <= plot.min() and plot.max() <= 1
    ground = plot[0, 0, 0]
    assert torch.equal(plot[0, -1, -1], ground) and ground.max() < 0.2
    drawn = (plot[0] - ground).abs().amax(-1) > 0.3
    assert 0.01 < drawn.float().mean() < 0.15


def test_the_preview_shows_where_the_steps_are(call: Call) -> None:
    """Of two schedules the plot of the timesteps and the marks below differ, the curves do not."""
    (one,), (other,) = (call("SchedulePreview", schedule=[999, t, 0]) for t in (800, 200))
    differs = (one[0] - other[0]).abs().amax(-1) > 0.2
    assert differs[90:340].any() and differs[400:680, :480].any() and differs[400:680, 480:].any()
    assert differs.float().mean() < 0.05


@pytest.mark.parametrize(
    "schedule",
    [None, 5, "999,0", [], [1000, 0], [999, 1], [0, 1], [True, False], [1.5, 0], {5: 0}, [HUGE, 0], [None]],
    ids=kind,
)
def test_what_the_preview_refuses(call: Call, schedule: Any) -> None:
    with pytest.raises(ValueError, match=r"^(each timestep of )?schedule (must|holds) [^\n]{10,250}\.$"):
        call("SchedulePreview", schedule=schedule)


# The command line


def asked(*words: str) -> Settings:
    return interpolate_run.settings_of(parser().parse_args(["interpolate", "a", "b", *words]))


def test_the_option_chooses() -> None:
    for name in schedules.SCHEDULES:
        assert asked("--schedule", name).sample_steps == tuple(schedules.timesteps(name, 10, M))
        assert asked(f"--schedule={name}", "--steps=7").sample_steps == tuple(schedules.timesteps(name, 7, M))
    assert asked("--schedule", "COSINE", "--quality", "balanced").step_count == asked("--quality=balanced").step_count
    assert asked("--schedule", "999, 500,0").sample_steps == (999, 500, 0)


def test_a_resumed_run_has_the_same_timesteps(tmp_path: Path) -> None:
    def told(*words: str) -> dict[str, str]:
        options = parser().parse_args(["interpolate", str(tmp_path), "b.mp4", *words])
        options.encoding = None
        return interpolate_run._asked(options, interpolate_run.settings_of(options), "cpu")

    assert "--schedule" not in told()
    assert told("--schedule", "999,500,0")["--schedule"] == "999,500,0"
    assert told("--schedule", "999,500,0") != told("--schedule", "999,501,0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--schedule", "sigmoid"], "must be linear, cosine, uniform, or a list of timesteps such as 999,500,0, not"),
        (["--schedule", "custom"], "not 'custom'"),
        (["--schedule", ""], "must be a list of timesteps"),
        (["--schedule", "999,500"], "end with 500"),
        (["--schedule", "1000,0"], "begin with 1000"),
        (["--schedule", "9.5,0"], "not '9.5'"),
        (["--schedule", "999,0", "--steps", "3"], "give one of the two"),
        (["--schedule", "cosine", "--steps", "501"], "takes 500 steps at most, not 501"),
    ],
)
def test_what_the_option_refuses(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no picture, and nobody looks")
    assert main(["interpolate", str(tmp_path / "in"), str(tmp_path / "out"), *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]

"""Waiting ends where nothing happens any more, and not before."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests import patience
from tests.patience import QUIET, WORK, Patience, Stalled, ended, processor_time


@dataclass
class World:
    """A clock, the processor time of a process, and how busy the machine is."""

    time: float = 0.0
    used: float = 0.0
    busy: float = 1.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(patience, "now", lambda: world.time)
    monkeypatch.setattr(patience, "processor_time", lambda process: world.used)
    monkeypatch.setattr(patience, "slowness", lambda: world.busy)
    return world


def test_quiet_is_the_end(world: World) -> None:
    waiting = Patience(1)
    world.time = QUIET
    waiting.check("it")
    world.time, world.used = QUIET + 1, 0.5  # as of a server that is asked now and then
    with pytest.raises(Stalled, match="it: nothing has happened for 121 s, the limit being 120 s"):
        waiting.check("it")


def test_a_busy_machine_is_waited_for(world: World) -> None:
    waiting, world.busy = Patience(), 3.0
    world.time = 3 * QUIET
    waiting.check("it")
    world.time += 1
    with pytest.raises(Stalled):
        waiting.check("it")


def test_work_goes_on_for_as_long_as_it_takes_unless_nothing_comes_of_it(world: World) -> None:
    waiting = Patience(1)
    for _ in range(10):
        for _ in range(int(WORK / 10)):
            world.time += QUIET
            world.used += 10
            waiting.check("it")
        waiting.mark()
    world.used += WORK + 1
    with pytest.raises(Stalled, match="no sign of it after 1201 s of processor time"):
        waiting.check("it")


def test_results_and_errors_of_what_may_block(world: World) -> None:
    assert Patience().result(lambda: 3, "it") == 3
    with pytest.raises(KeyError):
        Patience().result(lambda: {}[1], "it")


def test_a_process_that_does_nothing_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(process: int) -> float:
        world.time += QUIET
        return 0.0

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(patience, "processor_time", later)
    with pytest.raises(Stalled):
        ended(process)
    assert process.wait() != 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")
def test_processor_time_is_that_of_the_process() -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert processor_time(process.pid) > 0.2
    process.kill()
    ended(process)
    assert processor_time(process.pid) == 0

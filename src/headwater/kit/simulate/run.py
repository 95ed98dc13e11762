"""Running a scenario under many seeds; a failure says the one command that replays it.

A scenario is a function of one ``Simulation``, plain or async (then it runs on a SimLoop)::

    def scenario(sim: Simulation) -> None: ...

    def test_log_keeps_what_it_acknowledged():
        run.simulate(scenario, run.seeds(200))

``HEADWATER_SEEDS`` sets how many seeds tests run, ``HEADWATER_SEED`` the first. The replay command works from the
root of the repository and prints the last calls of the disk before the error.
"""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from headwater.kit.rng import SeededRng
from headwater.kit.simulate import loop
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.wire import Network

TRACE_SHOWN = 60


class Simulation:
    """Everything that a scenario may draw from, under one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"scenario {seed}")
        self.rng = SeededRng(seed)
        self.time = Time()
        self.clock = SimClock(self.time)
        self.disk = SimDisk(seed, self.time)
        self.network = Network(seed)

    def one_in(self, count: int) -> bool:
        """True once in ``count`` times."""
        return self.random.randrange(count) == 0

    def note(self, text: str) -> None:
        """A line among the calls of the disk."""
        self.disk.note(f"# {text}")


Scenario = Callable[[Simulation], Awaitable[Any] | None]


class SimulationFailed(AssertionError):
    """A seed found an error; the message says how to see it again."""


def run_seed(scenario: Scenario, seed: int, **bounds: Any) -> Simulation:
    """One run; returns the simulation as it stands at the end. Errors come as they are."""
    sim = Simulation(seed)
    try:
        if inspect.iscoroutinefunction(scenario):
            loop.run(scenario(sim), seed, sim.time, **bounds)
        else:
            scenario(sim)
    except BaseException as error:
        error.simulation = sim  # type: ignore[attr-defined]
        raise
    return sim


def simulate(scenario: Scenario, seeds: Iterable[int]) -> int:
    """Run each seed; SimulationFailed with the replay command at the first that fails. Returns how many ran."""
    count = 0
    for seed in seeds:
        try:
            run_seed(scenario, seed)
        except Exception as error:
            raise SimulationFailed(
                f"seed {seed}: {type(error).__name__}: {error}\nreplay: {replay(scenario, seed)}"
            ) from error
        count += 1
    return count


def first_failure(scenario: Scenario, seeds: Iterable[int]) -> tuple[int, Exception] | None:
    """The first seed that fails, with its error; None when all pass. For tests of oracles."""
    for seed in seeds:
        try:
            run_seed(scenario, seed)
        except Exception as error:
            return seed, error
    return None


def seeds(count: int) -> range:
    """Which seeds a test runs: ``count`` of them unless the environment says otherwise."""
    first = int(os.environ.get("HEADWATER_SEED", "0"))
    return range(first, first + int(os.environ.get("HEADWATER_SEEDS", str(count))))


def replay(scenario: Scenario, seed: int) -> str:
    """The command."""
    name = f"{scenario.__module__}:{scenario.__qualname__}"
    return f"PYTHONPATH=src {sys.executable} -m headwater.kit.simulate {name} --seed {seed}"


def find(name: str) -> Scenario:
    """A scenario by ``module:function``."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    scenario: Scenario = found
    return scenario

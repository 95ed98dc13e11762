"""Rounds of faults on real nodes: draw, carry out under load, let it settle, ask the oracle.

A round's faults follow from the seed and its number alone, so one round can be drawn again. What processes do between
two faults cannot: a failure that hangs on a moment may need several tries.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import faults
from tests.chaos.faults import World
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.journeys.running import Running

FAULTS = 8
"""Of a round."""
ROUNDS_OF_A_NODE = 8
"""Then a new one begins on an empty folder; the last round of each begins with its data folder restored."""


@dataclass
class Report:
    """What happened so far."""

    seed: int
    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0
    arrived_s: float = 0
    """Of several nodes: the longest time until everything had arrived, with everybody back."""
    steps: list[str] = field(default_factory=list)
    """Of several nodes: when which fault came."""
    failure: str = ""


def replay(seed: int, number: int, more: str = "") -> str:
    """The command that draws the faults of a round again."""
    return f"make chaos ARGS='--seed {seed} --round {number}{more}'"


def run_round(
    world: World, load: Load, oracle: Oracle, report: Report, number: int, names: Sequence[str]
) -> None:
    """One round on a node that runs."""
    world.rng = random.Random(f"{report.seed} {number}")
    load.begin(report.rounds)
    try:
        for name in names:
            time.sleep(world.rng.uniform(0.1, 1.0))
            world.note(name)
            faults.DRAWN[name][1](world)
        time.sleep(0.3)
    finally:
        load.rest()
        report.rounds += 1
        report.sent += len(load.sent)
        report.acknowledged += len(load.acknowledged)
    try:
        oracle.check(load, world.names, unknown=world.unknown)
    finally:
        report.lost, report.doubled = report.lost + oracle.lost, report.doubled + oracle.doubled
        oracle.lost = oracle.doubled = 0


def names_of(seed: int, number: int, count: int = FAULTS) -> list[str]:
    """The faults of a round."""
    return faults.drawn(random.Random(f"faults {seed} {number}"), count)


class Nodes:
    """Makes worlds below a folder, and ends them."""

    def __init__(self, base: Path, report: Report) -> None:
        self.base = base
        self.report = report
        self.count = 0
        self.world: World | None = None

    def begin(self) -> World:
        self.end()
        folder = self.base / f"{self.count}"
        folder.mkdir(parents=True)
        self.count += 1
        made: list[Running] = []

        def make(**options: object) -> Running:
            made.append(Running(folder, **options))  # type: ignore[arg-type]
            return made[-1]

        try:
            self.world = World(folder, make, str(self.report.seed))
        except BaseException:
            for node in made:
                node.close()
            raise
        return self.world

    def end(self) -> None:
        if self.world is not None:
            self.world.node.close()
            self.report.kills += self.world.kills
            self.report.faults += self.world.faults
            self.world = None


def run(base: Path, report: Report, rounds: Sequence[int], *, kills: int = 0, seconds: float = 0) -> None:
    """These rounds; fewer once so many processes were killed, or so much time has passed (0: no such end)."""
    began, nodes = time.monotonic(), Nodes(base, report)
    world, load, oracle = None, None, None
    try:
        for index, number in enumerate(rounds):
            if world is None or load is None or oracle is None or index % ROUNDS_OF_A_NODE == 0:
                world = nodes.begin()
                load, oracle = Load(world.node), Oracle(world.node)
            place = index % ROUNDS_OF_A_NODE
            if place == ROUNDS_OF_A_NODE - 3:
                faults.copy_folder(world)
            elif place == ROUNDS_OF_A_NODE - 1:
                faults.restore_folder(world)
            run_round(world, load, oracle, report, number, names_of(report.seed, number))
            killed = report.kills.total() + world.kills.total()
            report.seconds = time.monotonic() - began
            print(
                f"round {number}: {report.acknowledged} events acknowledged, {killed} kills, fine", flush=True
            )
            if (kills and killed >= kills) or (seconds and report.seconds >= seconds):
                break
    except BaseException as error:
        report.failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        nodes.end()
        report.seconds = time.monotonic() - began

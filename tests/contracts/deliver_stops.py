"""Deliverers that stop at a chosen moment of a step, and ones that compare too early: for the tests of INV-DST-1.

A step is: BEGIN, compare, rows, position, COMMIT. ``Stopping`` calls a function between two of them (a thread that
waits there is a process that was paused there; the whole process can stop itself too). The broken one compares
outside of the transaction, which is what a lease or a lock held elsewhere comes to (protocol-why.md P3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.port import Destination, OpenChain, Outcome, Step
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk

PARTITIONS = (0, 1, 2, 3)
PLACES = ("compared", "written")
"""Behind the comparison; before COMMIT."""


class Stops:
    """Calls ``stops[place]`` once, when a step of the adapter that this is mixed into gets there."""

    stops: dict[str, Callable[[], None]]

    def at(self, place: str) -> None:
        self.stops.pop(place, lambda: None)()

    def moved_rows(self, *arguments: Any) -> Any:
        moved = super().moved_rows(*arguments)  # type: ignore[misc]
        self.at("compared")
        return moved

    def commit(self, *arguments: Any) -> None:
        self.at("written")
        super().commit(*arguments)  # type: ignore[misc]


class Stopping(Stops, DuckDbDestination):
    """DuckDB's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(DuckDbSettings(), str(folder / "w.duckdb"), str(folder), SystemClock())
        self.stops = {}


class Before:
    """Broken: compares, then begins the transaction, and believes what it read."""

    def step(self, step: Step) -> Outcome:
        held = self.positions(step.pipeline)  # type: ignore[attr-defined]
        if any(held[p].vector != step.origin for p in step.partitions):
            return Outcome.MOVED
        self.at("compared")  # type: ignore[attr-defined]
        now = self.positions(step.pipeline)[step.partitions[0]].vector  # type: ignore[attr-defined]
        outcome: Outcome = super().step(replace(step, origin=now))  # type: ignore[misc]
        return outcome


class ComparesBefore(Before, Stopping):
    """DuckDB's."""


def deliverer(
    folder: Path, owner: str, destination: Destination, chain: OpenChain, load_rows: int = 10
) -> Deliverer:
    """One deliverer with a memory of its own."""
    own = folder / owner
    own.mkdir(exist_ok=True)
    return Deliverer(
        "warehouse",
        destination,
        {"0": chain},
        Memory(SystemDisk(), str(own / "state.json"), "c/warehouse/main"),
        DeadLetters(str(own / "dead.sqlite"), "warehouse"),
        DuckDbSettings(
            load_rows=load_rows,
            retry_interval_s=0.01,
            load_interval_min_ms=0,
            load_interval_max_ms=0,
            poll_interval_ms=1,
            on_restored="refill",
        ),
        SystemClock(),
        partitions=len(PARTITIONS),
        owner=owner,
        node_ns=SystemClock().boot_ns,
    )

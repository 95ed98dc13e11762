"""Replays over random logs with copies, random cuts and pieces, and a crash at any step: INV-DST-1, INV-LED-1.

The oracle is a set of statements about origins and ids, written without looking at how a step is made; the broken
variants at the end must break them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headwater.destinations import redo, replay
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.memory import MemoryDestination, Store
from headwater.destinations.port import Outcome, Redo, Replayable, Step
from headwater.event.piece import Piece
from headwater.event.position import Vector
from headwater.kit.clock import SystemClock
from tests.unit.destinations.replay_world import (
    NEW,
    OLD,
    SETTLED,
    WINDOW_US,
    Event,
    FakeRaw,
    Log,
    World,
    vector,
)

MINUTE_US = 60_000_000
LATE_US = 10 * WINDOW_US
Draw = Callable[..., Any]


class Killed(BaseException):
    """kill -9."""


class Mortal:
    """Dies around its next steps, as a test says: "", "before", "after", one for each step."""

    deaths: list[str]

    def step(self, step: Step) -> Outcome:
        how = self.deaths.pop(0) if self.deaths and "replay:" in step.pipeline else ""
        if how == "before":
            raise Killed
        outcome = super().step(step)  # type: ignore[misc]
        if how == "after":
            raise Killed
        assert isinstance(outcome, Outcome)
        return outcome


class MortalMemory(Mortal, MemoryDestination):
    pass


class MortalDuckDb(Mortal, DuckDbDestination):
    pass


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Two writers; ids of few values, so copies are everywhere. The first half is old, the second young."""
    found = []
    for writer in (0, 1):
        received = 0
        for seq in range(draw(st.integers(0, 4)) * 4):
            young = received >= LATE_US or draw(st.integers(0, 12)) == 0
            received = max(received, LATE_US) if young else received
            received += draw(st.integers(0, 2)) * MINUTE_US
            name = draw(st.integers(0, 9)) + (20 if young else 0)
            good_old, good_new = draw(st.sampled_from([(True, True)] * 6 + [(False, True), (True, False)]))
            found.append(
                Event(writer, seq, name, received, good_old, good_new, draw(st.integers(0, 15)) == 0)
            )
    return found


def cut_points(draw: Draw, events: list[Event], count: int) -> list[tuple[int, int]]:
    """Rising cuts that end with everything."""
    sizes = [sum(e.writer == w for e in events) for w in (0, 1)]
    cuts = [sorted(draw(st.integers(0, size)) for _ in range(count)) for size in sizes]
    return [*zip(*cuts, strict=True), (sizes[0], sizes[1])]


def play(draw: Draw, make: Callable[[Path, list[str]], Replayable], *, refuses: bool) -> None:
    """One history; see the statements in ``after``."""
    log = Log(draw(events()))
    cuts = cut_points(draw, log.events, 4)
    deaths: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), log, lambda: make(Path(folder), deaths))
        first = draw(st.integers(1, len(cuts)))
        skip = draw(st.booleans()) and not refuses
        bad = draw(st.sets(st.integers(0, 9), max_size=2)) if refuses else set()
        refuse(world, lambda row: row["config"] == OLD and row["message_id"] in {f"m{n}" for n in bad})
        for cut in cuts[:first]:
            world.commit(*cut)
            if not skip:
                world.run(4)
        world.run(4)
        if skip:
            world.commit(*cuts[-1])
            world.deliverer.adopt("now")
            world.run(4)
        world.check_ledger()
        deaths += draw(st.lists(st.sampled_from(["", "", "before", "after"]), max_size=6))
        begin, end = cut_points(draw, log.events, 2)[:2]
        world.raw.sizes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=9))
        world.raw.unreadable = frozenset(e.origin for e in log.events if draw(st.integers(0, 15)) == 0)
        worse = draw(st.sets(st.integers(0, 9), max_size=2)) if refuses else set()
        refuse(
            world,
            lambda row: row["message_id"] in {f"m{n}" for n in (worse if row["config"] == NEW else bad)},
        )
        origin, until = vector(*begin), vector(*end).meet(world.replays.limit())
        before = world.by_origin()
        settled = world.raw.settled_us(world.replays.limit())
        letters = set(log.dead), {letter.origin for letter in world.letters.letters(None, 1000)}
        skipped = sum(
            row.total.skipped
            for row in world.deliverer.destination.positions("cluster/warehouse/main").values()
        )
        if log.between(origin.meet(until), until):
            world.replay(origin, until)
            more: list[tuple[int, int] | None] = [None] if skip else [None, None, *cuts[first:]]
            for step in more:
                if step is not None:
                    world.commit(*step)
                alive(world)
            while world.replays.book.current is not None:
                alive(world)
            assert world.replays.list()[-1]["state"] == "done", world.replays.list()
            assert log.dead.isdisjoint(world.by_origin()), "a letter of an event that is a row"
            after(world, before, letters, origin.meet(until), until, worse, skipped, settled)
        world.deliverer.close()


def refuse(world: World, when: Callable[[dict[str, Any]], bool]) -> None:
    if isinstance(world.deliverer.destination, MemoryDestination):
        world.deliverer.destination.accepts = lambda row: not when(row)


def alive(world: World) -> None:
    """A round; a process that was killed is started again. Each id is there once, and the ledger holds."""
    try:
        world.round()
    except Killed:
        former = world.deliverer.destination
        former.close()
        world.start()
        if isinstance(former, MemoryDestination):
            world.deliverer.destination.accepts = former.accepts  # type: ignore[attr-defined]
        world.run(2) if not getattr(former, "deaths", []) else alive(world)
    if world.deliverer.rows is not None:
        world.by_origin()
        world.check_ledger()


def after(
    world: World,
    before: dict[Any, float],
    letters: tuple[set[Any], set[Any]],
    origin: Vector,
    until: Vector,
    worse: set[int],
    skipped: int,
    settled: int,
) -> None:
    """What must be true of the rows, whatever happened."""
    now = world.by_origin()
    inside = [e for e in world.log.between(origin, until) if e.origin not in world.raw.unreadable]
    within = {e.origin for e in inside}
    for one, config in before.items():
        if one not in within:
            assert now.get(one) == config, "a row outside the range has changed"
    for event in inside:
        fine = event.alive(NEW) and event.id not in worse
        if event.origin in before:
            assert now.get(event.origin) == (NEW if fine else None), ("held", event)
        elif event.origin in now:
            assert now[event.origin] == NEW and fine, ("gained", event)
            assert event.origin in letters[0] | letters[1] or skipped, ("gained without a reason", event)
    ids_before = {e.id for e in world.log.events if e.origin in before}
    ids_now = {e.id for e in world.log.events if e.origin in now}
    for event in inside:
        fine = event.alive(NEW) and event.id not in worse
        missing = event.origin in letters[1] or (
            event.origin in letters[0] and event.received_us < settled - WINDOW_US
        )
        if fine and missing and event.id not in ids_before:
            assert event.id in ids_now, ("not gained", event)


def memory(folder: Path, deaths: list[str], store: list[Store]) -> Replayable:
    made = MortalMemory(store[0])
    made.deaths = deaths
    return made


def duckdb(folder: Path, deaths: list[str]) -> Replayable:
    made = MortalDuckDb(DuckDbSettings(), str(folder / "w.duckdb"), str(folder), SystemClock())
    made.deaths = deaths
    return made


FAST = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
)  # fmt: skip


def in_memory(data: st.DataObject, refuses: bool) -> None:
    store = [Store()]
    play(data.draw, lambda folder, deaths: memory(folder, deaths, store), refuses=refuses)


@pytest.mark.slow
@settings(FAST, max_examples=150)
@given(st.data(), st.booleans())
def test_inv_dst_1_a_replay_keeps_each_id_once(data: st.DataObject, refuses: bool) -> None:
    """INV-DST-1, INV-LED-1: in memory, with copies, refused and skipped events, and a crash at any step."""
    in_memory(data, refuses)


@pytest.mark.slow
@settings(FAST, max_examples=6)
@given(st.data())
def test_inv_dst_1_a_replay_keeps_each_id_once_in_duckdb(data: st.DataObject) -> None:
    """INV-DST-1, INV-LED-1: in a DuckDB file."""
    play(data.draw, duckdb, refuses=False)


def chosen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The raw log decides: the first copy in the range gets the row."""
    honest = redo.redone

    def broken(piece: Piece, *rest: Any) -> redo.Redone:
        made = honest(piece, *rest)
        if piece.rows is None:
            return made
        _, first = np.unique(piece.rows["message_id"].to_numpy(), return_index=True)
        rows = {"events": [piece.rows.take(sorted(first))]}
        return replace(made, step=replace(made.step, tables=rows))

    monkeypatch.setattr(replay, "redone", broken)


def not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gained is not compared with the rows of its id."""
    monkeypatch.setattr(MemoryDestination, "present", lambda *rest: set())


def revived_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead letter becomes a row though its corrected copy may still come."""
    monkeypatch.setattr(FakeRaw, "settled_us", lambda self, vector: SETTLED)


def not_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that were there stay beside the new ones."""
    monkeypatch.setattr(MemoryDestination, "take_away", counting_only)


def counting_only(self: MemoryDestination, one: Redo) -> bool:
    rows = {name: list(held) for name, held in self.store.rows.items()}
    done = honest_take_away(self, one)
    self.store.rows.update(rows)
    return done


honest_take_away = MemoryDestination.take_away


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [chosen_anew, not_looked_up, revived_young, not_taken_away])
def test_broken_replays_lose_or_double_rows(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Each rule of redo.py is needed: without it, the same histories fail."""
    breaks(monkeypatch)

    @settings(FAST, max_examples=1000, phases=(Phase.generate,), derandomize=True, database=None)
    @given(st.data(), st.booleans())
    def histories(data: st.DataObject, refuses: bool) -> None:
        in_memory(data, refuses)

    with pytest.raises(AssertionError):
        histories()

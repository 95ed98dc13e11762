"""One contract for every destination of class T (destinations/port.py): run over the registry.

INV-DST-1 only a step writes rows and positions, and it compares first; INV-DST-2 a subset of partitions; INV-DST-4 no
row before the table fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from headwater.destinations import registry
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.load import counted
from headwater.destinations.memory import MemoryDestination
from headwater.destinations.port import Counts, Destination, Outcome, PositionRow, Redo, Replayable, Step
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.event.piece import Range
from headwater.event.position import EMPTY
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected
from tests.chains import LOG, WRITER, rows, vector
from tests.rigs.postgres import Server

PIPELINE = "cluster/warehouse/main"
PARTITIONS = (0, 1, 2, 3)


@dataclass
class Subject:
    """A destination, how to read its rows, and how to make it refuse message ``m3``."""

    destination: Destination
    read: Callable[[], list[dict[str, Any]]]
    refuse: Callable[[], None]
    again: Callable[[], Destination]
    remove: Callable[[], None]
    """Make it disappear."""
    fail: Callable[[], None]
    """Have the next COMMIT refused, or ``m1`` where there is none."""


def duckdb_subject(folder: Path, request: pytest.FixtureRequest) -> Subject:
    settings = registry.KINDS["duckdb"].settings()
    place = registry.Place(str(folder), str(folder), SystemClock())
    made = registry.make(settings, place)
    assert isinstance(made, DuckDbDestination)

    def read() -> list[dict[str, Any]]:
        return made.sql.query("select * from events order by _hw_seq", rows_max=100_000).rows.to_pylist()

    def refuse() -> None:
        made.fit({"events": [rows(0, 1, PARTITIONS).schema]})
        made.write.execute("create table other as from events")
        made.write.execute("drop table events")
        made.write.execute("create table events (message_id varchar check (message_id <> 'm3'))")
        made.read_columns()

    def remove() -> None:
        for file in folder.glob("*.duckdb*"):
            file.unlink(missing_ok=True) if file.is_file() else None

    def failing() -> None:
        raise duckdb.ConstraintException("refused")

    def fail() -> None:
        made.commit = failing  # type: ignore[method-assign]

    return Subject(made, read, refuse, lambda: registry.make(settings, place), remove, fail)


def postgres_subject(folder: Path, request: pytest.FixtureRequest) -> Subject:
    server: Server = request.getfixturevalue("postgres")
    import psycopg

    from headwater.destinations.postgres.write import PostgresDestination

    schema = server.schema()
    settings = PostgresSettings(url=server.url(), schema=schema)
    place = registry.Place(str(folder), str(folder), SystemClock())
    made = registry.make(settings, place)
    assert isinstance(made, PostgresDestination)

    def read() -> list[dict[str, Any]]:
        with server.connect(row_factory=psycopg.rows.dict_row) as base:
            if base.execute("select to_regclass(%s) as t", (f"{schema}.events",)).fetchone() == {"t": None}:
                return []
            return base.execute(f"select * from {schema}.events order by _hw_seq").fetchall()

    def refuse() -> None:
        made.fit({"events": [rows(0, 1, PARTITIONS).schema]})
        server.ask(f"alter table {schema}.events add check (message_id <> 'm3')")

    def failing(cursor: object) -> None:
        raise psycopg.errors.CheckViolation("refused")

    def fail() -> None:
        made.commit = failing  # type: ignore[method-assign]

    def remove() -> None:
        server.ask(f"drop schema {schema} cascade")

    return Subject(made, read, refuse, lambda: registry.make(settings, place), remove, fail)


def memory_subject(folder: Path, request: pytest.FixtureRequest) -> Subject:
    made = registry.make(registry.KINDS["memory"].settings(), registry.Place("", "", SystemClock()))
    assert isinstance(made, MemoryDestination)
    store = made.store

    def refuse() -> None:
        made.accepts = lambda row: row["message_id"] != "m3"

    def remove() -> None:
        store.exists = False

    def fail() -> None:
        made.accepts = lambda row: row["message_id"] != "m1"

    return Subject(
        made,
        lambda: sorted(store.rows.get("events", []), key=lambda row: row["_hw_seq"]),
        refuse,
        lambda: MemoryDestination(store),
        remove,
        fail,
    )


SUBJECTS = {"duckdb": duckdb_subject, "memory": memory_subject, "postgres": postgres_subject}


def test_every_kind_is_under_contract() -> None:
    assert set(SUBJECTS) == set(registry.KINDS)


@pytest.fixture(params=sorted(SUBJECTS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    made = SUBJECTS[request.param](tmp_path, request)
    made.destination.open(create=True)
    made.destination.place(PIPELINE, {p: PositionRow(EMPTY.encode()) for p in PARTITIONS})
    yield made
    made.destination.close()


def step(
    first: int, count: int, partitions: tuple[int, ...] = PARTITIONS, table: pa.Table | None = None
) -> Step:
    table = rows(first, count, partitions) if table is None else table
    added = {p: {"web": Counts(out=0)} for p in partitions}
    for p, streams in counted(table, "rows").items():
        added[p] = {name: Counts(out=c.rows, rows=c.rows) for name, c in streams.items()}
    return Step(
        PIPELINE,
        partitions,
        vector(first).encode(),
        vector(first + count).encode(),
        {"events": [table]},
        added,
        7,
        "me",
    )


def carry_out(destination: Destination, one: Step) -> Outcome:
    destination.fit({name: [table.schema for table in sets] for name, sets in one.tables.items()})
    return destination.step(one)


def ids(subject: Subject) -> list[str]:
    return [row["message_id"] for row in subject.read()]


def test_a_step_writes_rows_positions_and_counters_together(subject: Subject) -> None:
    assert carry_out(subject.destination, step(0, 10)) is Outcome.DONE
    assert ids(subject) == [f"m{n}" for n in range(10)]
    held = subject.destination.positions(PIPELINE)
    assert set(held) == set(PARTITIONS)
    assert {row.vector for row in held.values()} == {vector(10).encode()}
    assert sum(row.total.rows for row in held.values()) == 10
    assert sum(row.streams["app"].out for row in held.values() if "app" in row.streams) == 4
    assert {(row.config_epoch, row.owner) for row in held.values()} == {(7, "me")}


def test_inv_dst_1_a_step_that_begins_elsewhere_writes_nothing(subject: Subject) -> None:
    """INV-DST-1: blind, late and repeated steps are MOVED."""
    assert carry_out(subject.destination, step(0, 10)) is Outcome.DONE
    before = subject.destination.positions(PIPELINE)
    for wrong in (step(0, 10), step(5, 10), step(20, 5)):
        assert carry_out(subject.destination, wrong) is Outcome.MOVED
    assert len(ids(subject)) == 10
    assert subject.destination.positions(PIPELINE) == before
    assert carry_out(subject.destination, step(10, 5)) is Outcome.DONE


def test_inv_dst_1_one_partition_elsewhere_stops_the_whole_step(subject: Subject) -> None:
    """INV-DST-1: the comparison is over every partition of the step; all or nothing."""
    assert carry_out(subject.destination, step(0, 4, (1,))) is Outcome.DONE
    assert carry_out(subject.destination, step(0, 8)) is Outcome.MOVED
    assert len(ids(subject)) == 4
    assert subject.destination.positions(PIPELINE)[0].vector == EMPTY.encode()


def test_inv_dst_2_a_subset_of_partitions_moves_alone(subject: Subject) -> None:
    """INV-DST-2: the others stand where they stood, and may come later."""
    whole = rows(0, 8, PARTITIONS)
    for some in ((1, 3), (0, 2)):
        part = whole.filter(pa.compute.is_in(whole["_hw_partition"], value_set=pa.array(some, pa.uint16())))
        assert carry_out(subject.destination, step(0, 8, some, part)) is Outcome.DONE
    assert ids(subject) == [f"m{n}" for n in range(8)]


def test_a_missing_position_row_is_moved(subject: Subject) -> None:
    assert carry_out(subject.destination, step(0, 4, (0, 9), rows(0, 4, (0, 9)))) is Outcome.MOVED
    assert 9 not in subject.destination.positions(PIPELINE)


def test_rows_that_are_missing_are_placed_and_others_left(subject: Subject) -> None:
    """Several nodes may begin one destination: whoever comes later changes nothing."""
    assert carry_out(subject.destination, step(0, 4, (0, 1), rows(0, 4, (0, 1)))) is Outcome.DONE
    before = subject.destination.positions(PIPELINE)
    new = {p: PositionRow(vector(9).encode(), owner="other") for p in (0, 3, 4)}
    subject.destination.place(PIPELINE, new, missing_only=True)
    assert subject.destination.positions(PIPELINE) == {**before, 4: new[4]}
    subject.destination.place(PIPELINE, new)
    assert subject.destination.positions(PIPELINE) == {**before, **new}


def test_pipelines_do_not_see_each_other(subject: Subject) -> None:
    subject.destination.place("cluster/warehouse/replay:1", {0: PositionRow(vector(3).encode())})
    assert set(subject.destination.positions("cluster/warehouse/replay:1")) == {0}
    assert carry_out(subject.destination, step(0, 4)) is Outcome.DONE


def test_inv_dst_4_fitting_is_additive_and_idempotent(subject: Subject) -> None:
    """INV-DST-4: a column appears before its first row does, and fitting again changes nothing."""
    assert carry_out(subject.destination, step(0, 4)) is Outcome.DONE
    wider = rows(4, 4, PARTITIONS, {"price": pa.array([1.5, None, 2.0, 3.0])})
    for _ in range(3):
        subject.destination.fit({"events": [wider.schema]})
    assert carry_out(subject.destination, step(4, 4, table=wider)) is Outcome.DONE
    assert [row.get("price") for row in subject.read()] == [None] * 4 + [1.5, None, 2.0, 3.0]
    assert carry_out(subject.destination, step(8, 2)) is Outcome.DONE


def test_a_refused_row_refuses_the_step_and_nothing_is_written(subject: Subject) -> None:
    subject.refuse()
    one = step(0, 6)
    with pytest.raises(Rejected):
        carry_out(subject.destination, one)
    assert ids(subject) == []
    assert {row.vector for row in subject.destination.positions(PIPELINE).values()} == {EMPTY.encode()}
    table = one.tables["events"][0]
    subject.destination.try_rows("events", table.slice(0, 3))
    with pytest.raises(Rejected):
        subject.destination.try_rows("events", table.slice(3, 1))
    assert ids(subject) == []
    assert carry_out(subject.destination, step(0, 3)) is Outcome.DONE


def test_what_is_committed_outlives_the_connection(subject: Subject) -> None:
    assert carry_out(subject.destination, step(0, 4)) is Outcome.DONE
    held = subject.destination.positions(PIPELINE)
    subject.destination.close()
    subject.destination.close()
    with_new = subject.again()
    with_new.open(create=False)
    assert with_new.positions(PIPELINE) == held
    assert not with_new.empty()
    with_new.close()


def test_a_destination_that_is_gone_is_not_made_again_by_itself(subject: Subject) -> None:
    subject.destination.close()
    subject.remove()
    with pytest.raises(Misconfigured) as raised:
        subject.destination.open(create=False)
    assert raised.value.code == "destination_missing"


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_an_unopened_destination_answers_with_our_errors(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    made = SUBJECTS[kind](tmp_path, request).destination
    with pytest.raises(HeadwaterError):
        made.positions(PIPELINE)


# -- what a replay needs (Replayable)

REPLAY = "cluster/warehouse/replay:1"


def replayable(subject: Subject, count: int = 10) -> Replayable:
    """The destination with ``count`` rows and a replay that stands at their beginning."""
    if not subject.destination.capabilities.replays:
        pytest.skip(f"{subject.destination.capabilities.step_class}: rows cannot be made again")
    assert carry_out(subject.destination, step(0, count)) is Outcome.DONE
    subject.destination.place(REPLAY, {p: PositionRow(EMPTY.encode()) for p in PARTITIONS})
    return cast(Replayable, subject.destination)


def between(first: int, end: int) -> tuple[Range, ...]:
    return (Range(WRITER, LOG, first, end),)


def again(first: int, count: int, expected: int, table: pa.Table | None = None) -> Step:
    """The step of a replay that makes these rows again."""
    one = step(first, count, table=table)
    added = {
        p: {name: Counts(rows=c.rows) for name, c in streams.items()} for p, streams in one.added.items()
    }
    redo = Redo("events", between(first, first + count), expected, PIPELINE, added)
    return replace(one, pipeline=REPLAY, redo=redo)


def test_inv_dst_1_a_replay_puts_rows_in_the_place_of_others(subject: Subject) -> None:
    """INV-DST-1, INV-LED-1: rows, the replay's position and the main counters change together."""
    destination = replayable(subject)
    main = destination.positions(PIPELINE)
    made = rows(0, 6, PARTITIONS, {"price": pa.array([1.0] * 6)})
    assert carry_out(destination, again(0, 6, 6, made)) is Outcome.DONE
    assert ids(subject) == [f"m{n}" for n in range(10)]
    assert [row.get("price") for row in subject.read()] == [1.0] * 6 + [None] * 4
    assert {row.vector for row in destination.positions(REPLAY).values()} == {vector(6).encode()}
    assert totals(destination) == totals_of(main)
    assert {p: row.vector for p, row in destination.positions(PIPELINE).items()} == {
        p: row.vector for p, row in main.items()
    }


def totals(destination: Destination) -> dict[int, Counts]:
    return totals_of(destination.positions(PIPELINE))


def totals_of(held: dict[int, PositionRow]) -> dict[int, Counts]:
    return {p: row.total for p, row in held.items()}


def test_inv_led_1_rows_that_do_not_come_back_are_counted_off(subject: Subject) -> None:
    """INV-LED-1: `rows` follows what was really taken away and inserted."""
    destination = replayable(subject)
    fewer = again(0, 4, 4, rows(0, 2, PARTITIONS))
    assert carry_out(destination, fewer) is Outcome.DONE
    assert ids(subject) == ["m0", "m1", *(f"m{n}" for n in range(4, 10))]
    assert {p: total.rows for p, total in totals(destination).items()} == {0: 3, 1: 3, 2: 1, 3: 1}


@pytest.mark.parametrize("wrong", ["position", "rows"])
def test_inv_dst_1_a_replay_that_finds_something_else_writes_nothing(subject: Subject, wrong: str) -> None:
    """INV-DST-1: neither at another position, nor where the rows are others than those that were looked at."""
    destination = replayable(subject)
    before, main = subject.read(), destination.positions(PIPELINE)
    one = again(2, 4, 4) if wrong == "position" else again(0, 4, 3)
    assert carry_out(destination, one) is Outcome.MOVED
    assert subject.read() == before and destination.positions(PIPELINE) == main
    assert {row.vector for row in destination.positions(REPLAY).values()} == {EMPTY.encode()}
    assert carry_out(destination, again(0, 4, 4)) is Outcome.DONE


def test_a_row_that_is_refused_keeps_those_that_were_to_go(subject: Subject) -> None:
    destination = replayable(subject, 3)
    before = subject.read()
    subject.fail()
    with pytest.raises(HeadwaterError):
        carry_out(destination, again(0, 3, 3))
    assert subject.read() == before


def test_the_origins_that_are_held_are_told(subject: Subject) -> None:
    destination = replayable(subject)
    found = destination.origins("events", (*between(2, 4), *between(8, 99), Range(WRITER, LOG + 1, 0, 99)))
    assert sorted(found["_hw_seq"].to_pylist()) == [2, 3, 8, 9]
    told = {(row["_hw_seq"], row["key_id"], row["_hw_partition"]) for row in found.to_pylist()}
    assert told == {(2, "web", 2), (3, "app", 3), (8, "web", 0), (9, "app", 1)}
    assert destination.origins("none", between(0, 9)).num_rows == 0
    assert destination.origins("events", ()).num_rows == 0


def test_ids_that_have_a_row_are_told(subject: Subject) -> None:
    destination = replayable(subject)
    asked = pa.table(
        {
            "number": pa.array([7, 8, 9, 3], pa.uint32()),
            "key_id": ["web", "app", "web", "app"],
            "message_id": ["m1", "m1", "m4", "m9"],
        }
    )
    assert destination.present("events", asked, None, None) == {7, 9, 3}
    first_us = 1_790_000_000_000_000
    assert destination.present("events", asked, first_us + 2, first_us + 9) == {9, 3}
    assert destination.present("events", asked, first_us + 2, first_us + 8) == {9}
    assert destination.present("none", asked, None, None) == set()


def test_a_replay_is_forgotten_with_its_table(subject: Subject) -> None:
    destination = replayable(subject)
    destination.fit({"events_try": [rows(0, 1, PARTITIONS).schema]})
    assert destination.has("events_try")
    for _ in range(2):
        destination.forget(REPLAY, "events_try")
        assert not destination.has("events_try") and not destination.positions(REPLAY)
    assert len(destination.positions(PIPELINE)) == 4 and len(ids(subject)) == 10

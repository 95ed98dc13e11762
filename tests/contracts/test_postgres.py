"""PostgreSQL's own side of the contract: values, names, limits, privileges, and several nodes at one schema."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.destinations.load import counted
from headwater.destinations.port import Counts, Outcome, OutcomeUnknown, PositionRow, Step
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.event.position import EMPTY
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from tests.chains import LOG, WRITER, rows, vector
from tests.rigs.postgres import Proxy, Server

pytest.importorskip("psycopg")
from headwater.destinations.postgres import write
from headwater.destinations.postgres.write import PostgresDestination

PIPELINE = "cluster/pg/main"
PARTITIONS = (0, 1)
LONG = "ä" * 31


@dataclass
class Place:
    """A schema of its own on the server."""

    server: Server
    schema: str

    def made(self, **settings: Any) -> PostgresDestination:
        """A destination there, open and begun."""
        found = PostgresDestination(
            PostgresSettings(**{"url": self.server.url(), "schema": self.schema, **settings}),
            "/",
            SystemClock(),
        )
        found.open(create=True)
        found.place(PIPELINE, {p: PositionRow(EMPTY.encode()) for p in PARTITIONS}, missing_only=True)
        return found

    def read(self, columns: str) -> list[tuple[Any, ...]]:
        return self.server.ask(f"select {columns} from {self.schema}.events order by _hw_seq")

    def types(self) -> dict[str, str]:
        return dict(
            self.server.ask(
                "select column_name, data_type from information_schema.columns "
                "where table_schema = %s and table_name = 'events'",
                self.schema,
            )
        )


@pytest.fixture
def place(postgres: Server) -> Place:
    return Place(postgres, postgres.schema())


@pytest.fixture
def warehouse(place: Place) -> Iterator[PostgresDestination]:
    made = place.made()
    yield made
    made.close()


def table(first: int, count: int, more: dict[str, pa.Array] | None = None) -> pa.Table:
    return rows(first, count, PARTITIONS, more)


def step_of(first: int, made: pa.Table, partitions: tuple[int, ...] = PARTITIONS) -> Step:
    added: dict[int, dict[str, Counts]] = {p: {} for p in partitions}
    for p, streams in counted(made, "rows").items():
        added[p] = {name: Counts(out=c.rows, rows=c.rows) for name, c in streams.items()}
    origin, target = vector(first).encode(), vector(first + made.num_rows).encode()
    return Step(PIPELINE, partitions, origin, target, {"events": [made]}, added, 1, "me")


def load(destination: PostgresDestination, first: int, **more: pa.Array) -> Outcome:
    """Insert rows with these columns ("price__text" stands for "price|text")."""
    count = len(next(iter(more.values())))
    made = table(first, count, {name.replace("__", "|"): column for name, column in more.items()})
    destination.fit({"events": [made.schema]})
    return destination.step(step_of(first, made))


def json_text(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def with_unmapped(values: list[str | None]) -> dict[str, Any]:
    return {"_unmapped": json_text(values)}


# -- values


def test_values_come_back_as_they_were(warehouse: PostgresDestination, place: Place) -> None:
    texts = ["", None, 'a "b" \\ c', "line\nbreak\ttab", "naïve 😀", "\\N", ",;", "\u0001"]
    numbers = [0.0, -1.5, math.inf, -math.inf, None, 1e300, 5e-324, 0.1]
    load(
        warehouse,
        0,
        label=pa.array(texts),
        size=pa.array(numbers),
        ok=pa.array([True, False, None, True, None, False, True, True]),
        colour=pa.array(["red", None, "blue", "red", "", "x", "y", "z"]).dictionary_encode(),
    )
    found = place.read("label, size, ok, colour, _hw_writer, _hw_log, _hw_seq, _hw_row, _hw_partition")
    assert [row[0] for row in found] == texts
    assert [row[1] for row in found] == numbers
    assert [row[2] for row in found] == [True, False, None, True, None, False, True, True]
    assert [row[3] for row in found] == ["red", None, "blue", "red", "", "x", "y", "z"]
    assert {(int(row[4]), int(row[5])) for row in found} == {(WRITER, LOG)}
    assert [int(row[6]) for row in found] == list(range(8))
    assert [row[8] for row in found] == [0, 1] * 4
    (first,) = place.read("received_at")[0]
    assert first == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert warehouse.drift() == ()


def test_types_are_those_that_a_person_expects(warehouse: PostgresDestination, place: Place) -> None:
    load(warehouse, 0, price=pa.array([1.5]), ok=pa.array([True]), tags=pa.array(["[1]"]))
    types = place.types()
    assert (types["price"], types["ok"], types["message_id"]) == ("double precision", "boolean", "text")
    assert (types["received_at"], types["_unmapped"]) == ("timestamp with time zone", "jsonb")
    assert (types["_hw_writer"], types["_hw_row"], types["_hw_partition"]) == ("numeric", "bigint", "integer")


def test_characters_that_it_refuses_are_replaced_and_counted(
    warehouse: PostgresDestination, place: Place
) -> None:
    """A NUL, and in JSON its escape and half surrogates: else each such visitor's row would be a dead letter."""
    load(
        warehouse,
        0,
        label=pa.array(["a\0b", "plain", "\0"]),
        _unmapped=json_text(['{"a":"x\\u0000y"}', '{"b":"\\ud83d\\ude00 \\ud800"}', '{"c":"\\\\u0000"}']),
    )
    assert [label for (label,) in place.read("label")] == ["a\ufffdb", "plain", "\ufffd"]
    found = [value for (value,) in place.read("_unmapped")]
    assert found == [{"a": "x\ufffdy"}, {"b": "😀 \ufffd"}, {"c": "\\u0000"}]
    assert [(d.column, d.count) for d in warehouse.drift()] == [("label", 2)]


def test_a_second_kind_is_cast_where_it_fits_and_kept_where_not(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(
        warehouse,
        0,
        price=pa.array([1.5, None, None, None, None]),
        price__text=pa.array([None, " 2.5 ", 'dear "x"\n', "1e999", None]),
        **with_unmapped([None, None, '{"old": 1}', "{}", None]),
    )
    assert place.read("price, _unmapped") == [
        (1.5, None),
        (2.5, None),
        (None, {"old": 1, "price": 'dear "x"\n'}),
        (None, {"price": "1e999"}),
        (None, None),
    ]
    (drift,) = warehouse.drift()
    assert (drift.table, drift.column, drift.count, drift.example) == ("events", "price", 2, 'dear "x"\n')


def test_a_kind_that_never_fits_stands_unmapped_beside_one_that_does(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(warehouse, 0, ok=pa.array([True, None]), ok__number=pa.array([None, 5.5]))
    assert place.read("ok, _unmapped") == [(True, None), (None, {"ok": 5.5})]


def test_any_value_fits_a_text_column_and_whole_numbers_stay_whole(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(warehouse, 0, sku=pa.array(["a"]))
    load(warehouse, 1, sku__number=pa.array([5.0, 5.5, 1e300]))
    load(warehouse, 4, sku__boolean=pa.array([True]))
    assert [sku for (sku,) in place.read("sku")] == ["a", "5", "5.5", "1e+300", "true"]


def test_a_frozen_table_keeps_new_columns_unmapped(warehouse: PostgresDestination, place: Place) -> None:
    load(warehouse, 0, price=pa.array([1.0]))
    frozen = place.made(columns="freeze")
    load(frozen, 1, price=pa.array([2.0]), colour=pa.array(["red"]), size=pa.array([4.0]))
    load(frozen, 2, colour=pa.array([None], pa.string()))
    frozen.close()
    assert place.read("price, _unmapped") == [(1.0, None), (2.0, {"colour": "red", "size": 4}), (None, None)]
    assert "colour" not in place.types()


def test_a_column_of_a_type_changed_by_hand_is_never_spoilt(
    warehouse: PostgresDestination, place: Place
) -> None:
    """COPY BINARY of a double into a bigint of equal width would store its bits."""
    load(warehouse, 0, price=pa.array([1.0]), label=pa.array(["a"]))
    place.server.ask(
        f"alter table {place.schema}.events alter price type bigint, alter label type uuid using null"
    )
    load(warehouse, 1, price=pa.array([5.0, 5.5]), label=pa.array(["b", None]))
    assert place.read("price, _unmapped") == [(1, None), (5, {"label": "b"}), (None, {"price": 5.5})]
    assert {(d.column, d.count) for d in warehouse.drift()} == {("price", 1), ("label", 1)}


@pytest.mark.parametrize(
    ("kind", "given", "held"),
    [
        ("smallint", [1.0, 40000.0], [1, None]),
        ("numeric", [-12345678.0, 0.5], [-12345678, None]),
        ("real", [0.5, 0.1], [0.5, None]),
        ("varchar(5)", [1.0, 2.5], ["1", "2.5"]),
        ("jsonb", [1.0, 2.5], [1, 2.5]),
        ("boolean", [1.0, 0.0], [None, None]),
    ],
)
def test_numbers_in_columns_of_other_types(
    warehouse: PostgresDestination, place: Place, kind: str, given: list[float], held: list[Any]
) -> None:
    warehouse.fit({"events": [table(0, 1).schema]})
    place.server.ask(f"alter table {place.schema}.events add column price {kind}")
    load(warehouse, 0, price=pa.array(given))
    found = place.read("price, _unmapped")
    assert [value for value, _ in found] == held
    lost = [{"price": number} if kept is None else None for number, kept in zip(given, held, strict=True)]
    assert [unmapped for _, unmapped in found] == lost


def test_names_that_differ_behind_byte_63_stay_two_columns(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(
        warehouse, 0, **{LONG + "äa": pa.array([1.0]), LONG + "äb": pa.array([2.0]), "xmin": pa.array([3.0])}
    )
    own = {name: value for name, value in place.types().items() if name.startswith(("ä", "xmin"))}
    assert len(own) == 3
    values = {row for name in own for row in place.read(f'"{name}"')}
    assert values == {(1.0,), (2.0,), (3.0,)}
    load(warehouse, 1, **{LONG + "äb": pa.array([4.0])})
    assert len(place.types()) == len(table(0, 1).schema) + 4  # the three, and _unmapped


def test_what_a_full_table_has_no_room_for_is_unmapped(warehouse: PostgresDestination, place: Place) -> None:
    warehouse.fit({"events": [table(0, 1).schema]})
    has = len(place.types())
    extra = ", ".join(f"add column c{n} int" for n in range(1600 - has - 1))
    place.server.ask(f"alter table {place.schema}.events {extra}")
    load(warehouse, 0, size=pa.array([1.0]), weight=pa.array(["x"]))
    assert place.read("size, _unmapped") == [(1.0, {"weight": "x"})]


def test_a_large_load_of_large_rows_comes_in_slices(warehouse: PostgresDestination, place: Place) -> None:
    big = [str(n) * 30_000 for n in range(10)] * 200
    load(warehouse, 0, label=pa.array(big))
    (found,) = place.server.ask(
        f"select count(*), sum(length(label)), count(distinct label) from {place.schema}.events"
    )
    assert found == (2000, 2000 * 30_000, 10)


def test_rows_that_a_trigger_or_a_limit_refuses_are_rejected(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(warehouse, 0, label=pa.array(["a"]))
    place.server.ask(f"alter table {place.schema}.events add unique (label) deferrable initially deferred")
    with pytest.raises(Rejected):
        load(warehouse, 1, label=pa.array(["b", "a"]))
    wrong = table(1, 1, {"label": pa.array(["a"])})
    with pytest.raises(Rejected):
        warehouse.try_rows("events", wrong)
    warehouse.try_rows("events", table(1, 1, {"label": pa.array(["b"])}))
    assert place.read("label") == [("a",)]


@pytest.mark.parametrize("first", [pa.array(["a"]), pa.array([1.0])], ids=["as text", "cast"])
def test_text_that_is_not_utf_8_is_refused_and_no_other_row(
    warehouse: PostgresDestination, place: Place, first: pa.Array
) -> None:
    load(warehouse, 0, label=first)
    bad = pa.array([b"5", b"\xff\xfe", b"6"]).view(pa.string())
    name = "label" if pa.types.is_string(first.type) else "label__text"
    with pytest.raises(Rejected):
        load(warehouse, 1, **{name: bad})
    made = table(1, 3, {name.replace("__", "|"): bad})
    with pytest.raises(Rejected):
        warehouse.try_rows("events", made.slice(1, 1))
    warehouse.try_rows("events", made.slice(2, 1))
    assert load(warehouse, 1, **{name: bad.slice(2)}) is Outcome.DONE


# -- server, role, secrets


def test_a_role_with_a_schema_of_its_own_needs_nothing_else(place: Place) -> None:
    role = f"role_{place.schema}"
    place.server.ask(f"create role {role} login")
    place.server.ask(f"create schema {place.schema} authorization {role}")
    made = place.made(url=place.server.url(role))
    load(made, 0, price=pa.array([1.0]))
    made.close()
    assert place.read("price") == [(1.0,)]
    other = PostgresDestination(
        PostgresSettings(url=place.server.url(role), schema=f"{place.schema}_x"), "/", SystemClock()
    )
    with pytest.raises(Misconfigured) as raised:
        other.open(create=True)
    assert raised.value.code == "permission"


@pytest.mark.parametrize(
    ("changed", "code", "kind"),
    [
        ({"user": "nobody_here"}, "login", Misconfigured),
        ({"database": "not_there"}, "database_missing", Misconfigured),
        ({"port": 1}, "postgres_unreachable", Unavailable),
    ],
)
def test_what_is_wrong_is_said_without_the_password(
    place: Place, changed: dict[str, Any], code: str, kind: type[HeadwaterError]
) -> None:
    settings = PostgresSettings(
        url=place.server.url(**changed),
        schema=place.schema,
        password="hunter2%",
    )
    made = PostgresDestination(settings, "/", SystemClock())
    with pytest.raises(kind) as raised:
        made.open(create=True)
    assert raised.value.code == code
    causes = f"{raised.value} {raised.value.__cause__} {settings!r}"
    assert "hunter2" not in causes and place.schema in causes


def test_a_server_without_tls_is_refused_where_it_is_wanted(place: Place) -> None:
    with pytest.raises(Misconfigured) as raised:
        place.made(tls="require")
    assert raised.value.code == "tls"


def test_the_password_is_read_from_its_file_at_each_connection(place: Place, tmp_path: Path) -> None:
    settings = PostgresSettings(url=place.server.url(), schema=place.schema, password_file="password")
    destination = PostgresDestination(settings, str(tmp_path), SystemClock())
    with pytest.raises(Misconfigured) as raised:
        destination.open(create=True)
    assert raised.value.code == "password_file"
    (tmp_path / "password").write_text("secret\n")
    assert destination.password() == "secret"
    destination.open(create=True)
    destination.close()


def test_a_database_of_another_encoding_is_refused(place: Place) -> None:
    name = f"latin_{place.schema}"
    place.server.ask(f"create database {name} encoding 'LATIN1' template template0")
    with pytest.raises(Misconfigured) as raised:
        place.made(url=place.server.url(database=name))
    assert raised.value.code == "encoding"


def test_the_session_is_as_the_protocol_wants_it(warehouse: PostgresDestination) -> None:
    shown = {
        name: warehouse.rows(f"show {name}")[0][0]
        for name in ("synchronous_commit", "idle_in_transaction_session_timeout", "lock_timeout")
    }
    assert shown == {
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": "10s",
        "lock_timeout": "5s",
    }


# -- several nodes


def test_steps_of_other_partitions_do_not_wait(place: Place) -> None:
    """Row locks only: one node is in the middle of a step, another one carries out its own."""
    one, other = place.made(), place.made(lock_timeout_s=0.2)
    whole = table(0, 8)
    mine, theirs = (whole.filter(pa.compute.equal(whole["_hw_partition"], p)) for p in PARTITIONS)
    one.fit({"events": [whole.schema]})
    other.fit({"events": [whole.schema]})
    step_one, step_other = (
        replace(step_of(0, part, (p,)), target=vector(8).encode()) for p, part in ((0, mine), (1, theirs))
    )
    reached: list[Outcome] = []
    commit = one.commit

    def meanwhile(cursor: Any) -> None:
        reached.append(other.step(step_other))
        with pytest.raises(Unavailable) as raised:
            other.step(step_one)  # of the same partition: it waits, and gives up
        assert raised.value.code == "lock_timeout"
        commit(cursor)

    one.commit = meanwhile  # type: ignore[method-assign]
    assert one.step(step_one) is Outcome.DONE
    assert reached == [Outcome.DONE]
    assert other.step(step_one) is Outcome.MOVED
    one.close()
    other.close()
    assert [int(seq) for (seq,) in place.read("_hw_seq")] == list(range(8))


@pytest.mark.slow
def test_many_nodes_make_and_widen_the_tables_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock alone does it: nobody has to try again."""
    monkeypatch.setattr(write, "RACE_TRIES", 1)
    nodes, rounds = 6, 5
    failed: list[BaseException] = []
    start = threading.Barrier(nodes)

    def run(number: int) -> None:
        try:
            start.wait(20)
            made = place.made(lock_timeout_s=30.0)
            for turn in range(rounds):
                own = {f"c{turn}_{n}": pa.array([1.0]) for n in range(number, number + 3)}
                made.fit({name: [table(0, 1, own).schema] for name in ("events", "events_try")})
            made.close()
        except BaseException as error:
            failed.append(error)

    run_all([partial(run, number) for number in range(nodes)])
    assert not failed, failed
    columns = [name for name in place.types() if name.startswith("c")]
    assert len(columns) == rounds * (nodes + 2)


def run_all(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_a_column_that_another_node_added_is_used(place: Place) -> None:
    one, other = place.made(), place.made()
    load(one, 0, price=pa.array([1.0]))
    load(other, 1, price=pa.array([2.0]), colour=pa.array(["red"]))
    load(one, 2, price=pa.array([3.0]), colour=pa.array(["blue"]))
    assert place.read("price, colour, _unmapped") == [
        (1.0, None, None),
        (2.0, "red", None),
        (3.0, "blue", None),
    ]
    one.close()
    other.close()


def test_a_column_that_somebody_dropped_is_made_again(warehouse: PostgresDestination, place: Place) -> None:
    load(warehouse, 0, price=pa.array([1.0]))
    place.server.ask(f"alter table {place.schema}.events drop column price")
    load(warehouse, 1, price=pa.array([2.0]))
    load(warehouse, 2, price=pa.array([3.0]))
    assert place.read("price, _unmapped") == [(None, None), (None, {"price": 2}), (3.0, None)]


def test_a_new_column_that_waits_for_a_long_query_fails_nobody_else(place: Place) -> None:
    """Loads queue behind the one that wants the table for itself; it gives up after half of their patience."""
    one, other = place.made(lock_timeout_s=2.0), place.made(lock_timeout_s=2.0)
    load(one, 0, price=pa.array([1.0]))
    wider = table(1, 1, {"price": pa.array([2.0]), "colour": pa.array(["red"])})
    failed: list[str] = []

    def widen() -> None:
        with pytest.raises(Unavailable) as raised:
            other.fit({"events": [wider.schema]})
        failed.append(raised.value.code)

    with place.server.connect() as query:
        query.execute("begin")
        query.execute(f"select count(*) from {place.schema}.events")
        thread = threading.Thread(target=widen)
        thread.start()
        waits = "select count(*) from pg_locks where not granted and relation = %s::regclass"
        while place.server.ask(waits, f"{place.schema}.events") == [(0,)]:
            assert thread.is_alive()
        began = time.monotonic()
        assert load(one, 1, price=pa.array([2.0])) is Outcome.DONE
        assert time.monotonic() - began < 1.6
        thread.join(20)
    assert failed == ["lock_timeout"]
    other.fit({"events": [wider.schema]})
    assert place.types()["colour"] == "text"
    one.close()
    other.close()


# -- connections that break


def test_a_connection_that_is_killed_in_a_step_leaves_nothing(
    warehouse: PostgresDestination, place: Place
) -> None:
    load(warehouse, 0, price=pa.array([1.0]))
    assert warehouse.base is not None
    pid = warehouse.base.info.backend_pid
    insert = warehouse.insert

    def killed(*arguments: Any) -> None:
        insert(*arguments)
        place.server.ask("select pg_terminate_backend(%s, 5000)", pid)

    warehouse.insert = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable) as raised:
        load(warehouse, 1, price=pa.array([2.0]))
    assert not isinstance(raised.value, OutcomeUnknown)
    warehouse.insert = insert  # type: ignore[method-assign]
    warehouse.close()
    warehouse.open(create=False)
    assert {row.vector for row in warehouse.positions(PIPELINE).values()} == {vector(1).encode()}
    assert load(warehouse, 1, price=pa.array([2.0])) is Outcome.DONE
    assert place.read("price") == [(1.0,), (2.0,)]


@pytest.mark.parametrize("delivered", [False, True])
def test_a_connection_that_is_cut_during_commit_leaves_the_outcome_open(
    place: Place, delivered: bool
) -> None:
    """Both are OutcomeUnknown; only reading again tells them apart (protocol.md §5)."""
    proxy = Proxy(place.server.port)
    made = place.made(url=place.server.url(port=proxy.port))
    try:
        load(made, 0, price=pa.array([1.0]))
        proxy.deliver, proxy.cut_at = delivered, b"COMMIT\0"
        with pytest.raises(OutcomeUnknown):
            load(made, 1, price=pa.array([2.0]))
        assert proxy.cuts == 1
        made.close()
        made.open(create=False)
        held = {row.vector for row in made.positions(PIPELINE).values()}
        assert held == {vector(2 if delivered else 1).encode()}
        again = load(made, 1, price=pa.array([2.0]))
        assert again is (Outcome.MOVED if delivered else Outcome.DONE)
    finally:
        made.close()
        proxy.close()
    assert place.read("price") == [(1.0,), (2.0,)]


def test_a_transaction_that_ended_by_itself_is_no_commit(warehouse: PostgresDestination) -> None:
    """COMMIT of a failed transaction is answered ROLLBACK, without an error."""
    made = table(0, 1)
    warehouse.fit({"events": [made.schema]})
    commit = warehouse.commit

    def failed(cursor: Any) -> None:
        import psycopg

        with pytest.raises(psycopg.Error):
            cursor.execute("select 1/0")
        commit(cursor)

    warehouse.commit = failed  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        warehouse.step(step_of(0, made))
    warehouse.commit = commit  # type: ignore[method-assign]
    assert warehouse.step(step_of(0, made)) is Outcome.DONE


def test_tables_that_vanish_are_read_again(warehouse: PostgresDestination, place: Place) -> None:
    load(warehouse, 0, price=pa.array([1.0]))
    place.server.ask(f"drop table {place.schema}.events")
    with pytest.raises(Unavailable) as raised:
        load(warehouse, 1, price=pa.array([2.0]))
    assert raised.value.code == "tables_changed"
    warehouse.close()
    warehouse.open(create=False)
    assert load(warehouse, 1, price=pa.array([2.0])) is Outcome.DONE
    assert place.read("price") == [(2.0,)]

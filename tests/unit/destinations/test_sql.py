"""SQL for readers (destinations/duckdb/sql.py): one reading statement, within limits, beside loads."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.destinations.duckdb import sql
from headwater.destinations.duckdb.settings import DuckDbSettings, SqlSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.kit.clock import SystemClock
from headwater.kit.errors import Busy, Rejected, Unavailable
from tests.chains import rows

LIMITS = SqlSettings(
    time_max_s=2.0, rows_max=100, result_bytes_max=1_000_000, concurrent_max=2, queue_wait_s=0.05
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDbDestination]:
    made = DuckDbDestination(
        DuckDbSettings(sql=LIMITS), str(tmp_path / "w.duckdb"), str(tmp_path), SystemClock()
    )
    made.open(create=True)
    table = rows(0, 200, (0, 1))
    made.fit({"events": [table.schema]})
    made.insert("events", table)
    yield made
    made.close()


def ask(warehouse: DuckDbDestination, query: str, **limits: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sql.as_json(warehouse.sql.query(query, **limits).rows))
    return found


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) n from events",
        "with a as (select 1 n) from a",
        "from events select message_id limit 1;",
        "values (1)",
        "describe events",
        "show tables",
        "summarize events",
        "explain select * from events",
        "-- a remark\nselect 1",
    ],
)
def test_what_reads_is_answered(warehouse: DuckDbDestination, query: str) -> None:
    assert ask(warehouse, query)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "select 1; select 2",
        "insert into events (message_id) values ('x')",
        "with a as (insert into events (message_id) values ('x') returning 1) from a",
        "explain analyze insert into events (message_id) values ('x')",
        "delete from events",
        "drop table events",
        "create temp table t as select 1",
        "explain analyze create table t as select 1",
        "copy events to 'out.csv'",
        "export database 'out'",
        "attach 'other.duckdb'",
        "install httpfs",
        "load icu",
        "set memory_limit = '1TB'",
        "reset lock_configuration",
        "pragma disable_profiling",
        "call pragma_version()",
        "checkpoint",
        "begin",
        "commit",
        "rollback",
        "prepare a as select 1",
        "use main",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/*')",
        "select * from duckdb_secrets()",
        "select * from hw_load",
        "select * from hw_positions",
        "select * from table_",
        "select * from nowhere",
        "selekt 1",
    ],
)
def test_everything_else_is_refused_and_changes_nothing(
    warehouse: DuckDbDestination, query: str, tmp_path: Path
) -> None:
    table_ = pa.table({"secret": ["of this process"]})
    before = sorted(os.listdir(tmp_path))
    warehouse.write.register("hw_load", table_)
    with pytest.raises(Rejected):
        warehouse.sql.query(query)
    assert ask(warehouse, "select count(*) n from events") == [{"n": 200}]
    assert sorted(os.listdir(tmp_path)) == before


def test_a_column_that_is_not_there_yet_is_explained(warehouse: DuckDbDestination) -> None:
    with pytest.raises(Rejected) as raised:
        warehouse.sql.query("select plan from events")
    assert "with the first event that has it" in raised.value.help
    with pytest.raises(Rejected) as raised:
        warehouse.sql.query("selekt 1")
    assert not raised.value.help


def test_rows_and_bytes_are_bounded_and_said(warehouse: DuckDbDestination) -> None:
    answer = warehouse.sql.query("select * from range(1000000000)")
    assert (answer.rows.num_rows, answer.truncated) == (100, "rows")
    answer = warehouse.sql.query("select repeat('x', 1000) x from range(100000)", rows_max=100_000)
    assert answer.truncated == "bytes"
    assert answer.rows.nbytes < 4_000_000
    assert warehouse.sql.query("from range(100)").truncated == ""


LONG = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"


@pytest.mark.parametrize("query", ["select sleep_ms(60000)", LONG])
def test_a_long_query_is_stopped(warehouse: DuckDbDestination, query: str) -> None:
    with pytest.raises(Rejected) as raised:
        warehouse.sql.query(query, time_max_s=0.1)
    assert raised.value.code == "sql_time"
    assert ask(warehouse, "select 1 a") == [{"a": 1}]


def test_too_many_queries_are_told_to_wait(warehouse: DuckDbDestination) -> None:
    for _ in range(LIMITS.concurrent_max):
        warehouse.sql.places.acquire()
    with pytest.raises(Busy):
        warehouse.sql.query("select 1")
    for _ in range(LIMITS.concurrent_max):
        warehouse.sql.places.release()
    assert ask(warehouse, "select 1 a")


def test_a_closed_warehouse_says_so(warehouse: DuckDbDestination) -> None:
    warehouse.close()
    with pytest.raises(Unavailable):
        warehouse.sql.query("select 1")


def test_readers_are_answered_while_loads_run_and_see_whole_steps(warehouse: DuckDbDestination) -> None:
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(ask(warehouse, "select count(*) n from events")[0]["n"])

    reader = threading.Thread(target=read)
    reader.start()
    table = rows(200, 2000, (0, 1))
    for _ in range(20):
        warehouse.write.execute("BEGIN TRANSACTION")
        warehouse.insert("events", table)
        warehouse.write.execute("COMMIT")
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert all((n - 200) % 2000 == 0 for n in seen)


def test_json_keeps_values_exact(warehouse: DuckDbDestination) -> None:
    (row,) = ask(
        warehouse,
        """select 1::ubigint u, 9007199254740993::bigint big, 9007199254740992::bigint fine,
        sum(5::hugeint) total, 1.5::decimal(9,2) money, 12345678901234567.89::decimal(20,2) much,
        'nan'::double nan, timestamptz '2026-01-02 03:04:05.678901+02' at_,
        timestamp '2026-01-02 03:04:05' naive, date '2026-01-02' as "day", time '10:00:01' clock,
        'ab'::blob bytes, {'a': [1, null], 't': timestamptz '2026-01-01 00:00:00Z'} nested,
        map {'k': 1::ubigint} m, '{"j": 1}'::json js, null nothing, true yes, interval 1 day span""",
    )
    assert row == {
        "u": "1",
        "big": "9007199254740993",
        "fine": 9007199254740992,
        "total": 5,
        "money": 1.5,
        "much": "12345678901234567.89",
        "nan": "nan",
        "at_": "2026-01-02T01:04:05.678901Z",
        "naive": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "clock": "10:00:01",
        "bytes": "YWI=",
        "nested": {"a": [1, None], "t": "2026-01-01T00:00:00Z"},
        "m": {"k": "1"},
        "js": '{"j": 1}',
        "nothing": None,
        "yes": True,
        "span": row["span"],
    }


def test_columns_of_one_name_are_told_apart(warehouse: DuckDbDestination) -> None:
    assert ask(warehouse, "select 1 a, 2 a, 3 a") == [{"a": 1, "a_1": 2, "a_2": 3}]
    names = sql.columns_of(warehouse.sql.query("select 1 a, 'x' b, 2 a").rows)
    assert names == [
        {"name": "a", "type": "int32"},
        {"name": "b", "type": "string"},
        {"name": "a_1", "type": "int32"},
    ]


def test_an_empty_answer_has_its_columns(warehouse: DuckDbDestination) -> None:
    answer = warehouse.sql.query("select message_id from events where false")
    assert sql.columns_of(answer.rows) == [{"name": "message_id", "type": "string"}]
    assert sql.as_json(answer.rows) == b"[]"

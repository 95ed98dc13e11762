"""A query as a stream of pieces: every row, as it is made, and the place is free when the asker is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.destinations.duckdb import export
from headwater.destinations.duckdb.settings import DuckDbSettings, SqlSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.kit.clock import SystemClock
from headwater.kit.errors import Busy, Rejected, Unavailable

LIMITS = SqlSettings(
    time_max_s=1.0, rows_max=10, rows_limit=20, result_bytes_max=1000, concurrent_max=1, queue_wait_s=0.02
)
CLOCK = SystemClock()
ENDLESS = "from range(100000000000)"


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDbDestination]:
    made = DuckDbDestination(DuckDbSettings(sql=LIMITS), str(tmp_path / "w.duckdb"), str(tmp_path), CLOCK)
    made.open(create=True)
    yield made
    made.close()


def read(warehouse: DuckDbDestination, query: str, rows_max: int | None = None) -> tuple[pa.Table, dict]:
    told: dict[str, Any] = {}
    data = b"".join(export.pieces(warehouse.sql, query, rows_max, CLOCK, told))
    return pa.ipc.open_stream(data).read_all(), told


def test_every_row_comes_whatever_the_limits_on_answers_are(warehouse: DuckDbDestination) -> None:
    table, told = read(warehouse, "select range n, 'x' || range s, [range] l from range(5000)")
    assert table["n"].to_pylist() == list(range(5000))
    assert table["l"][4999].as_py() == [4999]
    assert (told["rows"], told["truncated"]) == (5000, "")


@pytest.mark.parametrize(
    ("limit", "rows", "truncated"), [(1, 1, "rows"), (2048, 2048, "rows"), (5000, 5000, "")]
)
def test_a_limit_is_kept_and_told(
    warehouse: DuckDbDestination, limit: int, rows: int, truncated: str
) -> None:
    table, told = read(warehouse, "from range(5000)", limit)
    assert (table.num_rows, told["rows"], told["truncated"]) == (rows, rows, truncated)


def test_no_rows_have_their_columns(warehouse: DuckDbDestination) -> None:
    table, told = read(warehouse, "select 1 a, 'x' a, 2.5 b where false")
    assert (table.schema.names, table.num_rows, told["rows"]) == (["a", "a_1", "b"], 0, 0)


def test_pieces_are_small_where_rows_are_large(
    warehouse: DuckDbDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PIECE_BYTES_MAX", 100_000)
    made = export.pieces(warehouse.sql, "select repeat('x', 10000) s from range(300)", None, CLOCK, {})
    sizes = [len(piece) for piece in made]
    assert max(sizes) < 120_000
    assert sum(sizes) > 3_000_000


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("drop table x", "sql_kind"),
        ("selec 1", "sql_syntax"),
        ("select * from nowhere", "sql_error"),
        ("select error('late') from range(1)", "sql_error"),
    ],
)
def test_what_cannot_be_answered_is_refused(warehouse: DuckDbDestination, query: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        read(warehouse, query)
    assert caught.value.code == code
    assert read(warehouse, "select 1")[0].num_rows == 1  # its place is free


@pytest.mark.slow
def test_the_time_holds_also_while_nobody_reads(warehouse: DuckDbDestination) -> None:
    made = export.pieces(warehouse.sql, ENDLESS, None, CLOCK, {})
    next(made)
    with pytest.raises(Busy):
        next(export.pieces(warehouse.sql, "select 1", None, CLOCK, {}))
    threading.Event().wait(1.2)
    with pytest.raises(Rejected, match="stopped after 1 s"):
        for _ in range(3):
            next(made)
    assert read(warehouse, "select 1")[0].num_rows == 1


def test_an_asker_that_goes_frees_the_place(warehouse: DuckDbDestination) -> None:
    made = export.pieces(warehouse.sql, ENDLESS, None, CLOCK, {})
    next(made)
    made.close()
    assert read(warehouse, "select 1")[0].num_rows == 1


def test_a_warehouse_that_closes_ends_the_pieces(warehouse: DuckDbDestination) -> None:
    made = export.pieces(warehouse.sql, "select count(*) from range(100000000000)", None, CLOCK, {})
    timer = threading.Timer(0.1, warehouse.sql.stop)
    timer.start()
    with pytest.raises(Unavailable):
        next(made)
    timer.join()


async def test_pieces_made_in_threads_end_when_they_are_closed_early(warehouse: DuckDbDestination) -> None:
    with ThreadPoolExecutor(2) as pool:
        held = export.pieces(warehouse.sql, ENDLESS, None, CLOCK, {})
        made = export.in_threads(held, pool)
        assert await anext(made)
        reading = asyncio.get_running_loop().create_task(anext(made))
        await asyncio.wait((reading,), timeout=0.001)
        reading.cancel()
        await asyncio.wait((reading,))
        await made.aclose()
        assert read(warehouse, "select 1")[0].num_rows == 1

"""Counting the rows of a DuckDB warehouse against its position rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from headwater.destinations.duckdb import deep
from headwater.destinations.duckdb.deep import StreamCount
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.kit.errors import Rejected
from tests.unit.destinations.test_worker import Place, running


def warehouse(place: Place) -> DuckDbDestination:
    destination = place.worker.deliverers["warehouse"].destination
    assert isinstance(destination, DuckDbDestination)
    return destination


def by_hand(place: Place, statement: str) -> None:
    """What somebody else did to the file."""
    cursor = warehouse(place).write.cursor()
    cursor.execute(statement)
    cursor.close()


async def counted(place: Place) -> dict[str, Any]:
    told, _ = await place.ask(op="deep", destination="warehouse")
    streams: dict[str, Any] = told["streams"]
    return streams


async def test_rows_that_are_as_they_were_loaded_agree(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        found = await counted(place)
        assert {name: (one["counted"], one["said"]) for name, one in found.items()} == {
            "app": (3, 3),
            "web": (5, 5),
        }
        assert not any(one["differences"] or one["doubled_rows"] or one["copies"] for one in found.values())


async def test_a_row_that_was_deleted_is_named_by_stream_and_partition(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        by_hand(place, "delete from events where _hw_seq = 1")
        found = await counted(place)
        assert found["web"]["differences"] == [{"partition": 1, "said": 2, "counted": 1}]
        assert (found["web"]["counted"], found["web"]["said"], found["app"]["differences"]) == (4, 5, [])


async def test_two_rows_of_one_origin_are_found_whatever_else_agrees(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        by_hand(place, "update events set _hw_seq = 1, message_id = 'other' where _hw_seq = 5")
        found = await counted(place)
        assert found["web"]["differences"] == []
        assert found["web"]["doubled_rows"] == 1
        assert found["web"]["doubled_examples"] == ["abcdef0000000000-7000000000000001-1-0"]
        assert found["web"]["copies"] == 0


async def test_copies_of_an_id_are_counted_with_the_time_between_the_closest(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        by_hand(place, "update events set message_id = 'm', received_at = to_timestamp(_hw_seq * _hw_seq) "
                       "where _hw_seq in (2, 4, 7)")  # fmt: skip
        found = await counted(place)
        assert (found["web"]["copies"], found["web"]["copies_apart_s"]) == (2, 12.0)
        assert found["app"]["copies"] == 0


async def test_rows_that_headwater_did_not_write_are_not_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        by_hand(place, "insert into events (message_id, key_id) values ('x', 'web'), ('x', 'web')")
        found = await counted(place)
        assert (found["web"]["counted"], found["web"]["copies"], found["web"]["doubled_rows"]) == (5, 0, 0)


async def test_a_destination_without_sql_says_that_it_cannot_be_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        with pytest.raises(Rejected, match="cannot be counted"):
            await place.ask(op="deep", destination="other")


@pytest.mark.slow
def test_counting_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    base = duckdb.connect(str(tmp_path / "x.duckdb"))
    base.execute(deep_ddl())
    base.execute(
        "insert into events select 'k', 0, 1, 1, range, 0, range::varchar, to_timestamp(range) from range(200000)"
    )
    with pytest.raises(Rejected, match="stopped after"):
        deep.count(base.cursor(), "x", "p", "events", 0.0001)
    assert deep.count(base.cursor(), "x", "p", "events", 60.0)["k"].counted == 200_000
    base.close()


def deep_ddl() -> str:
    from headwater.destinations.duckdb.write import POSITIONS_DDL

    return POSITIONS_DDL + (
        "; create table events(key_id varchar, _hw_partition usmallint, _hw_writer ubigint, _hw_log ubigint, "
        "_hw_seq ubigint, _hw_row uinteger, message_id varchar, received_at timestamp with time zone)"
    )


def test_partitions_that_differ_in_both_directions_are_both_told() -> None:
    found = deep.compared({("web", 1): 3, ("web", 2): 5}, {("web", 1): 4, ("web", 2): 4, ("new", 7): 1})
    assert found["web"] == StreamCount(
        counted=8, said=8, differences=[deep.Difference(1, 3, 4), deep.Difference(2, 5, 4)]
    )
    assert found["new"].differences == [deep.Difference(7, 0, 1)]

"""What a replay asks of a DuckDB table: which origins it holds, which ids have a row, and that rows go.

Origins are sought range by range: each is a condition on plain columns, which DuckDB answers from the least and
greatest values of its row groups, so that only the groups that hold the range are read. Numbers are written into the
statement (they are integers of ours); no name or value of an event ever is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa

from headwater.destinations.duckdb.table import quoted
from headwater.destinations.load import HELD_SCHEMA, add
from headwater.destinations.port import Counts, PositionRow, Redo
from headwater.event.piece import Range

WANTED = "hw_wanted"
"""The view of the ids that are sought: number, key_id, message_id."""
STREAM = "coalesce(CAST(key_id AS VARCHAR), '')"


def where(one: Range) -> str:
    """The condition for the origins of a range."""
    return (
        f"_hw_writer = {one.writer:d} AND _hw_log = {one.log:d} "
        f"AND _hw_seq >= {one.first:d} AND _hw_seq < {one.end:d}"
    )


def origins(base: duckdb.DuckDBPyConnection, table: str, ranges: Sequence[Range]) -> pa.Table:
    """See port.Replayable."""
    names = f"_hw_writer, _hw_log, _hw_seq, _hw_partition, {STREAM} AS key_id"
    found = [HELD_SCHEMA.empty_table()]
    for one in ranges:
        rows: pa.Table = base.sql(f"SELECT {names} FROM {quoted(table)} WHERE {where(one)}").to_arrow_table()
        found.append(rows.cast(HELD_SCHEMA))
    return pa.concat_tables(found)


def present(
    base: duckdb.DuckDBPyConnection, table: str, since_us: int | None, until_us: int | None
) -> set[int]:
    """See port.Replayable; the ids stand in the view WANTED."""
    bounds = ""
    if since_us is not None:
        bounds += f" AND e.received_at >= make_timestamptz({since_us:d})"
    if until_us is not None:
        bounds += f" AND e.received_at <= make_timestamptz({until_us:d})"
    found = base.execute(
        f"SELECT DISTINCT w.number FROM {WANTED} w JOIN {quoted(table)} e "
        f"ON e.message_id = w.message_id AND {STREAM.replace('key_id', 'e.key_id')} = w.key_id WHERE true{bounds}"
    ).fetchall()
    return {number for (number,) in found}


def remove(base: duckdb.DuckDBPyConnection, redo: Redo) -> list[tuple[int, str, int]]:
    """Delete the rows of the ranges; how many went of each partition and stream. Inside a transaction."""
    gone: list[tuple[int, str, int]] = []
    for one in redo.ranges:
        gone += base.execute(
            f"SELECT _hw_partition, {STREAM}, count(*) FROM {quoted(redo.table)} WHERE {where(one)} GROUP BY ALL"
        ).fetchall()
        base.execute(f"DELETE FROM {quoted(redo.table)} WHERE {where(one)}")
    return gone


def counted(row: PositionRow, added: Mapping[str, Counts]) -> PositionRow:
    """A position row with more counted."""
    streams = {0: dict(row.streams)}
    add(streams, {0: added})
    return replace(row, streams=streams[0])

"""Counting what the warehouse really holds, for ``headwater reconcile --deep``.

A position row says how many rows of each stream its partition has been given; here the rows themselves are counted, in
one read-only transaction with the position rows, so the two are of one moment while loads go on. DuckDB spills what
does not fit into its memory. Besides: rows of one origin (`_hw_writer, _hw_log, _hw_seq, _hw_row`) that stand there
twice, which nothing may ever cause, and copies of a message id, which are right when they came further apart than the
dedupe window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import msgspec

from headwater.destinations.duckdb.errors import translated
from headwater.destinations.duckdb.sql import interrupting, reading
from headwater.destinations.duckdb.table import quoted
from headwater.destinations.duckdb.write import POSITIONS_OF, counts_of
from headwater.kit.errors import HeadwaterError, Rejected

EXAMPLES_MAX = 5
ORIGIN = "_hw_writer, _hw_log, _hw_seq, _hw_row"

Cells = dict[tuple[str, int], int]
"""(stream, partition) → rows."""


class Difference(msgspec.Struct, frozen=True):
    """A partition of a stream whose rows are not as many as its position row says."""

    partition: int
    said: int
    counted: int


class StreamCount(msgspec.Struct, kw_only=True):
    """One stream, counted."""

    counted: int = 0
    """Rows that are there."""
    said: int = 0
    """Rows that the position rows account for."""
    differences: list[Difference] = []
    doubled_rows: int = 0
    """Rows whose origin another row has too, less one of each."""
    doubled_examples: list[str] = []
    copies: int = 0
    """Rows whose message id another row of the stream has too, less one of each."""
    copies_apart_s: float | None = None
    """How far apart the two closest of them were received."""


def count(
    cursor: duckdb.DuckDBPyConnection, path: str, pipeline: str, layout: str, time_max_s: float
) -> dict[str, StreamCount]:
    """Every stream of a layout. Rejected: it took longer than ``time_max_s``."""
    table = quoted(layout)
    with reading(cursor), interrupting(cursor, time_max_s) as late:
        try:
            said = said_by(cursor, pipeline)
            found = compared(said, counted_in(cursor, table))
            for look in (add_doubled, add_copies):
                if late.is_set():  # between two statements there was nothing to interrupt
                    raise too_long(time_max_s)
                look(cursor, table, found)
        except duckdb.Error as error:
            if late.is_set():
                raise too_long(time_max_s) from error
            raise failure(error, path) from error
    return found


def too_long(time_max_s: float) -> Rejected:
    """The answer when the time is over."""
    return Rejected(
        f"counting was stopped after {time_max_s:g} s", code="deep_time", help="allow more with --timeout"
    )


def failure(error: duckdb.Error, path: str) -> HeadwaterError:
    """DuckDB's error as ours."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return Rejected(
            str(error), code="deep_memory", help="raise memory_mib_max or temp_mib_max of the destination"
        )
    return translated(error, path)


def said_by(cursor: duckdb.DuckDBPyConnection, pipeline: str) -> Cells:
    """What the position rows account for."""
    return {
        (stream, partition): counts.rows
        for partition, _, text, _, _ in cursor.execute(POSITIONS_OF, [pipeline]).fetchall()
        for stream, counts in counts_of(text).items()
        if counts.rows
    }


def counted_in(cursor: duckdb.DuckDBPyConnection, table: str) -> Cells:
    """What is there. Rows that Headwater did not write have no partition, and are nobody's."""
    query = (
        f"SELECT coalesce(key_id, ''), _hw_partition, count(*) FROM {table} "
        "WHERE _hw_partition IS NOT NULL GROUP BY ALL"
    )
    return {(stream, partition): rows for stream, partition, rows in cursor.execute(query).fetchall()}


def compared(said: Cells, counted: Cells) -> dict[str, StreamCount]:
    """Both numbers of each stream, and the partitions in which they differ."""
    found: dict[str, StreamCount] = {}
    for stream, partition in sorted({*said, *counted}):
        one = found.setdefault(stream, StreamCount())
        expected, there = said.get((stream, partition), 0), counted.get((stream, partition), 0)
        one.said += expected
        one.counted += there
        if expected != there:
            one.differences = [*one.differences, Difference(partition, expected, there)]
    return found


def add_doubled(cursor: duckdb.DuckDBPyConnection, table: str, found: dict[str, StreamCount]) -> None:
    """Rows whose origin is not theirs alone."""
    query = (
        f"SELECT coalesce(any_value(key_id), ''), {ORIGIN}, count(*) FROM {table} "
        f"WHERE _hw_partition IS NOT NULL GROUP BY {ORIGIN} HAVING count(*) > 1 ORDER BY {ORIGIN}"
    )
    for stream, writer, log, seq, row, rows in each(cursor, query):
        one = found.setdefault(stream, StreamCount())
        one.doubled_rows += rows - 1
        if len(one.doubled_examples) < EXAMPLES_MAX:
            one.doubled_examples = [*one.doubled_examples, f"{writer:016x}-{log:016x}-{seq}-{row}"]


def add_copies(cursor: duckdb.DuckDBPyConnection, table: str, found: dict[str, StreamCount]) -> None:
    """Message ids that stand there more than once."""
    query = (
        "WITH twice AS (SELECT key_id, message_id FROM "
        f"{table} WHERE _hw_partition IS NOT NULL GROUP BY ALL HAVING count(*) > 1), "
        "gaps AS (SELECT key_id, received_at - lag(received_at) OVER "
        f"(PARTITION BY key_id, message_id ORDER BY received_at) AS gap FROM {table} "
        "SEMI JOIN twice USING (key_id, message_id) WHERE _hw_partition IS NOT NULL) "
        "SELECT coalesce(key_id, ''), count(gap), epoch(min(gap)) FROM gaps GROUP BY key_id"
    )
    for stream, copies, apart_s in cursor.execute(query).fetchall():
        one = found.setdefault(stream, StreamCount())
        one.copies, one.copies_apart_s = copies, None if apart_s is None else round(apart_s, 3)


def each(cursor: duckdb.DuckDBPyConnection, query: str) -> Any:
    """The rows of a query, some at a time."""
    cursor.execute(query)
    fetch: Callable[[int], list[Any]] = cursor.fetchmany
    while rows := fetch(1000):
        yield from rows

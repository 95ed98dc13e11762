"""What a replay asks of a PostgreSQL table: which origins it holds, which ids have a row, and that rows go.

All ranges are sought in one statement. The table's one index (``write.INDEX``) holds the least and greatest origin
and time of each stretch of pages: next to nothing to keep, and rows come in the order of the log, so that it finds
the few stretches that a range lies in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from headwater.destinations.load import HELD_SCHEMA
from headwater.destinations.postgres.cast import REPLACEMENT
from headwater.event.piece import Range

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STREAM = "coalesce(e.key_id, '')"
RANGES = (
    "unnest(%(writers)s::numeric[], %(logs)s::numeric[], %(firsts)s::numeric[], %(ends)s::numeric[]) "
    "AS r(writer, log, first, past)"
)
INSIDE = "e._hw_writer = r.writer AND e._hw_log = r.log AND e._hw_seq >= r.first AND e._hw_seq < r.past"


def of_ranges(ranges: Sequence[Range]) -> dict[str, object]:
    """The parameters of RANGES."""
    return {
        "writers": [int(one.writer) for one in ranges],
        "logs": [one.log for one in ranges],
        "firsts": [one.first for one in ranges],
        "ends": [one.end for one in ranges],
    }


def origins(table: str) -> str:
    """The rows of the ranges; ``table`` is quoted."""
    columns = "e._hw_writer::text, e._hw_log::text, e._hw_seq::text, e._hw_partition"
    return f"SELECT {columns}, {STREAM} FROM {RANGES} JOIN {table} e ON {INSIDE}"


def held(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """The answer to ``origins``."""
    columns = list(zip(*rows, strict=True)) or [()] * len(HELD_SCHEMA)
    numbers = [[int(value) for value in column] for column in columns[:-1]]
    return pa.table([*numbers, list(columns[-1])], schema=HELD_SCHEMA)


def present(table: str, since_us: int | None, until_us: int | None) -> str:
    """The numbers of the ids that have a row."""
    bounds = " AND e.received_at >= %(since)s" if since_us is not None else ""
    bounds += " AND e.received_at <= %(until)s" if until_us is not None else ""
    return (
        "SELECT DISTINCT w.number FROM unnest(%(numbers)s::bigint[], %(streams)s::text[], %(ids)s::text[]) "
        f"AS w(number, stream, id) JOIN {table} e ON e.message_id = w.id AND {STREAM} = w.stream{bounds}"
    )


def of_wanted(wanted: pa.Table, since_us: int | None, until_us: int | None) -> dict[str, object]:
    """The parameters of ``present``."""
    return {
        "numbers": wanted["number"].to_pylist(),
        "streams": [text.replace("\0", REPLACEMENT) for text in wanted["key_id"].to_pylist()],
        "ids": [text.replace("\0", REPLACEMENT) for text in wanted["message_id"].to_pylist()],
        "since": time_of(since_us),
        "until": time_of(until_us),
    }


def time_of(micros: int | None) -> datetime | None:
    """µs since 1970 as a time."""
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


def remove(table: str) -> str:
    """Delete the rows of the ranges; how many went of each partition and stream."""
    gone = (
        f"DELETE FROM {table} e USING {RANGES} WHERE {INSIDE} RETURNING e._hw_partition, {STREAM} AS stream"
    )
    return f"WITH gone AS ({gone}) SELECT _hw_partition, stream, count(*) FROM gone GROUP BY 1, 2"
